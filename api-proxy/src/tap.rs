//! Reads the usage out of an answer while it passes, and can never break it.
//!
//! The bytes go to the caller whatever is read here: a [`Tap`] takes a slice, gives nothing back and cannot fail. It reads an event
//! or a document as it comes, keeps the few values that tell of usage ([`skim`]), and looks into them once, when it is asked for
//! its [`Reading`]. What it holds is bounded: [`skim::KEPT_BYTES`] of a value, and [`WORDS_BYTES`] of the answer's words where they
//! are to be gathered. How the bytes were cut makes no difference to what is read.
//!
//! Rules that hold for every shape: the last usage counts and none is summed; a usage is known by being an object, whatever stands
//! beside it; what a provider does not say stays `None`.

mod events;
mod shapes;
pub(crate) mod skim;
pub(crate) mod text;
mod told;

use bytes::Bytes;
use events::{Events, Listener};
use shapes::Slot;
use skim::Skimmer;
use text::{Characters, Tally};
use told::Told;

use crate::{Tier, Usage, surface::Endpoint};

/// The most words that are gathered: a million tokens, more than any model answers with. What comes after is only counted.
pub(crate) const WORDS_BYTES: usize = 4 * 1024 * 1024;

/// How an answer tells its usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// `usage` of chat and text completions, streamed or not.
    OpenaiChat,
    /// `response.usage`, streamed or not.
    OpenaiResponses,
    /// `usage.prompt_tokens` alone.
    OpenaiEmbeddings,
    /// `usage` of images.
    OpenaiImages,
    /// `message_start` and `message_delta`, or `usage`.
    Anthropic,
    /// `usageMetadata`: events, an array, or one document.
    Gemini,
    /// Nothing is told: what is counted is counted elsewhere.
    Silent,
}

impl Shape {
    /// The shape of an endpoint's answer. It is the endpoint's own everywhere: a provider that offers another's endpoint answers in
    /// the other's words.
    pub(crate) fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::OpenaiChat | Endpoint::OpenaiCompletions => Self::OpenaiChat,
            Endpoint::OpenaiResponses => Self::OpenaiResponses,
            Endpoint::OpenaiEmbeddings => Self::OpenaiEmbeddings,
            Endpoint::OpenaiImages => Self::OpenaiImages,
            Endpoint::AnthropicMessages => Self::Anthropic,
            // Not every embedding comes with a usage, but one that does has it in the same place.
            Endpoint::GeminiGenerate | Endpoint::GeminiStreamGenerate | Endpoint::GeminiEmbed | Endpoint::GeminiBatchEmbed => {
                Self::Gemini
            }
            Endpoint::AnthropicCountTokens
            | Endpoint::GeminiCountTokens
            | Endpoint::OllamaChat
            | Endpoint::OllamaGenerate
            | Endpoint::OllamaEmbed
            | Endpoint::OllamaShow => Self::Silent,
        }
    }
}

/// The form of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Server-sent events.
    Events,
    /// One JSON document, or an array of them.
    Json,
    /// Anything else, which is not read.
    Opaque,
}

/// Whether words are gathered, so that their tokens can be counted if the provider says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    /// The provider will tell.
    Leave,
    /// It may not: keep up to a bound, then only count.
    Gather,
}

/// A reader beside an answer.
pub(crate) struct Tap {
    reader: Reader,
    skimmer: Skimmer<Slot>,
    answer: Answer,
}

enum Reader {
    Events(Events),
    Document,
    Nothing,
}

/// What was read.
#[derive(Default)]
pub(crate) struct Reading {
    /// What the provider told of its usage, so far. A stream that broke off may have told of the prompt alone: then `output` is
    /// `None`.
    pub(crate) usage: Option<Usage>,
    /// Whether the answer's own end was seen: `[DONE]`, `message_stop`, `response.completed`, a `finishReason`, or a whole
    /// document.
    pub(crate) ended: bool,
    /// Whether the provider told of an error inside the answer. `response.failed` is both an error and an end.
    pub(crate) failed: bool,
    /// The class of service that the answer names, also where it tells nothing else.
    pub(crate) tier: Option<Tier>,
    /// How much text there was, for an estimate.
    pub(crate) text: Characters,
    /// The answer's words, where they were to be gathered, with JSON's escapes as they came.
    pub(crate) words: Option<wire::Content>,
}

