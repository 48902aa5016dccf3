//! The arithmetic of rates: the generic cell rate algorithm, in whole nanoseconds.
//!
//! A limit of `n` a minute lets one in every `60 s / n`, and up to `n` at once after a pause. All that is kept is one time, the
//! theoretical arrival time: when the bucket is full again. Pure, so that it can be computed where the numbers are kept, and a clock is
//! an argument. Times are nanoseconds since a start that the caller chooses.

use std::{num::NonZeroU32, time::Duration};

/// What a minute holds.
const MINUTE_NS: u64 = 60_000_000_000;

/// A rate: so many a minute, and as many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate(NonZeroU32);

/// What a limit says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is enough: this is the theoretical arrival time from now on.
    Taken(u64),
    /// There is not, and will not be before so long.
    Wait(Duration),
}

impl Rate {
    pub(super) fn per_minute(most: NonZeroU32) -> Self {
        Self(most)
    }

    /// How much there is at most.
    pub(super) fn limit(self) -> u64 {
        u64::from(self.0.get())
    }

    /// Takes `cost` from a bucket whose theoretical arrival time is `tat`. More than the bucket ever holds counts as all that it
    /// holds: it goes through when nothing else did for a minute.
    pub(super) fn take(self, tat: u64, now: u64, cost: u64) -> Verdict {
        let new = tat.max(now).saturating_add(self.time_of(cost.min(self.limit())));
        match new.saturating_sub(now).checked_sub(MINUTE_NS) {
            None | Some(0) => Verdict::Taken(new),
            Some(wait) => Verdict::Wait(Duration::from_nanos(wait)),
        }
    }

    /// Sets right what was taken once it is known what was used: `taken` becomes `used`, which may be more.
    pub(super) fn correct(self, tat: u64, taken: u64, used: u64) -> u64 {
        tat.saturating_sub(self.time_of(taken.min(self.limit()))).saturating_add(self.time_of(used))
    }

    /// What is left now.
    pub(super) fn remaining(self, tat: u64, now: u64) -> u64 {
        let free = MINUTE_NS.saturating_sub(tat.saturating_sub(now));
        let left = u128::from(free) * u128::from(self.limit()) / u128::from(MINUTE_NS);
        u64::try_from(left).unwrap_or(u64::MAX)
    }

    /// When all of it will be there again.
    pub(super) fn reset(tat: u64, now: u64) -> Duration {
        Duration::from_nanos(tat.saturating_sub(now))
    }

    /// How long the rate needs for this many. Rounded down: as many as the limit then never need more than the minute.
    fn time_of(self, count: u64) -> u64 {
        let time = u128::from(count) * u128::from(MINUTE_NS) / u128::from(self.limit());
        u64::try_from(time).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const START: u64 = 1000 * SECOND;

    fn rate(most: u32) -> Rate {
        Rate::per_minute(NonZeroU32::new(most).unwrap())
    }

    #[test]
    fn sixty_a_minute_are_sixty_at_once_and_then_one_a_second() {
        let rate = rate(60);
        let mut tat = 0;
        for n in 0..60 {
            assert_eq!(rate.remaining(tat, START), 60 - n);
            let Verdict::Taken(new) = rate.take(tat, START, 1) else { panic!("request {n} was refused") };
            tat = new;
        }
        assert_eq!((rate.remaining(tat, START), Rate::reset(tat, START)), (0, Duration::from_secs(60)));
        assert_eq!(rate.take(tat, START, 1), Verdict::Wait(Duration::from_secs(1)));
        assert_eq!(rate.take(tat, START + SECOND - 1, 1), Verdict::Wait(Duration::from_nanos(1)));
        assert_eq!(rate.take(tat, START + SECOND, 1), Verdict::Taken(tat + SECOND));
        assert_eq!(rate.remaining(tat, START + 30 * SECOND), 30);
        assert_eq!(rate.remaining(tat, START + 600 * SECOND), 60);
        assert_eq!(rate.take(tat, START + 600 * SECOND, 60), Verdict::Taken(START + 660 * SECOND));
    }

    #[test]
    fn tokens_are_set_right_when_they_are_known() {
        let rate = rate(60_000);
        let Verdict::Taken(tat) = rate.take(0, START, 50_000) else { panic!("refused") };
        assert_eq!(rate.remaining(tat, START), 10_000);
        assert_eq!(rate.take(tat, START, 30_000), Verdict::Wait(Duration::from_secs(20)));
        let tat = rate.correct(tat, 50_000, 1_000);
        assert_eq!(rate.remaining(tat, START), 59_000);
        // More than was set aside is paid back with time.
        let tat = rate.correct(tat, 0, 90_000);
        assert_eq!((rate.remaining(tat, START), Rate::reset(tat, START)), (0, Duration::from_secs(91)));
        // What can never fit goes through alone.
        assert_eq!(rate.take(0, START, 1_000_000), Verdict::Taken(START + 60 * SECOND));
        assert_eq!(rate.take(START + 1, START, 1_000_000), Verdict::Wait(Duration::from_nanos(1)));
        assert_eq!(rate.correct(START + 60 * SECOND, 1_000_000, 0), START);
    }

    proptest! {
        /// Whatever is asked, no minute lets more through than what the bucket holds and what came in since.
        #[test]
        fn no_window_lets_more_through_than_it_may(
            most in 1_u32..100_000,
            asks in prop::collection::vec((0_u64..5_000_000_000, 1_u64..5_000), 1..200),
        ) {
            let rate = rate(most);
            let (mut tat, mut now, mut through) = (0, START, 0_u64);
            for (pause, cost) in asks {
                now += pause;
                match rate.take(tat, now, cost) {
                    Verdict::Taken(new) => {
                        tat = new;
                        through += cost.min(rate.limit());
                    }
                    Verdict::Wait(wait) => {
                        prop_assert!(!wait.is_zero() && wait <= Duration::from_secs(60));
                        let later = now + u64::try_from(wait.as_nanos()).unwrap();
                        prop_assert!(matches!(rate.take(tat, later, cost), Verdict::Taken(_)));
                    }
                }
                // Rounding down gives away less than a nanosecond for each request.
                let most = u128::from(rate.limit()) * u128::from(MINUTE_NS + now - START + 200) / u128::from(MINUTE_NS) + 1;
                prop_assert!(u128::from(through) <= most);
                prop_assert!(rate.remaining(tat, now) <= rate.limit());
            }
        }
    }
}
