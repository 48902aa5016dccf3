//! Whose manners are spoken: which provider a request is for, and which of its endpoints.

use hyper::Method;

/// A provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `api.openai.com`
    Openai,
    /// `api.anthropic.com`, with its OpenAI-compatible endpoint.
    Anthropic,
    /// `generativelanguage.googleapis.com`, with its OpenAI-compatible endpoints.
    Gemini,
    /// `api.x.ai`
    Xai,
    /// An Azure OpenAI resource, both of its APIs.
    Azure,
    /// Somebody who speaks OpenAI's protocol and asks for no key.
    Compatible,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Openai, Self::Anthropic, Self::Gemini, Self::Xai, Self::Azure, Self::Compatible];

    /// The first segment of the path below which this provider is found, and its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            // Azure's own paths begin with `/openai`.
            Self::Openai => "openai.com",
            Self::Anthropic => "anthropic.com",
            Self::Gemini => "googleapis.com",
            Self::Xai => "x.ai",
            Self::Azure => "azure.com",
            Self::Compatible => "compatible",
        }
    }

    /// The key that it asks for until a test sets another one.
    #[must_use]
    pub const fn usual_key(self) -> &'static str {
        match self {
            Self::Openai => "sk-fake-openai-00000000",
            Self::Anthropic => "sk-ant-fake-0000000000",
            Self::Gemini => "AIzaFakeGemini00000000",
            Self::Xai => "xai-fake-000000000000",
            Self::Azure => "fakeazure00000000000000",
            Self::Compatible => "compatible-fake-000000",
        }
    }
}

/// A request's endpoint, with what its path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Chat,
    Completion,
    Embeddings,
    Responses,
    Images,
    Messages,
    CountTokens,
    Generate,
    /// As server-sent events, or as one JSON array.
    StreamGenerate,
    GeminiCount,
    GeminiEmbed,
    GeminiBatchEmbed,
    Models,
    Model(String),
    /// Likewise, in Gemini's own words.
    GeminiModels,
    GeminiModel(String),
    /// What a redirect leads to. Nobody may come here.
    Redirected,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) kind: Kind,
    pub(super) endpoint: Endpoint,
    /// The model or deployment that the path names.
    pub(super) model: Option<String>,
    /// Azure's older API, which wants a version.
    pub(super) needs_version: bool,
}

/// Whose address it is: the provider that the first segment names, else the only one here, else the one whose paths look so.
/// Gives the path below that too.
pub(super) fn owner(path: &str, only: Option<Kind>) -> (Kind, &str) {
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == first) {
        return (kind, &path[1 + first.len()..]);
    }
    let by_path = || match first {
        "openai" => Kind::Azure,
        "v1beta" => Kind::Gemini,
        "v1" if path.starts_with("/v1/models/") && path.contains(':') => Kind::Gemini,
        _ if path.starts_with("/v1/messages") => Kind::Anthropic,
        _ => Kind::Openai,
    };
    (only.unwrap_or_else(by_path), path)
}

impl Route {
    /// The route of a request to `kind`; `None` when that provider has no such address.
    pub(super) fn of(kind: Kind, method: &Method, path: &str) -> Option<Self> {
        let plain = |endpoint| Some(Self { kind, endpoint, model: None, needs_version: false });
        if path == "/redirected" {
            return plain(Endpoint::Redirected);
        }
        let found = match kind {
            Kind::Openai | Kind::Xai | Kind::Compatible => plain(openai(path.strip_prefix("/v1")?)?),
            Kind::Anthropic => match path {
                "/v1/messages" => plain(Endpoint::Messages),
                "/v1/messages/count_tokens" => plain(Endpoint::CountTokens),
                _ => plain(openai(path.strip_prefix("/v1")?)?)
                    .filter(|route| matches!(route.endpoint, Endpoint::Chat | Endpoint::Models | Endpoint::Model(_))),
            },
            Kind::Gemini => match path.strip_prefix("/v1beta/openai") {
                Some(rest) => plain(openai(rest)?).filter(|route| route.endpoint != Endpoint::Responses),
                // Its newer clients ask for the version without the word.
                None => gemini(path.strip_prefix("/v1beta/models").or_else(|| path.strip_prefix("/v1/models"))?),
            },
            Kind::Azure => azure(path.strip_prefix("/openai")?),
        }?;
        let wanted = match found.endpoint {
            Endpoint::Models | Endpoint::Model(_) | Endpoint::GeminiModels | Endpoint::GeminiModel(_) => Method::GET,
            _ => Method::POST,
        };
        (*method == wanted).then_some(found)
    }
}

