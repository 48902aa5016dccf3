//! Ctrl-C and `kill`: asked for once, obeyed at every wait.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

/// Somebody wants the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped on request")
    }
}

impl std::error::Error for Stopped {}

/// SIGINT and SIGTERM from now on. Held from before the first process is started, so that none is left behind.
pub(crate) struct Stop(Receiver<()>);

impl Stop {
    /// Starts to listen.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("no resources to listen for signals")?;
        let (ask, asked) = channel();
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            // Nobody listens any more when the program ends by itself.
            let _ = ask.send(());
        })?;
        Ok(Self(asked))
    }

    /// Waits that long, or until somebody asks to stop.
    pub(crate) fn wait(&self, time: Duration) -> Result<(), Stopped> {
        match self.0.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Stopped),
        }
    }

    /// Looks again and again until `look` has found something. `what` finishes the sentence "gave up waiting for ...".
    pub(crate) fn until<T>(
        &self,
        limit: Duration,
        what: &str,
        mut look: impl FnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            anyhow::ensure!(Instant::now() < end, "gave up waiting for {what} after {} s", limit.as_secs());
            self.wait(LOOK_EVERY)?;
        }
    }
}

/// Often enough that nobody notices, rarely enough that a waiting machine stays idle.
const LOOK_EVERY: Duration = Duration::from_millis(50);
