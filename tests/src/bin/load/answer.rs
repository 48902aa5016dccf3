//! One request and its answer, checked while it comes.

use std::{borrow::Cow, time::Instant};

use anyhow::ensure;
use serde::Deserialize;

use crate::{
    connection::{Broken, Connection, find},
    record::{Record, note},
    target::Target,
};

/// What every answer must say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    text: Vec<u8>,
    tokens: u64,
}

impl Expected {
    /// What `target` says when asked once.
    pub(crate) async fn learn(target: &Target) -> anyhow::Result<Self> {
        let mut connection = Connection::open(target).await.map_err(|broken| anyhow::anyhow!(broken.as_str()))?;
        let head = connection.send(&target.request).await.map_err(|broken| anyhow::anyhow!(broken.as_str()))?;
        let mut reader = Reader::new(target.is_streamed, None);
        let read = connection.body(&head, |data, now| reader.data(data, now)).await;
        ensure!(head.status == 200, "status {}: {}", head.status, String::from_utf8_lossy(&reader.partial));
        ensure!(read.is_ok() && reader.end() == Ok(()), "the answer broke off or made no sense");
        Ok(Self { tokens: reader.tokens.unwrap_or(0), text: reader.text })
    }
}

/// Asks once; the connection stays in `slot` if it can serve another request.
pub(crate) async fn ask(slot: &mut Option<Connection>, target: &Target, expected: &Expected, record: &mut Record) {
    let begun = Instant::now();
    loop {
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => match Connection::open(target).await {
                Ok(connection) => connection,
                Err(broken) => return record.error(broken.as_str()),
            },
        };
        let head = match connection.send(&target.request).await {
            Ok(head) => head,
            // The peer closed a connection that rested: not its fault, and nothing was begun.
            Err(Broken::ClosedBeforeHead) if connection.is_used => continue,
            Err(broken) => return record.error(broken.as_str()),
        };
        let mut reader = Reader::new(target.is_streamed && head.status == 200, Some(record));
        let read = connection.body(&head, |data, now| reader.data(data, now)).await;
        let verdict = match (head.status, read) {
            (200, Ok(())) => reader.end().and_then(|()| reader.compare(expected)),
            (_, Err(broken)) => Err(broken.as_str()),
            (_, Ok(())) => Err(""),
        };
        let first = reader.first;
        match verdict {
            Ok(()) => {
                record.answers += 1;
                record.tokens += expected.tokens;
                note(&mut record.latency, begun.elapsed());
                if let Some(first) = first {
                    note(&mut record.first, first.duration_since(begun));
                }
            }
            Err("") => record.error(format!("http_{}", head.status)),
            Err(kind) => record.error(kind),
        }
        if !head.closes && read.is_ok() {
            connection.is_used = true;
            *slot = Some(connection);
        }
        return;
    }
}

