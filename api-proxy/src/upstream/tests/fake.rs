//! Providers that do as they are told, on sockets of their own.

use std::{
    convert::Infallible,
    future::pending,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    sync::{Barrier, Notify, Semaphore, SemaphorePermit},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

/// What a fake does with a request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Says this and waits for the next request.
    Say(Vec<u8>),
    /// Says this and closes.
    SayAndClose(Vec<u8>),
    /// Says this and nothing more, until the other side goes.
    SayAndHang(Vec<u8>),
    /// Says the first and then the second again and again, until the other side goes.
    SayForever(&'static str, &'static str),
}

/// A request, as it came.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

/// A provider that speaks HTTP/1.
#[derive(Clone)]
pub(super) struct Fake {
    pub(super) base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    gone: Arc<Semaphore>,
}

impl Fake {
    /// One that always does the same.
    pub(super) async fn always(reply: Reply) -> Self {
        Self::new(move |_, _| reply.clone()).await
    }

    /// One that does what the script says of each request, given its number and its number on its connection, from 0.
    pub(super) async fn new(script: impl Fn(usize, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self { base, seen: Arc::default(), connections: Arc::default(), gone: Arc::new(Semaphore::new(0)) };
        let (script, of_fake) = (Arc::new(script), fake.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                of_fake.connections.fetch_add(1, Ordering::SeqCst);
                let _ = socket.set_nodelay(true);
                tokio::spawn(serve(socket, of_fake.clone(), Arc::clone(&script)));
            }
        });
        fake
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Whether the other side of some connection goes within the time.
    pub(super) async fn is_left_within(&self, time: Duration) -> bool {
        timeout(time, self.gone.acquire()).await.is_ok_and(|permit| {
            permit.is_ok_and(|permit| {
                permit.forget();
                true
            })
        })
    }
}

async fn serve<S>(mut socket: S, fake: Fake, script: Arc<impl Fn(usize, usize) -> Reply + Send + Sync + 'static>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut on_connection = 0;
    while let Some(request) = read(&mut socket).await {
        let number = {
            let mut seen = fake.seen.lock().unwrap();
            seen.push(request);
            seen.len() - 1
        };
        let reply = script(number, on_connection);
        on_connection += 1;
        match reply {
            Reply::Say(bytes) => {
                let _ = socket.write_all(&bytes).await;
            }
            Reply::SayAndClose(bytes) => {
                let _ = socket.write_all(&bytes).await;
                let _ = socket.shutdown().await;
                return;
            }
            Reply::SayAndHang(bytes) => {
                let _ = socket.write_all(&bytes).await;
                let _ = socket.read_to_end(&mut Vec::new()).await;
                break;
            }
            Reply::SayForever(first, again) => {
                let _ = socket.write_all(first.as_bytes()).await;
                while socket.write_all(again.as_bytes()).await.is_ok() {}
                break;
            }
        }
    }
    fake.gone.add_permits(1);
}

async fn read(socket: &mut (impl AsyncRead + Unpin)) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = memchr::memmem::find(&bytes, b"\r\n\r\n") {
            break at;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if socket.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Seen { head, body })
}

/// A provider that speaks HTTP/2 over TLS.
pub(super) struct TlsFake {
    pub(super) base: String,
    pub(super) client: Arc<rustls::ClientConfig>,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    left: Arc<Semaphore>,
}

/// What a fake over HTTP/2 does with its requests.
#[derive(Clone)]
pub(super) enum Manner {
    /// Answers with what it was sent, once so many requests are there at the same time.
    Together(Arc<Barrier>),
    /// Answers one request on each connection, and falls over at the next.
    Once,
    /// Answers the first so many when all of them are there, and then does as the one above.
    TogetherThenOnce(Arc<Barrier>, Arc<Semaphore>),
    /// Begins an answer and never ends it.
    Begin,
}

impl TlsFake {
    pub(super) async fn new(streams: u32, manner: Manner) -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut server =
            rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        server.alpn_protocols = vec![b"h2".to_vec()];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let client = Arc::new(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let fake = Self { base, client, connections: Arc::default(), requests: Arc::default(), left: Arc::new(Semaphore::new(0)) };
        let (connections, requests, left) = (Arc::clone(&fake.connections), Arc::clone(&fake.requests), Arc::clone(&fake.left));
        let acceptor = TlsAcceptor::from(Arc::new(server));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, requests, left, manner) =
                    (acceptor.clone(), Arc::clone(&requests), Arc::clone(&left), manner.clone());
                tokio::spawn(async move {
                    let Ok(socket) = acceptor.accept(socket).await else { return };
                    let (fallen, on_connection) = (Arc::new(Notify::new()), AtomicUsize::new(0));
                    let falls = Arc::clone(&fallen);
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        requests.fetch_add(1, Ordering::SeqCst);
                        let is_first = on_connection.fetch_add(1, Ordering::SeqCst) == 0;
                        let answer = Answer { bytes: None, ends: true, left: Some(Arc::clone(&left)) };
                        answer_as(manner.clone(), request, is_first, Arc::clone(&falls), answer)
                    });
                    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    tokio::select! {
                        _ = builder.max_concurrent_streams(streams).serve_connection(TokioIo::new(socket), service) => {}
                        () = fallen.notified() => {}
                    }
                });
            }
        });
        fake
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Whether some request is given up within the time.
    pub(super) async fn is_left_within(&self, time: Duration) -> bool {
        timeout(time, self.left.acquire()).await.is_ok()
    }
}

async fn answer_as(
    manner: Manner,
    request: http::Request<hyper::body::Incoming>,
    is_first: bool,
    falls: Arc<Notify>,
    mut answer: Answer,
) -> Result<Response<Answer>, Infallible> {
    let body = request.into_body().collect().await.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
    match manner {
        Manner::Together(barrier) => {
            barrier.wait().await;
        }
        Manner::TogetherThenOnce(barrier, first) if first.try_acquire().map(SemaphorePermit::forget).is_ok() => {
            barrier.wait().await;
        }
        Manner::Once | Manner::TogetherThenOnce(..) if is_first => {}
        Manner::Once | Manner::TogetherThenOnce(..) => {
            falls.notify_one();
            pending::<()>().await;
        }
        Manner::Begin => answer.ends = false,
    }
    answer.bytes = Some(body);
    Ok(Response::new(answer))
}

/// An answer, which notices when it is given up before its end.
struct Answer {
    bytes: Option<Bytes>,
    ends: bool,
    left: Option<Arc<Semaphore>>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.bytes.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None if self.ends => {
                self.left = None;
                Poll::Ready(None)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(left) = &self.left {
            left.add_permits(1);
        }
    }
}
