//! Which headers pass between a caller and a provider. The policy is these tables and nothing else.
//!
//! Towards the provider it is a list of what passes: the API's own headers and those that its SDKs send. Whatever stands between
//! the caller and the Lab adds headers that tell who the caller is (`x-forwarded-for`, `cf-connecting-ip`, `x-ms-client-principal`
//! and the next one that nobody has heard of); a list of what is dropped would have to know them all. The SDKs of OpenAI,
//! Anthropic, Google and xAI send nothing that the lists below leave out, but keys and accounts, which are the operator's here.
//!
//! Towards the caller it is a list of what is dropped: what concerns the connection, the operator's account and the provider's
//! site. Everything else is part of the answer.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};

/// Fields of a head at most; hyper holds HTTP/1 to the same.
pub(super) const MOST_FIELDS: usize = 100;

/// Headers of a caller that pass, by name.
const PASSED: [&str; 16] = [
    "accept",
    "accept-language",
    "content-type",
    // Codex and its kin say with these which conversation a request belongs to, so that it meets its prompt cache.
    "conversation-id",
    "conversation_id",
    "idempotency-key",
    "originator",
    "session-id",
    "session_id",
    "user-agent",
    "x-app",
    "x-client-request-id",
    "x-goog-api-client",
    "x-ms-client-request-id",
    "x-server-timeout",
    "x-session-id",
];

/// Headers of a caller that pass, by the family that they belong to.
const PASSED_FAMILIES: [&str; 10] = [
    "anthropic-",
    "openai-",
    "x-anthropic-",
    "x-claude-",
    "x-codex-",
    "x-gemini-",
    "x-grok-",
    "x-openai-",
    "x-stainless-",
    "x-xai-",
];

/// A header of a family does not pass when its name says that it is about an account: those are the operator's. This is also
/// `OpenAI-Organization` and `OpenAI-Project`.
const ACCOUNT_WORDS: [&str; 8] = ["account", "auth", "cookie", "key", "organization", "project", "secret", "token"];

/// Headers of an answer that are dropped, by name.
const DROPPED: [&str; 35] = [
    // The connection's.
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // The operator's account's.
    "anthropic-organization-id",
    "openai-organization",
    "openai-project",
    "www-authenticate",
    "x-ms-deployment-name",
    // The provider's site's: the Lab is another one, and says these things for itself.
    "alt-svc",
    "clear-site-data",
    "content-security-policy",
    "cross-origin-embedder-policy",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "expect-ct",
    "location",
    "nel",
    "p3p",
    "permissions-policy",
    "public-key-pins",
    "refresh",
    "report-to",
    "reporting-endpoints",
    "server",
    "set-cookie",
    "set-cookie2",
    "strict-transport-security",
    "via",
    "x-powered-by",
];

/// Headers of an answer that are dropped, by family. The last is the Lab's own: a provider cannot speak for it.
///
/// `x-accel-` and `x-sendfile` would have a reverse proxy before the Lab fetch something else in the answer's place.
const DROPPED_FAMILIES: [&str; 10] = [
    "access-control-",
    "anthropic-priority-",
    "anthropic-ratelimit-",
    "cf-",
    "x-accel-",
    "x-envoy-",
    "x-ms-region",
    "x-ratelimit-",
    "x-sendfile",
    "x-1k4-",
];

