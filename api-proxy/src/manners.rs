//! How a body speaks: what it may say while a model loads, and how it says in the middle that it broke.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use wire::{
    Content, RequestId,
    relay::{Dialect, Operation},
};

use crate::{Endpoint, Protocol, Surface, error::ProxyError};

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// Server-sent events.
    Events,
    /// One JSON object a line.
    Lines,
    /// One JSON document.
    Json,
    /// Anything else: nothing may be added to it.
    Opaque,
}

impl Manners {
    /// Those of a good answer that has not begun.
    pub(crate) fn expected(operation: Operation, streamed: bool) -> Self {
        match (streamed, operation.dialect()) {
            (false, _) => Self::Json,
            (true, Dialect::Ollama) => Self::Lines,
            (true, Dialect::Openai | Dialect::Anthropic) => Self::Events,
        }
    }

    /// Those of an answer with this content type.
    pub(crate) fn of(content_type: &HeaderValue) -> Self {
        let essence = content_type.as_bytes().split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        match essence.to_ascii_lowercase().as_slice() {
            b"text/event-stream" => Self::Events,
            b"application/x-ndjson" => Self::Lines,
            b"application/json" => Self::Json,
            _ => Self::Opaque,
        }
    }

    /// Those of a provider's answer. One that says of a stream that it is something else, or nothing, is believed about the rest.
    pub(crate) fn of_answer(content_type: Option<&HeaderValue>, status: StatusCode, streamed: bool) -> Self {
        match content_type.map_or(Self::Opaque, Self::of) {
            Self::Opaque if streamed && status.is_success() => Self::Events,
            told => told,
        }
    }

    /// The content type under which an answer begins before its workstation has said anything.
    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
            Self::Json => "application/json",
            Self::Opaque => "application/octet-stream",
        })
    }

    /// What can be said before the first byte without meaning anything; `None` where every byte would: clients of Ollama's read
    /// each line as JSON.
    pub(crate) fn keepalive(self) -> Option<Content> {
        match self {
            Self::Events => Some(Bytes::from_static(b": keepalive\n\n").into()),
            Self::Json => Some(Bytes::from_static(b"\n").into()),
            Self::Lines | Self::Opaque => None,
        }
    }

    /// The words that tell the caller in the middle of a body that it broke; `None` where only breaking off can tell.
    pub(crate) fn last_words(
        self,
        tail: Tail,
        protocol: Protocol,
        surface: Surface,
        error: &ProxyError,
        request: RequestId,
    ) -> Option<Content> {
        let json = error.json(protocol, request);
        match self {
            Self::Events if surface == Surface::Model(Endpoint::OpenaiResponses) => {
                Some(named_event(tail, ERROR_EVENT, &error.responses_json()))
            }
            Self::Events => Some(event(tail, protocol, &json)),
            Self::Lines => Some(concat(&[tail.to_line(), &json, b"\n"])),
            // Nothing but blanks went out: the error is the whole document.
            Self::Json if tail == Tail::Nothing => Some(concat(&[&json])),
            Self::Json | Self::Opaque => None,
        }
    }
}

/// An error event of the protocol, whose data is a JSON object.
///
/// The object may be one that Ollama laid out over several lines. A line's end inside it can only be a blank between two tokens, and
/// so it can be another blank.
pub(crate) fn event(tail: Tail, protocol: Protocol, json: &[u8]) -> Content {
    match protocol {
        Protocol::Anthropic => named_event(tail, ERROR_EVENT, json),
        Protocol::Openai | Protocol::Gemini | Protocol::Ollama => named_event(tail, b"", json),
    }
}

const ERROR_EVENT: &[u8] = b"event: error\n";

fn named_event(tail: Tail, name: &[u8], json: &[u8]) -> Content {
    let data: Vec<u8> = json.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect();
    concat(&[tail.to_event(), name, b"data: ", &data, b"\n\n"])
}

fn concat(parts: &[&[u8]]) -> Content {
    Bytes::from(parts.concat()).into()
}

/// Where in a line the last byte stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tail {
    /// No byte of the answer went out.
    Nothing,
    /// In the middle of a line.
    InLine,
    /// At the end of a line.
    Line,
    /// After an empty line.
    Blank,
}

impl Tail {
    /// Where it stands after these bytes.
    #[must_use]
    pub(crate) fn after(self, bytes: &[u8]) -> Self {
        match bytes {
            [] => self,
            [.., b'\n', b'\n'] => Self::Blank,
            [b'\n'] if matches!(self, Self::Line | Self::Blank) => Self::Blank,
            [.., b'\n'] => Self::Line,
            _ => Self::InLine,
        }
    }

