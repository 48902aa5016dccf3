//! What the model API is handed: is this key good, and one metadata record per request.
//!
//! A key that was found good is remembered for a moment, under the SHA-256 of its whole text and for the security epoch in which it
//! was looked up: a revocation ends every memory at once. Records go to a task that writes them in batches, off the request's path.
//! A record is never dropped for want of room: the queue has no bound of its own, because `settle` may not wait; instead nobody is
//! admitted while [`IN_FLIGHT`] requests have no record in the database yet. That bounds the queue, and a database that stalls stops
//! new requests rather than their bookkeeping.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use api_proxy::{Caller, NotAdmitted, Record, RecordOutcome};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    account::{api_key::PresentedKey, authenticate, revocation::Revocations},
    store::{RequestRecord, Store, now_ms},
};

/// Requests that may be running or waiting for their record to be written; at some 300 bytes a record, 20 MB.
const IN_FLIGHT: usize = 65_536;
/// How long a key that was found good is believed without looking (SECURITY 4.3), as long as the epoch stays.
const BELIEVED: Duration = Duration::from_secs(5);
/// Keys that are remembered at once.
const MEMORY: usize = 10_000;
/// Records in one insert.
const BATCH: usize = 64;
/// How long a record may wait for company.
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// How long the writer rests after the database failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often [`Meter::flush`] has a failing database tried before it gives up.
const FLUSH_TRIES: u32 = 5;
/// How long records are kept.
const KEPT_DAYS: i64 = 90;
/// How often older ones are deleted.
const PURGE_EVERY: Duration = Duration::from_secs(600);

/// The Lab's [`api_proxy::Meter`]. Its tasks end with the last clone.
#[derive(Clone)]
pub struct Meter(Arc<Inner>);

struct Inner {
    store: Store,
    revocations: Revocations,
    believed: Mutex<HashMap<[u8; 32], Believed>>,
    in_flight: Arc<Semaphore>,
    records: mpsc::UnboundedSender<Entry>,
    _purge: DropGuard,
}

/// A key that was found good.
#[derive(Clone, Copy)]
struct Believed {
    caller: Caller,
    epoch: u64,
    since: Instant,
}

enum Entry {
    Record(Box<RequestRecord>),
    /// Answered when everything before it is written or given up.
    Flush(oneshot::Sender<()>),
}

impl Meter {
    /// Starts the writer and the purge.
    #[must_use]
    pub fn start(store: Store, revocations: Revocations) -> Self {
        let (records, entries) = mpsc::unbounded_channel();
        let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
        let cancelled = CancellationToken::new();
        tokio::spawn(write(store.clone(), entries, in_flight.clone()));
        tokio::spawn(purge(store.clone(), cancelled.clone()));
        Self(Arc::new(Inner { store, revocations, believed: Mutex::default(), in_flight, records, _purge: cancelled.drop_guard() }))
    }

    /// Waits until every record that was settled so far is in the database, or has been tried often enough.
    pub async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.0.records.send(Entry::Flush(done)).is_ok() {
            let _ = flushed.await;
        }
    }

    /// Whose key this is.
    async fn caller(&self, text: &str) -> Result<Caller, NotAdmitted> {
        // An offline check first: a typo costs no look at anything.
        let key: PresentedKey = text.parse().map_err(|_| NotAdmitted::Malformed)?;
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        // Before the database is asked: a revocation that comes meanwhile makes what is then remembered worthless.
        let epoch = self.0.revocations.current();
        if let Some(caller) = epoch.and_then(|epoch| self.believed(&digest, epoch)) {
            return Ok(caller);
        }
        let owner = authenticate(&self.0.store, &key).await.map_err(|error| {
            tracing::error!(%error, "cannot look up a key");
            NotAdmitted::Unavailable
        })?;
        let owner = owner.ok_or(NotAdmitted::Unknown)?;
        let caller = Caller { user: owner.user, project: owner.project, key: owner.key.into() };
        if let Some(epoch) = epoch {
            self.believe(digest, Believed { caller, epoch, since: Instant::now() });
        }
        Ok(caller)
    }

    fn believed(&self, digest: &[u8; 32], epoch: u64) -> Option<Caller> {
        let believed = self.0.believed.lock().unwrap_or_else(PoisonError::into_inner);
        believed.get(digest).filter(|b| b.epoch == epoch && b.since.elapsed() < BELIEVED).map(|b| b.caller)
    }

    fn believe(&self, digest: [u8; 32], new: Believed) {
        let mut believed = self.0.believed.lock().unwrap_or_else(PoisonError::into_inner);
        if believed.len() >= MEMORY {
            believed.retain(|_, old| old.epoch == new.epoch && old.since.elapsed() < BELIEVED);
        }
        if believed.len() < MEMORY {
            believed.insert(digest, new);
        }
    }
}

impl api_proxy::Meter for Meter {
    async fn admit(&self, key: api_proxy::PresentedKey<'_>) -> Result<Caller, NotAdmitted> {
        let caller = self.caller(key.expose()).await?;
        // Last, with no await behind it: who has a place goes on to `settle`, which gives it back through the writer.
        match self.0.in_flight.try_acquire() {
            Ok(place) => place.forget(),
            Err(_) => return Err(NotAdmitted::Unavailable),
        }
        Ok(caller)
    }

    fn settle(&self, record: Record) {
        // The receiver lives as long as a sender.
        let _ = self.0.records.send(Entry::Record(Box::new(row(record))));
    }
}

