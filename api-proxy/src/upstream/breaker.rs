//! How a channel is doing, as a state that only its own news and the clock move.
//!
//! A channel that fails again and again is left alone for a while, so that requests do not wait for it in turn; then one request,
//! and no more, finds out whether it is back. All of it is arithmetic on instants that are handed in.

use std::time::Duration;

use tokio::time::Instant;

use super::ChannelState;

/// So many failures in a row are no accident.
const FAILURES: u32 = 5;
/// How long a channel is left alone the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// And at most, after doubling: an operator who mended something sees it working within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A refused secret is tried again after this long: it may have been paid for or replaced at the provider.
const KEY_PAUSE: Duration = Duration::from_secs(60);
/// A request that finds out whether a channel is back may itself never end, or be given up by its caller.
const PROBE_LEASE: Duration = Duration::from_secs(10);
/// Bounds of what a provider can ask for with `retry-after`.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How a channel is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// It is asked as usual; so many requests in a row have failed.
    Ready { failures: u32 },
    /// It has too many requests until then.
    Resting { until: Instant },
    /// It is left alone until then.
    Shut { why: Why, until: Instant, pause: Duration },
    /// One request is finding out whether it is back; the next may do so then.
    Probing { why: Why, until: Instant, pause: Duration },
}

/// Why a channel is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It failed.
    Failing,
    /// It refused its secret.
    KeyRefused,
}

/// Whether a channel may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Yes.
    Ready,
    /// When no other is ready.
    Resting,
    /// Not for this long.
    Shut(Why, Duration),
}

/// What came of asking a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// It answered.
    Answer,
    /// It could not be reached, answered with its own failure, or with nothing that could be read.
    Failure,
    /// It has too many requests, and says when to come again.
    Busy(Duration),
    /// It refused its secret.
    KeyRefused,
}

impl Default for Condition {
    fn default() -> Self {
        Self::Ready { failures: 0 }
    }
}

impl Condition {
    /// Whether it may be asked now.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        match *self {
            Self::Resting { until } if now < until => Standing::Resting,
            Self::Shut { why, until, .. } | Self::Probing { why, until, .. } if now < until => Standing::Shut(why, until - now),
            _ => Standing::Ready,
        }
    }

    /// It is being asked now.
    pub(super) fn asked(&mut self, now: Instant) {
        if let Self::Shut { why, pause, .. } | Self::Probing { why, pause, .. } = *self {
            *self = Self::Probing { why, until: now + PROBE_LEASE, pause };
        }
    }

    /// Something came of it.
    pub(super) fn heard(&mut self, now: Instant, news: News) {
        *self = match (news, *self) {
            (News::Answer, _) => Self::default(),
            (News::Busy(rest), _) => Self::Resting { until: now + rest.clamp(REST.0, REST.1) },
            (News::KeyRefused, _) => Self::Shut { why: Why::KeyRefused, until: now + KEY_PAUSE, pause: KEY_PAUSE },
            (News::Failure, Self::Ready { failures }) if failures + 1 >= FAILURES => Self::failing(now, FIRST_PAUSE),
            (News::Failure, Self::Ready { failures }) => Self::Ready { failures: failures + 1 },
            (News::Failure, Self::Resting { until }) if now >= until => Self::Ready { failures: 1 },
            (News::Failure, Self::Probing { why: Why::Failing, pause, .. }) => Self::failing(now, (pause * 2).min(LONGEST_PAUSE)),
            (News::Failure, Self::Probing { why: Why::KeyRefused, .. }) => Self::failing(now, FIRST_PAUSE),
            // News of a request that began before: what is known already.
            (News::Failure, known @ (Self::Resting { .. } | Self::Shut { .. })) => known,
        };
    }

    /// How it is, for those who watch.
    pub(super) fn state(&self, now: Instant) -> ChannelState {
        match *self {
            Self::Resting { until } if now < until => ChannelState::Resting,
            Self::Ready { .. } | Self::Resting { .. } => ChannelState::Ready,
            Self::Shut { why: Why::Failing, .. } | Self::Probing { why: Why::Failing, .. } => ChannelState::Failing,
            Self::Shut { why: Why::KeyRefused, .. } | Self::Probing { why: Why::KeyRefused, .. } => ChannelState::KeyRefused,
        }
    }

    fn failing(now: Instant, pause: Duration) -> Self {
        Self::Shut { why: Why::Failing, until: now + pause, pause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_channel_moves_by_its_news_and_the_clock() {
        use News::{Answer, Busy, Failure, KeyRefused};
        let start = Instant::now();
        let failing = |left| Standing::Shut(Why::Failing, s(left));
        let refused = |left| Standing::Shut(Why::KeyRefused, s(left));
        // Each step: seconds since the start, what is done, and how the channel stands then.
        enum Step {
            Hear(News),
            Ask,
            Look,
        }
        use Step::{Ask, Hear, Look};
        let mut channel = Condition::default();
        for (at, step, expected) in [
            (0, Hear(Failure), Standing::Ready),
            (0, Hear(Failure), Standing::Ready),
            (0, Hear(Failure), Standing::Ready),
            (0, Hear(Failure), Standing::Ready),
            (0, Hear(Answer), Standing::Ready),
            (1, Hear(Failure), Standing::Ready),
            (1, Hear(Failure), Standing::Ready),
            (1, Hear(Failure), Standing::Ready),
            (1, Hear(Failure), Standing::Ready),
            (1, Hear(Failure), failing(5)),
            // One that began before says nothing new.
            (3, Hear(Failure), failing(3)),
            (6, Look, Standing::Ready),
            // One request finds out; the others stay away meanwhile.
            (6, Ask, failing(10)),
            (7, Hear(Failure), failing(10)),
            (17, Ask, failing(10)),
            (17, Hear(Failure), failing(20)),
            (37, Ask, failing(10)),
            (37, Hear(Failure), failing(40)),
            (77, Ask, failing(10)),
            (77, Hear(Failure), failing(60)),
            (137, Ask, failing(10)),
            (137, Hear(Failure), failing(60)),
            // One that never came back keeps nobody away for longer than its lease.
            (197, Ask, failing(10)),
            (207, Look, Standing::Ready),
            (207, Ask, failing(10)),
            (208, Hear(Answer), Standing::Ready),
            (208, Hear(Busy(s(0))), Standing::Resting),
            (209, Look, Standing::Ready),
            (209, Hear(Busy(s(900))), Standing::Resting),
            (210, Hear(Failure), Standing::Resting),
            (268, Look, Standing::Resting),
            (269, Hear(KeyRefused), refused(60)),
            (329, Ask, refused(10)),
            (330, Hear(KeyRefused), refused(60)),
            (390, Ask, refused(10)),
            (391, Hear(Answer), Standing::Ready),
        ] {
            let now = start + s(at);
            match step {
                Hear(news) => channel.heard(now, news),
                Ask => channel.asked(now),
                Look => {}
            }
            assert_eq!(channel.standing(now), expected, "at {at} s: {channel:?}");
        }
    }

    #[test]
    fn a_channel_that_is_found_out_about_is_still_failing() {
        let now = Instant::now();
        let mut channel = Condition::default();
        for _ in 0..5 {
            channel.heard(now, News::Failure);
        }
        assert_eq!(channel.state(now + s(60)), ChannelState::Failing);
        channel.asked(now + s(60));
        assert_eq!(channel.state(now + s(100)), ChannelState::Failing);
        channel.heard(now + s(100), News::Answer);
        assert_eq!(channel.state(now + s(100)), ChannelState::Ready);
    }
}
