//! A project's files: `/api/projects/{id}/files`.

use std::{io, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::io::StreamReader;
use utoipa::{IntoParams, OpenApi, ToSchema};
use wire::{FileId, ProjectId};

use super::{
    Api, Inner, Object, Page, Session, bookmark,
    conversations::id,
    requests::{INVALID_QUERY, limit},
};
use crate::{
    error::{ApiError, ErrorBody},
    lab::{
        content::Actor,
        files::{self, FileError, MAX_FILE},
        operations::Action,
    },
    store::{FileEntry, FileRef, FileVersion, StoreError},
};

/// How long a file may take to arrive: 50 MiB at half a megabit per second, with a minute to spare.
const UPLOAD: Duration = Duration::from_secs(15 * 60);
/// Where a path stands: the names of files are their owner's, and what stands in an address is kept by whoever logs addresses.
const PATH: HeaderName = HeaderName::from_static("x-1k4-path");
/// A field of the body that is no path.
const INVALID_PATH: ApiError = ApiError::InvalidField { field: "path", expected: files::Path::EXPECTED };

/// How a system says that there is no place for more, be it on the disk, within a quota or in one file.
const NO_SPACE: [io::ErrorKind; 3] = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/projects/{id}/files", get(list))
        .route("/api/projects/{id}/files/content", get(read_path).put(write))
        .route("/api/projects/{id}/files/{file}", get(show).patch(rename).delete(delete))
        .route("/api/projects/{id}/files/{file}/content", get(read))
        .route("/api/projects/{id}/files/{file}/versions", get(versions))
        .route("/api/projects/{id}/files/{file}/restore", post(restore))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(list, read_path, write, show, rename, delete, read, versions, restore),
    tags((name = "files", description = "A project's files, up to 50 MiB each. Every change is a new version; those before can be read \
                                         and brought back until the file is deleted for good."))
)]
struct Description;

/// A file.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = File)]
pub(crate) struct FileView {
    /// Which.
    #[schema(value_type = String)]
    id: FileId,
    /// Where in the project.
    path: String,
    /// Its newest version, from 1.
    version: i64,
    /// Bytes.
    size: i64,
    /// What it is, by its bytes: a picture of a kind that browsers show, a PDF, text, else `application/octet-stream`.
    media_type: String,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Milliseconds since 1970.
    updated_at: i64,
    /// Milliseconds since 1970 when it was deleted; it can be brought back.
    deleted_at: Option<i64>,
}

/// A file as it was at some time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FileVersion)]
pub(crate) struct VersionView {
    /// Which file.
    #[schema(value_type = String)]
    file: FileId,
    /// Which version, from 1, without gaps.
    version: i64,
    /// Where in the project it was.
    path: String,
    /// Bytes.
    size: i64,
    /// What it is.
    media_type: String,
    /// Who made it so.
    actor: Actor,
    /// Milliseconds since 1970.
    created_at: i64,
}

/// Where a file is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rename {
    /// The path.
    #[schema(min_length = 1, max_length = 512)]
    path: String,
    /// The version that was seen: if it is another one by now, nothing is changed.
    #[schema(minimum = 1)]
    seen: Option<i64>,
}

/// Which version is to be the newest again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Restore {
    /// The version.
    #[schema(minimum = 1)]
    version: i64,
    /// The version that was seen: if it is another one by now, nothing is changed.
    #[schema(minimum = 1)]
    seen: Option<i64>,
}

/// Which files.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FileQuery {
    /// Those that are deleted and can be brought back; else those that are there.
    deleted: Option<bool>,
    /// What the page before gave as `next`.
    #[param(max_length = 128)]
    cursor: Option<String>,
    /// Files on a page: 1 to 1000, else 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// Which versions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VersionsQuery {
    /// What the page before gave as `next`.
    #[param(max_length = 128)]
    cursor: Option<String>,
    /// Versions on a page: 1 to 1000, else 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u64>,
}

/// Which version of a file.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VersionQuery {
    /// Which version; else the newest.
    #[param(minimum = 1)]
    version: Option<i64>,
}

/// What a file is to be written over.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WriteQuery {
    /// The version that was seen, 0 for none: if it is another one by now, nothing is written.
    #[param(minimum = 0)]
    seen: Option<i64>,
}

