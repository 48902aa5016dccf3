//! Which requests are the proxy's: every route of the model API, in one table.

use http::Method;
use wire::relay::{Dialect, Operation};

/// One of the model API's routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Surface {
    /// A model is asked to do something.
    Model(Endpoint),
    /// The caller wants to know what there is; the Lab answers by itself.
    Listing(Listing),
}

/// What a model can be asked, and in whose words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`
    OpenaiChat,
    /// `POST /v1/completions`
    OpenaiCompletions,
    /// `POST /v1/embeddings`
    OpenaiEmbeddings,
    /// `POST /v1/responses`
    OpenaiResponses,
    /// `POST /v1/images/generations`
    OpenaiImages,
    /// `POST /v1/messages`
    AnthropicMessages,
    /// `POST /v1/messages/count_tokens`
    AnthropicCountTokens,
    /// `POST /v1beta/models/{model}:generateContent`
    GeminiGenerate,
    /// `POST /v1beta/models/{model}:streamGenerateContent`
    GeminiStreamGenerate,
    /// `POST /v1beta/models/{model}:countTokens`
    GeminiCountTokens,
    /// `POST /v1beta/models/{model}:embedContent`
    GeminiEmbed,
    /// `POST /v1beta/models/{model}:batchEmbedContents`
    GeminiBatchEmbed,
    /// `POST /api/chat`
    OllamaChat,
    /// `POST /api/generate`
    OllamaGenerate,
    /// `POST /api/embed`
    OllamaEmbed,
    /// `POST /api/show`
    OllamaShow,
}

/// What a caller can ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listing {
    /// `GET /v1/models`, and `GET /v1beta/models` in Gemini's words
    Models,
    /// `GET /v1/models/{id}`, and `GET /v1beta/models/{id}` in Gemini's words
    Model,
    /// `GET /api/tags`
    Tags,
    /// `GET /api/ps`
    Running,
    /// `GET /api/version`
    Version,
}

/// Whose protocol a caller speaks: how their errors look and how their streams end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// OpenAI's, also as xAI and Azure speak it.
    Openai,
    /// Anthropic's.
    Anthropic,
    /// Gemini's own.
    Gemini,
    /// Ollama's own.
    Ollama,
}

/// A request's route, and what its path says beside that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// Which it is.
    pub surface: Surface,
    /// The model or deployment that the path names, as it stands there: percent escapes and all.
    pub model: Option<&'a str>,
}

/// The path of one model, before its id.
pub(crate) const MODEL_PATH: &str = "/v1/models/";
/// Likewise, in Gemini's words.
pub(crate) const GEMINI_MODEL_PATH: &str = "/v1beta/models/";
/// Azure's v1 API: behind it stand OpenAI's paths without their `/v1`.
const AZURE_PATH: &str = "/openai/v1";
/// Azure's older API: a deployment, then OpenAI's paths without their `/v1`.
pub(crate) const DEPLOYMENTS_PATH: &str = "/openai/deployments/";

/// The route of a request; `None` when it is not the proxy's.
#[must_use]
pub fn surface<'a>(method: &Method, path: &'a str) -> Option<Route<'a>> {
    let (surface, model) = find(path)?;
    let allowed = match surface {
        Surface::Model(_) => *method == Method::POST,
        Surface::Listing(_) => *method == Method::GET || *method == Method::HEAD,
    };
    allowed.then_some(Route { surface, model })
}

/// The methods of an address that is the proxy's, as the header `allow` has them; `None` for any other.
pub(crate) fn methods_at(path: &str) -> Option<&'static str> {
    find(path).map(|(surface, _)| match surface {
        Surface::Model(_) => "POST",
        Surface::Listing(_) => "GET, HEAD",
    })
}

