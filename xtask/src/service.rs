//! A process that runs beside this one, writes to a log, and ends with its owner.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::stop::Stop;

/// How long a process may take to end when asked: a Lab gives running requests ten seconds.
const GRACE: Duration = Duration::from_secs(12);

/// A started process.
pub(crate) struct Service {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts `command`; what it prints goes to the file `log`.
    ///
    /// It gets a process group of its own: a Ctrl-C in the terminal reaches this program alone, which then ends the others in order.
    pub(crate) fn start(name: &'static str, command: &mut Command, log: PathBuf) -> anyhow::Result<Self> {
        let out = File::create(&log).with_context(|| format!("no log can be written at {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        Ok(Self { name, child, log })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Fails if it has ended, with its last words.
    pub(crate) fn ensure_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended by itself ({status}); its last words:\n{}", self.name, self.last_words()),
        }
    }

    /// Waits until `look` has found something, as long as the process lives.
    pub(crate) fn until<T>(
        &mut self,
        stop: &Stop,
        limit: Duration,
        what: &str,
        mut look: impl FnMut(&Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let found = stop.until(limit, what, || {
            self.ensure_runs()?;
            look(self)
        });
        found.map_err(|error| if error.is::<crate::stop::Stopped>() { error } else { self.with_last_words(&error) })
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Ends it and says how it ended.
    pub(crate) fn end(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // It is ours and was not waited for, so the id cannot be another's.
            kill_process(pid, Signal::TERM)?;
        }
        let end = Instant::now() + GRACE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} did not end within {} s and is killed", self.name, GRACE.as_secs());
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    fn with_last_words(&self, error: &anyhow::Error) -> anyhow::Error {
        let words = self.last_words();
        if words.is_empty() || error.to_string().contains(&words) {
            anyhow::anyhow!("{error:#}")
        } else {
            anyhow::anyhow!("{error:#}; the last words of {}:\n{words}", self.name)
        }
    }

    fn last_words(&self) -> String {
        let printed = self.printed();
        let lines: Vec<&str> = printed.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{} (process {}) could not be ended: {error:#}", self.name, self.child.id());
        }
    }
}
