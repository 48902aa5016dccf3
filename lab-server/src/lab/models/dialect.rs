//! The dialects that models' hosts speak: from a [`Prompt`] to the body of a request, and from the messages of a streamed answer to
//! what was said.
//!
//! OpenAI's chat completions are spoken to OpenAI, xAI, Azure and everybody compatible; Anthropic's Messages, Gemini's
//! `streamGenerateContent` and Ollama's `/api/chat` to whom they belong. A provider's text is never an error's text here.

mod anthropic;
mod gemini;
mod ollama;
mod openai;

use api_proxy::{Endpoint, Offer, ProviderKind};
use serde_json::{Value, json};

use super::frames::Framing;
use crate::lab::prompt::{Prompt, Stop};

/// Tokens of an answer where nobody says how many, or as many as the model gives where the catalogue says that these are fewer.
///
/// Not what the catalogue says throughout: what a request may cost at most is set aside while it runs, and 128,000 tokens of answer are
/// 3.84 credits at 30 dollars a million, so that somebody with 3 credits could ask such a model nothing. At 16,384 it is 0.49. It is
/// some 50 KB of text, more than one answer of an agent has in a file; whoever wants more says so in the conversation's settings, and
/// an answer that reaches it ends with `length`.
const USUAL_OUTPUT: u64 = 16_384;

/// How one model is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lab) enum Dialect {
    /// Chat completions, and by which name the limit of the answer goes.
    Openai {
        limit: &'static str,
    },
    Anthropic,
    Gemini,
    Ollama,
}

/// Tokens that the model's host is known to take or to need.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::lab) struct Limits {
    /// What the model answers with at most.
    pub(in crate::lab) output: Option<u64>,
    /// The context that a workstation is asked to load the model with.
    pub(in crate::lab) context: Option<u64>,
}

/// Something that a message said.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::lab) enum Piece {
    Text(String),
    Reasoning(String),
    /// A whole call. Its id may be missing.
    Call {
        id: Option<String>,
        tool: String,
        arguments: Value,
        echo: Option<String>,
    },
    /// Why it stopped.
    Stop(Stop),
    /// Nanoseconds for loading the model.
    Loaded(u64),
    /// It failed, in whatever words.
    Failed,
}

/// Reads the messages of one answer.
pub(in crate::lab) enum Reader {
    Openai(openai::Reader),
    Anthropic(anthropic::Reader),
    Gemini,
    Ollama,
}

impl Dialect {
    /// How a cloud model is spoken to; `None` where it cannot be talked with.
    pub(in crate::lab) fn of(offer: &Offer) -> Option<Self> {
        let has = |endpoint| offer.endpoints.contains(&endpoint);
        if has(Endpoint::AnthropicMessages) {
            Some(Self::Anthropic)
        } else if has(Endpoint::GeminiStreamGenerate) {
            Some(Self::Gemini)
        } else if has(Endpoint::OpenaiChat) {
            // Models that reason take the newer name only; servers of one's own mostly know the older one only.
            let limit = match offer.kind {
                ProviderKind::OpenaiCompatible => "max_tokens",
                _ => "max_completion_tokens",
            };
            Some(Self::Openai { limit })
        } else {
            None
        }
    }

    /// Where it is asked.
    pub(in crate::lab) fn path(self, model: &str) -> String {
        match self {
            Self::Openai { .. } => "/v1/chat/completions".to_owned(),
            Self::Anthropic => "/v1/messages".to_owned(),
            Self::Gemini => format!("/v1beta/models/{}:streamGenerateContent?alt=sse", escaped(model)),
            Self::Ollama => "/api/chat".to_owned(),
        }
    }

    /// What it is asked.
    pub(in crate::lab) fn body(self, prompt: &Prompt, limits: Limits) -> Value {
        let wanted = prompt.choice.max_output_tokens.map_or(USUAL_OUTPUT, u64::from);
        let limit = limits.output.filter(|most| *most > 0).map_or(wanted, |most| wanted.min(most));
        match self {
            Self::Openai { limit: name } => openai::body(prompt, name, limit),
            Self::Anthropic => anthropic::body(prompt, limit),
            Self::Gemini => gemini::body(prompt, limit),
            Self::Ollama => ollama::body(prompt, limits.context),
        }
    }

    /// How the messages of its answers are told apart.
    pub(in crate::lab) const fn framing(self) -> Framing {
        match self {
            Self::Ollama => Framing::Lines,
            Self::Openai { .. } | Self::Anthropic | Self::Gemini => Framing::Events,
        }
    }

    pub(in crate::lab) fn reader(self) -> Reader {
        match self {
            Self::Openai { .. } => Reader::Openai(openai::Reader::default()),
            Self::Anthropic => Reader::Anthropic(anthropic::Reader::default()),
            Self::Gemini => Reader::Gemini,
            Self::Ollama => Reader::Ollama,
        }
    }
}

impl Reader {
    /// Reads one message. What is no message of the dialect's says nothing.
    pub(in crate::lab) fn read(&mut self, message: &[u8], say: &mut impl FnMut(Piece)) {
        let Ok(message) = serde_json::from_slice::<Value>(message) else { return };
        match self {
            Self::Openai(reader) => reader.read(&message, say),
            Self::Anthropic(reader) => reader.read(&message, say),
            Self::Gemini => gemini::read(&message, say),
            Self::Ollama => ollama::read(&message, say),
        }
    }

    /// No message follows: what was begun is as whole as it gets.
    pub(in crate::lab) fn finish(&mut self, say: &mut impl FnMut(Piece)) {
        match self {
            Self::Openai(reader) => reader.finish(say),
            Self::Anthropic(reader) => reader.finish(say),
            Self::Gemini | Self::Ollama => {}
        }
    }
}

/// Arguments that came as text: a value if they are one, and the text itself for the model to be told so if not.
fn arguments(text: &str) -> Value {
    if text.trim().is_empty() {
        return json!({});
    }
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Arguments for a host that takes nothing but objects.
fn object(arguments: &Value) -> Value {
    if arguments.is_object() { arguments.clone() } else { json!({ "not_an_object": arguments }) }
}

/// A text that says something.
fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// A number as a person wrote it: 0.7, and not what is next to it in half the bits.
fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// A model's name as a segment of a path.
fn escaped(name: &str) -> String {
    use std::fmt::Write as _;

    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing into a text does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests;
