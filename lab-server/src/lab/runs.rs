//! Runs: answers and agents at work that nobody has to watch, and of which nothing is lost.
//!
//! A run is one task with a [`RunWriter`]. What it pushes is numbered at once, and goes this way:
//!
//! ```text
//! push ─▶ log (memory) ─▶ tail (a file, sealed; survives the process) ─▶ watchers
//!                     └─▶ every 250 ms, all runs in one transaction: run_events ─▶ the tail is dropped
//! end  ─▶ last events, state, cost and the message in one transaction ─▶ watchers are shown the end
//! ```
//!
//! **Nothing is shown that a kill could undo.** A watcher sees an event when the tail or the database has it. Both are written without
//! waiting for a clock: the tail by a thread that takes whatever all runs have said since its last `write`, so that under load many
//! tokens share one and a lone token is shown at once. Of what was shown a power cut, not a kill, may cost the last quarter of a second
//! and what SQLite's last commits are.
//!
//! **Watchers pull** ([`Follow`]). They say which event they have and are given what follows, from memory while they are close behind,
//! else from the database. There is no queue for a watcher, so there may be any number of them and none can hold up the run.
//!
//! **What is asked while something is being answered waits for it.** A run whose path leads over a message that another run still
//! makes is queued until that one is over, however it ends; other branches of the tree run side by side. A queued run is stopped like
//! any other.
//!
//! **A run always ends in an [`Event::Ended`].** When the Lab starts, the runs that it finds unfinished are given what the tail has of
//! them and the end `interrupted`; their messages keep what was said.

mod fold;
mod follow;
mod log;
mod scribe;
mod tail;

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use wire::{ConversationId, MessageId, ProjectId, RunId, UserId};

pub use follow::Follow;

use super::{
    agent::AgentTerms,
    content::{Content, ModelChoice},
    event::{Event, Numbered, Outcome},
};
use crate::{
    news::{About, News},
    store::{
        Bookmark, Run, RunBeginning, RunBegun, RunEnd, RunKind, RunProgress, RunState, Store, StoreError, UnfinishedRun, now_ms,
    },
    vault::{Scope, VaultError},
};
use fold::Fold;
use log::Log;
use scribe::{Errand, Recorder};
use tail::{Left, Tail};

/// Unfinished runs of a person, queued ones too. Eight devices with four conversations each are fewer people than will ever use one
/// account, and as many streams as a browser opens over HTTP/2 without waiting.
const PER_PERSON: usize = 32;
/// Runs of everybody that are at work. Each holds a megabyte at hand at most. One that waits, for its owner or for another run, is not
/// among them: it may wait for days, and a few dozen people who do not answer would keep everybody else from working.
const TOTAL: usize = 1024;
/// How long a run that was told to stop may take to put its things in order, before it is dropped where it stands.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How long the ends of all runs may take to be written when the Lab stops.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The runs of everybody; clones share them.
#[derive(Clone)]
pub struct Runs(Arc<Inner>);

struct Inner {
    store: Store,
    runner: Runner,
    live: Arc<Live>,
    scribe: mpsc::Sender<Errand>,
    hurry: Arc<Notify>,
    recorder: Mutex<Option<JoinHandle<()>>>,
    recorded: CancellationToken,
}

/// What a run does: is given its writer and its order, and says how it ended. When [`RunWriter::stopped`] it shall return
/// [`Outcome::Stopped`] soon; why it was stopped is known here.
pub type Runner = Box<dyn Fn(RunWriter, Order) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// What is wanted of a run, as it is kept with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The model.
    pub choice: ModelChoice,
    /// For an agent: its task's terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentTerms>,
}

/// A run to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// In which conversation.
    pub conversation: ConversationId,
    /// Below which message; `None` at the conversation's beginning.
    pub parent: Option<MessageId>,
    /// What its owner says there. `None` when the parent is what they said, and is to be answered, perhaps once more.
    pub content: Option<Content>,
    /// What it is.
    pub kind: RunKind,
    /// What is wanted.
    pub order: Order,
}

/// A run that was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// It.
    pub run: Run,
    /// The message that its owner's words became, where they said something new.
    pub asked: Option<MessageId>,
}

