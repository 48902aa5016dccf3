//! The serving half: guard, route, answer.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Mutex, Semaphore},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::{ModelName, RelayId};

use super::{ActivityList, Claim, ErrorBody, ErrorDetail, HOST, LogRing, MAX_BODY, Matching, Models, Named, OwnModel, Pause, Pull};
use crate::{
    bridge::{Handle, PolicyError},
    config::ConfigError,
    ollama::{self, PullProgress, Runs},
    policy::{InvalidPolicy, Policy},
};

/// Connections at once. A tray and a handful of commands need ten.
const CONNECTIONS: usize = 64;
/// A client of this machine that takes longer for the head of a request is not one of ours.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long answers that are being written may take once the bridge stops.
const DRAIN: Duration = Duration::from_secs(2);

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The control API while it is served. It holds the claim, so the next bridge can start when it has been shut down.
pub struct Server {
    quit: CancellationToken,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    /// Serves `bridge` on the socket of `claim`.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn start(claim: Claim, bridge: Handle, logs: LogRing) -> io::Result<Self> {
        let mut listener = claim.listen()?;
        let (quit, stop) = (CancellationToken::new(), CancellationToken::new());
        let api = Arc::new(Api { bridge, logs, changing_policy: Mutex::new(()), quit: quit.clone(), stop: stop.clone() });
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let connections = TaskTracker::new();
            let room = Arc::new(Semaphore::new(CONNECTIONS));
            let accepting = async {
                loop {
                    // Closed never: the semaphore lives as long as this loop.
                    let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                    match listener.accept().await {
                        Ok(connection) => {
                            let serving = serve_connection(connection, Arc::clone(&api));
                            connections.spawn(async move {
                                serving.await;
                                drop(permit);
                            });
                        }
                        Err(error) => {
                            tracing::warn!(kind = %error.kind(), "the control socket failed to accept");
                            // Out of file descriptors, most likely: without a pause this would spin.
                            tokio::time::sleep(Duration::from_millis(100)).await;
                        }
                    }
                }
            };
            stopped.run_until_cancelled(accepting).await;
            drop(listener);
            connections.close();
            if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
                tracing::debug!("a client of the control socket did not finish in time");
            }
            drop(claim);
        });
        Ok(Self { quit, stop, task })
    }

    /// Returns when somebody asked for `POST /v1/quit`.
    pub async fn quit_asked(&self) {
        self.quit.cancelled().await;
    }

    /// Stops accepting, lets answers finish, gives the claim back.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if self.task.await.is_err() {
            tracing::error!("the control API ended in a panic");
        }
    }
}

struct Api {
    bridge: Handle,
    logs: LogRing,
    /// Held from reading the policy to having changed it: the tray and a command may do so at once.
    changing_policy: Mutex<()>,
    quit: CancellationToken,
    stop: CancellationToken,
}

async fn serve_connection<C: AsyncRead + AsyncWrite + Unpin + Send + 'static>(connection: C, api: Arc<Api>) {
    let stop = api.stop.clone();
    let service = hyper::service::service_fn(move |request| {
        let api = Arc::clone(&api);
        async move { Ok::<_, Infallible>(answer(&api, request).await) }
    });
    let mut serving = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_buf_size(16 << 10)
            .serve_connection(TokioIo::new(connection), service)
    );
    let served = tokio::select! {
        served = serving.as_mut() => served,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if served.is_err() {
        // A client that went away in the middle; there is nobody to tell.
        tracing::debug!("a control connection broke");
    }
}

