//! Fake cloud providers: one server on a socket that answers as OpenAI, Anthropic, Gemini, xAI and Azure OpenAI do, says the same
//! bytes to the same request, fails as its models' names or a test ask, and remembers who called.
//!
//! It is faithful in what a client can see: paths, keys, shapes, order, layout, headers, errors, usage. It is not a model: what
//! counts is in [`script`], and every name is a model's but those with `no-such` in them. Bodies are a function of the request
//! alone, times and ids in them included; only ids in headers differ from one request to the next.
//!
//! A provider is found below its name, as in `http://127.0.0.1:1234/anthropic.com/v1/messages`. Without that, a fake of one kind is
//! that provider, and a fake of all goes by the path.

mod answer;
mod ask;
mod behaviour;
mod bomb;
mod chat;
mod gemini;
mod head;
mod kind;
mod log;
mod messages;
mod refusal;
mod responses;
mod routes;
mod script;
mod tape;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::backstage::Backstage;
use crate::fake_ollama::gate::{Gates, Point};
use crate::{locked, scripted::Step};
pub use behaviour::{Behaviour, Trouble, UsageHabit};
pub use kind::Kind;
use log::{Log, Open, Ticket};
pub use log::{Outcome, Seen, Totals};
use routes::Place;

/// Streams of one h2 connection at a time, as providers have it: a caller with more needs more connections.
const STREAMS: u32 = 100;

/// Fake providers, up until they are stopped or dropped. They run on a thread of their own: a paused clock does not touch them.
#[derive(Debug)]
pub struct FakeProvider {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
    backstage: Backstage,
}

#[derive(Debug)]
struct Running {
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

/// A certificate with its key, both PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The chain, the server's own first.
    pub chain_pem: String,
    /// Its key.
    pub key_pem: String,
}

impl Certificate {
    /// A new one for `localhost` and 127.0.0.1; whoever trusts it as a CA trusts the fake.
    ///
    /// # Panics
    /// When none can be made.
    #[must_use]
    pub fn self_signed() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a certificate");
        Self { chain_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() }
    }

    fn server_config(&self, alpn: &[&str]) -> io::Result<ServerConfig> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes()).collect();
        let chain = chain.map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(io::Error::other)?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(io::Error::other)?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

/// What its connections share.
#[derive(Debug)]
struct Shared {
    addr: SocketAddr,
    is_tls: bool,
    /// Whom paths without a provider's name are for; `None` where the path itself tells.
    only: Option<Kind>,
    log: Arc<Log>,
    gates: Arc<Gates>,
    keys: Mutex<HashMap<Kind, String>>,
    next: Mutex<HashMap<Kind, VecDeque<Behaviour>>>,
    always: Mutex<HashMap<Kind, Behaviour>>,
    parts: Mutex<HashMap<String, Arc<[Step]>>>,
}

impl FakeProvider {
    /// One provider on a free port of 127.0.0.1, by plain HTTP/1.1. (The others are there too, below their names.)
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(kind: Kind) -> Self {
        Self::with(loopback(), Some(kind), None, (1, true)).unwrap_or_else(|error| panic!("no fake provider: {error}"))
    }

