//! What stands in the head of every answer.

use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use wire::{DeviceId, RequestId, relay::Dialect};

use crate::body::ProxyBody;

/// The request's id, by which its record is found.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-1k4-request-id");
/// The workstation that answers.
const DEVICE: HeaderName = HeaderName::from_static("x-1k4-device");
/// Asks reverse proxies of nginx's kind not to gather a stream before they pass it on.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// An answer of the Lab's own.
pub(crate) fn response(status: StatusCode, request: RequestId, body: ProxyBody) -> Response<ProxyBody> {
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

/// The content type of JSON that the proxy itself writes: as Ollama says it where Ollama's clients listen, plain elsewhere.
pub(crate) const fn json(dialect: Dialect) -> HeaderValue {
    match dialect {
        Dialect::Ollama => HeaderValue::from_static("application/json; charset=utf-8"),
        Dialect::Openai | Dialect::Anthropic => HeaderValue::from_static("application/json"),
    }
}
