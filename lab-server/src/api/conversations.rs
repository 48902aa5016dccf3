//! Conversations and their messages: `/api/conversations`.

use axum::Router;
use utoipa::OpenApi;

use super::Api;

pub(super) fn routes() -> Router<Api> {
    Router::new()
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi()]
struct Description;
