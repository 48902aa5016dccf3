//! Relays: one generation of Ollama's each, which outlives the link it was asked for on.
//!
//! A relay's life, top to bottom: [`Relays::start`] checks the body against the owner's policy and finds a place in the queue;
//! [`Running::run`] waits for its turn, asks Ollama, and copies the answer into the journal past the usage tap; the session reads
//! the journal from any offset through an [`Attachment`]. Nothing but [`Relays::cancel`], the owner's limits or
//! [`RESUME_WINDOW`](wire::relay::RESUME_WINDOW) without a reader ends a generation early, and each of them drops Ollama's
//! connection at once, which is what frees the GPU.

mod journal;
pub(crate) mod tap;
mod turnstile;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry as Slot},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SetOnce, broadcast, watch};
use tokio_util::sync::CancellationToken;
use wire::{
    ModelName, RelayId,
    relay::{BridgeEvent, Ending, Failure, JOURNAL, Operation, Outcome, Phase, Refusal, RefusalCode},
};

pub(crate) use self::journal::Read;
use self::{
    journal::{Journal, Reader},
    tap::Tap,
    turnstile::{Entry, Turnstile},
};
use crate::{
    ollama::{self, Inventory, Ollama},
    policy::{
        Policy,
        guard::{Guarded, KnownModel, guard},
    },
    status::{Activity, Pause, RelayStatus, now_ms},
};

/// A relay that says nothing for this long is told to the Lab as waiting or loading; quicker ones are not worth an event.
const WORTH_TELLING: Duration = Duration::from_millis(250);
/// How many ids are remembered that were cancelled before they were known.
const UNWANTED: usize = 1024;
/// How many finished relays the owner can look back on.
const ACTIVITY: usize = 200;
/// Bytes that all requests' bodies may take together, those that wait and those that run: several times the largest one. A Lab that
/// sends more is told to come back, whatever the limits of the queue.
const BODIES: usize = 128 << 20;
/// The unit in which that is counted.
const UNIT: usize = 1 << 10;
/// When a full queue may have room again: a guess at one short answer.
const QUEUE_RETRY_S: u64 = 5;

/// Everything that relays share: the owner's policy, Ollama, the queue, the table.
pub(crate) struct Relays {
    table: Mutex<HashMap<RelayId, Arc<Relay>>>,
    turnstile: Turnstile,
    bodies: Arc<Semaphore>,
    policy: watch::Receiver<Arc<Policy>>,
    pause: watch::Receiver<Pause>,
    ollama: Ollama,
    inventory: watch::Receiver<Arc<Inventory>>,
    events: broadcast::Sender<BridgeEvent>,
    /// Ids that were cancelled before they were known, newest last.
    unwanted: Mutex<VecDeque<RelayId>>,
    activity: Mutex<VecDeque<Activity>>,
    /// Counts changes, so that the status can be composed anew.
    changed: watch::Sender<u64>,
    resume_window: Duration,
}

/// The part of [`BODIES`] that one body takes; given back when it is dropped.
#[derive(Default)]
pub(crate) struct Room(Option<OwnedSemaphorePermit>);

/// One relay.
pub(crate) struct Relay {
    id: RelayId,
    operation: Operation,
    model: ModelName,
    journal: Arc<Journal>,
    head: SetOnce<Head>,
    phase: Mutex<Phase>,
    cancel: CancellationToken,
    /// Since when nobody reads; `None` while somebody does.
    alone_since: Mutex<Option<Instant>>,
    started: Instant,
    started_ms: u64,
}

/// How an answer begins.
#[derive(Clone)]
pub(crate) enum Head {
    /// Ollama's status and content type, untouched.
    Ollama {
        /// HTTP status.
        status: u16,
        /// The `Content-Type`, if it had one.
        content_type: Option<http::HeaderValue>,
    },
    /// The bridge's own answer.
    Bridge(Refusal),
}

