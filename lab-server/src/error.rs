//! What a caller is told when the Lab itself says no. The HTTP status is decided here; lower layers do not know HTTP.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use wire::relay::RefusalCode;

use crate::{account::sign_in::Refusal, gateway::pairing::ReviewError, lab::tools::mcp::McpError, store::StoreError};

/// An answer other than the one that was asked for: a code for programs and a sentence for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiError {
    /// Nothing lives at this address.
    NotFound,
    /// Something lives here, and takes another method.
    MethodNotAllowed,
    /// The body is not the JSON that this address takes. What was sent is deliberately not quoted.
    InvalidBody,
    /// A field of the body or of the query is not what it must be.
    InvalidField {
        /// Its name.
        field: &'static str,
        /// What is expected, as the end of the sentence "it must be ...".
        expected: &'static str,
    },
    /// The body is larger than this address takes.
    TooLarge,
    /// The body is not declared to be JSON.
    NotJson,
    /// No key, or none that is valid: the answer does not tell which.
    Unauthorized,
    /// The session is over, or there never was one: the answer does not tell which.
    SignedOut,
    /// A page elsewhere may have sent this: the browser does not say that it was one of this Lab's.
    Foreign,
    /// This needs a person who has just proved who they are.
    StepUp,
    /// A provider cannot say that somebody has just proved who they are.
    CannotStepUp,
    /// What somebody came with to sign in is over.
    SignInOver,
    /// Another browser asked for the link.
    CodeRequired,
    /// That is not the code.
    WrongCode,
    /// People who have no account get none here.
    RegistrationClosed,
    /// It is another account's.
    AnotherAccount,
    /// A provider does not vouch for an address.
    EmailUnverified,
    /// A provider failed.
    ProviderFailed,
    /// It is the only way of signing in.
    LastIdentity,
    /// The key is valid, and not for this.
    Scope {
        /// What it would need.
        needs: &'static str,
    },
    /// There is already something of that name.
    Taken,
    /// It was changed since the caller looked at it.
    ChangedMeanwhile,
    /// There is no place for it.
    Full {
        /// What is full, and what to do.
        why: &'static str,
    },
    /// The machine's disk is full.
    NoSpace,
    /// It would break a rule.
    Refused {
        /// Which, and what to do.
        why: &'static str,
    },
    /// A run's question was answered before, or its run is over.
    AlreadyAnswered,
    /// A server of tools that somebody named is of no use.
    ToolServer {
        /// Why.
        why: McpError,
    },
    /// A workstation did not do what its owner asked for from here.
    Workstation {
        /// Why its bridge refused; `None` where there is no link to it.
        why: Option<RefusalCode>,
    },
    /// Too many attempts from this network address.
    TooManyRequests {
        /// When it is worth trying again, in seconds.
        retry_after_s: u64,
    },
    /// Somebody has asked for as much as they can have in a day.
    DayUsedUp {
        /// When the next day begins, in seconds.
        opens_in_s: u64,
    },
    /// The operator has not set it up.
    NotSetUp,
    /// The Lab is about to stop.
    Stopping,
    /// A part of the Lab failed; the cause is in the log.
    Internal,
}

