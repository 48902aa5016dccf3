//! What happens in a run, in the order of its sequence numbers. Watchers are told it, and the run's message is made of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::ApprovalId;

use super::{content::Use, prompt::Waiting};

/// An event with its place in the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Numbered {
    /// From 1, without gaps.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub time: i64,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A model is asked; an agent asks one many times.
    Asked {
        /// Which time, from 1.
        step: u32,
        /// The model.
        model: String,
    },
    /// It says nothing yet.
    Waiting {
        /// Why.
        #[serde(flatten)]
        waiting: Waiting,
    },
    /// More words.
    Text {
        /// They.
        text: String,
    },
    /// More thoughts.
    Reasoning {
        /// They.
        text: String,
    },
    /// A tool is to be used.
    ToolCall {
        /// Which call, unique in the run.
        call: String,
        /// The tool.
        tool: String,
        /// Its arguments.
        #[schema(value_type = Object)]
        arguments: serde_json::Value,
    },
    /// The owner is asked whether it may.
    ApprovalAsked {
        /// Which question.
        #[schema(value_type = String)]
        approval: ApprovalId,
        /// Which call.
        call: String,
    },
    /// The owner, a rule or the end of the run has answered.
    ApprovalAnswered {
        /// Which question.
        #[schema(value_type = String)]
        approval: ApprovalId,
        /// Whether it may.
        allowed: bool,
    },
    /// What came of a call.
    ToolResult {
        /// Which call.
        call: String,
        /// What the model is told.
        text: String,
        /// Whether it was done.
        ok: bool,
    },
    /// A plan was made and waits for a yes before anything is changed.
    Planned {
        /// Which question.
        #[schema(value_type = String)]
        approval: ApprovalId,
        /// The plan, as Markdown.
        plan: String,
    },
    /// What asking a model took.
    Used {
        /// It.
        usage: Use,
    },
    /// The run is over. Nothing follows.
    Ended {
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// By itself.
    Done,
    /// Its owner stopped it.
    Stopped,
    /// It could not go on.
    Failed {
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// The Lab was stopped in the middle of it.
    Interrupted,
    /// It reached one of its limits.
    Exhausted {
        /// Which: `steps`, `time`, `tokens` or `credits`.
        budget: String,
    },
}
