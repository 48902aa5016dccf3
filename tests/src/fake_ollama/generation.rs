//! One generation: what it will say, when, and how it goes wrong if its model's name asks for that.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, sleep_until};

use super::gate::{Gates, Point};
use super::grammar::{self, Spec};
use super::log::Ticket;
use super::render::{RUNNER_DIED, Renderer, ToolCall, Totals, Whole};
use super::request::{Ask, Format};
use super::text::{self, Voice};
use crate::scripted::{self, Step};

/// Tokens of thought before an answer.
const THOUGHTS: u32 = 6;
/// What a tool call counts for, in tokens.
const CALL_TOKENS: u64 = 8;
/// What loading a loaded model takes, and reading a prompt that costs nothing: a real one always measures something.
pub(super) const AT_ONCE: Duration = Duration::from_micros(1);

/// What will be said.
#[derive(Debug)]
pub(super) struct Script {
    thoughts: Voice,
    thinking: u32,
    voice: Voice,
    content: u32,
    calls: Vec<ToolCall>,
    reason: &'static str,
    prompt_tokens: u64,
}

impl Script {
    /// The answer to a question: a function of the model, the question, its images, the tools, the format and whether to
    /// think, and of nothing else.
    pub(super) fn write(ask: &Ask, spec: &Spec, think: bool) -> Self {
        let seed = text::seed(&[ask.model.as_bytes(), ask.talk.question.as_bytes(), &ask.talk.image_seed.to_le_bytes()]);
        let size = spec.size.unwrap_or_default();
        let call = ask.tools.first().filter(|_| !ask.talk.answers_a_tool).map(|tool| ToolCall {
            index: 0,
            id: format!("call_{:08x}", seed as u32),
            name: tool.name.clone(),
            arguments: match text::satisfying(&tool.parameters, seed) {
                object @ serde_json::Value::Object(_) => object,
                _ => json!({}),
            },
        });
        let structured = match &ask.format {
            // An unknown format fails before anything is said.
            Format::Text | Format::Unknown(_) => None,
            Format::Json => {
                Some(json!({"answer": text::quote(&ask.talk.question), "sure": true, "marks": ["é", "<b>", "東京", "🦀"]}))
            }
            Format::Schema(schema) => Some(text::satisfying(schema, seed)),
        };
        let (voice, wanted) = match structured {
            _ if call.is_some() => (Voice::Fixed(Vec::new()), 0),
            Some(value) => {
                let tokens = text::tokens_of(&value.to_string());
                let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
                (Voice::Fixed(tokens), count)
            }
            None if grammar::is_plain(&ask.model, spec) => (Voice::Plain { size: spec.size.unwrap_or(6) }, spec.tokens),
            None => (Voice::Babel { seed, quote: text::quote(&ask.talk.question), size }, spec.tokens),
        };
        let thinking = if think { THOUGHTS } else { 0 };
        let content = wanted.min(ask.cap.map_or(u32::MAX, |cap| cap.saturating_sub(thinking)));
        Self {
            thoughts: Voice::Babel { seed: !seed, quote: String::new(), size },
            thinking,
            voice,
            content,
            calls: call.into_iter().collect(),
            reason: if content < wanted { "length" } else { "stop" },
            prompt_tokens: ask.talk.prompt_tokens(),
        }
    }

    /// The step of a part that comes next.
    pub(super) fn of_part(part: &[Step], ask: &Ask) -> Option<Self> {
        let (number, step) = scripted::next(part, ask.talk.played)?;
        let seed = text::seed(&[ask.model.as_bytes(), ask.talk.question.as_bytes(), &number.to_le_bytes()]);
        let (thoughts, words) = (text::tokens_of(&step.thoughts), text::tokens_of(&step.text));
        let count = |tokens: &[String]| u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        let calls = step.calls.iter().enumerate().map(|(index, call)| ToolCall {
            index,
            id: format!("call_{:08x}", text::mix(seed, index as u64) as u32),
            name: call.tool.clone(),
            arguments: serde_json::from_str(&call.arguments).unwrap_or_else(|_| call.arguments.as_str().into()),
        });
        Some(Self {
            thinking: count(&thoughts),
            content: count(&words),
            thoughts: Voice::Fixed(thoughts),
            voice: Voice::Fixed(words),
            calls: calls.collect(),
            reason: "stop",
            prompt_tokens: ask.talk.prompt_tokens(),
        })
    }

