//! How often one address may try. Kept in memory: a restart forgives, and a restart is not an attacker's to have.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::edge::peer::counted;

/// From this many addresses on, those whose time has passed are forgotten at each attempt.
const TIDY_AT: usize = 4096;
/// With this many addresses within their time, a new one is refused: better nobody pairs than anybody guesses.
const MOST: usize = 65_536;

/// So many attempts in any span of time.
pub(super) struct Budget {
    limit: usize,
    window: Duration,
    spent: Mutex<HashMap<IpAddr, VecDeque<Instant>>>,
}

impl Budget {
    pub(super) fn new(limit: usize, window: Duration) -> Self {
        Self { limit, window, spent: Mutex::default() }
    }

    /// Counts an attempt, or says how long to wait.
    pub(super) fn spend(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let past = |at: &Instant| now.duration_since(*at) >= self.window;
        if spent.len() >= TIDY_AT {
            spent.retain(|_, times| times.back().is_some_and(|at| !past(at)));
        }
        let address = counted(address);
        if spent.len() >= MOST && !spent.contains_key(&address) {
            return Err(self.window);
        }
        let times = spent.entry(address).or_default();
        while times.front().is_some_and(past) {
            times.pop_front();
        }
        match times.front() {
            Some(first) if times.len() >= self.limit => Err(self.window - now.duration_since(*first)),
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

/// So many failures, then a pause; a pause without a failure forgets them.
pub(super) struct Lockout {
    limit: usize,
    pause: Duration,
    failures: Mutex<HashMap<IpAddr, (usize, Instant)>>,
}

impl Lockout {
    pub(super) fn new(limit: usize, pause: Duration) -> Self {
        Self { limit, pause, failures: Mutex::default() }
    }

    /// How long this address must still wait; `None` when it may try.
    pub(super) fn locked(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((count, last)) = failures.get(&counted(address)) else {
            return (failures.len() >= MOST).then_some(self.pause);
        };
        (*count >= self.limit).then(|| self.pause.saturating_sub(now.duration_since(*last))).filter(|wait| !wait.is_zero())
    }

    /// Counts a failure.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let past = |at: Instant| now.duration_since(at) >= self.pause;
        if failures.len() >= TIDY_AT {
            failures.retain(|_, (_, last)| !past(*last));
        }
        let (count, last) = failures.entry(counted(address)).or_insert((0, now));
        *count = if past(*last) { 1 } else { *count + 1 };
        *last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_budget_slides() {
        let budget = Budget::new(2, 10 * SECOND);
        let (start, here) = (Instant::now(), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(budget.spend(here, start), Ok(()));
        assert_eq!(budget.spend(here, start + SECOND), Ok(()));
        assert_eq!(budget.spend(here, start + 2 * SECOND), Err(8 * SECOND));
        assert_eq!(budget.spend(IpAddr::from([192, 0, 2, 2]), start + 2 * SECOND), Ok(()));
        assert_eq!(budget.spend(here, start + 10 * SECOND), Ok(()));
        assert_eq!(budget.spend(here, start + 10 * SECOND), Err(SECOND));
    }

    #[test]
    fn a_lockout_ends_and_forgets() {
        let lockout = Lockout::new(2, 10 * SECOND);
        let (start, here) = (Instant::now(), IpAddr::from([192, 0, 2, 1]));
        lockout.failed(here, start);
        assert_eq!(lockout.locked(here, start), None);
        lockout.failed(here, start + SECOND);
        assert_eq!(lockout.locked(here, start + 3 * SECOND), Some(8 * SECOND));
        assert_eq!(lockout.locked(IpAddr::from([192, 0, 2, 2]), start + 3 * SECOND), None);
        assert_eq!(lockout.locked(here, start + 11 * SECOND), None);
        lockout.failed(here, start + 12 * SECOND);
        assert_eq!(lockout.locked(here, start + 12 * SECOND), None);
    }
}
