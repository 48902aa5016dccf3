//! Which requests are the proxy's: every route of the model API, in one table.

use http::Method;
use wire::relay::{Dialect, Operation};

/// One of the model API's routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Surface {
    /// A model is asked to do something.
    Relay(Operation),
    /// The caller wants to know what there is; the Lab answers by itself.
    Listing(Listing),
}

/// What a caller can ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listing {
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/{id}`
    Model,
    /// `GET /api/tags`
    Tags,
    /// `GET /api/ps`
    Running,
    /// `GET /api/version`
    Version,
}

/// The path of one model, before its id.
pub(crate) const MODEL_PATH: &str = "/v1/models/";

/// The route of a request; `None` when it is not the proxy's.
#[must_use]
pub fn surface(method: &Method, path: &str) -> Option<Surface> {
    let surface = match path {
        "/v1/chat/completions" => Surface::Relay(Operation::OpenaiChat),
        "/v1/completions" => Surface::Relay(Operation::OpenaiCompletions),
        "/v1/embeddings" => Surface::Relay(Operation::OpenaiEmbeddings),
        "/v1/responses" => Surface::Relay(Operation::OpenaiResponses),
        "/v1/messages" => Surface::Relay(Operation::AnthropicMessages),
        "/api/chat" => Surface::Relay(Operation::OllamaChat),
        "/api/generate" => Surface::Relay(Operation::OllamaGenerate),
        "/api/embed" => Surface::Relay(Operation::OllamaEmbed),
        "/api/show" => Surface::Relay(Operation::OllamaShow),
        "/v1/models" => Surface::Listing(Listing::Models),
        "/api/tags" => Surface::Listing(Listing::Tags),
        "/api/ps" => Surface::Listing(Listing::Running),
        "/api/version" => Surface::Listing(Listing::Version),
        _ if path.len() > MODEL_PATH.len() && path.starts_with(MODEL_PATH) => Surface::Listing(Listing::Model),
        _ => return None,
    };
    let allowed = match surface {
        Surface::Relay(_) => *method == Method::POST,
        Surface::Listing(_) => *method == Method::GET || *method == Method::HEAD,
    };
    allowed.then_some(surface)
}

impl Surface {
    /// Its name in records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Relay(operation) => operation.as_str(),
            Self::Listing(Listing::Models) => "models.list",
            Self::Listing(Listing::Model) => "models.get",
            Self::Listing(Listing::Tags) => "ollama.tags",
            Self::Listing(Listing::Running) => "ollama.ps",
            Self::Listing(Listing::Version) => "ollama.version",
        }
    }
}

/// Whose manners are spoken at a path, also where nothing is.
pub(crate) fn dialect_at(path: &str) -> Dialect {
    if path.starts_with("/api/") {
        Dialect::Ollama
    } else if path == "/v1/messages" || path.starts_with("/v1/messages/") {
        Dialect::Anthropic
    } else {
        Dialect::Openai
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_one_route() {
        let paths = [
            "/api/chat",
            "/api/generate",
            "/api/embed",
            "/api/show",
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/responses",
            "/v1/messages",
        ];
        for (path, operation) in paths.into_iter().zip(Operation::ALL) {
            assert_eq!(surface(&Method::POST, path), Some(Surface::Relay(operation)), "{path}");
            assert_eq!(surface(&Method::GET, path), None, "{path}");
            assert_eq!(dialect_at(path), operation.dialect(), "{path}");
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_not_ours() {
        for path in ["/", "/v1", "/v1/models/", "/v1/chat/completions/", "/api/pull", "/api/delete", "/API/chat", "//api/chat"] {
            assert_eq!(surface(&Method::POST, path), None, "{path}");
            assert_eq!(surface(&Method::GET, path), None, "{path}");
        }
        assert_eq!(surface(&Method::POST, "/api/tags"), None);
        assert_eq!(surface(&Method::GET, "/v1/models/local/a"), Some(Surface::Listing(Listing::Model)));
    }
}
