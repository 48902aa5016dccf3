//! What a caller is told when their request comes to nothing: one status, one stable code and one sentence for each cause, in the
//! caller's own dialect. Decided here and nowhere else.
//!
//! A sentence names the cause and the next step. It holds nothing of a key, a prompt or an answer; a model's name is repeated only
//! after it was read as a [`ModelName`].

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;
use wire::{
    Content, ModelName, RequestId,
    model::InvalidModelName,
    relay::{Failure, MAX_BODY, Outcome, RESUME_WINDOW, Refusal, RefusalCode},
};

use crate::{
    Allowance, NotAdmitted, NotRelayed, NotReserved, Protocol,
    body::ProxyBody,
    head,
    scan::Unreadable,
    surface::{methods_at, refused_by_name},
    upstream::{BrokenOff, NoAnswer},
};

/// Response header of an error: its code, also in dialects whose errors have no place for one.
const ERROR: HeaderName = HeaderName::from_static("x-1k4-error");
/// Response header, by which the SDKs of OpenAI and Anthropic are told more than a status tells them: whether to try again.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Response header: whether an answer is the proxy's own word, `gateway`, or a provider's, `provider`.
pub(crate) const SOURCE: HeaderName = HeaderName::from_static("x-1k4-source");

/// Why a request comes to nothing, or an answer to no good end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error(
        "there is no such address here: the model API lives under `/v1` (also `/v1beta` and `/openai`) and `/api`; check the base URL \
         and the path"
    )]
    NoSuchRoute,
    /// An address that is here, asked with a method that it does not take, and those that it does.
    #[error("this address takes another method: use {0}")]
    WrongMethod(&'static str),
    #[error("{}", not_admitted(*.0))]
    NotAdmitted(NotAdmitted),
    /// An address of OpenAI's that is deliberately not served, and why.
    #[error("{0}")]
    NotServed(&'static str),
    #[error("{}", not_reserved(*.0))]
    NotReserved(NotReserved),
    #[error("the request's body came too slowly: send it faster, or send less")]
    BodySlow,
    #[error("the request's body is compressed: send it as it is, without `content-encoding`")]
    BodyEncoded,
    #[error("the path and the body name different models: name the same one, or leave it out of the body")]
    ModelMismatch,
    #[error("the Lab has no room for more request bodies just now: try again in a moment")]
    NoRoom,
    #[error("`background` is not possible here: nobody could fetch the answer later; leave it out")]
    Background,
    #[error("the request's body is larger than {} MiB: send less, or smaller images", MAX_BODY >> 20)]
    BodyTooLarge,
    #[error("the request's body did not arrive whole: send it again")]
    BodyBroken,
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    #[error("the request names no model: set `model`")]
    ModelMissing,
    #[error("{0}: `GET /v1/models` lists what there is")]
    ModelInvalid(#[from] InvalidModelName),
    /// A name without `local/` that the catalogue does not have, or that nobody here serves in this way. Not repeated: it may be any
    /// text.
    #[error(
        "there is no such model here: `GET /v1/models` lists what there is, and a model on your own workstation is asked for as \
         `local/<model>`"
    )]
    NotInCatalogue,
    /// A workstation's model, asked for in words that Ollama does not have.
    #[error("a model on a workstation cannot be asked in this way: use `/v1/chat/completions`, `/v1/messages` or `/api/chat`")]
    NotForLocal,
    #[error("model '{0}' not found on your workstations: `GET /v1/models` lists what there is")]
    ModelNotFound(ModelName),
    #[error("no workstation of yours goes by that name: `GET /v1/models` lists them as `local@<workstation>/<model>`")]
    DeviceNotFound,
    #[error("several of your workstations go by that name: use the one's id instead, as `GET /v1/models` lists it")]
    DeviceAmbiguous,
    #[error("no workstation is paired with this account: install 1K4 Bridge on one and run `1k4-bridge login`")]
    NoWorkstation,
    #[error("none of your workstations is connected: see there what `1k4-bridge status` says, and try again")]
    NoneConnected,
    #[error("the workstation that has this model is not connected: see there what `1k4-bridge status` says, and try again")]
    BridgeOffline,
    #[error("the workstation takes no work now, by its owner's choice: try again later, or run `1k4-bridge resume` there")]
    Paused,
    #[error("Ollama does not answer on the workstation: start it there, or see what `1k4-bridge doctor` says")]
    OllamaUnavailable,
    #[error("{0}")]
    Refused(Refusal),
    #[error("{}", broken(*.0))]
    Broken(Failure),
    #[error("the owner of the workstation stopped this answer: ask there, or try again")]
    Stopped,
    /// An answer with an error status that has no text of its own.
    #[error("Ollama answered with an error: see its log on the workstation, and try again")]
    OllamaError,
    #[error("{}", no_answer(*.0))]
    NoAnswer(NoAnswer),
    #[error("{}", broken_off(*.0))]
    BrokenOff(BrokenOff),
}

