//! What the Lab stores, for everybody to read: `/api/transparency`.

use axum::{
    Json, Router,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::Api;
use crate::{
    error::ErrorBody,
    store::transparency::{DATABASE, FILES, KEYSTORE, StoredFile, Table},
};

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/transparency", get(show))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(show), tags((name = "transparency", description = "What the Lab stores.")))]
struct Description;

/// Everything that the Lab stores.
#[derive(Debug, Serialize, ToSchema)]
struct Transparency {
    /// The tables of its database.
    database: &'static [Table],
    /// The tables of its keystore, a database of its own.
    keystore: &'static [Table],
    /// The files on its disk.
    files: &'static [StoredFile],
}

/// Every table and column, every file: what stands there, in which form, and how long it is kept.
#[utoipa::path(
    get, path = "/api/transparency", operation_id = "show_transparency", tag = "transparency", security(()),
    responses(
        (status = 200, description = "Everything that the Lab stores.", body = Transparency),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn show() -> Response {
    let all = Transparency { database: DATABASE, keystore: KEYSTORE, files: FILES };
    ([(header::CACHE_CONTROL, "public, max-age=3600")], Json(all)).into_response()
}
