//! One answer from a workstation, whole, whatever happens to the link underneath.
//!
//! [`relay`] starts a task that owns the answer until its end. The task asks the bridge, passes bytes on, counts them, and when the
//! link breaks it waits for the next one and goes on from the byte it has. A caller who hangs up is a `DELETE` at the bridge.

use std::{sync::Arc, time::Duration};

use api_proxy::{Answer, AnswerBody, AnswerSender, HungUp, NotRelayed, Order, Part};
use bytes::Buf;
use futures_util::FutureExt;
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::{
    sync::oneshot,
    time::{Instant, Interval, MissedTickBehavior},
};
use wire::{
    Content, DeviceId, RelayId,
    relay::{ACK_EVERY, ENDING, Ending, FROM_OLLAMA, Failure, ORIGIN, Outcome, Refusal, RefusalCode, SILENCE_LIMIT},
};

use super::{
    Gateway,
    link::Link,
    registry::{Active, Registry},
};

/// Parts that may wait for a caller who reads slowly. Each is at most one HTTP/2 frame of 16 KiB; beyond them the stream's window
/// fills, then the bridge's journal, and then Ollama waits.
const DEPTH: usize = 16;
/// A caller who has not read a byte for this long has gone, whatever their connection says.
const PATIENCE: Duration = Duration::from_secs(300);
/// The body of a bridge's refusal is a sentence.
const MAX_REFUSAL: usize = 16 << 10;

/// Asks a workstation. Dropping the future, or the answer's body, cancels the relay.
pub(super) async fn relay(gateway: &Gateway, device: DeviceId, order: Order) -> Result<Answer, NotRelayed> {
    let relay = RelayId::random();
    let (sender, body) = AnswerBody::channel(DEPTH);
    let (head, beginning) = oneshot::channel();
    let conversation = Conversation {
        registry: Arc::clone(&gateway.registry),
        device,
        relay,
        active: gateway.registry.activate(device, relay, order.request),
        order,
        sender,
        head: Some(head),
        received: 0,
        acknowledged: 0,
        link: None,
    };
    tokio::spawn(conversation.run());
    let (status, content_type) = beginning.await.unwrap_or(Err(NotRelayed::LinkLost))?;
    Ok(Answer { relay, status, content_type, body })
}

type Beginning = Result<(u16, HeaderValue), NotRelayed>;

struct Conversation {
    registry: Arc<Registry>,
    device: DeviceId,
    relay: RelayId,
    order: Order,
    sender: AnswerSender,
    /// Where the head goes, until it has gone.
    head: Option<oneshot::Sender<Beginning>>,
    /// Bytes that have arrived here.
    received: u64,
    acknowledged: u64,
    /// The link that was last asked on.
    link: Option<Arc<Link>>,
    active: Active,
}

/// What came of the wish for a link.
enum Reached {
    /// One that is open.
    Link(Arc<Link>),
    /// There is none, and there was none in time.
    Nothing,
    /// The caller hung up.
    HungUp,
}

/// What one link gave.
enum Heard {
    /// The answer's end.
    End(Ending),
    /// The bridge's own answer.
    Refused(Refusal),
    /// The link broke, or this stream of it.
    Cut,
    /// The caller hung up.
    HungUp,
}

impl Conversation {
    /// The answer's whole life.
    async fn run(mut self) {
        loop {
            let link = match self.reach().await {
                Reached::Link(link) => link,
                Reached::Nothing => return self.no_link().await,
                Reached::HungUp => return self.hang_up().await,
            };
            let before = self.received;
            match self.hear(&link).await {
                Heard::End(ending) => {
                    link.done([self.relay]);
                    // Nobody to tell when the caller left at the very end.
                    let _ = self.sender.send(Part::End(ending)).await;
                    return;
                }
                Heard::Refused(refusal) => {
                    // It may have been started before it was refused.
                    link.done([self.relay]);
                    return self.refused(refusal).await;
                }
                Heard::Cut if link.is_open() && self.received == before => {
                    // A stream that breaks twice in the same place while its link lives is the link's fault.
                    if self.link.replace(Arc::clone(&link)).is_some_and(|last| last.epoch() == link.epoch()) {
                        link.kill();
                    }
                }
                Heard::Cut => {}
                Heard::HungUp => return self.hang_up().await,
            }
        }
    }

    /// The link, or the next one within the resume window.
    async fn reach(&self) -> Reached {
        let reached = async {
            if let Some(link) = self.registry.reach_now(self.device) {
                return Some(link);
            }
            // Nobody is told any more once the caller has hung up.
            self.registry.away(self.device, self.relay, true);
            let link = self.registry.reach(self.device).await;
            self.registry.away(self.device, self.relay, false);
            link
        };
        tokio::select! {
            biased;
            () = self.sender.closed() => Reached::HungUp,
            link = reached => link.map_or(Reached::Nothing, Reached::Link),
        }
    }