impl ProxyError {
    /// Why a request to this path is none of the model API's.
    pub(crate) fn no_route(path: &str) -> Self {
        match methods_at(path) {
            Some(methods) => Self::WrongMethod(methods),
            None => refused_by_name(path).map_or(Self::NoSuchRoute, Self::NotServed),
        }
    }

    /// Why an answer that ended so is no whole answer; `None` when it is one.
    pub(crate) fn of_ending(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Complete => None,
            Outcome::Cancelled => Some(Self::Stopped),
            Outcome::Failed(failure) => Some(Self::Broken(failure)),
        }
    }

    /// The HTTP status, while there still can be one.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::NotAdmitted(NotAdmitted::Missing | NotAdmitted::Malformed | NotAdmitted::Unknown) => StatusCode::UNAUTHORIZED,
            Self::NotAdmitted(NotAdmitted::Scope) | Self::NotReserved(NotReserved::ModelNotAllowed) => StatusCode::FORBIDDEN,
            Self::NotAdmitted(NotAdmitted::RateLimited { .. }) | Self::NotReserved(NotReserved::RateLimited { .. }) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::NotReserved(
                NotReserved::InsufficientCredits
                | NotReserved::KeySpendLimit
                | NotReserved::TrialExhausted
                | NotReserved::InFlight { .. },
            ) => StatusCode::PAYMENT_REQUIRED,
            Self::BodySlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyEncoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotAdmitted(NotAdmitted::Ambiguous)
            | Self::Background
            | Self::ModelMismatch
            | Self::BodyBroken
            | Self::Unreadable(_)
            | Self::ModelMissing
            | Self::ModelInvalid(_)
            | Self::DeviceAmbiguous => StatusCode::BAD_REQUEST,
            Self::NoSuchRoute
            | Self::NotServed(_)
            | Self::NotInCatalogue
            | Self::NotForLocal
            | Self::ModelNotFound(_)
            | Self::DeviceNotFound => StatusCode::NOT_FOUND,
            Self::WrongMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAdmitted(NotAdmitted::Unavailable)
            | Self::NotReserved(NotReserved::Unavailable)
            | Self::NoRoom
            | Self::NoAnswer(NoAnswer::NoProvider { .. })
            | Self::NoWorkstation
            | Self::NoneConnected
            | Self::BridgeOffline
            | Self::Paused
            | Self::OllamaUnavailable
            | Self::Stopped
            | Self::Broken(Failure::LinkLost) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(refusal) => StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            Self::Broken(Failure::TimeLimit) | Self::NoAnswer(NoAnswer::Timeout) | Self::BrokenOff(BrokenOff::Silent) => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::OllamaError
            | Self::NoAnswer(NoAnswer::Failed | NoAnswer::KeyRefused | NoAnswer::AccountSpent)
            | Self::BrokenOff(BrokenOff::Lost)
            | Self::Broken(
                Failure::OllamaError | Failure::OllamaTruncated | Failure::OllamaLost | Failure::NotLocal | Failure::TooLarge,
            ) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The name for programs. Kept stable; the same word stands in the record.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoSuchRoute => "not_found",
            Self::WrongMethod(_) => "method_not_allowed",
            Self::NotAdmitted(NotAdmitted::Missing) => "missing_api_key",
            Self::NotAdmitted(NotAdmitted::Malformed | NotAdmitted::Unknown) => "invalid_api_key",
            Self::NotAdmitted(NotAdmitted::Ambiguous) => "ambiguous_api_key",
            Self::NotAdmitted(NotAdmitted::Unavailable) | Self::NotReserved(NotReserved::Unavailable) => "unavailable",
            Self::NotAdmitted(NotAdmitted::Scope) => "key_scope",
            Self::NotAdmitted(NotAdmitted::RateLimited { .. }) | Self::NotReserved(NotReserved::RateLimited { .. }) => {
                "rate_limited"
            }
            Self::NotReserved(NotReserved::ModelNotAllowed) => "model_not_allowed",
            Self::NotReserved(NotReserved::InsufficientCredits) => "insufficient_credits",
            Self::NotReserved(NotReserved::KeySpendLimit) => "key_spend_limit",
            Self::NotReserved(NotReserved::TrialExhausted) => "trial_exhausted",
            Self::NotReserved(NotReserved::InFlight { .. }) => "in_flight_budget_exhausted",
            Self::NotServed(_) => "endpoint_not_supported",
            Self::BodySlow => "body_timeout",
            Self::BodyEncoded => "unsupported_encoding",
            Self::Background => "background_not_supported",
            Self::ModelMismatch => "model_mismatch",
            Self::NoRoom => "no_room",
            Self::NoAnswer(NoAnswer::NoProvider { .. }) => "no_provider",
            Self::NoAnswer(NoAnswer::Failed | NoAnswer::KeyRefused | NoAnswer::AccountSpent) | Self::BrokenOff(BrokenOff::Lost) => {
                "upstream_error"
            }
            Self::NoAnswer(NoAnswer::Timeout) | Self::BrokenOff(BrokenOff::Silent) => "upstream_timeout",
            Self::BodyTooLarge => "too_large",
            Self::BodyBroken | Self::Unreadable(Unreadable::NotAnObject) => "invalid_body",
            Self::Unreadable(Unreadable::Duplicate(_)) => "duplicate_field",
            Self::Unreadable(Unreadable::ModelType | Unreadable::StreamType) => "invalid_type",
            Self::ModelMissing => "missing_model",
            Self::ModelInvalid(_) => "invalid_model",
            Self::NotInCatalogue | Self::NotForLocal | Self::ModelNotFound(_) => "model_not_found",
            Self::DeviceNotFound => "workstation_not_found",
            Self::DeviceAmbiguous => "ambiguous_workstation",
            Self::NoWorkstation | Self::NoneConnected | Self::BridgeOffline | Self::Broken(Failure::LinkLost) => "bridge_offline",
            Self::Paused => "paused",
            Self::OllamaUnavailable => "ollama_unavailable",
            Self::Refused(refusal) => refusal.code.as_str(),
            Self::OllamaError | Self::Broken(Failure::OllamaError) => "ollama_error",
            Self::Broken(Failure::OllamaTruncated) => "ollama_truncated",
            Self::Broken(Failure::OllamaLost) => "ollama_lost",
            Self::Broken(Failure::NotLocal) => "model_not_local",
            Self::Broken(Failure::TimeLimit) => "time_limit",
            Self::Broken(Failure::TooLarge) => "answer_too_large",
            Self::Stopped => "stopped_at_workstation",
        }
    }

    /// The error as the protocol writes it: a JSON object on one line, without a line's end.
    pub(crate) fn json(&self, protocol: Protocol, request: RequestId) -> Vec<u8> {
        let message = self.to_string();
        let status = self.status();
        let object = match protocol {
            Protocol::Ollama => json!({ "error": message }),
            Protocol::Openai => json!({ "error": {
                "message": message,
                "type": openai_type(status),
                "param": self.param(),
                "code": self.code(),
            } }),
            Protocol::Anthropic => json!({
                "type": "error",
                "error": { "type": anthropic_type(status), "message": message },
                "request_id": request,
            }),
            Protocol::Gemini => json!({ "error": {
                "code": status.as_u16(),
                "message": message,
                "status": gemini_status(status),
                "details": [{ "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": self.code(), "domain": "1k4" }],
            } }),
        };
        object.to_string().into_bytes()
    }

    /// The error as OpenAI's Responses write it in the middle of a stream. Its number in the stream is not known here, and no client
    /// is known to look at it.
    pub(crate) fn responses_json(&self) -> Vec<u8> {
        let object = json!({
            "type": "error",
            "code": self.code(),
            "message": self.to_string(),
            "param": self.param(),
            "sequence_number": 0,
        });
        object.to_string().into_bytes()
    }

    /// The error as a whole answer to a request that has a record.
    pub(crate) fn response(&self, protocol: Protocol, request: RequestId) -> Response<ProxyBody> {
        let mut response = self.unrecorded_response(protocol, request);
        head::tell_receipt(response.headers_mut(), request);
        response
    }

    /// The error as a whole answer to a request that leaves no record.
    pub(crate) fn unrecorded_response(&self, protocol: Protocol, request: RequestId) -> Response<ProxyBody> {
        let content = Content::from(Bytes::from(self.json(protocol, request)));
        let mut response = head::unrecorded(self.status(), request, ProxyBody::whole(content));
        let headers = response.headers_mut();
        head::tell_request(headers, protocol, request);
        headers.insert(CONTENT_TYPE, head::json(protocol));
        headers.insert(ERROR, HeaderValue::from_static(self.code()));
        headers.insert(SOURCE, HeaderValue::from_static("gateway"));
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::WrongMethod(methods) = self {
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        if let Some(should) = self.should_retry() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static(if should { "true" } else { "false" }));
        }
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allowance) = self.allowance() {
            head::tell_allowance(headers, allowance);
        }
        response
    }

    /// When it is worth trying again, where that is known or can be supposed.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Refused(refusal) => refusal.retry_after_s.or_else(|| usual_wait_s(refusal.code)),
            Self::NoneConnected | Self::BridgeOffline | Self::OllamaUnavailable | Self::Broken(Failure::LinkLost) => Some(SOON_S),
            Self::NoWorkstation | Self::Paused => Some(BY_HAND_S),
            Self::NoAnswer(NoAnswer::NoProvider { retry_after_s }) | Self::NotReserved(NotReserved::InFlight { retry_after_s }) => {
                Some(u64::from(*retry_after_s))
            }
            Self::NotAdmitted(NotAdmitted::RateLimited { retry_after, .. })
            | Self::NotReserved(NotReserved::RateLimited { retry_after, .. }) => Some(u64::from(head::whole_seconds(*retry_after))),
            Self::NotAdmitted(NotAdmitted::Unavailable) | Self::NotReserved(NotReserved::Unavailable) | Self::NoRoom => Some(1),
            _ => None,
        }
    }

    /// Whether to try again, where the status would let clients think otherwise: money that comes back by itself, and what only the
    /// owner of the account, or the Lab's operator, can mend.
    fn should_retry(&self) -> Option<bool> {
        match self {
            Self::NotReserved(NotReserved::InFlight { .. }) => Some(true),
            Self::NotReserved(NotReserved::InsufficientCredits | NotReserved::KeySpendLimit | NotReserved::TrialExhausted)
            | Self::NoAnswer(NoAnswer::KeyRefused | NoAnswer::AccountSpent) => Some(false),
            _ => None,
        }
    }

    fn allowance(&self) -> Option<&Allowance> {
        match self {
            Self::NotAdmitted(NotAdmitted::RateLimited { allowance, .. })
            | Self::NotReserved(NotReserved::RateLimited { allowance, .. }) => Some(allowance),
            _ => None,
        }
    }

    /// The field that is at fault, for OpenAI's clients.
    fn param(&self) -> Option<&'static str> {
        match self {
            Self::Unreadable(Unreadable::Duplicate(field)) => Some(field),
            Self::Unreadable(Unreadable::StreamType) => Some("stream"),
            Self::Background => Some("background"),
            Self::Unreadable(Unreadable::ModelType)
            | Self::ModelMissing
            | Self::ModelInvalid(_)
            | Self::NotInCatalogue
            | Self::NotForLocal
            | Self::ModelMismatch
            | Self::NotReserved(NotReserved::ModelNotAllowed)
            | Self::ModelNotFound(_)
            | Self::DeviceNotFound
            | Self::DeviceAmbiguous => Some("model"),
            _ => None,
        }
    }
}