    /// What is missing up to the beginning of a line.
    fn to_line(self) -> &'static [u8] {
        match self {
            Self::InLine => b"\n",
            Self::Nothing | Self::Line | Self::Blank => b"",
        }
    }

    /// What is missing up to the beginning of an event.
    fn to_event(self) -> &'static [u8] {
        match self {
            Self::InLine => b"\n\n",
            Self::Line => b"\n",
            Self::Nothing | Self::Blank => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::relay::Failure;

    use super::*;

    #[test]
    fn the_tail_is_the_same_however_the_bytes_are_split() {
        for (text, tail) in [
            ("", Tail::Nothing),
            ("data: x", Tail::InLine),
            ("data: x\n", Tail::Line),
            ("data: x\n\n", Tail::Blank),
            ("data: x\n\n\n", Tail::Blank),
            ("x\n\ny", Tail::InLine),
            ("\n", Tail::Line),
        ] {
            assert_eq!(Tail::Nothing.after(text.as_bytes()), tail, "{text:?}");
            assert_eq!(text.bytes().fold(Tail::Nothing, |t, b| t.after(&[b])), tail, "{text:?} byte by byte");
        }
    }

    #[test]
    fn content_types_are_told_apart() {
        let of = |text| Manners::of(&HeaderValue::from_static(text));
        assert_eq!(of("text/event-stream"), Manners::Events);
        assert_eq!(of("Text/Event-Stream; charset=utf-8"), Manners::Events);
        assert_eq!(of("application/x-ndjson"), Manners::Lines);
        assert_eq!(of("application/json; charset=utf-8"), Manners::Json);
        assert_eq!(of("text/plain"), Manners::Opaque);
        assert_eq!(of(""), Manners::Opaque);
    }

    #[test]
    fn a_stream_under_another_name_is_a_stream() {
        let of = |text: Option<&'static str>, status, streamed| {
            Manners::of_answer(text.map(HeaderValue::from_static).as_ref(), status, streamed)
        };
        for text in [None, Some(""), Some("text/plain"), Some("application/octet-stream"), Some("text/event-stream")] {
            assert_eq!(of(text, StatusCode::OK, true), Manners::Events, "{text:?}");
        }
        assert_eq!(of(Some("application/json"), StatusCode::OK, true), Manners::Json);
        assert_eq!(of(Some("text/plain"), StatusCode::OK, false), Manners::Opaque);
        assert_eq!(of(Some("text/html"), StatusCode::BAD_GATEWAY, true), Manners::Opaque);
    }

    #[test]
    fn last_words_begin_where_a_reader_looks_for_them() {
        let request = "req_00000000000000000000000000".parse().unwrap();
        let error = ProxyError::Broken(Failure::NotLocal);
        let said = |words: Option<Content>| words.map(|words| String::from_utf8(words.for_routing().to_vec()).unwrap());
        let chat = Surface::Model(Endpoint::OpenaiChat);
        let say = |manners: Manners, protocol, tail| said(manners.last_words(tail, protocol, chat, &error, request));
        let sentence = "the answer did not come from the workstation itself: choose a model that runs there";
        let openai = format!(
            "data: {{\"error\":{{\"message\":\"{sentence}\",\"type\":\"api_error\",\"param\":null,\"code\":\"model_not_local\"}}}}\n\n"
        );
        assert_eq!(say(Manners::Events, Protocol::Openai, Tail::Blank), Some(openai.clone()));
        assert_eq!(say(Manners::Events, Protocol::Openai, Tail::Nothing), Some(openai.clone()));
        assert_eq!(say(Manners::Events, Protocol::Openai, Tail::Line), Some(format!("\n{openai}")));
        assert_eq!(say(Manners::Events, Protocol::Openai, Tail::InLine), Some(format!("\n\n{openai}")));
        let anthropic = format!(
            "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"api_error\",\"message\":\"{sentence}\"}},\"request_id\":\"{request}\"}}\n\n"
        );
        assert_eq!(say(Manners::Events, Protocol::Anthropic, Tail::Blank), Some(anthropic));
        let responses = Surface::Model(Endpoint::OpenaiResponses);
        assert_eq!(
            said(Manners::Events.last_words(Tail::Line, Protocol::Openai, responses, &error, request)),
            Some(format!(
                "\nevent: error\ndata: {{\"type\":\"error\",\"code\":\"model_not_local\",\"message\":\"{sentence}\",\"param\":null,\"sequence_number\":0}}\n\n"
            ))
        );
        let ollama = format!("{{\"error\":\"{sentence}\"}}\n");
        assert_eq!(say(Manners::Lines, Protocol::Ollama, Tail::Line), Some(ollama.clone()));
        assert_eq!(say(Manners::Lines, Protocol::Ollama, Tail::InLine), Some(format!("\n{ollama}")));
        assert_eq!(say(Manners::Json, Protocol::Ollama, Tail::Nothing), Some(ollama.trim_end().to_owned()));
        assert_eq!(say(Manners::Json, Protocol::Openai, Tail::InLine), None);
        assert_eq!(say(Manners::Opaque, Protocol::Openai, Tail::Nothing), None);
    }
}