fn row(record: Record) -> RequestRecord {
    let time = record.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let int = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let outcome = match record.outcome {
        RecordOutcome::Complete => "complete",
        RecordOutcome::Cancelled => "cancelled",
        RecordOutcome::Failed(code) => code,
    };
    RequestRecord {
        id: record.request.to_string(),
        time: i64::try_from(time.as_millis()).unwrap_or(i64::MAX),
        model: record.model.map(|model| model.to_string()).unwrap_or_default(),
        operation: record.operation.as_str().to_owned(),
        device: record.device.map(|device| device.to_string()),
        provider: None,
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
        outcome: outcome.to_owned(),
        estimated: record.estimated,
    }
}

/// Writes records until the last sender is gone and the queue is empty.
async fn write(store: Store, mut entries: mpsc::UnboundedReceiver<Entry>, in_flight: Arc<Semaphore>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut flushes = Vec::new();
    while let Some(first) = entries.recv().await {
        sort(first, &mut batch, &mut flushes);
        let full_at = tokio::time::Instant::now() + BATCH_WAIT;
        while batch.len() < BATCH && flushes.is_empty() {
            match tokio::time::timeout_at(full_at, entries.recv()).await {
                Ok(Some(entry)) => sort(entry, &mut batch, &mut flushes),
                Ok(None) | Err(_) => break,
            }
        }
        let mut tries = 0;
        while let Err(error) = store.write_requests(&batch).await {
            tracing::error!(%error, records = batch.len(), "cannot write records; trying again");
            tries += 1;
            // Only somebody who waits for the end makes it give up: then the process is about to leave.
            if entries.is_closed() || (!flushes.is_empty() && tries >= FLUSH_TRIES) {
                tracing::error!(records = batch.len(), "records are lost: the database could not be written");
                break;
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
        in_flight.add_permits(batch.len());
        batch.clear();
        for flush in flushes.drain(..) {
            let _ = flush.send(());
        }
    }
}

fn sort(entry: Entry, batch: &mut Vec<RequestRecord>, flushes: &mut Vec<oneshot::Sender<()>>) {
    match entry {
        Entry::Record(record) => batch.push(*record),
        Entry::Flush(done) => flushes.push(done),
    }
}

/// Deletes what is older than promised, again and again.
async fn purge(store: Store, cancelled: CancellationToken) {
    let mut turns = tokio::time::interval(PURGE_EVERY);
    loop {
        tokio::select! {
            () = cancelled.cancelled() => return,
            _ = turns.tick() => {}
        }
        match store.purge_requests(now_ms() - KEPT_DAYS * 86_400_000).await {
            Ok(0) => {}
            Ok(records) => tracing::info!(records, "deleted records older than {KEPT_DAYS} days"),
            Err(error) => tracing::error!(%error, "cannot delete old records; trying again in ten minutes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use api_proxy::{Meter as _, PresentedKey as Shown};
    use wire::{ProjectId, RequestId};

    use super::*;
    use crate::{
        account::{
            api_key::{Environment, NewKey},
            create_key,
        },
        store::scratch::Scratch,
    };

    async fn with_key() -> (Scratch, Meter, NewKey, ProjectId) {
        let scratch = Scratch::new().await;
        let user = scratch.store.add_user("ada").await.unwrap().id;
        let project = scratch.store.add_project(user, "default").await.unwrap().id;
        let (key, _) = create_key(&scratch.store, project, "test", Environment::Live).await.unwrap();
        let revocations = Revocations::follow(scratch.store.clone()).await.unwrap();
        let meter = Meter::start(scratch.store.clone(), revocations);
        (scratch, meter, key, project)
    }

    fn record(caller: Caller) -> Record {
        Record {
            request: RequestId::random(),
            time: SystemTime::now(),
            model: None,
            operation: api_proxy::Surface::Relay(wire::relay::Operation::OllamaChat),
            device: None,
            input_tokens: Some(0),
            output_tokens: None,
            estimated: false,
            cost_nano: 0,
            user: caller.user,
            project: caller.project,
            key: caller.key,
            latency_ms: 1,
            first_byte_ms: None,
            stream: true,
            status: 200,
            outcome: RecordOutcome::Failed("bridge_offline"),
        }
    }

    #[tokio::test]
    async fn a_revoked_key_is_refused_though_it_was_believed() {
        let (_scratch, meter, key, project) = with_key().await;
        let text = key.reveal().to_owned();
        let caller = meter.admit(Shown::new(&text)).await.unwrap();
        assert_eq!((caller.project, caller.key), (project, key.kid().into()));
        assert_eq!(meter.0.believed.lock().unwrap().len(), 1);
        assert_eq!(meter.admit(Shown::new(&text)).await, Ok(caller));
        assert_eq!(meter.admit(Shown::new(&text[..70])).await, Err(NotAdmitted::Malformed));
        let strange = NewKey::generate(Environment::Live);
        assert_eq!(meter.admit(Shown::new(strange.reveal())).await, Err(NotAdmitted::Unknown));
        meter.0.revocations.revoke_key(key.kid()).await.unwrap();
        assert_eq!(meter.admit(Shown::new(&text)).await, Err(NotAdmitted::Unknown));
    }

    #[tokio::test]
    async fn every_record_is_written_and_gives_its_place_back() {
        let (scratch, meter, key, _) = with_key().await;
        for _ in 0..200 {
            let caller = meter.admit(Shown::new(key.reveal())).await.unwrap();
            meter.settle(record(caller));
        }
        meter.flush().await;
        assert_eq!(meter.0.in_flight.available_permits(), IN_FLIGHT);
        let user = scratch.store.users().await.unwrap()[0].id;
        let records = scratch.store.requests(user).await.unwrap();
        assert_eq!(records.len(), 200);
        assert_eq!((records[0].outcome.as_str(), records[0].operation.as_str()), ("bridge_offline", "ollama.chat"));
        assert_eq!((records[0].input_tokens, records[0].output_tokens), (Some(0), None));
    }
}
