//! Who is signed in: found out in one place, from the session cookie alone. A key opens nothing that asks for a [`Session`].

use axum::{extract::FromRequestParts, http::request::Parts};
use wire::{SessionId, UserId};

use super::Api;
use crate::error::ApiError;

/// The session's cookie. The prefix makes browsers insist on `Secure`, `Path=/` and no `Domain`.
pub(super) const COOKIE: &str = "__Host-1k4s";

/// A person who is signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Who.
    pub user: UserId,
    /// In which browser.
    pub id: SessionId,
    /// Milliseconds since 1970 when they last proved who they are.
    pub authenticated_at: i64,
}

impl FromRequestParts<Api> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(_parts: &mut Parts, _api: &Api) -> Result<Self, ApiError> {
        Err(ApiError::Unauthorized)
    }
}
