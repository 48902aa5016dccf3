//! Notices that the machine slept or moved to another network, so that a dead link is dropped at once instead of after a timeout.
//!
//! Nothing is sent: a UDP socket that is "connected" tells which of our addresses the system would use towards the Lab, and a timer
//! that fires much too late tells that the machine was asleep.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant, SystemTime},
};

/// How often to look. A change is acted on within this and a dial, which keeps the promise of 5 s.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A timer this late means sleep (or a stopped process, or a clock that was set): short of it lies a busy machine.
const SLEPT: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NetworkChange {
    /// The machine was asleep, the process was stopped, or the clock was set.
    Woke,
    /// The address towards the Lab is another one.
    Moved,
}

/// Watches the way to one peer.
pub(crate) struct Network {
    peer: Option<SocketAddr>,
    source: Option<IpAddr>,
    looked: (Instant, SystemTime),
}

impl Network {
    /// The way to `peer`, or only the clock when none is known yet.
    pub(crate) fn towards(peer: Option<SocketAddr>) -> Self {
        Self { peer, source: peer.and_then(source_towards), looked: (Instant::now(), SystemTime::now()) }
    }

    /// Nobody has looked for a while, for a good reason: what is late counts from now.
    pub(crate) fn look_from_now(&mut self) {
        self.looked = (Instant::now(), SystemTime::now());
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&mut self) -> NetworkChange {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = (Instant::now(), SystemTime::now());
            let before = std::mem::replace(&mut self.looked, now);
            if is_late(now.0.duration_since(before.0), now.1.duration_since(before.1)) {
                return NetworkChange::Woke;
            }
            let source = self.peer.and_then(source_towards);
            // No way at all is not a place to go: what counts is the next address.
            if source.is_some() && source != self.source {
                self.source = source;
                return NetworkChange::Moved;
            }
        }
    }
}

/// Suspend stops one clock and not the other, a stopped process neither, a set clock goes back or forth.
fn is_late(monotonic: Duration, wall: Result<Duration, std::time::SystemTimeError>) -> bool {
    let limit = LOOK_EVERY + SLEPT;
    monotonic > limit || wall.map_or_else(|back| back.duration() > SLEPT, |forth| forth > limit)
}

fn source_towards(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_and_set_clocks_are_seen_and_a_busy_machine_is_not() {
        let s = Duration::from_secs;
        let epoch = SystemTime::UNIX_EPOCH;
        let wall = |seconds| (epoch + s(seconds)).duration_since(epoch);
        assert!(!is_late(s(2), wall(2)));
        assert!(!is_late(s(9), wall(9)));
        assert!(is_late(s(60), wall(60)), "a stopped process");
        assert!(is_late(s(2), wall(3600)), "a suspended machine");
        assert!(is_late(s(2), epoch.duration_since(epoch + s(3600))), "a clock set back");
        assert!(!is_late(s(2), epoch.duration_since(epoch + s(1))), "a clock corrected");
    }

    #[test]
    fn the_way_to_loopback_is_loopback() {
        assert_eq!(source_towards(([127, 0, 0, 1], 9).into()), Some(Ipv4Addr::LOCALHOST.into()));
    }
}
