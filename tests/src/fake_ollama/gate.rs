//! Holds: a test stops a generation at a point that it names, looks around, and lets it go on.

use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::locked;

/// Where a generation can be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// After its request was read, before its headers.
    Headers,
    /// Before the token of that number, counted from 0; the number of tokens is the final chunk's.
    Token(u32),
}

/// The holds of one fake.
#[derive(Debug)]
pub(crate) struct Gates {
    /// Whether there are any: the benchmark asks once for each token.
    armed: AtomicBool,
    holds: Mutex<Vec<(String, Point)>>,
    released: watch::Sender<u64>,
}

impl Gates {
    pub(crate) fn new() -> Self {
        Self { armed: AtomicBool::new(false), holds: Mutex::default(), released: watch::Sender::new(0) }
    }

    pub(crate) fn add(&self, model: String, point: Point) {
        locked(&self.holds).push((model, point));
        self.armed.store(true, Ordering::SeqCst);
    }

    /// Lets everything go on, and forgets all holds.
    pub(crate) fn release(&self) {
        locked(&self.holds).clear();
        self.armed.store(false, Ordering::SeqCst);
        self.released.send_modify(|times| *times += 1);
    }

    /// What to wait for at that point, if anything.
    pub(crate) fn hold(&self, model: &str, point: Point) -> Option<impl Future<Output = ()> + Send + 'static> {
        if !self.armed.load(Ordering::SeqCst) {
            return None;
        }
        // Subscribed first: a release between the two lines is then seen as a change.
        let mut released = self.released.subscribe();
        locked(&self.holds).iter().any(|(held, at)| held == model && *at == point).then_some(async move {
            // An error means that the fake is gone, and the generation goes with it.
            let _ = released.changed().await;
        })
    }
}