    /// All of them on a free port of 127.0.0.1, by plain HTTP/1.1.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start_all() -> Self {
        Self::with(loopback(), None, None, (1, true)).unwrap_or_else(|error| panic!("no fake providers: {error}"))
    }

    /// All of them over TLS, on `localhost`; `alpn` is what they speak, such as `["h2", "http/1.1"]`, the best first.
    ///
    /// # Panics
    /// When no port can be had, or the certificate is none.
    #[must_use]
    pub fn start_tls(certificate: &Certificate, alpn: &[&str]) -> Self {
        let tls = certificate.server_config(alpn).expect("a certificate with its key");
        Self::with(loopback(), None, Some(tls), (1, true)).unwrap_or_else(|error| panic!("no fake providers: {error}"))
    }

    /// For measurements and demonstrations: on that address and that many threads, and without keeping what it saw. `only` is whom
    /// paths without a provider's name are for; with `tls`, it speaks h2 too.
    ///
    /// # Errors
    /// When the address cannot be had, or the certificate is none.
    pub fn start_forgetful(addr: SocketAddr, only: Option<Kind>, tls: Option<&Certificate>, threads: usize) -> io::Result<Self> {
        let tls = tls.map(|certificate| certificate.server_config(&["h2", "http/1.1"])).transpose()?;
        Self::with(addr, only, tls, (threads, false))
    }

    fn with(
        addr: SocketAddr,
        only: Option<Kind>,
        tls: Option<ServerConfig>,
        (threads, keep_log): (usize, bool),
    ) -> io::Result<Self> {
        let backstage = Backstage::new(threads, "fake-provider")?;
        let listener = std::net::TcpListener::bind(addr)?;
        let shared = Arc::new(Shared {
            addr: listener.local_addr()?,
            is_tls: tls.is_some(),
            only,
            log: Arc::new(Log::new(keep_log)),
            gates: Arc::new(Gates::new()),
            keys: Mutex::new(Kind::ALL.into_iter().map(|kind| (kind, kind.usual_key().to_owned())).collect()),
            next: Mutex::default(),
            always: Mutex::default(),
            parts: Mutex::default(),
        });
        let fake = Self { shared, running: Mutex::default(), backstage };
        fake.run(listener, tls.map(Arc::new))?;
        Ok(fake)
    }

    /// Where it listens, as a URL without a slash at the end and without a provider's name.
    #[must_use]
    pub fn origin(&self) -> String {
        self.shared.origin()
    }

    /// Where that provider is: what stands before `/v1` at OpenAI, Anthropic and xAI, `/v1beta` at Gemini, `/openai` at Azure.
    #[must_use]
    pub fn url(&self, kind: Kind) -> String {
        format!("{}/{}", self.shared.origin(), kind.name())
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.shared.addr
    }

    /// The key that this provider asks for.
    #[must_use]
    pub fn key(&self, kind: Kind) -> String {
        self.shared.key(kind)
    }

    /// Asks for another key from now on.
    pub fn set_key(&self, kind: Kind, key: &str) {
        locked(&self.shared.keys).insert(kind, key.to_owned());
    }

    /// How the next request to that provider's models is answered, whatever its model's name asks for. Said several times, one
    /// after the other.
    pub fn next(&self, kind: Kind, behaviour: Behaviour) {
        locked(&self.shared.next).entry(kind).or_default().push_back(behaviour);
    }

    /// How every request to that provider's models is answered from now on, as long as no [`Self::next`] is left; `None` for what
    /// their models' names ask for.
    pub fn always(&self, kind: Kind, behaviour: Option<Behaviour>) {
        let mut always = locked(&self.shared.always);
        match behaviour {
            Some(behaviour) => always.insert(kind, behaviour),
            None => always.remove(&kind),
        };
    }

    /// Has a model play a part, in whichever dialect it is asked, instead of saying what its name asks for. How fast it does, and
    /// how it fails, is asked for as ever.
    pub fn plays(&self, model: &str, part: impl IntoIterator<Item = Step>) {
        locked(&self.shared.parts).insert(model.to_owned(), part.into_iter().collect());
    }

    /// Holds every answer of that model before its head, until [`Self::release`].
    pub fn hold_before_headers(&self, model: &str) {
        self.shared.gates.add(model.to_owned(), Point::Headers);
    }

    /// Holds every stream of that model before its token of that number, counted from 0 (thoughts count), until
    /// [`Self::release`]. The head and earlier tokens are out by then.
    pub fn hold_at_token(&self, model: &str, token: u32) {
        self.shared.gates.add(model.to_owned(), Point::Token(token));
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
    }

    /// Every request that reached it, the oldest first; at most 20,000.
    #[must_use]
    pub fn log(&self) -> Vec<Seen> {
        self.shared.log.seen()
    }

    /// How many there were of everything; a forgetful one counts too.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.shared.log.totals()
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.log.open_connections()
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

    fn run(&self, listener: std::net::TcpListener, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let (stop, stopped) = watch::channel(false);
        let shared = self.shared.clone();
        let task = self.backstage.spawn(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, tls.map(TlsAcceptor::from), shared, stopped).await,
                // The listener was bound and made non-blocking above, so only a runtime without I/O could refuse it.
                Err(error) => panic!("no listener: {error}"),
            }
        });
        *locked(&self.running) = Some(Running { stop, task });
        Ok(())
    }
}

impl Drop for FakeProvider {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn origin(&self) -> String {
        if self.is_tls { format!("https://localhost:{}", self.addr.port()) } else { format!("http://{}", self.addr) }
    }

    fn key(&self, kind: Kind) -> String {
        locked(&self.keys).get(&kind).cloned().unwrap_or_default()
    }

    fn part(&self, model: &str) -> Option<Arc<[Step]>> {
        locked(&self.parts).get(model).cloned()
    }

    /// How a request is answered: as a test wants the next one, as it wants all, or as the model's name says.
    fn behaviour(&self, kind: Kind, model: &str) -> Behaviour {
        let next = locked(&self.next).get_mut(&kind).and_then(VecDeque::pop_front);
        let wanted = next.or_else(|| locked(&self.always).get(&kind).cloned());
        wanted.unwrap_or_else(|| Behaviour::of_model(model))
    }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Accepts until told to stop; then closes everything.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // An error means that the fake is gone without having said so.
            _ = stopped.changed() => break,
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, tls.clone(), shared.clone(), Open::new(&shared.log)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, shared: Arc<Shared>, open: Open) {
    // A socket that cannot be told so is closed already, and the next write says it.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return serve_http1(stream, shared, &open).await };
    // Whoever does not get through the handshake sees the reason on their own side.
    let Ok(stream) = tls.accept(stream).await else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(stream, shared, &open).await;
    } else {
        serve_http1(stream, shared, &open).await;
    }
}

async fn serve_http1<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: I, shared: Arc<Shared>, open: &Open) {
    let (takeover, mut taken) = mpsc::channel(1);
    let place = Arc::new(Place { connection: open.number, takeover });
    let service = service_fn(move |request| -> Answering { Box::pin(routes::handle(shared.clone(), place.clone(), request)) });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let ticket = tokio::select! {
        // How a connection ends, its requests' outcomes say.
        _ = &mut connection => return,
        Some(ticket) = taken.recv() => ticket,
    };
    endless_head(connection.into_parts().io.into_inner(), ticket).await;
}

type Answering = Pin<Box<dyn Future<Output = io::Result<hyper::Response<answer::Answer>>> + Send>>;

async fn serve_http2<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: I, shared: Arc<Shared>, open: &Open) {
    let (takeover, _taken) = mpsc::channel(1);
    let place = Arc::new(Place { connection: open.number, takeover });
    let service = service_fn(move |request| routes::handle(shared.clone(), place.clone(), request));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    // Likewise.
    let _ = builder.max_concurrent_streams(STREAMS).serve_connection(TokioIo::new(stream), service).await;
}

/// Header after header, until the client has had enough. The ticket's end is then that the client is gone.
async fn endless_head<I: AsyncWrite + Unpin>(mut stream: I, _ticket: Ticket) {
    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n").await.is_err() {
        return;
    }
    let line = format!("x-fake: {}\r\n", "a".repeat(1024));
    while stream.write_all(line.as_bytes()).await.is_ok() {}
}