fn find(path: &str) -> Option<(Surface, Option<&str>)> {
    if let Some(rest) = path.strip_prefix(AZURE_PATH) {
        return openai(rest);
    }
    if let Some(rest) = path.strip_prefix(DEPLOYMENTS_PATH) {
        let (deployment, _) = rest.split_once('/').filter(|(deployment, _)| !deployment.is_empty())?;
        return match openai(&rest[deployment.len()..])? {
            (surface @ Surface::Model(_), None) => Some((surface, Some(deployment))),
            _ => None,
        };
    }
    if let Some((model, endpoint)) = gemini(path) {
        return Some((Surface::Model(endpoint), Some(model)));
    }
    // Behind a colon stands what a model is to do: one that is not known is no model's name.
    if let Some(model) = path.strip_prefix(GEMINI_MODEL_PATH).filter(|model| !model.is_empty() && !model.contains(':')) {
        return Some((Surface::Listing(Listing::Model), Some(model)));
    }
    let surface = match path {
        "/v1/messages" => Surface::Model(Endpoint::AnthropicMessages),
        "/v1/messages/count_tokens" => Surface::Model(Endpoint::AnthropicCountTokens),
        // Azure's older API has this one beside its deployments: the body's `model` is the deployment.
        "/openai/responses" => Surface::Model(Endpoint::OpenaiResponses),
        "/v1beta/models" => Surface::Listing(Listing::Models),
        "/api/chat" => Surface::Model(Endpoint::OllamaChat),
        "/api/generate" => Surface::Model(Endpoint::OllamaGenerate),
        "/api/embed" => Surface::Model(Endpoint::OllamaEmbed),
        "/api/show" => Surface::Model(Endpoint::OllamaShow),
        "/api/tags" => Surface::Listing(Listing::Tags),
        "/api/ps" => Surface::Listing(Listing::Running),
        "/api/version" => Surface::Listing(Listing::Version),
        // Gemini's OpenAI-compatible addresses, for clients that were told of them.
        _ => return openai(path.strip_prefix("/v1beta/openai").or_else(|| path.strip_prefix("/v1"))?),
    };
    Some((surface, None))
}

/// OpenAI's paths, behind whatever a provider puts before them.
fn openai(rest: &str) -> Option<(Surface, Option<&str>)> {
    let surface = match rest {
        "/chat/completions" => Surface::Model(Endpoint::OpenaiChat),
        "/completions" => Surface::Model(Endpoint::OpenaiCompletions),
        "/embeddings" => Surface::Model(Endpoint::OpenaiEmbeddings),
        "/responses" => Surface::Model(Endpoint::OpenaiResponses),
        "/images/generations" => Surface::Model(Endpoint::OpenaiImages),
        "/models" => Surface::Listing(Listing::Models),
        _ => {
            let model = rest.strip_prefix("/models/").filter(|model| !model.is_empty())?;
            return Some((Surface::Listing(Listing::Model), Some(model)));
        }
    };
    Some((surface, None))
}

/// A model behind `/v1beta/models/` or `/v1/models/`, and behind its last colon what it is to do.
fn gemini(path: &str) -> Option<(&str, Endpoint)> {
    let rest = path.strip_prefix(GEMINI_MODEL_PATH).or_else(|| path.strip_prefix(MODEL_PATH))?;
    let (model, verb) = rest.rsplit_once(':').filter(|(model, _)| !model.is_empty())?;
    let endpoint = match verb {
        "generateContent" => Endpoint::GeminiGenerate,
        "streamGenerateContent" => Endpoint::GeminiStreamGenerate,
        "countTokens" => Endpoint::GeminiCountTokens,
        "embedContent" => Endpoint::GeminiEmbed,
        "batchEmbedContents" => Endpoint::GeminiBatchEmbed,
        _ => return None,
    };
    Some((model, endpoint))
}

