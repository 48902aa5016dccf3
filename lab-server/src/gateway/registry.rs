//! Which workstations there are, and by which link each can be reached now. The newest link of a device wins.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api_proxy::{Presence, Workstation};
use tokio::{sync::watch, time::Instant};
use wire::{
    DeviceId, RelayId, RequestId, UserId,
    relay::{Goodbye, Phase, Snapshot},
};

use super::link::Link;
use crate::{
    news::{About, News},
    store::{Device, now_ms},
};

/// Losses of a link that are remembered at most: whoever has more in a day needs no more of them to see it.
const MAX_LOSSES: usize = 100;
/// A day, in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Every workstation that has been seen, with its link if it has one.
pub(crate) struct Registry {
    places: Mutex<HashMap<DeviceId, Place>>,
    /// Requests whose progress somebody wants to be told.
    followed: Mutex<HashMap<RequestId, watch::Sender<Progress>>>,
    epochs: AtomicU64,
    relays: AtomicU64,
    resume_window: Duration,
    news: News,
}

/// One workstation.
struct Place {
    owner: UserId,
    name: String,
    /// Whoever needs the link waits here for it.
    link: watch::Sender<Option<Arc<Link>>>,
    /// When the link was lost; `None` while there is one, or before the first.
    lost: Option<Instant>,
    /// The same by the clock on the wall, for people.
    history: LinkHistory,
    snapshot: Arc<Snapshot>,
    /// Relays of this Lab that are not over.
    active: HashMap<RelayId, Relay>,
}

/// How a workstation's links were since the Lab started; times in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkHistory {
    /// Since when it has the link that it has; `None` while it has none.
    pub since: Option<i64>,
    /// When its link was lost; `None` while it has one, and where it had none.
    pub last_seen: Option<i64>,
    /// When links were lost in the last day, the oldest first; the newest [`MAX_LOSSES`] at most.
    pub losses: VecDeque<i64>,
}

impl LinkHistory {
    fn linked(&mut self, now: i64) {
        // A link that follows upon another is no loss.
        self.since = Some(now);
        self.last_seen = None;
    }

    fn lost(&mut self, now: i64) {
        self.since = None;
        self.last_seen = Some(now);
        self.losses.push_back(now);
        while self.losses.len() > MAX_LOSSES || self.losses.front().is_some_and(|loss| *loss < now - DAY_MS) {
            self.losses.pop_front();
        }
    }
}

/// A relay that is not over.
struct Relay {
    /// Counts relays: who came earlier is before it.
    number: u64,
    /// How far it has come, as far as the bridge found that worth telling.
    phase: Option<Phase>,
    /// Whether its link broke and is waited for.
    away: bool,
    follower: Option<watch::Sender<Progress>>,
}

/// How far a request to a workstation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It was asked.
    Asked,
    /// It waits for its turn behind so many others of this Lab.
    Queued(u32),
    /// The model is being loaded, or reads the prompt.
    Loading,
    /// It answers.
    Answering,
    /// The workstation's link broke, and is waited for.
    Away,
}

/// Somebody is told of a request's progress for as long as they hold this.
pub struct Following {
    registry: Arc<Registry>,
    request: RequestId,
    progress: watch::Receiver<Progress>,
}

impl Following {
    /// Where it says so; the first word is [`Progress::Asked`].
    pub fn progress(&mut self) -> &mut watch::Receiver<Progress> {
        &mut self.progress
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.registry.lock_followed().remove(&self.request);
    }
}

/// Counts a relay among a workstation's own for as long as it is held.
pub(crate) struct Active {
    registry: Arc<Registry>,
    device: DeviceId,
    relay: RelayId,
}

