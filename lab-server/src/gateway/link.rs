//! One link to one bridge: an HTTP/2 client over its WebSocket, and the control stream that goes with it.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, mpsc},
};
use tokio_util::sync::CancellationToken;
use wire::{
    Content, DeviceId, ModelName, RelayId,
    relay::{
        BridgeEvent, CONNECTION_WINDOW, CONTROL_PATH, Goodbye, HEARTBEAT_EVERY, LabMessage, OPERATION, Operation, PING_EVERY,
        PING_TIMEOUT, PULL_PATH, RELAYS_PATH, STREAM_WINDOW,
    },
    stream::{LinkStream, Pulse},
};

use super::Gateway;
use crate::store::Device;

/// Acknowledgements wait this long for company: ten thousand small answers a second then cost fifty messages, not ten thousand.
const GATHER: Duration = Duration::from_millis(20);
/// The longest line that a bridge may send: a snapshot of a thousand models.
const MAX_LINE: usize = 1 << 20;
/// The most relays that a snapshot may name: several times what any owner's limits allow.
const MAX_RELAYS: usize = 8192;
/// How long the last words may take to leave.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A handle on a link.
pub(crate) struct Link {
    epoch: u64,
    requests: SendRequest<RequestBody>,
    pulse: Pulse,
    /// What the next message on the control stream will say.
    outbox: Mutex<Outbox>,
    news: Notify,
    /// The last words are being said: relays leave it for the next one, whether or not anybody still hears them.
    leaving: CancellationToken,
    /// Ends the link's task, and with it everything that runs on the link.
    ended: CancellationToken,
    born: Instant,
    /// Milliseconds from `born` to the last heartbeat that was put out.
    heartbeat: AtomicU64,
}

#[derive(Default)]
struct Outbox {
    received: HashMap<RelayId, u64>,
    done: Vec<RelayId>,
    heartbeat: bool,
    drain: bool,
    goodbye: Option<Goodbye>,
}

/// The link's life: from the hello to its end. Returns when it is over.
pub(super) async fn live<T>(gateway: Arc<Gateway>, device: Device, epoch: u64, stream: LinkStream<T>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pulse = stream.pulse();
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .handshake(TokioIo::new(stream));
    let Ok((requests, connection)) = handshake.await else { return };
    let link = Arc::new(Link {
        epoch,
        requests,
        pulse,
        outbox: Mutex::default(),
        news: Notify::new(),
        leaving: CancellationToken::new(),
        ended: CancellationToken::new(),
        born: Instant::now(),
        heartbeat: AtomicU64::new(0),
    });
    gateway.registry.link(&device, &link);
    tokio::select! {
        // How it broke is of no use to anyone: the bridge dials again or does not.
        _ = connection => {}
        () = link.ended.cancelled() => {}
        () = begin(&gateway, device.id, &link) => {}
    }
    link.ended.cancel();
    gateway.registry.unlink(device.id, epoch);
    tracing::info!(device = %device.id, epoch, "a bridge's link has ended");
}

/// Looks once more whether the device may be here, and talks to it until it closes.
async fn begin(gateway: &Gateway, device: DeviceId, link: &Arc<Link>) {
    // A revocation between the hello and the registry found no link to end.
    match gateway.store.device(device).await {
        Ok(Some(found)) if found.revoked_at.is_none() => converse(gateway, device, link).await,
        Ok(_) => {
            gateway.registry.revoke(device);
            converse(gateway, device, link).await;
        }
        // The bridge dials again.
        Err(error) => tracing::error!(%error, "the device could not be looked up; its link is ended"),
    }
}

/// The control stream, both ways. Ends when the bridge closes it.
async fn converse(gateway: &Gateway, device: DeviceId, link: &Link) {
    let (lines, body) = mpsc::channel(4);
    let opened = link.send(Method::POST, CONTROL_PATH.to_owned(), None, RequestBody::Lines(body));
    // The answer comes at once; the bridge's hello is proof that it is awake.
    let Ok(response) = opened.await else { return };
    tokio::select! {
        () = listen(gateway, device, link, response.into_body()) => {}
        () = speak(link, &lines) => {}
    }
}

