//! What an owner says of one agent's work. What holds for all of a project's stands in its brief.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::budget::Budgets;

/// What one run is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentTerms {
    /// Whether it makes a plan first, and changes nothing before its owner has agreed.
    pub plan_first: bool,
    /// What it may use up; `null` for what the project's settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budgets: Option<Budgets>,
}
