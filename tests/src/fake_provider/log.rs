//! What reached the fake, and how each request ended.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use hyper::{HeaderMap, Method, Version};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::kind::Kind;
use crate::locked;

/// How much of a body is kept: enough for every request of a test but those whose size is what matters.
const BODY_KEPT: usize = 1 << 20;
/// How many requests are kept. More is a measurement, which has no use for them; they are counted still.
const REQUESTS_KEPT: usize = 20_000;

/// One request that reached the fake.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which provider it was for.
    pub kind: Kind,
    /// Its method.
    pub method: Method,
    /// Its path as it came, with the query if there was one.
    pub path: String,
    /// The version of HTTP that it came by.
    pub version: Version,
    /// Its headers, as they came.
    pub headers: HeaderMap,
    /// The start of its body, at most 1 MiB; empty until it was read whole.
    pub body: Bytes,
    /// How long the body is.
    pub body_len: usize,
    /// SHA-256 of the whole body, hexadecimal; empty until it was read whole.
    pub body_sha256: String,
    /// Which connection it came by, counted from 0.
    pub connection: u64,
    /// When its head arrived.
    pub at: Instant,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether it stands at a hold at this moment.
    pub held: bool,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has not ended.
    Running,
    /// The whole answer was handed to the socket, also one that was meant to fail.
    Finished,
    /// The client went away first.
    ClientGone {
        /// When the fake noticed.
        at: Instant,
        /// Tokens written by then.
        tokens_sent: u32,
    },
    /// The fake was stopped first.
    Stopped,
}

/// How many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Connections that were accepted.
    pub connections: u64,
    /// Requests whose head arrived.
    pub started: u64,
    /// Requests whose whole answer was handed to the socket.
    pub finished: u64,
    /// Requests whose client went away first.
    pub abandoned: u64,
}

/// The record of a fake.
#[derive(Debug)]
pub(super) struct Log {
    /// Whether requests are kept; a benchmark's are not.
    keep: bool,
    seen: Mutex<Vec<Seen>>,
    stopping: AtomicBool,
    open: AtomicUsize,
    connections: AtomicU64,
    started: AtomicU64,
    finished: AtomicU64,
    abandoned: AtomicU64,
    changes: watch::Sender<u64>,
}

impl Log {
    pub(super) fn new(keep: bool) -> Self {
        Self {
            keep,
            seen: Mutex::default(),
            stopping: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            started: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        locked(&self.seen).clone()
    }

    pub(super) fn check<R>(&self, look: impl FnOnce(&[Seen]) -> R) -> R {
        look(&locked(&self.seen))
    }

    pub(super) fn totals(&self) -> Totals {
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Totals {
            connections: of(&self.connections),
            started: of(&self.started),
            finished: of(&self.finished),
            abandoned: of(&self.abandoned),
        }
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
    pub(super) fn open(
        self: &Arc<Self>,
        kind: Kind,
        connection: u64,
        (method, version): (&Method, Version),
        path: &str,
        headers: &HeaderMap,
    ) -> Ticket {
        let number = self.started.fetch_add(1, Ordering::SeqCst);
        let mut index = None;
        if self.keep {
            let mut seen = locked(&self.seen);
            if seen.len() < REQUESTS_KEPT {
                index = Some(seen.len());
                seen.push(Seen {
                    kind,
                    method: method.clone(),
                    path: path.to_owned(),
                    version,
                    headers: headers.clone(),
                    body: Bytes::new(),
                    body_len: 0,
                    body_sha256: String::new(),
                    connection,
                    at: Instant::now(),
                    outcome: Outcome::Running,
                    held: false,
                });
            }
        }
        self.changed();
        Ticket { log: self.clone(), index, number, tokens: 0, ended: false }
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
    number: u64,
    tokens: u32,
    ended: bool,
}

impl Ticket {
    /// Unique among the requests.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn body(&self, body: &Bytes) {
        if self.index.is_some() {
            let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(body));
            self.log.edit(self.index, |seen| {
                seen.body = body.slice(..body.len().min(BODY_KEPT));
                seen.body_len = body.len();
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
            self.log.finished.fetch_add(1, Ordering::SeqCst);
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
            self.log.abandoned.fetch_add(1, Ordering::SeqCst);
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
pub(super) struct Open {
    log: Arc<Log>,
    /// Which it is, counted from 0.
    pub(super) number: u64,
}

impl Open {
    pub(super) fn new(log: &Arc<Log>) -> Self {
        log.open.fetch_add(1, Ordering::SeqCst);
        let number = log.connections.fetch_add(1, Ordering::SeqCst);
        log.changed();
        Self { log: log.clone(), number }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.log.open.fetch_sub(1, Ordering::SeqCst);
        self.log.changed();
    }
}
