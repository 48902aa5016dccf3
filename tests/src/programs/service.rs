//! A started process: what it has printed, how it is stopped.

use std::{
    fs,
    path::PathBuf,
    process::{Child, ExitStatus},
    sync::{Mutex, MutexGuard},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{Said, until};
use crate::locked;

/// A started process. It is killed when dropped.
#[derive(Debug)]
pub struct Service {
    child: Mutex<Child>,
    out: PathBuf,
    err: PathBuf,
}

impl Service {
    pub(super) fn new(child: Child, out: PathBuf, err: PathBuf) -> Self {
        Self { child: Mutex::new(child), out, err }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child().id()
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.child().try_wait(), Ok(None))
    }

    /// What it has printed so far.
    #[must_use]
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// What it has said so far.
    #[must_use]
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, signal: Signal) {
        let mut child = self.child();
        // It is ours and was not waited for, so the id cannot be another's.
        let is_there = matches!(child.try_wait(), Ok(None));
        let sent = Pid::from_raw(child.id().cast_signed()).filter(|_| is_there).map(|pid| kill_process(pid, signal));
        assert!(matches!(sent, Some(Ok(()))), "the process {} takes no signal: it has ended, or is not ours", child.id());
    }

    /// Kills it as the system does when memory runs out, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child();
        // One that has ended already is as dead.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Waits for its end: its exit code, if it was not a signal that ended it.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn wait(&self) -> Option<i32> {
        self.end().code()
    }

    /// Waits for its end and says which it was.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn end(&self) -> ExitStatus {
        until("a process to end", || self.child().try_wait().ok().flatten())
    }

    /// Waits for its end and says what it printed.
    ///
    /// # Panics
    /// When it does not end in time.
    #[must_use]
    pub fn ended(self) -> Said {
        let code = self.wait().unwrap_or(-1);
        Said { code, out: self.out(), err: self.err() }
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        locked(&self.child)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}
