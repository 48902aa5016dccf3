//! Which workstations there are, and by which link each can be reached now. The newest link of a device wins.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api_proxy::{Presence, Workstation};
use tokio::{sync::watch, time::Instant};
use wire::{
    DeviceId, RelayId, UserId,
    relay::{Goodbye, Snapshot},
};

use super::link::Link;
use crate::store::Device;

/// Every workstation that has been seen, with its link if it has one.
pub(crate) struct Registry {
    places: Mutex<HashMap<DeviceId, Place>>,
    epochs: AtomicU64,
    resume_window: Duration,
}

/// One workstation.
struct Place {
    owner: UserId,
    name: String,
    /// Whoever needs the link waits here for it.
    link: watch::Sender<Option<Arc<Link>>>,
    /// When the link was lost; `None` while there is one, or before the first.
    lost: Option<Instant>,
    snapshot: Arc<Snapshot>,
    /// Relays of this Lab that are not over.
    active: HashSet<RelayId>,
}

/// Counts a relay among a workstation's own for as long as it is held.
pub(crate) struct Active {
    registry: Arc<Registry>,
    device: DeviceId,
    relay: RelayId,
}

impl Registry {
    pub(crate) fn new(resume_window: Duration) -> Arc<Self> {
        Arc::new(Self { places: Mutex::default(), epochs: AtomicU64::new(0), resume_window })
    }

    /// The number of a new link.
    pub(crate) fn next_epoch(&self) -> u64 {
        self.epochs.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes workstations known that are not linked: their owner then hears "offline" rather than "no such model".
    pub(crate) fn know(&self, devices: impl IntoIterator<Item = Device>) {
        let mut places = self.lock();
        for device in devices {
            places.entry(device.id).or_insert_with(|| Place::of(&device));
        }
    }

    /// Takes in a new link. The one it replaces is told so and ends.
    pub(crate) fn link(&self, device: &Device, link: &Arc<Link>) {
        let old = {
            let mut places = self.lock();
            let place = places.entry(device.id).or_insert_with(|| Place::of(device));
            place.owner = device.user;
            place.name.clone_from(&device.name);
            // A later hello may have been taken in first.
            if place.link.borrow().as_ref().is_some_and(|current| current.epoch() > link.epoch()) {
                Some(Arc::clone(link))
            } else {
                place.lost = None;
                place.link.send_replace(Some(Arc::clone(link)))
            }
        };
        if let Some(old) = old {
            old.goodbye(Goodbye::Superseded);
        }
    }

    /// A link has ended. Nothing happens when a newer one has taken its place.
    pub(crate) fn unlink(&self, device: DeviceId, epoch: u64) {
        let mut places = self.lock();
        let Some(place) = places.get_mut(&device) else { return };
        if place.link.borrow().as_ref().is_some_and(|current| current.epoch() == epoch) {
            place.link.send_replace(None);
            place.lost = Some(Instant::now());
        }
    }

    /// A device is no more: its link ends, and whoever waits for it stops waiting.
    pub(crate) fn revoke(&self, device: DeviceId) {
        let Some(place) = self.lock().remove(&device) else { return };
        if let Some(link) = place.link.send_replace(None) {
            link.goodbye(Goodbye::Revoked);
        }
    }

    /// Keeps what a bridge told of its workstation on its newest link. Returns the relays that it still holds and nobody here knows.
    pub(crate) fn snapshot(&self, device: DeviceId, epoch: u64, snapshot: Snapshot) -> Vec<RelayId> {
        let mut places = self.lock();
        let Some(place) = places.get_mut(&device) else { return Vec::new() };
        if place.link.borrow().as_ref().is_none_or(|current| current.epoch() != epoch) {
            return Vec::new();
        }
        let orphans = snapshot.relays.iter().filter(|relay| !place.active.contains(relay)).copied().collect();
        place.snapshot = Arc::new(snapshot);
        orphans
    }

    /// Counts `relay` among the workstation's own.
    pub(crate) fn activate(self: &Arc<Self>, device: DeviceId, relay: RelayId) -> Active {
        if let Some(place) = self.lock().get_mut(&device) {
            place.active.insert(relay);
        }
        Active { registry: Arc::clone(self), device, relay }
    }

    /// The device's link, now or within the resume window after it was lost. `None` when there is none to wait for.
    pub(crate) async fn reach(&self, device: DeviceId) -> Option<Arc<Link>> {
        let (mut link, deadline) = {
            let places = self.lock();
            let place = places.get(&device)?;
            let current = place.link.borrow().clone();
            if let Some(link) = current.filter(|link| link.is_open()) {
                return Some(link);
            }
            // A link that has just broken may not have been reported yet.
            let lost = place.lost.or_else(|| place.link.borrow().is_some().then(Instant::now))?;
            (place.link.subscribe(), lost + self.resume_window)
        };
        let found = link.wait_for(|link| link.as_ref().is_some_and(|link| link.is_open()));
        tokio::time::timeout_at(deadline, found).await.ok()?.ok()?.clone()
    }

    /// The device's link if it has one now.
    pub(crate) fn reach_now(&self, device: DeviceId) -> Option<Arc<Link>> {
        self.lock().get(&device)?.link.borrow().clone().filter(|link| link.is_open())
    }

    /// Everything of one owner.
    pub(crate) fn workstations(&self, owner: UserId) -> Vec<Workstation> {
        let places = self.lock();
        let mine = places.iter().filter(|(_, place)| place.owner == owner);
        mine.map(|(device, place)| Workstation {
            device: *device,
            name: place.name.clone(),
            presence: place.presence(self.resume_window),
            snapshot: Arc::clone(&place.snapshot),
            active: u32::try_from(place.active.len()).unwrap_or(u32::MAX),
        })
        .collect()
    }

    /// Devices that have a link.
    pub(crate) fn linked(&self) -> Vec<(DeviceId, Arc<Link>)> {
        let places = self.lock();
        places.iter().filter_map(|(device, place)| place.link.borrow().clone().map(|link| (*device, link))).collect()
    }

    /// Devices that are known here, linked or not.
    pub(crate) fn known(&self) -> Vec<DeviceId> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Place>> {
        // No code that can panic runs under the lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn of(device: &Device) -> Self {
        Self {
            owner: device.user,
            name: device.name.clone(),
            link: watch::Sender::new(None),
            lost: None,
            snapshot: Arc::default(),
            active: HashSet::new(),
        }
    }

    fn presence(&self, resume_window: Duration) -> Presence {
        match (self.link.borrow().as_ref(), self.lost) {
            (Some(link), _) if link.is_open() => Presence::Online,
            // It has just broken, and its task has not said so yet.
            (Some(_), _) => Presence::Away,
            (None, Some(lost)) if lost.elapsed() < resume_window => Presence::Away,
            (None, _) => Presence::Offline,
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        if let Some(place) = self.registry.lock().get_mut(&self.device) {
            place.active.remove(&self.relay);
        }
    }
}
