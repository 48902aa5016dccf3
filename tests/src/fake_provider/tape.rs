//! A streamed answer before it is sent: its frames in order, and which of them are tokens.

use bytes::Bytes;
use serde_json::Value;

/// The time of every answer. An answer is the same bytes whenever it is asked for, so that ways to it can be compared.
pub(super) const CREATED: u64 = 1_767_323_045;
/// The same, as Anthropic and Google write a time.
pub(super) const CREATED_AT: &str = "2026-01-02T03:04:05Z";

/// A piece of a stream that is written at once.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Bytes,
    pub(super) is_token: bool,
}

/// Frames in the order in which they are sent.
#[derive(Debug, Default)]
pub(super) struct Tape {
    pub(super) frames: Vec<Frame>,
}

impl Tape {
    /// Something that is no token.
    pub(super) fn push(&mut self, bytes: impl Into<Bytes>) {
        self.frames.push(Frame { bytes: bytes.into(), is_token: false });
    }

    pub(super) fn token(&mut self, bytes: impl Into<Bytes>) {
        self.frames.push(Frame { bytes: bytes.into(), is_token: true });
    }
}

/// A server-sent event without a name.
pub(super) fn data(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

/// A server-sent event named after its own `type`.
pub(super) fn named(value: &Value) -> Bytes {
    let name = value["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {value}\n\n").into()
}
