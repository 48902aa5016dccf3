//! Which keys are good, which are in use now, and how those that lose their right are cut off.
//!
//! A key that was found good is remembered for a moment, under the SHA-256 of its whole text and for the security epoch in which it
//! was looked up: a revocation ends every memory at once. Keys under which requests run are looked up again whenever the epoch
//! changes; who has become unknown then has their [`Leash`] cancelled, and whatever runs under it ends.
//!
//! A person who is signed in needs no key: what the house asks for them runs under [`KeyId::HOUSE`], is bounded by what bounds their
//! project and themselves, and is cut off when either goes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use api_proxy::{Caller, KeyId, Leash, NotAdmitted};
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use wire::{ProjectId, UserId};

use super::{
    DefaultRates,
    limits::{Bounds, Buckets, Limits},
    money::Payer,
};
use crate::{
    account::{api_key::PresentedKey, recognise, revocation::Revocations},
    store::{KeyTerms, Rates, Store, StoreError, ValidKey, now_ms},
};

/// How long a key that was found good is believed without looking (SECURITY 4.3), as long as the epoch stays.
const BELIEVED: Duration = Duration::from_secs(5);
/// Keys that are remembered at once; at some 900 bytes a key with its buckets, 9 MB.
const MEMORY: usize = 10_000;
/// How often expired keys are looked for, and the epoch's lookups repeated that failed.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Running keys that are looked up at once: as many as the store has connections.
const LOOKUPS: usize = 8;

#[derive(Debug)]
pub(super) struct Keys {
    store: Store,
    revocations: Revocations,
    defaults: DefaultRates,
    limits: Arc<Limits>,
    state: Mutex<State>,
}

/// A key that was found good, and what limits it.
#[derive(Debug)]
pub(super) struct KnownKey {
    pub(super) caller: Caller,
    pub(super) terms: KeyTerms,
    pub(super) exact_usage: bool,
    pub(super) bounds: Bounds,
    pub(super) buckets: Buckets,
    pub(super) payer: Payer,
}

#[derive(Debug, Default)]
struct State {
    believed: HashMap<Proof, Believed>,
    running: HashMap<Caller, Running>,
}

/// What somebody is let in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Proof {
    /// The SHA-256 of a whole key.
    Key([u8; 32]),
    /// A person who is signed in, and the project that they work in.
    Person(UserId, ProjectId),
}

#[derive(Debug)]
struct Believed {
    key: Arc<KnownKey>,
    epoch: u64,
    since: Instant,
}

/// A key under which requests run.
#[derive(Debug)]
struct Running {
    requests: usize,
    key: Arc<KnownKey>,
    leash: Leash,
}

impl Keys {
    pub(super) fn new(store: Store, revocations: Revocations, defaults: DefaultRates, limits: Arc<Limits>) -> Self {
        Self { store, revocations, defaults, limits, state: Mutex::default() }
    }

    /// Finds a key and lets a request begin under it, which is to be ended with [`Keys::end`].
    pub(super) async fn begin(&self, text: &str) -> Result<(Arc<KnownKey>, Leash), NotAdmitted> {
        // An offline check first: a typo costs no look at anything.
        let key: PresentedKey = text.parse().map_err(|_| NotAdmitted::Malformed)?;
        self.enter(Proof::Key(Sha256::digest(text.as_bytes()).into()), Some(&key)).await
    }

    /// Lets a request of a person's begin, which is to be ended with [`Keys::end`].
    pub(super) async fn begin_person(&self, user: UserId, project: ProjectId) -> Result<(Arc<KnownKey>, Leash), NotAdmitted> {
        self.enter(Proof::Person(user, project), None).await
    }

    async fn enter(&self, proof: Proof, key: Option<&PresentedKey>) -> Result<(Arc<KnownKey>, Leash), NotAdmitted> {
        loop {
            // Before the database is asked: a revocation that comes meanwhile makes what is then remembered worthless.
            let (newest, epoch) = (self.revocations.newest(), self.revocations.current());
            let (known, leash) = match epoch.and_then(|epoch| self.enter_believed(&proof, epoch)) {
                Some(entered) => entered,
                None => {
                    let known = self.look_up(proof, key, epoch).await?;
                    if known.has_expired() {
                        return Err(NotAdmitted::Unknown);
                    }
                    let leash = self.state().enter(&known);
                    (known, leash)
                }
            };
            // From here on a revocation finds the request. One that came before this is seen here.
            if self.revocations.newest() == newest {
                return Ok((known, leash));
            }
            self.end(&known.caller);
        }
    }

    /// A request that was begun has ended. Gives the terms under which it ran.
    pub(super) fn end(&self, caller: &Caller) -> Option<Arc<KnownKey>> {
        let mut state = self.state();
        let running = state.running.get_mut(caller)?;
        running.requests -= 1;
        let known = Arc::clone(&running.key);
        if running.requests == 0 {
            state.running.remove(caller);
        }
        Some(known)
    }

    /// The terms under which a running request runs now.
    pub(super) fn running(&self, caller: &Caller) -> Option<Arc<KnownKey>> {
        self.state().running.get(caller).map(|running| Arc::clone(&running.key))
    }

    /// Requests that run.
    pub(super) fn count(&self) -> usize {
        self.state().running.values().map(|running| running.requests).sum()
    }

