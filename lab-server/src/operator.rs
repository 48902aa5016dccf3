//! The operator's own listener: metrics, and whether the Lab is alive and ready. It knows nobody and tells nothing of anybody.
//!
//! On a loopback address it speaks plain HTTP, as monitoring on the same machine expects; anywhere else only TLS, with the Lab's own
//! certificate.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api_proxy::{ChannelState, Upstream};
use axum::{
    Json, Router,
    body::Body,
    extract::State,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{Request, StatusCode, header, uri::Authority};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::{
    edge::{self, Limits},
    error::ApiError,
    gateway::Gateway,
    meter::Meter,
    metrics::Metrics,
    store::Store,
};

/// How long a part may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections at once on the plain listener: monitoring has one or two.
const CONNECTIONS: usize = 64;
/// How long accepting rests after the system refused.
const ACCEPT_REST: Duration = Duration::from_millis(100);
/// How long requests may still take when the Lab stops.
const DRAIN: Duration = Duration::from_secs(2);

/// The listener, bound before the Lab begins to serve.
pub(crate) struct Operator {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    listener: TcpListener,
    /// `None` for plain HTTP.
    tls: Option<Arc<rustls::ServerConfig>>,
    limits: Limits,
}

/// What readiness depends on.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) meter: Meter,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) draining: Arc<AtomicBool>,
}

impl Operator {
    /// Binds.
    pub(crate) async fn bind(address: SocketAddr, tls: Arc<rustls::ServerConfig>, limits: Limits) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let tls = if address.ip().is_loopback() { None } else { Some(tls) };
        Ok(Self { addr: listener.local_addr()?, listener, tls, limits })
    }

    /// Serves until `stop`.
    pub(crate) async fn serve(self, parts: Parts, stop: CancellationToken) {
        let router = routes(parts);
        match self.tls {
            Some(tls) => edge::serve(self.listener, tls, router, self.limits, stop.cancelled_owned()).await,
            None => plain(self.listener, router.layer(middleware::from_fn(asked_by_this_machine)), self.limits, stop).await,
        }
    }
}

fn routes(parts: Parts) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(parts)
}

/// A page in the operator's browser can make its own name mean this address. It cannot make the browser ask for another name.
async fn asked_by_this_machine(request: Request<Body>, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let is_local = host.is_some_and(|host| {
        let name = host.host().trim_matches(['[', ']']);
        name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    if is_local { next.run(request).await } else { ApiError::NotFound.into_response() }
}

async fn metrics(State(parts): State<Parts>) -> Response {
    match parts.metrics.text(parts.meter.load()) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response(),
        Err(_) => ApiError::Internal.into_response(),
    }
}

/// The process runs.
async fn alive() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(serde_json::json!({ "status": "ok" }))).into_response()
}

/// The process can do what it is for.
async fn ready(State(parts): State<Parts>) -> Response {
    let (status, body) = match parts.unready().await {
        None => (StatusCode::OK, serde_json::json!({ "status": "ready" })),
        Some((code, message)) => {
            (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({ "status": "unready", "code": code, "message": message }))
        }
    };
    (status, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

impl Parts {
    /// Why nobody should be sent here, if nobody should.
    async fn unready(&self) -> Option<(&'static str, &'static str)> {
        if self.draining.load(Ordering::Relaxed) {
            return Some(("draining", "the lab is stopping; what runs may finish"));
        }
        if !matches!(tokio::time::timeout(PATIENCE, self.store.security_epoch()).await, Ok(Ok(_))) {
            return Some(("database", "the database does not answer; see the log"));
        }
        if !self.meter.is_writable() {
            return Some(("journal", "what requests cost cannot be written down; check the disk of the data folder"));
        }
        let channels = self.upstream.health();
        let usable = |state| matches!(state, ChannelState::Ready | ChannelState::Resting);
        // A Lab without providers is one for workstations, and those may come at any time.
        if !channels.is_empty() && !channels.iter().any(|channel| usable(channel.state)) && self.gateway.linked() == 0 {
            return Some(("no_provider", "no channel answers and no workstation is linked; run `1k4-lab check --probe`"));
        }
        None
    }
}

/// Plain HTTP/1 for this machine's own programs.
async fn plain(listener: TcpListener, router: Router, limits: Limits, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(ACCEPT_REST).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(async move {
            let _place = place;
            let service = hyper::service::service_fn(move |request: Request<Incoming>| router.clone().call(request.map(Body::new)));
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_headers(32);
            let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(tcp), service));
            tokio::select! {
                // Errors here are the peer's.
                _ = connection.as_mut() => return,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            let _ = tokio::time::timeout(DRAIN, connection).await;
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
