//! Errors, each in its provider's own shape and words.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

use super::kind::Kind;

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    body: What,
}

#[derive(Debug)]
enum What {
    /// The text alone; the rest follows from the status.
    Text(String),
    /// OpenAI's error with its fields.
    Openai(Value),
    /// The whole body.
    Body(Value),
}

impl Refusal {
    /// A request that is wrong.
    pub(super) fn bad(text: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, body: What::Text(text.to_owned()) }
    }

    /// A request that is refused with that status, in these words.
    pub(super) fn of_text(status: StatusCode, text: &str) -> Self {
        Self { status, body: What::Text(text.to_owned()) }
    }

    /// A request that is wrong in one of its parameters, in OpenAI's words.
    pub(super) fn parameter(param: &str, code: Option<&str>, text: &str) -> Self {
        let error = json!({"message": text, "type": "invalid_request_error", "param": param, "code": code});
        Self { status: StatusCode::BAD_REQUEST, body: What::Openai(error) }
    }

    /// A body that is no JSON.
    pub(super) fn no_json(kind: Kind) -> Self {
        Self::bad(match kind {
            Kind::Anthropic => "The request body is not valid JSON: expected value at line 1 column 1",
            Kind::Gemini => "Invalid JSON payload received. Unexpected token.",
            _ => {
                "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library \
                 correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
            }
        })
    }

    /// An address that the provider does not have.
    pub(super) fn no_such_address(kind: Kind, method: &str, path: &str) -> Self {
        let status = StatusCode::NOT_FOUND;
        let body = match kind {
            Kind::Azure => What::Body(json!({"error": {"code": "404", "message": "Resource not found"}})),
            Kind::Anthropic => What::Text("Not Found".to_owned()),
            Kind::Gemini => What::Text(format!("{path} is not found for API version v1beta.")),
            _ => What::Openai(json!({
                "message": format!("Invalid URL ({method} {path})"), "type": "invalid_request_error", "param": null, "code": null,
            })),
        };
        Self { status, body }
    }

    /// A model that the provider does not have.
    pub(super) fn no_such_model(kind: Kind, model: &str) -> Self {
        let status = StatusCode::NOT_FOUND;
        let body = match kind {
            Kind::Anthropic => What::Text(format!("model: {model}")),
            Kind::Gemini => What::Text(format!(
                "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call ListModels to \
                 see the list of available models and their supported methods."
            )),
            Kind::Azure => What::Body(json!({"error": {
                "code": "DeploymentNotFound",
                "message": "The API deployment for this resource does not exist. If you created the deployment within the last 5 \
                            minutes, please wait a moment and try again.",
            }})),
            Kind::Xai => What::Body(json!({
                "code": "Some requested entity was not found",
                "error": format!("The model {model} does not exist or your team does not have access to it."),
            })),
            Kind::Openai | Kind::Compatible => What::Openai(json!({
                "message": format!("The model `{model}` does not exist or you do not have access to it."),
                "type": "invalid_request_error", "param": null, "code": "model_not_found",
            })),
        };
        Self { status, body }
    }

    /// A request without a key.
    pub(super) fn no_key(kind: Kind) -> Self {
        let (status, body) = match kind {
            Kind::Anthropic => (StatusCode::UNAUTHORIZED, What::Text("x-api-key header is required".to_owned())),
            Kind::Gemini => (
                StatusCode::FORBIDDEN,
                What::Text(
                    "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other \
                     form of API consumer identity to call this API."
                        .to_owned(),
                ),
            ),
            Kind::Azure => return Self::wrong_key(kind, ""),
            Kind::Xai => (
                StatusCode::UNAUTHORIZED,
                What::Body(json!({
                    "code": "Unauthenticated",
                    "error": "No API key provided. You can obtain an API key from https://console.x.ai.",
                })),
            ),
            Kind::Openai | Kind::Compatible => (
                StatusCode::UNAUTHORIZED,
                What::Openai(json!({
                    "message": "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer \
                                auth (i.e. Authorization: Bearer YOUR_KEY).",
                    "type": "invalid_request_error", "param": null, "code": null,
                })),
            ),
        };
        Self { status, body }
    }

    /// A key that is not the provider's. Some quote a part of it, which is one reason why nobody else may see such an answer.
    pub(super) fn wrong_key(kind: Kind, key: &str) -> Self {
        let quoted = |head: usize, tail: usize| {
            let shown: Vec<char> = key.chars().collect();
            if shown.len() <= head + tail {
                return "*".repeat(shown.len());
            }
            let hidden = "*".repeat(shown.len() - head - tail);
            let part = |part: &[char]| part.iter().collect::<String>();
            format!("{}{hidden}{}", part(&shown[..head]), part(&shown[shown.len() - tail..]))
        };
        let (status, body) = match kind {
            Kind::Anthropic => (StatusCode::UNAUTHORIZED, What::Text("invalid x-api-key".to_owned())),
            // Google calls a wrong key a wrong argument.
            Kind::Gemini => (
                StatusCode::BAD_REQUEST,
                What::Body(json!({"error": {
                    "code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT",
                    "details": [
                        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                            "domain": "googleapis.com", "metadata": {"service": "generativelanguage.googleapis.com"}},
                        {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US",
                            "message": "API key not valid. Please pass a valid API key."},
                    ],
                }})),
            ),
            Kind::Azure => (
                StatusCode::UNAUTHORIZED,
                What::Body(json!({"error": {
                    "code": "401",
                    "message": "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key \
                                for an active subscription and use a correct regional API endpoint for your resource.",
                }})),
            ),
            // And so does xAI.
            Kind::Xai => (
                StatusCode::BAD_REQUEST,
                What::Body(json!({
                    "code": "Client specified an invalid argument",
                    "error": format!(
                        "Incorrect API key provided: {}. You can obtain an API key from https://console.x.ai.", quoted(2, 2)
                    ),
                })),
            ),
            Kind::Openai | Kind::Compatible => (
                StatusCode::UNAUTHORIZED,
                What::Openai(json!({
                    "message": format!(
                        "Incorrect API key provided: {}. You can find your API key at https://platform.openai.com/account/api-keys.",
                        quoted(8, 4)
                    ),
                    "type": "invalid_request_error", "param": null, "code": "invalid_api_key",
                })),
            ),
        };
        Self { status, body }
    }

    /// A body that is too large.
    pub(super) fn too_large() -> Self {
        let text = "Request exceeds the maximum size";
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, body: What::Text(text.to_owned()) }
    }

    /// What the provider says with that status.
    pub(super) fn of_status(kind: Kind, status: StatusCode, model: &str) -> Self {
        match (status.as_u16(), kind) {
            (401, _) => return Self { status, ..Self::wrong_key(kind, kind.usual_key()) },
            (404, _) => return Self::no_such_model(kind, model),
            _ => {}
        }
        let text = match (status.as_u16(), kind) {
            (400, _) => "The request is not what it must be.".to_owned(),
            (402, _) => {
                "Your credit balance is too low to access the API. Please go to Plans & Billing to purchase credits.".to_owned()
            }
            (403, _) => "This organization has been disabled.".to_owned(),
            (429, Kind::Anthropic) => {
                "This request would exceed your organization's rate limit of 50 requests per minute. For details, refer to: \
                 https://docs.claude.com/en/api/rate-limits."
                    .to_owned()
            }
            (429, Kind::Gemini) => "You exceeded your current quota, please check your plan and billing details.".to_owned(),
            (429, _) => format!(
                "Rate limit reached for {model} in organization org-fake0000 on requests per min (RPM): Limit 500, Used 500, \
                 Requested 1. Please try again in 120ms."
            ),
            (500, Kind::Anthropic) => "Internal server error".to_owned(),
            (500, Kind::Gemini) => "An internal error has occurred. Please retry or report in \
                 https://developers.generativeai.google/guide/troubleshooting"
                .to_owned(),
            (500, _) => "The server had an error while processing your request. Sorry about that!".to_owned(),
            (503, Kind::Gemini) => "The model is overloaded. Please try again later.".to_owned(),
            (529, _) => "Overloaded".to_owned(),
            _ => "The engine is currently overloaded, please try again later".to_owned(),
        };
        Self { status, body: What::Text(text) }
    }

    /// The failure that a stream ends with after it began, without a frame around it.
    pub(super) fn mid_stream(kind: Kind) -> Value {
        let status = if kind == Kind::Anthropic { 529 } else { 500 };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::of_status(kind, status, "").value(kind, None)
    }

    /// The body, in the provider's own layout.
    pub(super) fn body(&self, kind: Kind, request_id: &str) -> Bytes {
        let value = self.value(kind, Some(request_id));
        let text = match kind {
            Kind::Openai | Kind::Compatible | Kind::Gemini => pretty(&value) + "\n",
            Kind::Anthropic | Kind::Azure | Kind::Xai => value.to_string(),
        };
        text.into()
    }

    fn value(&self, kind: Kind, request_id: Option<&str>) -> Value {
        let text = match &self.body {
            What::Body(body) => return body.clone(),
            What::Openai(error) if kind == Kind::Xai => {
                return json!({"code": "Client specified an invalid argument", "error": error["message"]});
            }
            What::Openai(error) if kind == Kind::Gemini => error["message"].as_str().unwrap_or_default(),
            What::Openai(error) if kind == Kind::Anthropic => error["message"].as_str().unwrap_or_default(),
            What::Openai(error) => return json!({"error": error}),
            What::Text(text) => text,
        };
        let code = self.status.as_u16();
        match kind {
            Kind::Anthropic => {
                let mut body = json!({"type": "error", "error": {"type": anthropic_type(code), "message": text}});
                if let Some(id) = request_id {
                    body["request_id"] = id.into();
                }
                body
            }
            Kind::Gemini => json!({"error": {"code": code, "message": text, "status": google_status(code)}}),
            Kind::Xai => json!({"code": xai_code(code), "error": text}),
            Kind::Azure if code >= 500 || code == 429 => json!({"error": {"code": code.to_string(), "message": text}}),
            Kind::Openai | Kind::Azure | Kind::Compatible => {
                let (kind, word) = openai_type(code);
                json!({"error": {"message": text, "type": kind, "param": null, "code": word}})
            }
        }
    }
}

/// A document as OpenAI and Google lay it out: indented by two.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

const fn openai_type(status: u16) -> (&'static str, Option<&'static str>) {
    match status {
        402 => ("insufficient_quota", Some("insufficient_quota")),
        403 => ("invalid_request_error", Some("organization_deactivated")),
        429 => ("requests", Some("rate_limit_exceeded")),
        500.. => ("server_error", None),
        _ => ("invalid_request_error", None),
    }
}

const fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        409 => "conflict_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

const fn google_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        402 | 429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        500.. => "INTERNAL",
        _ => "INVALID_ARGUMENT",
    }
}

const fn xai_code(status: u16) -> &'static str {
    match status {
        403 => "The caller does not have permission to execute the specified operation",
        402 | 429 => "Some resource has been exhausted",
        503 => "The service is currently unavailable",
        500.. => "Internal error",
        _ => "Client specified an invalid argument",
    }
}