impl Relays {
    pub(crate) fn new(
        policy: watch::Receiver<Arc<Policy>>,
        pause: watch::Receiver<Pause>,
        ollama: Ollama,
        inventory: watch::Receiver<Arc<Inventory>>,
        resume_window: Duration,
    ) -> Arc<Self> {
        let slots = policy.borrow().max_concurrent;
        Arc::new(Self {
            table: Mutex::default(),
            turnstile: Turnstile::new(slots),
            bodies: Arc::new(Semaphore::new(BODIES / UNIT)),
            policy,
            pause,
            ollama,
            inventory,
            events: broadcast::Sender::new(256),
            unwanted: Mutex::default(),
            activity: Mutex::default(),
            changed: watch::Sender::new(0),
            resume_window,
        })
    }

    /// Starts a relay, or finds the one of this id that a cut link left running: a request repeated after a cut runs once.
    ///
    /// # Errors
    /// A [`Refusal`] when the owner's policy does not let it in. Ollama has then seen nothing of it.
    pub(crate) fn start(
        self: &Arc<Self>,
        id: RelayId,
        operation: Operation,
        body: &[u8],
        room: Room,
    ) -> Result<Attachment, Refusal> {
        if let Some(relay) = self.find(id) {
            return relay.attach(0);
        }
        let policy = Arc::clone(&self.policy.borrow());
        self.check_open()?;
        let guarded = guard(&policy, operation, body, |name| self.known_model(name))?;
        self.turnstile.resize(policy.max_concurrent);
        let entry = self.turnstile.enter(policy.max_queued).ok_or_else(|| Refusal {
            code: RefusalCode::QueueFull,
            message: format!(
                "the workstation is busy and {} requests wait already, which is the owner's limit; try again shortly",
                policy.max_queued
            ),
            retry_after_s: Some(QUEUE_RETRY_S),
        })?;
        if self.unwanted.lock().unwrap_or_else(PoisonError::into_inner).contains(&id) {
            return Err(unknown_relay());
        }
        let relay = Arc::new(Relay::new(id, operation, guarded.model.clone()));
        match self.lock_table().entry(id) {
            // The same request on two links at once: the one that was first runs.
            Slot::Occupied(first) => return first.get().attach(0),
            Slot::Vacant(free) => free.insert(Arc::clone(&relay)),
        };
        let attachment = relay.attach(0)?;
        self.mark_changed();
        let running = Running { relays: Arc::clone(self), relay, policy, _room: room };
        tokio::spawn(async move { running.run(entry, guarded).await });
        Ok(attachment)
    }

    /// Makes `room` hold `bytes` of a body.
    ///
    /// # Errors
    /// When all bodies together are too large already.
    pub(crate) fn make_room(&self, room: &mut Room, bytes: usize) -> Result<(), Refusal> {
        let missing = bytes.div_ceil(UNIT).saturating_sub(room.0.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        let more = Arc::clone(&self.bodies).try_acquire_many_owned(u32::try_from(missing).unwrap_or(u32::MAX));
        let more = more.map_err(|_| Refusal {
            code: RefusalCode::QueueFull,
            message: "the workstation holds as many large requests as it can; try again shortly".to_owned(),
            retry_after_s: Some(QUEUE_RETRY_S),
        })?;
        match &mut room.0 {
            Some(held) => held.merge(more),
            None => room.0 = Some(more),
        }
        Ok(())
    }

    /// Reads a relay again from byte `from`.
    ///
    /// # Errors
    /// When there is no such relay (any more) or those bytes are gone.
    pub(crate) fn resume(&self, id: RelayId, from: u64) -> Result<Attachment, Refusal> {
        self.find(id).ok_or_else(unknown_relay)?.attach(from)
    }

    /// Ends a relay: Ollama's connection is dropped at once. Returns whether there was one to end. One that is not known may be
    /// on its way, its body still being read; it will not start.
    pub(crate) fn cancel(&self, id: RelayId) -> bool {
        let Some(relay) = self.find(id) else {
            let mut unwanted = self.unwanted.lock().unwrap_or_else(PoisonError::into_inner);
            if unwanted.len() == UNWANTED {
                unwanted.pop_front();
            }
            unwanted.push_back(id);
            return false;
        };
        relay.cancel.cancel();
        true
    }

    /// The Lab has this many bytes of a relay.
    pub(crate) fn acknowledge(&self, id: RelayId, received: u64) {
        if let Some(relay) = self.find(id) {
            relay.journal.acknowledge(received);
        }
    }

    /// The Lab wants no more of a relay: one that still runs is ended, one that is over is forgotten.
    pub(crate) fn done(&self, id: RelayId) {
        let Some(relay) = self.find(id) else { return };
        relay.cancel.cancel();
        self.forget(id);
    }

    /// Ends what nobody has read for the resume window, once a second. Runs for as long as the bridge.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1).min(self.resume_window));
        loop {
            tick.tick().await;
            let abandoned: Vec<_> = {
                let table = self.lock_table();
                table.values().filter(|relay| relay.is_abandoned(self.resume_window)).cloned().collect()
            };
            for relay in abandoned {
                relay.cancel.cancel();
                self.forget(relay.id);
            }
        }
    }