/// A bridge that lost its link, or whose Lab starts anew, is back after this long; so is an Ollama that starts.
const SOON_S: u64 = 5;
/// Somebody at the workstation has to do something first. It is the longest that the SDKs let an answer make them wait.
const BY_HAND_S: u64 = 60;

/// How long to wait where the bridge says nothing of it.
fn usual_wait_s(code: RefusalCode) -> Option<u64> {
    match code {
        RefusalCode::QueueFull | RefusalCode::OllamaUnavailable => Some(SOON_S),
        RefusalCode::Paused | RefusalCode::OllamaTooOld => Some(BY_HAND_S),
        RefusalCode::Unlisted
        | RefusalCode::InvalidBody
        | RefusalCode::TooLarge
        | RefusalCode::FieldNotAllowed
        | RefusalCode::ModelNotShared
        | RefusalCode::OperationNotShared
        | RefusalCode::ModelNotLocal
        | RefusalCode::UnknownRelay
        | RefusalCode::OffsetGone => None,
    }
}

impl From<NotRelayed> for ProxyError {
    fn from(why: NotRelayed) -> Self {
        match why {
            NotRelayed::Refused(refusal) => Self::Refused(refusal),
            NotRelayed::Offline => Self::BridgeOffline,
            NotRelayed::LinkLost => Self::Broken(Failure::LinkLost),
        }
    }
}

