//! How fast may be asked: requests, tokens and running requests of every key, project and person.
//!
//! A request passes all of its limits or none of them. This is the one place that keeps such numbers, so that several servers can
//! share them one day by keeping them elsewhere. Who is looked up is handed the [`Buckets`] that count for them, so that a request
//! touches its own three and looks for none.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use api_proxy::{Allowance, Caller, KeyId, Quota};
use wire::{ProjectId, UserId};

use super::gcra::{Rate, Verdict};
use crate::store::Rates;

/// How long somebody waits for a running request of their own to end: nobody knows, and most take longer than this.
const WHEN_TOO_MANY_RUN: Duration = Duration::from_secs(1);
/// Entries from which idle ones are looked for; there are three for each key at most, of some 150 bytes.
const TIDY_FROM: usize = 1024;

/// The limits, and how much of each is used.
#[derive(Debug)]
pub(super) struct Limits {
    known: Mutex<Known>,
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

/// What a key, its project and its owner use. They are locked in this order by everybody, so that nobody waits for each other.
#[derive(Debug, Clone)]
pub(super) struct Buckets([Arc<Mutex<Bucket>>; 3]);

#[derive(Debug, Default)]
struct Known {
    of: HashMap<Subject, Arc<Mutex<Bucket>>>,
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
        Self { known: Mutex::default(), started: Instant::now() }
    }

    /// What counts for a caller. Keys that came in each other's place are given as one, so that replacing a key loosens no limit.
    pub(super) fn buckets(&self, caller: &Caller) -> Buckets {
        self.buckets_at(caller, self.now())
    }

    fn buckets_at(&self, caller: &Caller, now: u64) -> Buckets {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.of.len() >= known.tidy_at {
            known.of.retain(|_, bucket| Arc::strong_count(bucket) > 1 || !lock(bucket).is_idle(now));
            known.tidy_at = TIDY_FROM.max(known.of.len() * 2);
        }
        let subjects = [Subject::Key(caller.key), Subject::Project(caller.project), Subject::User(caller.user)];
        Buckets(subjects.map(|subject| Arc::clone(known.of.entry(subject).or_default())))
    }

    /// Lets a request in, which counts as one that runs until [`Buckets::leave`], and says what the limits leave.
    pub(super) fn enter(&self, buckets: &Buckets, bounds: &Bounds) -> Result<Option<Allowance>, TooFast> {
        buckets.enter(bounds, self.now())
    }

    /// Takes the most tokens that a request can use.
    pub(super) fn take_tokens(&self, buckets: &Buckets, bounds: &Bounds, tokens: u64) -> Result<Option<Allowance>, TooFast> {
        buckets.take_tokens(bounds, tokens, self.now())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Buckets {
    /// Gives back tokens that were taken for a request that does not go on.
    pub(super) fn give_back_tokens(&self, taken: u64) {
        for mut bucket in self.lock() {
            bucket.correct_tokens(taken, 0);
        }
    }

    /// A request that was let in has ended: of the tokens that were taken so many were used.
    pub(super) fn leave(&self, taken: u64, used: u64) {
        for mut bucket in self.lock() {
            bucket.running = bucket.running.saturating_sub(1);
            bucket.correct_tokens(taken, used);
        }
    }

    fn enter(&self, bounds: &Bounds, now: u64) -> Result<Option<Allowance>, TooFast> {
        self.decide(bounds, now, |bucket, rates| {
            let full = rates.concurrent.is_some_and(|most| bucket.running >= most.get());
            bucket.running = bucket.running.saturating_add(1);
            let verdict = rates.requests_per_minute.map(|most| Rate::per_minute(most).take(bucket.requests, now, 1));
            full.then_some(WHEN_TOO_MANY_RUN).max(apply(verdict, &mut bucket.requests))
        })
    }

    fn take_tokens(&self, bounds: &Bounds, tokens: u64, now: u64) -> Result<Option<Allowance>, TooFast> {
        self.decide(bounds, now, |bucket, rates| {
            let verdict = rates.tokens_per_minute.map(|most| Rate::per_minute(most).take(bucket.tokens, now, tokens));
            bucket.tokens_per_minute = rates.tokens_per_minute;
            apply(verdict, &mut bucket.tokens)
        })
    }

    /// Takes from all of them, if none of them says how long to wait.
    fn decide(
        &self,
        bounds: &Bounds,
        now: u64,
        take: impl Fn(&mut Bucket, &Rates) -> Option<Duration>,
    ) -> Result<Option<Allowance>, TooFast> {
        let mut held = self.lock();
        let before = held.each_ref().map(|bucket| **bucket);
        let mut after = before;
        let wait = after.iter_mut().zip(bounds.all()).map(|(bucket, rates)| take(bucket, rates)).fold(None, Option::max);
        if let Some(retry_after) = wait {
            return Err(TooFast { retry_after, allowance: allowance(&before, bounds, now).unwrap_or_default() });
        }
        for (bucket, after) in held.iter_mut().zip(after) {
            **bucket = after;
        }
        Ok(allowance(&after, bounds, now))
    }

    fn lock(&self) -> [MutexGuard<'_, Bucket>; 3] {
        self.0.each_ref().map(|bucket| lock(bucket))
    }
}

impl Bucket {
    fn correct_tokens(&mut self, taken: u64, used: u64) {
        if taken != used
            && let Some(most) = self.tokens_per_minute
        {
            self.tokens = Rate::per_minute(most).correct(self.tokens, taken, used);
        }
    }

    fn is_idle(&self, now: u64) -> bool {
        self.running == 0 && self.requests <= now && self.tokens <= now
    }
}

fn lock(bucket: &Mutex<Bucket>) -> MutexGuard<'_, Bucket> {
    bucket.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(limits.buckets(&caller).enter(&bounds, 0), Ok(Some(left(59, 1000))));
        // The second one is refused by the project, and costs the key nothing.
        let refused = TooFast { retry_after: WHEN_TOO_MANY_RUN, allowance: left(59, 1000) };
        assert_eq!(limits.buckets(&caller).enter(&bounds, 0), Err(refused));
        limits.buckets(&caller).leave(0, 0);
        assert_eq!(limits.buckets(&caller).enter(&bounds, 0), Ok(Some(left(58, 2000))));
        // Another key of the same project is held up likewise, another project is not.
        let other_key = Caller { key: "another67890".parse().unwrap(), ..caller };
        assert!(limits.buckets(&other_key).enter(&bounds, 0).is_err());
        assert!(limits.buckets(&Caller { project: ProjectId::random(), ..other_key }).enter(&bounds, 0).is_ok());
    }

