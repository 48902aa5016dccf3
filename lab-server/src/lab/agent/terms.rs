//! What an owner says of one agent's work. What holds for all of a project's stands in its brief.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::budget::Budgets;
use crate::lab::tools::Tool;

/// What one run is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentTerms {
    /// Whether it makes a plan first, and changes nothing before its owner has agreed.
    pub plan_first: bool,
    /// What it may use up; `null` for what the project's settings say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budgets: Option<Budgets>,
    /// The model that it hands work to, whichever it names itself; `null` where it may choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub delegate: Option<String>,
    /// Of the Lab's own tools only these exist for it, as far as they would otherwise; `null` for all of them. A plan can be proposed
    /// all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 12)]
    pub tools: Option<BTreeSet<Tool>>,
}
