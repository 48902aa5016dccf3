//! Signing in and out: `/api/sign-in` and `/api/sign-out`.
//!
//! A browser is sent to a provider by JSON, so that only a page of this Lab can begin it, and comes back by a GET, as every provider's
//! does; what makes that GET harmless is the state, which is this browser's and good once. Whatever fails there leads back into the
//! app with a code of ours: a provider's own words are never repeated.

use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State, rejection::JsonRejection, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};

use super::{
    Api, Object, Session,
    session::{Visitor, cookie},
};
use crate::{
    account::{
        session::{self, Browser},
        sign_in::{Callback, Current, Outcome, Purpose, Refusal},
    },
    config::sign_in::Registration,
    edge::peer::Peer,
    error::{ApiError, ErrorBody},
};

/// What a browser keeps while its person is away at a provider, and while a link is on its way.
const AWAY: &str = "__Host-1k4a";
const ASKED: &str = "__Host-1k4m";
/// How long, in seconds.
const AWAY_S: u64 = 600;
const ASKED_S: u64 = 900;
/// Where the app tells what went wrong.
const APP: &str = "/sign-in";
/// The longest path to return to, in bytes.
const MOST_RETURN: usize = 512;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/sign-in", get(ways))
        .route("/api/sign-in/start", post(start))
        .route("/api/sign-in/callback/{provider}", get(callback))
        .route("/api/sign-in/mail", post(mail))
        .route("/api/sign-in/mail/confirm", post(confirm))
        .route("/api/sign-out", post(sign_out))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(ways, start, callback, mail, confirm, sign_out),
    tags((name = "sign-in", description = "At a provider, or by a link in a mail. There is no password."))
)]
struct Description;

/// How people can sign in here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ways {
    /// The providers' names, in the operator's order.
    providers: Vec<String>,
    /// Whether people who have no account get one.
    registration: bool,
}

/// A journey to a provider.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Start {
    /// Its name.
    #[schema(max_length = 40)]
    provider: String,
    #[serde(default)]
    #[schema(inline)]
    purpose: Purpose,
    /// Where in the app to go afterwards: a path of this Lab, `/` unless it is said.
    #[schema(max_length = 512, pattern = "^/([^/\\\\].*)?$")]
    return_to: Option<String>,
}

/// Where to send the browser.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Started {
    /// The provider's address.
    location: String,
}

/// A link that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MailWanted {
    /// The e-mail address.
    #[schema(max_length = 254)]
    address: String,
    #[serde(default)]
    #[schema(inline)]
    purpose: Purpose,
}

/// A link may be on its way.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MailAsked {
    /// What another browser must be told that opens the link. To be shown.
    code: String,
    /// For how many seconds the link is good.
    expires_in: u64,
}

/// A link that was opened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkOpened {
    /// What stands behind `#link=` in its address.
    #[schema(max_length = 64)]
    token: String,
    /// What the browser shows that asked for it; needed in any other.
    #[schema(max_length = 20)]
    code: Option<String>,
}

/// Who is signed in now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignedIn {
    /// What was done.
    result: SignInResult,
}

/// What was done.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SignInResult {
    /// Somebody is signed in, or proved once more who they are.
    SignedIn,
    /// The account has one more way of signing in.
    Linked,
}

/// How people can sign in here.
#[utoipa::path(
    get, path = "/api/sign-in", operation_id = "ways_to_sign_in", tag = "sign-in", security(()),
    responses((status = 200, description = "The ways.", body = Ways), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn ways(State(Api(api)): State<Api>) -> Json<Ways> {
    Json(Ways {
        providers: api.sign_ins.providers().map(str::to_owned).collect(),
        registration: api.sign_ins.registration() == Registration::Open,
    })
}

/// Begins a journey to a provider. The browser must keep the cookie that comes with the answer.
#[utoipa::path(
    post, path = "/api/sign-in/start", operation_id = "start_sign_in", tag = "sign-in", security(()), request_body = Start,
    responses(
        (status = 200, description = "Where to send the browser.", body = Started),
        (status = "4XX", description = "Why not.", body = ErrorBody),
        (status = 502, description = "The provider does not answer.", body = ErrorBody)
    )
)]
async fn start(
    State(Api(api)): State<Api>,
    Visitor(visitor): Visitor,
    Extension(Peer(peer)): Extension<Peer>,
    body: Result<Object<Start>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Object(Start { provider, purpose, return_to }) = body?;
    let return_to = return_to.unwrap_or_else(|| "/".to_owned());
    if !is_local(&return_to) {
        return Err(ApiError::InvalidField { field: "return_to", expected: "a path of this lab, such as /projects" });
    }
    let journey = api.sign_ins.begin(&provider, purpose, return_to, visitor.map(Current::from), peer.ip()).await?;
    let cookie = [(header::SET_COOKIE, set(AWAY, &journey.browser, AWAY_S))];
    Ok((cookie, Json(Started { location: journey.to })).into_response())
}

