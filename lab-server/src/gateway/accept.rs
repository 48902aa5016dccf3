//! The door for bridges: a WebSocket upgrade, the hello, and then the link.

use std::{sync::Arc, time::SystemTime};

use axum::{body::Body, extract::State};
use ed25519_dalek::VerifyingKey;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};
use wire::{
    hello::{Challenge, DEADLINE, MAX_MESSAGE, PROTOCOL, Proof, RefusalCode, SUBPROTOCOL, Verdict},
    stream::{LinkStream, websocket_config},
};

use super::{Gateway, link};
use crate::store::Device;

/// A revoked bridge looks again this often, in case the revocation was a mistake.
const REVOKED_RETRY_S: u64 = 15 * 60;

/// `GET` on [`wire::hello::LINK_PATH`].
pub(crate) async fn accept(State(gateway): State<Arc<Gateway>>, mut request: Request<Body>) -> Response<Body> {
    let key = match upgrade_key(request.headers()) {
        Ok(key) => key,
        Err(status) => return answer(status),
    };
    let accepted = derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        // A connection that broke during its upgrade has nobody left to be told.
        if let Ok(upgraded) = upgrade.await {
            greet(gateway, upgraded).await;
        }
    });
    let mut response = answer(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Ok(accepted) = HeaderValue::try_from(accepted) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accepted);
    }
    response
}

/// The client's key, when the request is a WebSocket upgrade to a protocol that is spoken here.
fn upgrade_key(headers: &HeaderMap) -> Result<HeaderValue, StatusCode> {
    let has = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value: &HeaderValue| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    // A browser has no business here, and one that is made to come brings its origin.
    if headers.contains_key(header::ORIGIN) {
        return Err(StatusCode::FORBIDDEN);
    }
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "websocket") || !has(header::SEC_WEBSOCKET_VERSION, "13") {
        return Err(StatusCode::BAD_REQUEST);
    }
    if !has(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(StatusCode::UPGRADE_REQUIRED);
    }
    headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24).cloned().ok_or(StatusCode::BAD_REQUEST)
}

/// From the upgraded socket to a link that is known to the registry.
async fn greet(gateway: Arc<Gateway>, upgraded: Upgraded) {
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(websocket_config())).await;
    let heard = tokio::time::timeout(DEADLINE, hello(&gateway, &mut socket)).await;
    match heard {
        Ok(Ok(device)) => {
            let epoch = gateway.registry.next_epoch();
            let welcome = Verdict::Welcome { epoch, time: unix_seconds() };
            // Whoever does not take the verdict in holds nothing up.
            if matches!(tokio::time::timeout(DEADLINE, say(&mut socket, &welcome)).await, Ok(Ok(()))) {
                tracing::info!(device = %device.id, epoch, "a bridge is linked");
                link::live(gateway, device, epoch, LinkStream::new(socket)).await;
            }
        }
        Ok(Err(NoHello::Refuse(code))) => {
            let retry_after_s = (code == RefusalCode::Revoked).then_some(REVOKED_RETRY_S);
            // Whoever does not wait for the reason does not get it.
            let refused = Verdict::Refused { code, retry_after_s };
            let last_words = async {
                let _ = say(&mut socket, &refused).await;
                let _ = socket.close(None).await;
            };
            let _ = tokio::time::timeout(DEADLINE, last_words).await;
        }
        Ok(Err(NoHello::Gone)) | Err(_) => {}
    }
}

enum NoHello {
    /// Tell it so.
    Refuse(RefusalCode),
    /// It is gone, or does not speak the protocol.
    Gone,
}

async fn hello(gateway: &Gateway, socket: &mut WebSocketStream<TokioIo<Upgraded>>) -> Result<Device, NoHello> {
    if gateway.is_draining() {
        return Err(NoHello::Refuse(RefusalCode::Unavailable));
    }
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| NoHello::Refuse(RefusalCode::Unavailable))?;
    let lab = gateway.origin.as_str().to_owned();
    say(socket, &Challenge { nonce, lab: lab.clone() }).await?;
    let proof: Proof = loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) if text.len() <= MAX_MESSAGE => {
                break serde_json::from_str(&text).map_err(|_| NoHello::Refuse(RefusalCode::BadProof))?;
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return Err(NoHello::Gone),
        }
    };
    if proof.protocol != PROTOCOL {
        return Err(NoHello::Refuse(RefusalCode::UpgradeRequired));
    }
    let device = gateway.store.device(proof.device).await.map_err(|_| NoHello::Refuse(RefusalCode::Unavailable))?;
    let Some(device) = device else { return Err(NoHello::Refuse(RefusalCode::Revoked)) };
    let key = VerifyingKey::from_bytes(&device.public_key).map_err(|_| NoHello::Refuse(RefusalCode::BadProof))?;
    // The signature first: who cannot sign learns nothing of whether the device was revoked.
    proof.verify(&key, &lab, &nonce).map_err(|_| NoHello::Refuse(RefusalCode::BadProof))?;
    if device.revoked_at.is_some() {
        return Err(NoHello::Refuse(RefusalCode::Revoked));
    }
    Ok(device)
}

async fn say(socket: &mut WebSocketStream<TokioIo<Upgraded>>, message: &impl Serialize) -> Result<(), NoHello> {
    // Our own types always serialise.
    let text = serde_json::to_string(message).unwrap_or_default();
    socket.send(Message::text(text)).await.map_err(|_| NoHello::Gone)
}

fn answer(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
