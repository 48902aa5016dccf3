//! Who is signed in: found out in one place, from the session cookie alone. A key opens nothing that asks for a [`Session`].
//!
//! A cookie comes along with requests that its owner never meant. What changes something must therefore come from a page of this Lab,
//! and in a form that no foreign page can send without asking first (SECURITY 4.4).

use std::sync::{Arc, OnceLock};

use axum::{
    extract::{FromRequestParts, Request},
    http::request::Parts,
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderValue, Method, header};
use wire::{IdentityId, SessionId, UserId};

use super::{Api, Inner};
use crate::{
    account::session::{self, COOKIE, FRESH, Recognised},
    clock::millis,
    error::ApiError,
};

/// A person who is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Who.
    pub user: UserId,
    /// In which browser.
    pub id: SessionId,
    /// What they signed in with.
    pub identity: IdentityId,
    /// Milliseconds since 1970 when they last proved who they are; 0 where the token that is shown was replaced, because then nobody
    /// knows that it was they.
    pub authenticated_at: i64,
    /// Milliseconds since 1970 when this request came.
    seen_at: i64,
}

/// Where the next token waits for the answer's head.
#[derive(Debug, Clone, Default)]
struct Carried(Arc<OnceLock<HeaderValue>>);

impl Session {
    /// For what cannot be undone.
    ///
    /// # Errors
    /// [`ApiError::StepUp`] when they last proved who they are more than ten minutes ago.
    pub fn fresh(&self) -> Result<(), ApiError> {
        if self.seen_at.saturating_sub(self.authenticated_at) <= millis(FRESH) { Ok(()) } else { Err(ApiError::StepUp) }
    }

    /// Completes when this session is over, however that came: for answers that outlive their request's beginning.
    pub async fn ended(self, api: Api) {
        let mut epoch = api.0.revocations.watch();
        loop {
            epoch.mark_unchanged();
            // A database that fails for a moment ends nobody's session.
            if let Ok(false) = api.0.store.session_exists(self.id).await {
                return;
            }
            if epoch.changed().await.is_err() {
                return;
            }
        }
    }
}

impl FromRequestParts<Api> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, Api(api): &Api) -> Result<Self, ApiError> {
        of(parts, api).await?.ok_or(ApiError::SignedOut)
    }
}

/// Somebody at a browser who may be signed in, and whose request was meant: for signing in itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visitor(pub(super) Option<Session>);

impl FromRequestParts<Api> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, Api(api): &Api) -> Result<Self, ApiError> {
        must_be_meant(&parts.method, &parts.headers, api.origin.as_str())?;
        match of(parts, api).await {
            Ok(session) => Ok(Self(session)),
            // Whoever was signed in once signs in again.
            Err(ApiError::SignedOut) => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }
}

/// Who shows a session's cookie; `None` when there is no such cookie at all.
pub(super) async fn of(parts: &Parts, api: &Inner) -> Result<Option<Session>, ApiError> {
    let Some(token) = shown(&parts.headers) else { return Ok(None) };
    must_be_meant(&parts.method, &parts.headers, api.origin.as_str())?;
    let now = api.clock.now_ms();
    let recognised = session::recognise(&api.revocations, &api.store, token, now).await?;
    let Recognised { session, next, is_replaced } = recognised.ok_or(ApiError::SignedOut)?;
    if let (Some(next), Some(carried)) = (next, parts.extensions.get::<Carried>()) {
        // Two extractors of one request see one token: the second finds it replaced, and has none to carry.
        let _ = carried.0.set(next.cookie());
    }
    let (user, id, identity) = (session.user, session.id, session.identity);
    let authenticated_at = if is_replaced { 0 } else { session.authenticated_at };
    Ok(Some(Session { user, id, identity, authenticated_at, seen_at: now }))
}

/// Gives the browser its next token with the answer.
pub(super) async fn carry(mut request: Request, next: Next) -> Response {
    let carried = Carried::default();
    request.extensions_mut().insert(carried.clone());
    let mut response = next.run(request).await;
    let mut set = response.headers().get_all(header::SET_COOKIE).into_iter();
    // Whoever has just signed in or out was given another already.
    let is_set = set.any(|line| line.as_bytes().starts_with(COOKIE.as_bytes()));
    if let Some(cookie) = carried.0.get().filter(|_| !is_set) {
        response.headers_mut().append(header::SET_COOKIE, cookie.clone());
    }
    response
}

/// The value of the session's cookie.
fn shown(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, COOKIE)
}

/// The value of a cookie.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// Whether a request with a cookie was meant by whoever has the cookie.
pub(super) fn must_be_meant(method: &Method, headers: &HeaderMap, origin: &str) -> Result<(), ApiError> {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(method) {
        return Ok(());
    }
    let ours = match headers.get("sec-fetch-site") {
        Some(site) => site == "same-origin",
        // Browsers too old for the header above.
        None => headers.get(header::ORIGIN).is_some_and(|from| from == origin),
    };
    // A foreign page may send a POST of these types, or of none, without being asked for its right to.
    let simple = |value: &HeaderValue| {
        let kind = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        matches!(kind.as_str(), "" | "application/x-www-form-urlencoded" | "multipart/form-data" | "text/plain")
    };
    let mut kinds = headers.get_all(header::CONTENT_TYPE).into_iter().peekable();
    let preflighted = (kinds.peek().is_some() || method != Method::POST) && !kinds.any(simple);
    if ours && preflighted { Ok(()) } else { Err(ApiError::Foreign) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_must_come_from_here() {
        let meant = |method: Method, fields: &[(&'static str, &str)]| {
            let headers = fields.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
            must_be_meant(&method, &headers, "https://lab.example.com").is_ok()
        };
        let json = ("content-type", "application/json; charset=utf-8");
        assert!(meant(Method::GET, &[("sec-fetch-site", "cross-site")]));
        assert!(meant(Method::POST, &[("sec-fetch-site", "same-origin"), json]));
        assert!(meant(Method::POST, &[("origin", "https://lab.example.com"), json]));
        assert!(meant(Method::PUT, &[("sec-fetch-site", "same-origin"), ("content-type", "application/octet-stream")]));
        assert!(meant(Method::DELETE, &[("sec-fetch-site", "same-origin")]));
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(!meant(method.clone(), &[json]), "{method}");
            assert!(!meant(method.clone(), &[("origin", "https://lab.example.com.evil.example"), json]), "{method}");
            for site in ["cross-site", "same-site", "none"] {
                assert!(!meant(method.clone(), &[("sec-fetch-site", site), ("origin", "https://lab.example.com"), json]), "{site}");
            }
            for kind in ["text/plain", "TEXT/PLAIN;x=application/json", "application/x-www-form-urlencoded", "multipart/form-data"]
            {
                assert!(!meant(method.clone(), &[("sec-fetch-site", "same-origin"), ("content-type", kind)]), "{method} {kind}");
            }
        }
        assert!(!meant(Method::POST, &[("sec-fetch-site", "same-origin")]));
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let of = |text: &'static str| {
            cookie(&HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(text))]), COOKIE).map(str::to_owned)
        };
        assert_eq!(of("a=b; __Host-1k4s=token; c=d").as_deref(), Some("token"));
        assert_eq!(of("a__Host-1k4s=token"), None);
        assert_eq!(of("__host-1k4s=token"), None);
    }
}
