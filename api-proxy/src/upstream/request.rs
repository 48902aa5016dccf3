//! What is sent to a channel: an address and headers that were made ready when the Lab started, and the caller's own where they
//! belong to the API.

use std::{collections::HashSet, fmt::Write as _};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HOST},
    uri::{Authority, PathAndQuery, Scheme},
};
use wire::Content;

use super::{Addressing, Call, dial::Version, headers::pass_request, pool::Sent};
use crate::{
    Model,
    provider::{Channel, Place, ProviderKind},
    surface::Endpoint,
};

/// What Anthropic is told when the caller does not say: the only version there is.
const ANTHROPIC_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"));
/// What Azure is told when neither the caller nor the operator says: the last stable version of the older API. It is older than
/// `/responses`, whose callers name one: Azure's clients always do.
const AZURE_VERSION: &str = "2024-10-21";

/// A channel, as requests see it.
pub(super) struct Address {
    pub(super) channel: Channel,
    models: Option<HashSet<String>>,
    root: String,
    authority: Authority,
    host: HeaderValue,
    /// The addresses that depend on no model, by endpoint.
    fixed: [Option<PathAndQuery>; Endpoint::ALL.len()],
    /// The secret as `authorization`, and by itself.
    secret: Option<(HeaderValue, HeaderValue)>,
}

impl Address {
    /// `None` when the secret or the host has characters that no request can carry.
    pub(super) fn new(channel: Channel) -> Option<Self> {
        let base = &channel.base;
        let (open, close) = if base.host.contains(':') { ("[", "]") } else { ("", "") };
        let port = if base.port == if base.https { 443 } else { 80 } { String::new() } else { format!(":{}", base.port) };
        let host = format!("{open}{}{close}{port}", base.host);
        let root = channel.root();
        let mut fixed = [const { None }; Endpoint::ALL.len()];
        for endpoint in Endpoint::ALL {
            if let Some(Place::Fixed(path)) = channel.kind.place(endpoint) {
                fixed[endpoint as usize] = Some(format!("{root}{path}").parse().ok()?);
            }
        }
        let secret = match &channel.secret {
            None => None,
            Some(secret) => Some((hidden(&format!("Bearer {}", secret.expose()))?, hidden(secret.expose())?)),
        };
        let models = channel.models.as_ref().map(|models| models.iter().cloned().collect());
        Some(Self { models, root, authority: host.parse().ok()?, host: host.parse().ok()?, fixed, secret, channel })
    }

    /// Whether it has the model and the endpoint at all.
    fn offers(&self, model: &Model, endpoint: Endpoint) -> bool {
        self.channel.provider == model.provider
            && self.channel.kind.place(endpoint).is_some()
            && self.models.as_ref().is_none_or(|models| models.contains(&*model.id))
            && self.is_deployed(model)
    }

    /// Azure has what its customer deployed. Who names no deployment of the v1 API has given them their models' names.
    fn is_deployed(&self, model: &Model) -> bool {
        let deployments = &self.channel.deployments;
        let named_alike = self.channel.kind == ProviderKind::Azure && deployments.is_empty() && self.models.is_some();
        !self.is_azure() || named_alike || deployments.contains_key(&*model.id)
    }

    /// Whether it has them for a request that names the model so, and whose body is passed on as it is.
    pub(super) fn takes(&self, model: &Model, endpoint: Endpoint, name: &str, addressing: Addressing) -> bool {
        // The body's `model` is what Azure reads as the deployment, unless the path has it.
        let is_named = || {
            let deployment = self.channel.deployments.get(&*model.id).map_or(&*model.id, String::as_str);
            addressing != Addressing::Deployment && deployment == name
        };
        self.offers(model, endpoint)
            && match (self.channel.kind, self.channel.kind.place(endpoint)) {
                (ProviderKind::Azure, _) | (ProviderKind::AzureDeployments, Some(Place::Fixed(_))) => is_named(),
                (ProviderKind::AzureDeployments, _) => true,
                _ => addressing != Addressing::Deployment,
            }
    }

