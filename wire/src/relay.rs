//! The relay's vocabulary: what the Lab can ask of a bridge over HTTP/2, how a relay ends, what a bridge tells of itself.
//!
//! | request | meaning |
//! |---|---|
//! | `POST /v1/control` | long-lived, both ways: [`LabMessage`] lines go up, [`BridgeEvent`] lines come down |
//! | `PUT /v1/relays/{id}` | start one relay: header [`OPERATION`], JSON body; the answer is Ollama's, its trailer [`ENDING`] |
//! | `GET /v1/relays/{id}?from=N` | go on after a cut, from byte N of the same answer |
//! | `DELETE /v1/relays/{id}` | cancel: Ollama's connection is dropped at once |
//! | `POST /v1/models/pull` | download a model, only where the owner's policy allows it; the answer is a stream of progress |
//!
//! Nothing else exists: no path, method or header outside this page reaches anything. The bridge maps an [`Operation`] to a
//! constant path of Ollama's; no URL ever comes off the wire.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{ModelName, RelayId};

/// Path of the control stream.
pub const CONTROL_PATH: &str = "/v1/control";
/// Path of a relay, before its id.
pub const RELAYS_PATH: &str = "/v1/relays/";
/// Path for pulling a model.
pub const PULL_PATH: &str = "/v1/models/pull";

/// Request header: the [`Operation`].
pub const OPERATION: &str = "x-1k4-operation";
/// Response header: who made this answer, [`FROM_OLLAMA`] or [`FROM_BRIDGE`]. A bridge's own answer has a [`Refusal`] as its body.
pub const ORIGIN: &str = "x-1k4-origin";
/// [`ORIGIN`] of an answer of Ollama's, status and body untouched.
pub const FROM_OLLAMA: &str = "ollama";
/// [`ORIGIN`] of the bridge's own answer.
pub const FROM_BRIDGE: &str = "bridge";
/// Trailer: the [`Ending`] as JSON.
pub const ENDING: &str = "x-1k4-ending";

/// How long a generation outlives its link, and how long the Lab holds the caller for the bridge's return.
pub const RESUME_WINDOW: Duration = Duration::from_secs(60);
/// The largest request body that a bridge takes, in bytes: several images as base64.
pub const MAX_BODY: usize = 32 << 20;
/// How much of an answer the bridge keeps for a resume; when it is full the bridge stops reading Ollama and drops nothing.
pub const JOURNAL: usize = 8 << 20;
/// The Lab acknowledges received bytes at the latest after this many, so that the journal can be trimmed.
pub const ACK_EVERY: u64 = 256 << 10;

/// HTTP/2 connection window on both ends: the largest there is. h2's guard against floods of small unread frames is charged to the
/// connection, and any smaller window lets one reader who pauses kill or starve the whole link. Memory is bounded by
/// [`STREAM_WINDOW`] times the concurrent streams instead.
pub const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// HTTP/2 window of one stream.
pub const STREAM_WINDOW: u32 = 256 << 10;
/// Interval of HTTP/2 PINGs on an idle link. Never 30 or 60 s, where middleboxes cut.
pub const PING_EVERY: Duration = Duration::from_secs(10);
/// A PING without an answer for this long ends the link: together they are less than the 20 s in which people see that a workstation is
/// gone whose cable was pulled.
pub const PING_TIMEOUT: Duration = Duration::from_secs(8);
/// While a relay runs each end says something at least this often.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(5);
/// While a relay runs, silence for this long (a heartbeat and 5 s of grace) ends the link.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(10);

/// What a bridge does for the Lab. A closed list: what is not here cannot be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    /// `/api/chat`
    #[serde(rename = "ollama.chat")]
    OllamaChat,
    /// `/api/generate`
    #[serde(rename = "ollama.generate")]
    OllamaGenerate,
    /// `/api/embed`
    #[serde(rename = "ollama.embed")]
    OllamaEmbed,
    /// `/api/show`, of which only details, capabilities and model info come back
    #[serde(rename = "ollama.show")]
    OllamaShow,
    /// `/v1/chat/completions`
    #[serde(rename = "openai.chat")]
    OpenaiChat,
    /// `/v1/completions`
    #[serde(rename = "openai.completions")]
    OpenaiCompletions,
    /// `/v1/embeddings`
    #[serde(rename = "openai.embeddings")]
    OpenaiEmbeddings,
    /// `/v1/responses`
    #[serde(rename = "openai.responses")]
    OpenaiResponses,
    /// `/v1/messages`
    #[serde(rename = "anthropic.messages")]
    AnthropicMessages,
}