/// How a file is deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeleteQuery {
    /// Whether all its versions go, for good; else it can be brought back.
    forever: Option<bool>,
}

/// Files in the order in which they were made.
#[utoipa::path(
    get, path = "/api/projects/{id}/files", operation_id = "list_files", tag = "files", security(("session" = [])),
    params(("id" = String, Path), FileQuery),
    responses(
        (status = 200, description = "A page of files.", body = Page<FileView>),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
    query: Result<Query<FileQuery>, QueryRejection>,
) -> Result<Json<Page<FileView>>, ApiError> {
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let after = bookmark(query.cursor.as_deref())?;
    let deleted = query.deleted.unwrap_or(false);
    let (found, next) = api.store.files(session.user, id(&project)?, deleted, after, limit(query.limit)?).await?;
    Ok(Json(Page { data: found.into_iter().map(FileView::from).collect(), next: next.map(|next| next.to_string()) }))
}

/// A file's content, by its path. It is always a download, never shown as a page of the Lab.
#[utoipa::path(
    get, path = "/api/projects/{id}/files/content", operation_id = "read_file_at", tag = "files", security(("session" = [])),
    params(
        ("id" = String, Path),
        (
            "x-1k4-path" = String, Header, description = "The path in UTF-8, in percents what is no visible ASCII, and `%` itself.",
            min_length = 1, max_length = 1536, pattern = "^[!-~]+$"
        ),
        VersionQuery
    ),
    responses(
        (status = 200, description = "The content, with its media type.", content_type = "application/octet-stream", body = Vec<u8>),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn read_path(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
    query: Result<Query<VersionQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let project = id(&project)?;
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    content(&api, session, project, &FileRef::Path(path(&headers)?), query.version).await
}

/// Writes a file: a new one, or a new version of the one at that path. A body that breaks off changes nothing.
#[utoipa::path(
    put, path = "/api/projects/{id}/files/content", operation_id = "write_file", tag = "files", security(("session" = [])),
    params(
        ("id" = String, Path),
        (
            "x-1k4-path" = String, Header, description = "The path in UTF-8, in percents what is no visible ASCII, and `%` itself.",
            min_length = 1, max_length = 1536, pattern = "^[!-~]+$"
        ),
        WriteQuery
    ),
    request_body(content = Option<Vec<u8>>, content_type = "application/octet-stream", description = "At most 50 MiB."),
    responses(
        (status = 200, description = "The new version.", body = VersionView),
        (status = 507, description = "The Lab's disk is full; nothing was written.", body = ErrorBody),
        (status = "4XX", description = "Why not; `changed_meanwhile` when `seen` is not its version any more.", body = ErrorBody)
    )
)]
pub(super) async fn write(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
    query: Result<Query<WriteQuery>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<VersionView>, ApiError> {
    let project = id(&project)?;
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let path = path(&headers)?;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > MAX_FILE) {
        return Err(ApiError::TooLarge);
    }
    let source = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    let user = session.user;
    let written = to_its_line(async move {
        let _turn = api.uploads.take(user).await;
        let writing = api.files.write(user, project, &path, query.seen, source, Actor::Person);
        let written = tokio::time::timeout(UPLOAD, writing).await.map_err(|_| ApiError::InvalidBody)??;
        let told = json!({ "file": written.file, "version": written.version, "size": written.size });
        api.did(user, project, Action::FileWritten, path.as_str(), told).await?;
        Ok(written)
    });
    Ok(Json(written.await?.into()))
}

/// What is known of a file, also of a deleted one.
#[utoipa::path(
    get, path = "/api/projects/{id}/files/{file}", operation_id = "show_file", tag = "files", security(("session" = [])),
    params(("id" = String, Path), ("file" = String, Path)),
    responses(
        (status = 200, description = "The file.", body = FileView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn show(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, file)): Path<(String, String)>,
) -> Result<Json<FileView>, ApiError> {
    Ok(Json(entry(&api, session, id(&project)?, id(&file)?).await?.into()))
}

