//! The thread that a fake runs on.
//!
//! A fake is the outside world: it must not stand still because a test paused its clock, and it must notice a closed
//! socket while the test's own thread is busy. So each fake owns a small runtime instead of borrowing the test's.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// How long a test waits for something before it fails. Generous: the tests share two cores with a compiler.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A runtime of one's own, which ends with its owner.
#[derive(Debug)]
pub(crate) struct Backstage(Option<Runtime>);

impl Backstage {
    /// A runtime with that many threads.
    pub(crate) fn new(threads: usize, name: &str) -> std::io::Result<Self> {
        Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name(name)
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
    }

    /// Runs a future on it.
    pub(crate) fn spawn<F>(&self, future: F) -> Option<JoinHandle<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.as_ref().map(|runtime| runtime.spawn(future))
    }

    /// Runs a future on it and waits for its end, blocking the caller: only for work that is over in milliseconds.
    pub(crate) fn finish<F>(&self, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (done, wait) = std::sync::mpsc::channel();
        self.spawn(async move {
            future.await;
            // The caller may have stopped waiting.
            let _ = done.send(());
        });
        // An error means that the runtime is gone, and with it everything that the future was to end.
        let _ = wait.recv_timeout(PATIENCE);
    }

    /// Waits for `condition`, at most [`PATIENCE`] of real time, whatever the caller's clock says.
    ///
    /// # Panics
    /// When the time is up, with what `state` says of the matter.
    pub(crate) async fn wait(&self, condition: impl Future<Output = ()>, state: impl Fn() -> String) {
        let Some(limit) = self.spawn(tokio::time::sleep(PATIENCE)) else { return };
        let stop = limit.abort_handle();
        tokio::select! {
            biased;
            () = condition => stop.abort(),
            _ = limit => panic!("waited {PATIENCE:?} in vain: {}", state()),
        }
    }
}

impl Drop for Backstage {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A runtime dropped inside another one would panic.
            runtime.shutdown_background();
        }
    }
}