    /// The request; `None` when the model's name cannot stand in a path.
    pub(super) fn request(&self, call: &Call<'_>, version: Version) -> Option<Request<Sent>> {
        let path = self.path(call)?;
        let mut headers = HeaderMap::with_capacity(call.headers.len() + 5);
        self.sign(call.endpoint, version, &mut headers);
        headers.insert(CONTENT_LENGTH, call.body.len().into());
        pass_request(call.headers, &mut headers);
        if matches!(call.endpoint, Endpoint::AnthropicMessages | Endpoint::AnthropicCountTokens) {
            let (name, value) = ANTHROPIC_VERSION;
            headers.entry(name).or_insert(value);
        }
        self.build(Method::POST, path, version, headers, Sent::new(call.body.for_retry()))
    }

    /// Asks for the list of models: it needs the secret, and costs nothing.
    pub(super) fn probe(&self, version: Version) -> Option<Request<Sent>> {
        let query = if self.channel.kind == ProviderKind::AzureDeployments { self.version(None) } else { String::new() };
        let path = format!("{}/models{query}", self.root).parse().ok()?;
        let native = match self.channel.kind {
            ProviderKind::Anthropic => Endpoint::AnthropicMessages,
            ProviderKind::Gemini => Endpoint::GeminiGenerate,
            _ => Endpoint::OpenaiChat,
        };
        let mut headers = HeaderMap::new();
        self.sign(native, version, &mut headers);
        if self.channel.kind == ProviderKind::Anthropic {
            headers.extend([ANTHROPIC_VERSION]);
        }
        self.build(Method::GET, path, version, headers, Sent::new(Content::default()))
    }

    fn build(&self, method: Method, path: PathAndQuery, version: Version, headers: HeaderMap, body: Sent) -> Option<Request<Sent>> {
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(path);
        if version == Version::Http2 {
            uri.scheme = Some(if self.channel.base.https { Scheme::HTTPS } else { Scheme::HTTP });
            uri.authority = Some(self.authority.clone());
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(uri).ok()?;
        *request.headers_mut() = headers;
        Some(request)
    }

    /// What every request carries. HTTP/2 has the host in its address.
    fn sign(&self, endpoint: Endpoint, version: Version, headers: &mut HeaderMap) {
        if version == Version::Http1 {
            headers.insert(HOST, self.host.clone());
        }
        // What comes back is passed on as it comes, and read on its way: nobody asked for it to be packed.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let Some((bearer, plain)) = &self.secret else { return };
        let name = match (self.channel.kind, endpoint) {
            (ProviderKind::Azure | ProviderKind::AzureDeployments, _) => HeaderName::from_static("api-key"),
            // A token of a subscription is no key.
            (ProviderKind::Anthropic, Endpoint::AnthropicMessages | Endpoint::AnthropicCountTokens)
                if !plain.as_bytes().starts_with(b"sk-ant-oat") =>
            {
                HeaderName::from_static("x-api-key")
            }
            (
                ProviderKind::Gemini,
                Endpoint::GeminiGenerate
                | Endpoint::GeminiStreamGenerate
                | Endpoint::GeminiCountTokens
                | Endpoint::GeminiEmbed
                | Endpoint::GeminiBatchEmbed,
            ) => HeaderName::from_static("x-goog-api-key"),
            _ => AUTHORIZATION,
        };
        let value = if name == AUTHORIZATION { bearer } else { plain };
        headers.insert(name, value.clone());
    }

    fn path(&self, call: &Call<'_>) -> Option<PathAndQuery> {
        match self.channel.kind.place(call.endpoint)? {
            Place::Fixed(_) => {
                let fixed = self.fixed[call.endpoint as usize].as_ref()?;
                match self.channel.kind {
                    ProviderKind::Azure => match asked_version(call.query) {
                        Some(version) => format!("{fixed}?api-version={version}").parse().ok(),
                        None => Some(fixed.clone()),
                    },
                    ProviderKind::AzureDeployments => format!("{fixed}{}", self.version(call.query)).parse().ok(),
                    _ => Some(fixed.clone()),
                }
            }
            Place::Model(verb) => {
                // An alias may have a slash in it, which no segment has; the id is what the provider calls it.
                let model = segment(call.name).or_else(|| segment(&call.model.id))?;
                let query = call.query.map(gemini_query).unwrap_or_default();
                let root = match call.addressing {
                    Addressing::GeminiStable => self.root.strip_suffix("beta").unwrap_or(&self.root),
                    Addressing::Usual | Addressing::Deployment => &self.root,
                };
                format!("{root}/models/{model}{verb}{query}").parse().ok()
            }
            Place::Deployment(path) => {
                let deployment = segment(self.channel.deployments.get(&*call.model.id)?)?;
                format!("{}/deployments/{deployment}{path}{}", self.root, self.version(call.query)).parse().ok()
            }
        }
    }

    /// The version of Azure's older API, as a query.
    fn version(&self, query: Option<&str>) -> String {
        let own = || self.channel.api_version.as_deref().unwrap_or(AZURE_VERSION);
        format!("?api-version={}", asked_version(query).unwrap_or_else(own))
    }

    fn is_azure(&self) -> bool {
        matches!(self.channel.kind, ProviderKind::Azure | ProviderKind::AzureDeployments)
    }
}

/// A header's value that is not written into a compression table and prints as nothing.
fn hidden(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A name as one segment of a path; `None` for one that would be more, or another.
fn segment(name: &str) -> Option<String> {
    if name.is_empty()
        || name == "."
        || name.contains("..")
        || name.contains(['/', '\\', '?', '#'])
        || name.contains(char::is_control)
    {
        return None;
    }
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            segment.push(char::from(byte));
        } else {
            write!(segment, "%{byte:02X}").ok()?;
        }
    }
    Some(segment)
}