/// One request's whole life.
async fn answer(api: &Arc<Api>, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let answered = match guard(&head) {
        Ok(()) => route(api, &head, body).await,
        Err(refused) => Err(refused),
    };
    let mut response = answered.unwrap_or_else(|error| error.into_response());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Refuses what a browser would send, and every name but ours.
fn guard(head: &Parts) -> Result<(), ControlError> {
    let from_a_page = head.headers.contains_key(header::ORIGIN) || head.headers.contains_key(header::REFERER);
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let is_ours = hosts.next().is_some_and(|host| host == HOST) && hosts.next().is_none();
    if from_a_page || !is_ours || head.uri.authority().is_some() { Err(ControlError::NotForBrowsers) } else { Ok(()) }
}

async fn route(api: &Arc<Api>, head: &Parts, body: Incoming) -> Result<Response<Body>, ControlError> {
    let bridge = &api.bridge;
    let (method, path) = (&head.method, head.uri.path());
    match (method, path) {
        (&Method::GET, "/v1/status") => json(bridge.status().borrow().as_ref()),
        (&Method::GET, "/v1/status/watch") => Ok(lines(api, statuses(bridge))),
        (&Method::POST, "/v1/pause") => {
            let pause: Pause = read(body).await?;
            bridge.pause(pause.for_s.map(Duration::from_secs));
            Ok(done())
        }
        (&Method::POST, "/v1/resume") => {
            bridge.resume();
            Ok(done())
        }
        (&Method::GET, "/v1/models") => json(&models(bridge)),
        (&Method::POST, "/v1/models/pull") => {
            let Named { model } = read(body).await?;
            Ok(pull(api, &model))
        }
        (&Method::POST, "/v1/models/unload") => {
            let Named { model } = read(body).await?;
            bridge.ollama().unload(&model).await.map_err(ControlError::Ollama)?;
            Ok(done())
        }
        (&Method::GET, "/v1/policy") => json(bridge.policy().as_ref()),
        (&Method::PUT, "/v1/policy") => {
            let whole: Policy = read(body).await?;
            change_policy(api, |policy| *policy = whole).await
        }
        (&Method::POST, "/v1/policy/allow") => {
            let Matching { model } = read(body).await?;
            change_policy(api, |policy| policy.allow(model)).await
        }
        (&Method::POST, "/v1/policy/deny") => {
            let Matching { model } = read(body).await?;
            change_policy(api, |policy| policy.deny(model)).await
        }
        (&Method::GET, "/v1/activity") => json(&ActivityList { activity: bridge.activity() }),
        (&Method::GET, "/v1/logs") => Ok(logs(api, head.uri.query() == Some("follow=1"))),
        (&Method::POST, "/v1/retry") => {
            bridge.retry_now();
            Ok(done())
        }
        (&Method::POST, "/v1/quit") => {
            api.quit.cancel();
            Ok(done())
        }
        (&Method::DELETE, _) => delete(bridge, path).await,
        _ => Err(ControlError::Unlisted),
    }
}

/// Changes the policy and answers with the new one.
async fn change_policy(api: &Api, change: impl FnOnce(&mut Policy)) -> Result<Response<Body>, ControlError> {
    let _changing = api.changing_policy.lock().await;
    let mut policy = Policy::clone(&api.bridge.policy());
    change(&mut policy);
    api.bridge.set_policy(policy).await.map_err(|error| match error {
        PolicyError::Invalid(error) => ControlError::Policy(error),
        PolicyError::NotSaved(error) => ControlError::PolicyNotSaved(error),
    })?;
    json(api.bridge.policy().as_ref())
}

async fn delete(bridge: &Handle, path: &str) -> Result<Response<Body>, ControlError> {
    if let Some(name) = path.strip_prefix("/v1/models/") {
        let model: ModelName =
            name.parse().map_err(|error: wire::model::InvalidModelName| ControlError::Body(error.to_string()))?;
        bridge.ollama().delete(&model).await.map_err(ControlError::Ollama)?;
        return Ok(done());
    }
    let id: RelayId = path.strip_prefix("/v1/relays/").and_then(|id| id.parse().ok()).ok_or(ControlError::Unlisted)?;
    if bridge.cancel(id) { Ok(done()) } else { Err(ControlError::UnknownRelay) }
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, ControlError> {
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { ControlError::TooLarge } else { ControlError::Body("the request broke off".into()) }
    })?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        // The owner's own words about their own settings go back to them alone, and nowhere else. Where in the JSON, which a
        // program wrote, is of no use to them.
        let (text, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
        ControlError::Body(text.strip_suffix(&place).unwrap_or(&text).to_owned())
    })
}

/// Everything that Ollama has, shared or not: the owner chooses from it.
fn models(bridge: &Handle) -> Models {
    let (inventory, policy) = (bridge.inventory(), bridge.policy());
    let models = inventory.models.iter().map(|installed| {
        let name = &installed.model.name;
        let is_local = installed.runs == Runs::Here;
        OwnModel {
            model: installed.model.clone(),
            local: is_local,
            shared: is_local && policy.shares(name),
            loaded: inventory.loaded.iter().any(|loaded| loaded.name == *name),
        }
    });
    Models { ollama: inventory.state.clone(), models: models.collect() }
}