/// Copies what passes from a caller's headers to a request.
pub(super) fn pass_request(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        if passes_to_provider(name) && !is_named_by_connection(from, name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// What passes of an answer's headers.
pub(super) fn pass_response(from: HeaderMap) -> HeaderMap {
    let length = plain_length(&from).cloned();
    let has_connection = from.contains_key(CONNECTION);
    let named: Vec<HeaderName> = match has_connection {
        true => from.keys().filter(|name| is_named_by_connection(&from, name)).cloned().collect(),
        false => Vec::new(),
    };
    let mut to = HeaderMap::with_capacity(from.len());
    let mut last = None;
    for (name, value) in from {
        // A further value of the same header comes without its name.
        last = name.or(last);
        if let Some(name) = &last
            && *name != CONTENT_LENGTH
            && passes_to_caller(name)
            && !named.contains(name)
        {
            to.append(name.clone(), value);
        }
    }
    if let Some(length) = length {
        to.insert(CONTENT_LENGTH, length);
    }
    to
}

fn passes_to_provider(name: &HeaderName) -> bool {
    let name = name.as_str();
    PASSED.contains(&name)
        || PASSED_FAMILIES.iter().any(|family| name.starts_with(family)) && !ACCOUNT_WORDS.iter().any(|word| name.contains(word))
}

fn passes_to_caller(name: &HeaderName) -> bool {
    let name = name.as_str();
    !DROPPED.contains(&name) && !DROPPED_FAMILIES.iter().any(|family| name.starts_with(family))
}

/// A length that cannot be read in two ways.
fn plain_length(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next()?;
    let is_plain =
        lengths.next().is_none() && !headers.contains_key(TRANSFER_ENCODING) && length.as_bytes().iter().all(u8::is_ascii_digit);
    is_plain.then_some(length)
}

/// Whether `connection` says that a header concerns nobody behind the next hop.
fn is_named_by_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|named| named.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_passes_to_a_provider() {
        let passing = [
            "accept",
            "anthropic-beta",
            "anthropic-dangerous-direct-browser-access",
            "anthropic-version",
            "content-type",
            "idempotency-key",
            "openai-beta",
            "session_id",
            "user-agent",
            "x-client-request-id",
            "x-goog-api-client",
            "x-grok-conv-id",
            "x-stainless-retry-count",
        ];
        let dropped = [
            "accept-encoding",
            "api-key",
            "authorization",
            "cf-connecting-ip",
            "chatgpt-account-id",
            "connection",
            "content-encoding",
            "content-length",
            "cookie",
            "expect",
            "forwarded",
            "host",
            "keep-alive",
            "openai-organization",
            "openai-project",
            "origin",
            "proxy-authorization",
            "referer",
            "sec-fetch-mode",
            "te",
            "trailer",
            "transfer-encoding",
            "true-client-ip",
            "upgrade",
            "via",
            "x-1k4-request-id",
            "x-api-key",
            "x-forwarded-for",
            "x-goog-api-key",
            "x-goog-authenticated-user-email",
            "x-goog-user-project",
            "x-ms-client-principal",
            "x-openai-actor-authorization",
            "x-real-ip",
        ];
        let mut from = HeaderMap::new();
        for name in passing.iter().chain(&dropped) {
            from.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        let mut to = HeaderMap::new();
        pass_request(&from, &mut to);
        assert_eq!(names(&to), passing);

        from.insert(CONNECTION, HeaderValue::from_static("close, OpenAI-Beta"));
        from.append("anthropic-beta", HeaderValue::from_static("w"));
        let mut to = HeaderMap::new();
        pass_request(&from, &mut to);
        assert!(!to.contains_key("openai-beta"));
        assert_eq!(to.get_all("anthropic-beta").iter().collect::<Vec<_>>(), ["v", "w"]);
    }

    #[test]
    fn what_passes_to_a_caller() {
        let passing = [
            "content-encoding",
            "content-type",
            "openai-processing-ms",
            "request-id",
            "retry-after",
            "x-request-id",
            "x-should-retry",
        ];
        let mut from = HeaderMap::new();
        for name in passing {
            from.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        for name in DROPPED {
            from.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        for name in [
            "access-control-allow-origin",
            "anthropic-ratelimit-tokens-remaining",
            "cf-ray",
            "x-1k4-request-id",
            "x-hop",
            "x-ms-region",
            "x-ratelimit-limit-requests",
        ] {
            from.insert(HeaderName::from_static(name), HeaderValue::from_static("v"));
        }
        from.insert(CONNECTION, HeaderValue::from_static("X-Hop"));
        assert_eq!(names(&pass_response(from)), passing);
    }

    #[test]
    fn a_length_passes_when_it_is_the_only_one() {
        let length = |fields: &[_]| pass_response(headers(fields)).get(CONTENT_LENGTH).cloned();
        assert_eq!(length(&[("content-length", "5")]).unwrap(), "5");
        assert_eq!(length(&[("content-length", "5"), ("content-length", "5")]), None);
        assert_eq!(length(&[("content-length", "5, 5")]), None);
        assert_eq!(length(&[("content-length", "5"), ("transfer-encoding", "chunked")]), None);
        let twice = pass_response(headers(&[("x-a", "1"), ("x-a", "2")]));
        assert_eq!(twice.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    }
}