impl ApiError {
    /// The code by which programs know it.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.parts().1
    }

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
            Self::InvalidField { .. } => (StatusCode::BAD_REQUEST, "invalid_field", "a field is not what it must be"),
            Self::NotJson => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "this address takes JSON; send it with `content-type: application/json`",
            ),
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "invalid_api_key",
                "this needs a valid API key of this lab, as `authorization: Bearer 1k4_...`",
            ),
            Self::SignedOut => (StatusCode::UNAUTHORIZED, "signed_out", "nobody is signed in with this browser; sign in"),
            Self::Foreign => (
                StatusCode::FORBIDDEN,
                "foreign_request",
                "this request does not come from a page of this lab; open the lab itself and do it there",
            ),
            Self::StepUp => (
                StatusCode::FORBIDDEN,
                "step_up_required",
                "this needs a sign-in of the last ten minutes; sign in again and repeat it",
            ),
            Self::CannotStepUp => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "cannot_step_up",
                "this provider does not tell whether you have just proved who you are; have a link mailed, or take another way",
            ),
            Self::SignInOver => (
                StatusCode::GONE,
                "sign_in_over",
                "this was used before, is too old, or belongs to another browser; begin to sign in again",
            ),
            Self::CodeRequired => (
                StatusCode::FORBIDDEN,
                "code_required",
                "another browser asked for this link; type the code that it shows, or open the link there",
            ),
            Self::WrongCode => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "wrong_code",
                "this is not the code, or the link is dead after five wrong ones; look at the browser that asked for the link",
            ),
            Self::RegistrationClosed => (
                StatusCode::FORBIDDEN,
                "registration_closed",
                "this lab opens no accounts by itself; ask whoever runs it for an invitation",
            ),
            Self::AnotherAccount => (
                StatusCode::CONFLICT,
                "another_account",
                "this way of signing in is not this account's; sign in with it itself, or choose another one",
            ),
            Self::EmailUnverified => (
                StatusCode::FORBIDDEN,
                "email_unverified",
                "the provider does not vouch for an e-mail address of yours; verify one there and try again",
            ),
            Self::ProviderFailed => (
                StatusCode::BAD_GATEWAY,
                "provider_failed",
                "the provider did not answer as it must; try again, or sign in another way",
            ),
            Self::LastIdentity => {
                (StatusCode::CONFLICT, "last_identity", "this is the only way to sign in to this account; add another one first")
            }
            Self::Scope { .. } => (StatusCode::FORBIDDEN, "key_scope", "this key may not do that"),
            Self::AlreadyAnswered => {
                (StatusCode::CONFLICT, "already_answered", "this was answered already, or its run is over; look at the run")
            }
            Self::ToolServer { why: McpError::Unreachable(_) | McpError::Header } => {
                (StatusCode::BAD_REQUEST, "tool_server", "the tool server cannot be asked so")
            }
            Self::ToolServer { .. } => (StatusCode::BAD_GATEWAY, "tool_server", "the tool server does not answer as it should"),
            Self::Taken => (StatusCode::CONFLICT, "taken", "there is already one of that name; choose another name"),
            Self::ChangedMeanwhile => (
                StatusCode::CONFLICT,
                "changed_meanwhile",
                "it was changed since you looked at it, and nothing of yours was written; look at it again and repeat the change",
            ),
            Self::Full { .. } => (StatusCode::CONFLICT, "full", "there is no place for it"),
            Self::NoSpace => (
                StatusCode::INSUFFICIENT_STORAGE,
                "no_space",
                "the lab's disk is full, and nothing of yours was written; tell its operator, and try again later",
            ),
            Self::Refused { .. } => (StatusCode::CONFLICT, "refused", "that is not possible here"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than this address takes"),
            Self::TooManyRequests { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "too many attempts from this address; wait as long as retry-after says",
            ),
            Self::Workstation { why: None } => (
                StatusCode::CONFLICT,
                "device_offline",
                "this workstation has no link now; switch it on, see that its bridge runs, and try again",
            ),
            Self::Workstation { why: Some(code) } => (StatusCode::CONFLICT, code.as_str(), refused_there(code)),
            Self::DayUsedUp { .. } => (StatusCode::TOO_MANY_REQUESTS, "day_used_up", "that was as much as there is in a day"),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "the lab is about to stop; try again when it is back"),
            Self::NotSetUp => (StatusCode::NOT_FOUND, "not_set_up", "this lab's operator has not set this up"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "the lab failed to do this; its log names the cause"),
        }
    }
}

/// Why a bridge refused, for whoever owns both ends of the link.
const fn refused_there(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::ModelNotShared | RefusalCode::ModelNotLocal => {
            "the workstation shares no such model, or it is none that can be downloaded from here; see what it shares at the workstation"
        }
        RefusalCode::OperationNotShared => {
            "the workstation does not allow this from here; do it there, or allow it in its bridge's settings"
        }
        RefusalCode::Paused => "the workstation is paused; resume it there, or wait until its quiet hours are over",
        RefusalCode::QueueFull => "too many requests wait at the workstation; try again when it has less to do",
        RefusalCode::OllamaUnavailable => "Ollama does not answer at the workstation; start it there",
        RefusalCode::OllamaTooOld => "the workstation's Ollama is too old to be safe; update it there",
        RefusalCode::Unlisted
        | RefusalCode::InvalidBody
        | RefusalCode::TooLarge
        | RefusalCode::FieldNotAllowed
        | RefusalCode::UnknownRelay
        | RefusalCode::OffsetGone => "the workstation's bridge does not do this; update the bridge, and the Lab",
    }
}