/// Whose manners a caller speaks: decides how errors look and how a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Ollama's own API: NDJSON, `{"error": "text"}`.
    Ollama,
    /// OpenAI's: SSE, `{"error": {message, type, param, code}}`.
    Openai,
    /// Anthropic's: typed SSE, `{"type": "error", "error": {type, message}}`.
    Anthropic,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 9] = [
        Self::OllamaChat,
        Self::OllamaGenerate,
        Self::OllamaEmbed,
        Self::OllamaShow,
        Self::OpenaiChat,
        Self::OpenaiCompletions,
        Self::OpenaiEmbeddings,
        Self::OpenaiResponses,
        Self::AnthropicMessages,
    ];

    /// The name on the wire, in policies and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OllamaChat => "ollama.chat",
            Self::OllamaGenerate => "ollama.generate",
            Self::OllamaEmbed => "ollama.embed",
            Self::OllamaShow => "ollama.show",
            Self::OpenaiChat => "openai.chat",
            Self::OpenaiCompletions => "openai.completions",
            Self::OpenaiEmbeddings => "openai.embeddings",
            Self::OpenaiResponses => "openai.responses",
            Self::AnthropicMessages => "anthropic.messages",
        }
    }

    /// Whose API it is.
    #[must_use]
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed | Self::OllamaShow => Dialect::Ollama,
            Self::OpenaiChat | Self::OpenaiCompletions | Self::OpenaiEmbeddings | Self::OpenaiResponses => Dialect::Openai,
            Self::AnthropicMessages => Dialect::Anthropic,
        }
    }

    /// Whether an answer is streamed when the body says nothing of it.
    #[must_use]
    pub const fn streams_by_default(self) -> bool {
        matches!(self, Self::OllamaChat | Self::OllamaGenerate)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no [`Operation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such operation")]
pub struct UnknownOperation;

impl FromStr for Operation {
    type Err = UnknownOperation;

    fn from_str(text: &str) -> Result<Self, UnknownOperation> {
        Self::ALL.into_iter().find(|o| o.as_str() == text).ok_or(UnknownOperation)
    }
}

/// How a relay ended, with what it used. Travels as the trailer [`ENDING`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// Tokens as Ollama counted them; `None` when it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// The end of a stream has faces; each is accounted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Ollama finished with its dialect's terminator.
    Complete,
    /// Somebody stopped it: the caller, or the owner at the workstation.
    Cancelled,
    /// It broke.
    Failed(Failure),
}

/// Why a relay broke after its answer had begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// Ollama said so in the stream, or answered with an error status.
    OllamaError,
    /// Ollama's stream ended without its terminator: on its `/v1` surfaces this is how an error's text gets lost.
    OllamaTruncated,
    /// Ollama's connection broke.
    OllamaLost,
    /// An answer claimed to come from another computer than this one.
    NotLocal,
    /// The owner's limit on the time of one request ran out.
    TimeLimit,
    /// A single line of the answer was longer than the bridge holds.
    TooLarge,
    /// The link was away for longer than [`RESUME_WINDOW`], or the bridge no longer knows the relay.
    LinkLost,
}

/// Tokens of one relay, as Ollama counted them. `Some(0)` and `None` differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub input: u64,
    /// Tokens of the answer.
    pub output: u64,
}

/// A bridge's own answer instead of Ollama's: the body of a response whose [`ORIGIN`] is [`FROM_BRIDGE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For programs.
    pub code: RefusalCode,
    /// For people: one sentence with the cause and the next step. Never holds anything of a prompt.
    pub message: String,
    /// When it may be worth trying again, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

impl Refusal {
    /// Without a hint when to try again.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_s: None }
    }
}

/// Why a bridge did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The request is not on the list of this page.
    Unlisted,
    /// The body is not the JSON object that the operation takes.
    InvalidBody,
    /// The body is larger than [`MAX_BODY`].
    TooLarge,
    /// A field that the owner's policy does not grant.
    FieldNotAllowed,
    /// The owner does not share this model (or there is none of that name).
    ModelNotShared,
    /// The owner does not share this operation.
    OperationNotShared,
    /// The model would run on somebody else's computer.
    ModelNotLocal,
    /// The owner has paused the workstation, or these are quiet hours.
    Paused,
    /// As many requests wait as the owner lets wait.
    QueueFull,
    /// Ollama does not answer.
    OllamaUnavailable,
    /// Ollama is older than the oldest version that is safe to relay to.
    OllamaTooOld,
    /// The relay is not known (any more).
    UnknownRelay,
    /// The bytes asked for were acknowledged earlier and are gone.
    OffsetGone,
}

