//! A run in memory: its events, how far each of them has come, and who may see them.
//!
//! An event is *pushed*, then *tailed* (it survives the process), then *written* (it is in the database). Watchers are shown what is
//! tailed or written, whichever is further; the end only when it is written, so that whoever has seen it finds the message.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use wire::{RunId, UserId};

use super::{fold::Fold, scribe::Errand};
use crate::{
    lab::{
        content::Content,
        event::{Event, Numbered, Outcome},
    },
    store::{Run, RunEnd, RunProgress, RunState, now_ms},
    vault::Key,
};

/// Bytes of an event at most: some times what a tool's result may be.
const MAX_EVENT: usize = 256 << 10;
/// Events of a run at most: an hour of the fastest model's tokens.
const MAX_EVENTS: u64 = 200_000;
/// Bytes of a run that may be neither in the tail nor in the database: more means that neither can be written.
const MAX_UNWRITTEN: usize = 16 << 20;
/// Bytes of what was written already that are kept at hand: a watcher who is behind by more reads the database.
const WINDOW: usize = 1 << 20;
/// Bytes that a run says at most, all together: some hundreds of the longest results of tools. Its message is in memory until it ends, and
/// whoever reads it later reads it whole.
const MAX_SAID: usize = 16 << 20;
/// What an event takes beside its words.
const BESIDE: usize = 96;
/// Events that a watcher is given at once.
const AT_ONCE: usize = 512;

/// A run that works.
pub(super) struct Log {
    pub(super) id: RunId,
    pub(super) owner: UserId,
    pub(super) key: Key,
    state: Mutex<State>,
    horizon: watch::Sender<Horizon>,
    stop: CancellationToken,
    scribe: mpsc::Sender<Errand>,
    /// Told when the run has ended, so that its end is written soon.
    hurry: Arc<Notify>,
}

/// How far a watcher may see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Horizon {
    /// The last event.
    pub(super) shown: u64,
    /// Whether nothing follows.
    pub(super) over: bool,
}

struct State {
    run: Run,
    /// Those at hand, with their bytes.
    events: VecDeque<(Arc<Numbered>, usize)>,
    /// Bytes of events that are written and still at hand.
    kept: usize,
    /// Bytes of events that are not written.
    unwritten: usize,
    /// Bytes of all events so far.
    said: usize,
    pushed: u64,
    tailed: u64,
    written: u64,
    /// Whether the scribe knows that there is something for the tail.
    called: bool,
    fold: Fold,
    /// The state that the database knows.
    known: RunState,
    /// Why it was stopped, if it was.
    cause: Option<Outcome>,
    /// Whether events have been refused since.
    overrun: bool,
    end: Option<End>,
}

/// How it ended. It is said to have ended when that is written, so that whoever reads it finds the message.
#[derive(Clone, Copy)]
struct End {
    /// The number of the last event.
    seq: u64,
    state: RunState,
}

impl Log {
    pub(super) fn new(owner: UserId, run: Run, key: Key, scribe: mpsc::Sender<Errand>, hurry: Arc<Notify>) -> Self {
        let known = run.state;
        let state = State {
            run,
            events: VecDeque::new(),
            kept: 0,
            unwritten: 0,
            said: 0,
            pushed: 0,
            tailed: 0,
            written: 0,
            called: false,
            fold: Fold::default(),
            known,
            cause: None,
            overrun: false,
            end: None,
        };
        Self {
            id: state.run.id,
            owner,
            key,
            state: Mutex::new(state),
            horizon: watch::Sender::new(Horizon::default()),
            stop: CancellationToken::new(),
            scribe,
            hurry,
        }
    }

    /// The run as it is now.
    pub(super) fn run(&self) -> Run {
        let state = self.state();
        Run { last_seq: self.horizon.borrow().shown, cost_nano: state.fold.cost_nano(), ..state.run.clone() }
    }

    pub(super) fn content(&self) -> Content {
        self.state().fold.content().clone()
    }

    pub(super) fn stopped(&self) -> &CancellationToken {
        &self.stop
    }

    pub(super) fn watch(&self) -> watch::Receiver<Horizon> {
        self.horizon.subscribe()
    }