    /// Whether the Lab still wants something of a relay, be it only the last bytes: the link is then watched more closely, and
    /// redialled sooner.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.lock_table().is_empty()
    }

    /// Whether a relay waits or runs.
    pub(crate) fn is_busy(&self) -> bool {
        self.lock_table().values().any(|relay| relay.journal.ending().is_none())
    }

    /// Relays whose bytes the bridge still holds.
    pub(crate) fn ids(&self) -> Vec<RelayId> {
        self.lock_table().keys().copied().collect()
    }

    /// Relays that wait or run, oldest first.
    pub(crate) fn running(&self) -> Vec<RelayStatus> {
        let mut running: Vec<_> = self
            .lock_table()
            .values()
            .filter(|relay| relay.journal.ending().is_none())
            .map(|relay| RelayStatus {
                id: relay.id,
                operation: relay.operation,
                model: relay.model.to_string(),
                phase: *relay.lock_phase(),
                started_ms: relay.started_ms,
            })
            .collect();
        running.sort_by_key(|relay| relay.started_ms);
        running
    }

    /// How many wait for their turn.
    pub(crate) fn queued(&self) -> u32 {
        self.turnstile.queued()
    }

    /// What has finished lately, oldest first.
    pub(crate) fn activity(&self) -> Vec<Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Phases of relays, for the control stream.
    pub(crate) fn events(&self) -> broadcast::Receiver<BridgeEvent> {
        self.events.subscribe()
    }

    /// Counts up whenever a relay comes, goes or changes its phase.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn check_open(&self) -> Result<(), Refusal> {
        match *self.pause.borrow() {
            Pause::Serving => {}
            Pause::Paused { .. } => {
                return Err(Refusal::new(RefusalCode::Paused, "the workstation's owner has paused it; try again later"));
            }
            Pause::Quiet => {
                return Err(Refusal::new(RefusalCode::Paused, "the workstation keeps quiet hours now; try again later"));
            }
            Pause::Yielding => {
                let message = "another program uses the workstation's graphics processor now; try again later";
                return Err(Refusal::new(RefusalCode::Paused, message));
            }
        }
        match &self.inventory.borrow().state {
            wire::relay::OllamaState::TooOld { version } => Err(Refusal::new(
                RefusalCode::OllamaTooOld,
                format!(
                    "the workstation's Ollama {version} is too old to be shared safely; update it to {} or later",
                    ollama::OLDEST
                ),
            )),
            wire::relay::OllamaState::Unreachable { cause } => Err(Refusal {
                code: RefusalCode::OllamaUnavailable,
                message: format!("Ollama does not answer on the workstation: {cause}"),
                retry_after_s: Some(2),
            }),
            wire::relay::OllamaState::Unknown | wire::relay::OllamaState::Running { .. } => Ok(()),
        }
    }

    fn known_model(&self, name: &ModelName) -> Option<KnownModel> {
        self.inventory.borrow().known_model(name)
    }

    fn find(&self, id: RelayId) -> Option<Arc<Relay>> {
        self.lock_table().get(&id).cloned()
    }

    fn forget(&self, id: RelayId) {
        self.lock_table().remove(&id);
        self.mark_changed();
    }

    fn mark_changed(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock_table(&self) -> MutexGuard<'_, HashMap<RelayId, Arc<Relay>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    fn new(id: RelayId, operation: Operation, model: ModelName) -> Self {
        Self {
            id,
            operation,
            model,
            journal: Arc::new(Journal::new(JOURNAL)),
            head: SetOnce::new(),
            phase: Mutex::new(Phase::Queued),
            cancel: CancellationToken::new(),
            alone_since: Mutex::new(None),
            started: Instant::now(),
            started_ms: now_ms(),
        }
    }

    fn attach(self: &Arc<Self>, from: u64) -> Result<Attachment, Refusal> {
        let mut alone_since = self.lock_alone();
        let reader = self.journal.read_from(from).map_err(|journal::OffsetGone| {
            Refusal::new(RefusalCode::OffsetGone, "those bytes of the answer are no longer held at the workstation")
        })?;
        *alone_since = None;
        drop(alone_since);
        Ok(Attachment { relay: Arc::clone(self), reader })
    }

    fn is_abandoned(&self, window: Duration) -> bool {
        self.lock_alone().is_some_and(|since| since.elapsed() >= window)
    }

    fn lock_alone(&self) -> MutexGuard<'_, Option<Instant>> {
        self.alone_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who reads a relay. When it is dropped the relay goes on, and the resume window begins.