async fn listen(gateway: &Gateway, device: DeviceId, link: &Link, mut events: Incoming) {
    let mut pending = BytesMut::new();
    // What has been looked through without finding a line's end is not looked through again.
    let mut seen = 0;
    while let Some(Ok(frame)) = events.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending[seen..].iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(seen + end + 1);
            seen = 0;
            // A newer bridge may say more than this Lab understands.
            match serde_json::from_slice(&line) {
                Ok(BridgeEvent::Snapshot(snapshot)) => {
                    if snapshot.relays.len() > MAX_RELAYS {
                        return;
                    }
                    link.done(gateway.registry.snapshot(device, link.epoch, *snapshot));
                }
                // Answered each time: a caller who does not read keeps this side silent otherwise.
                Ok(BridgeEvent::Heartbeat) => link.post(|outbox| outbox.heartbeat = true),
                Ok(BridgeEvent::Relay { id, phase }) => gateway.registry.phase(device, id, phase),
                Err(_) => {}
            }
        }
        seen = pending.len();
        if seen > MAX_LINE {
            return;
        }
    }
}

async fn speak(link: &Link, lines: &mpsc::Sender<Bytes>) {
    loop {
        link.news.notified().await;
        tokio::time::sleep(GATHER).await;
        let outbox = std::mem::take(&mut *link.lock_outbox());
        let goodbye = outbox.goodbye;
        for message in outbox.into_messages() {
            // Our own types always serialise.
            let mut line = serde_json::to_vec(&message).unwrap_or_default();
            line.push(b'\n');
            if lines.send(line.into()).await.is_err() {
                return;
            }
        }
        if goodbye.is_some() {
            tokio::time::sleep(LAST_WORDS).await;
            return;
        }
    }
}