/// Gives a file another path; that is a new version of it.
#[utoipa::path(
    patch, path = "/api/projects/{id}/files/{file}", operation_id = "rename_file", tag = "files", security(("session" = [])),
    params(("id" = String, Path), ("file" = String, Path)), request_body = Rename,
    responses(
        (status = 200, description = "The new version.", body = VersionView),
        (status = "4XX", description = "Why not; `taken` when there is a file of that path.", body = ErrorBody)
    )
)]
pub(super) async fn rename(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, file)): Path<(String, String)>,
    body: Result<Object<Rename>, JsonRejection>,
) -> Result<Json<VersionView>, ApiError> {
    let (project, file) = (id(&project)?, id(&file)?);
    let Object(body) = body?;
    let path: files::Path = body.path.parse().map_err(|_| INVALID_PATH)?;
    let before = entry(&api, session, project, file).await?;
    let renamed = to_its_line(async move {
        let renamed = api.store.rename_file(session.user, file, &path, body.seen, Actor::Person).await?;
        let told = json!({ "file": file, "version": renamed.version, "from": before.path });
        api.did(session.user, project, Action::FileRenamed, path.as_str(), told).await?;
        Ok(renamed)
    });
    Ok(Json(renamed.await?.into()))
}

/// Deletes a file, so that it can be brought back or for good.
#[utoipa::path(
    delete, path = "/api/projects/{id}/files/{file}", operation_id = "delete_file", tag = "files", security(("session" = [])),
    params(("id" = String, Path), ("file" = String, Path), DeleteQuery),
    responses(
        (status = 204, description = "It is deleted."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn delete(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, file)): Path<(String, String)>,
    query: Result<Query<DeleteQuery>, QueryRejection>,
) -> Result<StatusCode, ApiError> {
    let (project, file) = (id(&project)?, id(&file)?);
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let forever = query.forever.unwrap_or(false);
    let entry = entry(&api, session, project, file).await?;
    if forever {
        api.files.purge(session.user, file).await?;
    } else {
        api.store.delete_file(session.user, file).await?;
    }
    let told = json!({ "forever": forever });
    api.did(session.user, project, Action::FileDeleted, entry.path.as_str(), told).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A file's content. It is always a download, never shown as a page of the Lab.
#[utoipa::path(
    get, path = "/api/projects/{id}/files/{file}/content", operation_id = "read_file", tag = "files", security(("session" = [])),
    params(("id" = String, Path), ("file" = String, Path), VersionQuery),
    responses(
        (status = 200, description = "The content, with its media type.", content_type = "application/octet-stream", body = Vec<u8>),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn read(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, file)): Path<(String, String)>,
    query: Result<Query<VersionQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let (project, file) = (id(&project)?, id(&file)?);
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    content(&api, session, project, &FileRef::Id(file), query.version).await
}

/// A file's versions, newest first.
#[utoipa::path(
    get, path = "/api/projects/{id}/files/{file}/versions", operation_id = "list_file_versions", tag = "files",
    security(("session" = [])), params(("id" = String, Path), ("file" = String, Path), VersionsQuery),
    responses(
        (status = 200, description = "A page of versions.", body = Page<VersionView>),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn versions(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, file)): Path<(String, String)>,
    query: Result<Query<VersionsQuery>, QueryRejection>,
) -> Result<Json<Page<VersionView>>, ApiError> {
    let (project, file) = (id(&project)?, id(&file)?);
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let expected = "what the page before gave as next";
    let before = query.cursor.map(|cursor| cursor.parse().map_err(|_| ApiError::InvalidField { field: "cursor", expected }));
    let limit = limit(query.limit)?;
    let found = api.store.file_versions(session.user, project, file, before.transpose()?, limit).await?;
    // Versions have no gaps: there is something below the last one unless it is the first.
    let next = found.last().filter(|last| last.version > 1).map(|last| last.version.to_string());
    Ok(Json(Page { data: found.into_iter().map(VersionView::from).collect(), next }))
}

