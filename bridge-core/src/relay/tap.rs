//! The side tap on Ollama's answer: how it ended, and what it used.
//!
//! The bytes go on to the caller as they come, the same [`Bytes`], uncopied. The tap looks at them in passing, and it cannot break
//! them: what it does not understand it lets through. One thing it takes out: the usage that the guard asks Ollama for on
//! OpenAI's streams when the caller had not asked. Only there is a line held back until it is whole; Ollama writes whole lines.
//!
//! The end of a stream has to be read from the stream. On its `/v1` surfaces Ollama loses the text of an error in the middle of a
//! stream and simply closes, so an end without the dialect's terminator is a failure and never a clean end.

use std::{borrow::Cow, vec};

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use wire::relay::{Dialect, Ending, Failure, Operation, Outcome, Usage};

/// The longest line, and the longest unstreamed answer that is read for its usage, in bytes. The last line of `/api/generate`
/// carries the whole context as numbers, 1 MiB and more; Ollama's own client stops at 8 MB.
const HELD: usize = 16 << 20;

/// Looks at one answer while it passes.
pub(crate) struct Tap {
    operation: Operation,
    form: Form,
    seen: Seen,
}

/// How an answer is read.
enum Form {
    /// Not at all: an error's status says what there is to know.
    Error,
    /// One JSON document.
    Document(Document),
    /// A line after another: NDJSON or SSE.
    Lines(Lines),
}

impl Tap {
    /// For the answer to a request as the guard let it pass: `streamed` and `caller_wants_usage` are its words, `status` Ollama's.
    #[must_use]
    pub(crate) fn new(operation: Operation, streamed: bool, caller_wants_usage: bool, status: u16) -> Self {
        let has_asked_usage = matches!(operation, Operation::OpenaiChat | Operation::OpenaiCompletions) && !caller_wants_usage;
        let form = match (status, streamed) {
            (400.., _) => Form::Error,
            (_, false) => Form::Document(Document::default()),
            (_, true) => Form::Lines(Lines { partial: Vec::new(), holds: has_asked_usage }),
        };
        Self { operation, form, seen: Seen::default() }
    }

    /// Takes the next bytes of Ollama's and gives what goes on to the caller now.
    ///
    /// # Errors
    /// [`Failure::NotLocal`] when a line claims to come from another computer, [`Failure::TooLarge`] when a line does not end.
    /// Nothing of these bytes may go on then.
    pub(crate) fn feed(&mut self, chunk: Bytes) -> Result<Fed, Failure> {
        match &mut self.form {
            Form::Error => Ok(Fed::one(chunk)),
            Form::Document(document) => {
                document.read(&chunk);
                Ok(Fed::one(chunk))
            }
            Form::Lines(lines) => lines.read(chunk, |line| self.seen.line(self.operation, line)),
        }
    }

    /// What Ollama has said so far that it used.
    #[must_use]
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.seen.usage
    }

    /// After Ollama's last byte: bytes that had been held back and go on to the caller, and the ending.
    #[must_use]
    pub(crate) fn finish(mut self) -> (Bytes, Ending) {
        let (rest, outcome) = match self.form {
            Form::Error => (Bytes::new(), Some(Outcome::Failed(Failure::OllamaError))),
            Form::Document(document) => {
                let outcome = document.outcome(self.operation, &mut self.seen);
                (Bytes::new(), Some(outcome))
            }
            Form::Lines(lines) => {
                // A single document where a stream was expected has no line break at its end: a model that is only loaded.
                let last = if lines.partial.is_empty() { Ok(Part::Whole) } else { self.seen.line(self.operation, &lines.partial) };
                let rest = match &last {
                    Ok(part) if lines.holds => part.of(lines.partial.into()).collect::<Vec<_>>().concat(),
                    _ => Vec::new(),
                };
                (rest.into(), last.err().map(Outcome::Failed).or(self.seen.outcome))
            }
        };
        let outcome = outcome.unwrap_or(Outcome::Failed(Failure::OllamaTruncated));
        (rest, Ending { outcome, usage: self.seen.usage })
    }
}

/// What goes on to the caller, in order. Never an empty piece.
pub(crate) struct Fed {
    first: Option<Bytes>,
    more: vec::IntoIter<Bytes>,
}

impl Fed {
    fn one(bytes: Bytes) -> Self {
        Self { first: Some(bytes).filter(|b| !b.is_empty()), more: Vec::new().into_iter() }
    }

    fn many(pieces: Vec<Bytes>) -> Self {
        Self { first: None, more: pieces.into_iter() }
    }
}

impl Iterator for Fed {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.first.take().or_else(|| self.more.next())
    }
}

/// Puts lines together. A line that lies within one chunk, which is nearly every one, is looked at where it lies.
struct Lines {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
    /// Whether a line goes on only when it is whole, because it may have to be taken out.
    holds: bool,
}

