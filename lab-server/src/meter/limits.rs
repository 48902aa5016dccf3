//! How fast may be asked: requests, tokens and running requests of every key, project and person.
//!
//! A request passes all of its limits or none of them. This is the one place that keeps such numbers, so that several servers can
//! share them one day by keeping them elsewhere.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use api_proxy::{Allowance, Caller, KeyId, Quota};
use wire::{ProjectId, UserId};

use super::gcra::{Rate, Verdict};
use crate::store::Rates;

/// How long somebody waits for a running request of their own to end: nobody knows, and most take longer than this.
const WHEN_TOO_MANY_RUN: Duration = Duration::from_secs(1);
/// Entries from which idle ones are looked for; there are three for each key at most, of some 100 bytes.
const TIDY_FROM: usize = 1024;

/// The limits, and how much of each is used.
#[derive(Debug)]
pub(super) struct Limits {
    buckets: Mutex<Buckets>,
    started: Instant,
}

/// The rates that hold for one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) key: Rates,
    pub(super) project: Rates,
    pub(super) user: Rates,
}

/// Why a request does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooFast {
    pub(super) retry_after: Duration,
    pub(super) allowance: Allowance,
}

#[derive(Debug, Default)]
struct Buckets {
    of: HashMap<Subject, Bucket>,
    tidy_at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Key(KeyId),
    Project(ProjectId),
    User(UserId),
}

/// How much somebody uses. Times as `gcra` wants them.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    running: u32,
    requests: u64,
    tokens: u64,
    /// The limit that tokens were taken under, and are set right under.
    tokens_per_minute: Option<NonZeroU32>,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self { buckets: Mutex::default(), started: Instant::now() }
    }

    /// Lets a request in, which counts as one that runs until [`Limits::leave`], and says what the limits leave.
    pub(super) fn enter(&self, caller: &Caller, bounds: &Bounds) -> Result<Option<Allowance>, TooFast> {
        self.enter_at(caller, bounds, self.now())
    }

    /// Takes the most tokens that a request can use.
    pub(super) fn take_tokens(&self, caller: &Caller, bounds: &Bounds, tokens: u64) -> Result<Option<Allowance>, TooFast> {
        self.take_tokens_at(caller, bounds, tokens, self.now())
    }

    /// Says how many of the tokens that were taken were used.
    pub(super) fn correct_tokens(&self, caller: &Caller, taken: u64, used: u64) {
        if taken == used {
            return;
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for subject in subjects(caller) {
            if let Some(bucket) = buckets.of.get_mut(&subject)
                && let Some(most) = bucket.tokens_per_minute
            {
                bucket.tokens = Rate::per_minute(most).correct(bucket.tokens, taken, used);
            }
        }
    }

    /// A request that was let in has ended.
    pub(super) fn leave(&self, caller: &Caller) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for subject in subjects(caller) {
            if let Some(bucket) = buckets.of.get_mut(&subject) {
                bucket.running = bucket.running.saturating_sub(1);
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn enter_at(&self, caller: &Caller, bounds: &Bounds, now: u64) -> Result<Option<Allowance>, TooFast> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = buckets.get(caller, now);
        let mut wait = None;
        for (bucket, rates) in held.iter_mut().zip(bounds.all()) {
            if rates.concurrent.is_some_and(|most| bucket.running >= most.get()) {
                wait = wait.max(Some(WHEN_TOO_MANY_RUN));
            }
            bucket.running = bucket.running.saturating_add(1);
            let verdict = rates.requests_per_minute.map(|most| Rate::per_minute(most).take(bucket.requests, now, 1));
            wait = wait.max(apply(verdict, &mut bucket.requests));
        }
        buckets.decide(caller, bounds, now, held, wait)
    }

    fn take_tokens_at(&self, caller: &Caller, bounds: &Bounds, tokens: u64, now: u64) -> Result<Option<Allowance>, TooFast> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = buckets.get(caller, now);
        let mut wait = None;
        for (bucket, rates) in held.iter_mut().zip(bounds.all()) {
            let verdict = rates.tokens_per_minute.map(|most| Rate::per_minute(most).take(bucket.tokens, now, tokens));
            bucket.tokens_per_minute = rates.tokens_per_minute;
            wait = wait.max(apply(verdict, &mut bucket.tokens));
        }
        buckets.decide(caller, bounds, now, held, wait)
    }
}

/// Takes what there is; how long to wait where there is nothing.
fn apply(verdict: Option<Verdict>, tat: &mut u64) -> Option<Duration> {
    match verdict? {
        Verdict::Taken(new) => {
            *tat = new;
            None
        }
        Verdict::Wait(wait) => Some(wait),
    }
}

impl Buckets {
    /// Copies of what a caller's key, project and person use.
    fn get(&mut self, caller: &Caller, now: u64) -> [Bucket; 3] {
        if self.of.len() >= self.tidy_at {
            self.of.retain(|_, bucket| bucket.running > 0 || bucket.requests > now || bucket.tokens > now);
            self.tidy_at = TIDY_FROM.max(self.of.len() * 2);
        }
        subjects(caller).map(|subject| self.of.get(&subject).copied().unwrap_or_default())
    }

    /// Keeps the copies if nothing has to wait.
    fn decide(
        &mut self,
        caller: &Caller,
        bounds: &Bounds,
        now: u64,
        held: [Bucket; 3],
        wait: Option<Duration>,
    ) -> Result<Option<Allowance>, TooFast> {
        if let Some(retry_after) = wait {
            let before = self.get(caller, now);
            return Err(TooFast { retry_after, allowance: allowance(&before, bounds, now).unwrap_or_default() });
        }
        for (subject, bucket) in subjects(caller).into_iter().zip(held) {
            self.of.insert(subject, bucket);
        }
        Ok(allowance(&held, bounds, now))
    }
}

