//! A person's workstations, and those that wait for a yes: `/api/devices` and `/api/pairings`.

use std::collections::HashMap;

use api_proxy::Presence;
use axum::{
    Extension, Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    routing::{get, patch, post},
};
use ed25519_dalek::VerifyingKey;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use wire::{DeviceId, fingerprint::Fingerprint};

use super::{Api, Session};
use crate::{
    edge::peer::Peer,
    error::{ApiError, ErrorBody},
    store::{Device, DeviceName},
};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/devices", get(list))
        .route("/api/devices/{id}", patch(rename).delete(revoke))
        .route("/api/pairings/review", post(review))
        .route("/api/pairings/decide", post(decide))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(list, rename, revoke, review, decide),
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
    let there: HashMap<DeviceId, _> =
        api.gateway.workstations_of(session.user).into_iter().map(|workstation| (workstation.device, workstation)).collect();
    let devices = api.store.devices(session.user).await?.into_iter().filter(|device| device.revoked_at.is_none());
    let view = |Device { id, name, hostname, os, version, created_at, .. }: Device| {
        let there = there.get(&id);
        let presence = there.map_or(DevicePresence::Offline, |there| match there.presence {
            Presence::Online => DevicePresence::Online,
            Presence::Away => DevicePresence::Away,
            Presence::Offline => DevicePresence::Offline,
        });
        let (active, models) = there.map_or((0, 0), |there| (there.active, there.snapshot.models.len()));
        DeviceView { id, name, hostname, os, version, created_at, presence, active, models }
    };
    Ok(Json(Devices { data: devices.map(view).collect() }))
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
    body: Result<Json<DeviceChange>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let id = id.parse().map_err(|_| ApiError::NotFound)?;
    let Json(change) = body?;
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
    body: Result<Json<Review>, JsonRejection>,
) -> Result<Json<PairingReview>, ApiError> {
    let Json(Review { user_code }) = body?;
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
    body: Result<Json<Decision>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Json(Decision { ticket, approve }) = body?;
    if approve {
        session.fresh()?;
    }
    api.pairing.decide(session.id, &ticket, approve).await?;
    Ok(StatusCode::NO_CONTENT)
}
