//! What reached the fake, and how each request ended.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use hyper::{HeaderMap, Method};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::locked;

/// One request that reached the fake.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its path, with the query if there was one.
    pub path: String,
    /// Its headers, as they came.
    pub headers: HeaderMap,
    /// Its body; empty until it was read whole.
    pub body: Bytes,
    /// SHA-256 of the body, hexadecimal.
    pub body_sha256: String,
    /// When its head arrived.
    pub at: Instant,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it stands at a hold (see [`super::FakeOllama::hold_at_token`]) at this moment.
    pub held: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended.
    Running,
    /// The whole answer was handed to the socket, also one that was meant to fail.
    Finished,
    /// The client closed its connection first.
    ClientGone {
        /// When the fake noticed.
        at: Instant,
        /// Tokens written by then.
        tokens_sent: u32,
    },
    /// The fake was stopped first.
    Stopped,
}

/// Something that a bridge must never do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it was.
    pub kind: ViolationKind,
    /// The path that was called.
    pub path: String,
    /// The model that was named, if one was.
    pub model: String,
}

/// What a bridge must never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ViolationKind {
    /// A call that changes, uploads or signs.
    Forbidden,
    /// A name that Ollama forwards to its vendor.
    CloudModel,
    /// A model that stands for one elsewhere.
    RemoteModel,
    /// A tool that makes Ollama itself ask its vendor.
    WebSearch,
}

/// The record of a fake.
#[derive(Debug)]
pub(super) struct Log {
    /// Whether requests are kept; a benchmark's are not.
    keep: bool,
    seen: Mutex<Vec<Seen>>,
    violations: Mutex<Vec<Violation>>,
    stopping: AtomicBool,
    open: AtomicUsize,
    changes: watch::Sender<u64>,
}

impl Log {
    pub(super) fn new(keep: bool) -> Self {
        Self {
            keep,
            seen: Mutex::default(),
            violations: Mutex::default(),
            stopping: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        locked(&self.seen).clone()
    }

    pub(super) fn check<R>(&self, look: impl FnOnce(&[Seen]) -> R) -> R {
        look(&locked(&self.seen))
    }

    pub(super) fn violations(&self) -> Vec<Violation> {
        locked(&self.violations).clone()
    }

    pub(super) fn violation(&self, kind: ViolationKind, path: &str, model: &str) {
        locked(&self.violations).push(Violation { kind, path: path.to_owned(), model: model.to_owned() });
        self.changed();
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(super) fn open_connections(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Says that from now on whatever ends, ends because the fake stops.
    pub(super) fn stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::SeqCst);
    }

    /// Starts the record of a request.
    pub(super) fn open(self: &Arc<Self>, method: &Method, path: &str, headers: &HeaderMap) -> Ticket {
        let index = self.keep.then(|| {
            let mut seen = locked(&self.seen);
            seen.push(Seen {
                method: method.clone(),
                path: path.to_owned(),
                headers: headers.clone(),
                body: Bytes::new(),
                body_sha256: String::new(),
                at: Instant::now(),
                outcome: Outcome::Running,
                held: false,
            });
            seen.len() - 1
        });
        self.changed();
        Ticket { log: self.clone(), index, tokens: 0, ended: false }
    }

    fn edit(&self, index: Option<usize>, change: impl FnOnce(&mut Seen)) {
        let Some(index) = index else { return };
        if let Some(seen) = locked(&self.seen).get_mut(index) {
            change(seen);
        }
        self.changed();
    }

    fn changed(&self) {
        if self.keep {
            self.changes.send_modify(|version| *version += 1);
        }
    }
}

/// A request under way; dropped before its end, its client is gone.
#[derive(Debug)]
pub(super) struct Ticket {
    log: Arc<Log>,
    index: Option<usize>,
    tokens: u32,
    ended: bool,
}

impl Ticket {
    pub(super) fn body(&self, body: &Bytes) {
        if self.index.is_some() {
            let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(body));
            self.log.edit(self.index, |seen| {
                seen.body = body.clone();
                seen.body_sha256 = digest;
            });
        }
    }

    pub(super) fn held(&self, held: bool) {
        self.log.edit(self.index, |seen| seen.held = held);
    }

    pub(super) const fn token(&mut self) {
        self.tokens += 1;
    }

    pub(super) fn finish(&mut self) {
        if !self.ended {
            self.ended = true;
            self.log.edit(self.index, |seen| seen.outcome = Outcome::Finished);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let outcome = if self.log.stopping.load(Ordering::SeqCst) {
            Outcome::Stopped
        } else {
            Outcome::ClientGone { at: Instant::now(), tokens_sent: self.tokens }
        };
        self.log.edit(self.index, |seen| {
            seen.outcome = outcome;
            seen.held = false;
        });
    }
}

/// Counts a connection for as long as it lives.
#[derive(Debug)]
pub(super) struct Open(Arc<Log>);

impl Open {
    pub(super) fn new(log: &Arc<Log>) -> Self {
        log.open.fetch_add(1, Ordering::SeqCst);
        log.changed();
        Self(log.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.changed();
    }
}
