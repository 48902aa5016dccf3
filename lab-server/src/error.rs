//! What a caller is told when the Lab itself says no. The HTTP status is decided here; lower layers do not know HTTP.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use crate::store::StoreError;

/// An answer other than the one that was asked for: a code for programs and a sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiError {
    /// Nothing lives at this address.
    NotFound,
    /// Something lives here, and takes another method.
    MethodNotAllowed,
    /// The body is not the JSON that this address takes. What was sent is deliberately not quoted.
    InvalidBody,
    /// The body is larger than this address takes.
    TooLarge,
    /// Too many attempts from this network address.
    TooManyRequests {
        /// When it is worth trying again, in seconds.
        retry_after_s: u64,
    },
    /// A part of the Lab failed; the cause is in the log.
    Internal,
}

impl ApiError {
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "there is nothing at this address; check the path"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this address does not take this method")
            }
            Self::InvalidBody => (
                StatusCode::BAD_REQUEST,
                "invalid_body",
                "the body is not the JSON object that this address takes; check its fields and the content type",
            ),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than this address takes"),
            Self::TooManyRequests { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "too many attempts from this address; wait as long as retry-after says",
            ),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "the lab failed to do this; its log names the cause"),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: Inner,
        }
        #[derive(Serialize)]
        struct Inner {
            code: &'static str,
            message: &'static str,
        }

        let (status, code, message) = self.parts();
        let mut response = (status, Json(Body { error: Inner { code, message } })).into_response();
        if let Self::TooManyRequests { retry_after_s } = self {
            response.headers_mut().insert(http::header::RETRY_AFTER, retry_after_s.into());
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::Internal
    }
}

impl From<axum::extract::rejection::JsonRejection> for ApiError {
    fn from(rejection: axum::extract::rejection::JsonRejection) -> Self {
        // The rejection's own text may quote the body.
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            _ => Self::InvalidBody,
        }
    }
}