pub(crate) struct Attachment {
    relay: Arc<Relay>,
    reader: Reader,
}

impl Attachment {
    /// Waits for the answer's beginning.
    pub(crate) async fn head(&self) -> Head {
        self.relay.head.wait().await.clone()
    }

    /// The next bytes, or the end.
    pub(crate) fn poll_read(&mut self, cx: &Context<'_>) -> Poll<Read> {
        self.reader.poll_read(cx)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Under the lock, so that a newer reader who attaches at this moment has the last word.
        let mut alone_since = self.relay.lock_alone();
        if self.reader.is_newest() {
            *alone_since = Some(Instant::now());
        }
    }
}

/// The task of one relay. Dropping it, as a panic would, still ends the relay.
struct Running {
    relays: Arc<Relays>,
    relay: Arc<Relay>,
    policy: Arc<Policy>,
    _room: Room,
}

impl Running {
    async fn run(&self, entry: Entry, guarded: Guarded) {
        let ending = tokio::select! {
            biased;
            () = self.relay.cancel.cancelled() => Ending { outcome: Outcome::Cancelled, usage: None },
            ending = self.generate(entry, guarded) => ending,
        };
        self.finish(ending);
    }

    /// Waits for its turn, asks Ollama, and copies the answer into the journal. Dropping this future drops Ollama's connection.
    async fn generate(&self, entry: Entry, guarded: Guarded) -> Ending {
        let _turn = self.wait_for_turn(entry).await;
        let limit = Duration::from_secs(self.policy.time_limit_s);
        tokio::time::timeout(limit, self.converse(guarded)).await.unwrap_or_else(|_elapsed| {
            let seconds = self.policy.time_limit_s;
            let message = format!("the answer took longer than the {seconds} s that the workstation's owner allows");
            let _ = self.relay.head.set(Head::Bridge(Refusal::new(RefusalCode::OllamaUnavailable, message)));
            failed(Failure::TimeLimit)
        })
    }

    async fn wait_for_turn(&self, entry: Entry) -> turnstile::Turn {
        match entry {
            Entry::Turn(turn) => turn,
            Entry::Wait(ticket) => {
                let mut turn = std::pin::pin!(ticket.turn());
                tokio::select! {
                    biased;
                    turn = &mut turn => return turn,
                    () = tokio::time::sleep(WORTH_TELLING) => self.tell(Phase::Queued),
                }
                turn.await
            }
        }
    }

    async fn converse(&self, guarded: Guarded) -> Ending {
        let asked = self.relays.ollama.open(self.relay.operation, guarded.body);
        let response = match self.telling_if_slow(asked).await {
            Ok(response) => response,
            Err(cause) => {
                let _ = self.relay.head.set(Head::Bridge(Refusal {
                    code: RefusalCode::OllamaUnavailable,
                    message: format!("Ollama does not answer on the workstation: {cause}"),
                    retry_after_s: Some(2),
                }));
                return failed(Failure::OllamaLost);
            }
        };
        let status = response.status().as_u16();
        match (self.relay.operation, status) {
            (Operation::OllamaShow, 200) => return self.copy_show(response).await,
            // Ollama's texts of what went wrong inside name files.
            (Operation::OllamaShow, 500..) => return self.broken_show(Failure::OllamaError),
            _ => {}
        }
        let tap = Tap::new(self.relay.operation, guarded.streamed, guarded.caller_wants_usage, status);
        let _ = self.relay.head.set(Head::Ollama { status, content_type: content_type(&response) });
        self.copy(response, tap).await
    }

