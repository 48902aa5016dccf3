//! A fake Ollama: a server on a socket that speaks all of Ollama's surfaces as Ollama 0.32 does, says the same words to the
//! same question, fails as its models' names ask, and remembers who called.
//!
//! It is faithful in what a client can see: shapes, order, headers, error texts, escaping, what is left out. It is not a
//! model: tokens are four bytes, an image counts for 256, and a model with tools calls the first of them.
//!
//! Models: `tiny` (tools), `thinker` (thinking, tools), `seer` (vision), `embed` (embedding), what a test adds, and names of
//! the grammar in [`grammar`]: `fake-n100-d10000` says the benchmark's plain text, `babel-n100` the same many scripts as
//! every other model. The letters work in any model's name.

mod answer;
pub(crate) mod gate;
mod generation;
mod grammar;
mod json;
mod log;
mod models;
mod render;
mod request;
mod routes;
mod shape;
pub(crate) mod text;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::backstage::Backstage;
use crate::{locked, scripted::Step};
use gate::{Gates, Point};
use log::{Log, Open};
pub use log::{Outcome, Seen, Violation, ViolationKind};
use models::Store;
pub use models::{Capability, Model};

/// A fake Ollama, up until it is stopped or dropped. It runs on a thread of its own: a paused clock does not touch it.
#[derive(Debug)]
pub struct FakeOllama {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
    backstage: Backstage,
}

#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

/// What its connections share.
#[derive(Debug)]
struct Shared {
    addr: SocketAddr,
    log: Arc<Log>,
    gates: Arc<Gates>,
    store: Mutex<Store>,
    version: Mutex<String>,
    slots: Mutex<Option<Arc<Semaphore>>>,
    parts: Mutex<HashMap<String, Arc<[Step]>>>,
}

