//! The headers that a provider puts on its answers beside their type: ids, limits, and what tells the account.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::kind::Kind;

/// The id of a request, as its provider writes one.
pub(super) fn request_id(kind: Kind, number: u64) -> String {
    match kind {
        Kind::Anthropic => format!("req_{number:024}"),
        Kind::Openai | Kind::Compatible => format!("req_{number:032x}"),
        Kind::Gemini | Kind::Xai | Kind::Azure => format!("00000000-0000-4000-8000-{number:012x}"),
    }
}

/// Adds them. Limits are such that nobody reaches them; the account is made up.
pub(super) fn add(kind: Kind, request_id: &str, model: &str, headers: &mut HeaderMap) {
    let fixed: &[(&str, &str)] = match kind {
        Kind::Openai | Kind::Compatible => &[
            ("openai-organization", "fake-organization"),
            ("openai-project", "proj_fake0000"),
            ("openai-processing-ms", "12"),
            ("openai-version", "2020-10-01"),
            ("x-ratelimit-limit-requests", "10000"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-remaining-requests", "9999"),
            ("x-ratelimit-remaining-tokens", "1999984"),
            ("x-ratelimit-reset-requests", "6ms"),
            ("x-ratelimit-reset-tokens", "0s"),
            ("set-cookie", "__cf_bm=fake; path=/; HttpOnly; Secure"),
            ("server", "cloudflare"),
            ("cf-ray", "9a0000000000fake-LHR"),
        ],
        Kind::Anthropic => &[
            ("anthropic-organization-id", "00000000-fake-4000-8000-000000000000"),
            ("anthropic-ratelimit-requests-limit", "4000"),
            ("anthropic-ratelimit-requests-remaining", "3999"),
            ("anthropic-ratelimit-requests-reset", "2026-01-02T03:04:05Z"),
            ("anthropic-ratelimit-input-tokens-limit", "2000000"),
            ("anthropic-ratelimit-input-tokens-remaining", "2000000"),
            ("anthropic-ratelimit-input-tokens-reset", "2026-01-02T03:04:05Z"),
            ("anthropic-ratelimit-output-tokens-limit", "400000"),
            ("anthropic-ratelimit-output-tokens-remaining", "400000"),
            ("anthropic-ratelimit-output-tokens-reset", "2026-01-02T03:04:05Z"),
            ("server", "cloudflare"),
        ],
        Kind::Gemini => &[
            ("vary", "Origin"),
            ("server", "scaffolding on HTTPServer2"),
            ("x-xss-protection", "0"),
            ("x-frame-options", "SAMEORIGIN"),
            ("x-content-type-options", "nosniff"),
            ("server-timing", "gfet4t7; dur=12"),
        ],
        Kind::Xai => &[
            ("x-ratelimit-limit-requests", "480"),
            ("x-ratelimit-limit-tokens", "2000000"),
            ("x-ratelimit-remaining-requests", "479"),
            ("x-ratelimit-remaining-tokens", "1999984"),
        ],
        Kind::Azure => &[
            ("x-ms-region", "Fake Central"),
            ("x-ms-deployment-name", "fake"),
            ("azureml-model-session", "d000-20260102"),
            ("x-ratelimit-limit-requests", "250"),
            ("x-ratelimit-limit-tokens", "250000"),
            ("x-ratelimit-remaining-requests", "249"),
            ("x-ratelimit-remaining-tokens", "249984"),
        ],
    };
    for (name, value) in fixed {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let mut set = |name: &'static str, value: &str| {
        // What is no header's value came from a path, and is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    match kind {
        Kind::Anthropic => set("request-id", request_id),
        Kind::Openai | Kind::Compatible | Kind::Xai => set("x-request-id", request_id),
        Kind::Azure => {
            set("x-request-id", request_id);
            set("apim-request-id", request_id);
            set("x-ms-deployment-name", model);
        }
        // Google has none.
        Kind::Gemini => {}
    }
}
