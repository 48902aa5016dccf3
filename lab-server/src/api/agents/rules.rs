//! `/api/projects/{id}/rules`: what was decided for calls to come.

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use wire::RuleId;

use super::{
    super::{Api, Session},
    project_id,
};
use crate::{
    api::Object,
    error::{ApiError, ErrorBody},
    lab::{
        operations::{Action, Operation},
        tools::policy::{Rule, Targets, Verdict, is_served},
    },
    store::StoredRule,
};

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rule)]
pub(crate) struct RuleView {
    /// Which.
    #[schema(value_type = String)]
    id: RuleId,
    /// The tool's name; `server__*` for every tool of a server.
    tool: String,
    /// Which targets.
    targets: Targets,
    /// What happens.
    verdict: Verdict,
    /// Milliseconds since 1970.
    created_at: i64,
}

/// Every rule of a project.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Rules {
    data: Vec<RuleView>,
}

/// A rule to be. One about the same tool and targets is replaced by it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRule {
    /// The tool's name; `server__*` for every tool of a server.
    #[schema(min_length = 1, max_length = 64)]
    tool: String,
    /// Which targets. A server's tools have none: `any`.
    targets: Targets,
    /// What happens. A server's tool is allowed where a run asks, so that it is clear what it said of itself then.
    verdict: Verdict,
}

/// A project's rules, oldest first.
#[utoipa::path(
    get, path = "/api/projects/{id}/rules", operation_id = "list_rules", tag = "agents", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "Every rule.", body = Rules),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
) -> Result<Json<Rules>, ApiError> {
    let rules = api.store.rules(session.user, project_id(&project)?).await?;
    Ok(Json(Rules { data: rules.into_iter().map(RuleView::from).collect() }))
}

/// Adds a rule.
#[utoipa::path(
    post, path = "/api/projects/{id}/rules", operation_id = "create_rule", tag = "agents", security(("session" = [])),
    params(("id" = String, Path)), request_body = NewRule,
    responses(
        (status = 201, description = "The new rule.", body = RuleView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn create(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
    body: Result<Object<NewRule>, JsonRejection>,
) -> Result<(StatusCode, Json<RuleView>), ApiError> {
    let project = project_id(&project)?;
    let Object(NewRule { tool, targets, verdict }) = body?;
    let rule = Rule { tool, targets, verdict, definition: None };
    if !rule.is_valid() {
        let expected = "about a tool that there is, with a glob that can be read; tools of servers have no targets";
        return Err(ApiError::InvalidField { field: "rule", expected });
    }
    if rule.verdict == Verdict::Allow && is_served(&rule.tool) {
        let expected = "ask or deny; a server's tool is allowed in answer to a run's question, or when it was shown there before";
        return Err(ApiError::InvalidField { field: "verdict", expected });
    }
    let stored = api.store.add_rule(session.user, project, rule).await?;
    let added = Operation::by_person(Action::RuleAdded, Some(stored.id.to_string()), json!({ "rule": stored.rule }));
    api.log.record(session.user, project, added).await?;
    Ok((StatusCode::CREATED, Json(stored.into())))
}

/// Removes a rule: from the next call on it does not hold.
#[utoipa::path(
    delete, path = "/api/projects/{id}/rules/{rule}", operation_id = "delete_rule", tag = "agents", security(("session" = [])),
    params(("id" = String, Path), ("rule" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn remove(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, rule)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let (project, rule) = (project_id(&project)?, rule.parse().map_err(|_| ApiError::NotFound)?);
    let removed = api.store.delete_rule(session.user, project, rule).await?;
    let removed = Operation::by_person(Action::RuleRemoved, Some(removed.id.to_string()), json!({ "rule": removed.rule }));
    api.log.record(session.user, project, removed).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<StoredRule> for RuleView {
    fn from(StoredRule { id, rule, created_at }: StoredRule) -> Self {
        Self { id, tool: rule.tool, targets: rule.targets, verdict: rule.verdict, created_at }
    }
}
