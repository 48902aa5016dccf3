//! A project's board: `/api/projects/{id}/tasks` and `/api/tasks/{id}`.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    routing::get,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{OpenApi, ToSchema};
use wire::{ProjectId, TaskId};

use super::{Api, Object, Session, conversations::id, nullable};
use crate::{
    error::{ApiError, ErrorBody},
    lab::operations::Action,
    store::{Assignee, NewTask, Task, TaskChange, TaskPlace, TaskState},
};

/// Characters of a title at most.
const MAX_TITLE: usize = 500;
/// Bytes of a body at most.
const MAX_BODY: usize = 64 * 1024;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/projects/{id}/tasks", get(list).post(create))
        .route("/api/tasks/{id}", get(show).patch(change).delete(delete))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(list, create, show, change, delete),
    tags((name = "tasks", description = "A project's board: what is to be done, by whom, how far it is."))
)]
struct Description;

/// A task.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskView {
    /// Which.
    #[schema(value_type = String)]
    id: TaskId,
    /// In which project.
    #[schema(value_type = String)]
    project: ProjectId,
    /// How far it is.
    state: TaskState,
    /// One line.
    title: String,
    /// Markdown.
    body: String,
    /// Who is to do it.
    assignee: Option<Assignee>,
    /// Grows with each change.
    version: i64,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Milliseconds since 1970.
    updated_at: i64,
}

/// A board.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tasks {
    data: Vec<TaskView>,
}

/// A task to be; it comes last.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTask)]
pub(crate) struct NewTaskBody {
    /// How far it is, else `open`.
    state: Option<TaskState>,
    /// One line of 1 to 500 characters.
    #[schema(min_length = 1, max_length = 500)]
    title: String,
    /// Markdown, at most 64 KiB.
    #[schema(max_length = 65536)]
    body: Option<String>,
    /// Who is to do it.
    assignee: Option<Assignee>,
}

/// What is to be another; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TaskChange)]
pub(crate) struct TaskChangeBody {
    /// The version that was seen: if it is another one by now, nothing is changed.
    #[schema(minimum = 1)]
    version: Option<i64>,
    /// How far it is.
    state: Option<TaskState>,
    /// One line of 1 to 500 characters.
    #[schema(min_length = 1, max_length = 500)]
    title: Option<String>,
    /// Markdown, at most 64 KiB.
    #[schema(max_length = 65536)]
    body: Option<String>,
    /// Who is to do it; `null` for nobody.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Assignee>)]
    assignee: Option<Option<Assignee>>,
    /// Where it is to stand.
    place: Option<Place>,
}

/// Where a task stands on its board.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "at", rename_all = "snake_case", deny_unknown_fields)]
#[schema(as = TaskPlace)]
pub(crate) enum Place {
    /// Before all others.
    First,
    /// After all others.
    Last,
    /// Right after another one.
    After {
        /// Which.
        #[schema(value_type = String, max_length = 64)]
        task: TaskId,
    },
}

/// A project's tasks, as they stand on the board; there are 2,000 at most.
#[utoipa::path(
    get, path = "/api/projects/{id}/tasks", operation_id = "list_tasks", tag = "tasks", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The board.", body = Tasks),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
) -> Result<Json<Tasks>, ApiError> {
    let tasks = api.store.tasks(session.user, id(&project)?).await?;
    Ok(Json(Tasks { data: tasks.into_iter().map(TaskView::from).collect() }))
}