impl Tap {
    /// A reader for an answer of this shape and form.
    pub(crate) fn new(shape: Shape, framing: Framing, words: Words) -> Self {
        let reader = match (shape, framing) {
            (Shape::Silent, _) | (_, Framing::Opaque) => Reader::Nothing,
            (_, Framing::Events) => Reader::Events(Events::new()),
            (_, Framing::Json) => Reader::Document,
        };
        let streamed = framing == Framing::Events;
        Self { reader, skimmer: Skimmer::new(shapes::root(shape, streamed)), answer: Answer::new(shape, streamed, words) }
    }

    /// Reads what passes.
    pub(crate) fn read(&mut self, bytes: &[u8]) {
        match &mut self.reader {
            Reader::Events(events) => events.push(bytes, &mut Event { skimmer: &mut self.skimmer, answer: &mut self.answer }),
            Reader::Document => self.skimmer.push(bytes, &mut self.answer),
            Reader::Nothing => {}
        }
    }

    /// Whether the protocol's own end has passed already.
    pub(crate) fn has_ended(&self) -> bool {
        self.answer.ended
    }

    /// What was read; the body has ended or broken off. The reader is as good as new afterwards.
    pub(crate) fn reading(&mut self) -> Reading {
        if let Reader::Events(events) = &mut self.reader {
            events.end(&mut Event { skimmer: &mut self.skimmer, answer: &mut self.answer });
        }
        self.skimmer.reset();
        self.answer.take()
    }
}

/// One event on its way into the answer.
struct Event<'a> {
    skimmer: &'a mut Skimmer<Slot>,
    answer: &'a mut Answer,
}

const DONE: &[u8] = b"[DONE]";

impl Listener for Event<'_> {
    fn data(&mut self, piece: &[u8]) {
        let head = &mut self.answer.head;
        if head.length < DONE.len() {
            let known = &piece[..piece.len().min(DONE.len() - head.length)];
            head.same &= DONE[head.length..].starts_with(known);
        }
        head.length = head.length.saturating_add(piece.len());
        self.skimmer.push(piece, self.answer);
    }

    fn event(&mut self) {
        let head = std::mem::take(&mut self.answer.head);
        self.answer.ended |= head.same && head.length == DONE.len();
        self.skimmer.reset();
        self.answer.event();
    }
}

/// How an event's data begins.
struct Head {
    length: usize,
    /// Whether it is `[DONE]` so far.
    same: bool,
}

impl Default for Head {
    fn default() -> Self {
        Self { length: 0, same: true }
    }
}

/// What an answer has told so far.
struct Answer {
    streamed: bool,
    told: Told,
    head: Head,
    ended: bool,
    failed: bool,
    tally: Tally,
    words: Option<Vec<u8>>,
}

impl Answer {
    fn new(shape: Shape, streamed: bool, words: Words) -> Self {
        Self {
            streamed,
            told: Told::new(shape),
            head: Head::default(),
            ended: false,
            failed: false,
            tally: Tally::default(),
            words: (words == Words::Gather).then(Vec::new),
        }
    }

    fn event(&mut self) {
        let kind = self.told.event();
        self.ended |= kind.ends;
        self.failed |= kind.fails;
    }

    fn take(&mut self) -> Reading {
        // A document that broke off has no end of an event.
        self.event();
        let reading = Reading {
            usage: self.told.usage(self.streamed, self.ended),
            ended: self.ended,
            failed: self.failed,
            tier: self.told.tier,
            text: self.tally.characters,
            words: self.words.as_mut().map(|words| Bytes::from(std::mem::take(words)).into()),
        };
        let words = if self.words.is_some() { Words::Gather } else { Words::Leave };
        *self = Self::new(self.told.shape, self.streamed, words);
        reading
    }
}

impl skim::Sink<Slot> for Answer {
    fn text(&mut self, piece: &[u8]) {
        self.tally.push(piece);
        if let Some(words) = &mut self.words {
            let room = WORDS_BYTES - words.len();
            words.extend_from_slice(&piece[..piece.len().min(room)]);
        }
    }

    fn text_end(&mut self) {
        self.tally.end();
    }

    fn string(&mut self, slot: Slot, raw: &[u8]) {
        match slot {
            Slot::Error => self.failed = true,
            Slot::Finish => self.ended = true,
            _ => self.told.string(slot, raw),
        }
    }

    fn value(&mut self, slot: Slot, raw: &[u8]) {
        match slot {
            Slot::Error => self.failed |= raw.starts_with(b"{"),
            _ => self.told.value(slot, raw),
        }
    }

    fn whole(&mut self) {
        if !self.streamed {
            self.ended = true;
        }
    }
}

#[cfg(test)]
mod tests;