impl FakeOllama {
    /// A fake on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start() -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into()).unwrap_or_else(|error| panic!("no fake Ollama: {error}"))
    }

    /// A fake on that address.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start_on(addr: SocketAddr) -> io::Result<Self> {
        Self::with(addr, 1, true)
    }

    /// A fake for measurements and demonstrations: on that many threads, and without keeping what it saw.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start_forgetful(addr: SocketAddr, threads: usize) -> io::Result<Self> {
        Self::with(addr, threads, false)
    }

    fn with(addr: SocketAddr, threads: usize, keep_log: bool) -> io::Result<Self> {
        let backstage = Backstage::new(threads, "fake-ollama")?;
        let listener = std::net::TcpListener::bind(addr)?;
        let shared = Arc::new(Shared {
            addr: listener.local_addr()?,
            log: Arc::new(Log::new(keep_log)),
            gates: Arc::new(Gates::new()),
            store: Mutex::new(Store::new()),
            version: Mutex::new("0.32.15".to_owned()),
            slots: Mutex::default(),
            parts: Mutex::default(),
        });
        let fake = Self { shared, running: Mutex::default(), backstage };
        fake.run(listener)?;
        Ok(fake)
    }

    /// Where it listens, as a URL without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.shared.addr)
    }

    /// Where it listens; the same after a restart.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// What `/api/version` says from now on.
    pub fn set_version(&self, version: &str) {
        version.clone_into(&mut locked(&self.shared.version));
    }

    /// Replaces all models.
    pub fn set_models(&self, models: impl IntoIterator<Item = Model>) {
        self.shared.store().set(models.into_iter().collect());
    }

    /// Adds a model, or replaces the one of that name.
    pub fn add_model(&self, model: Model) {
        self.shared.store().add(model);
    }

    /// Takes a model away; says whether it was there.
    pub fn remove_model(&self, name: &str) -> bool {
        self.shared.store().remove(name)
    }

    /// Has a model play a part, on whichever surface it is asked, instead of saying what its name asks for. How fast it does, and
    /// how it fails, its name still says.
    pub fn plays(&self, model: &str, part: impl IntoIterator<Item = Step>) {
        locked(&self.shared.parts).insert(models::full_name(model), part.into_iter().collect());
    }

    /// Whether names of the grammar are models without having been added; they are at first.
    pub fn accept_any(&self, accept: bool) {
        self.shared.store().accept_any = accept;
    }

    /// How many requests are computed at once, the others waiting without limit; `None`, as at first, for all.
    pub fn set_parallel(&self, slots: Option<usize>) {
        *locked(&self.shared.slots) = slots.map(|slots| Arc::new(Semaphore::new(slots)));
    }

    /// Holds every generation and embedding of that model before its headers, until [`Self::release`].
    pub fn hold_before_headers(&self, model: &str) {
        self.shared.gates.add(models::full_name(model), Point::Headers);
    }

    /// Holds every generation of that model before its token of that number, counted from 0 (thoughts count; the number of
    /// tokens is the final chunk's), until [`Self::release`]. Headers and earlier tokens are out by then, if it is streamed.
    pub fn hold_at_token(&self, model: &str, token: u32) {
        self.shared.gates.add(models::full_name(model), Point::Token(token));
    }

    /// Lets everything held go on, and forgets all holds.
    pub fn release(&self) {
        self.shared.gates.release();
    }

    /// Closes the listener and all connections at once; both are closed when this returns. What it saw is kept.
    pub fn stop(&self) {
        let Some(mut running) = locked(&self.running).take() else { return };
        self.shared.log.stopping(true);
        running.stop.send_replace(true);
        if let Some(task) = running.task.take() {
            self.backstage.finish(async move {
                // An error is a panic of the accepting task, and then nothing is open either.
                let _ = task.await;
            });
        }
        self.shared.store().unload_all();
    }

    /// Listens again where it listened before; nothing is loaded then.
    ///
    /// # Errors
    /// When somebody else took the address.
    pub fn restart(&self) -> io::Result<()> {
        self.stop();
        let listener = std::net::TcpListener::bind(self.shared.addr)?;
        self.shared.log.stopping(false);
        self.run(listener)
    }

    /// Every request that reached it, the oldest first.
    #[must_use]
    pub fn log(&self) -> Vec<Seen> {
        self.shared.log.seen()
    }

    /// Waits until the log is such; see [`Self::log`].
    ///
    /// # Panics
    /// After 10 s, with a summary of the log.
    pub async fn wait_for(&self, until: impl Fn(&[Seen]) -> bool) {
        self.wait(|log| log.check(&until)).await;
    }

    /// Waits until the number of open connections is such.
    ///
    /// # Panics
    /// After 10 s, with a summary of the log.
    pub async fn wait_for_connections(&self, until: impl Fn(usize) -> bool) {
        self.wait(|log| until(log.open_connections())).await;
    }

    async fn wait(&self, until: impl Fn(&Log) -> bool) {
        let log = &self.shared.log;
        let condition = async {
            let mut changes = log.subscribe();
            while !until(log) {
                if changes.changed().await.is_err() {
                    break;
                }
            }
        };
        let state = || {
            let requests: Vec<String> =
                log.check(|seen| seen.iter().map(|seen| format!("{} {} {:?}", seen.method, seen.path, seen.outcome)).collect());
            format!("{} open connections, requests {requests:?}", log.open_connections())
        };
        self.backstage.wait(condition, state).await;
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.log.open_connections()
    }

    /// Everything that reached it and must never do so.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.shared.log.violations()
    }

    fn run(&self, listener: std::net::TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let (stop, stopped) = watch::channel(false);
        let shared = self.shared.clone();
        let task = self.backstage.spawn(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, shared, stopped).await,
                // The listener was bound and made non-blocking above, so only a runtime without I/O could refuse it.
                Err(error) => panic!("no listener: {error}"),
            }
        });
        *locked(&self.running) = Some(Running { stop, task });
        Ok(())
    }
}

impl Drop for FakeOllama {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        locked(&self.store)
    }

    fn model(&self, name: &str) -> Option<Model> {
        self.store().find(name)
    }

    fn part(&self, model: &str) -> Option<Arc<[Step]>> {
        locked(&self.parts).get(model).cloned()
    }

    fn version(&self) -> String {
        locked(&self.version).clone()
    }

    /// A place among the requests that are computed, if their number is limited.
    async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        let slots = locked(&self.slots).clone()?;
        slots.acquire_owned().await.ok()
    }
}

/// Accepts until told to stop; then closes everything.
async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // An error means that the fake is gone without having said so.
            _ = stopped.changed() => break,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, shared.clone(), Open::new(&shared.log)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, _open: Open) {
    // A socket that cannot be told so is closed already, and the next write says it.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| routes::handle(shared.clone(), request));
    // How a connection ends, its requests' outcomes say.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
