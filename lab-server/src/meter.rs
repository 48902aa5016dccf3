//! What the model API is handed: is this key good, how fast may it ask, can it be paid, and one record for each request.
//!
//! ```text
//! admit    keys: known, not revoked, may do this          limits: requests and how many run, of key, project and person
//! reserve  the key's models    limits: tokens             purse: a free request, or credits within the key's limits    journal
//! settle   purse: the charge   limits: what was used      journal       queue, and from there the database
//! ```
//!
//! Nothing of this waits for the database but the first look at a key or a purse, and the one before somebody is refused for want of
//! money. What has to outlive this process's sudden end is in the journal before `reserve` and `settle` return; the writer brings it
//! into the database from there, record, ledger, balance and spending in one transaction. What was set aside and never settled
//! becomes, at the next start, a record of its interruption that costs nothing.
//!
//! One process serves a database: limits, purses and spending are counted in its memory. Other processes (`1k4-lab admin`) may give
//! and take credits, change terms and revoke meanwhile.

mod gcra;
mod journal;
mod keys;
mod limits;
mod money;
mod purse;
mod writer;

use std::{
    fmt, io,
    num::NonZeroU32,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use api_proxy::{Admitted, Ask, AskedModel, Caller, Leash, NotAdmitted, NotReserved, Record, RecordOutcome, Reservation, Surface};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::{ProjectId, RequestId, UserId};

use crate::{
    account::revocation::Revocations,
    store::{Rates, RequestRecord, Scope, Store, StoreError, now_ms},
};
use journal::{Journal, Reserved};
use keys::{Keys, KnownKey};
use limits::Limits;
use money::{Ended, Money, NotHeld, Owed, Payer};
use purse::{Broke, Hold};
use writer::{Entry, Queue, Writer};

pub use journal::JournalError;

/// Requests that may be running or waiting for their record to be written; at some 500 bytes a record, 32 MB.
const IN_FLIGHT: usize = 65_536;
/// How long records are kept.
const KEPT_DAYS: i64 = 90;
/// How often older ones are deleted.
const PURGE_EVERY: Duration = Duration::from_secs(600);
/// How often a journal that cannot be written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Tokens of a prompt or an answer that are believed, whatever a provider claims: some hundred times what any model takes, and so
/// few that the sums of two billion requests are numbers.
const MOST_TOKENS: u64 = 1 << 32;
/// When what running requests have set aside is worth another try: an answer takes about as long.
const WHEN_IN_FLIGHT_S: u32 = 1;

/// The Lab's [`api_proxy::Meter`]. Its tasks end with the last clone.
#[derive(Clone)]
pub struct Meter(Arc<Inner>);

/// The rates of those for whom nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRates {
    /// Of a person, over all their keys.
    pub user: Rates,
}

impl Default for DefaultRates {
    /// As many requests at once as a person's programs could mean, and few enough that one person leaves room for others.
    fn default() -> Self {
        Self { user: Rates { concurrent: NonZeroU32::new(512), ..Rates::default() } }
    }
}

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests that were admitted and not settled.
    pub running: usize,
    /// Records that are not in the database yet.
    pub unwritten: usize,
}

struct Inner {
    store: Store,
    revocations: Revocations,
    keys: Arc<Keys>,
    limits: Arc<Limits>,
    money: Arc<Money>,
    journal: Arc<Journal>,
    /// The journal could not be written lately, so that nobody is let in.
    stuck: Arc<AtomicBool>,
    queue: Arc<Queue>,
    in_flight: Arc<Semaphore>,
    on_record: Box<dyn Fn(&Record) + Send + Sync>,
    _tasks: DropGuard,
}