    /// Copies bytes as they come. `room` is what makes a slow caller slow Ollama down instead of filling the memory.
    async fn copy(&self, response: reqwest::Response, mut tap: Tap) -> Ending {
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let Ok(chunk) = chunk else {
                return Ending { outcome: Outcome::Failed(Failure::OllamaLost), usage: tap.usage() };
            };
            self.relay.journal.room().await;
            match tap.feed(chunk) {
                Ok(fed) => fed.into_iter().for_each(|bytes| self.relay.journal.push(bytes)),
                Err(failure) => return Ending { outcome: Outcome::Failed(failure), usage: tap.usage() },
            }
        }
        let (rest, ending) = tap.finish();
        self.relay.journal.push(rest);
        ending
    }

    /// `/api/show` tells the owner's paths and system prompt, so only a projection of it goes on.
    async fn copy_show(&self, response: reqwest::Response) -> Ending {
        let content_type = content_type(&response);
        let mut body = BytesMut::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) if body.len() + chunk.len() <= ollama::MAX_DOCUMENT => body.extend_from_slice(&chunk),
                Ok(_) => return self.broken_show(Failure::TooLarge),
                Err(_) => return self.broken_show(Failure::OllamaLost),
            }
        }
        let Some(projected) = ollama::project_show(&body) else { return self.broken_show(Failure::OllamaTruncated) };
        self.relay.journal.push(projected);
        let _ = self.relay.head.set(Head::Ollama { status: 200, content_type });
        Ending { outcome: Outcome::Complete, usage: None }
    }

    fn broken_show(&self, failure: Failure) -> Ending {
        let message = "Ollama's answer about the model could not be read on the workstation";
        let _ = self.relay.head.set(Head::Bridge(Refusal::new(RefusalCode::OllamaUnavailable, message)));
        failed(failure)
    }

    /// Ollama is silent while it loads a model and reads the prompt: the Lab learns of it when it takes long enough to notice.
    async fn telling_if_slow<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = std::pin::pin!(answer);
        *self.relay.lock_phase() = Phase::Loading;
        tokio::select! {
            biased;
            answer = &mut answer => {
                *self.relay.lock_phase() = Phase::Generating;
                return answer;
            }
            () = tokio::time::sleep(WORTH_TELLING) => self.tell(Phase::Loading),
        }
        let answer = answer.await;
        self.tell(Phase::Generating);
        answer
    }

    fn tell(&self, phase: Phase) {
        *self.relay.lock_phase() = phase;
        // Nobody listens while there is no link; the next link begins with a snapshot.
        let _ = self.relays.events.send(BridgeEvent::Relay { id: self.relay.id, phase });
        self.relays.mark_changed();
    }

    fn finish(&self, ending: Ending) {
        let _ = self.relay.head.set(Head::Bridge(Refusal::new(RefusalCode::UnknownRelay, "the relay was ended")));
        if !self.relay.journal.finish(ending) {
            return;
        }
        let activity = Activity {
            id: self.relay.id,
            operation: self.relay.operation,
            model: self.relay.model.to_string(),
            started_ms: self.relay.started_ms,
            duration_ms: u64::try_from(self.relay.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            outcome: ending.outcome,
            usage: ending.usage,
        };
        {
            let mut log = self.relays.activity.lock().unwrap_or_else(PoisonError::into_inner);
            if log.len() == ACTIVITY {
                log.pop_front();
            }
            log.push_back(activity);
        }
        self.relays.mark_changed();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Does nothing when `run` came to its end.
        self.finish(failed(Failure::OllamaLost));
    }
}

const fn failed(failure: Failure) -> Ending {
    Ending { outcome: Outcome::Failed(failure), usage: None }
}

fn unknown_relay() -> Refusal {
    Refusal::new(RefusalCode::UnknownRelay, "the workstation does not know this relay (any more)")
}

fn content_type(response: &reqwest::Response) -> Option<http::HeaderValue> {
    response.headers().get(http::header::CONTENT_TYPE).cloned()
}