/// Where a provider sends the browser back to. Leads on into the app: to where its person wanted to go, or to `/sign-in?error=` and one
/// of the codes of this API.
#[utoipa::path(
    get, path = "/api/sign-in/callback/{provider}", operation_id = "finish_sign_in", tag = "sign-in", security(()),
    params(
        ("provider" = String, Path), ("code" = Option<String>, Query), ("state" = Option<String>, Query),
        ("error" = Option<String>, Query), ("iss" = Option<String>, Query)
    ),
    responses((status = 303, description = "On into the app."), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn callback(
    State(Api(api)): State<Api>,
    Visitor(visitor): Visitor,
    headers: HeaderMap,
    Path(provider): Path<String>,
    query: Result<Query<Callback>, QueryRejection>,
) -> Response {
    let shown = cookie(&headers, AWAY);
    let browser = Browser::of(headers.get(header::USER_AGENT));
    let finished = match query {
        Ok(Query(query)) => api.sign_ins.finish(&provider, query, shown, visitor.map(Current::from), &browser).await,
        // Such as two states.
        Err(_) => Err(Refusal::Over),
    };
    let (to, given) = match finished {
        Ok((outcome, to)) => (to, given(&outcome)),
        Err(Refusal::Denied) => (format!("{APP}?error=denied"), None),
        Err(refusal) => (format!("{APP}?error={}", ApiError::from(refusal).code()), None),
    };
    let mut response = StatusCode::SEE_OTHER.into_response();
    let to = HeaderValue::try_from(format!("{}{to}", api.origin)).unwrap_or(HeaderValue::from_static(APP));
    response.headers_mut().insert(header::LOCATION, to);
    if shown.is_some() {
        response.headers_mut().append(header::SET_COOKIE, forget(AWAY));
    }
    if let Some(given) = given {
        response.headers_mut().append(header::SET_COOKIE, given);
    }
    response
}

/// Asks for a link by mail. The answer is the same whether the address has an account or not, and whether a mail is sent.
#[utoipa::path(
    post, path = "/api/sign-in/mail", operation_id = "mail_link", tag = "sign-in", security(()), request_body = MailWanted,
    responses(
        (status = 202, description = "A link may be on its way.", body = MailAsked),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn mail(
    State(Api(api)): State<Api>,
    Visitor(visitor): Visitor,
    Extension(Peer(peer)): Extension<Peer>,
    body: Result<Object<MailWanted>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Object(MailWanted { address, purpose }) = body?;
    let asked = api.sign_ins.ask_for_link(&address, purpose, visitor.map(Current::from), peer.ip()).await?;
    let asked = asked.ok_or(ApiError::InvalidField { field: "address", expected: "an e-mail address" })?;
    let cookie = [(header::SET_COOKIE, set(ASKED, &asked.browser, ASKED_S))];
    Ok((StatusCode::ACCEPTED, cookie, Json(MailAsked { code: asked.code, expires_in: ASKED_S })).into_response())
}

/// Uses a link up.
#[utoipa::path(
    post, path = "/api/sign-in/mail/confirm", operation_id = "use_link", tag = "sign-in", security(()), request_body = LinkOpened,
    responses(
        (status = 200, description = "Signed in.", body = SignedIn),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn confirm(
    State(Api(api)): State<Api>,
    Visitor(visitor): Visitor,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: Result<Object<LinkOpened>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Object(LinkOpened { token, code }) = body?;
    let (shown, browser) = (cookie(&headers, ASKED), Browser::of(headers.get(header::USER_AGENT)));
    let current = visitor.map(Current::from);
    let outcome = api.sign_ins.use_link(&token, code.as_deref(), shown, current, &browser, peer.ip()).await?;
    let result = match outcome {
        Outcome::Session(_) => SignInResult::SignedIn,
        Outcome::Linked => SignInResult::Linked,
    };
    let mut response = Json(SignedIn { result }).into_response();
    if shown.is_some() {
        response.headers_mut().append(header::SET_COOKIE, forget(ASKED));
    }
    if let Some(given) = given(&outcome) {
        response.headers_mut().append(header::SET_COOKIE, given);
    }
    Ok(response)
}

/// Signs this browser out, everywhere and at once.
#[utoipa::path(
    post, path = "/api/sign-out", operation_id = "sign_out", tag = "sign-in", security(("session" = [])),
    responses((status = 204, description = "Signed out."), (status = "4XX", description = "Why not.", body = ErrorBody))
)]
async fn sign_out(State(Api(api)): State<Api>, session: Session) -> Result<Response, ApiError> {
    api.revocations.end_session(session.user, session.id).await?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, session::forgotten())]).into_response())
}

impl From<Session> for Current {
    fn from(session: Session) -> Self {
        Self { user: session.user, session: session.id, authenticated_at: session.authenticated_at }
    }
}

/// The session's cookie, where there is a new one.
fn given(outcome: &Outcome) -> Option<HeaderValue> {
    match outcome {
        Outcome::Session(new) => Some(new.cookie()),
        Outcome::Linked => None,
    }
}

/// Whether a text is a path of this Lab and no address elsewhere, however a browser reads it.
fn is_local(path: &str) -> bool {
    let mut bytes = path.bytes();
    bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && path.len() <= MOST_RETURN
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

fn set(name: &str, value: &str, seconds: u64) -> HeaderValue {
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
    // Its characters are those of base64url.
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

fn forget(name: &str) -> HeaderValue {
    set(name, "", 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for path in ["/", "/projects", "/projects?x=1#y", "/a//b"] {
            assert!(is_local(path), "{path}");
        }
        let long = format!("/{}", "a".repeat(512));
        for path in [
            "",
            "projects",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\\b",
            "/a b",
            "/\t/evil",
            "/é",
            long.as_str(),
        ] {
            assert!(!is_local(path), "{path}");
        }
    }
}