/// What the tightest of the limits leave; `None` where there are none.
fn allowance(held: &[Bucket; 3], bounds: &Bounds, now: u64) -> Option<Allowance> {
    let mut allowance = Allowance::default();
    for (bucket, rates) in held.iter().zip(bounds.all()) {
        tighten(&mut allowance.requests, rates.requests_per_minute, bucket.requests, now);
        tighten(&mut allowance.tokens, rates.tokens_per_minute, bucket.tokens, now);
    }
    (allowance != Allowance::default()).then_some(allowance)
}

fn tighten(tightest: &mut Option<Quota>, most: Option<NonZeroU32>, tat: u64, now: u64) {
    let Some(rate) = most.map(Rate::per_minute) else { return };
    let quota = Quota { limit: rate.limit(), remaining: rate.remaining(tat, now), reset: Rate::reset(tat, now) };
    if tightest.is_none_or(|known| (quota.remaining, quota.limit) < (known.remaining, known.limit)) {
        *tightest = Some(quota);
    }
}

impl Bounds {
    fn all(&self) -> [&Rates; 3] {
        [&self.key, &self.project, &self.user]
    }
}

fn subjects(caller: &Caller) -> [Subject; 3] {
    [Subject::Key(caller.key), Subject::Project(caller.project), Subject::User(caller.user)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn caller() -> Caller {
        Caller { user: UserId::random(), project: ProjectId::random(), key: "0123456789ab".parse().unwrap() }
    }

    fn none() -> Bounds {
        Bounds { key: Rates::default(), project: Rates::default(), user: Rates::default() }
    }

    fn requests(most: u32) -> Rates {
        Rates { requests_per_minute: NonZeroU32::new(most), ..Rates::default() }
    }

    #[test]
    fn a_request_passes_all_its_limits_or_none() {
        let (limits, caller) = (Limits::new(), caller());
        let one_at_once = Rates { concurrent: NonZeroU32::new(1), ..Rates::default() };
        let bounds = Bounds { key: requests(60), project: one_at_once, user: requests(600) };
        let quota = |remaining, reset_ms| Quota { limit: 60, remaining, reset: Duration::from_millis(reset_ms) };
        let left = |remaining, reset| Allowance { requests: Some(quota(remaining, reset)), tokens: None };
        assert_eq!(limits.enter_at(&caller, &bounds, 0), Ok(Some(left(59, 1000))));
        // The second one is refused by the project, and costs the key nothing.
        let refused = TooFast { retry_after: WHEN_TOO_MANY_RUN, allowance: left(59, 1000) };
        assert_eq!(limits.enter_at(&caller, &bounds, 0), Err(refused));
        limits.leave(&caller);
        assert_eq!(limits.enter_at(&caller, &bounds, 0), Ok(Some(left(58, 2000))));
        // Another key of the same project is held up likewise, another project is not.
        let other_key = Caller { key: "another67890".parse().unwrap(), ..caller };
        assert!(limits.enter_at(&other_key, &bounds, 0).is_err());
        assert!(limits.enter_at(&Caller { project: ProjectId::random(), ..other_key }, &bounds, 0).is_ok());
    }

    #[test]
    fn the_tightest_limit_is_told() {
        let (limits, caller) = (Limits::new(), caller());
        let bounds = Bounds { user: requests(3), ..none() };
        for remaining in [2, 1, 0] {
            let quota = limits.enter_at(&caller, &bounds, 0).unwrap().unwrap().requests.unwrap();
            assert_eq!((quota.limit, quota.remaining), (3, remaining));
        }
        let refused = limits.enter_at(&caller, &bounds, 5 * SECOND).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(15));
        let quota = Quota { limit: 3, remaining: 0, reset: Duration::from_secs(55) };
        assert_eq!(refused.allowance, Allowance { requests: Some(quota), tokens: None });
        assert!(limits.enter_at(&caller, &bounds, 20 * SECOND).is_ok());
        assert_eq!(limits.enter_at(&caller, &none(), 0), Ok(None));
    }

    #[test]
    fn tokens_that_were_not_used_come_back() {
        let (limits, caller) = (Limits::new(), caller());
        let tokens = Rates { tokens_per_minute: NonZeroU32::new(1000), ..Rates::default() };
        let bounds = Bounds { project: tokens, ..none() };
        let left = |taken: Result<Option<Allowance>, TooFast>| taken.unwrap().unwrap().tokens.unwrap().remaining;
        assert_eq!(left(limits.take_tokens_at(&caller, &bounds, 900, 0)), 100);
        assert!(limits.take_tokens_at(&caller, &bounds, 200, 0).is_err());
        limits.correct_tokens(&caller, 900, 50);
        assert_eq!(left(limits.take_tokens_at(&caller, &bounds, 200, 0)), 750);
    }

    #[test]
    fn who_is_idle_is_forgotten() {
        let limits = Limits::new();
        for _ in 0..10_000 {
            let caller = caller();
            limits.enter_at(&caller, &Bounds { user: requests(60), ..none() }, 0).unwrap();
            limits.leave(&caller);
        }
        limits.enter_at(&caller(), &none(), 61 * SECOND).unwrap();
        limits.buckets.lock().unwrap().tidy_at = 0;
        limits.enter_at(&caller(), &none(), 61 * SECOND).unwrap();
        // The key's id was the same all the time.
        assert_eq!(limits.buckets.lock().unwrap().of.len(), 5);
    }
}