/// Puts a task on the board.
#[utoipa::path(
    post, path = "/api/projects/{id}/tasks", operation_id = "create_task", tag = "tasks", security(("session" = [])),
    params(("id" = String, Path)), request_body = NewTaskBody,
    responses(
        (status = 201, description = "The new task.", body = TaskView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn create(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
    body: Result<Object<NewTaskBody>, JsonRejection>,
) -> Result<(StatusCode, Json<TaskView>), ApiError> {
    let project = id(&project)?;
    let Object(new) = body?;
    let new = NewTask {
        state: new.state.unwrap_or(TaskState::Open),
        title: title(&new.title)?,
        body: words(new.body.unwrap_or_default())?,
        assignee: new.assignee.map(assignee).transpose()?,
    };
    let task = api.store.add_task(session.user, project, new).await?;
    api.did(session.user, project, Action::TaskCreated, task.id, json!({ "state": task.state })).await?;
    Ok((StatusCode::CREATED, Json(task.into())))
}

/// One task.
#[utoipa::path(
    get, path = "/api/tasks/{id}", operation_id = "show_task", tag = "tasks", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The task.", body = TaskView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn show(
    State(Api(api)): State<Api>,
    session: Session,
    Path(task): Path<String>,
) -> Result<Json<TaskView>, ApiError> {
    let task = api.store.task(session.user, id(&task)?).await?.ok_or(ApiError::NotFound)?;
    Ok(Json(task.into()))
}

/// Changes, assigns or moves a task.
#[utoipa::path(
    patch, path = "/api/tasks/{id}", operation_id = "change_task", tag = "tasks", security(("session" = [])),
    params(("id" = String, Path)), request_body = TaskChangeBody,
    responses(
        (status = 200, description = "The task as it is now.", body = TaskView),
        (status = "4XX", description = "Why not; `changed_meanwhile` when `version` is not its version any more.", body = ErrorBody)
    )
)]
pub(super) async fn change(
    State(Api(api)): State<Api>,
    session: Session,
    Path(task): Path<String>,
    body: Result<Object<TaskChangeBody>, JsonRejection>,
) -> Result<Json<TaskView>, ApiError> {
    let task = id(&task)?;
    let Object(body) = body?;
    let change = TaskChange {
        state: body.state,
        title: body.title.as_deref().map(title).transpose()?,
        body: body.body.map(words).transpose()?,
        assignee: body.assignee.map(|given| given.map(assignee).transpose()).transpose()?,
        place: body.place.map(TaskPlace::from),
    };
    let told = json!({ "state": change.state, "assignee": change.assignee, "moved": change.place.is_some() });
    let changed = api.store.update_task(session.user, task, body.version, change).await?;
    api.did(session.user, changed.project, Action::TaskChanged, task, told).await?;
    Ok(Json(changed.into()))
}

/// Takes a task off the board for good.
#[utoipa::path(
    delete, path = "/api/tasks/{id}", operation_id = "delete_task", tag = "tasks", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn delete(
    State(Api(api)): State<Api>,
    session: Session,
    Path(task): Path<String>,
) -> Result<StatusCode, ApiError> {
    let task = id(&task)?;
    let found = api.store.task(session.user, task).await?.ok_or(ApiError::NotFound)?;
    api.store.delete_task(session.user, task).await?;
    api.did(session.user, found.project, Action::TaskDeleted, task, json!(null)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn title(text: &str) -> Result<String, ApiError> {
    let title = text.trim();
    let fits = (1..=MAX_TITLE).contains(&title.chars().count()) && !title.chars().any(char::is_control);
    let expected = "1 to 500 characters, none of them a control character";
    if fits { Ok(title.to_owned()) } else { Err(ApiError::InvalidField { field: "title", expected }) }
}

fn words(body: String) -> Result<String, ApiError> {
    let expected = "at most 64 KiB of text";
    if body.len() <= MAX_BODY { Ok(body) } else { Err(ApiError::InvalidField { field: "body", expected }) }
}

fn assignee(assignee: Assignee) -> Result<Assignee, ApiError> {
    match &assignee {
        Assignee::Agent { name } if !(1..=200).contains(&name.chars().count()) || name.chars().any(char::is_control) => {
            let expected = "the person, or an agent with a name of 1 to 200 characters";
            Err(ApiError::InvalidField { field: "assignee", expected })
        }
        _ => Ok(assignee),
    }
}

impl From<Place> for TaskPlace {
    fn from(place: Place) -> Self {
        match place {
            Place::First => Self::First,
            Place::Last => Self::Last,
            Place::After { task } => Self::After(task),
        }
    }
}

impl From<Task> for TaskView {
    fn from(Task { id, project, state, title, body, assignee, version, created_at, updated_at }: Task) -> Self {
        Self { id, project, state, title, body, assignee, version, created_at, updated_at }
    }
}
