//! When to dial again. Pure: randomness and the time that a link lived come in as values, a wait goes out.
//!
//! Full jitter, so that ten thousand bridges whose Lab restarted do not come back in step. The counter survives short links, so
//! that a link which is taken and dropped again and again is not dialled ever faster.

use std::time::Duration;

/// How long to leave a Lab alone that refused this device: long enough to be no burden, short enough that a refusal which was a
/// mistake heals by itself. It does not count as a failure: a refusal says nothing of the network.
pub const AFTER_REFUSAL: Duration = Duration::from_secs(15 * 60);

/// Ceiling of the first wait; it doubles with every failure.
const BASE: Duration = Duration::from_millis(500);
/// The ceiling never rises above this.
const LONGEST: Duration = Duration::from_secs(60);
/// The ceiling while a caller waits for the rest of an answer: the Lab holds the caller for a minute, not for ever.
const LONGEST_FOR_A_CALLER: Duration = Duration::from_secs(1);
/// Ceiling of the first wait after a link that had lived for [`LIVED`].
const QUICK: Duration = Duration::from_millis(200);
/// A link that lived this long was cut by an accident, not refused by something that would cut it again at once.
const LIVED: Duration = Duration::from_secs(30);
/// Doublings after which the ceiling is [`LONGEST`] anyway.
const DOUBLINGS: u32 = 7;

/// Who would notice that there is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Nobody.
    Nobody,
    /// A caller whose answer was cut and goes on when the link is back.
    Caller,
}

/// The waits of one streak of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    failures: u32,
    next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Next {
    /// A wait by the number of failures.
    #[default]
    Counted,
    /// One wait of at most [`QUICK`].
    Quick,
}

impl Backoff {
    /// No failure so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many waits were given since the counter last fell to zero.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// How long to wait before dialling again. `random` is uniform in `0.0..1.0`.
    pub fn next(&mut self, waiting: Waiting, random: f64) -> Duration {
        let ceiling = match std::mem::take(&mut self.next) {
            Next::Quick => QUICK,
            Next::Counted => {
                let ceiling = BASE.saturating_mul(1 << self.failures.min(DOUBLINGS)).min(LONGEST);
                match waiting {
                    Waiting::Nobody => ceiling,
                    Waiting::Caller => ceiling.min(LONGEST_FOR_A_CALLER),
                }
            }
        };
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(random.clamp(0.0, 1.0))
    }

    /// A link is over that had lived for `lived`. `random` is uniform in `0.0..1.0`: the period after which the counter falls to
    /// zero is drawn anew from 30 to 60 s, so that a middlebox which cuts at a fixed age does not reset it every time.
    pub fn after_link(&mut self, lived: Duration, random: f64) {
        if lived >= LIVED {
            self.next = Next::Quick;
        }
        if lived >= LIVED + LIVED.mul_f64(random.clamp(0.0, 1.0)) {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_ceiling_doubles_up_to_a_minute_and_to_a_second_for_a_caller() {
        let ceilings = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000];
        for (waiting, longest) in [(Waiting::Nobody, 60_000), (Waiting::Caller, 1_000)] {
            for random in [0.0, 0.25, 1.0] {
                let mut backoff = Backoff::new();
                for ceiling in ceilings {
                    let ceiling: u64 = ceiling.min(longest);
                    assert_eq!(backoff.next(waiting, random), ms(ceiling).mul_f64(random), "{waiting:?} {random} {ceiling}");
                }
            }
        }
    }

    #[test]
    fn it_never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX, next: Next::Counted };
        assert_eq!(backoff.next(Waiting::Nobody, 1.0), ms(60_000));
        assert_eq!(backoff.next(Waiting::Nobody, -1.0), ms(0));
        assert_eq!(backoff.next(Waiting::Nobody, 7.0), ms(60_000));
        assert_eq!(backoff.failures(), u32::MAX);
    }

    #[test]
    fn a_link_that_lived_is_dialled_again_at_once_and_then_as_before() {
        // (seconds lived, random, ceiling of the first wait, of the second)
        for (lived, random, first, second) in [
            (0, 0.0, 4_000, 8_000),
            (29, 0.0, 4_000, 8_000),
            (30, 0.0, 200, 1_000),
            (30, 0.5, 200, 8_000),
            (44, 0.5, 200, 8_000),
            (45, 0.5, 200, 1_000),
            (59, 1.0, 200, 8_000),
            (60, 1.0, 200, 1_000),
        ] {
            let mut backoff = Backoff { failures: 3, next: Next::Counted };
            backoff.after_link(Duration::from_secs(lived), random);
            let waits = (backoff.next(Waiting::Nobody, 1.0), backoff.next(Waiting::Nobody, 1.0));
            assert_eq!(waits, (ms(first), ms(second)), "{lived} s, {random}");
        }
    }
}