    /// It leaves the queue.
    pub(super) fn begin(&self) {
        self.state().run.state = RunState::Running;
    }

    /// Tells it to stop. The first cause is the one that counts.
    pub(super) fn stop(&self, cause: Outcome) {
        self.state().cause.get_or_insert(cause);
        self.stop.cancel();
    }

    /// Adds an event.
    pub(super) fn push(self: &Arc<Self>, event: Event) {
        let bytes = bytes(&event);
        let mut state = self.state();
        // What was paid for is told even of a run that has overrun: it is short, and comes but once for each question.
        let is_bill = matches!(event, Event::Used { .. });
        if state.end.is_some() || state.overrun && !is_bill {
            return;
        }
        let refused = if is_bill {
            None
        } else if bytes > MAX_EVENT {
            Some(("event_too_large", "a part of the answer was larger than this lab keeps; ask for less at once"))
        } else if state.pushed >= MAX_EVENTS || state.said + bytes > MAX_SAID {
            Some(("run_too_long", "the answer was longer than this lab keeps; go on in a new message"))
        } else if state.unwritten > MAX_UNWRITTEN {
            Some(("storage", "the lab could not write down what was said; its operator finds the cause in its log"))
        } else {
            None
        };
        if let Some((code, message)) = refused {
            state.overrun = true;
            state.cause = Some(Outcome::Failed { code: code.to_owned(), message: message.to_owned() });
            drop(state);
            self.stop.cancel();
            return;
        }
        match &event {
            Event::ApprovalAsked { .. } | Event::Planned { .. } => state.run.state = RunState::Waiting,
            Event::ApprovalAnswered { .. } => state.run.state = RunState::Running,
            _ => {}
        }
        self.append(&mut state, event, bytes);
    }

    /// Adds the last event. What the run says of its end counts unless it was stopped or has overrun.
    pub(super) fn end(self: &Arc<Self>, said: Outcome) {
        let mut state = self.state();
        if state.end.is_some() {
            return;
        }
        let outcome = match state.cause.take() {
            Some(cause) if state.overrun || said == Outcome::Stopped => cause,
            _ => said,
        };
        let ended = RunState::of(&outcome);
        self.append(&mut state, Event::Ended { outcome }, BESIDE);
        state.end = Some(End { seq: state.pushed, state: ended });
        drop(state);
        // Whoever works for it still has nothing to do any more.
        self.stop.cancel();
        self.hurry.notify_one();
    }

    fn append(self: &Arc<Self>, state: &mut State, event: Event, bytes: usize) {
        state.fold.take(&event);
        state.pushed += 1;
        state.unwritten += bytes;
        state.said += bytes;
        let numbered = Numbered { seq: state.pushed, time: now_ms(), event };
        state.events.push_back((Arc::new(numbered), bytes));
        if !state.called {
            state.called = true;
            // The scribe ends after the last run has.
            let _ = self.scribe.send(Errand::Write(Arc::clone(self)));
        }
    }

    /// What is to go into the tail.
    pub(super) fn untailed(&self) -> Vec<Arc<Numbered>> {
        let mut state = self.state();
        state.called = false;
        state.behind(state.tailed.max(state.written), usize::MAX)
    }

    /// Everything up to this event survives the process.
    pub(super) fn tailed(&self, last: u64) {
        let mut state = self.state();
        state.tailed = state.tailed.max(last);
        self.show(&state);
    }

    /// What is to go into the database; `None` if there is nothing.
    pub(super) fn progress(&self) -> Option<RunProgress> {
        let state = self.state();
        let events = state.behind(state.written, usize::MAX);
        let now = state.end.map_or(state.run.state, |end| end.state);
        let changed = (now != state.known).then_some(now);
        if events.is_empty() && changed.is_none() {
            return None;
        }
        let end = state.end.map(|end| RunEnd {
            message: state.run.message,
            content: state.fold.content().clone(),
            last_seq: end.seq,
            cost_nano: state.fold.cost_nano(),
        });
        Some(RunProgress { run: state.run.id, owner: self.owner, key: self.key.clone(), events, state: changed, end })
    }

