//! What a project tells whoever works in it: `/api/projects/{id}/brief`.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{OpenApi, ToSchema};

use super::{
    Api, Object, Session,
    conversations::{INSTRUCTIONS, MAX_INSTRUCTIONS, id, model},
    runs::BUDGETS,
};
use crate::{
    error::{ApiError, ErrorBody},
    lab::operations::Action,
    store::{AgentDefaults, ProjectBrief},
};

/// Bytes of a description at most.
const MAX_DESCRIPTION: usize = 4096;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/projects/{id}/brief", get(show).patch(change))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(paths(show, change))]
struct Description;

/// What a project tells.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectBrief)]
pub(crate) struct BriefView {
    /// What models are to keep in mind in all its conversations, as Markdown.
    instructions: String,
    /// What it is about, for people.
    description: String,
    /// What its agents begin with.
    agents: AgentDefaults,
    /// Grows with each change.
    version: i64,
}

/// What is to be another; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BriefChange {
    /// The version that was seen: if it is another one by now, nothing is changed.
    #[schema(minimum = 1)]
    version: Option<i64>,
    /// At most 64 KiB.
    #[schema(max_length = 65536)]
    instructions: Option<String>,
    /// At most 4 KiB.
    #[schema(max_length = 4096)]
    description: Option<String>,
    /// All of it.
    agents: Option<AgentDefaults>,
}

/// A project's instructions and settings.
#[utoipa::path(
    get, path = "/api/projects/{id}/brief", operation_id = "show_brief", tag = "projects", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "What it tells.", body = BriefView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn show(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
) -> Result<Json<BriefView>, ApiError> {
    Ok(Json(api.store.brief(session.user, id(&project)?).await?.into()))
}

/// Changes a project's instructions and settings; running answers keep what they began with.
#[utoipa::path(
    patch, path = "/api/projects/{id}/brief", operation_id = "change_brief", tag = "projects", security(("session" = [])),
    params(("id" = String, Path)), request_body = BriefChange,
    responses(
        (status = 200, description = "What it tells now.", body = BriefView),
        (status = "4XX", description = "Why not; `changed_meanwhile` when `version` is not its version any more.", body = ErrorBody)
    )
)]
pub(super) async fn change(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
    body: Result<Object<BriefChange>, JsonRejection>,
) -> Result<Json<BriefView>, ApiError> {
    let project = id(&project)?;
    let Object(change) = body?;
    if change.instructions.as_ref().is_some_and(|text| text.len() > MAX_INSTRUCTIONS) {
        return Err(ApiError::InvalidField { field: "instructions", expected: INSTRUCTIONS });
    }
    if change.description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION) {
        return Err(ApiError::InvalidField { field: "description", expected: "at most 4 KiB of text" });
    }
    change.agents.as_ref().and_then(|agents| agents.model.as_ref()).map(model).transpose()?;
    if change.agents.as_ref().is_some_and(|agents| !agents.budgets.are_within()) {
        return Err(ApiError::InvalidField { field: "agents.budgets", expected: BUDGETS });
    }
    let action = if change.instructions.is_some() { Action::InstructionsChanged } else { Action::ProjectChanged };
    let changed = api.store.update_brief(session.user, project, change.version, |instructions, settings| {
        *instructions = change.instructions.unwrap_or_else(|| std::mem::take(instructions));
        settings.description = change.description.unwrap_or_else(|| std::mem::take(&mut settings.description));
        settings.agents = change.agents.unwrap_or_else(|| std::mem::take(&mut settings.agents));
    });
    let changed = changed.await?;
    api.did(session.user, project, action, project, json!(null)).await?;
    Ok(Json(changed.into()))
}

impl From<ProjectBrief> for BriefView {
    fn from(ProjectBrief { instructions, settings, version }: ProjectBrief) -> Self {
        Self { instructions, description: settings.description, agents: settings.agents, version }
    }
}
