//! What stands in the head of every answer.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use wire::{DeviceId, RequestId};

use crate::{Allowance, Name, Protocol, body::ProxyBody, error::SOURCE};

/// The request's id, by which its record is found.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-1k4-request-id");
/// Where the request's record can be read once it is over: everything that is kept of it.
const RECEIPT: HeaderName = HeaderName::from_static("x-1k4-receipt");
/// The channel's provider that answers.
const PROVIDER: HeaderName = HeaderName::from_static("x-1k4-provider");
/// The workstation that answers.
const DEVICE: HeaderName = HeaderName::from_static("x-1k4-device");
/// Asks reverse proxies of nginx's kind not to gather a stream before they pass it on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// An answer of the Lab's own to a request that has a record.
pub(crate) fn response(status: StatusCode, request: RequestId, body: ProxyBody) -> Response<ProxyBody> {
    let mut response = unrecorded(status, request, body);
    tell_receipt(response.headers_mut(), request);
    response
}

/// Where the record of the request is.
pub(crate) fn tell_receipt(headers: &mut HeaderMap, request: RequestId) {
    headers.insert(RECEIPT, ascii(&format!("/v1/requests/{request}")));
}

/// An answer to a request that leaves no record, because nobody is known whose it would be.
pub(crate) fn unrecorded(status: StatusCode, request: RequestId, body: ProxyBody) -> Response<ProxyBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, ascii(&request.to_string()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An answer of a workstation's. Its length is never announced: it is passed on as it comes.
pub(crate) fn relayed(
    status: StatusCode,
    content_type: HeaderValue,
    device: DeviceId,
    request: RequestId,
    body: ProxyBody,
) -> Response<ProxyBody> {
    let mut response = response(status, request, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(DEVICE, ascii(&device.to_string()));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

#[expect(clippy::expect_used, reason = "an id's text is ASCII")]
fn ascii(id: &str) -> HeaderValue {
    HeaderValue::from_str(id).expect("ids are ASCII")
}

/// A provider's answer: its own headers, as far as they are passed on, and ours.
pub(crate) fn provided(
    status: StatusCode,
    theirs: HeaderMap,
    provider: &Name,
    request: RequestId,
    body: ProxyBody,
) -> Response<ProxyBody> {
    let mut response = response(status, request, body);
    let headers = response.headers_mut();
    for (name, value) in &theirs {
        // Whatever they say of keeping it: nobody on the way keeps what somebody has paid for.
        if name != CACHE_CONTROL {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(PROVIDER, ascii(provider.as_str()));
    headers.insert(SOURCE, HeaderValue::from_static("provider"));
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// The request's id where the protocol's SDKs look for it, so that their error objects show one. A provider's answer has its own.
pub(crate) fn tell_request(headers: &mut HeaderMap, protocol: Protocol, request: RequestId) {
    let name = match protocol {
        Protocol::Openai => "x-request-id",
        Protocol::Anthropic => "request-id",
        Protocol::Gemini | Protocol::Ollama => return,
    };
    headers.insert(name, ascii(&request.to_string()));
}

/// What the limits leave, under the names that OpenAI's clients read. `reset` is in whole seconds with an `s`, as theirs may be.
pub(crate) fn tell_allowance(headers: &mut HeaderMap, allowance: &Allowance) {
    for (quota, [limit, remaining, reset]) in [(allowance.requests, REQUESTS), (allowance.tokens, TOKENS)] {
        if let Some(quota) = quota {
            headers.insert(limit, HeaderValue::from(quota.limit));
            headers.insert(remaining, HeaderValue::from(quota.remaining));
            headers.insert(reset, ascii(&format!("{}s", whole_seconds(quota.reset))));
        }
    }
}

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Rounded up, so that who waits that long has waited long enough.
pub(crate) fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX)
}

/// The content type of JSON that the proxy itself writes: as each protocol's servers say it.
pub(crate) const fn json(protocol: Protocol) -> HeaderValue {
    match protocol {
        Protocol::Ollama => HeaderValue::from_static("application/json; charset=utf-8"),
        Protocol::Gemini => HeaderValue::from_static("application/json; charset=UTF-8"),
        Protocol::Openai | Protocol::Anthropic => HeaderValue::from_static("application/json"),
    }
}