/// Why there is no such run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The person has as many as they may have.
    #[error("too many runs are unfinished; stop one or wait for it")]
    TooMany,
    /// Everybody together has.
    #[error("the lab works on as many runs as it can; try again in a minute")]
    Busy,
    /// The Lab stops.
    #[error("the lab is about to stop; try again when it is back")]
    Stopping,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder of the tail.
    #[error("cannot use the folder {path}: {source}; check the path and its permissions", path = path.display())]
    Tail {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Runs that work or wait.
struct Live {
    working: Mutex<Working>,
    /// For runs at work.
    room: Arc<Semaphore>,
    /// Told when the last one is over.
    emptied: Notify,
    news: News,
}

#[derive(Default)]
struct Working {
    logs: HashMap<RunId, Arc<Log>>,
    /// Unfinished runs of each person.
    places: HashMap<UserId, usize>,
    /// Who makes a message.
    makers: HashMap<MessageId, RunId>,
    is_closed: bool,
}

impl Runs {
    /// Brings those runs to their end that a Lab before this one left, and is ready for new ones. `tails` is a folder of its own.
    ///
    /// # Errors
    /// When the folder or the database cannot be used.
    pub async fn open(store: Store, tails: &Path, news: News, runner: Runner) -> Result<Self, RunError> {
        Self::with_room(store, tails, news, runner, TOTAL).await
    }

    async fn with_room(store: Store, tails: &Path, news: News, runner: Runner, room: usize) -> Result<Self, RunError> {
        let dir = tails.to_owned();
        let opened = tokio::task::spawn_blocking(move || Tail::open(&dir)).await;
        let in_tail = |source| RunError::Tail { path: tails.to_owned(), source };
        let (mut tail, left) = opened.map_err(std::io::Error::other).and_then(|opened| opened).map_err(in_tail)?;
        for unfinished in store.unfinished_runs().await? {
            interrupt(&store, &unfinished, &left).await?;
        }
        let last = tail.close();
        tail.forget(last).map_err(in_tail)?;
        let scribe = scribe::start(tail).map_err(in_tail)?;
        let live = Arc::new(Live { working: Mutex::default(), room: Arc::new(Semaphore::new(room)), emptied: Notify::new(), news });
        let (hurry, recorded) = (Arc::new(Notify::new()), CancellationToken::new());
        let recorder =
            Recorder { store: store.clone(), live: Arc::clone(&live), scribe: scribe.clone(), hurry: Arc::clone(&hurry) };
        let recorder = Mutex::new(Some(tokio::spawn(recorder.run(recorded.clone()))));
        Ok(Self(Arc::new(Inner { store, runner, live, scribe, hurry, recorder, recorded })))
    }

    /// Starts a run. It goes on whatever becomes of whoever asked for it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation, or that no such message, [`StoreError::Refused`] when the
    /// answer cannot stand there, [`RunError::TooMany`], [`RunError::Busy`].
    pub async fn start(&self, owner: UserId, new: NewRun) -> Result<Started, RunError> {
        let Inner { store, live, scribe, hurry, .. } = &*self.0;
        let NewRun { conversation, parent, content, kind, order } = new;
        let key = match store.vault().key(Scope::Conversation(owner, conversation)).await {
            Ok(key) => key,
            Err(VaultError::NoKey) => return Err(StoreError::Missing("conversation").into()),
            Err(error) => return Err(StoreError::from(error).into()),
        };
        let place = Place::take(live, owner)?;
        let beginning = RunBeginning { run: RunId::random(), conversation, parent, says: content, kind, order: &order };
        let RunBegun { run, asked, follows } = store.begin_run(owner, &key, beginning).await?;
        let log = Arc::new(Log::new(owner, run.clone(), key, scribe.clone(), Arc::clone(hurry)));
        let before = live.insert(&log, run.message, follows);
        // Whoever stops what was deleted may have looked just before.
        if log.key.is_gone() {
            log.stop(Outcome::Stopped);
        }
        tokio::spawn(Arc::clone(&self.0).drive(log, before, order, place));
        Ok(Started { run, asked })
    }

    /// Follows a run from the event behind `after` on.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such run.
    pub async fn follow(&self, owner: UserId, run: RunId, after: u64) -> Result<Follow, StoreError> {
        let Inner { store, live, .. } = &*self.0;
        if let Some(log) = live.get(owner, run) {
            return Ok(Follow::live(store.clone(), log, after));
        }
        let run = store.run(owner, run).await?.ok_or(StoreError::Missing("run"))?;
        Ok(Follow::over(store.clone(), owner, run, after))
    }

    /// A run as it is now.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such run.
    pub async fn get(&self, owner: UserId, run: RunId) -> Result<Run, StoreError> {
        match self.0.live.get(owner, run) {
            Some(log) => Ok(log.run()),
            None => self.0.store.run(owner, run).await?.ok_or(StoreError::Missing("run")),
        }
    }

    /// A person's runs that are not over, newest first.
    #[must_use]
    pub fn unfinished(&self, owner: UserId) -> Vec<Run> {
        let all = self.0.live.all();
        let mut runs: Vec<Run> = all.iter().filter(|log| log.owner == owner).map(|log| log.run()).collect();
        runs.sort_unstable_by_key(|run| std::cmp::Reverse((run.created_at, run.id.to_string())));
        runs
    }

    /// The runs of a conversation as they are now, newest first: at most `limit` after `after`, and where to go on.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such conversation.
    pub async fn list(
        &self,
        owner: UserId,
        conversation: ConversationId,
        after: Option<Bookmark<RunId>>,
        limit: u64,
    ) -> Result<(Vec<Run>, Option<Bookmark<RunId>>), StoreError> {
        let (mut runs, next) = self.0.store.runs(owner, conversation, after, limit).await?;
        for run in &mut runs {
            if let Some(log) = self.0.live.get(owner, run.id) {
                *run = log.run();
            }
        }
        Ok((runs, next))
    }

    /// Stops a run; one that is over stays as it ended.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such run.
    pub async fn stop(&self, owner: UserId, run: RunId) -> Result<(), StoreError> {
        match self.0.live.get(owner, run) {
            Some(log) => log.stop(Outcome::Stopped),
            None => {
                self.0.store.run(owner, run).await?.ok_or(StoreError::Missing("run"))?;
            }
        }
        Ok(())
    }

    /// Stops all runs of a person, whatever they wait for.
    pub fn stop_all(&self, owner: UserId) {
        self.0.live.all().iter().filter(|log| log.owner == owner).for_each(|log| log.stop(Outcome::Stopped));
    }

    /// Stops the runs of what was deleted, by another process too: nobody can read what they say, and they cost. It looks whenever
    /// the security epoch changes, and ends with whoever tells it.
    pub async fn follow_deletions(self, mut epochs: watch::Receiver<u64>) {
        loop {
            // By then the vault knows what was deleted: it is asked before the epoch is told.
            self.0.live.all().iter().filter(|log| log.key.is_gone()).for_each(|log| log.stop(Outcome::Stopped));
            if epochs.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes no new runs, gives those that work some time, ends those that are left as interrupted, and writes all of it. What waits
    /// in a queue does not begin any more.
    pub async fn shutdown(&self, grace: Duration) {
        let Inner { live, recorded, recorder, .. } = &*self.0;
        live.close();
        let _ = tokio::time::timeout(grace, live.emptied()).await;
        live.all().iter().for_each(|log| log.stop(Outcome::Interrupted));
        // What is not written by then is in the tail, and the next Lab finds it there.
        let _ = tokio::time::timeout(LAST_WORDS, live.emptied()).await;
        recorded.cancel();
        let recorder = recorder.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(recorder) = recorder {
            // A part that panicked was reported by the hook.
            let _ = recorder.await;
        }
    }
}

impl Inner {
    /// A run's life.
    async fn drive(self: Arc<Self>, log: Arc<Log>, before: Option<Arc<Log>>, order: Order, place: Place) {
        let stopped = log.stopped();
        if let Some(before) = before {
            let mut horizon = before.watch();
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                // The sender is held here.
                _ = place.seat.leave(async { horizon.wait_for(|horizon| horizon.over).await.is_ok() }) => {}
            }
        }
        let outcome = if stopped.is_cancelled() { Outcome::Stopped } else { self.work(&log, &place.seat, order).await };
        log.end(outcome);
        drop(place);
    }

    async fn work(&self, log: &Arc<Log>, seat: &Arc<Seat>, order: Order) -> Outcome {
        log.begin();
        let writer = RunWriter { log: Arc::clone(log), seat: Arc::clone(seat) };
        let work = AssertUnwindSafe(async { (self.runner)(writer, order).await }).catch_unwind();
        let patience = async {
            log.stopped().cancelled().await;
            tokio::time::sleep(STOP_PATIENCE).await;
        };
        tokio::select! {
            biased;
            ended = work => ended.unwrap_or_else(|_| Outcome::Failed {
                code: "internal".to_owned(),
                message: "the lab failed to do this; its log names the place".to_owned(),
            }),
            () = patience => Outcome::Stopped,
        }
    }
}

/// How a run says what happens in it; clones write to the same run.
#[derive(Clone)]
pub struct RunWriter {
    log: Arc<Log>,
    seat: Arc<Seat>,
}

impl RunWriter {
    /// Whose run it is.
    #[must_use]
    pub fn owner(&self) -> UserId {
        self.log.owner
    }

    /// The run as it is now.
    #[must_use]
    pub fn run(&self) -> Run {
        self.log.run()
    }

    /// In which project.
    #[must_use]
    pub fn project(&self) -> ProjectId {
        self.log.run().project
    }

    /// Says that something happened. Cheap, and never waits. A run that says more than is kept is stopped, and fails; what it says
    /// from then on is not kept. [`Event::Ended`] is said for the run when its task returns, and is not to be pushed.
    pub fn push(&self, event: Event) {
        self.log.push(event);
    }

    /// Cancelled when the run is to stop, whoever wants that.
    #[must_use]
    pub fn stopped(&self) -> CancellationToken {
        self.log.stopped().clone()
    }

    /// Waits for something that may take days, such as its owner's answer. Meanwhile the run has no place among those at work; it goes on
    /// when there is one again, before all runs that were not begun by then.
    pub async fn aside<T>(&self, waiting: impl Future<Output = T>) -> T {
        self.seat.leave(waiting).await
    }

    /// The message as far as it is made.
    #[must_use]
    pub fn content(&self) -> Content {
        self.log.content()
    }
}

impl Live {
    fn all(&self) -> Vec<Arc<Log>> {
        self.working().logs.values().cloned().collect()
    }

    fn get(&self, owner: UserId, run: RunId) -> Option<Arc<Log>> {
        self.working().logs.get(&run).filter(|log| log.owner == owner).cloned()
    }

    /// Gives the run that makes the message `follows`.
    fn insert(&self, log: &Arc<Log>, makes: MessageId, follows: Option<MessageId>) -> Option<Arc<Log>> {
        let mut working = self.working();
        working.logs.insert(log.id, Arc::clone(log));
        working.makers.insert(makes, log.id);
        let closed = working.is_closed;
        let before = follows.and_then(|message| working.logs.get(working.makers.get(&message)?).cloned());
        drop(working);
        self.news.tell(log.owner, About::Runs);
        if closed {
            log.stop(Outcome::Interrupted);
        }
        before
    }

    fn remove(&self, run: RunId) {
        let mut working = self.working();
        let removed = working.logs.remove(&run);
        working.makers.retain(|_, maker| *maker != run);
        let is_empty = working.logs.is_empty();
        drop(working);
        if let Some(log) = removed {
            self.news.tell(log.owner, About::Runs);
        }
        if is_empty {
            self.emptied.notify_waiters();
        }
    }

    fn close(&self) {
        self.working().is_closed = true;
        for log in self.all().iter().filter(|log| log.run().state == RunState::Queued) {
            log.stop(Outcome::Interrupted);
        }
    }

    async fn emptied(&self) {
        let mut emptied = std::pin::pin!(self.emptied.notified());
        emptied.as_mut().enable();
        if !self.working().logs.is_empty() {
            emptied.await;
        }
    }

    fn working(&self) -> MutexGuard<'_, Working> {
        // No code that can panic runs under the lock.
        self.working.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the runs that a person may have unfinished, with a place among those at work; both are given back when dropped.
struct Place {
    seat: Arc<Seat>,
    _counted: Counted,
}

/// An unfinished run of a person's; taken off when dropped.
struct Counted {
    live: Arc<Live>,
    owner: UserId,
}

/// A run's place among those at work, which it leaves while it waits.
struct Seat {
    room: Arc<Semaphore>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Seat {
    fn take(room: &Arc<Semaphore>) -> Result<Self, RunError> {
        // Who waits to go on is given what becomes free, and nobody takes it from them here.
        let held = Arc::clone(room).try_acquire_owned().map_err(|_| RunError::Busy)?;
        Ok(Self { room: Arc::clone(room), held: Mutex::new(Some(held)) })
    }

    async fn leave<T>(&self, waiting: impl Future<Output = T>) -> T {
        drop(self.held().take());
        let waited = waiting.await;
        // The semaphore is never closed.
        *self.held() = Arc::clone(&self.room).acquire_owned().await.ok();
        waited
    }

    fn held(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        // No code that can panic runs under the lock.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn take(live: &Arc<Live>, owner: UserId) -> Result<Self, RunError> {
        let mut working = live.working();
        if working.is_closed {
            return Err(RunError::Stopping);
        }
        let theirs = working.places.entry(owner).or_default();
        if *theirs >= PER_PERSON {
            return Err(RunError::TooMany);
        }
        *theirs += 1;
        drop(working);
        let counted = Counted { live: Arc::clone(live), owner };
        Ok(Self { seat: Arc::new(Seat::take(&live.room)?), _counted: counted })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut working = self.live.working();
        if let Some(theirs) = working.places.get_mut(&self.owner) {
            *theirs -= 1;
            if *theirs == 0 {
                working.places.remove(&self.owner);
            }
        }
    }
}

/// Brings a run to its end of which a Lab before this one knew more than the database: what its tail has is written, then how it ended.
async fn interrupt(store: &Store, unfinished: &UnfinishedRun, left: &Left) -> Result<(), RunError> {
    let UnfinishedRun { owner, run } = unfinished;
    let key = match store.vault().key(Scope::Conversation(*owner, run.conversation)).await {
        Ok(key) => key,
        // Its conversation is being deleted: the rows are all that is left.
        Err(VaultError::NoKey) => return Ok(()),
        Err(error) => return Err(StoreError::from(error).into()),
    };
    let (mut fold, mut last) = (Fold::default(), 0);
    loop {
        let events = match store.run_events(*owner, run, last).await {
            // What was changed behind the Lab's back is not to keep it from starting: the run is over, and its message is as it was.
            Err(error @ (StoreError::Vault(_) | StoreError::Corrupt(_))) => {
                tracing::error!(run = %run.id, %error, "what an interrupted run said cannot be read");
                let (state, events) = (Some(RunState::Interrupted), Vec::new());
                store.write_progress(&[RunProgress { run: run.id, owner: *owner, key, events, state, end: None }]).await?;
                return Ok(());
            }
            events => events?,
        };
        let Some(newest) = events.last() else { break };
        last = newest.seq;
        events.iter().for_each(|event| fold.take(&event.event));
    }
    let written = last;
    let mut events = left.get(&run.id).map(|left| tail::read(&key, run.id, left, written)).unwrap_or_default();
    let outcome = match events.last().map(|last| &last.event) {
        Some(Event::Ended { outcome }) => outcome.clone(),
        _ => {
            let seq = events.last().map_or(written, |last| last.seq) + 1;
            events.push(Numbered { seq, time: now_ms(), event: Event::Ended { outcome: Outcome::Interrupted } });
            Outcome::Interrupted
        }
    };
    events.iter().for_each(|event| fold.take(&event.event));
    let last_seq = events.last().map_or(written, |last| last.seq);
    tracing::info!(run = %run.id, written, recovered = last_seq - written - 1, "a run was interrupted by the end of the lab before");
    let end = RunEnd { message: run.message, content: fold.content().clone(), last_seq, cost_nano: fold.cost_nano() };
    let progress = RunProgress {
        run: run.id,
        owner: *owner,
        key,
        events: events.into_iter().map(Arc::new).collect(),
        state: Some(RunState::of(&outcome)),
        end: Some(end),
    };
    store.write_progress(&[progress]).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