    #[test]
    fn the_tightest_limit_is_told() {
        let (limits, caller) = (Limits::new(), caller());
        let bounds = Bounds { user: requests(3), ..none() };
        for remaining in [2, 1, 0] {
            let quota = limits.buckets(&caller).enter(&bounds, 0).unwrap().unwrap().requests.unwrap();
            assert_eq!((quota.limit, quota.remaining), (3, remaining));
        }
        let refused = limits.buckets(&caller).enter(&bounds, 5 * SECOND).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(15));
        let quota = Quota { limit: 3, remaining: 0, reset: Duration::from_secs(55) };
        assert_eq!(refused.allowance, Allowance { requests: Some(quota), tokens: None });
        assert!(limits.buckets(&caller).enter(&bounds, 20 * SECOND).is_ok());
        assert_eq!(limits.buckets(&caller).enter(&none(), 0), Ok(None));
    }

    #[test]
    fn tokens_that_were_not_used_come_back() {
        let buckets = Limits::new().buckets(&caller());
        let tokens = Rates { tokens_per_minute: NonZeroU32::new(1000), ..Rates::default() };
        let bounds = Bounds { project: tokens, ..none() };
        let left = |taken: Result<Option<Allowance>, TooFast>| taken.unwrap().unwrap().tokens.unwrap().remaining;
        assert_eq!(left(buckets.take_tokens(&bounds, 900, 0)), 100);
        assert!(buckets.take_tokens(&bounds, 200, 0).is_err());
        buckets.leave(900, 50);
        assert_eq!(left(buckets.take_tokens(&bounds, 200, 0)), 750);
    }

    #[test]
    fn who_is_idle_is_forgotten() {
        let limits = Limits::new();
        for _ in 0..10_000 {
            let buckets = limits.buckets_at(&caller(), 0);
            buckets.enter(&Bounds { user: requests(60), ..none() }, 0).unwrap();
            buckets.leave(0, 0);
        }
        let known = || {
            limits.known.lock().unwrap().tidy_at = 0;
            limits.buckets_at(&caller(), 61 * SECOND);
            limits.known.lock().unwrap().of.len()
        };
        let remembered = limits.buckets_at(&caller(), 61 * SECOND);
        // The key's id was the same all the time.
        assert_eq!(known(), 5);
        remembered.enter(&none(), 61 * SECOND).unwrap();
        drop(remembered);
        assert_eq!(known(), 5);
        limits.buckets_at(&caller(), 61 * SECOND);
        for bucket in limits.known.lock().unwrap().of.values() {
            lock(bucket).running = 0;
        }
        assert_eq!(known(), 3);
    }
}