fn openai_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::PAYMENT_REQUIRED => "insufficient_quota",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

fn anthropic_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::PAYMENT_REQUIRED => "billing_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

fn gemini_status(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
        StatusCode::PAYMENT_REQUIRED | StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
        StatusCode::FORBIDDEN => "PERMISSION_DENIED",
        StatusCode::NOT_FOUND => "NOT_FOUND",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "UNAVAILABLE",
        StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
        status if status.is_client_error() => "INVALID_ARGUMENT",
        _ => "INTERNAL",
    }
}

fn not_reserved(why: NotReserved) -> &'static str {
    match why {
        NotReserved::ModelNotAllowed => "this API key may not ask for this model: use another key, or have its models widened",
        NotReserved::InsufficientCredits => {
            "the account has not enough credits for what this request may cost: add credits, or ask for fewer tokens"
        }
        NotReserved::KeySpendLimit => {
            "this API key has reached its spending limit: raise it, wait for its next window, or use another key"
        }
        NotReserved::TrialExhausted => "the free requests are used up: add credits to go on",
        NotReserved::InFlight { .. } => {
            "running requests have set aside what is left of the budget: try again when they have ended"
        }
        NotReserved::RateLimited { .. } => "too many tokens in too short a time: try again as `retry-after` says",
        NotReserved::Unavailable => "the Lab cannot account for requests just now: try again in a moment",
    }
}

