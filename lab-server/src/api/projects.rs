//! `/api/projects`.

use std::num::NonZeroU32;

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use wire::ProjectId;

use super::{Api, Object, Principal, object_or_null};
use crate::{
    error::{ApiError, ErrorBody},
    lab::operations::{Action, Operation},
    store::{self, Project, StoreError},
    vault::VaultError,
};

/// A project.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Project)]
pub(crate) struct ProjectView {
    /// Which.
    #[schema(value_type = String)]
    id: ProjectId,
    /// Unique among the account's.
    name: String,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Whether OpenAI's streams are asked for their usage, at the price of some bytes of the request.
    exact_usage: bool,
    /// How fast all its keys together may ask.
    rates: Rates,
}

/// Every project.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Projects {
    data: Vec<ProjectView>,
}

/// How much may be asked in what time; `null` for no limit of this kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Rates {
    /// Requests in a minute.
    #[schema(value_type = Option<u32>, format = "uint32", minimum = 1)]
    requests_per_minute: Option<NonZeroU32>,
    /// Tokens of prompts and answers in a minute.
    #[schema(value_type = Option<u32>, format = "uint32", minimum = 1)]
    tokens_per_minute: Option<NonZeroU32>,
    /// Requests that run at once.
    #[schema(value_type = Option<u32>, format = "uint32", minimum = 1)]
    concurrent: Option<NonZeroU32>,
}

/// A project to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProject {
    /// 1 to 100 characters.
    name: String,
}

/// What is to be another; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProjectChange {
    /// 1 to 100 characters.
    name: Option<String>,
    exact_usage: Option<bool>,
    /// All three limits together.
    #[serde(default, deserialize_with = "object_or_null")]
    rates: Option<Rates>,
}

/// Every project of the account, oldest first.
#[utoipa::path(
    get, path = "/api/projects", operation_id = "list_projects", tag = "projects",
    responses(
        (status = 200, description = "Every project.", body = Projects),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(State(Api(api)): State<Api>, principal: Principal) -> Result<Json<Projects>, ApiError> {
    let projects = api.store.projects(principal.manages()?).await?;
    Ok(Json(Projects { data: projects.into_iter().map(ProjectView::from).collect() }))
}

/// Starts a project.
#[utoipa::path(
    post, path = "/api/projects", operation_id = "create_project", tag = "projects", request_body = NewProject,
    responses(
        (status = 201, description = "The new project.", body = ProjectView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn create(
    State(Api(api)): State<Api>,
    principal: Principal,
    body: Result<Object<NewProject>, JsonRejection>,
) -> Result<(StatusCode, Json<ProjectView>), ApiError> {
    let owner = principal.manages()?;
    let Object(new) = body?;
    let project = api.store.add_project(owner, name(&new.name)?).await?;
    let arguments = json!({ "name": project.name });
    api.did_as(principal.actor(), owner, project.id, Action::ProjectCreated, project.id, arguments).await?;
    Ok((StatusCode::CREATED, Json(project.into())))
}

/// One project.
#[utoipa::path(
    get, path = "/api/projects/{id}", operation_id = "show_project", tag = "projects", params(("id" = String, Path)),
    responses(
        (status = 200, description = "The project.", body = ProjectView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn show(
    State(Api(api)): State<Api>,
    principal: Principal,
    Path(project): Path<String>,
) -> Result<Json<ProjectView>, ApiError> {
    let owner = principal.manages()?;
    let project = api.store.project(owner, id(&project)?).await?.ok_or(ApiError::NotFound)?;
    Ok(Json(project.into()))
}

/// Changes a project; running requests keep what they began with.
#[utoipa::path(
    patch, path = "/api/projects/{id}", operation_id = "change_project", tag = "projects",
    params(("id" = String, Path)), request_body = ProjectChange,
    responses(
        (status = 200, description = "The project as it is now.", body = ProjectView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn change(
    State(Api(api)): State<Api>,
    principal: Principal,
    Path(project): Path<String>,
    body: Result<Object<ProjectChange>, JsonRejection>,
) -> Result<Json<ProjectView>, ApiError> {
    let owner = principal.manages()?;
    let project = id(&project)?;
    let Object(change) = body?;
    let new_name = change.name.as_deref().map(name).transpose()?.map(str::to_owned);
    let changed = api.revocations.update_project(owner, project, |name, settings| {
        *name = new_name.unwrap_or_else(|| std::mem::take(name));
        settings.exact_usage = change.exact_usage.unwrap_or(settings.exact_usage);
        settings.rates = change.rates.map_or(settings.rates, store::Rates::from);
    });
    let changed = ProjectView::from(changed.await?);
    let arguments = json!({ "name": changed.name, "exact_usage": changed.exact_usage, "rates": changed.rates });
    api.did_as(principal.actor(), owner, project, Action::ProjectChanged, project, arguments).await?;
    Ok(Json(changed))
}

/// Deletes a project: all its keys end, and with the answer none of them is taken any more. Its records stay until they are old.
#[utoipa::path(
    delete, path = "/api/projects/{id}", operation_id = "delete_project", tag = "projects", params(("id" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn delete(
    State(Api(api)): State<Api>,
    principal: Principal,
    Path(project): Path<String>,
) -> Result<StatusCode, ApiError> {
    let owner = principal.manages_freshly()?;
    let project = id(&project)?;
    // Before it is done: afterwards nothing can be sealed for it any more.
    let deleted = Operation::by(principal.actor(), Action::ProjectDeleted, Some(project.to_string()), json!(null));
    match api.log.record(owner, project, deleted).await {
        // Somebody got as far as deleting its key before, and no further.
        Err(StoreError::Vault(VaultError::NoKey)) => {}
        recorded => drop(recorded?),
    }
    api.revocations.delete_project(owner, project).await?;
    if let Err(error) = api.files.forget(project).await {
        // Their keys are gone, and so will they be when the Lab starts.
        tracing::warn!(%error, %project, "cannot remove the contents of a deleted project's files");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// A text that is no id names nothing.
pub(super) fn id(text: &str) -> Result<ProjectId, ApiError> {
    text.parse().map_err(|_| ApiError::NotFound)
}

/// A name that people can read.
pub(super) fn name(text: &str) -> Result<&str, ApiError> {
    let name = text.trim();
    let fits = (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    let expected = "1 to 100 characters, none of them a control character";
    if fits { Ok(name) } else { Err(ApiError::InvalidField { field: "name", expected }) }
}

impl From<Project> for ProjectView {
    fn from(project: Project) -> Self {
        Self {
            id: project.id,
            name: project.name,
            created_at: project.created_at,
            exact_usage: project.settings.exact_usage,
            rates: project.settings.rates.into(),
        }
    }
}

impl From<Rates> for store::Rates {
    fn from(Rates { requests_per_minute, tokens_per_minute, concurrent }: Rates) -> Self {
        Self { requests_per_minute, tokens_per_minute, concurrent }
    }
}

impl From<store::Rates> for Rates {
    fn from(store::Rates { requests_per_minute, tokens_per_minute, concurrent }: store::Rates) -> Self {
        Self { requests_per_minute, tokens_per_minute, concurrent }
    }
}
