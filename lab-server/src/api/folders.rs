//! Folders of conversations: `/api/folders`.

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    routing::{get, patch},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use wire::FolderId;

use super::{Api, Object, Session, conversations::id, nullable, projects::name};
use crate::{
    error::{ApiError, ErrorBody},
    store::{Folder, FolderChange},
};

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/api/folders", get(list).post(create)).route("/api/folders/{id}", patch(change).delete(delete))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(list, create, change, delete),
    tags((name = "folders", description = "Folders that conversations are kept in, up to eight within each other."))
)]
struct Description;

/// A folder.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Folder)]
pub(crate) struct FolderView {
    /// Which.
    #[schema(value_type = String)]
    id: FolderId,
    /// Which folder it lies in.
    #[schema(value_type = Option<String>)]
    parent: Option<FolderId>,
    /// Its name.
    name: String,
    /// Grows with each change.
    version: i64,
    /// Milliseconds since 1970.
    created_at: i64,
}

/// Every folder.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Folders {
    data: Vec<FolderView>,
}

/// A folder to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewFolder {
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// Which folder it lies in.
    #[schema(value_type = Option<String>, max_length = 64)]
    parent: Option<FolderId>,
}

/// What is to be another; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FolderChange)]
pub(crate) struct FolderChangeBody {
    /// The version that was seen: if it is another one by now, nothing is changed.
    #[schema(minimum = 1)]
    version: Option<i64>,
    /// 1 to 100 characters.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// `null` for none.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<String>, max_length = 64)]
    parent: Option<Option<FolderId>>,
}

/// Every folder, oldest first; there are 1,000 at most.
#[utoipa::path(
    get, path = "/api/folders", operation_id = "list_folders", tag = "folders", security(("session" = [])),
    responses(
        (status = 200, description = "Every folder.", body = Folders),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(State(Api(api)): State<Api>, session: Session) -> Result<Json<Folders>, ApiError> {
    let folders = api.store.folders(session.user).await?;
    Ok(Json(Folders { data: folders.into_iter().map(FolderView::from).collect() }))
}

/// Makes a folder.
#[utoipa::path(
    post, path = "/api/folders", operation_id = "create_folder", tag = "folders", security(("session" = [])),
    request_body = NewFolder,
    responses(
        (status = 201, description = "The new folder.", body = FolderView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn create(
    State(Api(api)): State<Api>,
    session: Session,
    body: Result<Object<NewFolder>, JsonRejection>,
) -> Result<(StatusCode, Json<FolderView>), ApiError> {
    let Object(new) = body?;
    let folder = api.store.add_folder(session.user, new.parent, name(&new.name)?.to_owned()).await?;
    Ok((StatusCode::CREATED, Json(folder.into())))
}

/// Renames or moves a folder.
#[utoipa::path(
    patch, path = "/api/folders/{id}", operation_id = "change_folder", tag = "folders", security(("session" = [])),
    params(("id" = String, Path)), request_body = FolderChangeBody,
    responses(
        (status = 200, description = "The folder as it is now.", body = FolderView),
        (status = "4XX", description = "Why not; `changed_meanwhile` when `version` is not its version any more.", body = ErrorBody)
    )
)]
pub(super) async fn change(
    State(Api(api)): State<Api>,
    session: Session,
    Path(folder): Path<String>,
    body: Result<Object<FolderChangeBody>, JsonRejection>,
) -> Result<Json<FolderView>, ApiError> {
    let folder = id(&folder)?;
    let Object(body) = body?;
    let name = body.name.as_deref().map(name).transpose()?.map(str::to_owned);
    let change = FolderChange { name, parent: body.parent };
    Ok(Json(api.store.update_folder(session.user, folder, body.version, change).await?.into()))
}

/// Deletes a folder with those in it. Conversations stay, and are in no folder then.
#[utoipa::path(
    delete, path = "/api/folders/{id}", operation_id = "delete_folder", tag = "folders", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 204, description = "It is gone."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn delete(
    State(Api(api)): State<Api>,
    session: Session,
    Path(folder): Path<String>,
) -> Result<StatusCode, ApiError> {
    api.store.delete_folder(session.user, id(&folder)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<Folder> for FolderView {
    fn from(Folder { id, parent, name, version, created_at }: Folder) -> Self {
        Self { id, parent, name, version, created_at }
    }
}