impl Meter {
    /// Brings what an earlier process left in `journal` into the database, and starts the tasks. `on_record` sees each record once,
    /// on the request's path: it may count, and not wait.
    ///
    /// # Errors
    /// When the journal cannot be used or holds what cannot be read, or the database fails.
    pub async fn start(
        store: Store,
        revocations: Revocations,
        journal: &Path,
        defaults: DefaultRates,
        on_record: impl Fn(&Record) + Send + Sync + 'static,
    ) -> Result<Self, JournalError> {
        let (journal, replay) = Journal::open(journal).await?;
        for settlements in [&replay.settled, &replay.interrupted] {
            store.write_settlements(settlements).await?;
        }
        if !(replay.settled.is_empty() && replay.interrupted.is_empty()) {
            tracing::info!(settled = replay.settled.len(), interrupted = replay.interrupted.len(), "read the journal again");
        }
        journal.forget(&replay)?;
        let cancelled = CancellationToken::new();
        let (journal, money, queue) = (Arc::new(journal), Arc::new(Money::default()), Arc::new(Queue::new()));
        let (in_flight, stuck) = (Arc::new(Semaphore::new(IN_FLIGHT)), Arc::new(AtomicBool::new(false)));
        let limits = Arc::new(Limits::new());
        let keys = Arc::new(Keys::new(store.clone(), revocations.clone(), defaults, Arc::clone(&limits)));
        let writer = Writer {
            store: store.clone(),
            journal: Arc::clone(&journal),
            money: Arc::clone(&money),
            queue: Arc::clone(&queue),
            in_flight: Arc::clone(&in_flight),
        };
        tokio::spawn(writer.run(cancelled.clone()));
        tokio::spawn(Arc::clone(&keys).watch(cancelled.clone()));
        tokio::spawn(unstick(Arc::clone(&journal), Arc::clone(&stuck), cancelled.clone()));
        tokio::spawn(purge(store.clone(), Arc::clone(&journal), Arc::clone(&money), cancelled.clone()));
        let (on_record, _tasks) = (Box::new(on_record), cancelled.drop_guard());
        Ok(Self(Arc::new(Inner { store, revocations, keys, limits, money, journal, stuck, queue, in_flight, on_record, _tasks })))
    }

    /// Waits until every record that was settled so far is in the database, or has been tried often enough; it is in the journal then.
    pub async fn flush(&self) {
        self.0.queue.flush().await;
    }

    /// A request's record, if it is of this project, from the moment in which it ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record(&self, project: ProjectId, request: RequestId) -> Result<Option<RequestRecord>, StoreError> {
        // One that is written between the two looks is found by the second.
        match self.0.queue.find(request) {
            Some(entry) => Ok(Some(entry).filter(|entry| entry.record.project == project).map(|entry| row(&entry.record))),
            None => self.0.store.request(project, request).await,
        }
    }

    /// Lets a person who is signed in ask a model, for a project of theirs. There is no key: the limits of the project and of the
    /// person apply, the records name [`KeyId::HOUSE`](api_proxy::KeyId::HOUSE), and the leash is cut when either is no more.
    ///
    /// # Errors
    /// As for a key; a project that is not theirs is [`NotAdmitted::Unknown`].
    pub async fn admit_person(&self, user: UserId, project: ProjectId) -> Result<Admitted, NotAdmitted> {
        let inner = &*self.0;
        let (key, leash) = inner.keys.begin_person(user, project).await?;
        // No await from here on: who is let in goes on to `settle`, which takes all of this back.
        inner.admit(&key, leash, Surface::Listing(api_proxy::Listing::Models))
    }

    /// Whether the journal can be written: while it cannot, nobody is let in.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.0.stuck.load(Ordering::Relaxed)
    }

    /// How much there is to do.
    #[must_use]
    pub fn load(&self) -> Load {
        Load { running: self.0.keys.count(), unwritten: self.0.queue.len() }
    }
}

impl api_proxy::Meter for Meter {
    async fn admit(&self, key: api_proxy::PresentedKey<'_>, surface: Surface) -> Result<Admitted, NotAdmitted> {
        let inner = &*self.0;
        let (key, leash) = inner.keys.begin(key.expose()).await?;
        // No await from here on: who is let in goes on to `settle`, which takes all of this back.
        inner.admit(&key, leash, surface)
    }

    async fn reserve(&self, caller: &Caller, ask: Ask<'_>) -> Result<Reservation, NotReserved> {
        let inner = &*self.0;
        let key = inner.keys.running(caller).ok_or(NotReserved::Unavailable)?;
        if !key.terms.allow_model(ask.model) {
            return Err(NotReserved::ModelNotAllowed);
        }
        let mut read_now = false;
        loop {
            let epoch = inner.revocations.current();
            // Without an epoch to rely on, what is read is good for this once.
            let known_as_of = if read_now { Some(epoch.unwrap_or_default()) } else { epoch };
            match inner.set_aside(&key, &ask, known_as_of) {
                Err(Refused::Money(NotHeld::Unknown)) => {}
                // Somebody may have given credits meanwhile.
                Err(Refused::Money(NotHeld::Broke(_))) if !read_now && inner.money.is_old(key.payer) => {}
                done => return done.map_err(Refused::into_answer),
            }
            inner.read_money(key.payer, epoch).await?;
            read_now = true;
        }
    }

    fn settle(&self, record: Record, reservation: Option<Reservation>) {
        self.0.settle(record, reservation);
    }
}

