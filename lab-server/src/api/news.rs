//! That something of the account's has changed: `/api/news`.

use std::{convert::Infallible, pin::Pin, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, header};
use serde::Serialize;
use utoipa::{OpenApi, ToSchema};

use super::{
    Api, Session,
    runs::{KEEP_ALIVE, RETRY, STILL_HERE},
};
use crate::{
    error::ErrorBody,
    news::{About, Listener},
};

/// Browsers are told at most this often, so that a busy workstation does not have each of them ask again and again.
const EVERY: Duration = Duration::from_millis(250);

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/news", get(follow))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(follow),
    components(schemas(Changed)),
    tags((name = "news", description = "That something has changed, for whoever shows it."))
)]
struct Description;

/// What has changed since the last one.
#[derive(Debug, Serialize, ToSchema)]
struct Changed {
    /// About these; never none.
    about: Vec<About>,
}

/// That something of the account's has changed, as server-sent events named `changed`: what it is now, the API says. A reader whose
/// stream broke asks for everything once.
#[utoipa::path(
    get, path = "/api/news", operation_id = "follow_news", tag = "news", security(("session" = [])),
    responses(
        (status = 200, description = "What changes from now on: each a `Changed`.", content((String = "text/event-stream"))),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn follow(State(api): State<Api>, session: Session) -> Response {
    let listener = api.0.news.listen(session.user);
    let reading = Reading { listener, signed_out: Box::pin(session.ended(api)), told: false };
    let beginning = stream::iter([Ok::<_, Infallible>(Bytes::from_static(RETRY.as_bytes()))]);
    let body = Body::from_stream(beginning.chain(stream::unfold(reading, Reading::next)));
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (head, body).into_response()
}

/// A stream of news that somebody reads.
struct Reading {
    listener: Listener,
    signed_out: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whether the last thing said was news.
    told: bool,
}

impl Reading {
    /// What goes out next; `None` when the reader is signed out.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let next = async {
            if self.told {
                tokio::time::sleep(EVERY).await;
            }
            tokio::time::timeout(KEEP_ALIVE, self.listener.next()).await
        };
        let about = tokio::select! {
            biased;
            () = &mut self.signed_out => return None,
            about = next => about.ok(),
        };
        self.told = about.is_some();
        let text = match about {
            None => STILL_HERE.to_owned(),
            // Plain data: writing it as JSON does not fail.
            Some(about) => format!("event: changed\ndata: {}\n\n", serde_json::to_string(&Changed { about }).unwrap_or_default()),
        };
        Some((Ok(text.into()), self))
    }
}
