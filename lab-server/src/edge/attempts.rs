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
pub(crate) struct Budget {
    limit: usize,
    window: Duration,
    spent: Mutex<HashMap<IpAddr, VecDeque<Instant>>>,
}

impl Budget {
    pub(crate) fn new(limit: usize, window: Duration) -> Self {
        Self { limit, window, spent: Mutex::default() }
    }

    /// Counts an attempt, or says how long to wait.
    pub(crate) fn spend(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
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
pub(crate) struct Lockout {
    limit: usize,
    pause: Duration,
    failures: Mutex<HashMap<IpAddr, (usize, Instant)>>,
}

impl Lockout {
    pub(crate) fn new(limit: usize, pause: Duration) -> Self {
        Self { limit, pause, failures: Mutex::default() }
    }

    /// Counts a try as a failure until it is forgiven, or says how long this address must still wait. Counting comes first, so that
    /// a thousand tries at once are a thousand tries.
    pub(crate) fn try_once(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let past = |at: Instant| now.duration_since(at) >= self.pause;
        if failures.len() >= TIDY_AT {
            failures.retain(|_, (_, last)| !past(*last));
        }
        let address = counted(address);
        if failures.len() >= MOST && !failures.contains_key(&address) {
            return Err(self.pause);
        }
        let (count, last) = failures.entry(address).or_insert((0, now));
        if past(*last) {
            *count = 0;
        }
        if *count >= self.limit {
            return Err(self.pause.saturating_sub(now.duration_since(*last)));
        }
        (*count, *last) = (*count + 1, now);
        Ok(())
    }

    /// The try was none.
    pub(crate) fn forgive(&self, address: IpAddr) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((count, _)) = failures.get_mut(&counted(address)) {
            *count = count.saturating_sub(1);
        }
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
        assert_eq!(lockout.try_once(here, start), Ok(()));
        lockout.forgive(here);
        assert_eq!(lockout.try_once(here, start), Ok(()));
        assert_eq!(lockout.try_once(here, start + SECOND), Ok(()));
        assert_eq!(lockout.try_once(here, start + 3 * SECOND), Err(8 * SECOND));
        assert_eq!(lockout.try_once(IpAddr::from([192, 0, 2, 2]), start + 3 * SECOND), Ok(()));
        assert_eq!(lockout.try_once(here, start + 11 * SECOND), Ok(()));
        assert_eq!(lockout.try_once(here, start + 12 * SECOND), Ok(()));
        assert_eq!(lockout.try_once(here, start + 12 * SECOND), Err(10 * SECOND));
    }

    #[test]
    fn too_many_addresses_shut_the_door_for_one_pause_only() {
        let lockout = Lockout::new(2, 10 * SECOND);
        let (start, new) = (Instant::now(), IpAddr::from([192, 0, 2, 1]));
        for number in 0..u32::try_from(MOST).unwrap() {
            assert_eq!(lockout.try_once(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), start), Ok(()));
        }
        assert_eq!(lockout.try_once(new, start + SECOND), Err(10 * SECOND));
        assert_eq!(lockout.try_once(new, start + 10 * SECOND), Ok(()));
    }
}
