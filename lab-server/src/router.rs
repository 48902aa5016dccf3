//! Every address of the Lab, grouped by who calls.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use api_proxy::Proxy;
use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Buf;
use http::header;
use http_body_util::BodyExt;
use wire::pairing::{AUTHORIZE_PATH, TOKEN_PATH};

use crate::{
    calendar,
    config::Origin,
    error::ApiError,
    gateway::{
        Gateway,
        pairing::{self, Pairing, page},
    },
    meter::Meter,
};

/// The model API as this Lab runs it.
pub type ModelApi = Arc<Proxy<Meter, Gateway>>;

/// All routes.
pub fn routes(origin: Origin, pairing: Pairing, gateway: &Arc<Gateway>, model_api: ModelApi) -> Router {
    let bridges = Router::new()
        .route(AUTHORIZE_PATH, post(pairing::authorize))
        .route(TOKEN_PATH, post(pairing::token))
        .layer(DefaultBodyLimit::max(pairing::MAX_BODY))
        .with_state(pairing.clone());

    let people = Router::new()
        .route(pairing::PAGE_PATH, get(page::ask))
        .route(page::REVIEW_PATH, post(page::review))
        .route(page::DECIDE_PATH, post(page::decide))
        .layer(DefaultBodyLimit::max(pairing::MAX_BODY))
        .with_state(pairing);

    // Each of them reads its own body with its own limit, and answers in its caller's dialect.
    let programs = Router::new()
        .route("/v1/chat/completions", post(model))
        .route("/v1/completions", post(model))
        .route("/v1/embeddings", post(model))
        .route("/v1/responses", post(model))
        .route("/v1/messages", post(model))
        .route("/v1/models", get(model))
        .route("/v1/models/{*model}", get(model))
        .route("/api/chat", post(model))
        .route("/api/generate", post(model))
        .route("/api/embed", post(model))
        .route("/api/show", post(model))
        .route("/api/tags", get(model))
        .route("/api/ps", get(model))
        .route("/api/version", get(model))
        .with_state(model_api);

    let everyone = Router::new()
        .route("/healthz", get(healthz))
        .route("/.well-known/security.txt", get(security_txt))
        .with_state(Arc::new(origin));

    Router::new()
        .merge(bridges)
        .merge(gateway.router())
        .merge(people)
        .merge(programs)
        .merge(everyone)
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
}

/// One request to the model API. The proxy's body holds a type that can only be sent; here is where it is sent.
async fn model(State(model_api): State<ModelApi>, request: Request) -> Response {
    let answer = model_api.handle(request).await;
    answer.map(|body| Body::new(body.map_frame(|frame| frame.map_data(|mut content| content.copy_to_bytes(content.len())))))
}

/// Alive; says nothing of the parts behind.
async fn healthz() -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(serde_json::json!({ "status": "ok" }))).into_response()
}

/// RFC 9116. The mailbox is the one that RFC 2142 reserves for this on every domain.
async fn security_txt(State(origin): State<Arc<Origin>>) -> Response {
    const HALF_A_YEAR: Duration = Duration::from_secs(182 * 86_400);
    let ends = SystemTime::now() + HALF_A_YEAR;
    let days = ends.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    let (year, month, day) = calendar::date(days);
    let text = format!(
        "Contact: mailto:security@{}\nExpires: {year:04}-{month:02}-{day:02}T00:00:00Z\nPreferred-Languages: en\n\
         Canonical: {origin}/.well-known/security.txt\n",
        origin.host()
    );
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}
