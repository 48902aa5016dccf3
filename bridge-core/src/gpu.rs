//! The graphics processors of this computer, as far as their drivers tell.
//!
//! A driver's library is loaded and asked on a thread of its own: one that hangs (a card that fell off the bus) must not hang the
//! bridge. What says whether a *model* is on the processor is Ollama's `/api/ps`, not this.

use std::{io, sync::mpsc, thread, time::Duration};

use tokio::sync::oneshot;
use wire::relay::Gpu;

/// How long one look may take. NVIDIA's library is initialised for each, which takes tens of milliseconds on a healthy machine.
const LIMIT: Duration = Duration::from_secs(2);

/// Asks the drivers, one question at a time.
#[derive(Debug)]
pub struct Gpus {
    questions: mpsc::SyncSender<oneshot::Sender<Vec<Gpu>>>,
}

impl Gpus {
    /// Starts the thread, which ends when `self` is dropped.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> io::Result<Self> {
        Self::start_with(|| {
            let mut gpus = sysinfo::Gpus::new().ok();
            move || gpus.as_mut().map_or_else(Vec::new, read)
        })
    }

    /// What the drivers say now; empty when there is no graphics processor, or none whose driver answers within 2 s.
    pub async fn read(&self) -> Vec<Gpu> {
        let (answer, answered) = oneshot::channel();
        // A full queue is a driver that has not answered an earlier question yet.
        if self.questions.try_send(answer).is_err() {
            return Vec::new();
        }
        match tokio::time::timeout(LIMIT, answered).await {
            Ok(Ok(gpus)) => gpus,
            _ => Vec::new(),
        }
    }

    fn start_with<D: FnMut() -> Vec<Gpu>>(driver: impl FnOnce() -> D + Send + 'static) -> io::Result<Self> {
        let (questions, asked) = mpsc::sync_channel::<oneshot::Sender<Vec<Gpu>>>(1);
        thread::Builder::new().name("gpu".to_owned()).spawn(move || {
            let mut driver = driver();
            for answer in asked {
                if !answer.is_closed() {
                    // Whoever asked may have given up by now.
                    let _ = answer.send(driver());
                }
            }
        })?;
        Ok(Self { questions })
    }
}

fn read(gpus: &mut sysinfo::Gpus) -> Vec<Gpu> {
    gpus.refresh(true);
    gpus.iter()
        .map(|gpu| Gpu {
            // A model's name begins with its maker's where that tells anything.
            name: gpu.model().or(gpu.vendor()).unwrap_or("graphics processor").to_owned(),
            busy_percent: gpu.usage(),
            memory_used: gpu.used_memory(),
            memory_total: gpu.total_memory(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_computer_is_described_or_has_none() {
        for gpu in Gpus::start().unwrap().read().await {
            assert_ne!(gpu.name, "");
            assert!(gpu.memory_used.unwrap_or(0) <= gpu.memory_total.unwrap_or(u64::MAX), "{gpu:?}");
        }
    }

    #[tokio::test]
    async fn a_driver_that_hangs_hangs_nobody() {
        let found = vec![Gpu { name: "one".to_owned(), busy_percent: None, memory_used: None, memory_total: None }];
        let (enter, mut entered) = tokio::sync::mpsc::unbounded_channel();
        let (release, held) = mpsc::channel::<()>();
        let answer = found.clone();
        let gpus = Gpus::start_with(move || {
            move || {
                enter.send(()).unwrap();
                held.recv().map_or_else(|_| Vec::new(), |()| answer.clone())
            }
        })
        .unwrap();
        let first = gpus.read();
        tokio::pin!(first);
        tokio::select! {
            gpus = &mut first => panic!("{gpus:?}"),
            _ = entered.recv() => {}
        }
        tokio::time::pause();
        assert_eq!(first.await, []);
        // The second question waits in the queue; the third finds the queue full and does not wait.
        assert_eq!(gpus.read().await, []);
        let before = tokio::time::Instant::now();
        assert_eq!(gpus.read().await, []);
        assert_eq!(before.elapsed(), Duration::ZERO);

        tokio::time::resume();
        release.send(()).unwrap();
        release.send(()).unwrap();
        while gpus.read().await != found {}
    }
}
