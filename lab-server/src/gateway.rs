//! The gateway: where bridges arrive, and the way from a caller's request to a workstation.
//!
//! [`pairing`] lets a workstation in once, [`accept`] greets it each time it dials, [`link`] is one life of its link, [`registry`]
//! knows which link is a device's newest, and [`relay`] turns links that come and go into one whole answer.

mod accept;
mod link;
mod models;
pub mod pairing;
mod registry;
mod relay;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api_proxy::{Answer, Bridges, NotRelayed, Order, Workstation};
use axum::{Router, routing::get};
use tokio::sync::watch;
use wire::{DeviceId, RequestId, UserId, hello::LINK_PATH};

pub use self::registry::{Following, LinkHistory, Progress};

use self::registry::Registry;
use crate::{config::Origin, news::News, store::Store};

/// How soon the database is asked again for the devices that were revoked, when it failed.
const RETRY: Duration = Duration::from_millis(250);

/// Holds the links of all workstations.
pub struct Gateway {
    registry: Arc<Registry>,
    store: Store,
    origin: Origin,
    draining: AtomicBool,
}

impl Gateway {
    /// A gateway without links. `resume_window` is how long a caller is held for a bridge's return:
    /// [`wire::relay::RESUME_WINDOW`], but for tests.
    #[must_use]
    pub fn new(store: Store, origin: Origin, resume_window: Duration, news: News) -> Arc<Self> {
        Arc::new(Self { registry: Registry::new(resume_window, news), store, origin, draining: AtomicBool::new(false) })
    }

    /// The route on which bridges arrive.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new().route(LINK_PATH, get(accept::accept)).with_state(Arc::clone(self))
    }

    /// Everything of one owner's, with whether it is there.
    pub(crate) fn workstations_of(&self, owner: wire::UserId) -> Vec<api_proxy::Workstation> {
        self.registry.workstations(owner)
    }

    /// Makes known every paired device, and from then on ends the links of those that are revoked. Runs as long as the Lab.
    pub async fn follow_revocations(self: Arc<Self>, mut epochs: watch::Receiver<u64>) {
        loop {
            // Before the database is asked: a device that is paired and linked meanwhile is not missing from its answer.
            let known = self.registry.known();
            match self.store.active_devices().await {
                Ok(devices) => {
                    let active: HashSet<_> = devices.iter().map(|device| device.id).collect();
                    let gone: Vec<_> = known.into_iter().filter(|known| !active.contains(known)).collect();
                    self.registry.know(devices);
                    gone.into_iter().for_each(|device| self.registry.revoke(device));
                }
                Err(error) => {
                    tracing::error!(%error, "the paired devices could not be read; trying again, revoked ones stay linked until then");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            if epochs.changed().await.is_err() {
                return;
            }
        }
    }

    /// Takes no more links and tells bridges to dial elsewhere; what runs on theirs may finish.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        for (_, link) in self.registry.linked() {
            link.drain();
        }
    }

    /// How many workstations are linked now.
    #[must_use]
    pub fn linked(&self) -> usize {
        self.registry.linked().len()
    }

    /// Ends every link.
    pub fn close(&self) {
        for (_, link) in self.registry.linked() {
            link.kill();
        }
    }

    /// When the links of somebody's workstations were lost that have none now, in milliseconds since 1970; as far as this process saw.
    #[must_use]
    pub fn last_seen(&self, owner: UserId) -> HashMap<DeviceId, i64> {
        self.registry.histories(owner).into_iter().filter_map(|(device, history)| Some((device, history.last_seen?))).collect()
    }

    /// How the links of somebody's workstations were, as far as this process saw.
    #[must_use]
    pub fn histories(&self, owner: UserId) -> HashMap<DeviceId, LinkHistory> {
        self.registry.histories(owner)
    }

    /// Has whoever asks told how far a request comes that they are about to make, if it goes to a workstation.
    #[must_use]
    pub fn follow(&self, request: RequestId) -> Following {
        self.registry.follow(request)
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

impl Bridges for Gateway {
    fn workstations(&self, owner: UserId) -> Vec<Workstation> {
        self.registry.workstations(owner)
    }

    async fn relay(&self, device: DeviceId, order: Order) -> Result<Answer, NotRelayed> {
        relay::relay(self, device, order).await
    }
}
