//! What agents may do: `/api/approvals`, `/api/projects/{id}/rules`, `/api/projects/{id}/tool-servers`.

mod approvals;
mod rules;
mod tool_servers;

use axum::{
    Router,
    routing::{delete, get, post},
};
use utoipa::OpenApi;
use wire::ProjectId;

use super::Api;
use crate::error::ApiError;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/approvals", get(approvals::list))
        .route("/api/approvals/{id}", get(approvals::show).post(approvals::answer))
        .route("/api/projects/{id}/rules", get(rules::list).post(rules::create))
        .route("/api/projects/{id}/rules/{rule}", delete(rules::remove))
        .route("/api/projects/{id}/tool-servers", get(tool_servers::list).post(tool_servers::create))
        .route(
            "/api/projects/{id}/tool-servers/{server}",
            get(tool_servers::show).patch(tool_servers::change).delete(tool_servers::remove),
        )
        .route("/api/projects/{id}/tool-servers/{server}/tools", post(tool_servers::look))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(
        approvals::list, approvals::show, approvals::answer,
        rules::list, rules::create, rules::remove,
        tool_servers::list, tool_servers::create, tool_servers::show, tool_servers::change, tool_servers::remove, tool_servers::look
    ),
    tags((name = "agents", description = "What agents ask, what they may do, and whose tools they have."))
)]
struct Description;

/// A text that is no id names nothing.
fn project_id(text: &str) -> Result<ProjectId, ApiError> {
    text.parse().map_err(|_| ApiError::NotFound)
}
