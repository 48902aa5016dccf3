//! Signing in and out: `/api/sign-in`, and the way back from a provider.

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