/// The body of every such answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// For programs; never changes its meaning.
    code: &'static str,
    /// For people: the cause and the next step.
    message: String,
    /// As OpenAI's clients expect it, below `/v1/` only.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
}

impl ApiError {
    fn message(self) -> String {
        match self {
            Self::InvalidField { field, expected } => format!("{field} must be {expected}"),
            Self::Scope { needs } => {
                format!(
                    "this key may not do that: it needs the scope `{needs}`; make one with `1k4-lab admin keys create --scope {needs}`"
                )
            }
            Self::Refused { why } | Self::Full { why } => why.to_owned(),
            Self::ToolServer { why } => why.to_string(),
            Self::DayUsedUp { opens_in_s } => {
                let (hours, minutes) = (opens_in_s / 3_600, opens_in_s % 3_600 / 60 + 1);
                format!("that was as much as there is in a day; ask again at midnight UTC, which is in {hours} h {minutes} min")
            }
            _ => self.parts().2.to_owned(),
        }
    }

    fn answer(self, kind: Option<&'static str>) -> Response {
        let (status, code, _) = self.parts();
        let body = ErrorBody { error: ErrorDetail { code, message: self.message(), kind } };
        let mut response = (status, Json(body)).into_response();
        match self {
            Self::TooManyRequests { retry_after_s } | Self::DayUsedUp { opens_in_s: retry_after_s } => {
                response.headers_mut().insert(http::header::RETRY_AFTER, retry_after_s.into());
            }
            Self::Unauthorized => {
                response.headers_mut().insert(http::header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }

    /// The answer in OpenAI's shape, for what lives below `/v1/`.
    #[must_use]
    pub fn for_openai_clients(self) -> Response {
        self.answer(Some(match self {
            Self::Unauthorized | Self::SignedOut => "authentication_error",
            Self::Scope { .. } | Self::Foreign | Self::StepUp => "permission_error",
            Self::TooManyRequests { .. } | Self::DayUsedUp { .. } => "rate_limit_error",
            Self::Internal | Self::Stopping => "api_error",
            _ => "invalid_request_error",
        }))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.answer(None)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            // Also what is there and somebody else's: the store looks for the owner's only.
            StoreError::Missing(_) => Self::NotFound,
            StoreError::Taken(_) => Self::Taken,
            StoreError::Stale(_) => Self::ChangedMeanwhile,
            StoreError::Refused(why) => Self::Refused { why },
            StoreError::Full(why) => Self::Full { why },
            error if error.is_disk_full() => {
                tracing::error!("the disk is full: nothing can be stored");
                Self::NoSpace
            }
            error => {
                tracing::error!(%error, "the store failed");
                Self::Internal
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NoProvider => Self::NotFound,
            Refusal::Denied | Refusal::Over => Self::SignInOver,
            Refusal::ProviderFailed => Self::ProviderFailed,
            Refusal::EmailUnverified => Self::EmailUnverified,
            Refusal::Closed => Self::RegistrationClosed,
            Refusal::AnotherAccount => Self::AnotherAccount,
            Refusal::NotFresh => Self::StepUp,
            Refusal::CannotStepUp => Self::CannotStepUp,
            Refusal::SignedOut => Self::SignedOut,
            Refusal::CodeNeeded => Self::CodeRequired,
            Refusal::WrongCode => Self::WrongCode,
            Refusal::TooMany(wait) => Self::TooManyRequests { retry_after_s: wait.as_secs() + 1 },
            Refusal::Store(error) => error.into(),
        }
    }
}

impl From<ReviewError> for ApiError {
    fn from(error: ReviewError) -> Self {
        match error {
            ReviewError::Form => Self::InvalidField {
                field: "user_code",
                expected: "eight letters, without vowels and digits; copy it from the workstation",
            },
            ReviewError::Nothing => Self::NotFound,
            ReviewError::LockedOut(wait) => Self::TooManyRequests { retry_after_s: wait.as_secs() + 1 },
            ReviewError::Store(error) => error.into(),
        }
    }
}

impl From<axum::extract::rejection::JsonRejection> for ApiError {
    fn from(rejection: axum::extract::rejection::JsonRejection) -> Self {
        // The rejection's own text may quote the body.
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::NotJson,
            _ => Self::InvalidBody,
        }
    }
}
