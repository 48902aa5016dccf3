//! The browsers that a person is signed in with: `/api/sessions`.

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{delete, get},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};
use wire::SessionId;

use super::{Api, Session};
use crate::{
    account::session::{ABSOLUTE, IDLE},
    clock::millis,
    error::{ApiError, ErrorBody},
};

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/sessions", get(list).delete(end_others)).route("/api/sessions/{id}", delete(end))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(list, end_others, end),
    tags((name = "sessions", description = "The browsers that a person is signed in with."))
)]
struct Description;

/// A browser that somebody is signed in with.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub(crate) struct SessionView {
    /// Which.
    #[schema(value_type = String)]
    id: SessionId,
    /// Its kind and its system, in words.
    browser: String,
    /// Whether it is the one that asks.
    current: bool,
    /// Milliseconds since 1970.
    began_at: i64,
    /// When its person last proved who they are.
    authenticated_at: i64,
    /// When it was last used, to the minute.
    used_at: i64,
}

/// Every one that is not over, last used first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sessions {
    data: Vec<SessionView>,
}

/// The browsers that are signed in to this account.
#[utoipa::path(
    get, path = "/api/sessions", operation_id = "list_sessions", tag = "sessions", security(("session" = [])),
    responses((status = 200, description = "Every one.", body = Sessions), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn list(State(Api(api)): State<Api>, session: Session) -> Result<Json<Sessions>, ApiError> {
    let now = api.clock.now_ms();
    let found = api.store.sessions(session.user, now.saturating_sub(millis(ABSOLUTE)), now.saturating_sub(millis(IDLE))).await?;
    let view = |(of, browser): (crate::store::SessionRecord, String)| SessionView {
        id: of.id,
        browser,
        current: of.id == session.id,
        began_at: of.began_at,
        authenticated_at: of.authenticated_at,
        used_at: of.used_at,
    };
    Ok(Json(Sessions { data: found.into_iter().map(view).collect() }))
}

/// Signs all browsers out but the one that asks.
#[utoipa::path(
    delete, path = "/api/sessions", operation_id = "end_other_sessions", tag = "sessions", security(("session" = [])),
    responses((status = 204, description = "They are signed out."), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn end_others(State(Api(api)): State<Api>, session: Session) -> Result<StatusCode, ApiError> {
    api.revocations.end_sessions(session.user, Some(session.id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Signs one browser out.
#[utoipa::path(
    delete, path = "/api/sessions/{id}", operation_id = "end_session", tag = "sessions", security(("session" = [])),
    params(("id" = String, Path)),
    responses((status = 204, description = "It is signed out."), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn end(State(Api(api)): State<Api>, session: Session, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    let id = id.parse().map_err(|_| ApiError::NotFound)?;
    api.revocations.end_session(session.user, id).await?;
    Ok(StatusCode::NO_CONTENT)
}