    /// Asks on one link and passes on what comes, for as long as it comes.
    async fn hear(&mut self, link: &Arc<Link>) -> Heard {
        let response = match self.ask(link).await {
            Ok(response) => response,
            Err(heard) => return heard,
        };
        if response.headers().get(ORIGIN).is_none_or(|origin| origin != FROM_OLLAMA) {
            return refusal(response).await.map_or(Heard::Cut, Heard::Refused);
        }
        self.begin(&response);
        let mut body = response.into_body();
        let mut left = std::pin::pin!(link.left());
        let mut watch = Watch::begin();
        loop {
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = self.sender.closed() => return Heard::HungUp,
                () = &mut left => return Heard::Cut,
                heard = watch.over(link) => return heard,
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if let Err(heard) = self.pass_on(link, data.into()).await {
                            return heard;
                        }
                    }
                    Err(frame) => match frame.trailers_ref().and_then(ending) {
                        Some(ending) => return Heard::End(ending),
                        None => return Heard::Cut,
                    },
                },
                // An end without an ending is no end.
                Some(Err(_)) | None => return Heard::Cut,
            }
        }
    }

    /// Sends the request: the whole of it until an answer has begun, and from then on only "go on from here".
    async fn ask(&self, link: &Arc<Link>) -> Result<Response<Incoming>, Heard> {
        let mut answer = std::pin::pin!(async {
            if self.head.is_some() {
                link.start(self.relay, self.order.operation, self.order.body.for_retry()).await
            } else {
                link.resume(self.relay, self.received).await
            }
        });
        let mut watch = Watch::begin();
        tokio::select! {
            biased;
            answer = &mut answer => answer.map_err(|_| Heard::Cut),
            () = self.sender.closed() => Err(Heard::HungUp),
            () = link.left() => Err(Heard::Cut),
            heard = watch.over(link) => Err(heard),
        }
    }

    fn begin(&mut self, response: &Response<Incoming>) {
        let Some(head) = self.head.take() else { return };
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        // From here on only "go on from this byte" is asked.
        self.order.body = Content::default();
        // A caller who has gone is noticed by the channel of the body.
        let _ = head.send(Ok((response.status().as_u16(), content_type)));
    }

    /// Gives bytes to the caller as soon as there is room. They count as arrived only then: a link that breaks while a caller does
    /// not read is replaced, and the next one brings them again.
    async fn pass_on(&mut self, link: &Arc<Link>, content: Content) -> Result<(), Heard> {
        let length = content.remaining() as u64;
        let room = match self.sender.room().now_or_never() {
            Some(room) => room.map_err(|HungUp| Heard::HungUp)?,
            None => {
                let mut watch = Watch::begin();
                tokio::select! {
                    biased;
                    room = self.sender.room() => room.map_err(|HungUp| Heard::HungUp)?,
                    () = link.left() => return Err(Heard::Cut),
                    heard = watch.over(link) => return Err(heard),
                    () = tokio::time::sleep(PATIENCE) => return Err(Heard::HungUp),
                }
            }
        };
        room.send(Part::Bytes(content));
        self.received += length;
        if self.received - self.acknowledged >= ACK_EVERY {
            self.acknowledged = self.received;
            link.acknowledge(self.relay, self.received);
        }
        Ok(())
    }

    /// The bridge's own answer. After a cut it can only mean that the relay is gone.
    async fn refused(mut self, refusal: Refusal) {
        match self.head.take() {
            // The caller may be gone by now.
            Some(head) => drop(head.send(Err(NotRelayed::Refused(refusal)))),
            None => self.lost().await,
        }
    }

    async fn no_link(mut self) {
        match self.head.take() {
            Some(head) => drop(head.send(Err(NotRelayed::Offline))),
            None => self.lost().await,
        }
    }

    async fn lost(self) {
        let ending = Ending { outcome: Outcome::Failed(Failure::LinkLost), usage: None };
        let _ = self.sender.send(Part::End(ending)).await;
    }

    /// The caller has gone: Ollama is to stop now. Without a link there is nobody to tell; the bridge's next snapshot names the
    /// relay, and then it is ended as nobody's.
    async fn hang_up(self) {
        let Self { registry, device, relay, active, .. } = self;
        drop(active);
        let Some(link) = registry.reach_now(device) else { return };
        // Twice, because a request may have to wait for a stream, and this may not.
        link.done([relay]);
        let _ = tokio::time::timeout(SILENCE_LIMIT, link.cancel(relay)).await;
    }
}

/// While an answer is awaited, the link is watched: each side says something every few seconds.
struct Watch {
    tick: Interval,
    began: Instant,
}

impl Watch {
    fn begin() -> Self {
        const EVERY: Duration = Duration::from_secs(1);
        let began = Instant::now();
        let mut tick = tokio::time::interval_at(began + EVERY, EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tick, began }
    }

    /// Ready when the link is over, or has been silent for too long since the watch began: what it was before, while nobody asked
    /// anything, is no sign of death.
    async fn over(&mut self, link: &Link) -> Heard {
        loop {
            self.tick.tick().await;
            link.heartbeat();
            if link.silence().min(self.began.elapsed()) > SILENCE_LIMIT {
                link.kill();
            }
            if !link.is_open() {
                return Heard::Cut;
            }
        }
    }
}

/// What a bridge says instead of an answer; `None` when the link breaks meanwhile.
pub(super) async fn refusal(response: Response<Incoming>) -> Option<Refusal> {
    let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await.ok()?;
    Some(serde_json::from_slice(&body.to_bytes()).unwrap_or_else(|_| {
        Refusal::new(RefusalCode::Unlisted, "the workstation's bridge answered something that this Lab does not understand")
    }))
}

fn ending(trailers: &HeaderMap) -> Option<Ending> {
    let ending = serde_json::from_slice(trailers.get(ENDING)?.as_bytes());
    // A newer bridge may know more ways to fail than this Lab.
    Some(ending.unwrap_or(Ending { outcome: Outcome::Failed(Failure::LinkLost), usage: None }))
}
