//! The local control API: how the CLI and the tray talk to the running bridge.
//!
//! HTTP/1.1 over a Unix socket or a named pipe, for this user alone. There is no TCP port, so no web page can reach it by address;
//! and in case a program relays one to the socket, a request that a browser would send (`Origin`, `Referer`, a `Host` of its own)
//! is refused. Whoever holds the [`Claim`] serves, everybody else attaches: a tray action and a CLI verb are the same request.
//!
//! | request | meaning |
//! |---|---|
//! | `GET /v1/status` | [`Status`](crate::status::Status) |
//! | `GET /v1/status/watch` | the same, a line now and one at each change |
//! | `POST /v1/pause` [`Pause`] | take no more work, for a time or until resumed |
//! | `POST /v1/resume` | take work again |
//! | `GET /v1/models` | [`Models`]: all that Ollama has, each with whether it is shared |
//! | `POST /v1/models/pull` [`Named`] | download; a line of [`Pull`] at each step |
//! | `DELETE /v1/models/{name}` | remove from disk |
//! | `POST /v1/models/unload` [`Named`] | remove from memory |
//! | `GET /v1/policy`, `PUT /v1/policy` | [`Policy`](crate::policy::Policy), whole |
//! | `POST /v1/policy/allow`, `POST /v1/policy/deny` [`Matching`] | share models, or no longer; the answer is the new policy |
//! | `GET /v1/activity` | [`ActivityList`], newest last |
//! | `GET /v1/logs[?follow=1]` | a line of [`LogLine`] each |
//! | `POST /v1/retry` | look at the pairing anew and dial at once |
//! | `DELETE /v1/relays/{id}` | end one relay |
//! | `POST /v1/quit` | shut down in order |
//!
//! An answer without a body is 204. An error is [`ErrorBody`].

mod claim;
mod client;
mod logs;
mod server;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use serde::{Deserialize, Serialize};
use wire::{
    ModelName,
    relay::{Model, OllamaState},
};

pub use self::{
    claim::{Claim, ClaimError, claim},
    client::{Client, ClientError, Follow, Lines},
    logs::{LogLine, LogRing, OwnLines},
    server::Server,
};
use crate::{policy::ModelPattern, status::Activity};

/// The only `Host` that is answered. It is no host name, so no name server can lead a browser to it.
pub const HOST: &str = "1k4-bridge";
/// The largest request body in bytes: a policy with hundreds of models.
pub const MAX_BODY: usize = 64 << 10;

/// Body of `POST /v1/pause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// For so many seconds; `None` until resumed.
    #[serde(default)]
    pub for_s: Option<u64>,
}

/// Body of the requests about one model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Which.
    pub model: ModelName,
}

/// Body of the requests about what is shared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matching {
    /// A model, every tag of it, or all that begin so.
    pub model: ModelPattern,
}

/// Answer of `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Models {
    /// Whether it answers; the list is empty while it does not.
    pub ollama: OllamaState,
    /// All of them.
    pub models: Vec<OwnModel>,
}

/// A model as its owner sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OwnModel {
    /// What Ollama says of it.
    #[serde(flatten)]
    pub model: Model,
    /// Whether it runs here. One that Ollama sends elsewhere is never shared.
    pub local: bool,
    /// Whether the owner's policy shares it.
    pub shared: bool,
    /// Whether it is in memory.
    pub loaded: bool,
}

/// One line of `POST /v1/models/pull`. The last one is [`Pull::Done`] or [`Pull::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Pull {
    /// On the way.
    Progress {
        /// The step, in Ollama's words.
        step: String,
        /// The layer that is being fetched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        /// Bytes of that layer that are here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        completed: Option<u64>,
        /// Bytes of that layer in all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
    },
    /// The model is here.
    Done,
    /// It is not; what was fetched is kept for the next attempt.
    Failed {
        /// One sentence with the cause and the next step.
        cause: String,
    },
}

/// Answer of `GET /v1/activity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivityList {
    /// Finished relays, newest last.
    pub activity: Vec<Activity>,
}

/// Every error's body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For programs.
    pub code: String,
    /// For people: one sentence with the cause and the next step.
    pub message: String,
}
