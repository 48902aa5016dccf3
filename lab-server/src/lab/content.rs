//! What messages are made of: the same for people, models and tools.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{FileId, RequestId, RunId};

/// A message's content, as it is sealed and as its owner reads it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// What it says, in order.
    pub parts: Vec<Part>,
    /// What it took to make it, one entry for each time that a model was asked; empty for what a person wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub usage: Vec<Use>,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// Words, as Markdown.
    Text {
        /// They.
        text: String,
    },
    /// What a model thought before it answered.
    Reasoning {
        /// Its words.
        text: String,
    },
    /// A file of the project at one of its versions: a picture, a document.
    File {
        /// Which.
        #[schema(value_type = String)]
        file: FileId,
        /// Which version.
        version: i64,
        /// What it was called then.
        name: String,
        /// Its media type.
        media_type: String,
    },
    /// A model wants something done.
    ToolCall {
        /// Which call, unique in its run.
        call: String,
        /// The tool.
        tool: String,
        /// Its arguments, as a JSON object.
        #[schema(value_type = Object)]
        arguments: serde_json::Value,
    },
    /// What came of it.
    ToolResult {
        /// Which call.
        call: String,
        /// What the model was told.
        text: String,
        /// Whether it was done.
        ok: bool,
    },
}

/// What one question to a model took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// The request, as it stands in the account's records.
    #[schema(value_type = String)]
    pub request: RequestId,
    /// The model, as it was asked for.
    pub model: String,
    /// The workstation that it ran on, by its name; `None` for a provider's.
    pub device: Option<String>,
    /// The provider that it ran at; `None` for a workstation's.
    pub provider: Option<String>,
    /// Tokens of the prompt.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer.
    pub output_tokens: Option<u64>,
    /// Whether the tokens were estimated.
    pub estimated: bool,
    /// Price in nano-credits; 0 on a workstation of one's own.
    pub cost_nano: i64,
    /// Milliseconds to the first byte of the answer.
    pub first_token_ms: Option<u64>,
    /// Milliseconds to the end.
    pub total_ms: u64,
    /// Milliseconds of it for loading the model, where the workstation tells.
    pub load_ms: Option<u64>,
}

/// What somebody wrote or chose to have one message made: kept with the run, so that it can be told and done again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelChoice {
    /// The model, as the model API names it: `gpt-5.2`, `local/llama3.2`, `local@den/llama3.2`.
    #[schema(min_length = 1, max_length = 200)]
    pub model: String,
    /// Tokens of an answer at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 4_294_967_295_u32)]
    pub max_output_tokens: Option<u32>,
    /// The model's temperature, 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f32>,
}

/// Who did something in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Actor {
    /// The owner, signed in.
    Person,
    /// A program of the owner's, by an API key that may manage the account.
    Program {
        /// The key's public name.
        key: String,
    },
    /// A model at work in a run.
    Agent {
        /// The run.
        #[schema(value_type = String)]
        run: RunId,
        /// The model.
        model: String,
        /// The workstation that it ran on; `None` for a provider's.
        device: Option<String>,
    },
}