impl Lines {
    fn read(&mut self, chunk: Bytes, mut look: impl FnMut(&[u8]) -> Result<Part, Failure>) -> Result<Fed, Failure> {
        let mut pieces = Vec::new();
        let mut start = 0;
        // What lies before this has gone on, or been taken out.
        let mut passed = 0;
        while let Some(len) = chunk[start..].iter().position(|byte| *byte == b'\n') {
            let end = start + len + 1;
            if self.partial.is_empty() {
                match look(&chunk[start..end])? {
                    Part::Whole => {}
                    part if self.holds => {
                        pieces.push(chunk.slice(passed..start));
                        pieces.extend(part.of(chunk.slice(start..end)));
                        passed = end;
                    }
                    _ => {}
                }
            } else {
                self.hold(&chunk[start..end])?;
                let line = std::mem::take(&mut self.partial);
                let part = look(&line)?;
                if self.holds {
                    pieces.extend(part.of(line.into()));
                    passed = end;
                }
            }
            start = end;
        }
        self.hold(&chunk[start..])?;
        if !self.holds {
            return Ok(Fed::one(chunk));
        }
        pieces.push(chunk.slice(passed..start));
        pieces.retain(|piece| !piece.is_empty());
        Ok(Fed::many(pieces))
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.partial.len() + bytes.len() > HELD {
            return Err(Failure::TooLarge);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

/// How much of a line the caller gets.
enum Part {
    /// All of it.
    Whole,
    /// Nothing.
    Nothing,
    /// All but these bytes.
    Without { start: usize, end: usize },
}

impl Part {
    fn of(&self, line: Bytes) -> impl Iterator<Item = Bytes> + use<> {
        let (head, tail) = match *self {
            Self::Whole => (line, Bytes::new()),
            Self::Nothing => (Bytes::new(), Bytes::new()),
            Self::Without { start, end } => (line.slice(..start), line.slice(end..)),
        };
        [head, tail].into_iter().filter(|piece| !piece.is_empty())
    }
}

/// What the lines have said.
#[derive(Default)]
struct Seen {
    outcome: Option<Outcome>,
    usage: Option<Usage>,
    /// An SSE frame was taken out: the empty line that ends it has to go with it.
    is_frame_cut: bool,
}

impl Seen {
    /// Looks at one line, with or without its line break.
    fn line(&mut self, operation: Operation, line: &[u8]) -> Result<Part, Failure> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if operation.dialect() == Dialect::Ollama {
            self.native(text)?;
            return Ok(Part::Whole);
        }
        if std::mem::take(&mut self.is_frame_cut) && text.is_empty() {
            return Ok(Part::Nothing);
        }
        let Some(data) = text.strip_prefix(b"data:").map(|data| data.strip_prefix(b" ").unwrap_or(data)) else {
            return Ok(Part::Whole);
        };
        // Where the data begins in the line, for what has to be cut out of it.
        let offset = text.len() - data.len();
        Ok(match operation {
            Operation::OpenaiResponses => {
                self.responses(data);
                Part::Whole
            }
            Operation::AnthropicMessages => {
                self.anthropic(data);
                Part::Whole
            }
            _ => self.openai(data, offset),
        })
    }

    fn native(&mut self, text: &[u8]) -> Result<(), Failure> {
        // Nearly every line is a token, and says so.
        let marks = Marks::of(text);
        if marks.is_only_a_token() {
            return Ok(());
        }
        let Ok(frame) = serde_json::from_slice::<NativeFrame<'_>>(text) else { return Ok(()) };
        if frame.is_remote() {
            return Err(Failure::NotLocal);
        }
        if frame.error.is_some() {
            self.fail();
        } else if frame.done {
            self.complete();
            self.usage = frame.usage();
        }
        Ok(())
    }

    /// Chat and completions. Usage stands in a frame of its own without choices; `/v1/completions` also writes a usage of zero into
    /// every other frame.
    fn openai(&mut self, data: &[u8], offset: usize) -> Part {
        /// The end of nearly every frame of `/v1/completions`.
        const NO_USAGE_YET: &[u8] = br#","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}"#;

        if data == b"[DONE]" {
            self.complete();
            return Part::Whole;
        }
        if let Some(before) = data.strip_suffix(NO_USAGE_YET)
            && !before.ends_with(br#""choices":[]"#)
            && !contains(before, br#""choices":[],"#)
        {
            return Part::Without { start: offset + before.len(), end: offset + data.len() - 1 };
        }
        if !contains(data, br#""usage""#) && !contains(data, br#""error""#) {
            return Part::Whole;
        }
        let Ok(frame) = serde_json::from_slice::<OpenaiFrame<'_>>(data) else { return Part::Whole };
        if frame.error.is_some() {
            self.fail();
        }
        let Some(usage) = frame.usage else { return Part::Whole };
        if frame.choices.is_some_and(|choices| choices.is_empty()) {
            self.usage = serde_json::from_str::<Tokens>(usage.get()).ok().and_then(Tokens::usage);
            self.is_frame_cut = true;
            return Part::Nothing;
        }
        // Ollama writes usage last. Elsewhere it stays: a field too many harms nobody.
        let member_len = br#","usage":}"#.len() + usage.get().len();
        let Some(start) = data.len().checked_sub(member_len) else { return Part::Whole };
        match data[start..].strip_prefix(br#","usage":"#).and_then(|rest| rest.strip_prefix(usage.get().as_bytes())) {
            Some(b"}") => Part::Without { start: offset + start, end: offset + data.len() - 1 },
            _ => Part::Whole,
        }
    }

    fn responses(&mut self, data: &[u8]) {
        // The types of the last frames, and `error`, which is a frame of its own.
        let is_last = [&br#""response.completed""#[..], br#""response.incomplete""#, br#""response.failed""#, br#""error""#];
        if !is_last.iter().any(|mark| contains(data, mark)) {
            return;
        }
        let Ok(event) = serde_json::from_slice::<ResponsesEvent<'_>>(data) else { return };
        match event.kind.as_ref() {
            "response.completed" | "response.incomplete" => self.complete(),
            "response.failed" | "error" => self.fail(),
            _ => return,
        }
        if let Some(tokens) = event.response.and_then(|response| response.usage) {
            self.usage = tokens.usage();
        }
    }

    fn anthropic(&mut self, data: &[u8]) {
        let matters = [&br#""message_delta""#[..], br#""message_stop""#, br#""error""#];
        if !matters.iter().any(|mark| contains(data, mark)) {
            return;
        }
        let Ok(event) = serde_json::from_slice::<AnthropicEvent<'_>>(data) else { return };
        match event.kind.as_ref() {
            // What `message_start` says of the prompt is an estimate; this is the count.
            "message_delta" => self.usage = event.usage.and_then(Tokens::usage),
            "message_stop" => self.complete(),
            "error" => self.fail(),
            _ => {}
        }
    }

    /// A failure is not mended by a terminator after it.
    fn complete(&mut self) {
        self.outcome.get_or_insert(Outcome::Complete);
    }

    fn fail(&mut self) {
        self.outcome = Some(Outcome::Failed(Failure::OllamaError));
    }
}

/// An answer in one piece.
#[derive(Default)]
struct Document {
    collected: Vec<u8>,
    balance: Balance,
    /// Longer than is collected. Its usage is not read then, only whether it is whole.
    is_long: bool,
}

impl Document {
    fn read(&mut self, chunk: &[u8]) {
        self.balance.read(chunk);
        self.is_long |= self.collected.len() + chunk.len() > HELD;
        if self.is_long {
            self.collected = Vec::new();
        } else {
            self.collected.extend_from_slice(chunk);
        }
    }

    fn outcome(self, operation: Operation, seen: &mut Seen) -> Outcome {
        if !self.balance.is_whole() {
            return Outcome::Failed(Failure::OllamaTruncated);
        }
        match operation.dialect() {
            Dialect::Ollama => {
                let Ok(frame) = serde_json::from_slice::<NativeFrame<'_>>(&self.collected) else { return Outcome::Complete };
                if frame.is_remote() {
                    return Outcome::Failed(Failure::NotLocal);
                }
                if frame.error.is_some() {
                    return Outcome::Failed(Failure::OllamaError);
                }
                seen.usage = match operation {
                    // Ollama leaves zeros out, and an embedding has no answer to count.
                    Operation::OllamaEmbed => Some(Usage { input: frame.prompt_eval_count.unwrap_or(0), output: 0 }),
                    Operation::OllamaShow => None,
                    _ => frame.usage(),
                };
            }
            Dialect::Openai | Dialect::Anthropic => {
                let frame = serde_json::from_slice::<V1Document>(&self.collected).ok();
                seen.usage = frame.and_then(|frame| frame.usage).and_then(Tokens::usage);
            }
        }
        Outcome::Complete
    }
}

/// Whether a JSON document has come to its end, told without keeping it.
#[derive(Default)]
struct Balance {
    depth: u64,
    is_begun: bool,
    text: Text,
}

/// Where in a JSON string the reader is.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    Escaped,
}

impl Balance {
    fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.text = match (self.text, byte) {
                (Text::Outside, b'"') => Text::Inside,
                (Text::Outside, b'{' | b'[') => {
                    self.depth += 1;
                    self.is_begun = true;
                    Text::Outside
                }
                (Text::Outside, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    Text::Outside
                }
                (Text::Outside, _) | (Text::Inside, b'"') => Text::Outside,
                (Text::Inside, b'\\') => Text::Escaped,
                (Text::Inside | Text::Escaped, _) => Text::Inside,
            };
        }
    }

    fn is_whole(&self) -> bool {
        self.is_begun && self.depth == 0 && self.text == Text::Outside
    }
}

/// A line or a document of Ollama's own API, as far as it matters here.
#[derive(Deserialize)]
struct NativeFrame<'a> {
    #[serde(default)]
    done: bool,
    error: Option<IgnoredAny>,
    #[serde(borrow)]
    remote_host: Option<Cow<'a, str>>,
    #[serde(borrow)]
    remote_model: Option<Cow<'a, str>>,
    prompt_eval_count: Option<u64>,
    eval_count: Option<u64>,
}

impl NativeFrame<'_> {
    fn is_remote(&self) -> bool {
        [&self.remote_host, &self.remote_model].into_iter().flatten().any(|text| !text.is_empty())
    }

    /// Ollama leaves zeros out: one count without the other is beside a zero, and without both it has not counted.
    fn usage(&self) -> Option<Usage> {
        match (self.prompt_eval_count, self.eval_count) {
            (None, None) => None,
            (input, output) => Some(Usage { input: input.unwrap_or(0), output: output.unwrap_or(0) }),
        }
    }
}

#[derive(Deserialize)]
struct OpenaiFrame<'a> {
    choices: Option<Vec<IgnoredAny>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct ResponsesEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    response: Option<V1Document>,
}

