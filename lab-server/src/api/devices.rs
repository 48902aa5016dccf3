//! A person's workstations, and those that wait for a yes: `/api/devices` and `/api/pairings`.

use std::{collections::HashMap, convert::Infallible, future::ready, io};

use api_proxy::{NotRelayed, Presence, Workstation};
use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use ed25519_dalek::VerifyingKey;
use futures_util::{StreamExt, TryStreamExt};
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio_util::{
    codec::{FramedRead, LinesCodec},
    io::StreamReader,
};
use utoipa::{OpenApi, ToSchema};
use wire::{
    DeviceId, ModelName,
    fingerprint::Fingerprint,
    relay::{Gpu, LoadedModel, OllamaState, PolicySummary, PullLine, PullProgress, Snapshot},
};

use super::{Api, Inner, Object, Session};
use crate::{
    edge::peer::Peer,
    error::{ApiError, ErrorBody},
    gateway::LinkHistory,
    lab::models::Availability,
    store::{Device, DeviceName},
};

/// Bytes of a line of a download's progress: a digest, a few numbers and a sentence.
const MAX_STEP: usize = 16 * 1024;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/devices", get(list))
        .route("/api/devices/{id}", get(show).patch(rename).delete(revoke))
        .route("/api/devices/{id}/models/pull", post(pull))
        .route("/api/devices/{id}/models/unload", post(unload))
        .route("/api/pairings/review", post(review))
        .route("/api/pairings/decide", post(decide))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(list, show, rename, revoke, pull, unload, review, decide),
    components(schemas(PullStep)),
    tags((name = "devices", description = "Workstations that are paired, and those that wait for a yes."))
)]
struct Description;

/// A paired workstation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Device)]
pub(crate) struct DeviceView {
    /// Which.
    #[schema(value_type = String)]
    id: DeviceId,
    /// As in `local@name/model`.
    name: String,
    /// The workstation's own name when it was paired.
    hostname: String,
    /// Its operating system when it was paired.
    os: String,
    /// The bridge's version when it was paired.
    version: String,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Whether it is there.
    presence: DevicePresence,
    /// Answers that run on it now.
    active: u32,
    /// Models that its bridge offers.
    models: usize,
    /// Whether it would take work now.
    availability: Availability,
    /// Requests that wait for their turn there.
    queued: u32,
    /// Milliseconds since 1970 when its link was lost; `null` while it has one, and where it had none since the Lab started.
    last_seen: Option<i64>,
}

/// A paired workstation, with what its bridge tells of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeviceDetail {
    /// It.
    #[serde(flatten)]
    device: DeviceView,
    /// Milliseconds since 1970 since when it has the link that it has; `null` while it has none.
    linked_since: Option<i64>,
    /// Milliseconds since 1970 when links were lost in the last day, the oldest first; the newest hundred at most, and none from before
    /// the Lab started.
    losses: Vec<i64>,
    /// What its bridge told last; `null` where it had no link since the Lab started.
    workstation: Option<WorkstationView>,
}

/// What a bridge tells of its workstation: only what the owner shares is in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Workstation)]
struct WorkstationView {
    /// The bridge's version.
    version: String,
    /// Whether Ollama answers.
    ollama: OllamaView,
    /// The graphics processors.
    gpus: Vec<GpuView>,
    /// The shared models, by name.
    models: Vec<SharedModel>,
    /// The owner's limits.
    limits: Limits,
}

/// Ollama, as the bridge sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
#[schema(as = Ollama)]
enum OllamaView {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Running {
        /// Its version.
        version: String,
    },
    /// It answers and is older than the oldest version that is safe to relay to.
    TooOld {
        /// Its version.
        version: String,
    },
    /// It does not answer.
    Unreachable {
        /// A sentence with the cause.
        cause: String,
    },
}

/// A graphics processor.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Gpu)]
struct GpuView {
    /// Its name.
    name: String,
    /// Busy, in per cent; `null` where the driver does not tell.
    busy_percent: Option<f32>,
    /// Bytes of video memory in use; `null` where the driver does not tell.
    memory_used: Option<u64>,
    /// Bytes of video memory in all; `null` where the driver does not tell.
    memory_total: Option<u64>,
}

/// A model that a workstation shares.
#[derive(Debug, Serialize, ToSchema)]
struct SharedModel {
    /// Its name with tag.
    name: String,
    /// Bytes on disk.
    size: u64,
    /// As Ollama says it: `8.0B`, `Q4_K_M`; empty where it says nothing.
    parameters: String,
    /// Likewise.
    quantization: String,
    /// `null` where it is not in memory.
    loaded: Option<LoadedView>,
}