impl Surface {
    /// Its name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Model(endpoint) => endpoint.as_str(),
            Self::Listing(Listing::Models) => "models.list",
            Self::Listing(Listing::Model) => "models.get",
            Self::Listing(Listing::Tags) => "ollama.tags",
            Self::Listing(Listing::Running) => "ollama.ps",
            Self::Listing(Listing::Version) => "ollama.version",
        }
    }
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 16] = [
        Self::OpenaiChat,
        Self::OpenaiCompletions,
        Self::OpenaiEmbeddings,
        Self::OpenaiResponses,
        Self::OpenaiImages,
        Self::AnthropicMessages,
        Self::AnthropicCountTokens,
        Self::GeminiGenerate,
        Self::GeminiStreamGenerate,
        Self::GeminiCountTokens,
        Self::GeminiEmbed,
        Self::GeminiBatchEmbed,
        Self::OllamaChat,
        Self::OllamaGenerate,
        Self::OllamaEmbed,
        Self::OllamaShow,
    ];

    /// Its name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai.chat",
            Self::OpenaiCompletions => "openai.completions",
            Self::OpenaiEmbeddings => "openai.embeddings",
            Self::OpenaiResponses => "openai.responses",
            Self::OpenaiImages => "openai.images",
            Self::AnthropicMessages => "anthropic.messages",
            Self::AnthropicCountTokens => "anthropic.count_tokens",
            Self::GeminiGenerate => "gemini.generate",
            Self::GeminiStreamGenerate => "gemini.stream_generate",
            Self::GeminiCountTokens => "gemini.count_tokens",
            Self::GeminiEmbed => "gemini.embed",
            Self::GeminiBatchEmbed => "gemini.batch_embed",
            Self::OllamaChat => "ollama.chat",
            Self::OllamaGenerate => "ollama.generate",
            Self::OllamaEmbed => "ollama.embed",
            Self::OllamaShow => "ollama.show",
        }
    }

    /// What a workstation would be asked; `None` where no Ollama has an answer.
    #[must_use]
    pub const fn operation(self) -> Option<Operation> {
        Some(match self {
            Self::OpenaiChat => Operation::OpenaiChat,
            Self::OpenaiCompletions => Operation::OpenaiCompletions,
            Self::OpenaiEmbeddings => Operation::OpenaiEmbeddings,
            Self::OpenaiResponses => Operation::OpenaiResponses,
            Self::AnthropicMessages => Operation::AnthropicMessages,
            Self::OllamaChat => Operation::OllamaChat,
            Self::OllamaGenerate => Operation::OllamaGenerate,
            Self::OllamaEmbed => Operation::OllamaEmbed,
            Self::OllamaShow => Operation::OllamaShow,
            Self::OpenaiImages
            | Self::AnthropicCountTokens
            | Self::GeminiGenerate
            | Self::GeminiStreamGenerate
            | Self::GeminiCountTokens
            | Self::GeminiEmbed
            | Self::GeminiBatchEmbed => return None,
        })
    }

    /// Whose words it takes.
    #[must_use]
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::OpenaiChat | Self::OpenaiCompletions | Self::OpenaiEmbeddings | Self::OpenaiResponses | Self::OpenaiImages => {
                Protocol::Openai
            }
            Self::AnthropicMessages | Self::AnthropicCountTokens => Protocol::Anthropic,
            Self::GeminiGenerate
            | Self::GeminiStreamGenerate
            | Self::GeminiCountTokens
            | Self::GeminiEmbed
            | Self::GeminiBatchEmbed => Protocol::Gemini,
            Self::OllamaChat | Self::OllamaGenerate | Self::OllamaEmbed | Self::OllamaShow => Protocol::Ollama,
        }
    }

    /// Whether its answer is vectors, which have no words.
    #[must_use]
    pub const fn is_embedding(self) -> bool {
        matches!(self, Self::OpenaiEmbeddings | Self::GeminiEmbed | Self::GeminiBatchEmbed | Self::OllamaEmbed)
    }

    /// Whether a provider does it for nothing.
    #[must_use]
    pub const fn is_free(self) -> bool {
        matches!(self, Self::AnthropicCountTokens | Self::GeminiCountTokens)
    }
}

