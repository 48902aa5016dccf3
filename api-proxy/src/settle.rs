//! Exactly one record for each admitted request, whichever way it ends.
//!
//! An [`Entry`] is opened when a request is admitted and travels with it: first in the handler's future, then in the body of the
//! answer. Whoever knows how it ended says so; an entry that is dropped before that says it itself.

use std::{
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use wire::{DeviceId, ModelName, RequestId};

use crate::{
    Allowance, Ask, AskedModel, Caller, Meter, Model, Record, RecordOutcome, Reservation, Snapshot, Surface, error::ProxyError,
};

/// Where records go; what is left of a [`Meter`] once nobody needs to know which it is.
pub(crate) type Ledger = Arc<dyn Fn(Record, Option<Reservation>) + Send + Sync>;

/// The ledger of a meter.
pub(crate) fn ledger<M: Meter>(meter: &Arc<M>) -> Ledger {
    let meter = Arc::clone(meter);
    Arc::new(move |record, reservation| meter.settle(record, reservation))
}

/// When a request arrived, by both clocks, and the name it was given.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) request: RequestId,
    pub(crate) time: SystemTime,
    instant: Instant,
}

impl Arrival {
    pub(crate) fn now() -> Self {
        let time = SystemTime::now();
        Self { request: RequestId::at(time), time, instant: Instant::now() }
    }

    /// A request that has its name already.
    pub(crate) fn of(request: RequestId) -> Self {
        Self { request, time: SystemTime::now(), instant: Instant::now() }
    }
}

/// One request's record in the making.
pub(crate) struct Entry {
    arrived: Instant,
    record: Record,
    reservation: Option<Reservation>,
    room: Option<OwnedSemaphorePermit>,
    /// Gone once the record is settled.
    ledger: Option<Ledger>,
}

/// What a request used, in the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Tokens of the prompt; `None` when nobody counted.
    pub(crate) input: Option<u64>,
    /// Tokens of the answer; `None` when nobody counted.
    pub(crate) output: Option<u64>,
    /// Their price in nano-credits.
    pub(crate) cost_nano: i64,
    /// Whether the tokens were estimated.
    pub(crate) estimated: bool,
}

impl From<wire::relay::Usage> for Used {
    /// A workstation's own work costs nothing.
    fn from(usage: wire::relay::Usage) -> Self {
        Self { input: Some(usage.input), output: Some(usage.output), cost_nano: 0, estimated: false }
    }
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
            provider: None,
            input_tokens: None,
            output_tokens: None,
            estimated: false,
            cost_nano: 0,
            prices: None,
            user: caller.user,
            project: caller.project,
            key: caller.key,
            latency_ms: 0,
            first_byte_ms: None,
            stream: false,
            status: HUNG_UP,
            outcome: RecordOutcome::Cancelled,
        };
        Self { arrived: arrival.instant, record, reservation: None, room: None, ledger: Some(Arc::clone(ledger)) }
    }

    pub(crate) fn request(&self) -> RequestId {
        self.record.request
    }

    pub(crate) fn surface(&self) -> Surface {
        self.record.operation
    }

    pub(crate) fn note_local(&mut self, model: &ModelName) {
        self.record.model = Some(model.as_str().into());
    }

    pub(crate) fn note_cloud(&mut self, model: &Model, prices: Snapshot) {
        self.record.model = Some(Arc::clone(&model.id));
        self.record.provider = Some(model.provider.clone());
        self.record.prices = Some(prices);
    }

    /// What is to be asked of the meter, as far as the entry knows it: nothing that costs anything.
    pub(crate) fn ask<'a>(&self, model: AskedModel<'a>, stream: bool) -> Ask<'a> {
        Ask {
            request: self.record.request,
            time: self.record.time,
            surface: self.record.operation,
            model,
            most_nano: 0,
            most_tokens: 0,
            stream,
        }
    }

    /// What the limits left when it was reserved.
    pub(crate) fn allowance(&self) -> Option<Allowance> {
        self.reservation.and_then(|reservation| reservation.allowance)
    }

    /// What was set aside, in nano-credits.
    pub(crate) fn reserved_nano(&self) -> i64 {
        self.reservation.map_or(0, |reservation| reservation.nano)
    }

    /// The room that the request's body takes is free again when the entry goes.
    pub(crate) fn keep(&mut self, room: OwnedSemaphorePermit) {
        self.room = Some(room);
    }

    /// What was set aside goes with the entry from now on.
    pub(crate) fn hold(&mut self, reservation: Reservation) {
        self.reservation = Some(reservation);
    }

    /// What it used and what that costs.
    pub(crate) fn note_used(&mut self, used: Used) {
        self.record.input_tokens = used.input;
        self.record.output_tokens = used.output;
        self.record.cost_nano = used.cost_nano;
        self.record.estimated = used.estimated;
    }

    /// When it arrived, which is when its price was made.
    pub(crate) fn time(&self) -> SystemTime {
        self.record.time
    }

    /// The entry, for whoever sees the request to its end; what stays behind has nothing left to say.
    pub(crate) fn hand_over(&mut self) -> Self {
        Self {
            arrived: self.arrived,
            record: self.record.clone(),
            reservation: self.reservation.take(),
            room: self.room.take(),
            ledger: self.ledger.take(),
        }
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
    pub(crate) fn refuse(&mut self, error: &ProxyError) {
        self.note_status(error.status());
        self.settle(RecordOutcome::Failed(error.code()));
    }

    /// It is over. Only the first word counts.
    pub(crate) fn settle(&mut self, outcome: RecordOutcome) {
        if let Some(ledger) = self.ledger.take() {
            let record = Record { latency_ms: millis(self.arrived.elapsed()), outcome, ..self.record.clone() };
            ledger(record, self.reservation.take());
        }
    }
}

impl Entry {
    /// Whether its record has been taken, or it was handed over.
    pub(crate) fn is_settled(&self) -> bool {
        self.ledger.is_none()
    }

    /// Whoever held it went away without a word.
    pub(crate) fn settle_dropped(&mut self) {
        if thread::panicking() {
            if self.record.status == HUNG_UP {
                self.record.status = http::StatusCode::INTERNAL_SERVER_ERROR.as_u16();
            }
            self.settle(RecordOutcome::Failed("panic"));
        } else {
            self.settle(RecordOutcome::Cancelled);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.settle_dropped();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