impl RefusalCode {
    /// The HTTP status of the refusal on the link. Decided here, once.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Unlisted | Self::InvalidBody | Self::FieldNotAllowed => 400,
            Self::OperationNotShared | Self::ModelNotLocal => 403,
            Self::ModelNotShared | Self::UnknownRelay => 404,
            Self::OffsetGone => 410,
            Self::TooLarge => 413,
            Self::Paused | Self::QueueFull | Self::OllamaUnavailable | Self::OllamaTooOld => 503,
        }
    }

    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unlisted => "unlisted",
            Self::InvalidBody => "invalid_body",
            Self::TooLarge => "too_large",
            Self::FieldNotAllowed => "field_not_allowed",
            Self::ModelNotShared => "model_not_shared",
            Self::OperationNotShared => "operation_not_shared",
            Self::ModelNotLocal => "model_not_local",
            Self::Paused => "paused",
            Self::QueueFull => "queue_full",
            Self::OllamaUnavailable => "ollama_unavailable",
            Self::OllamaTooOld => "ollama_too_old",
            Self::UnknownRelay => "unknown_relay",
            Self::OffsetGone => "offset_gone",
        }
    }
}

/// Lab to bridge on the control stream, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LabMessage {
    /// These relays' answers have arrived up to these bytes; the journal may forget them.
    Ack {
        /// Relay and the number of bytes that arrived.
        received: Vec<(RelayId, u64)>,
    },
    /// These relays are over on the Lab's side; the journal may forget everything of them.
    Done {
        /// Which.
        relays: Vec<RelayId>,
    },
    /// The Lab is alive. Sent every [`HEARTBEAT_EVERY`] while a relay runs.
    Heartbeat,
    /// The Lab is going away: open a new link, finish the old relays there or here, then close this one.
    Drain,
    /// The last message on this link, which ends now.
    Goodbye {
        /// Why.
        why: Goodbye,
    },
}

/// Why the Lab ends a link that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goodbye {
    /// A newer link of the same device has taken its place. Dialling again would only throw that one out.
    Superseded,
    /// The device was revoked.
    Revoked,
}

/// Bridge to Lab on the control stream, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum BridgeEvent {
    /// Everything, first thing on a new link, and again whenever something other than a relay's phase changes.
    Snapshot(Box<Snapshot>),
    /// A relay has come this far.
    Relay {
        /// Which.
        id: RelayId,
        /// How far.
        phase: Phase,
    },
    /// The bridge is alive. Sent every [`HEARTBEAT_EVERY`] while a relay runs.
    Heartbeat,
}

/// A line of the answer to [`PULL_PATH`]. The last one is a step named `success`, or a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PullLine {
    /// It did not finish. What was fetched is kept.
    Failed {
        /// A sentence with the cause and the next step.
        error: String,
    },
    /// So far.
    Progress(PullProgress),
}

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullProgress {
    /// The step, in Ollama's words; the last one is `success`.
    pub step: String,
    /// The layer that is being fetched.
    pub digest: Option<String>,
    /// Bytes of that layer that are here.
    pub completed: Option<u64>,
    /// Bytes of that layer in all.
    pub total: Option<u64>,
}

/// Where a relay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for its turn at the workstation.
    Queued,
    /// Ollama has it and is silent: loading the model or reading the prompt.
    Loading,
    /// Tokens flow.
    Generating,
}

