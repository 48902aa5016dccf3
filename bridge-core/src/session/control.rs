//! The control stream: the Lab opens it first thing, because a server cannot start a request. Events go up in the response,
//! acknowledgements come down in the request. And pulling a model, which is as much the owner's affair.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use wire::{
    ModelName,
    relay::{BridgeEvent, HEARTBEAT_EVERY, LabMessage, PullLine, Refusal, RefusalCode},
};

use super::{Body, LinkSignal, read_body, refused};
use crate::{policy::Pull, shared::Shared};

/// A line of the Lab's is short: an acknowledgement of a few hundred relays.
const MAX_LINE: usize = 64 << 10;
/// Events that wait for the link to take them.
const EVENTS: usize = 64;
/// Snapshots come at most this often: a model's download changes the inventory many times a second.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(100);

/// Opens the control stream: a snapshot, then every change.
pub(super) fn open(messages: Incoming, shared: Arc<Shared>, signals: mpsc::Sender<LinkSignal>) -> Response<Body> {
    let (lines, body) = mpsc::channel(EVENTS);
    tokio::spawn(listen(messages, Arc::clone(&shared), signals));
    tokio::spawn(async move {
        // The only way this ends is that the link is gone, which the link itself notices.
        let _ = tell(&lines, &shared).await;
    });
    Response::new(Body::Lines(body))
}

/// The link is gone.
struct Gone;

async fn tell(lines: &mpsc::Sender<Bytes>, shared: &Shared) -> Result<(), Gone> {
    let mut phases = shared.relays.events();
    let mut snapshots = shared.snapshots();
    let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
    snapshots.mark_changed();
    loop {
        let event = tokio::select! {
            phase = phases.recv() => match phase {
                Ok(event) => event,
                // Too many phases at once: the next snapshot says where things stand.
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return Err(Gone),
            },
            changed = snapshots.changed() => {
                changed.map_err(|_| Gone)?;
                let snapshot = snapshots.borrow_and_update().as_ref().clone();
                let event = BridgeEvent::Snapshot(Box::new(shared.with_relays(snapshot)));
                send(lines, &event).await?;
                tokio::time::sleep(SNAPSHOT_PAUSE).await;
                continue;
            }
            _ = heartbeat.tick() => {
                if !shared.relays.is_wanted() {
                    continue;
                }
                BridgeEvent::Heartbeat
            }
            () = lines.closed() => return Err(Gone),
        };
        send(lines, &event).await?;
    }
}

async fn send(lines: &mpsc::Sender<Bytes>, event: &BridgeEvent) -> Result<(), Gone> {
    lines.send(line(event)).await.map_err(|_| Gone)
}

fn line(value: &impl Serialize) -> Bytes {
    // Our own types, made of strings and numbers: they always serialise.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Reads the Lab's messages. A line that is not one of them is ignored: a newer Lab may say more.
async fn listen(mut messages: Incoming, shared: Arc<Shared>, signals: mpsc::Sender<LinkSignal>) {
    let mut pending = BytesMut::new();
    while let Some(Ok(frame)) = messages.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        pending.extend_from_slice(&data);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(end + 1);
            match serde_json::from_slice(&line) {
                Ok(LabMessage::Ack { received }) => {
                    received.into_iter().for_each(|(id, bytes)| shared.relays.acknowledge(id, bytes));
                }
                Ok(LabMessage::Done { relays }) => relays.into_iter().for_each(|id| shared.relays.done(id)),
                Ok(LabMessage::Drain) => {
                    // Full means that it has been said already.
                    let _ = signals.try_send(LinkSignal::Drain);
                }
                Ok(LabMessage::Goodbye { why }) => {
                    let _ = signals.try_send(LinkSignal::Goodbye(why));
                }
                Ok(LabMessage::Heartbeat) | Err(_) => {}
            }
        }
        if pending.len() > MAX_LINE {
            return;
        }
    }
}

/// The body of a pull.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PullRequest {
    model: ModelName,
}

/// Downloads a model, where the owner lets the Lab ask for that. Dropping the answer stops the download; what has arrived is kept.
pub(super) async fn pull(request: Request<Incoming>, shared: &Shared) -> Response<Body> {
    let policy = shared.policy();
    if policy.may_pull != Pull::Allow {
        let message = "the workstation's owner does not let the Lab download models; they can with `1k4-bridge models pull`";
        return refused(&Refusal::new(RefusalCode::OperationNotShared, message));
    }
    let body = match read_body(request, shared).await {
        Ok((body, _room)) => body,
        Err(refusal) => return refused(&refusal),
    };
    let Ok(PullRequest { model }) = serde_json::from_slice(&body) else {
        return refused(&Refusal::new(RefusalCode::InvalidBody, "a pull names one model, as in {\"model\": \"llama3.2\"}"));
    };
    // Ollama takes the first of three parts as a registry's host, and what is fetched is parsed: only names of its own registry.
    if model.is_cloud() || model.as_str().matches('/').count() > 1 || !policy.shares(&model) {
        return refused(&Refusal::new(
            RefusalCode::ModelNotShared,
            "only models that the owner shares, of Ollama's own registry, can be downloaded this way",
        ));
    }
    let (lines, progress) = mpsc::channel(EVENTS);
    let mut events = Box::pin(shared.ollama.pull(&model));
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let line = match event {
                Ok(progress) => line(&PullLine::Progress(progress)),
                Err(error) => line(&PullLine::Failed { error: error.to_string() }),
            };
            // Whoever asked has gone: dropping `events` stops the download.
            if lines.send(line).await.is_err() {
                return;
            }
        }
    });
    Response::new(Body::Lines(progress))
}
