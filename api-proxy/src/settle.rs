//! Exactly one record for each admitted request, whichever way it ends.
//!
//! An [`Entry`] is opened when a request is admitted and travels with it: first in the handler's future, then in the body of the
//! answer. Whoever knows how it ended says so; an entry that is dropped before that says it itself.

use std::{
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use wire::{DeviceId, ModelName, RequestId, relay::Usage};

use crate::{Caller, Meter, Record, RecordOutcome, Surface, error::ProxyError};

/// Where records go; what is left of a [`Meter`] once nobody needs to know which it is.
pub(crate) type Ledger = Arc<dyn Fn(Record) + Send + Sync>;

/// The ledger of a meter.
pub(crate) fn ledger<M: Meter>(meter: &Arc<M>) -> Ledger {
    let meter = Arc::clone(meter);
    Arc::new(move |record| meter.settle(record))
}

/// When a request arrived, by both clocks, and the name it was given.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) request: RequestId,
    time: SystemTime,
    instant: Instant,
}

impl Arrival {
    pub(crate) fn now() -> Self {
        Self { request: RequestId::random(), time: SystemTime::now(), instant: Instant::now() }
    }
}

/// One request's record in the making.
pub(crate) struct Entry {
    arrived: Instant,
    record: Record,
    /// Gone once the record is settled.
    ledger: Option<Ledger>,
}

/// The status of a request whose caller hung up before they were answered; nobody gets to see it.
const HUNG_UP: u16 = 499;

impl Entry {
    pub(crate) fn open(ledger: &Ledger, arrival: Arrival, caller: Caller, operation: Surface) -> Self {
        let record = Record {
            request: arrival.request,
            time: arrival.time,
            model: None,
            operation,
            device: None,
            input_tokens: None,
            output_tokens: None,
            estimated: false,
            cost_nano: 0,
            user: caller.user,
            project: caller.project,
            key: caller.key,
            latency_ms: 0,
            first_byte_ms: None,
            stream: false,
            status: HUNG_UP,
            outcome: RecordOutcome::Cancelled,
        };
        Self { arrived: arrival.instant, record, ledger: Some(Arc::clone(ledger)) }
    }

    pub(crate) fn request(&self) -> RequestId {
        self.record.request
    }

    pub(crate) fn note_model(&mut self, model: &ModelName) {
        self.record.model = Some(model.clone());
    }

    pub(crate) fn note_stream(&mut self, stream: bool) {
        self.record.stream = stream;
    }

    pub(crate) fn note_device(&mut self, device: DeviceId) {
        self.record.device = Some(device);
    }

    pub(crate) fn note_status(&mut self, status: http::StatusCode) {
        self.record.status = status.as_u16();
    }

    /// The answer's bytes begin to come now, unless they did before.
    pub(crate) fn note_byte(&mut self) {
        self.record.first_byte_ms.get_or_insert_with(|| millis(self.arrived.elapsed()));
    }

    /// The request came to nothing, and `error` is its whole answer.
    pub(crate) fn refuse(mut self, error: &ProxyError) {
        self.note_status(error.status());
        self.settle(RecordOutcome::Failed(error.code()), None);
    }

    /// It is over. Only the first word counts.
    pub(crate) fn settle(&mut self, outcome: RecordOutcome, usage: Option<Usage>) {
        if let Some(ledger) = self.ledger.take() {
            ledger(finished(self.record.clone(), outcome, usage, self.arrived.elapsed()));
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if thread::panicking() {
            if self.record.status == HUNG_UP {
                self.record.status = http::StatusCode::INTERNAL_SERVER_ERROR.as_u16();
            }
            self.settle(RecordOutcome::Failed("panic"), None);
        } else {
            self.settle(RecordOutcome::Cancelled, None);
        }
    }
}

/// The record of a request that ended so after so long.
fn finished(record: Record, outcome: RecordOutcome, usage: Option<Usage>, latency: Duration) -> Record {
    Record {
        input_tokens: usage.map(|u| u.input),
        output_tokens: usage.map(|u| u.output),
        latency_ms: millis(latency),
        outcome,
        ..record
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
