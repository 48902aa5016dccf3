//! The local Ollama: what it has, whether it is well, and the one way a request reaches it.
//!
//! Two clients would do the same thing here, so it is said which does what. Requests are relayed with `reqwest`, byte for byte:
//! `ollama-rs` drops fields that it does not know, and text when a chunk ends inside a character. The inventory is read with
//! `reqwest` too, because `ollama-rs` keeps name, date and size of a model and neither its capabilities nor `remote_host`, which
//! says that a "local" model runs on somebody else's computer. Downloads go through `ollama-rs` ([`Ollama::pull`]), which reads their
//! lines as they should be read.
//!
//! Nothing is sent to Ollama but what stands here: no path off the wire, no redirect, no proxy, no header of a caller's.

use std::{error::Error as _, io, time::Duration};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, redirect};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use wire::{ModelName, relay::Operation};

mod host;
mod inventory;
#[cfg(target_os = "linux")]
pub mod listener;
mod pull;
mod request_logs;
mod version;

pub use host::{InvalidOllamaHost, OllamaHost};
pub use inventory::{Installed, Inventory, Runs, watch};
pub use request_logs::debug_body_logging;
pub use version::{OLDEST, Version};
pub use wire::relay::PullProgress;

/// The largest document of Ollama's that is held in memory, in bytes: `/api/show` of a model with its tensors is some megabytes.
pub const MAX_DOCUMENT: usize = 8 << 20;

/// How long connecting may take: it is this computer, or one beside it.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long a small question may take. Generating has no limit here: Ollama says nothing at all until the first token.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);
/// How long an unload may take: Ollama answers when the model has left the video memory.
const UNLOAD_LIMIT: Duration = Duration::from_secs(30);
/// Connections kept open while idle, so that a burst does not begin with handshakes.
const WARM_CONNECTIONS: usize = 16;

/// Speaks to one Ollama. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Ollama {
    host: OllamaHost,
    client: Client,
    downloads: ollama_rs::Ollama,
}

/// Why Ollama did not do what it was asked. The texts finish "… failed: " and quote nothing: no address, no body, no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The connection was refused.
    #[error("nothing listens at Ollama's address; start it with `ollama serve`, or set OLLAMA_HOST to where it listens")]
    NotRunning,
    /// No connection for another reason.
    #[error("Ollama's address cannot be reached; see that OLLAMA_HOST names this computer or one in the same network")]
    Unreachable,
    /// No answer in time.
    #[error("Ollama does not answer in time; if it stays so, restart it")]
    TimedOut,
    /// The connection broke before the answer was whole.
    #[error("Ollama closed the connection in the middle; its log says why")]
    Lost,
    /// Something else is at its address.
    #[error(
        "what answers at Ollama's address is not Ollama; see that OLLAMA_HOST is right and no other program has taken the port"
    )]
    NotOllama,
    /// An answer longer than [`MAX_DOCUMENT`].
    #[error("Ollama's answer is longer than {} MiB; this bridge does not read it", MAX_DOCUMENT >> 20)]
    TooLarge,
    /// There is no model of that name.
    #[error("Ollama has no model of that name; `1k4-bridge models list` shows those it has")]
    NoSuchModel,
    /// Another error status.
    #[error("Ollama answered with status {0}; its log says why")]
    Status(u16),
    /// The registry has no such model.
    #[error("Ollama's registry has no model of that name; look it up on ollama.com and check the spelling and the tag")]
    NotInRegistry,
    /// The registry did not answer.
    #[error("Ollama cannot reach its registry; see that this computer is online, then pull again: what was fetched is kept")]
    RegistryUnreachable,
    /// No room for the model.
    #[error("the disk is full where Ollama keeps its models; make room, then pull again: what was fetched is kept")]
    DiskFull,
    /// A download failed otherwise, or ended without success.
    #[error("the download did not finish; pull again to go on where it stopped, and see Ollama's log if it stops again")]
    PullFailed,
}

impl Ollama {
    /// A client of the Ollama at `host`. Nothing is asked yet.
    #[must_use]
    pub fn new(host: OllamaHost) -> Self {
        #[expect(clippy::expect_used, reason = "without TLS and with constant settings nothing in it can fail")]
        let client = Client::builder()
            // A proxy from the environment would carry prompts off this computer.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(CONNECT_LIMIT)
            .pool_idle_timeout(None)
            .pool_max_idle_per_host(WARM_CONNECTIONS)
            .build()
            .expect("a plain HTTP client can be built");
        let downloads = pull::client(&host);
        Self { host, client, downloads }
    }

    /// Where it is.
    #[must_use]
    pub fn host(&self) -> &OllamaHost {
        &self.host
    }

    /// Asks Ollama for `operation`; `body` is what the policy's guard wrote. The answer's status is Ollama's, whatever it is.
    /// Dropping the future or the response closes the connection, which is how Ollama is told to stop.
    ///
    /// # Errors
    /// When there is no answer at all.
    pub async fn open(&self, operation: Operation, body: Bytes) -> Result<Response, Error> {
        let request = self.request(Method::POST, path(operation)).header(CONTENT_TYPE, "application/json").body(body);
        request.send().await.map_err(|e| classify(&e))
    }