/// Downloads a model for the owner, who needs nobody's leave. Who hangs up ends the download.
fn pull(api: &Api, model: &ModelName) -> Response<Body> {
    let steps = api.bridge.ollama().pull(model).map(|step| match step {
        Ok(PullProgress { step, .. }) if step == "success" => Pull::Done,
        Ok(PullProgress { step, digest, completed, total }) => Pull::Progress { step, digest, completed, total },
        Err(error) => Pull::Failed { cause: error.to_string() },
    });
    lines(api, steps)
}

fn statuses(bridge: &Handle) -> impl Stream<Item = Arc<crate::status::Status>> + Send + use<> {
    let mut status = bridge.status();
    status.mark_changed();
    stream::unfold(status, |mut status| async move {
        // An error says that the bridge has ended, and so does the stream.
        status.changed().await.ok()?;
        let now = Arc::clone(&status.borrow_and_update());
        Some((now, status))
    })
}

fn logs(api: &Api, follow: bool) -> Response<Body> {
    let (kept, news) = api.logs.follow();
    let kept = stream::iter(kept);
    if !follow {
        return lines(api, kept);
    }
    let news = stream::unfold(news, |mut news| async move {
        loop {
            match news.recv().await {
                Ok(line) => return Some((line, news)),
                // Who reads too slowly misses lines, and goes on with the newer ones.
                Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return None,
            }
        }
    });
    lines(api, kept.chain(news))
}

fn done() -> Response<Body> {
    let mut response = Response::new(UnsyncBoxBody::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn json<T: Serialize>(value: &T) -> Result<Response<Body>, ControlError> {
    with_json(StatusCode::OK, value).ok_or(ControlError::Broken)
}

fn with_json<T: Serialize>(status: StatusCode, value: &T) -> Option<Response<Body>> {
    let body = serde_json::to_vec(value).ok()?;
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Some(response)
}

/// A stream of values as lines of JSON, until it ends or the bridge stops.
fn lines<T: Serialize + Send + 'static>(api: &Api, values: impl Stream<Item = T> + Send + 'static) -> Response<Body> {
    let frames = values.take_until(api.stop.clone().cancelled_owned()).filter_map(async |value| {
        let mut line = serde_json::to_vec(&value).ok()?;
        line.push(b'\n');
        Some(Ok(Frame::data(Bytes::from(line))))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response
}

/// Why a request was not done. The HTTP status is decided here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum ControlError {
    #[error("this socket answers the programs of 1K4 Bridge only")]
    NotForBrowsers,
    #[error("there is no such request; the two programs may be of different versions")]
    Unlisted,
    #[error("the body is larger than {MAX_BODY} bytes")]
    TooLarge,
    #[error("that cannot be: {0}")]
    Body(String),
    #[error("no relay of that id waits or runs; it may just have ended")]
    UnknownRelay,
    #[error("{0}")]
    Policy(InvalidPolicy),
    #[error("{0}")]
    PolicyNotSaved(ConfigError),
    #[error("{0}")]
    Ollama(ollama::Error),
    #[error("the answer could not be written")]
    Broken,
}

impl ControlError {
    fn into_response(self) -> Response<Body> {
        let (status, code) = match &self {
            Self::NotForBrowsers => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Unlisted => (StatusCode::NOT_FOUND, "unlisted"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            Self::Body(_) => (StatusCode::BAD_REQUEST, "invalid_body"),
            Self::UnknownRelay => (StatusCode::NOT_FOUND, "unknown_relay"),
            Self::Policy(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_policy"),
            Self::PolicyNotSaved(_) => (StatusCode::INTERNAL_SERVER_ERROR, "policy_not_saved"),
            Self::Ollama(ollama::Error::NoSuchModel) => (StatusCode::NOT_FOUND, "no_such_model"),
            Self::Ollama(ollama::Error::NotRunning | ollama::Error::Unreachable | ollama::Error::TimedOut) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ollama_unavailable")
            }
            Self::Ollama(_) => (StatusCode::BAD_GATEWAY, "ollama_error"),
            Self::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "broken"),
        };
        let body = ErrorBody { error: ErrorDetail { code: code.to_owned(), message: self.to_string() } };
        with_json(status, &body).unwrap_or_else(|| {
            let mut response = Response::new(UnsyncBoxBody::default());
            *response.status_mut() = status;
            response
        })
    }
}