/// A model in memory.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LoadedModel)]
struct LoadedView {
    /// Bytes in all.
    size: u64,
    /// Bytes of them on the graphics processor.
    size_vram: u64,
    /// Tokens of context that it was loaded with.
    context_length: u64,
    /// When Ollama takes it out of memory, RFC 3339.
    expires_at: String,
}

/// The owner's limits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WorkstationLimits)]
struct Limits {
    /// Requests at once.
    max_concurrent: u32,
    /// Requests that may wait.
    max_queued: u32,
    /// Whether it takes no work now: a pause, or quiet hours.
    paused: bool,
    /// Whether models may be downloaded from here.
    may_pull: bool,
}

/// A model on a workstation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneModel {
    /// Its name: `llama3.2`, `llama3.2:1b`.
    #[schema(min_length = 1, max_length = 200)]
    model: String,
}

/// A line of a download's answer. The last one is `success`, or a failure.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum PullStep {
    /// It did not finish. What was fetched is kept.
    Failed {
        /// A sentence with the cause and the next step.
        error: String,
    },
    /// So far.
    Progress {
        /// The step, in Ollama's words; the last one is `success`.
        step: String,
        /// The layer that is being fetched.
        digest: Option<String>,
        /// Bytes of that layer that are here.
        completed: Option<u64>,
        /// Bytes of that layer in all.
        total: Option<u64>,
    },
}

/// Whether a workstation is there.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum DevicePresence {
    /// Its link is up.
    Online,
    /// Its link was lost moments ago.
    Away,
    /// It has no link.
    Offline,
}

/// Every workstation that may link, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Devices {
    data: Vec<DeviceView>,
}

/// What is to be another.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceChange {
    /// 1 to 63 letters, digits, dots, dashes or underscores.
    #[schema(min_length = 1, max_length = 63, pattern = "^[A-Za-z0-9._-]+$")]
    name: String,
}

/// The code that a workstation shows.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Review {
    /// Eight letters; a dash is taken with them.
    #[schema(max_length = 20)]
    user_code: String,
}

/// What waits under a code. All but the words and the address is what the workstation says of itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PairingReview {
    /// Its name.
    hostname: String,
    /// Its operating system.
    os: String,
    /// The bridge's version.
    version: String,
    /// Where its request came from.
    address: String,
    /// Four words that stand for its key: they must be those that it shows.
    fingerprint: String,
    /// Good for one decision of this browser.
    ticket: String,
}

/// An answer to a workstation that waits.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PairingDecision)]
pub(crate) struct Decision {
    /// Of the review.
    #[schema(max_length = 64)]
    ticket: String,
    /// Whether it becomes this account's.
    approve: bool,
}