fn no_answer(why: NoAnswer) -> &'static str {
    match why {
        NoAnswer::NoProvider { .. } => "no provider of this model can be reached just now: try again as `retry-after` says",
        NoAnswer::Failed => "the provider gave no answer that can be passed on: try again",
        NoAnswer::Timeout => "the provider did not answer in time: try again, or ask for less",
        NoAnswer::KeyRefused => "the provider refused this Lab's own key: tell the Lab's operator",
        NoAnswer::AccountSpent => "this Lab's own account at the provider is used up: tell the Lab's operator",
    }
}

fn broken_off(why: BrokenOff) -> &'static str {
    match why {
        BrokenOff::Lost => "the provider broke off in the middle of the answer: try again",
        BrokenOff::Silent => "the provider fell silent in the middle of the answer: try again",
    }
}

fn not_admitted(why: NotAdmitted) -> &'static str {
    match why {
        NotAdmitted::Missing => "the request carries no API key: send one as `Authorization: Bearer <key>`",
        // One sentence for all: whether a key ever existed is nobody's business.
        NotAdmitted::Malformed | NotAdmitted::Unknown => {
            "the API key is not valid here: copy it again, whole, or make a new one if it was revoked or has expired"
        }
        NotAdmitted::Ambiguous => "the request carries two different API keys: send one",
        NotAdmitted::Scope => "this API key is not for this: use one whose scopes allow it",
        NotAdmitted::RateLimited { .. } => "too many requests in too short a time, or at once: try again as `retry-after` says",
        NotAdmitted::Unavailable => "the Lab cannot check keys just now: try again in a moment",
    }
}

