//! Who is at the other end of a connection, and how many of them there are.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

/// The other end's address; an extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The address as limits count it: whoever has one IPv6 address has all of its /64, and a mapped IPv4 address is that address.
#[must_use]
pub fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// Places for connections, in all and for each address.
#[derive(Clone)]
pub(super) struct Places {
    taken: Arc<Mutex<Taken>>,
    limit: usize,
    limit_per_address: usize,
}

#[derive(Default)]
struct Taken {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Places {
    pub(super) fn new(limit: usize, limit_per_address: usize) -> Self {
        Self { taken: Arc::default(), limit, limit_per_address }
    }

    /// Takes a place; `None` when there is none left. This machine's own programs share the total only.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let address = if address.to_canonical().is_loopback() { None } else { Some(counted(address)) };
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.limit {
            return None;
        }
        if let Some(address) = address {
            let here = taken.by_address.entry(address).or_default();
            if *here >= self.limit_per_address {
                return None;
            }
            *here += 1;
        }
        taken.total += 1;
        Some(Place { taken: self.taken.clone(), address })
    }
}

/// A connection's place; free again when dropped.
pub(super) struct Place {
    taken: Arc<Mutex<Taken>>,
    address: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        let Some(address) = self.address else { return };
        if let Some(here) = taken.by_address.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_address_and_come_back() {
        let places = Places::new(4, 2);
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = places.take(ip("2001:db8::1")).unwrap();
        let _second = places.take(ip("2001:db8::2")).unwrap();
        assert!(places.take(ip("2001:db8::3")).is_none());
        let _other = places.take(ip("2001:db8:0:1::1")).unwrap();
        drop(first);
        let _again = places.take(ip("2001:db8::3")).unwrap();
        let local = places.take(ip("127.0.0.1")).unwrap();
        assert!(places.take(ip("127.0.0.1")).is_none());
        drop(local);
        assert!(places.take(ip("::ffff:127.0.0.1")).is_some());
        assert_eq!(counted(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
