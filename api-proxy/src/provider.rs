//! The cloud providers: which shapes they speak, and the channels through which an operator reaches them.
//!
//! A channel is one account at one provider: a base address, a secret, and what it may be asked for. What a caller's endpoint is
//! called at a provider is one table here, [`ProviderKind::place`]; no address, path or host ever comes from a request.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use zeroize::Zeroizing;

use crate::surface::Endpoint;

/// Which shape a provider's API has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    /// `api.openai.com`
    Openai,
    /// `api.anthropic.com`, with its OpenAI-compatible endpoint
    Anthropic,
    /// `generativelanguage.googleapis.com`, with its OpenAI-compatible endpoints
    Gemini,
    /// `api.x.ai`
    Xai,
    /// Azure OpenAI's v1 API: `https://RESOURCE.openai.azure.com/openai/v1/…`; a body's `model` is the deployment's name
    Azure,
    /// Azure OpenAI's older API: `/openai/deployments/DEPLOYMENT/…?api-version=…`, and `/openai/responses?api-version=…`, where a
    /// body's `model` is the deployment's name
    AzureDeployments,
    /// Anything that speaks OpenAI's protocol below its base address
    OpenaiCompatible,
}

/// The name of a provider or channel: 1 to 64 of `a-z`, `0-9`, `-`, `_` and `.`. It may be logged and stored.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// A text that is no [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to 64 characters out of a-z, 0-9, '-', '_' and '.'")]
pub struct InvalidName;

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
        if fits { Ok(Self(text.into())) } else { Err(InvalidName) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A provider's secret. Prints as `****`, and is overwritten when it goes.
#[derive(Clone)]
pub struct ProviderSecret(Arc<Zeroizing<String>>);

impl ProviderSecret {
    /// Wraps the text of a key; blanks around it, such as a file's last line end, do not belong to it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::new(Zeroizing::new(text.trim().to_owned())))
    }

    /// The text, for the header that carries it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ProviderSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// One account at one provider.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Unique among the channels.
    pub name: Name,
    /// Whose models of the catalogue it serves.
    pub provider: Name,
    /// Which shape it speaks.
    pub kind: ProviderKind,
    /// Where it is.
    pub base: BaseUrl,
    /// What it is opened with; `None` for a server that asks for nothing.
    pub secret: Option<ProviderSecret>,
    /// Channels with a smaller number are asked first.
    pub priority: u16,
    /// Its share of the requests among channels of the same priority; at least 1.
    pub weight: u16,
    /// Catalogue ids that it serves; `None` for all of its provider's.
    pub models: Option<Vec<String>>,
    /// Azure only: the deployment of each model that it serves, by catalogue id.
    pub deployments: HashMap<String, String>,
    /// [`ProviderKind::AzureDeployments`] only: the version that is asked for when the caller names none; `None` for the last stable
    /// one.
    pub api_version: Option<String>,
}

/// Where a channel is: `https://HOST[:PORT][/PREFIX]`. Plain `http` is taken for a loopback address written as a number only, so
/// that no prompt crosses a network in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Empty, or with a slash at its beginning and none at its end.
    pub(crate) prefix: String,
}

/// A text that is no [`BaseUrl`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBaseUrl {
    /// Not of the form.
    #[error("must be https://host, with a port and a path if need be")]
    Form,
    /// Plain http to another machine.
    #[error("must begin with https:// (http:// is taken for a loopback address such as http://127.0.0.1:8080 only)")]
    Plain,
}

impl FromStr for BaseUrl {
    type Err = InvalidBaseUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBaseUrl> {
        let uri: http::Uri = text.parse().map_err(|_| InvalidBaseUrl::Form)?;
        let authority = uri.authority().ok_or(InvalidBaseUrl::Form)?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidBaseUrl::Form),
        };
        if text.contains(['#', '?', '@']) || authority.host().is_empty() {
            return Err(InvalidBaseUrl::Form);
        }
        let port = match (authority.port_u16(), authority.as_str().len() == authority.host().len()) {
            (Some(port @ 1..), _) => port,
            (None, true) => {
                if https {
                    443
                } else {
                    80
                }
            }
            (Some(0) | None, _) => return Err(InvalidBaseUrl::Form),
        };
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if !https && !loopback {
            return Err(InvalidBaseUrl::Plain);
        }
        let prefix = uri.path().trim_end_matches('/').to_owned();
        if prefix.contains("..") || prefix.contains("//") {
            return Err(InvalidBaseUrl::Form);
        }
        Ok(Self { https, host, port, prefix })
    }
}

