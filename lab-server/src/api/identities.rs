//! The ways in which a person signs in: `/api/identities`. One is added by signing in with it for the purpose of `link`.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{delete, get},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use wire::IdentityId;

use super::{Api, Session};
use crate::{
    error::{ApiError, ErrorBody},
    store::{Identity, StoreError},
};

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/identities", get(list)).route("/api/identities/{id}", delete(remove))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(list, remove), tags((name = "identities", description = "The ways in which a person signs in.")))]
struct Description;

/// A way of signing in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identity)]
pub(crate) struct IdentityView {
    /// Which.
    #[schema(value_type = String)]
    id: IdentityId,
    /// The provider's name; `mail` for links to an address.
    provider: String,
    /// The address that the provider vouched for when it was added.
    email: Option<String>,
    /// Milliseconds since 1970.
    created_at: i64,
    /// When somebody last signed in with it.
    used_at: Option<i64>,
    /// Whether this browser was signed in with it.
    current: bool,
}

/// Every one, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Identities {
    data: Vec<IdentityView>,
}

/// The ways of signing in to this account.
#[utoipa::path(
    get, path = "/api/identities", operation_id = "list_identities", tag = "identities", security(("session" = [])),
    responses((status = 200, description = "Every one.", body = Identities), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn list(State(Api(api)): State<Api>, session: Session) -> Result<Json<Identities>, ApiError> {
    let view = |Identity { id, provider, email, created_at, used_at, .. }: Identity| IdentityView {
        current: id == session.identity,
        id,
        provider,
        email,
        created_at,
        used_at,
    };
    Ok(Json(Identities { data: api.store.identities(session.user).await?.into_iter().map(view).collect() }))
}

/// Takes a way of signing in away, and ends the sessions that came in by it but for this one; the last one stays. Needs a sign-in of the last ten minutes.
#[utoipa::path(
    delete, path = "/api/identities/{id}", operation_id = "remove_identity", tag = "identities", security(("session" = [])),
    params(("id" = String, Path)),
    responses((status = 204, description = "It is gone."), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn remove(State(Api(api)): State<Api>, session: Session, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    session.fresh()?;
    let id = id.parse().map_err(|_| ApiError::NotFound)?;
    api.revocations.remove_identity(session.user, id, session.id).await.map_err(|error| match error {
        StoreError::Refused(_) => ApiError::LastIdentity,
        error => error.into(),
    })?;
    Ok(StatusCode::NO_CONTENT)
}
