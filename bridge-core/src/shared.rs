//! What the parts of a bridge share: the owner's wishes, what is known at this moment, and how to tell each other.
//!
//! Each value has one writer: the owner through the handle (policy, pause), the linker (link), the composer (snapshot, status).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::relay::{Gpu, Snapshot};

use crate::{
    config::Config,
    ollama::{Inventory, Ollama},
    policy::{Policy, TimeOfDay},
    relay::Relays,
    status::{LinkState, Pause, Status, now_ms},
};

/// How often graphics processors are looked at.
pub(crate) const GPU_EVERY: Duration = Duration::from_secs(5);

/// What the parts share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) relays: Arc<Relays>,
    pub(crate) ollama: Ollama,
    pub(crate) policy: watch::Sender<Arc<Policy>>,
    pub(crate) pause: watch::Sender<Pause>,
    pub(crate) link: watch::Sender<LinkState>,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(crate) status: watch::Sender<Arc<Status>>,
    pub(crate) gpus: watch::Sender<Vec<Gpu>>,
    pub(crate) inventory: watch::Receiver<Arc<Inventory>>,
    /// Dial now, and read the pairing and the key anew.
    pub(crate) wake: Notify,
    /// The wish of the owner; quiet hours come on top of it.
    pub(crate) paused: Mutex<Option<Paused>>,
    /// When a relay last ran.
    pub(crate) worked: Mutex<Option<Instant>>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

/// The owner paused the workstation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paused {
    /// Until then, or until resumed.
    pub(crate) until_ms: Option<u64>,
}

impl Shared {
    pub(crate) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// What the Lab sees, now and on every change.
    pub(crate) fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// A snapshot with the relays of this moment, which alone do not make a new one.
    pub(crate) fn with_relays(&self, mut snapshot: Snapshot) -> Snapshot {
        snapshot.relays = self.relays.ids();
        snapshot.queued = self.relays.queued();
        snapshot
    }

    /// Runs a task that ends when the bridge stops.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(work).await });
    }

    pub(crate) fn set_link(&self, state: LinkState) {
        self.link.send_replace(state);
    }

    pub(crate) fn set_paused(&self, paused: Option<Paused>) {
        *self.paused.lock().unwrap_or_else(PoisonError::into_inner) = paused;
        self.refresh_pause();
    }

    /// Notes whether a relay runs now.
    pub(crate) fn note_work(&self) {
        if self.relays.is_busy() {
            *self.worked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Whether somebody other than a relay keeps a graphics processor busy. A reading may be one interval old, so those that may
    /// have been taken while a relay ran say nothing.
    fn is_gpu_taken(&self, limit: u8) -> bool {
        let is_busy = |gpu: &Gpu| gpu.busy_percent.is_some_and(|busy| busy >= f32::from(limit));
        let worked = *self.worked.lock().unwrap_or_else(PoisonError::into_inner);
        worked.is_none_or(|worked| worked.elapsed() > 2 * GPU_EVERY) && self.gpus.borrow().iter().any(is_busy)
    }

    /// Works out whether work is taken at this moment.
    pub(crate) fn refresh_pause(&self) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if paused.is_some_and(|paused| paused.until_ms.is_some_and(|until| until <= now_ms())) {
            *paused = None;
        }
        let policy = self.policy.borrow();
        let pause = match *paused {
            Some(Paused { until_ms }) => Pause::Paused { until_ms },
            None if local_time().is_some_and(|now| policy.is_quiet(now)) => Pause::Quiet,
            None if policy.yield_gpu_percent.is_some_and(|limit| self.is_gpu_taken(limit)) => Pause::Yielding,
            None => Pause::Serving,
        };
        self.pause.send_if_modified(|current| std::mem::replace(current, pause) != pause);
    }
}

/// The workstation's own time of day.
fn local_time() -> Option<TimeOfDay> {
    let now = jiff::Zoned::now();
    TimeOfDay::new(u8::try_from(now.hour()).ok()?, u8::try_from(now.minute()).ok()?)
}
