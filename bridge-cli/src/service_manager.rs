//! What the bridge tells systemd while it runs. Everywhere else there is nobody to tell.

#[cfg(unix)]
pub(crate) use self::unix::*;

#[cfg(unix)]
mod unix {
    use std::time::Duration;

    use sd_notify::NotifyState;
    use tokio::time::{Interval, MissedTickBehavior};

    /// Whether a service manager started this process and listens.
    pub(crate) fn is_there() -> bool {
        std::env::var_os("NOTIFY_SOCKET").is_some()
    }

    /// Whether what goes to standard error gets its time elsewhere.
    pub(crate) fn stamps_lines() -> bool {
        std::env::var_os("JOURNAL_STREAM").is_some()
    }

    /// Configuration and key are read.
    pub(crate) fn ready() {
        tell(NotifyState::Ready);
    }

    /// The state in one line.
    pub(crate) fn say(words: &str) {
        tell(NotifyState::Status(words));
    }

    /// The event loop turns.
    pub(crate) fn alive() {
        tell(NotifyState::Watchdog);
    }

    /// The end has begun.
    pub(crate) fn stopping() {
        tell(NotifyState::Stopping);
    }

    /// When to say [`alive`].
    pub(crate) struct Watchdog(Option<Interval>);

    /// At half the interval after which the service manager would give up.
    pub(crate) fn watchdog() -> Watchdog {
        let interval = sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|half| *half > Duration::ZERO);
        Watchdog(interval.map(|half| {
            let mut ticks = tokio::time::interval(half);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    impl Watchdog {
        /// Returns when it is time; never where nobody watches.
        pub(crate) async fn due(&mut self) {
            match &mut self.0 {
                Some(ticks) => {
                    ticks.tick().await;
                }
                None => std::future::pending().await,
            }
        }
    }

    fn tell(state: NotifyState<'_>) {
        if is_there() && sd_notify::notify(&[state]).is_err() {
            tracing::debug!("the service manager could not be told");
        }
    }
}

#[cfg(windows)]
pub(crate) use self::windows::*;

#[cfg(windows)]
mod windows {
    /// No.
    pub(crate) fn is_there() -> bool {
        false
    }

    /// No.
    pub(crate) fn stamps_lines() -> bool {
        false
    }

    /// Nobody to tell.
    pub(crate) fn ready() {}

    /// Nobody to tell.
    pub(crate) fn say(_: &str) {}

    /// Nobody to tell.
    pub(crate) fn alive() {}

    /// Nobody to tell.
    pub(crate) fn stopping() {}

    /// Nobody watches.
    pub(crate) struct Watchdog;

    /// Nobody watches.
    pub(crate) fn watchdog() -> Watchdog {
        Watchdog
    }

    impl Watchdog {
        /// Never.
        pub(crate) async fn due(&mut self) {
            std::future::pending().await
        }
    }
}