/// Where an endpoint is at a provider, below the root of its API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At this path, whatever the model.
    Fixed(&'static str),
    /// At `/models/MODEL` with this behind it.
    Model(&'static str),
    /// At `/deployments/DEPLOYMENT` with this behind it.
    Deployment(&'static str),
}

impl ProviderKind {
    /// Where this kind of provider has the endpoint; `None` when it has none. A path is one of these or it is nowhere.
    pub(crate) fn place(self, endpoint: Endpoint) -> Option<Place> {
        use Endpoint as E;
        let openai = match endpoint {
            E::OpenaiChat => Some("/chat/completions"),
            E::OpenaiCompletions => Some("/completions"),
            E::OpenaiEmbeddings => Some("/embeddings"),
            E::OpenaiResponses => Some("/responses"),
            E::OpenaiImages => Some("/images/generations"),
            _ => None,
        };
        match (self, endpoint) {
            (Self::Openai | Self::OpenaiCompatible | Self::Azure, _) => openai.map(Place::Fixed),
            (Self::Xai, E::OpenaiImages) => None,
            (Self::Xai, _) => openai.map(Place::Fixed),
            (Self::AzureDeployments, E::OpenaiChat | E::OpenaiCompletions | E::OpenaiEmbeddings) => openai.map(Place::Deployment),
            (Self::AzureDeployments, E::OpenaiResponses) => openai.map(Place::Fixed),
            (Self::Anthropic, E::OpenaiChat) => openai.map(Place::Fixed),
            (Self::Anthropic, E::AnthropicMessages) => Some(Place::Fixed("/messages")),
            (Self::Anthropic, E::AnthropicCountTokens) => Some(Place::Fixed("/messages/count_tokens")),
            (Self::Gemini, E::OpenaiChat) => Some(Place::Fixed("/openai/chat/completions")),
            (Self::Gemini, E::OpenaiEmbeddings) => Some(Place::Fixed("/openai/embeddings")),
            (Self::Gemini, E::GeminiGenerate) => Some(Place::Model(":generateContent")),
            (Self::Gemini, E::GeminiStreamGenerate) => Some(Place::Model(":streamGenerateContent")),
            (Self::Gemini, E::GeminiCountTokens) => Some(Place::Model(":countTokens")),
            (Self::Gemini, E::GeminiEmbed) => Some(Place::Model(":embedContent")),
            (Self::Gemini, E::GeminiBatchEmbed) => Some(Place::Model(":batchEmbedContents")),
            _ => None,
        }
    }

    /// What the root of its API is called. A channel's base address may end with it or leave it out.
    fn root(self) -> &'static str {
        match self {
            Self::Openai | Self::Xai | Self::Anthropic | Self::OpenaiCompatible => "/v1",
            Self::Gemini => "/v1beta",
            Self::Azure => "/openai/v1",
            Self::AzureDeployments => "/openai",
        }
    }

    /// Where it is, unless a channel says otherwise; `None` for a kind whose addresses are its customers'.
    #[must_use]
    pub fn usual_base(self) -> Option<BaseUrl> {
        let host = match self {
            Self::Openai => "api.openai.com",
            Self::Anthropic => "api.anthropic.com",
            Self::Gemini => "generativelanguage.googleapis.com",
            Self::Xai => "api.x.ai",
            Self::Azure | Self::AzureDeployments | Self::OpenaiCompatible => return None,
        };
        Some(BaseUrl { https: true, host: host.to_owned(), port: 443, prefix: self.root().to_owned() })
    }
}

impl Channel {
    /// The path of its API's root. People write base addresses with the version and without it, as each SDK has it; both are
    /// understood. A path of their own is taken at its word where the provider may be anybody.
    pub(crate) fn root(&self) -> String {
        let (prefix, root) = (self.base.prefix.as_str(), self.kind.root());
        let own = self.kind == ProviderKind::OpenaiCompatible && !prefix.is_empty();
        if own || prefix.ends_with(root) { prefix.to_owned() } else { format!("{prefix}{root}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_https_or_loopback() {
        let base = |text: &str| text.parse::<BaseUrl>();
        let url = base("https://API.example.com/v1beta/").unwrap();
        assert_eq!((url.https, url.host.as_str(), url.port, url.prefix.as_str()), (true, "api.example.com", 443, "/v1beta"));
        assert_eq!(base("http://127.0.0.1:9100").map(|u| (u.https, u.port)), Ok((false, 9100)));
        assert_eq!(base("http://[::1]:9100/x").map(|u| u.host), Ok("::1".to_owned()));
        for text in ["http://localhost:1", "http://10.0.0.1", "http://example.com", "http://127.0.0.1.evil.com"] {
            assert_eq!(base(text), Err(InvalidBaseUrl::Plain), "{text}");
        }
        for text in
            ["", "example.com", "ftp://a", "https://", "https://a:0", "https://a:", "https://u@a", "https://a?x", "https://a/../b"]
        {
            assert_eq!(base(text), Err(InvalidBaseUrl::Form), "{text}");
        }
    }

    #[test]
    fn a_base_has_its_version_once() {
        let root = |kind, base: &str| {
            let name: Name = "a".parse().unwrap();
            let (models, deployments) = (None, HashMap::new());
            let base = base.parse().unwrap();
            Channel {
                name: name.clone(),
                provider: name,
                kind,
                base,
                secret: None,
                priority: 0,
                weight: 1,
                models,
                deployments,
                api_version: None,
            }
            .root()
        };
        for (kind, base, expected) in [
            (ProviderKind::Openai, "https://api.openai.com", "/v1"),
            (ProviderKind::Openai, "https://api.openai.com/v1/", "/v1"),
            (ProviderKind::Anthropic, "https://gate.example/anthropic", "/anthropic/v1"),
            (ProviderKind::Gemini, "https://generativelanguage.googleapis.com/v1beta", "/v1beta"),
            (ProviderKind::Azure, "https://me.openai.azure.com", "/openai/v1"),
            (ProviderKind::Azure, "https://me.openai.azure.com/openai/v1", "/openai/v1"),
            (ProviderKind::AzureDeployments, "https://me.openai.azure.com", "/openai"),
            (ProviderKind::OpenaiCompatible, "http://127.0.0.1:11434", "/v1"),
            (ProviderKind::OpenaiCompatible, "https://api.example/api/paas/v4", "/api/paas/v4"),
        ] {
            assert_eq!(root(kind, base), expected, "{base}");
        }
        assert_eq!(ProviderKind::Xai.usual_base(), "https://api.x.ai/v1".parse().ok());
        assert_eq!(ProviderKind::Azure.usual_base(), None);
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", ProviderSecret::new("sk-1\n")), "****");
        assert_eq!(ProviderSecret::new(" sk-1\n").expose(), "sk-1");
    }
}