    /// An answer that says nothing, because nothing was asked.
    pub(super) fn silent(reason: &'static str) -> Self {
        Self {
            thoughts: Voice::Fixed(Vec::new()),
            thinking: 0,
            voice: Voice::Fixed(Vec::new()),
            content: 0,
            calls: Vec::new(),
            reason,
            prompt_tokens: 0,
        }
    }

    /// Steps before the end: one for each token, and one for a call.
    fn steps(&self) -> u32 {
        self.thinking + self.content + u32::try_from(self.calls.len()).unwrap_or(u32::MAX)
    }

    /// The first `steps` steps together.
    fn whole(&self, steps: u32) -> Whole {
        let thinking = self.thinking.min(steps);
        Whole {
            thinking: self.thoughts.text(thinking),
            content: self.voice.text(self.content.min(steps - thinking)),
            calls: self.calls[..((steps - thinking).saturating_sub(self.content) as usize).min(self.calls.len())].to_vec(),
        }
    }

    fn tokens(&self) -> u64 {
        u64::from(self.thinking + self.content) + CALL_TOKENS * self.calls.len() as u64
    }
}

/// A generation about to start: its headers are not out.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) renderer: Renderer,
    pub(super) script: Script,
    pub(super) spec: Spec,
    pub(super) gates: Arc<Gates>,
    /// The model's full name, by which gates know it.
    pub(super) model: String,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    pub(super) arrived: Instant,
    pub(super) ticket: Ticket,
}

/// How an answer that is not streamed ends.
pub(super) enum End {
    /// With a document.
    Whole(&'static str, Vec<u8>),
    /// With a failure of the model.
    Failed,
    /// With a cut connection.
    Cut,
}

impl Opening {
    /// Waits until the first token is ready: no header leaves before.
    pub(super) async fn first_token(&self) {
        self.hold(Point::Headers).await;
        if !self.spec.first.is_zero() {
            sleep(self.spec.first).await;
        }
        if self.spec.hang_at == Some(0) {
            std::future::pending::<()>().await;
        }
    }

    async fn hold(&self, point: Point) {
        if let Some(hold) = self.gates.hold(&self.model, point) {
            self.ticket.held(true);
            hold.await;
            self.ticket.held(false);
        }
    }

    /// Generates everything before answering.
    pub(super) async fn run_to_end(mut self) -> (End, Ticket) {
        let steps = self.script.steps();
        let mut due = tokio::time::Instant::now();
        for step in 0..=steps {
            self.hold(Point::Token(step)).await;
            if step > 0 && step < steps && !self.spec.delay.is_zero() {
                due += self.spec.delay;
                sleep_until(due).await;
            }
            let now = Some(step);
            if now == self.spec.hang_at {
                std::future::pending::<()>().await;
            }
            if now == self.spec.cut_at {
                return (End::Cut, self.ticket);
            }
            if now == self.spec.fail_at {
                return (End::Failed, self.ticket);
            }
            if now == self.spec.end_at {
                let (kind, bytes) = self.renderer.whole(&self.script.whole(step), &Totals::default());
                return (End::Whole(kind, bytes), self.ticket);
            }
            self.ticket.token();
        }
        let totals = totals(&self.script, &self.spec, self.arrived);
        let (kind, bytes) = self.renderer.whole(&self.script.whole(steps), &totals);
        (End::Whole(kind, bytes), self.ticket)
    }

