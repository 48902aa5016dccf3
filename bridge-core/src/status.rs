//! What a bridge says of itself: one value, written by one task, watched by the tray, the CLI and the tests.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use wire::{
    DeviceId, RelayId,
    relay::{Gpu, LoadedModel, Model, OllamaState, Operation, Outcome, Phase, PolicySummary, Usage},
};

/// The whole state at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The bridge's version.
    pub version: String,
    /// The workstation's name as the Lab sees it.
    pub name: String,
    /// The link to the Lab.
    pub link: LinkState,
    /// Where the device's key is kept, in words; `None` while it has not been asked for.
    pub credential_store: Option<String>,
    /// The local Ollama.
    pub ollama: OllamaState,
    /// The address at which Ollama is asked.
    pub ollama_url: String,
    /// Models that the owner shares and that run here.
    pub models: Vec<Model>,
    /// Models in memory.
    pub loaded: Vec<LoadedModel>,
    /// Graphics processors.
    pub gpus: Vec<Gpu>,
    /// Relays that wait or run.
    pub relays: Vec<RelayStatus>,
    /// Whether the owner has paused the workstation, and until when.
    pub pause: Pause,
    /// The owner's limits.
    pub policy: PolicySummary,
}

/// The link, as one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum LinkState {
    /// No Lab has approved this workstation yet.
    Unpaired,
    /// Dialling.
    Connecting {
        /// The Lab.
        lab: String,
        /// Attempts since the link was last up.
        attempt: u32,
    },
    /// The link is up.
    Online {
        /// The Lab.
        lab: String,
        /// This workstation there.
        device: DeviceId,
        /// Since when, Unix milliseconds.
        since_ms: u64,
        /// The Lab's clock minus ours in seconds, as measured at the hello.
        clock_skew_s: i64,
    },
    /// The link is down and will be tried again.
    Waiting {
        /// The Lab.
        lab: String,
        /// A stable name of the cause.
        code: String,
        /// One sentence with the cause and the next step.
        cause: String,
        /// When the next attempt comes, Unix milliseconds.
        retry_at_ms: u64,
    },
    /// The Lab said no, and trying sooner would not help: looked at again every 15 minutes or when told to.
    Refused {
        /// The Lab.
        lab: String,
        /// A stable name of the cause.
        code: String,
        /// One sentence with the cause and the next step.
        cause: String,
    },
    /// The device's key cannot be read.
    NoCredential {
        /// The Lab.
        lab: String,
        /// A stable name of the cause.
        code: String,
        /// One sentence with the cause and the next step.
        cause: String,
    },
}

/// One relay that waits or runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// Its id.
    pub id: RelayId,
    /// What is done.
    pub operation: Operation,
    /// With which model.
    pub model: String,
    /// How far it is.
    pub phase: Phase,
    /// When it came in, Unix milliseconds.
    pub started_ms: u64,
}

/// Whether the workstation takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Pause {
    /// It does.
    Serving,
    /// The owner paused it.
    Paused {
        /// Until then (Unix milliseconds), or until resumed.
        until_ms: Option<u64>,
    },
    /// The policy's quiet hours.
    Quiet,
    /// Another program uses the graphics processor, and the policy yields to it.
    Yielding,
}

/// One finished relay, for the owner's eyes: no word of its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Its id.
    pub id: RelayId,
    /// What was done.
    pub operation: Operation,
    /// With which model.
    pub model: String,
    /// When it came in, Unix milliseconds.
    pub started_ms: u64,
    /// How long it took.
    pub duration_ms: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Tokens, where Ollama told.
    pub usage: Option<Usage>,
}

/// Unix milliseconds now.
#[must_use]
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