impl Registry {
    pub(crate) fn new(resume_window: Duration, news: News) -> Arc<Self> {
        Arc::new(Self {
            places: Mutex::default(),
            followed: Mutex::default(),
            epochs: AtomicU64::new(0),
            relays: AtomicU64::new(0),
            resume_window,
            news,
        })
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
                place.history.linked(now_ms());
                place.link.send_replace(Some(Arc::clone(link)))
            }
        };
        if let Some(old) = old {
            old.goodbye(Goodbye::Superseded);
        }
        self.news.tell(device.user, About::Devices);
    }

    /// A link has ended. Nothing happens when a newer one has taken its place.
    pub(crate) fn unlink(&self, device: DeviceId, epoch: u64) {
        let mut places = self.lock();
        let Some(place) = places.get_mut(&device) else { return };
        if place.link.borrow().as_ref().is_some_and(|current| current.epoch() == epoch) {
            place.link.send_replace(None);
            place.lost = Some(Instant::now());
            place.history.lost(now_ms());
            self.news.tell(place.owner, About::Devices);
        }
    }

    /// A device is no more: its link ends, and whoever waits for it stops waiting.
    pub(crate) fn revoke(&self, device: DeviceId) {
        let Some(place) = self.lock().remove(&device) else { return };
        if let Some(link) = place.link.send_replace(None) {
            link.goodbye(Goodbye::Revoked);
        }
        self.news.tell(place.owner, About::Devices);
    }

    /// Keeps what a bridge told of its workstation on its newest link. Returns the relays that it still holds and nobody here knows.
    pub(crate) fn snapshot(&self, device: DeviceId, epoch: u64, snapshot: Snapshot) -> Vec<RelayId> {
        let mut places = self.lock();
        let Some(place) = places.get_mut(&device) else { return Vec::new() };
        if place.link.borrow().as_ref().is_none_or(|current| current.epoch() != epoch) {
            return Vec::new();
        }
        let orphans = snapshot.relays.iter().filter(|relay| !place.active.contains_key(relay)).copied().collect();
        place.snapshot = Arc::new(snapshot);
        self.news.tell(place.owner, About::Devices);
        orphans
    }

    /// Has whoever asks told how far a request comes that they are about to make.
    pub(crate) fn follow(self: &Arc<Self>, request: RequestId) -> Following {
        let (sender, progress) = watch::channel(Progress::Asked);
        self.lock_followed().insert(request, sender);
        Following { registry: Arc::clone(self), request, progress }
    }

    /// A bridge told on its newest link how far a relay has come.
    pub(crate) fn phase(&self, device: DeviceId, relay: RelayId, phase: Phase) {
        self.change(device, relay, |relay| relay.phase = Some(phase));
    }

    /// A relay's link broke and is waited for, or is there again.
    pub(crate) fn away(&self, device: DeviceId, relay: RelayId, away: bool) {
        self.change(device, relay, |relay| relay.away = away);
    }

    fn change(&self, device: DeviceId, relay: RelayId, change: impl FnOnce(&mut Relay)) {
        let mut places = self.lock();
        let Some(place) = places.get_mut(&device) else { return };
        if let Some(relay) = place.active.get_mut(&relay) {
            change(relay);
            place.tell();
        }
    }

    /// Counts `relay` among the workstation's own.
    pub(crate) fn activate(self: &Arc<Self>, device: DeviceId, relay: RelayId, request: RequestId) -> Active {
        let follower = self.lock_followed().get(&request).cloned();
        if let Some(place) = self.lock().get_mut(&device) {
            let number = self.relays.fetch_add(1, Ordering::Relaxed);
            place.active.insert(relay, Relay { number, phase: None, away: false, follower });
            self.news.tell(place.owner, About::Devices);
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

    /// How the links of one owner's workstations were.
    pub(crate) fn histories(&self, owner: UserId) -> HashMap<DeviceId, LinkHistory> {
        let places = self.lock();
        let mine = places.iter().filter(|(_, place)| place.owner == owner);
        mine.map(|(device, place)| (*device, place.history.clone())).collect()
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

    fn lock_followed(&self) -> MutexGuard<'_, HashMap<RequestId, watch::Sender<Progress>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
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
            history: LinkHistory::default(),
            snapshot: Arc::default(),
            active: HashMap::new(),
        }
    }

    /// Tells those who follow one of its relays what has changed for them.
    fn tell(&self) {
        for relay in self.active.values() {
            let Some(follower) = &relay.follower else { continue };
            let progress = match relay.phase {
                _ if relay.away => Progress::Away,
                None => Progress::Asked,
                Some(Phase::Loading) => Progress::Loading,
                Some(Phase::Generating) => Progress::Answering,
                Some(Phase::Queued) => {
                    let before = self.active.values().filter(|other| other.number < relay.number).count();
                    Progress::Queued(u32::try_from(before).unwrap_or(u32::MAX))
                }
            };
            follower.send_if_modified(|told| std::mem::replace(told, progress) != progress);
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
            place.tell();
            self.registry.news.tell(place.owner, About::Devices);
        }
    }
}