/// The version that the caller asks for, if it looks like one.
fn asked_version(query: Option<&str>) -> Option<&str> {
    let version = query?.split('&').find_map(|pair| pair.strip_prefix("api-version="))?;
    let is_plain =
        (1..=32).contains(&version.len()) && version.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    is_plain.then_some(version)
}

/// What passes of a Gemini query: the form of the answer. `key` is the caller's own, `callback` would make it a script, and what
/// leaves out fields leaves out the usage.
fn gemini_query(query: &str) -> String {
    let mut passed = String::new();
    for pair in query.split('&') {
        let passes = matches!(pair, "alt=sse" | "alt=json" | "$alt=sse" | "$alt=json" | "%24alt=sse" | "%24alt=json")
            || matches!(pair, "prettyPrint=true" | "prettyPrint=false");
        if passes {
            passed.push(if passed.is_empty() { '?' } else { '&' });
            passed.push_str(pair);
        }
    }
    passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment() {
        assert_eq!(segment("gemini-2.5-flash"), Some("gemini-2.5-flash".to_owned()));
        assert_eq!(segment("a b:c%2F"), Some("a%20b%3Ac%252F".to_owned()));
        for name in ["", ".", "..", "a..b", "a/b", "a\\b", "a?b", "a#b", "a\r\nb"] {
            assert_eq!(segment(name), None, "{name:?}");
        }
    }

    #[test]
    fn a_query_loses_the_key_and_what_hides_the_usage() {
        for (query, expected) in [
            ("alt=sse", "?alt=sse"),
            ("key=SECRET&alt=sse&prettyPrint=false", "?alt=sse&prettyPrint=false"),
            ("%6bey=SECRET&fields=candidates&callback=x&alt=proto&access_token=y", ""),
            ("", ""),
        ] {
            assert_eq!(gemini_query(query), expected);
        }
        assert_eq!(asked_version(Some("a=b&api-version=2025-01-01-preview")), Some("2025-01-01-preview"));
        assert_eq!(asked_version(Some("api-version=1%26x")), None);
        assert_eq!(asked_version(None), None);
    }
}
