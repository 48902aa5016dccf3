//! Who writes down what runs say: a thread of its own for the tail, where one `write` takes what all runs have said since the last,
//! and one task for the database, where one transaction does the same every 250 ms.

use std::{
    collections::HashSet,
    io,
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use wire::RunId;

use super::{
    Live,
    log::Log,
    tail::{self, Tail},
};
use crate::store::{RunProgress, Store};

/// How often the database is told: four times a second.
const EVERY: Duration = Duration::from_millis(250);
/// How long the database is left alone after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Runs whose words go into one `write`, at most.
const TOGETHER: usize = 512;

/// What the thread of the tail is asked to do.
pub(super) enum Errand {
    /// This run has said something.
    Write(Arc<Log>),
    /// Begin a new segment, and say which was the last.
    Close(oneshot::Sender<u64>),
    /// All segments up to this one are in the database.
    Forget(u64),
}

/// Starts the thread of the tail. It ends when nobody can send it anything any more.
pub(super) fn start(tail: Tail) -> io::Result<mpsc::Sender<Errand>> {
    let (sender, errands) = mpsc::channel();
    std::thread::Builder::new().name("runs".to_owned()).spawn(move || Scribe { tail, is_failing: false }.work(&errands))?;
    Ok(sender)
}

struct Scribe {
    tail: Tail,
    is_failing: bool,
}

impl Scribe {
    fn work(mut self, errands: &mpsc::Receiver<Errand>) {
        let mut logs = Vec::new();
        while let Ok(errand) = errands.recv() {
            let mut next = Some(errand);
            while let Some(Errand::Write(log)) = next {
                logs.push(log);
                next = if logs.len() < TOGETHER { errands.try_recv().ok() } else { None };
            }
            self.write(&logs);
            logs.clear();
            match next {
                Some(Errand::Close(told)) => {
                    // Whoever asked may have been cancelled; the segment is closed all the same.
                    let _ = told.send(self.tail.close());
                }
                Some(Errand::Forget(last)) => {
                    if let Err(error) = self.tail.forget(last) {
                        tracing::warn!(kind = %error.kind(), "cannot delete what runs said; it is tried again");
                    }
                }
                Some(Errand::Write(_)) | None => {}
            }
        }
    }

    /// Seals what these runs have said, writes it, and only then lets it be seen. What cannot be written here waits for the database.
    fn write(&mut self, logs: &[Arc<Log>]) {
        let mut frames = Vec::new();
        let mut last_of = Vec::with_capacity(logs.len());
        for log in logs {
            let events = log.untailed();
            if let (Some(first), Some(last)) = (events.first(), events.last()) {
                tail::put_frame(&mut frames, &log.key, log.id, &events, first.seq);
                last_of.push((log, last.seq));
            }
        }
        if frames.is_empty() {
            return;
        }
        match self.tail.append(&frames) {
            Ok(()) => {
                self.is_failing = false;
                last_of.into_iter().for_each(|(log, last)| log.tailed(last));
            }
            Err(error) => {
                if !self.is_failing {
                    tracing::error!(kind = %error.kind(), "cannot write what runs say beside the database; it is shown when that has it");
                }
                self.is_failing = true;
            }
        }
    }
}

/// Brings what runs say into the database.
pub(super) struct Recorder {
    pub(super) store: Store,
    pub(super) live: Arc<Live>,
    pub(super) scribe: mpsc::Sender<Errand>,
    pub(super) hurry: Arc<Notify>,
}

/// Which runs are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// All that have anything to say; the tail is not needed afterwards.
    All,
    /// Those that have ended: their watchers wait for it.
    Ended,
}

impl Recorder {
    /// Writes until it is cancelled, and then what is left.
    pub(super) async fn run(self, cancelled: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failed = false;
        loop {
            let which = tokio::select! {
                () = cancelled.cancelled() => break,
                _ = tick.tick() => Which::All,
                () = self.hurry.notified(), if !failed => Which::Ended,
            };
            failed = self.write(which, failed).await.is_err();
            if failed {
                let _ = tokio::time::timeout(RETRY_AFTER, cancelled.cancelled()).await;
            }
        }
        // What cannot be written now is in the tail.
        let _ = self.write(Which::All, failed).await;
    }

    /// After a failure nobody knows whether the transaction took place; then the database is asked first.
    async fn write(&self, which: Which, after_failure: bool) -> Result<(), ()> {
        // Whatever stands in the segments that are closed now was said before, and is gathered below.
        let closed = match which {
            Which::All => self.close_segment().await,
            Which::Ended => None,
        };
        let logs = self.live.all();
        if after_failure {
            for log in &logs {
                log.found_written(self.store.last_event(log.id).await.map_err(|error| report(&error))?);
            }
        }
        let (logs, batch): (Vec<Arc<Log>>, Vec<RunProgress>) = logs
            .into_iter()
            .filter(|log| which == Which::All || log.has_ended())
            .filter_map(|log| log.progress().map(|progress| (log, progress)))
            .unzip();
        let gone: HashSet<RunId> = match batch.is_empty() {
            true => HashSet::new(),
            false => self.store.write_progress(&batch).await.map_err(|error| report(&error))?,
        };
        for (log, progress) in logs.iter().zip(&batch) {
            if gone.contains(&log.id) {
                log.gone();
            } else {
                log.written(progress);
            }
            if progress.end.is_some() || gone.contains(&log.id) {
                self.live.remove(log.id);
            }
        }
        if let Some(closed) = closed {
            // The thread lives as long as this.
            let _ = self.scribe.send(Errand::Forget(closed));
        }
        Ok(())
    }

    async fn close_segment(&self) -> Option<u64> {
        let (told, number) = oneshot::channel();
        self.scribe.send(Errand::Close(told)).ok()?;
        number.await.ok()
    }
}

fn report(error: &crate::store::StoreError) {
    tracing::error!(%error, "cannot write what runs say; it stays where it is and is tried again");
}