fn broken(failure: Failure) -> String {
    match failure {
        Failure::OllamaError => "Ollama failed in the middle of the answer: see its log on the workstation, and try again".into(),
        Failure::OllamaTruncated => {
            "Ollama ended the answer without finishing it: see its log on the workstation, and try again".into()
        }
        Failure::OllamaLost => {
            "Ollama went away in the middle of the answer: see whether it runs on the workstation, and try again".into()
        }
        Failure::NotLocal => "the answer did not come from the workstation itself: choose a model that runs there".into(),
        Failure::TimeLimit => {
            "the answer took longer than the workstation's owner allows: ask for less, or raise the limit there".into()
        }
        Failure::TooLarge => "a line of the answer was longer than the workstation's bridge can hold: ask for less at once".into(),
        Failure::LinkLost => format!(
            "the workstation was cut off for more than {} s: see there what `1k4-bridge status` says, and try again",
            RESUME_WINDOW.as_secs()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn text(error: &ProxyError, protocol: Protocol) -> String {
        let request = "req_00000000000000000000000000".parse().unwrap();
        String::from_utf8(error.json(protocol, request)).unwrap()
    }

    #[test]
    fn each_dialect_has_its_shape() {
        let error = ProxyError::NotAdmitted(NotAdmitted::Ambiguous);
        assert_eq!(text(&error, Protocol::Ollama), r#"{"error":"the request carries two different API keys: send one"}"#);
        assert_eq!(
            text(&error, Protocol::Openai),
            r#"{"error":{"message":"the request carries two different API keys: send one","type":"invalid_request_error","param":null,"code":"ambiguous_api_key"}}"#
        );
        assert_eq!(
            text(&error, Protocol::Anthropic),
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"the request carries two different API keys: send one"},"request_id":"req_00000000000000000000000000"}"#
        );
    }

    #[test]
    fn geminis_shape_has_the_code_in_its_details() {
        assert_eq!(
            text(&ProxyError::NotReserved(NotReserved::TrialExhausted), Protocol::Gemini),
            r#"{"error":{"code":402,"message":"the free requests are used up: add credits to go on","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"trial_exhausted","domain":"1k4"}]}}"#
        );
    }

    #[test]
    fn what_may_pass_says_when() {
        let refused = |code| ProxyError::Refused(Refusal::new(code, "no"));
        for (error, wait) in [
            (ProxyError::BridgeOffline, Some("5")),
            (ProxyError::NoneConnected, Some("5")),
            (ProxyError::Broken(Failure::LinkLost), Some("5")),
            (ProxyError::OllamaUnavailable, Some("5")),
            (refused(RefusalCode::OllamaUnavailable), Some("5")),
            (refused(RefusalCode::QueueFull), Some("5")),
            (ProxyError::Refused(Refusal { retry_after_s: Some(9), ..Refusal::new(RefusalCode::QueueFull, "no") }), Some("9")),
            (ProxyError::Paused, Some("60")),
            (refused(RefusalCode::Paused), Some("60")),
            (ProxyError::NoWorkstation, Some("60")),
            (ProxyError::NoAnswer(NoAnswer::NoProvider { retry_after_s: 3 }), Some("3")),
            (refused(RefusalCode::FieldNotAllowed), None),
            (ProxyError::Stopped, None),
        ] {
            let response = error.response(Protocol::Openai, "req_00000000000000000000000000".parse().unwrap());
            let told = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap());
            assert_eq!(told, wait, "{error:?}");
        }
    }

    #[test]
    fn every_cause_keeps_its_status_and_code() {
        let model: ModelName = "a".parse().unwrap();
        for (error, status, code, openai, anthropic) in [
            (ProxyError::NoSuchRoute, 404, "not_found", "not_found_error", "not_found_error"),
            (ProxyError::WrongMethod("POST"), 405, "method_not_allowed", "invalid_request_error", "invalid_request_error"),
            (ProxyError::NotAdmitted(NotAdmitted::Missing), 401, "missing_api_key", "authentication_error", "authentication_error"),
            (
                ProxyError::NotAdmitted(NotAdmitted::Malformed),
                401,
                "invalid_api_key",
                "authentication_error",
                "authentication_error",
            ),
            (ProxyError::NotAdmitted(NotAdmitted::Unknown), 401, "invalid_api_key", "authentication_error", "authentication_error"),
            (ProxyError::NotAdmitted(NotAdmitted::Unavailable), 503, "unavailable", "api_error", "overloaded_error"),
            (ProxyError::BodyTooLarge, 413, "too_large", "invalid_request_error", "request_too_large"),
            (ProxyError::BodyBroken, 400, "invalid_body", "invalid_request_error", "invalid_request_error"),
            (Unreadable::NotAnObject.into(), 400, "invalid_body", "invalid_request_error", "invalid_request_error"),
            (Unreadable::Duplicate("model").into(), 400, "duplicate_field", "invalid_request_error", "invalid_request_error"),
            (Unreadable::StreamType.into(), 400, "invalid_type", "invalid_request_error", "invalid_request_error"),
            (ProxyError::ModelMissing, 400, "missing_model", "invalid_request_error", "invalid_request_error"),
            (InvalidModelName::Part.into(), 400, "invalid_model", "invalid_request_error", "invalid_request_error"),
            (ProxyError::NotInCatalogue, 404, "model_not_found", "not_found_error", "not_found_error"),
            (ProxyError::NotForLocal, 404, "model_not_found", "not_found_error", "not_found_error"),
            (ProxyError::NotServed("no"), 404, "endpoint_not_supported", "not_found_error", "not_found_error"),
            (ProxyError::BodySlow, 408, "body_timeout", "invalid_request_error", "invalid_request_error"),
            (ProxyError::BodyEncoded, 415, "unsupported_encoding", "invalid_request_error", "invalid_request_error"),
            (ProxyError::ModelMismatch, 400, "model_mismatch", "invalid_request_error", "invalid_request_error"),
            (ProxyError::NoRoom, 503, "no_room", "api_error", "overloaded_error"),
            (ProxyError::Background, 400, "background_not_supported", "invalid_request_error", "invalid_request_error"),
            (ProxyError::NotAdmitted(NotAdmitted::Scope), 403, "key_scope", "permission_error", "permission_error"),
            (
                ProxyError::NotAdmitted(NotAdmitted::RateLimited { retry_after: SECOND, allowance: Allowance::default() }),
                429,
                "rate_limited",
                "rate_limit_error",
                "rate_limit_error",
            ),
            (
                ProxyError::NotReserved(NotReserved::RateLimited { retry_after: SECOND, allowance: Allowance::default() }),
                429,
                "rate_limited",
                "rate_limit_error",
                "rate_limit_error",
            ),
            (
                ProxyError::NotReserved(NotReserved::ModelNotAllowed),
                403,
                "model_not_allowed",
                "permission_error",
                "permission_error",
            ),
            (
                ProxyError::NotReserved(NotReserved::InsufficientCredits),
                402,
                "insufficient_credits",
                "insufficient_quota",
                "billing_error",
            ),
            (ProxyError::NotReserved(NotReserved::KeySpendLimit), 402, "key_spend_limit", "insufficient_quota", "billing_error"),
            (ProxyError::NotReserved(NotReserved::TrialExhausted), 402, "trial_exhausted", "insufficient_quota", "billing_error"),
            (
                ProxyError::NotReserved(NotReserved::InFlight { retry_after_s: 1 }),
                402,
                "in_flight_budget_exhausted",
                "insufficient_quota",
                "billing_error",
            ),
            (ProxyError::NotReserved(NotReserved::Unavailable), 503, "unavailable", "api_error", "overloaded_error"),
            (ProxyError::NoAnswer(NoAnswer::NoProvider { retry_after_s: 1 }), 503, "no_provider", "api_error", "overloaded_error"),
            (ProxyError::NoAnswer(NoAnswer::Failed), 502, "upstream_error", "api_error", "api_error"),
            (ProxyError::NoAnswer(NoAnswer::KeyRefused), 502, "upstream_error", "api_error", "api_error"),
            (ProxyError::NoAnswer(NoAnswer::AccountSpent), 502, "upstream_error", "api_error", "api_error"),
            (ProxyError::NoAnswer(NoAnswer::Timeout), 504, "upstream_timeout", "api_error", "timeout_error"),
            (ProxyError::BrokenOff(BrokenOff::Lost), 502, "upstream_error", "api_error", "api_error"),
            (ProxyError::BrokenOff(BrokenOff::Silent), 504, "upstream_timeout", "api_error", "timeout_error"),
            (ProxyError::ModelNotFound(model), 404, "model_not_found", "not_found_error", "not_found_error"),
            (ProxyError::DeviceNotFound, 404, "workstation_not_found", "not_found_error", "not_found_error"),
            (ProxyError::DeviceAmbiguous, 400, "ambiguous_workstation", "invalid_request_error", "invalid_request_error"),
            (ProxyError::NoWorkstation, 503, "bridge_offline", "api_error", "overloaded_error"),
            (ProxyError::NoneConnected, 503, "bridge_offline", "api_error", "overloaded_error"),
            (ProxyError::BridgeOffline, 503, "bridge_offline", "api_error", "overloaded_error"),
            (ProxyError::Paused, 503, "paused", "api_error", "overloaded_error"),
            (ProxyError::OllamaUnavailable, 503, "ollama_unavailable", "api_error", "overloaded_error"),
            (ProxyError::Stopped, 503, "stopped_at_workstation", "api_error", "overloaded_error"),
            (ProxyError::OllamaError, 502, "ollama_error", "api_error", "api_error"),
            (ProxyError::Broken(Failure::OllamaError), 502, "ollama_error", "api_error", "api_error"),
            (ProxyError::Broken(Failure::OllamaTruncated), 502, "ollama_truncated", "api_error", "api_error"),
            (ProxyError::Broken(Failure::OllamaLost), 502, "ollama_lost", "api_error", "api_error"),
            (ProxyError::Broken(Failure::NotLocal), 502, "model_not_local", "api_error", "api_error"),
            (ProxyError::Broken(Failure::TimeLimit), 504, "time_limit", "api_error", "timeout_error"),
            (ProxyError::Broken(Failure::TooLarge), 502, "answer_too_large", "api_error", "api_error"),
            (ProxyError::Broken(Failure::LinkLost), 503, "bridge_offline", "api_error", "overloaded_error"),
            (
                ProxyError::Refused(Refusal::new(RefusalCode::ModelNotLocal, "no")),
                403,
                "model_not_local",
                "permission_error",
                "permission_error",
            ),
            (ProxyError::Refused(Refusal::new(RefusalCode::QueueFull, "no")), 503, "queue_full", "api_error", "overloaded_error"),
        ] {
            assert_eq!((error.status().as_u16(), error.code()), (status, code), "{error:?}");
            assert!(text(&error, Protocol::Openai).contains(&format!(r#""type":"{openai}""#)), "{error:?}");
            assert!(text(&error, Protocol::Anthropic).contains(&format!(r#""type":"{anthropic}""#)), "{error:?}");
        }
    }
}