    /// Cuts off keys that were revoked or have expired, until it is cancelled.
    pub(super) async fn watch(self: Arc<Self>, cancelled: CancellationToken) {
        let mut epoch = self.revocations.watch();
        let mut turns = tokio::time::interval(LOOK_AGAIN);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut checked = true;
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                changed = epoch.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    checked = false;
                }
                _ = turns.tick() => {}
            }
            if !checked {
                epoch.mark_unchanged();
                checked = self.look_again().await;
            }
            self.cut_expired();
        }
    }

    async fn look_up(&self, proof: Proof, key: Option<&PresentedKey>, epoch: Option<u64>) -> Result<Arc<KnownKey>, NotAdmitted> {
        let known = match (proof, key) {
            (Proof::Key(_), Some(key)) => recognise(&self.store, key).await.map(|valid| valid.map(|valid| self.know(valid))),
            (Proof::Person(user, project), _) => self.look_up_person(user, project).await,
            (Proof::Key(_), None) => Ok(None),
        };
        let known = known.map_err(|error| {
            tracing::error!(%error, "cannot look up a key");
            NotAdmitted::Unavailable
        })?;
        let known = Arc::new(known.ok_or(NotAdmitted::Unknown)?);
        if let Some(epoch) = epoch {
            self.believe(proof, Believed { key: Arc::clone(&known), epoch, since: Instant::now() });
        }
        Ok(known)
    }

    fn enter_believed(&self, proof: &Proof, epoch: u64) -> Option<(Arc<KnownKey>, Leash)> {
        let mut state = self.state();
        let believed = state.believed.get(proof).filter(|b| b.epoch == epoch && b.since.elapsed() < BELIEVED)?;
        // One that has expired is looked up like one that nobody knows, and takes as long.
        let known = Some(Arc::clone(&believed.key)).filter(|key| !key.has_expired())?;
        let leash = state.enter(&known);
        Some((known, leash))
    }

    fn believe(&self, proof: Proof, new: Believed) {
        let believed = &mut self.state().believed;
        if believed.len() >= MEMORY {
            believed.retain(|_, old| old.epoch == new.epoch && old.since.elapsed() < BELIEVED);
        }
        if believed.len() < MEMORY {
            believed.insert(proof, new);
        }
    }

    /// Looks up every key under which requests run; whether all of them could be.
    async fn look_again(&self) -> bool {
        let callers: Vec<Caller> = self.state().running.keys().copied().collect();
        let lookups = callers.into_iter().map(async |caller| (caller, self.look_at(&caller).await));
        let mut lookups = stream::iter(lookups).buffer_unordered(LOOKUPS);
        let mut all = true;
        while let Some((caller, found)) = lookups.next().await {
            match found {
                Ok(None) => self.cut(&caller),
                Ok(Some(known)) => {
                    if let Some(running) = self.state().running.get_mut(&caller) {
                        running.key = Arc::new(known);
                    }
                }
                Err(error) => {
                    if all {
                        tracing::error!(%error, "cannot look up a key under which requests run; trying again");
                    }
                    all = false;
                }
            }
        }
        all
    }

    /// What limits a caller now; `None` when they have lost their right.
    async fn look_at(&self, caller: &Caller) -> Result<Option<KnownKey>, StoreError> {
        if caller.key == KeyId::HOUSE {
            return self.look_up_person(caller.user, caller.project).await;
        }
        Ok(self.store.valid_key(caller.key.into()).await?.map(|valid| self.know(valid)))
    }

    async fn look_up_person(&self, user: UserId, project: ProjectId) -> Result<Option<KnownKey>, StoreError> {
        let Some((settings, rates)) = self.store.project_terms(user, project).await? else { return Ok(None) };
        let caller = Caller { user, project, key: KeyId::HOUSE };
        Ok(Some(KnownKey {
            caller,
            bounds: Bounds { key: Rates::default(), project: settings.rates, user: self.user_rates(rates) },
            buckets: self.limits.buckets(&caller),
            payer: Payer { user, key: KeyId::HOUSE },
            exact_usage: settings.exact_usage,
            terms: KeyTerms::default(),
        }))
    }

    fn user_rates(&self, own: Rates) -> Rates {
        let default = self.defaults.user;
        Rates {
            requests_per_minute: own.requests_per_minute.or(default.requests_per_minute),
            tokens_per_minute: own.tokens_per_minute.or(default.tokens_per_minute),
            concurrent: own.concurrent.or(default.concurrent),
        }
    }

    fn know(&self, valid: ValidKey) -> KnownKey {
        let user = self.user_rates(valid.user_rates);
        let caller = Caller { user: valid.owner.user, project: valid.owner.project, key: valid.owner.key.into() };
        let payer = Payer { user: caller.user, key: valid.counts_as.into() };
        KnownKey {
            caller,
            bounds: Bounds { key: valid.terms.rates, project: valid.project.rates, user },
            buckets: self.limits.buckets(&Caller { key: payer.key, ..caller }),
            payer,
            exact_usage: valid.project.exact_usage,
            terms: valid.terms,
        }
    }

    fn cut(&self, caller: &Caller) {
        if let Some(running) = self.state().running.get(caller) {
            running.leash.cancel();
        }
    }

    fn cut_expired(&self) {
        for running in self.state().running.values().filter(|running| running.key.has_expired()) {
            running.leash.cancel();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn enter(&mut self, known: &Arc<KnownKey>) -> Leash {
        let running = self.running.entry(known.caller).or_insert_with(|| Running {
            requests: 0,
            key: Arc::clone(known),
            leash: Leash::new(),
        });
        running.requests += 1;
        // Cut off, and good again since: its expiry was put off.
        if running.leash.is_cancelled() {
            running.leash = Leash::new();
        }
        if !Arc::ptr_eq(&running.key, known) {
            running.key = Arc::clone(known);
        }
        running.leash.clone()
    }
}

impl KnownKey {
    fn has_expired(&self) -> bool {
        self.terms.expires_at.is_some_and(|end| end <= now_ms())
    }
}