/// Makes an older version the newest once more, and brings the file back if it was deleted.
#[utoipa::path(
    post, path = "/api/projects/{id}/files/{file}/restore", operation_id = "restore_file", tag = "files",
    security(("session" = [])), params(("id" = String, Path), ("file" = String, Path)), request_body = Restore,
    responses(
        (status = 200, description = "The new version.", body = VersionView),
        (status = "4XX", description = "Why not; `taken` when there is another file where it was.", body = ErrorBody)
    )
)]
pub(super) async fn restore(
    State(Api(api)): State<Api>,
    session: Session,
    Path((project, file)): Path<(String, String)>,
    body: Result<Object<Restore>, JsonRejection>,
) -> Result<Json<VersionView>, ApiError> {
    let (project, file) = (id(&project)?, id(&file)?);
    let Object(body) = body?;
    entry(&api, session, project, file).await?;
    let restored = to_its_line(async move {
        let restored = api.store.restore_file(session.user, file, body.version, body.seen, Actor::Person).await?;
        let told = json!({ "file": file, "version": restored.version, "restored": body.version });
        api.did(session.user, project, Action::FileWritten, restored.path.as_str(), told).await?;
        Ok(restored)
    });
    Ok(Json(restored.await?.into()))
}

/// Does what makes a version and writes its line, whatever becomes of whoever asked: one who hangs up between the two leaves no version
/// that the log does not tell of.
async fn to_its_line(work: impl Future<Output = Result<FileVersion, ApiError>> + Send + 'static) -> Result<FileVersion, ApiError> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        Err(_) => Err(StoreError::Refused("the lab is being stopped").into()),
    }
}

/// The path that a request is about.
fn path(headers: &HeaderMap) -> Result<files::Path, ApiError> {
    let invalid = |expected| ApiError::InvalidField { field: "x-1k4-path", expected };
    let encoded = || {
        let mut given = headers.get_all(PATH).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return None };
        let text = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()))?;
        let is_hex = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
        text.split('%').skip(1).all(is_hex).then(|| percent_decode_str(text).decode_utf8().ok()).flatten()
    };
    let text =
        encoded().ok_or_else(|| invalid("given once, in UTF-8, in percents what is no visible ASCII, such as `a%20b.md`"))?;
    text.parse().map_err(|_| invalid(files::Path::EXPECTED))
}

async fn entry(api: &Inner, session: Session, project: ProjectId, file: FileId) -> Result<FileEntry, ApiError> {
    api.store.file(session.user, project, &FileRef::Id(file)).await?.ok_or(ApiError::NotFound)
}

async fn content(
    api: &Inner,
    session: Session,
    project: ProjectId,
    file: &FileRef,
    version: Option<i64>,
) -> Result<Response, ApiError> {
    let (version, chunks) = api.files.read(session.user, project, file, version).await?;
    let mut response = Body::from_stream(chunks).into_response();
    let headers = response.headers_mut();
    let media_type = HeaderValue::try_from(version.media_type).unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CONTENT_LENGTH, version.size.into());
    headers.insert(header::CONTENT_DISPOSITION, disposition(version.path.name()));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Whatever a browser is brought to make of it, it runs nothing and asks nobody.
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    headers.insert(HeaderName::from_static("x-1k4-version"), version.version.into());
    Ok(response)
}

/// A download under this name (RFC 6266): what is no letter, digit, `.`, `-` or `_` is written in percents.
fn disposition(name: &str) -> HeaderValue {
    let mut text = String::from("attachment; filename*=UTF-8''");
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Store(error) => error.into(),
            FileError::TooLarge => Self::TooLarge,
            FileError::NotText => Self::Refused { why: "the file is no text in UTF-8" },
            // Whoever broke off is not there to read it, or sent what is no body.
            FileError::Source(_) => Self::InvalidBody,
            FileError::Disk(error) if NO_SPACE.contains(&error.kind()) => {
                tracing::error!("the disk is full: nothing can be uploaded");
                Self::NoSpace
            }
            FileError::Disk(error) => {
                tracing::error!(%error, "the disk failed");
                Self::Internal
            }
        }
    }
}

impl From<FileEntry> for FileView {
    fn from(file: FileEntry) -> Self {
        Self {
            id: file.id,
            path: file.path.as_str().to_owned(),
            version: file.version,
            size: file.size,
            media_type: file.media_type,
            created_at: file.created_at,
            updated_at: file.updated_at,
            deleted_at: file.deleted_at,
        }
    }
}

impl From<FileVersion> for VersionView {
    fn from(version: FileVersion) -> Self {
        Self {
            file: version.file,
            version: version.version,
            path: version.path.as_str().to_owned(),
            size: version.size,
            media_type: version.media_type,
            actor: version.actor,
            created_at: version.created_at,
        }
    }
}