    /// The body of a streamed answer, whose first token is ready.
    pub(super) fn stream(self) -> Generation {
        Generation {
            due: tokio::time::Instant::now(),
            opening: self,
            next: 0,
            timer: None,
            hold: None,
            rest: None,
            flush: false,
            flushed: false,
            ended: false,
            words: String::new(),
            room: 512,
        }
    }
}

/// Timings by the name of the model where it sets them, measured otherwise.
pub(super) fn totals(script: &Script, spec: &Spec, arrived: Instant) -> Totals {
    if matches!(script.reason, "load" | "unload") {
        return Totals { reason: Some(script.reason), ..Totals::default() };
    }
    let total = arrived.elapsed();
    Totals {
        prompt_tokens: script.prompt_tokens,
        tokens: script.tokens(),
        total,
        load: spec.load.max(AT_ONCE),
        prompt: spec.first.max(AT_ONCE),
        eval: if script.tokens() == 0 { Duration::ZERO } else { total.saturating_sub(spec.load + spec.first) },
        reason: Some(script.reason),
    }
}

/// A streamed answer. Dropped before its end, its client is gone.
pub(super) struct Generation {
    opening: Opening,
    /// The step that comes next.
    next: u32,
    /// When it is due. The schedule is absolute, so late timers do not add up.
    due: tokio::time::Instant,
    timer: Option<Pin<Box<Sleep>>>,
    hold: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The second half of a token whose write is split.
    rest: Option<Bytes>,
    /// Whether what was written must reach the socket before the next write.
    flush: bool,
    flushed: bool,
    ended: bool,
    words: String,
    /// Bytes of the last chunk: the next one needs about as many.
    room: usize,
}

impl Generation {
    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if self.flush {
            // The server writes to the socket when a body has nothing to give.
            self.flush = false;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(rest) = self.rest.take() {
            self.flush = self.opening.spec.write_each;
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        if self.poll_hold(context).is_pending() || self.poll_due(context).is_pending() {
            return Poll::Pending;
        }
        self.step(context)
    }

    fn poll_hold(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.hold.is_none()
            && let Some(hold) = self.opening.gates.hold(&self.opening.model, Point::Token(self.next))
        {
            self.opening.ticket.held(true);
            self.hold = Some(Box::pin(hold));
        }
        let Some(hold) = &mut self.hold else { return Poll::Ready(()) };
        let released = hold.as_mut().poll(context);
        if released.is_ready() {
            self.hold = None;
            self.opening.ticket.held(false);
        }
        released
    }

    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.opening.spec.delay.is_zero() || tokio::time::Instant::now() >= self.due {
            return Poll::Ready(());
        }
        let due = self.due;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(context)
    }

    fn step(&mut self, context: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        let spec = &self.opening.spec;
        let now = Some(self.next);
        if now == spec.hang_at {
            // Only the client's leaving ends this.
            return Poll::Pending;
        }
        if now == spec.cut_at {
            if !std::mem::replace(&mut self.flushed, true) {
                // The tokens before the cut must reach the socket.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.end();
            return Poll::Ready(Some(Err(std::io::Error::other("cut as the model's name asks"))));
        }
        if now == spec.end_at {
            self.end();
            return Poll::Ready(None);
        }
        let mut out = Vec::with_capacity(self.room);
        if now == spec.fail_at {
            self.opening.renderer.failure(RUNNER_DIED, &mut out);
            self.end();
        } else if self.next == self.opening.script.steps() {
            let totals = totals(&self.opening.script, spec, self.opening.arrived);
            self.opening.renderer.finish(&totals, &mut out);
            self.end();
        } else {
            self.token(&mut out);
        }
        if out.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }

    fn token(&mut self, out: &mut Vec<u8>) {
        let Opening { renderer, script, spec, ticket, .. } = &mut self.opening;
        self.words.clear();
        if self.next < script.thinking {
            script.thoughts.push(self.next, &mut self.words);
            renderer.thinking(&self.words, out);
        } else if self.next < script.thinking + script.content {
            script.voice.push(self.next - script.thinking, &mut self.words);
            renderer.content(&self.words, out);
        } else if let Some(call) = script.calls.get((self.next - script.thinking - script.content) as usize) {
            renderer.call(call, out);
        }
        self.room = out.len() + 32;
        self.next += 1;
        ticket.token();
        // The end follows the last token at once.
        if self.next < script.steps() {
            self.due += spec.delay;
        }
        self.flush = spec.write_each;
        if spec.split {
            let at = split_point(out);
            self.rest = Some(Bytes::from(out.split_off(at)));
            self.flush = true;
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.opening.ticket.finish();
        self.opening.permit = None;
    }
}

/// Where to cut a chunk: inside a character of several bytes, or else in the middle.
fn split_point(chunk: &[u8]) -> usize {
    chunk.iter().position(|byte| byte & 0xC0 == 0x80).unwrap_or(chunk.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_cut_inside_a_character() {
        assert_eq!(split_point("aé".as_bytes()), 2);
        assert_eq!(split_point("🦀".as_bytes()), 1);
        assert_eq!(split_point(b"abcd"), 2);
    }
}