    /// Its version.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn version(&self) -> Result<Version, Error> {
        #[derive(Deserialize)]
        struct Answer {
            version: String,
        }
        let answer: Answer = serde_json::from_slice(&self.document("/api/version").await?).map_err(|_| Error::NotOllama)?;
        answer.version.parse().map_err(|_| Error::NotOllama)
    }

    /// Whether its owner switched off the models that run in Ollama's cloud; `None` where this version does not say.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cloud_disabled(&self) -> Result<Option<bool>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            cloud: Option<Cloud>,
        }
        #[derive(Deserialize)]
        struct Cloud {
            disabled: bool,
        }
        match self.document("/api/status").await {
            Ok(body) => Ok(serde_json::from_slice::<Answer>(&body).ok().and_then(|a| a.cloud).map(|c| c.disabled)),
            Err(Error::Status(404)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a model from the disk.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, model: &ModelName) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Delete<'a> {
            model: &'a ModelName,
        }
        let request = self.request(Method::DELETE, "/api/delete").json(&Delete { model }).timeout(QUESTION_LIMIT);
        about_model(read(request).await)
    }

    /// Removes a model from memory. One that is not there is removed already.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn unload(&self, model: &ModelName) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Unload<'a> {
            model: &'a ModelName,
            keep_alive: u8,
            stream: bool,
        }
        let body = Unload { model, keep_alive: 0, stream: false };
        about_model(read(self.request(Method::POST, "/api/generate").json(&body).timeout(UNLOAD_LIMIT)).await)
    }

    /// A small document of Ollama's own.
    async fn document(&self, path: &'static str) -> Result<Bytes, Error> {
        read(self.request(Method::GET, path).timeout(QUESTION_LIMIT)).await
    }

    fn request(&self, method: Method, path: &'static str) -> RequestBuilder {
        self.client.request(method, self.host.join(path))
    }
}

/// What of `/api/show` may leave the workstation. The rest tells the owner's system prompt, licences and, in `modelfile`, paths
/// with the user's name. `None` when `body` is not what `/api/show` answers.
#[must_use]
pub fn project_show(body: &[u8]) -> Option<Bytes> {
    #[derive(Deserialize, Serialize)]
    struct Shown<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<Value>,
        #[serde(borrow, skip_serializing_if = "Option::is_none")]
        model_info: Option<&'a RawValue>,
        #[serde(borrow, skip_serializing_if = "Option::is_none")]
        capabilities: Option<&'a RawValue>,
        #[serde(borrow, skip_serializing_if = "Option::is_none")]
        modified_at: Option<&'a RawValue>,
    }
    let mut shown: Shown<'_> = serde_json::from_slice(body).ok()?;
    shown.details.iter_mut().for_each(forget_parent);
    serde_json::to_vec(&shown).ok().map(Bytes::from)
}

/// The parent of a model that was made from a file is that file's path, with the owner's name in it.
fn forget_parent(details: &mut Value) {
    if let Some(parent) = details.get_mut("parent_model") {
        *parent = Value::from("");
    }
}

/// Ollama's path for each operation: the only table of its kind.
const fn path(operation: Operation) -> &'static str {
    match operation {
        Operation::OllamaChat => "/api/chat",
        Operation::OllamaGenerate => "/api/generate",
        Operation::OllamaEmbed => "/api/embed",
        Operation::OllamaShow => "/api/show",
        Operation::OpenaiChat => "/v1/chat/completions",
        Operation::OpenaiCompletions => "/v1/completions",
        Operation::OpenaiEmbeddings => "/v1/embeddings",
        Operation::OpenaiResponses => "/v1/responses",
        Operation::AnthropicMessages => "/v1/messages",
    }
}

/// The whole body of an answer with status 200.
async fn read(request: RequestBuilder) -> Result<Bytes, Error> {
    let mut response = request.send().await.map_err(|e| classify(&e))?;
    if response.status() != StatusCode::OK {
        return Err(Error::Status(response.status().as_u16()));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| classify(&e))? {
        if body.len() + chunk.len() > MAX_DOCUMENT {
            return Err(Error::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn about_model(answer: Result<Bytes, Error>) -> Result<(), Error> {
    match answer {
        Ok(_) => Ok(()),
        Err(Error::Status(404)) => Err(Error::NoSuchModel),
        Err(error) => Err(error),
    }
}

/// The kind of a failure. The error itself is dropped: its text carries the URL, and sometimes what was read.
fn classify(error: &reqwest::Error) -> Error {
    if error.is_timeout() {
        return Error::TimedOut;
    }
    if !error.is_connect() {
        return Error::Lost;
    }
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let is_refused =
        causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|io| io.kind() == io::ErrorKind::ConnectionRefused);
    if is_refused { Error::NotRunning } else { Error::Unreachable }
}

#[cfg(test)]
mod tests;