#[derive(Deserialize)]
struct AnthropicEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct V1Document {
    usage: Option<Tokens>,
}

/// The usage of the `/v1` surfaces: OpenAI's older names and the newer ones, which are Anthropic's too.
#[derive(Deserialize)]
struct Tokens {
    #[serde(alias = "prompt_tokens")]
    input_tokens: Option<u64>,
    #[serde(alias = "completion_tokens")]
    output_tokens: Option<u64>,
}

impl Tokens {
    /// An embedding counts its prompt alone.
    fn usage(self) -> Option<Usage> {
        Some(Usage { input: self.input_tokens?, output: self.output_tokens.unwrap_or(0) })
    }
}

/// Names that stand in a line of Ollama's own API. Inside a JSON string a quote is always escaped, so the words of a prompt cannot
/// look like one; the arguments of a tool can, and then the line is read properly.
#[derive(Default)]
struct Marks {
    is_not_done: bool,
    matters: bool,
}

impl Marks {
    fn of(line: &[u8]) -> Self {
        let mut marks = Self::default();
        let mut rest = line;
        while let Some(at) = rest.iter().position(|byte| *byte == b'"') {
            rest = &rest[at + 1..];
            marks.is_not_done |= rest.starts_with(br#"done":false"#);
            marks.matters |= rest.starts_with(br#"done":true"#) || rest.starts_with(br#"error""#) || rest.starts_with(b"remote_");
        }
        marks
    }

    fn is_only_a_token(&self) -> bool {
        self.is_not_done && !self.matters
    }
}

fn contains(text: &[u8], mark: &[u8]) -> bool {
    let Some((first, _)) = mark.split_first() else { return true };
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(mark) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A golden transcript: what Ollama writes, what of it the caller gets, how it ends.
    struct Case {
        name: &'static str,
        operation: Operation,
        streamed: bool,
        caller_wants_usage: bool,
        status: u16,
        written: String,
        gets: String,
        ending: Ending,
    }

    fn ending(outcome: Outcome, usage: Option<(u64, u64)>) -> Ending {
        Ending { outcome, usage: usage.map(|(input, output)| Usage { input, output }) }
    }

    fn passed(
        name: &'static str,
        operation: Operation,
        streamed: bool,
        written: impl Into<String>,
        outcome: Outcome,
        usage: Option<(u64, u64)>,
    ) -> Case {
        let written = written.into();
        let gets = written.clone();
        Case { name, operation, streamed, caller_wants_usage: true, status: 200, written, gets, ending: ending(outcome, usage) }
    }

    const TRUNCATED: Outcome = Outcome::Failed(Failure::OllamaTruncated);
    const ERROR: Outcome = Outcome::Failed(Failure::OllamaError);
    use Outcome::Complete;

    const CHAT: &str = concat!(
        r#"{"model":"m","created_at":"2026-08-22T10:00:00.1Z","message":{"role":"assistant","content":"","thinking":"hm \"done\":true"},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"2026-08-22T10:00:00.2Z","message":{"role":"assistant","content":"grüß \u003cdich\u003e 🦙\n"},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"2026-08-22T10:00:00.3Z","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"error":"x","remote_host":"y","done":true,"prompt_eval_count":9}}}]},"done":false}"#,
        "\n",
        r#"{"model":"m","created_at":"2026-08-22T10:00:00.4Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":9,"load_duration":1,"prompt_eval_count":26,"prompt_eval_duration":2,"eval_count":298,"eval_duration":3}"#,
        "\n",
    );
    const GENERATE_LINE: &str = "{\"model\":\"m\",\"created_at\":\"2026-08-22T10:00:00.1Z\",\"response\":\"a\",\"done\":false}\n";

    /// `/v1/chat/completions` with its frame of usage and without it.
    fn openai_chat(usage: bool) -> String {
        let frame = |rest: &str| {
            format!(
                "data: {{\"id\":\"chatcmpl-7\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
                 \"system_fingerprint\":\"fp_ollama\",{rest}}}\n\n"
            )
        };
        [
            frame(r#""choices":[{"index":0,"delta":{"role":"assistant","content":"é \"usage\":{}"},"finish_reason":null}]"#),
            frame(r#""choices":[{"index":0,"delta":{"tool_calls":[{"id":"c","index":0,"type":"function","function":{"name":"f","arguments":"{\"usage\":1}"}}]},"finish_reason":null}]"#),
            frame(r#""choices":[{"index":0,"delta":{},"finish_reason":"stop"}]"#),
            if usage {
                frame(r#""choices":[],"usage":{"prompt_tokens":11,"completion_tokens":5,"total_tokens":16}"#)
            } else {
                String::new()
            },
            "data: [DONE]\n\n".to_owned(),
        ]
        .concat()
    }

    /// `/v1/completions` with its members of usage and without them.
    fn openai_completions(usage: bool) -> String {
        let frame = |choices: &str, tokens: (u64, u64)| {
            let member = format!(
                r#","usage":{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{}}}"#,
                tokens.0,
                tokens.1,
                tokens.0 + tokens.1
            );
            format!(
                "data: {{\"id\":\"cmpl-7\",\"object\":\"text_completion\",\"created\":1,\"choices\":[{choices}],\"model\":\"m\",\
                 \"system_fingerprint\":\"fp_ollama\"{}}}\n\n",
                if usage { member.as_str() } else { "" }
            )
        };
        [
            frame(r#"{"text":"é \"choices\":[], ","index":0,"finish_reason":null}"#, (0, 0)),
            frame(r#"{"text":",\"usage\":{}","index":0,"finish_reason":"stop"}"#, (0, 0)),
            if usage { frame("", (11, 5)) } else { String::new() },
            "data: [DONE]\n\n".to_owned(),
        ]
        .concat()
    }

    fn responses(last: &str) -> String {
        [
            "event: response.created\ndata: {\"response\":{\"error\":null,\"status\":\"in_progress\",\"usage\":null},\"sequence_number\":0,\"type\":\"response.created\"}\n\n",
            "event: response.output_text.delta\ndata: {\"delta\":\"\\\"response.completed\\\" é\",\"sequence_number\":1,\"type\":\"response.output_text.delta\"}\n\n",
            last,
        ]
        .concat()
    }

    fn anthropic(last: &str) -> String {
        [
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"usage\":{\"input_tokens\":3,\"output_tokens\":0}}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"é \\\"message_stop\\\"\"}}\n\n",
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"input_tokens\":11,\"output_tokens\":5}}\n\n",
            last,
        ]
        .concat()
    }

    const MESSAGE_STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

    fn cases() -> Vec<Case> {
        use Operation::{
            AnthropicMessages, OllamaChat, OllamaEmbed, OllamaGenerate, OllamaShow, OpenaiChat, OpenaiCompletions,
            OpenaiEmbeddings, OpenaiResponses,
        };
        let without = |name, operation, written: String, gets: String, ending| Case {
            name,
            operation,
            streamed: true,
            caller_wants_usage: false,
            status: 200,
            written,
            gets,
            ending,
        };
        let cut = |text: String, bytes: usize| text[..text.len() - bytes].to_owned();
        let chat_without_done = CHAT[..CHAT.len() - 1].rsplit_once('\n').unwrap().0.to_owned() + "\n";
        vec![
            passed("chat", OllamaChat, true, CHAT, Complete, Some((26, 298))),
            passed("chat whose last line break is missing", OllamaChat, true, &CHAT[..CHAT.len() - 1], Complete, Some((26, 298))),
            passed("chat cut in its last line", OllamaChat, true, &CHAT[..CHAT.len() - 3], TRUNCATED, None),
            passed("chat without done", OllamaChat, true, chat_without_done.clone(), TRUNCATED, None),
            passed(
                "chat with an error in it",
                OllamaChat,
                true,
                chat_without_done + "{\"error\":\"model runner has unexpectedly stopped\"}\n",
                ERROR,
                None,
            ),
            passed("nothing", OllamaChat, true, "", TRUNCATED, None),
            passed(
                "spaced and with carriage returns",
                OllamaChat,
                true,
                "{ \"done\" : false }\r\n{ \"done\" : true , \"eval_count\" : 4 }\r\n",
                Complete,
                Some((0, 4)),
            ),
            passed("an error after the end", OllamaChat, true, format!("{CHAT}{{\"error\":\"late\"}}\n"), ERROR, Some((26, 298))),
            passed(
                "a final line with arguments",
                OllamaChat,
                true,
                "{\"message\":{\"tool_calls\":[{\"function\":{\"arguments\":{\"done\":false}}}]},\"done\":true}\n",
                Complete,
                None,
            ),
            passed("no json", OllamaChat, true, "<html>\n\n", TRUNCATED, None),
            passed(
                "generate with a prompt from the cache",
                OllamaGenerate,
                true,
                format!(
                    "{GENERATE_LINE}{{\"model\":\"m\",\"response\":\"\",\"done\":true,\"context\":[1,2,3],\"eval_count\":7}}\n"
                ),
                Complete,
                Some((0, 7)),
            ),
            passed(
                "a load",
                OllamaGenerate,
                true,
                r#"{"model":"m","created_at":"2026-08-22T10:00:00Z","response":"","done":true,"done_reason":"load"}"#,
                Complete,
                None,
            ),
            passed(
                "an empty remote_host",
                OllamaGenerate,
                true,
                "{\"remote_host\":\"\",\"remote_model\":\"\",\"done\":true}\n",
                Complete,
                None,
            ),
            passed(
                "unstreamed chat",
                OllamaChat,
                false,
                r#"{"model":"m","message":{"role":"assistant","content":"} \" {","tool_calls":[{"function":{"name":"f","arguments":{"remote_host":"x","error":1}}}]},"done":true,"prompt_eval_count":26,"eval_count":298}"#,
                Complete,
                Some((26, 298)),
            ),
            passed(
                "unstreamed chat, cut",
                OllamaChat,
                false,
                r#"{"model":"m","message":{"role":"assistant","content":"}"#,
                TRUNCATED,
                None,
            ),
            passed(
                "unstreamed and elsewhere",
                OllamaChat,
                false,
                r#"{"model":"m","remote_host":"https://ollama.com","done":true,"eval_count":2}"#,
                Outcome::Failed(Failure::NotLocal),
                None,
            ),
            passed("unstreamed error", OllamaChat, false, r#"{"error":"x"}"#, ERROR, None),
            passed("unstreamed nothing", OllamaChat, false, "", TRUNCATED, None),
            passed(
                "embed",
                OllamaEmbed,
                false,
                r#"{"model":"m","embeddings":[[0.01,-0.2]],"total_duration":9,"load_duration":1,"prompt_eval_count":8}"#,
                Complete,
                Some((8, 0)),
            ),
            passed("embed of nothing", OllamaEmbed, false, r#"{"model":"m","embeddings":[]}"#, Complete, Some((0, 0))),
            passed(
                "show",
                OllamaShow,
                false,
                r#"{"details":{"family":"llama"},"model_info":{},"capabilities":["completion"]}"#,
                Complete,
                None,
            ),
            passed("openai chat with usage", OpenaiChat, true, openai_chat(true), Complete, Some((11, 5))),
            without("openai chat", OpenaiChat, openai_chat(true), openai_chat(false), ending(Complete, Some((11, 5)))),
            without(
                "openai chat without done",
                OpenaiChat,
                cut(openai_chat(true), 14),
                cut(openai_chat(false), 14),
                ending(TRUNCATED, Some((11, 5))),
            ),
            without(
                "openai chat cut in its usage",
                OpenaiChat,
                openai_chat(true).replace("}\n\ndata: [DONE]\n\n", ""),
                openai_chat(false).replace("data: [DONE]\n\n", "")
                    + &openai_chat(true)[openai_chat(false).len() - 14..].replace("}\n\ndata: [DONE]\n\n", ""),
                ending(TRUNCATED, None),
            ),
            without(
                "openai chat, windows' line ends",
                OpenaiChat,
                openai_chat(true).replace('\n', "\r\n"),
                openai_chat(false).replace('\n', "\r\n"),
                ending(Complete, Some((11, 5))),
            ),
            without(
                "openai chat, an error",
                OpenaiChat,
                "data: {\"error\":{\"message\":\"x\"}}\n\n".into(),
                "data: {\"error\":{\"message\":\"x\"}}\n\n".into(),
                ending(ERROR, None),
            ),
            without(
                "openai chat, unfinished line",
                OpenaiChat,
                "data: [DONE]".into(),
                "data: [DONE]".into(),
                ending(Complete, None),
            ),
            passed("openai completions with usage", OpenaiCompletions, true, openai_completions(true), Complete, Some((11, 5))),
            without(
                "openai completions",
                OpenaiCompletions,
                openai_completions(true),
                openai_completions(false),
                ending(Complete, Some((11, 5))),
            ),
            without(
                "openai completions that used nothing",
                OpenaiCompletions,
                openai_completions(true)
                    .replace(r#":11,"completion_tokens":5,"total_tokens":16"#, r#":0,"completion_tokens":0,"total_tokens":0"#),
                openai_completions(false),
                ending(Complete, Some((0, 0))),
            ),
            without(
                "openai completions that count as they go",
                OpenaiCompletions,
                openai_completions(true)
                    .replace(r#":0,"completion_tokens":0,"total_tokens":0"#, r#":11,"completion_tokens":1,"total_tokens":12"#),
                openai_completions(false),
                ending(Complete, Some((11, 5))),
            ),
            without(
                "openai completions cut",
                OpenaiCompletions,
                cut(openai_completions(true), 14),
                cut(openai_completions(false), 14),
                ending(TRUNCATED, Some((11, 5))),
            ),
            passed(
                "unstreamed openai chat",
                OpenaiChat,
                false,
                "{\"id\":\"chatcmpl-1\",\"choices\":[{\"message\":{\"content\":\"x\"}}],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":5,\"total_tokens\":16}}\n",
                Complete,
                Some((11, 5)),
            ),
            passed(
                "openai embeddings",
                OpenaiEmbeddings,
                false,
                "{\"object\":\"list\",\"data\":[{\"embedding\":\"AAAA\"}],\"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}\n",
                Complete,
                Some((8, 0)),
            ),
            passed(
                "responses",
                OpenaiResponses,
                true,
                responses(
                    "event: response.completed\ndata: {\"response\":{\"error\":null,\"status\":\"completed\",\"usage\":{\"input_tokens\":11,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":5,\"total_tokens\":16}},\"sequence_number\":2,\"type\":\"response.completed\"}\n\n",
                ),
                Complete,
                Some((11, 5)),
            ),
            passed(
                "responses, incomplete",
                OpenaiResponses,
                true,
                responses("data: {\"type\":\"response.incomplete\",\"response\":{\"usage\":null}}\n\n"),
                Complete,
                None,
            ),
            passed(
                "responses, failed",
                OpenaiResponses,
                true,
                responses("data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"x\"}}}\n\n"),
                ERROR,
                None,
            ),
            passed(
                "responses, an error",
                OpenaiResponses,
                true,
                responses("data: {\"type\":\"error\",\"message\":\"x\"}\n\n"),
                ERROR,
                None,
            ),
            passed("responses, cut", OpenaiResponses, true, responses(""), TRUNCATED, None),
            passed(
                "unstreamed responses",
                OpenaiResponses,
                false,
                "{\"status\":\"completed\",\"usage\":{\"input_tokens\":11,\"output_tokens\":5,\"total_tokens\":16}}\n",
                Complete,
                Some((11, 5)),
            ),
            passed("messages", AnthropicMessages, true, anthropic(MESSAGE_STOP), Complete, Some((11, 5))),
            passed("messages, cut", AnthropicMessages, true, anthropic(""), TRUNCATED, Some((11, 5))),
            passed(
                "messages, an error",
                AnthropicMessages,
                true,
                anthropic("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"x\"}}\n\n"),
                ERROR,
                Some((11, 5)),
            ),
            passed(
                "unstreamed messages",
                AnthropicMessages,
                false,
                "{\"type\":\"message\",\"content\":[],\"usage\":{\"input_tokens\":11,\"output_tokens\":5}}\n",
                Complete,
                Some((11, 5)),
            ),
            Case {
                status: 404,
                ..passed("an error's status", OllamaChat, true, r#"{"error":"model 'm' not found"}"#, ERROR, None)
            },
            Case {
                status: 503,
                caller_wants_usage: false,
                ..passed(
                    "an error's status on openai",
                    OpenaiChat,
                    true,
                    r#"{"error":{"message":"x","type":"api_error","param":null,"code":null}}"#,
                    ERROR,
                    None,
                )
            },
            Case { status: 403, ..passed("an error's status without a body", OpenaiEmbeddings, false, "", ERROR, None) },
        ]
    }

    /// Feeds the transcript in pieces that end at `cuts`.
    fn run(case: &Case, cuts: impl IntoIterator<Item = usize>) -> (Vec<u8>, Ending) {
        let mut tap = Tap::new(case.operation, case.streamed, case.caller_wants_usage, case.status);
        let written = Bytes::from(case.written.clone());
        let mut gets = Vec::new();
        let mut start = 0;
        for end in cuts.into_iter().chain([written.len()]) {
            for piece in tap.feed(written.slice(start..end)).unwrap() {
                assert!(!piece.is_empty());
                gets.extend_from_slice(&piece);
            }
            start = end;
        }
        let (rest, ending) = tap.finish();
        gets.extend_from_slice(&rest);
        (gets, ending)
    }

    fn check(case: &Case, (gets, ending): (Vec<u8>, Ending)) {
        assert_eq!(String::from_utf8(gets).unwrap(), case.gets, "{}", case.name);
        assert_eq!(ending, case.ending, "{}", case.name);
    }

    #[test]
    fn transcripts_come_out_as_they_should_at_every_cut() {
        for case in cases() {
            check(&case, run(&case, []));
            check(&case, run(&case, 1..case.written.len()));
            for at in 1..case.written.len() {
                check(&case, run(&case, [at]));
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(which in any::<prop::sample::Index>(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..30)) {
            let cases = cases();
            let case = which.get(&cases);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(case.written.len() + 1)).collect();
            cuts.sort_unstable();
            check(case, run(case, cuts));
        }

        #[test]
        fn no_bytes_break_it(
            operation in prop::sample::select(Operation::ALL.to_vec()),
            streamed: bool,
            wants: bool,
            chunks in prop::collection::vec("(data: )?[\\[\\]{}\"a:,0 \n\\\\]{0,20}(\"usage\":|\"choices\":\\[\\],|\"error\":1)?[}\n]{0,3}", 0..6),
        ) {
            let mut tap = Tap::new(operation, streamed, wants, 200);
            let mut gets = Vec::new();
            for chunk in &chunks {
                gets.extend(tap.feed(Bytes::from(chunk.clone())).unwrap().flatten());
            }
            gets.extend(tap.finish().0);
            let is_cut = matches!(operation, Operation::OpenaiChat | Operation::OpenaiCompletions) && streamed && !wants;
            if !is_cut || !chunks.concat().contains("usage") {
                prop_assert_eq!(gets, chunks.concat().into_bytes());
            }
        }
    }

    #[test]
    fn another_computers_answer_is_stopped_before_its_bytes_go_on() {
        for written in [
            "{\"model\":\"m\",\"remote_model\":\"gpt-oss:120b\",\"remote_host\":\"https://ollama.com\",\"done\":false}\n",
            "{\"remote_host\":\"x\",\"done\":true}\n",
            "{\"remote_model\":\"x\"}\n",
        ] {
            let mut tap = Tap::new(Operation::OllamaChat, true, true, 200);
            assert_eq!(tap.feed(Bytes::from(format!("{GENERATE_LINE}{written}"))).err(), Some(Failure::NotLocal));
            let mut tap = Tap::new(Operation::OllamaChat, true, true, 200);
            assert!(tap.feed(Bytes::from(written.trim_end())).is_ok());
            assert_eq!(tap.finish().1, ending(Outcome::Failed(Failure::NotLocal), None));
        }
    }

    #[test]
    fn bytes_go_on_at_once_and_uncopied() {
        let mut tap = Tap::new(Operation::OllamaChat, true, true, 200);
        for chunk in [&CHAT[..10], &CHAT[10..300], &CHAT[300..]] {
            let chunk = Bytes::from(chunk);
            let pieces: Vec<_> = tap.feed(chunk.clone()).unwrap().collect();
            assert_eq!(pieces, [&chunk]);
            assert_eq!(pieces[0].as_ptr(), chunk.as_ptr());
        }
        // A whole line passes a stream that is cut without waiting for the next, and where it lies.
        let mut tap = Tap::new(Operation::OpenaiChat, true, false, 200);
        let transcript = openai_chat(false);
        for frame in transcript.split_inclusive("\n\n") {
            let chunk = Bytes::from(frame.to_owned());
            let pieces: Vec<_> = tap.feed(chunk.clone()).unwrap().collect();
            assert_eq!(pieces, [&chunk]);
            assert_eq!(pieces[0].as_ptr(), chunk.as_ptr());
        }
        assert_eq!(tap.feed(Bytes::new()).unwrap().count(), 0);
    }

    #[test]
    fn long_lines_pass_and_endless_ones_do_not() {
        let context = "1234567,".repeat(200_000);
        let last =
            format!("{{\"response\":\"\",\"done\":true,\"context\":[{context}1],\"prompt_eval_count\":3,\"eval_count\":4}}\n");
        assert!(last.len() > 1 << 20);
        let case = passed("1 MiB", Operation::OllamaGenerate, true, last, Complete, Some((3, 4)));
        check(&case, run(&case, (1..case.written.len()).step_by(4096)));

        for (operation, wants) in [(Operation::OllamaGenerate, true), (Operation::OpenaiChat, false)] {
            let mut tap = Tap::new(operation, true, wants, 200);
            let chunk = Bytes::from(vec![b'x'; 1 << 20]);
            for _ in 0..16 {
                assert!(tap.feed(chunk.clone()).is_ok());
            }
            assert_eq!(tap.feed(chunk).err(), Some(Failure::TooLarge));
        }
    }

    #[test]
    fn a_long_document_passes_and_its_end_is_known() {
        let row = format!("[{}0.5],", "0.123456789,".repeat(1 << 16));
        for (end, outcome) in [("[]],\"prompt_eval_count\":8}", Complete), ("[]],\"prompt_eval_count\":8", TRUNCATED)] {
            let written = format!("{{\"embeddings\":[{}{end}", row.repeat(24));
            assert!(written.len() > HELD);
            let case = passed("16 MiB", Operation::OllamaEmbed, false, written, outcome, None);
            check(&case, run(&case, (1..case.written.len()).step_by(65_536)));
        }
    }
}