/// The account's workstations.
#[utoipa::path(
    get, path = "/api/devices", operation_id = "list_devices", tag = "devices", security(("session" = [])),
    responses((status = 200, description = "Every one.", body = Devices), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn list(State(Api(api)): State<Api>, session: Session) -> Result<Json<Devices>, ApiError> {
    let (there, histories) = (there(&api, session), api.gateway.histories(session.user));
    let devices = api.store.devices(session.user).await?.into_iter().filter(|device| device.revoked_at.is_none());
    let view = |device: Device| {
        let last_seen = histories.get(&device.id).and_then(|history| history.last_seen);
        DeviceView::of(there.get(&device.id), last_seen, device)
    };
    Ok(Json(Devices { data: devices.map(view).collect() }))
}

/// One workstation, with what its bridge tells of it.
#[utoipa::path(
    get, path = "/api/devices/{id}", operation_id = "show_device", tag = "devices", security(("session" = [])),
    params(("id" = String, Path)),
    responses((status = 200, description = "It.", body = DeviceDetail), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn show(State(Api(api)): State<Api>, session: Session, Path(id): Path<String>) -> Result<Json<DeviceDetail>, ApiError> {
    let device = mine(&api, session, &id).await?;
    let there = there(&api, session);
    let there = there.get(&device.id);
    let LinkHistory { since, last_seen, losses } = api.gateway.histories(session.user).remove(&device.id).unwrap_or_default();
    // What was told on a link stands until the next one says something else.
    let told = there.filter(|_| since.is_some() || last_seen.is_some());
    Ok(Json(DeviceDetail {
        linked_since: since,
        losses: losses.into(),
        workstation: told.map(|there| WorkstationView::of(&there.snapshot)),
        device: DeviceView::of(there, last_seen, device),
    }))
}

/// Gives a workstation another name.
#[utoipa::path(
    patch, path = "/api/devices/{id}", operation_id = "rename_device", tag = "devices", security(("session" = [])),
    params(("id" = String, Path)), request_body = DeviceChange,
    responses((status = 204, description = "It has."), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn rename(
    State(Api(api)): State<Api>,
    session: Session,
    Path(id): Path<String>,
    body: Result<Object<DeviceChange>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let id = id.parse().map_err(|_| ApiError::NotFound)?;
    let Object(change) = body?;
    let expected = "1 to 63 letters, digits, dots, dashes or underscores, and not the id of a device";
    let name = DeviceName::parse(&change.name).map_err(|_| ApiError::InvalidField { field: "name", expected })?;
    api.store.rename_device(session.user, id, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends a workstation's right to link. Its link is closed within a second.
#[utoipa::path(
    delete, path = "/api/devices/{id}", operation_id = "revoke_device", tag = "devices", security(("session" = [])),
    params(("id" = String, Path)),
    responses((status = 204, description = "It is no longer paired."), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn revoke(State(Api(api)): State<Api>, session: Session, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let id = id.parse().map_err(|_| ApiError::NotFound)?;
    api.revocations.revoke_device(session.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Downloads a model to a workstation, where its owner lets the Lab ask for that. The answer goes on until it is there, and ends the
/// download when it is hung up on; what has arrived is kept, and the same again goes on from there.
#[utoipa::path(
    post, path = "/api/devices/{id}/models/pull", operation_id = "pull_model", tag = "devices", security(("session" = [])),
    params(("id" = String, Path)), request_body = OneModel,
    responses(
        (status = 200, description = "Lines of JSON, each a `PullStep`.", content((String = "application/x-ndjson"))),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn pull(
    State(Api(api)): State<Api>,
    session: Session,
    Path(id): Path<String>,
    body: Result<Object<OneModel>, JsonRejection>,
) -> Result<Response, ApiError> {
    let model = model(body?)?;
    let device = mine(&api, session, &id).await?;
    let lines = api.gateway.pull(device.id, &model).await?;
    let steps = FramedRead::new(
        StreamReader::new(lines.into_data_stream().map_err(io::Error::other)),
        LinesCodec::new_with_max_length(MAX_STEP),
    );
    // What this Lab does not understand ends it, as the link's end does.
    let steps = steps.map(|line| step(&line.ok()?)).take_while(|step| ready(step.is_some()));
    let steps = steps.map(|step| Ok::<_, Infallible>(step.unwrap_or_default()));
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((head, Body::from_stream(steps)).into_response())
}

/// A line of a download's progress as it goes out.
fn step(line: &str) -> Option<Vec<u8>> {
    let step = match serde_json::from_str(line).ok()? {
        PullLine::Failed { error } => PullStep::Failed { error },
        PullLine::Progress(PullProgress { step, digest, completed, total }) => {
            PullStep::Progress { step, digest, completed, total }
        }
    };
    let mut line = serde_json::to_vec(&step).ok()?;
    line.push(b'\n');
    Some(line)
}

/// Takes a model out of a workstation's memory, once it has finished what it works on.
#[utoipa::path(
    post, path = "/api/devices/{id}/models/unload", operation_id = "unload_model", tag = "devices", security(("session" = [])),
    params(("id" = String, Path)), request_body = OneModel,
    responses((status = 204, description = "It was."), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn unload(
    State(Api(api)): State<Api>,
    session: Session,
    Path(id): Path<String>,
    body: Result<Object<OneModel>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let model = model(body?)?;
    let device = mine(&api, session, &id).await?;
    api.gateway.unload(device.id, &model).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A workstation of the asking person's that may link.
async fn mine(api: &Inner, session: Session, id: &str) -> Result<Device, ApiError> {
    let id: DeviceId = id.parse().map_err(|_| ApiError::NotFound)?;
    let devices = api.store.devices(session.user).await?;
    devices.into_iter().find(|device| device.id == id && device.revoked_at.is_none()).ok_or(ApiError::NotFound)
}

fn there(api: &Inner, session: Session) -> HashMap<DeviceId, Workstation> {
    let workstations = api.gateway.workstations_of(session.user).into_iter();
    workstations.map(|workstation| (workstation.device, workstation)).collect()
}

fn model(Object(body): Object<OneModel>) -> Result<ModelName, ApiError> {
    let expected = "the name of a model, such as llama3.2:1b";
    body.model.parse().map_err(|_| ApiError::InvalidField { field: "model", expected })
}

impl DeviceView {
    fn of(there: Option<&Workstation>, last_seen: Option<i64>, device: Device) -> Self {
        let Device { id, name, hostname, os, version, created_at, .. } = device;
        let presence = there.map_or(DevicePresence::Offline, |there| match there.presence {
            Presence::Online => DevicePresence::Online,
            Presence::Away => DevicePresence::Away,
            Presence::Offline => DevicePresence::Offline,
        });
        let (active, models) = there.map_or((0, 0), |there| (there.active, there.snapshot.models.len()));
        let availability = there.map_or(Availability::Offline, Availability::of);
        let queued = there.filter(|there| there.presence == Presence::Online).map_or(0, |there| there.snapshot.queued);
        Self { id, name, hostname, os, version, created_at, presence, active, models, availability, queued, last_seen }
    }
}

impl WorkstationView {
    fn of(snapshot: &Snapshot) -> Self {
        let loaded = |name: &ModelName| {
            let loaded = snapshot.loaded.iter().find(|loaded| loaded.name == *name)?;
            let LoadedModel { size, size_vram, context_length, ref expires_at, .. } = *loaded;
            Some(LoadedView { size, size_vram, context_length, expires_at: expires_at.clone() })
        };
        let models = snapshot.models.iter().map(|model| {
            let said = |field: &str| model.details.get(field).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            SharedModel {
                name: model.name.to_string(),
                size: model.size,
                parameters: said("parameter_size"),
                quantization: said("quantization_level"),
                loaded: loaded(&model.name),
            }
        });
        let gpus = snapshot.gpus.iter().cloned();
        let PolicySummary { max_concurrent, max_queued, paused, may_pull, .. } = snapshot.policy;
        Self {
            version: snapshot.version.clone(),
            ollama: match snapshot.ollama.clone() {
                OllamaState::Unknown => OllamaView::Unknown,
                OllamaState::Running { version } => OllamaView::Running { version },
                OllamaState::TooOld { version } => OllamaView::TooOld { version },
                OllamaState::Unreachable { cause } => OllamaView::Unreachable { cause },
            },
            gpus: gpus
                .map(|Gpu { name, busy_percent, memory_used, memory_total }| GpuView {
                    name,
                    busy_percent,
                    memory_used,
                    memory_total,
                })
                .collect(),
            models: models.collect(),
            limits: Limits { max_concurrent, max_queued, paused, may_pull },
        }
    }
}

/// Shows what waits under a code. Changes nothing but the count of wrong codes.
#[utoipa::path(
    post, path = "/api/pairings/review", operation_id = "review_pairing", tag = "devices", security(("session" = [])),
    request_body = Review,
    responses((status = 200, description = "What waits.", body = PairingReview), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn review(
    State(Api(api)): State<Api>,
    session: Session,
    Extension(Peer(peer)): Extension<Peer>,
    body: Result<Object<Review>, JsonRejection>,
) -> Result<Json<PairingReview>, ApiError> {
    let Object(Review { user_code }) = body?;
    let (request, ticket) = api.pairing.review(session.user, session.id, peer.ip(), &user_code).await?;
    let fingerprint = VerifyingKey::from_bytes(&request.public_key).map(|key| Fingerprint::of(&key).to_string());
    Ok(Json(PairingReview {
        hostname: request.hostname,
        os: request.os,
        version: request.version,
        address: request.address.to_string(),
        fingerprint: fingerprint.map_err(|_| ApiError::Internal)?,
        ticket,
    }))
}

/// Answers a workstation. A yes needs a sign-in of the last ten minutes.
#[utoipa::path(
    post, path = "/api/pairings/decide", operation_id = "decide_pairing", tag = "devices", security(("session" = [])),
    request_body = Decision,
    responses((status = 204, description = "It is answered."), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn decide(
    State(Api(api)): State<Api>,
    session: Session,
    body: Result<Object<Decision>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Object(Decision { ticket, approve }) = body?;
    if approve {
        session.fresh()?;
    }
    api.pairing.decide(session.id, &ticket, approve).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<NotRelayed> for ApiError {
    fn from(not: NotRelayed) -> Self {
        match not {
            NotRelayed::Offline | NotRelayed::LinkLost => Self::Workstation { why: None },
            NotRelayed::Refused(refusal) => Self::Workstation { why: Some(refusal.code) },
        }
    }
}