impl Inner {
    fn admit(&self, key: &KnownKey, leash: Leash, surface: Surface) -> Result<Admitted, NotAdmitted> {
        let allowance = self.let_in(key, surface).inspect_err(|_| drop(self.keys.end(&key.caller)))?;
        Ok(Admitted { caller: key.caller, exact_usage: key.exact_usage, leash, allowance })
    }

    fn let_in(&self, key: &KnownKey, surface: Surface) -> Result<Option<api_proxy::Allowance>, NotAdmitted> {
        // Asking for a model and asking which there are is the same right.
        let (Surface::Model(_) | Surface::Listing(_)) = surface;
        if !key.terms.scopes.allow(Scope::Inference) {
            return Err(NotAdmitted::Scope);
        }
        if self.stuck.load(Ordering::Relaxed) {
            return Err(NotAdmitted::Unavailable);
        }
        let place = self.in_flight.try_acquire().map_err(|_| NotAdmitted::Unavailable)?;
        let allowance = self
            .limits
            .enter(&key.buckets, &key.bounds)
            .map_err(|limits::TooFast { retry_after, allowance }| NotAdmitted::RateLimited { retry_after, allowance })?;
        // The writer gives it back.
        place.forget();
        Ok(allowance)
    }

    async fn read_money(&self, payer: Payer, epoch: Option<u64>) -> Result<(), NotReserved> {
        self.money.read(&self.store, payer, epoch.unwrap_or_default()).await.map_err(|error| {
            tracing::error!(%error, "cannot look up a balance");
            NotReserved::Unavailable
        })
    }

    /// Sets aside money and tokens and says so in the journal: all of it or nothing. Money that is not known as of this epoch is
    /// to be read first, and so is all of it where there is no epoch.
    fn set_aside(&self, key: &KnownKey, ask: &Ask<'_>, known_as_of: Option<u64>) -> Result<Reservation, Refused> {
        let hold = match (ask.most_nano, known_as_of) {
            (..=0, _) => Hold::Nothing,
            (_, None) => return Err(Refused::Money(NotHeld::Unknown)),
            (most, Some(epoch)) => self.money.hold(key.payer, &key.terms.spending, most, epoch).map_err(Refused::Money)?,
        };
        let give_back = || {
            if hold != Hold::Nothing {
                self.money.release(key.payer, hold);
            }
        };
        let allowance = self.limits.take_tokens(&key.buckets, &key.bounds, ask.most_tokens).map_err(|too_fast| {
            give_back();
            Refused::TooFast(too_fast)
        })?;
        let (model, provider) = match ask.model {
            AskedModel::Local(name) => (name.as_str(), None),
            AskedModel::Cloud(model) => (&*model.id, Some(model.provider.as_str())),
        };
        let reserved = Reserved {
            id: &ask.request,
            time: millis(ask.time),
            model,
            operation: ask.surface.as_str(),
            provider,
            user: &key.caller.user,
            project: &key.caller.project,
            key: key.caller.key.as_str(),
            stream: ask.stream,
        };
        if let Err(error) = self.journal.reserve(&reserved) {
            give_back();
            key.buckets.give_back_tokens(ask.most_tokens);
            self.journal_failed(&error);
            return Err(Refused::Journal);
        }
        let (nano, free) = match hold {
            Hold::Nothing => (0, false),
            Hold::Free => (0, true),
            Hold::Credits(nano) => (nano, false),
        };
        Ok(Reservation { nano, tokens: ask.most_tokens, free, allowance })
    }

    fn settle(&self, mut record: Record, reservation: Option<Reservation>) {
        for tokens in [&mut record.input_tokens, &mut record.output_tokens] {
            *tokens = tokens.map(|tokens| tokens.min(MOST_TOKENS));
        }
        // It ran until now, so that it is there.
        let caller = Caller { user: record.user, project: record.project, key: record.key };
        let owed = match self.keys.end(&caller) {
            Some(key) => self.give_back(&key, &record, reservation.as_ref()),
            None => Owed::nothing(Payer { user: record.user, key: record.key }),
        };
        record.cost_nano = owed.nano;
        (self.on_record)(&record);
        let (place, written) = self.journal.settle(&record, owed.charge);
        if let Err(error) = written {
            // It still is in memory, and the database may take it.
            self.journal_failed(&error);
        }
        self.queue.push(Entry { record, owed, place });
    }