/// What a bridge shows of its workstation. Only what the owner shares is in it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// The workstation's name.
    pub name: String,
    /// The bridge's version.
    pub version: String,
    /// Whether Ollama answers.
    pub ollama: OllamaState,
    /// The shared models.
    pub models: Vec<Model>,
    /// Which of them are in memory.
    pub loaded: Vec<LoadedModel>,
    /// The graphics processors.
    pub gpus: Vec<Gpu>,
    /// The owner's limits that a caller may want to know.
    pub policy: PolicySummary,
    /// Relays that are alive, so that a Lab that has forgotten one can have it ended.
    pub relays: Vec<RelayId>,
    /// How many requests wait for their turn.
    pub queued: u32,
}

/// Ollama's health as the bridge sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum OllamaState {
    /// Not asked yet.
    #[default]
    Unknown,
    /// It answers.
    Running {
        /// Its version.
        version: String,
    },
    /// It answers and is older than 0.17.1.
    TooOld {
        /// Its version.
        version: String,
    },
    /// It does not answer.
    Unreachable {
        /// A sentence with the cause.
        cause: String,
    },
}

/// A model on the workstation, with what `/api/tags` says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its name with tag.
    pub name: ModelName,
    /// RFC 3339, as Ollama writes it.
    #[serde(default)]
    pub modified_at: String,
    /// Bytes on disk.
    #[serde(default)]
    pub size: u64,
    /// SHA-256 of its manifest, hex.
    #[serde(default)]
    pub digest: String,
    /// Format, family, parameter size, quantisation: as Ollama says it.
    #[serde(default)]
    pub details: serde_json::Value,
    /// `completion`, `tools`, `vision`, `embedding`, `thinking` …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// A model in memory, with what `/api/ps` says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadedModel {
    /// Its name with tag.
    pub name: ModelName,
    /// Bytes in all.
    #[serde(default)]
    pub size: u64,
    /// Bytes of them on the graphics processor.
    #[serde(default)]
    pub size_vram: u64,
    /// Tokens of context it was loaded with.
    #[serde(default)]
    pub context_length: u64,
    /// When Ollama will unload it, RFC 3339.
    #[serde(default)]
    pub expires_at: String,
}

/// A graphics processor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Busy, in per cent, where the driver tells.
    pub busy_percent: Option<f32>,
    /// Bytes of video memory in use, where the driver tells.
    pub memory_used: Option<u64>,
    /// Bytes of video memory in all, where the driver tells.
    pub memory_total: Option<u64>,
}

/// The owner's limits as far as a caller may want to know them. The Lab can see them and never widen them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicySummary {
    /// Requests at once.
    pub max_concurrent: u32,
    /// Requests that may wait.
    pub max_queued: u32,
    /// Operations that are shared.
    pub operations: Vec<Operation>,
    /// Whether the workstation takes no work now: a pause, or quiet hours.
    pub paused: bool,
    /// Whether the Lab may have models pulled.
    pub may_pull: bool,
    /// The largest context, in tokens, that a request may ask for; older bridges do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_ctx: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_keep_their_names() {
        for operation in Operation::ALL {
            assert_eq!(operation.as_str().parse(), Ok(operation));
            assert_eq!(serde_json::to_string(&operation).unwrap(), format!("\"{operation}\""));
        }
        assert_eq!("ollama.delete".parse::<Operation>(), Err(UnknownOperation));
    }

    #[test]
    fn the_wire_is_what_it_was() {
        let ending = Ending { outcome: Outcome::Failed(Failure::OllamaTruncated), usage: Some(Usage { input: 0, output: 7 }) };
        let text = r#"{"outcome":{"failed":"ollama_truncated"},"usage":{"input":0,"output":7}}"#;
        assert_eq!(serde_json::to_string(&ending).unwrap(), text);
        assert_eq!(serde_json::from_str::<Ending>(text).unwrap(), ending);
        assert_eq!(
            serde_json::to_string(&Ending { outcome: Outcome::Complete, usage: None }).unwrap(),
            r#"{"outcome":"complete"}"#
        );
        assert_eq!(serde_json::to_string(&LabMessage::Drain).unwrap(), r#"{"type":"drain"}"#);
        assert_eq!(serde_json::to_string(&RefusalCode::QueueFull).unwrap(), format!("\"{}\"", RefusalCode::QueueFull.as_str()));
    }
}