impl From<Dialect> for Protocol {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Ollama => Self::Ollama,
            Dialect::Openai => Self::Openai,
            Dialect::Anthropic => Self::Anthropic,
        }
    }
}

/// Whose manners are spoken at a path, also where nothing is.
pub(crate) fn protocol_at(path: &str) -> Protocol {
    if path.starts_with("/api/") {
        Protocol::Ollama
    } else if path == "/v1/messages" || path.starts_with("/v1/messages/") {
        Protocol::Anthropic
    } else if gemini(path).is_some() || path.starts_with("/v1beta/") && !path.starts_with("/v1beta/openai/") {
        Protocol::Gemini
    } else {
        Protocol::Openai
    }
}

/// What OpenAI has and this proxy does not pass on, with the reason; told apart from addresses that nobody knows.
pub(crate) fn refused_by_name(path: &str) -> Option<&'static str> {
    let rest = [AZURE_PATH, "/v1beta/openai", "/v1"].into_iter().find_map(|prefix| path.strip_prefix(prefix))?;
    let first = rest.trim_start_matches('/').split('/').next().unwrap_or_default();
    Some(match first {
        "audio" => "audio is not passed on: its price depends on what its body says, which is not read here",
        "images" => "only `/v1/images/generations` is passed on: the other image endpoints name their model inside a form",
        "files" | "batches" | "vector_stores" | "uploads" | "containers" => {
            "files and batches are not passed on: they would be kept at the provider under the operator's account"
        }
        "assistants" | "threads" | "conversations" => {
            "this is not passed on: it would be kept at the provider under the operator's account"
        }
        "realtime" => "realtime sessions are not passed on: use `/v1/responses` or `/v1/chat/completions`",
        "fine_tuning" | "evals" => "fine-tuning is not passed on: it would be kept at the provider under the operator's account",
        "moderations" => "moderations are not passed on: no price is known for them; ask a model of `GET /v1/models` to judge",
        "videos" => "videos are not passed on: they would be kept at the provider under the operator's account",
        "responses" => "only `POST /v1/responses` is passed on: a stored response belongs to the operator's account",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, endpoint: Endpoint, model: Option<&str>) {
        assert_eq!(surface(&Method::POST, path), Some(Route { surface: Surface::Model(endpoint), model }), "{path}");
        assert_eq!(surface(&Method::PUT, path), None, "{path}");
        assert_eq!(protocol_at(path), endpoint.protocol(), "{path}");
    }

    #[test]
    fn every_endpoint_has_its_routes() {
        let gemini = "/v1beta/models/gemini-2.5-flash";
        for (path, endpoint, model) in [
            ("/v1/chat/completions", Endpoint::OpenaiChat, None),
            ("/v1/completions", Endpoint::OpenaiCompletions, None),
            ("/v1/embeddings", Endpoint::OpenaiEmbeddings, None),
            ("/v1/responses", Endpoint::OpenaiResponses, None),
            ("/v1/images/generations", Endpoint::OpenaiImages, None),
            ("/v1/messages", Endpoint::AnthropicMessages, None),
            ("/v1/messages/count_tokens", Endpoint::AnthropicCountTokens, None),
            ("/openai/v1/chat/completions", Endpoint::OpenaiChat, None),
            ("/openai/v1/responses", Endpoint::OpenaiResponses, None),
            ("/openai/responses", Endpoint::OpenaiResponses, None),
            ("/openai/deployments/my-gpt/chat/completions", Endpoint::OpenaiChat, Some("my-gpt")),
            ("/openai/deployments/e/embeddings", Endpoint::OpenaiEmbeddings, Some("e")),
            ("/v1beta/openai/chat/completions", Endpoint::OpenaiChat, None),
            (&format!("{gemini}:generateContent"), Endpoint::GeminiGenerate, Some("gemini-2.5-flash")),
            (&format!("{gemini}:streamGenerateContent"), Endpoint::GeminiStreamGenerate, Some("gemini-2.5-flash")),
            (&format!("{gemini}:countTokens"), Endpoint::GeminiCountTokens, Some("gemini-2.5-flash")),
            (&format!("{gemini}:embedContent"), Endpoint::GeminiEmbed, Some("gemini-2.5-flash")),
            (&format!("{gemini}:batchEmbedContents"), Endpoint::GeminiBatchEmbed, Some("gemini-2.5-flash")),
            ("/v1/models/gemini-2.5-flash:generateContent", Endpoint::GeminiGenerate, Some("gemini-2.5-flash")),
            ("/v1/models/a:b:countTokens", Endpoint::GeminiCountTokens, Some("a:b")),
            ("/api/chat", Endpoint::OllamaChat, None),
            ("/api/generate", Endpoint::OllamaGenerate, None),
            ("/api/embed", Endpoint::OllamaEmbed, None),
            ("/api/show", Endpoint::OllamaShow, None),
        ] {
            check(path, endpoint, model);
        }
        for operation in Operation::ALL {
            let endpoint = Endpoint::ALL.into_iter().find(|endpoint| endpoint.operation() == Some(operation)).unwrap();
            assert_eq!(endpoint.as_str(), operation.as_str());
            assert_eq!(endpoint.protocol(), operation.dialect().into());
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_not_ours() {
        for path in [
            "/",
            "/v1",
            "/v1/models/",
            "/v1/chat/completions/",
            "/v1/chat/completions/x",
            "/openai/deployments//chat/completions",
            "/openai/responses/resp_1",
            "/v1beta/models/gemini-3:batchGenerateContent",
            "/openai/deployments/a/models",
            "/openai/deployments/a/models/b",
            "/v1beta/openai/v1/chat/completions",
            "/api/pull",
            "/api/delete",
            "/API/chat",
            "//api/chat",
        ] {
            assert_eq!(surface(&Method::POST, path), None, "{path}");
            assert_eq!(surface(&Method::GET, path), None, "{path}");
        }
        assert_eq!(surface(&Method::POST, "/api/tags"), None);
        let listing = |path| surface(&Method::GET, path).map(|route| (route.surface, route.model));
        assert_eq!(listing("/v1/models/local/a"), Some((Surface::Listing(Listing::Model), Some("local/a"))));
        assert_eq!(listing("/v1/models/local/a:1"), Some((Surface::Listing(Listing::Model), Some("local/a:1"))));
        assert_eq!(listing("/v1beta/models/gemini-3"), Some((Surface::Listing(Listing::Model), Some("gemini-3"))));
        assert_eq!(listing("/v1beta/models"), Some((Surface::Listing(Listing::Models), None)));
    }

    #[test]
    fn an_address_says_its_methods() {
        for path in ["/v1/chat/completions", "/openai/responses", "/v1beta/models/a:generateContent", "/api/show"] {
            assert_eq!(methods_at(path), Some("POST"), "{path}");
        }
        for path in ["/v1/models", "/v1/models/local/a:1", "/v1beta/models", "/api/tags"] {
            assert_eq!(methods_at(path), Some("GET, HEAD"), "{path}");
        }
        for path in ["/v1/nothing", "/v1/audio/speech", "/v1beta/models/a:batchGenerateContent", "/"] {
            assert_eq!(methods_at(path), None, "{path}");
        }
    }

    #[test]
    fn what_is_refused_has_a_reason() {
        for path in ["/v1/audio/speech", "/v1/images/edits", "/openai/v1/files", "/v1/responses/resp_1", "/v1/realtime"] {
            assert!(refused_by_name(path).is_some(), "{path}");
        }
        assert_eq!(refused_by_name("/v1/nothing"), None);
        assert_eq!(refused_by_name("/"), None);
    }
}