    /// Charges what a request cost, and gives back whatever else was set aside for it.
    fn give_back(&self, key: &KnownKey, record: &Record, reservation: Option<&Reservation>) -> Owed {
        let (input, output) = (record.input_tokens.unwrap_or_default(), record.output_tokens.unwrap_or_default());
        let (taken, used) = reservation.map_or((0, 0), |reservation| (reservation.tokens, input + output));
        key.buckets.leave(taken, used);
        // A picture or vectors have no tokens that pass; who has had some of them has had something.
        let left_in_the_middle =
            record.outcome == RecordOutcome::Cancelled && record.status < 400 && record.first_byte_ms.is_some();
        let ended = Ended {
            cost_nano: record.cost_nano,
            arrived_ms: millis(record.time),
            came_to_something: output > 0 || record.outcome == RecordOutcome::Complete || left_in_the_middle,
        };
        self.money.settle(key.payer, &key.terms.spending, reservation, ended)
    }

    fn journal_failed(&self, error: &io::Error) {
        if !self.stuck.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "cannot write the journal; no requests are admitted until it can be written again");
        }
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Meter").field(&self.load()).finish()
    }
}

/// Why nothing was set aside.
enum Refused {
    Money(NotHeld),
    TooFast(limits::TooFast),
    Journal,
}

impl Refused {
    fn into_answer(self) -> NotReserved {
        match self {
            Self::Money(NotHeld::Broke(Broke::Insufficient)) => NotReserved::InsufficientCredits,
            Self::Money(NotHeld::Broke(Broke::TrialExhausted)) => NotReserved::TrialExhausted,
            Self::Money(NotHeld::Broke(Broke::KeyLimit)) => NotReserved::KeySpendLimit,
            Self::Money(NotHeld::Broke(Broke::InFlight)) => NotReserved::InFlight { retry_after_s: WHEN_IN_FLIGHT_S },
            Self::TooFast(limits::TooFast { retry_after, allowance }) => NotReserved::RateLimited { retry_after, allowance },
            Self::Money(NotHeld::Unknown) | Self::Journal => NotReserved::Unavailable,
        }
    }
}

const fn outcome(record: &Record) -> &'static str {
    match record.outcome {
        RecordOutcome::Complete => "complete",
        RecordOutcome::Cancelled => "cancelled",
        RecordOutcome::Failed(code) => code,
    }
}

/// A record as the database keeps it.
fn row(record: &Record) -> RequestRecord {
    RequestRecord {
        id: record.request.to_string(),
        time: millis(record.time),
        model: record.model.as_deref().unwrap_or_default().to_owned(),
        operation: record.operation.as_str().to_owned(),
        device: record.device.map(|device| device.to_string()),
        provider: record.provider.as_ref().map(|provider| provider.as_str().to_owned()),
        input_tokens: record.input_tokens.map(int),
        output_tokens: record.output_tokens.map(int),
        cost_nano: record.cost_nano,
        user: record.user.to_string(),
        project: record.project.to_string(),
        key: record.key.to_string(),
        latency_ms: int(record.latency_ms),
        first_token_ms: record.first_byte_ms.map(int),
        stream: record.stream,
        status: i32::from(record.status),
        outcome: outcome(record).to_owned(),
        estimated: record.estimated,
        prices: record.prices.map(|prices| prices.to_string()),
    }
}

fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Lets requests in again once the journal can be written.
async fn unstick(journal: Arc<Journal>, stuck: Arc<AtomicBool>, cancelled: CancellationToken) {
    let mut turns = tokio::time::interval(TRY_AGAIN);
    while cancelled.run_until_cancelled(turns.tick()).await.is_some() {
        if stuck.load(Ordering::Relaxed) && journal.renew().is_ok() {
            stuck.store(false, Ordering::Relaxed);
            tracing::info!("the journal can be written again");
        }
    }
}

/// Deletes what is older than promised, again and again; from the journal what is in the database.
async fn purge(store: Store, journal: Arc<Journal>, money: Arc<Money>, cancelled: CancellationToken) {
    let mut turns = tokio::time::interval(PURGE_EVERY);
    while cancelled.run_until_cancelled(turns.tick()).await.is_some() {
        match store.purge_requests(now_ms() - KEPT_DAYS * 86_400_000).await {
            Ok(0) => {}
            Ok(records) => tracing::info!(records, "deleted records older than {KEPT_DAYS} days"),
            Err(error) => tracing::error!(%error, "cannot delete old records; trying again in ten minutes"),
        }
        money.tidy();
        if let Err(error) = journal.renew() {
            tracing::error!(%error, "cannot begin a new part of the journal; trying again in ten minutes");
        }
        journal::sweep(&journal).await;
    }
}

#[cfg(test)]
mod tests;
