//! What a caller is told when their request comes to nothing: one status, one stable code and one sentence for each cause, in the
//! caller's own dialect. Decided here and nowhere else.
//!
//! A sentence names the cause and the next step. It holds nothing of a key, a prompt or an answer; a model's name is repeated only
//! after it was read as a [`ModelName`].

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde_json::json;
use wire::{
    Content, ModelName, RequestId,
    model::InvalidModelName,
    relay::{Dialect, Failure, MAX_BODY, Outcome, RESUME_WINDOW, Refusal},
};

use crate::{NotAdmitted, NotRelayed, body::ProxyBody, head, scan::Unreadable};

/// Response header of an error: its code, also in dialects whose errors have no place for one.
const ERROR: HeaderName = HeaderName::from_static("x-1k4-error");

/// Why a request comes to nothing, or an answer to no good end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("there is no such address here: the model API lives under `/v1/` and `/api/`")]
    NoSuchRoute,
    #[error("{}", not_admitted(*.0))]
    NotAdmitted(NotAdmitted),
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
    /// A name without `local/` where such a name means a provider's model.
    #[error(
        "model '{0}' not found: a model on your own workstation is asked for as `local/<model>`, and `GET /v1/models` lists them"
    )]
    NotLocal(ModelName),
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
}

impl ProxyError {
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
            Self::NotAdmitted(NotAdmitted::Ambiguous)
            | Self::BodyBroken
            | Self::Unreadable(_)
            | Self::ModelMissing
            | Self::ModelInvalid(_)
            | Self::DeviceAmbiguous => StatusCode::BAD_REQUEST,
            Self::NoSuchRoute | Self::NotLocal(_) | Self::ModelNotFound(_) | Self::DeviceNotFound => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotAdmitted(NotAdmitted::Unavailable)
            | Self::NoWorkstation
            | Self::NoneConnected
            | Self::BridgeOffline
            | Self::Paused
            | Self::OllamaUnavailable
            | Self::Stopped
            | Self::Broken(Failure::LinkLost) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(refusal) => StatusCode::from_u16(refusal.code.status()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            Self::Broken(Failure::TimeLimit) => StatusCode::GATEWAY_TIMEOUT,
            Self::OllamaError
            | Self::Broken(
                Failure::OllamaError | Failure::OllamaTruncated | Failure::OllamaLost | Failure::NotLocal | Failure::TooLarge,
            ) => StatusCode::BAD_GATEWAY,
        }
    }

    /// The name for programs. Kept stable; the same word stands in the record.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::NoSuchRoute => "not_found",
            Self::NotAdmitted(NotAdmitted::Missing) => "missing_api_key",
            Self::NotAdmitted(NotAdmitted::Malformed | NotAdmitted::Unknown) => "invalid_api_key",
            Self::NotAdmitted(NotAdmitted::Ambiguous) => "ambiguous_api_key",
            Self::NotAdmitted(NotAdmitted::Unavailable) => "unavailable",
            Self::BodyTooLarge => "too_large",
            Self::BodyBroken | Self::Unreadable(Unreadable::NotAnObject) => "invalid_body",
            Self::Unreadable(Unreadable::Duplicate(_)) => "duplicate_field",
            Self::Unreadable(Unreadable::ModelType | Unreadable::StreamType) => "invalid_type",
            Self::ModelMissing => "missing_model",
            Self::ModelInvalid(_) => "invalid_model",
            Self::NotLocal(_) | Self::ModelNotFound(_) => "model_not_found",
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

    /// The error as the dialect writes it: a JSON object on one line, without a line's end.
    pub(crate) fn json(&self, dialect: Dialect, request: RequestId) -> Vec<u8> {
        let message = self.to_string();
        let status = self.status();
        let object = match dialect {
            Dialect::Ollama => json!({ "error": message }),
            Dialect::Openai => json!({ "error": {
                "message": message,
                "type": openai_type(status),
                "param": self.param(),
                "code": self.code(),
            } }),
            Dialect::Anthropic => json!({
                "type": "error",
                "error": { "type": anthropic_type(status), "message": message },
                "request_id": request,
            }),
        };
        object.to_string().into_bytes()
    }

    /// The error as a whole answer.
    pub(crate) fn response(&self, dialect: Dialect, request: RequestId) -> Response<ProxyBody> {
        let content = Content::from(Bytes::from(self.json(dialect, request)));
        let mut response = head::response(self.status(), request, ProxyBody::whole(content));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, head::json(dialect));
        headers.insert(ERROR, HeaderValue::from_static(self.code()));
        if self.status() == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Self::Refused(Refusal { retry_after_s: Some(seconds), .. }) = self {
            headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        response
    }

    /// The field that is at fault, for OpenAI's clients.
    fn param(&self) -> Option<&'static str> {
        match self {
            Self::Unreadable(Unreadable::Duplicate(field)) => Some(field),
            Self::Unreadable(Unreadable::StreamType) => Some("stream"),
            Self::Unreadable(Unreadable::ModelType)
            | Self::ModelMissing
            | Self::ModelInvalid(_)
            | Self::NotLocal(_)
            | Self::ModelNotFound(_)
            | Self::DeviceNotFound
            | Self::DeviceAmbiguous => Some("model"),
            _ => None,
        }
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
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

fn anthropic_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
        StatusCode::GATEWAY_TIMEOUT => "timeout_error",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    }
}

fn not_admitted(why: NotAdmitted) -> &'static str {
    match why {
        NotAdmitted::Missing => "the request carries no API key: send one as `Authorization: Bearer <key>`",
        NotAdmitted::Malformed => "the API key is not of the form that this Lab gives out: copy it again, whole",
        NotAdmitted::Unknown => "the API key is not known here, was revoked or has expired: make a new one",
        NotAdmitted::Ambiguous => "the request carries two different API keys: send one",
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
    use wire::relay::RefusalCode;

    use super::*;

    fn text(error: &ProxyError, dialect: Dialect) -> String {
        let request = "req_00000000000000000000000000".parse().unwrap();
        String::from_utf8(error.json(dialect, request)).unwrap()
    }

    #[test]
    fn each_dialect_has_its_shape() {
        let error = ProxyError::NotAdmitted(NotAdmitted::Ambiguous);
        assert_eq!(text(&error, Dialect::Ollama), r#"{"error":"the request carries two different API keys: send one"}"#);
        assert_eq!(
            text(&error, Dialect::Openai),
            r#"{"error":{"message":"the request carries two different API keys: send one","type":"invalid_request_error","param":null,"code":"ambiguous_api_key"}}"#
        );
        assert_eq!(
            text(&error, Dialect::Anthropic),
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"the request carries two different API keys: send one"},"request_id":"req_00000000000000000000000000"}"#
        );
    }

    #[test]
    fn every_cause_keeps_its_status_and_code() {
        let model: ModelName = "a".parse().unwrap();
        for (error, status, code, openai, anthropic) in [
            (ProxyError::NoSuchRoute, 404, "not_found", "not_found_error", "not_found_error"),
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
            (ProxyError::NotLocal(model.clone()), 404, "model_not_found", "not_found_error", "not_found_error"),
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
            assert!(text(&error, Dialect::Openai).contains(&format!(r#""type":"{openai}""#)), "{error:?}");
            assert!(text(&error, Dialect::Anthropic).contains(&format!(r#""type":"{anthropic}""#)), "{error:?}");
        }
    }
}
