//! Which models a person can ask, where each is, and in what state.

use serde::Serialize;
use utoipa::ToSchema;
use wire::DeviceId;

/// A model that can be asked for.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ModelView {
    /// By this name: `gpt-5.2`, `local/llama3.2:latest`, `local@den/llama3.2:latest`.
    pub name: String,
    /// Where it runs.
    #[serde(flatten)]
    pub host: Host,
    /// Tokens of prompt and answer together that it takes; `null` where nobody says.
    pub context_length: Option<u64>,
    /// Tokens of an answer at most; `null` where nobody says.
    pub max_output_tokens: Option<u64>,
    /// `tools`, `vision`, `thinking`, `embedding`, `completion`, ...: as far as its host tells.
    pub capabilities: Vec<String>,
}

/// Where a model runs.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "host", rename_all = "snake_case")]
pub enum Host {
    /// At a provider.
    Cloud {
        /// Which.
        provider: String,
        /// What a million tokens cost; `null` where it has no price by the token.
        prices: Option<CloudPrices>,
    },
    /// On one workstation.
    Device {
        /// Which.
        #[schema(value_type = String)]
        device: DeviceId,
        /// What it is called.
        device_name: String,
        /// What is known of it there.
        #[serde(flatten)]
        state: LocalState,
    },
    /// On whichever workstation is free.
    AnyDevice {
        /// Those that have it.
        #[schema(value_type = Vec<String>)]
        devices: Vec<DeviceId>,
        /// Whether one of them would take it now: the best state of theirs.
        availability: Availability,
    },
}

/// What a million tokens cost, in credits, as decimal strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CloudPrices {
    /// Of the prompt.
    pub input: String,
    /// Of the prompt, out of the provider's cache; `null` where it has no price of its own.
    pub cached_input: Option<String>,
    /// Of the answer.
    pub output: String,
}

/// What is known of a model on a workstation.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LocalState {
    /// Whether it would take work now.
    pub availability: Availability,
    /// Milliseconds since 1970 when the workstation was last linked; `null` while it is, and where it never was.
    pub last_seen: Option<i64>,
    /// Whether the model is in memory.
    pub loaded: bool,
    /// Bytes on disk.
    pub size: u64,
    /// Requests that wait for their turn there.
    pub queued: u32,
    /// Requests that run there now.
    pub running: u32,
    /// Tokens of the answer a second, of the last run there; `null` when there was none since the Lab started.
    pub tokens_per_second: Option<f64>,
}

/// Whether a workstation would take work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It is linked and idle.
    Online,
    /// It is linked and at work; a request waits or shares.
    Busy,
    /// Its link was lost a moment ago; it may be back at once. A workstation that sleeps looks like this first.
    Away,
    /// Its owner has paused it, or these are quiet hours.
    Paused,
    /// Its Ollama does not answer.
    OllamaDown,
    /// It has no link.
    Offline,
}
