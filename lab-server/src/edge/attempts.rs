//! How often one address may try. Kept in memory: a restart forgives, and a restart is not an attacker's to have.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::edge::peer::counted;

/// Of so many networks the attempts are known. One more takes the place of the one that has been quiet for longest: nobody who fills
/// the table keeps anybody else out.
const MOST: usize = 65_536;
/// A site has 65,536 networks of IPv6; all of them together may do what so many of them may.
const NETWORKS_OF_A_SITE: usize = 16;

/// So many attempts in any span of time.
pub(crate) struct Budget {
    limit: usize,
    window: Duration,
    spent: Mutex<Table<VecDeque<Instant>>>,
}

impl Budget {
    pub(crate) fn new(limit: usize, window: Duration) -> Self {
        Self { limit, window, spent: Mutex::default() }
    }

    /// Counts an attempt, or says how long to wait.
    pub(crate) fn spend(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let past = |at: Instant| now.duration_since(at) >= self.window;
        spent.forget(past);
        let counts = counts(address);
        for (network, share) in counts.clone() {
            let Some(times) = spent.get(network) else { continue };
            while times.front().is_some_and(|at| past(*at)) {
                times.pop_front();
            }
            if let Some(first) = times.front().filter(|_| times.len() >= self.limit * share) {
                return Err(self.window - now.duration_since(*first));
            }
        }
        for (network, _) in counts {
            spent.touch(network, now).push_back(now);
        }
        Ok(())
    }
}

/// So many failures, then a pause; a pause without a failure forgets them.
pub(crate) struct Lockout {
    limit: usize,
    pause: Duration,
    failures: Mutex<Table<usize>>,
}

impl Lockout {
    pub(crate) fn new(limit: usize, pause: Duration) -> Self {
        Self { limit, pause, failures: Mutex::default() }
    }

    /// Counts a try as a failure until it is forgiven, or says how long this address must still wait. Counting comes first, so that
    /// a thousand tries at once are a thousand tries.
    pub(crate) fn try_once(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.forget(|at| now.duration_since(at) >= self.pause);
        let counts = counts(address);
        for (network, share) in counts.clone() {
            if failures.get(network).is_some_and(|count| *count >= self.limit * share) {
                let last = failures.touched(network).unwrap_or(now);
                return Err(self.pause.saturating_sub(now.duration_since(last)));
            }
        }
        for (network, _) in counts {
            *failures.touch(network, now) += 1;
        }
        Ok(())
    }

    /// The try was none. An address without failures is not remembered.
    pub(crate) fn forgive(&self, address: IpAddr) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        for (network, _) in counts(address) {
            let Some(count) = failures.get(network) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                failures.remove(network);
            }
        }
    }
}

/// What an address is counted as, and how many times the limit of one address that may do.
fn counts(address: IpAddr) -> impl Iterator<Item = (Network, usize)> + Clone {
    let network = counted(address);
    let site = match network {
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            Some((Network { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), is_site: true }, NETWORKS_OF_A_SITE))
        }
        IpAddr::V4(_) => None,
    };
    std::iter::once((Network { address: network, is_site: false }, 1)).chain(site)
}

/// An IPv4 address, a /64 of IPv6, or the /48 that it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network {
    address: IpAddr,
    is_site: bool,
}

/// What is known of networks, in the order in which it was last added to.
struct Table<T> {
    entries: HashMap<Network, (u64, T)>,
    order: BTreeMap<u64, (Network, Instant)>,
    next: u64,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }
}

impl<T: Default> Table<T> {
    fn get(&mut self, network: Network) -> Option<&mut T> {
        self.entries.get_mut(&network).map(|(_, known)| known)
    }

    /// When it was last added to.
    fn touched(&self, network: Network) -> Option<Instant> {
        let (number, _) = self.entries.get(&network)?;
        self.order.get(number).map(|(_, at)| *at)
    }

    /// What is to be added to now.
    fn touch(&mut self, network: Network, now: Instant) -> &mut T {
        if self.entries.len() >= MOST
            && !self.entries.contains_key(&network)
            && let Some((_, (quietest, _))) = self.order.pop_first()
        {
            self.entries.remove(&quietest);
        }
        self.next += 1;
        let (number, known) = self.entries.entry(network).or_default();
        self.order.remove(number);
        *number = self.next;
        self.order.insert(self.next, (network, now));
        known
    }

    fn remove(&mut self, network: Network) {
        if let Some((number, _)) = self.entries.remove(&network) {
            self.order.remove(&number);
        }
    }

    /// Forgets what was last added to too long ago.
    fn forget(&mut self, past: impl Fn(Instant) -> bool) {
        while let Some(entry) = self.order.first_entry()
            && past(entry.get().1)
        {
            let (network, _) = entry.remove();
            self.entries.remove(&network);
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
    fn who_fills_the_table_shuts_nobody_out() {
        let lockout = Lockout::new(2, 10 * SECOND);
        let (start, here) = (Instant::now(), IpAddr::from([192, 0, 2, 1]));
        assert_eq!(lockout.try_once(here, start), Ok(()));
        for number in 0..u32::try_from(MOST).unwrap() {
            assert_eq!(lockout.try_once(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), start), Ok(()));
        }
        assert_eq!(lockout.failures.lock().unwrap().entries.len(), MOST);
        // The quietest was forgotten, those after it are known.
        assert_eq!(lockout.try_once(here, start + SECOND), Ok(()));
        assert_eq!(lockout.try_once(here, start + SECOND), Ok(()));
        assert_eq!(lockout.try_once(here, start + SECOND), Err(10 * SECOND));
        let table = lockout.failures.lock().unwrap();
        assert_eq!((table.entries.len(), table.order.len()), (MOST, MOST));
        drop(table);
        assert_eq!(lockout.try_once(here, start + 11 * SECOND), Ok(()));
        assert_eq!(lockout.failures.lock().unwrap().entries.len(), 1, "what is past is forgotten");
    }

    #[test]
    fn what_was_forgiven_leaves_nothing() {
        let lockout = Lockout::new(2, 10 * SECOND);
        for address in [IpAddr::from([192, 0, 2, 1]), "2001:db8::1".parse().unwrap()] {
            lockout.try_once(address, Instant::now()).unwrap();
            lockout.forgive(address);
        }
        let table = lockout.failures.lock().unwrap();
        assert_eq!((table.entries.len(), table.order.len()), (0, 0));
    }

    #[test]
    fn a_site_of_many_networks_is_one_that_tries_often() {
        let (lockout, budget) = (Lockout::new(2, 10 * SECOND), Budget::new(2, 10 * SECOND));
        let start = Instant::now();
        let network = |site: u16, number: u16| IpAddr::from([0x2001, 0xdb8, site, number, 0, 0, 0, 1]);
        for number in 0..16 {
            for _ in 0..2 {
                assert_eq!(
                    (lockout.try_once(network(1, number), start), budget.spend(network(1, number), start)),
                    (Ok(()), Ok(()))
                );
            }
        }
        let wait = Err(10 * SECOND);
        assert_eq!((lockout.try_once(network(1, 99), start), budget.spend(network(1, 99), start)), (wait, wait));
        assert_eq!((lockout.try_once(network(2, 99), start), budget.spend(network(2, 99), start)), (Ok(()), Ok(())));
        // One network alone is stopped at its own limit.
        for _ in 0..2 {
            assert_eq!((lockout.try_once(network(3, 0), start), budget.spend(network(3, 0), start)), (Ok(()), Ok(())));
        }
        assert_eq!((lockout.try_once(network(3, 0), start), budget.spend(network(3, 0), start)), (wait, wait));
    }
}