/// OpenAI's paths, behind whatever a provider puts before them.
fn openai(rest: &str) -> Option<Endpoint> {
    Some(match rest {
        "/chat/completions" => Endpoint::Chat,
        "/completions" => Endpoint::Completion,
        "/embeddings" => Endpoint::Embeddings,
        "/responses" => Endpoint::Responses,
        "/images/generations" => Endpoint::Images,
        "/models" => Endpoint::Models,
        _ => Endpoint::Model(rest.strip_prefix("/models/").filter(|model| !model.is_empty())?.to_owned()),
    })
}

fn gemini(rest: &str) -> Option<Route> {
    let route = |endpoint, model: Option<&str>| {
        Some(Route { kind: Kind::Gemini, endpoint, model: model.map(str::to_owned), needs_version: false })
    };
    if rest.is_empty() {
        return route(Endpoint::GeminiModels, None);
    }
    let rest = rest.strip_prefix('/').filter(|rest| !rest.is_empty() && !rest.contains('/'))?;
    let Some((model, verb)) = rest.rsplit_once(':') else {
        return route(Endpoint::GeminiModel(rest.to_owned()), None);
    };
    let endpoint = match verb {
        "generateContent" => Endpoint::Generate,
        "streamGenerateContent" => Endpoint::StreamGenerate,
        "countTokens" => Endpoint::GeminiCount,
        "embedContent" => Endpoint::GeminiEmbed,
        "batchEmbedContents" => Endpoint::GeminiBatchEmbed,
        _ => return None,
    };
    route(endpoint, Some(model))
}

fn azure(rest: &str) -> Option<Route> {
    let route = |endpoint, model: Option<&str>, needs_version| {
        Some(Route { kind: Kind::Azure, endpoint, model: model.map(str::to_owned), needs_version })
    };
    if let Some(rest) = rest.strip_prefix("/v1") {
        return route(openai(rest)?, None, false);
    }
    let (deployment, _) = rest.strip_prefix("/deployments/")?.split_once('/').filter(|(name, _)| !name.is_empty())?;
    match openai(&rest["/deployments/".len() + deployment.len()..])? {
        // The older API has Responses elsewhere and lists models nowhere near here.
        Endpoint::Responses | Endpoint::Models | Endpoint::Model(_) => None,
        endpoint => route(endpoint, Some(deployment), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_whose_it_is() {
        for (path, only, kind, rest) in [
            ("/v1/chat/completions", None, Kind::Openai, "/v1/chat/completions"),
            ("/v1/chat/completions", Some(Kind::Xai), Kind::Xai, "/v1/chat/completions"),
            ("/x.ai/v1/chat/completions", None, Kind::Xai, "/v1/chat/completions"),
            ("/v1/messages", None, Kind::Anthropic, "/v1/messages"),
            ("/v1/models/m:generateContent", None, Kind::Gemini, "/v1/models/m:generateContent"),
            ("/v1/models/m", None, Kind::Openai, "/v1/models/m"),
            ("/anthropic.com/v1/models", Some(Kind::Openai), Kind::Anthropic, "/v1/models"),
            ("/v1beta/openai/embeddings", None, Kind::Gemini, "/v1beta/openai/embeddings"),
            ("/openai/deployments/d/embeddings", None, Kind::Azure, "/openai/deployments/d/embeddings"),
        ] {
            assert_eq!(owner(path, only), (kind, rest), "{path}");
        }
    }

    #[test]
    fn each_provider_has_its_own_addresses_only() {
        let post = |kind, path: &str| Route::of(kind, &Method::POST, path).map(|route| (route.endpoint, route.model));
        assert_eq!(post(Kind::Openai, "/v1/responses"), Some((Endpoint::Responses, None)));
        assert_eq!(post(Kind::Openai, "/v1/messages"), None);
        assert_eq!(post(Kind::Openai, "/v1/models"), None);
        assert_eq!(post(Kind::Anthropic, "/v1/embeddings"), None);
        assert_eq!(post(Kind::Gemini, "/v1beta/models/m:countTokens"), Some((Endpoint::GeminiCount, Some("m".to_owned()))));
        assert_eq!(post(Kind::Gemini, "/v1/models/m:countTokens"), Some((Endpoint::GeminiCount, Some("m".to_owned()))));
        assert_eq!(post(Kind::Gemini, "/v1beta/models/a/b:countTokens"), None);
        assert_eq!(post(Kind::Azure, "/openai/v1/chat/completions"), Some((Endpoint::Chat, None)));
        assert_eq!(post(Kind::Azure, "/openai/deployments/d/chat/completions"), Some((Endpoint::Chat, Some("d".to_owned()))));
        assert_eq!(post(Kind::Azure, "/openai/deployments//chat/completions"), None);
    }
}