    /// This much is in the database.
    pub(super) fn written(&self, progress: &RunProgress) {
        let mut state = self.state();
        if let Some(last) = progress.events.last() {
            state.advance(last.seq);
        }
        if let Some(known) = progress.state {
            state.known = known;
        }
        if let Some(end) = state.end.filter(|_| progress.end.is_some()) {
            state.run.state = end.state;
        }
        self.show(&state);
        drop(state);
        if progress.end.is_some() {
            self.horizon.send_modify(|horizon| horizon.over = true);
        }
    }

    /// The database has this much, which it did not say.
    pub(super) fn found_written(&self, last: u64) {
        let mut state = self.state();
        state.advance(last);
        self.show(&state);
    }

    /// Its conversation was deleted: nobody will see any more of it.
    pub(super) fn gone(&self) {
        self.stop.cancel();
        let mut state = self.state();
        state.end = Some(End { seq: 0, state: state.run.state });
        drop(state);
        self.horizon.send_modify(|horizon| horizon.over = true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().end.is_some()
    }

    /// Events behind `after` that watchers may see. `None` when they are not at hand any more.
    pub(super) fn shown(&self, after: u64) -> Option<Vec<Arc<Numbered>>> {
        let state = self.state();
        let shown = self.horizon.borrow().shown;
        let oldest = state.events.front().map_or(state.pushed + 1, |(event, _)| event.seq);
        if after + 1 < oldest && after < shown {
            return None;
        }
        let many = usize::try_from(shown.saturating_sub(after)).unwrap_or(AT_ONCE).min(AT_ONCE);
        Some(state.behind(after, many))
    }

    fn show(&self, state: &State) {
        let mut shown = state.tailed.max(state.written);
        if let Some(end) = state.end.filter(|end| end.seq > state.written) {
            shown = shown.min(end.seq - 1);
        }
        self.horizon.send_if_modified(|horizon| {
            let is_news = shown > horizon.shown;
            horizon.shown = horizon.shown.max(shown);
            is_news
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// At most `many` events behind `after`.
    fn behind(&self, after: u64, many: usize) -> Vec<Arc<Numbered>> {
        let oldest = self.events.front().map_or(self.pushed + 1, |(event, _)| event.seq);
        let skip = usize::try_from((after + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        self.events.iter().skip(skip).take(many).map(|(event, _)| Arc::clone(event)).collect()
    }

    fn advance(&mut self, written: u64) {
        let oldest = self.events.front().map_or(self.pushed + 1, |(event, _)| event.seq);
        let position = |seq: u64| usize::try_from((seq + 1).saturating_sub(oldest)).unwrap_or(usize::MAX);
        let (from, to) = (position(self.written), position(written).min(self.events.len()));
        let newly: usize = self.events.iter().take(to).skip(from).map(|(_, bytes)| bytes).sum();
        self.written = self.written.max(written);
        self.unwritten = self.unwritten.saturating_sub(newly);
        self.kept += newly;
        while self.kept > WINDOW
            && let Some((event, bytes)) = self.events.pop_front_if(|(event, _)| event.seq <= self.written)
        {
            self.kept -= bytes;
            drop(event);
        }
    }
}

/// About as many bytes as it will take.
fn bytes(event: &Event) -> usize {
    BESIDE
        + match event {
            Event::Text { text } | Event::Reasoning { text } => text.len(),
            Event::ToolCall { call, tool, arguments } => call.len() + tool.len() + json_bytes(arguments),
            Event::ToolResult { call, text, .. } => call.len() + text.len(),
            Event::Planned { plan, .. } => plan.len(),
            Event::Asked { model, .. } => model.len(),
            Event::Waiting { .. }
            | Event::ApprovalAsked { .. }
            | Event::ApprovalAnswered { .. }
            | Event::Used { .. }
            | Event::Ended { .. } => 0,
        }
}

fn json_bytes(value: &serde_json::Value) -> usize {
    use serde_json::Value;

    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(values) => values.iter().map(|value| json_bytes(value) + 1).sum::<usize>() + 2,
        Value::Object(members) => members.iter().map(|(name, value)| name.len() + json_bytes(value) + 4).sum::<usize>() + 2,
    }
}
