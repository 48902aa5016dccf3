//! Brings settled requests into the database, in batches and off the requests' path.
//!
//! Nothing is dropped for want of room or of a database: what waits here stands in the journal too. The queue has no bound of its own,
//! because `settle` may not wait; instead nobody is admitted while [`super::IN_FLIGHT`] requests have no record in the database yet.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api_proxy::Record;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use wire::RequestId;

use super::{
    journal::{self, Journal, Place},
    money::{Money, Owed},
    row,
};
use crate::store::{Settlement, Store, StoreError};

/// Settlements in one transaction: enough that its fixed cost does not count, and written within some 50 ms.
const BATCH: usize = 2048;
/// How long a settlement may wait for company.
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// How long the writer rests after the database failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often [`Queue::flush`] has a failing database tried before it leaves the rest to the journal.
const FLUSH_TRIES: u32 = 5;

/// Settlements that are not in the database yet, oldest first.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    more: Notify,
    hurry: Notify,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: VecDeque<Arc<Entry>>,
    /// How many there ever were.
    pushed: u64,
    /// The how manieth a request was.
    numbers: HashMap<RequestId, u64>,
}

/// A request that has ended, what is owed for it, and where it stands in the journal.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) owed: Owed,
    pub(super) place: Place,
}

impl From<&Arc<Entry>> for Settlement {
    fn from(entry: &Arc<Entry>) -> Self {
        Self { record: row(&entry.record), charge: entry.owed.charge }
    }
}

/// How far the writer has come.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    written: u64,
    /// Failures since the last success.
    failures: u32,
}

/// What the writer works with.
pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) journal: Arc<Journal>,
    pub(super) money: Arc<Money>,
    pub(super) queue: Arc<Queue>,
    pub(super) in_flight: Arc<Semaphore>,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            waiting: Mutex::default(),
            more: Notify::new(),
            hurry: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    pub(super) fn push(&self, entry: Entry) {
        let entry = Arc::new(entry);
        let mut waiting = self.waiting();
        let number = waiting.pushed;
        waiting.numbers.insert(entry.record.request, number);
        waiting.entries.push_back(entry);
        waiting.pushed += 1;
        let full = waiting.entries.len() == BATCH;
        let first = waiting.entries.len() == 1;
        drop(waiting);
        if first {
            self.more.notify_one();
        }
        if full {
            self.hurry.notify_one();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting().entries.len()
    }

    /// A request whose record waits.
    pub(super) fn find(&self, request: RequestId) -> Option<Arc<Entry>> {
        let waiting = self.waiting();
        let number = *waiting.numbers.get(&request)?;
        let written = waiting.pushed - waiting.entries.len() as u64;
        waiting.entries.get(usize::try_from(number.checked_sub(written)?).ok()?).cloned()
    }

    /// Waits until everything that was pushed so far is written, or has been tried often enough.
    pub(super) async fn flush(&self) {
        let pushed = self.waiting().pushed;
        self.hurry.notify_one();
        let mut progress = self.progress.subscribe();
        // The sender lives as long as `self`.
        let _ = progress.wait_for(|progress| progress.written >= pushed || progress.failures >= FLUSH_TRIES).await;
    }

    fn batch(&self) -> Vec<Arc<Entry>> {
        self.waiting().entries.iter().take(BATCH).cloned().collect()
    }

    /// So many of the oldest are in the database.
    fn written(&self, count: usize) {
        let waiting = &mut *self.waiting();
        for entry in waiting.entries.drain(..count) {
            waiting.numbers.remove(&entry.record.request);
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes until it is cancelled. What is left then stands in the journal.
    pub(super) async fn run(self, cancelled: CancellationToken) {
        let _ = cancelled.run_until_cancelled(self.write()).await;
    }

    async fn write(&self) {
        loop {
            while self.queue.len() == 0 {
                self.queue.more.notified().await;
            }
            if self.queue.len() < BATCH {
                let _ = tokio::time::timeout(BATCH_WAIT, self.queue.hurry.notified()).await;
            }
            let batch = self.queue.batch();
            if let Err(error) = self.write_batch(&batch).await {
                tracing::error!(%error, records = batch.len(), "cannot write records; they stay in the journal and are tried again");
                self.queue.progress.send_modify(|progress| progress.failures += 1);
                let _ = tokio::time::timeout(RETRY_AFTER, self.queue.hurry.notified()).await;
            }
        }
    }

    async fn write_batch(&self, batch: &[Arc<Entry>]) -> Result<(), StoreError> {
        let turn = self.money.turn().await;
        let paid_less = self.store.write_settlements(batch).await?;
        self.money
            .written(batch.iter().map(|entry| entry.owed), |user| !paid_less.is_empty() && paid_less.contains(&user.to_string()));
        drop(turn);
        self.queue.written(batch.len());
        if self.journal.done(batch.iter().map(|entry| entry.place)) {
            journal::sweep(&self.journal).await;
        }
        self.in_flight.add_permits(batch.len());
        let written = batch.len() as u64;
        self.queue.progress.send_modify(|progress| *progress = Progress { written: progress.written + written, failures: 0 });
        Ok(())
    }
}