impl Link {
    /// Counts links; the newest one of a device wins.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether requests can be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.leaving.is_cancelled() && !self.ended.is_cancelled() && !self.requests.is_closed()
    }

    /// Returns when nothing more is to be read from it, although it may live for a moment.
    pub(crate) async fn left(&self) {
        self.leaving.cancelled().await;
    }

    /// Ends the link at once. Relays go on at the bridge and are resumed on its next link.
    pub(crate) fn kill(&self) {
        self.ended.cancel();
    }

    /// How long the bridge has been silent.
    pub(crate) fn silence(&self) -> Duration {
        self.pulse.silence()
    }

    /// Starts a relay, or finds it when it was started before a cut.
    pub(crate) async fn start(
        &self,
        relay: RelayId,
        operation: Operation,
        body: Content,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.send(Method::PUT, format!("{RELAYS_PATH}{relay}"), Some(operation), RequestBody::Whole(Some(body))).await
    }

    /// Has a model downloaded. The answer's lines are [`wire::relay::PullLine`]s, or it is a refusal.
    pub(crate) async fn pull(&self, model: &ModelName) -> Result<Response<Incoming>, hyper::Error> {
        let body = serde_json::json!({ "model": model }).to_string();
        self.send(Method::POST, PULL_PATH.to_owned(), None, RequestBody::Whole(Some(Bytes::from(body).into()))).await
    }

    /// Reads a relay again from a byte on.
    pub(crate) async fn resume(&self, relay: RelayId, from: u64) -> Result<Response<Incoming>, hyper::Error> {
        self.send(Method::GET, format!("{RELAYS_PATH}{relay}?from={from}"), None, RequestBody::Whole(None)).await
    }

    /// Ends a relay at the workstation.
    pub(crate) async fn cancel(&self, relay: RelayId) -> Result<Response<Incoming>, hyper::Error> {
        self.send(Method::DELETE, format!("{RELAYS_PATH}{relay}"), None, RequestBody::Whole(None)).await
    }

    /// So many bytes of a relay have arrived.
    pub(crate) fn acknowledge(&self, relay: RelayId, received: u64) {
        self.post(|outbox| {
            outbox.received.insert(relay, received);
        });
    }

    /// These relays are over.
    pub(crate) fn done(&self, relays: impl IntoIterator<Item = RelayId>) {
        let waiting = {
            let mut outbox = self.lock_outbox();
            for relay in relays {
                outbox.received.remove(&relay);
                outbox.done.push(relay);
            }
            outbox.done.len()
        };
        self.news.notify_one();
        // A bridge that does not take its mail.
        if waiting > 2 * MAX_RELAYS {
            self.kill();
        }
    }

    /// Lets the bridge know that the Lab lives, at most every [`HEARTBEAT_EVERY`]. Called by whoever has a relay running.
    pub(crate) fn heartbeat(&self) {
        let now = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        let last = self.heartbeat.load(Ordering::Relaxed);
        let is_due = Duration::from_millis(now.saturating_sub(last)) >= HEARTBEAT_EVERY;
        if is_due && self.heartbeat.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.post(|outbox| outbox.heartbeat = true);
        }
    }

    /// The Lab is going away.
    pub(crate) fn drain(&self) {
        self.post(|outbox| outbox.drain = true);
    }

    /// The last words on this link; it ends when they are said.
    pub(crate) fn goodbye(self: &Arc<Self>, why: Goodbye) {
        self.leaving.cancel();
        self.post(|outbox| outbox.goodbye = Some(why));
        // A link that is dead already does not hear them, and must not linger.
        let link = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(GATHER + LAST_WORDS) => link.kill(),
                () = link.ended.cancelled() => {}
            }
        });
    }

    fn post(&self, write: impl FnOnce(&mut Outbox)) {
        write(&mut self.lock_outbox());
        self.news.notify_one();
    }

    async fn send(
        &self,
        method: Method,
        path: String,
        operation: Option<Operation>,
        body: RequestBody,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // A path of ours is made of constants, an id and digits.
        *request.uri_mut() = format!("http://bridge{path}").parse().unwrap_or_default();
        if let Some(operation) = operation {
            request.headers_mut().insert(OPERATION, HeaderValue::from_static(operation.as_str()));
        }
        self.requests.clone().send_request(request).await
    }

    fn lock_outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    fn into_messages(self) -> Vec<LabMessage> {
        let mut messages = Vec::new();
        if !self.received.is_empty() {
            messages.push(LabMessage::Ack { received: self.received.into_iter().collect() });
        }
        // A line has a limit at the other end; a relay's id takes 33 bytes of it.
        messages.extend(self.done.chunks(1000).map(|relays| LabMessage::Done { relays: relays.to_vec() }));
        if self.heartbeat {
            messages.push(LabMessage::Heartbeat);
        }
        if self.drain {
            messages.push(LabMessage::Drain);
        }
        messages.extend(self.goodbye.map(|why| LabMessage::Goodbye { why }));
        messages
    }
}

/// The body of a request to a bridge.
pub(crate) enum RequestBody {
    /// All of it at once, or nothing.
    Whole(Option<Content>),
    /// Lines, as they come.
    Lines(mpsc::Receiver<Bytes>),
}

impl http_body::Body for RequestBody {
    type Data = Content;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Content>, io::Error>>> {
        match &mut *self {
            Self::Whole(content) => Poll::Ready(content.take().map(|content| Ok(Frame::data(content)))),
            Self::Lines(lines) => lines.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line.into())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(content) => content.is_none(),
            Self::Lines(_) => false,
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Self::Whole(content) => http_body::SizeHint::with_exact(content.as_ref().map_or(0, |content| content.len() as u64)),
            Self::Lines(_) => http_body::SizeHint::default(),
        }
    }
}