/// The reader of one answer, whole or streamed.
struct Reader<'a> {
    is_streamed: bool,
    /// Where the times between pieces go.
    record: Option<&'a mut Record>,
    /// An unfinished line, or all of an answer that is not streamed.
    partial: Vec<u8>,
    text: Vec<u8>,
    tokens: Option<u64>,
    has_finish: bool,
    has_terminator: bool,
    is_nonsense: bool,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl<'a> Reader<'a> {
    fn new(is_streamed: bool, record: Option<&'a mut Record>) -> Self {
        Self {
            is_streamed,
            record,
            partial: Vec::new(),
            text: Vec::new(),
            tokens: None,
            has_finish: false,
            has_terminator: false,
            is_nonsense: false,
            first: None,
            last: None,
        }
    }

    fn data(&mut self, mut data: &[u8], now: Instant) {
        if self.is_streamed {
            while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
                if self.partial.is_empty() {
                    self.line(&data[..end], now);
                } else {
                    let mut line = std::mem::take(&mut self.partial);
                    line.extend_from_slice(&data[..end]);
                    self.line(&line, now);
                }
                data = &data[end + 1..];
            }
        }
        self.partial.extend_from_slice(data);
    }

    fn line(&mut self, line: &[u8], now: Instant) {
        let Some(data) = line.trim_ascii().strip_prefix(b"data: ") else { return };
        if data == b"[DONE]" {
            self.has_terminator = true;
        } else if let Some(text) = plain_delta(data) {
            self.piece(text, now);
        } else {
            self.document(data, now);
        }
    }

    fn document(&mut self, data: &[u8], now: Instant) {
        let Ok(answer) = serde_json::from_slice::<Answer<'_>>(data) else {
            self.is_nonsense = true;
            return;
        };
        for choice in answer.choices {
            self.has_finish |= choice.finish_reason.is_some();
            if let Some(text) = choice.delta.or(choice.message).and_then(|message| message.content) {
                self.piece(text.as_bytes(), now);
            }
        }
        if let Some(usage) = answer.usage {
            self.tokens = Some(usage.completion_tokens);
        }
    }

    fn piece(&mut self, text: &[u8], now: Instant) {
        if text.is_empty() {
            return;
        }
        self.text.extend_from_slice(text);
        match (self.last.replace(now), &mut self.record) {
            (None, _) => self.first = Some(now),
            (Some(last), Some(record)) => note(&mut record.gap, now.duration_since(last)),
            (Some(_), None) => {}
        }
    }

    /// Looks at the end of the body; says what is wrong with the answer's form.
    fn end(&mut self) -> Result<(), &'static str> {
        if !self.is_streamed {
            let whole = std::mem::take(&mut self.partial);
            self.document(&whole, Instant::now());
            // "The first text" of an answer that comes at once is its end, and that is measured already.
            self.first = None;
            self.has_terminator = true;
        }
        match self {
            Self { is_nonsense: true, .. } => Err("nonsense"),
            Self { has_terminator: false, .. } => Err("no_terminator"),
            Self { has_finish: false, .. } => Err("no_finish_reason"),
            _ => Ok(()),
        }
    }

    fn compare(&self, expected: &Expected) -> Result<(), &'static str> {
        if self.text != expected.text {
            Err("wrong_text")
        } else if self.tokens != Some(expected.tokens) {
            Err("wrong_usage")
        } else {
            Ok(())
        }
    }
}

/// The text of an ordinary piece of a stream, found without reading the JSON; `None` means that it must be read.
fn plain_delta(data: &[u8]) -> Option<&[u8]> {
    const CONTENT: &[u8] = b"\"content\":\"";
    const UNFINISHED: &[u8] = b"\"},\"finish_reason\":null}]}";
    let text = &data[find(data, CONTENT)? + CONTENT.len()..];
    let text = text.strip_suffix(UNFINISHED)?;
    (!text.contains(&b'\\') && !text.contains(&b'"')).then_some(text)
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    choices: Vec<Choice<'a>>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    delta: Option<Message<'a>>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    finish_reason: Option<&'a str>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    content: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Usage {
    completion_tokens: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "data: {\"id\":\"c-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\" 0\"},\"finish_reason\":null}]}\n\n",
        "data: {\"id\":\"c-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" \\\"1\"},\"finish_reason\":null}]}\n\n",
        "data: {\"id\":\"c-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"id\":\"c-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    fn read(text: &str, step: usize) -> Result<(Vec<u8>, Option<u64>), &'static str> {
        let mut record = Record::default();
        let mut reader = Reader::new(true, Some(&mut record));
        for chunk in text.as_bytes().chunks(step) {
            reader.data(chunk, Instant::now());
        }
        reader.end()?;
        Ok((reader.text, reader.tokens))
    }

    #[test]
    fn a_stream_is_read_however_it_is_cut() {
        for step in 1..STREAM.len() {
            assert_eq!(read(STREAM, step), Ok((b" 0 \"1".to_vec(), Some(2))), "{step}");
        }
    }

    #[test]
    fn an_end_without_its_signs_is_an_error() {
        let cut = STREAM.split("data: [DONE]").next().unwrap();
        assert_eq!(read(cut, 7), Err("no_terminator"));
        assert_eq!(read("data: [DONE]\n", 7), Err("no_finish_reason"));
        assert_eq!(read("data: {\ndata: [DONE]\n", 7), Err("nonsense"));
    }

    #[test]
    fn answers_are_compared() {
        let expected = Expected { text: b" 0".to_vec(), tokens: 1 };
        let mut reader = Reader::new(false, None);
        reader.data(br#"{"choices":[{"index":0,"message":{"role":"assistant","content":" 0"},"finish_reason":"stop"}],"usage":{"completion_tokens":2}}"#, Instant::now());
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(reader.compare(&expected), Err("wrong_usage"));
        assert_eq!(reader.compare(&Expected { text: b" 0".to_vec(), tokens: 2 }), Ok(()));
        assert_eq!(reader.compare(&Expected { text: b" 1".to_vec(), tokens: 2 }), Err("wrong_text"));
    }
}
