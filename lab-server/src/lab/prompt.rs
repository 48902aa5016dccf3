//! What a model is asked and what it says, in one shape for all of them. The dialects of providers are made and read elsewhere.

use bytes::Bytes;
use wire::{ProjectId, RequestId, UserId};

use super::content::{ModelChoice, Use};

/// Everything that a model is told.
#[derive(Clone)]
pub struct Prompt {
    /// Which model, and how it shall answer.
    pub choice: ModelChoice,
    /// What it shall keep in mind all along.
    pub system: Option<String>,
    /// What was said so far, oldest first.
    pub turns: Vec<Turn>,
    /// What it may have done.
    pub tools: Vec<ToolSpec>,
}

/// One side's turn.
#[derive(Clone)]
pub enum Turn {
    /// A person's, or a tool's results.
    User(Vec<Said>),
    /// A model's.
    Assistant(Vec<Said>),
}

/// A piece of a turn.
#[derive(Clone)]
pub enum Said {
    /// Words.
    Text(String),
    /// A picture.
    Image {
        /// `image/png` and the like.
        media_type: String,
        /// The picture.
        data: Bytes,
    },
    /// A model asked for a tool.
    ToolCall {
        /// Which call.
        call: String,
        /// The tool.
        tool: String,
        /// A JSON object.
        arguments: serde_json::Value,
        /// What the provider wants to be given back with it word by word, such as Gemini's thought signatures.
        echo: Option<String>,
    },
    /// What the tool said; only in a user's turn.
    ToolResult {
        /// Which call.
        call: String,
        /// The tool.
        tool: String,
        /// What it said.
        text: String,
        /// Whether it did what it was asked.
        ok: bool,
    },
}

/// A tool as a model is told of it.
#[derive(Debug, Clone)]
pub struct ToolSpec {
    /// 1 to 64 letters, digits, `_` and `-`: what every provider takes.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of its arguments, an object.
    pub parameters: serde_json::Value,
}

/// Who pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payer {
    /// The person.
    pub user: UserId,
    /// Their project.
    pub project: ProjectId,
}

/// What a model says, as it says it.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// Nothing yet, and why: the workstation is asked, its queue is long, the model is being loaded.
    Waiting(Waiting),
    /// More words.
    Text(String),
    /// More thoughts.
    Reasoning(String),
    /// A whole call of a tool. Dialects that give it in pieces are put together first.
    ToolCall {
        /// Which call, unique in the answer.
        call: String,
        /// The tool.
        tool: String,
        /// What the model gave as arguments: an object if it kept to the rules.
        arguments: serde_json::Value,
        /// See [`Said::ToolCall`].
        echo: Option<String>,
    },
    /// The end, and what it took. Nothing follows.
    End {
        /// Why the model stopped.
        stop: Stop,
        /// What it took.
        usage: Use,
    },
}

/// Why a model says nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Waiting {
    /// Its host has been asked.
    Asked,
    /// Others are before it.
    Queued {
        /// How many.
        ahead: u32,
    },
    /// It is being loaded into memory.
    Loading,
    /// The workstation's link broke; it is waited for.
    Away,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It had said everything.
    Finished,
    /// It wants tools used.
    ToolCalls,
    /// It reached the limit of tokens.
    Length,
    /// It or its host refused to go on.
    Refused,
}

/// Why a model gave no answer, or not the whole of one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// As the model API's errors: `bridge_offline`, `insufficient_credits`, ...
    pub code: String,
    /// For people: cause and next step. Of our own words: what a provider wrote is not repeated.
    pub message: String,
    /// The request, where there was one.
    pub request: Option<RequestId>,
}
