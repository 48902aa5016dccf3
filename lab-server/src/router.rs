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
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Buf;
use http::header;
use http_body_util::BodyExt;
use wire::pairing::{AUTHORIZE_PATH, TOKEN_PATH};

use crate::{
    api::Api,
    calendar,
    config::Origin,
    edge::leftover,
    error::ApiError,
    gateway::{
        Gateway,
        pairing::{self, Pairing, page},
    },
    meter::Meter,
    metrics::Observed,
    web,
};

/// The model API as this Lab runs it.
pub type ModelApi = Arc<Proxy<Observed<Meter>, Gateway>>;

/// All routes.
pub fn routes(origin: Origin, pairing: Pairing, gateway: &Arc<Gateway>, api: Api, model_api: ModelApi) -> Router {
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

    let everyone = Router::new()
        .route("/healthz", get(healthz))
        .route("/.well-known/security.txt", get(security_txt))
        .with_state(Arc::new(origin));

    Router::new()
        .merge(bridges)
        .merge(gateway.router())
        .merge(people)
        .merge(api.router())
        .merge(everyone)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .merge(Router::new().fallback(elsewhere).with_state(model_api))
        .layer(middleware::from_fn(leftover::read))
}

/// What no route above takes. Below the addresses of the model API it is the proxy's, also where nothing is: each client is told so in
/// its own protocol. The proxy knows its routes, reads bodies with its own limit, and lets nobody in without a key. The rest is the web
/// app's.
async fn elsewhere(state: State<ModelApi>, request: Request) -> Response {
    if is_model_api(request.uri().path()) {
        model(state, request).await
    } else {
        web::answer(request.method(), request.uri().path(), request.headers())
    }
}

/// Whether a path is OpenAI's or Anthropic's (`/v1`), Gemini's (`/v1beta`), Azure's (`/openai`) or Ollama's (some of `/api`).
fn is_model_api(path: &str) -> bool {
    const OLLAMA: [&str; 14] = [
        "chat",
        "generate",
        "embed",
        "embeddings",
        "show",
        "tags",
        "ps",
        "version",
        "create",
        "copy",
        "pull",
        "push",
        "delete",
        "blobs",
    ];
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next()) {
        (Some("v1" | "v1beta" | "openai"), Some(_)) => true,
        (Some("api"), Some(verb)) => OLLAMA.contains(&verb),
        _ => false,
    }
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
