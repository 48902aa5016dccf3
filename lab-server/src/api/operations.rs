//! A project's operation log: `/api/projects/{id}/operations`.

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{Stream, TryStreamExt, stream};
use http::header;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};
use wire::{ProjectId, RunId, UserId};

use super::{Api, Inner, Page, Session, projects, requests::INVALID_QUERY};
use crate::{
    credits::Credits,
    error::{ApiError, ErrorBody},
    lab::{
        content::Actor,
        operations::{Action, Approval, Finding, Log, Outcome, Part, Recorded, encode},
    },
    store::StoreError,
};

/// Rows on a page at most.
const MOST: u64 = 200;
/// Rows on a page unless the reader says otherwise.
const USUAL: u64 = 50;
/// Rows that one request looks at for those it wants; the page ends there, and the next goes on.
const LOOKED_AT: u64 = 2_000;
/// Rows that are read together.
const TOGETHER: u64 = 200;

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/projects/{id}/operations", get(list))
        .route("/api/projects/{id}/operations/verify", get(verify))
        .route("/api/projects/{id}/operations/export", get(export))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(list, verify, export),
    components(schemas(OperationView)),
    tags((name = "operations", description = "What was done in a project, by whom and how it ended; a chain that shows what was changed."))
)]
struct Description;

/// One operation.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OperationView {
    /// Its number, from 1 on, without gaps.
    seq: i64,
    /// When it was recorded.
    time: i64,
    actor: Actor,
    action: Action,
    /// What it was done to: a path, an id, a tool's name, an address.
    target: Option<String>,
    /// With which arguments.
    #[schema(value_type = Option<Object>)]
    arguments: serde_json::Value,
    approval: Approval,
    result: Outcome,
    /// What it cost.
    cost: Credits,
    /// The model that was asked, where one was.
    model: Option<String>,
    /// The workstation that this model ran on.
    device: Option<String>,
    /// The row's hash, in URL-safe base64.
    hash: String,
}

/// Which operations are meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OperationQuery {
    /// From which end.
    #[param(inline)]
    order: Option<Order>,
    /// What the page before gave as `next`, or any operation's number: what follows it in that order.
    #[param(max_length = 19, pattern = "^[0-9]+$")]
    cursor: Option<String>,
    /// Operations on a page, else 50. A page may have fewer, and still be followed by one.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u64>,
    /// What this run did.
    #[param(max_length = 30)]
    run: Option<String>,
    /// Of this kind.
    #[param(inline)]
    action: Option<Action>,
}

/// The order of a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Order {
    /// Newest first, unless the reader says otherwise.
    #[default]
    Newest,
    /// Oldest first.
    Oldest,
}

/// Whether a log is what was written.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LogVerdict)]
struct Verdict {
    /// Whether nothing is wrong.
    sound: bool,
    /// The Lab's public key for signed heads, in URL-safe base64.
    key: String,
    /// How many rows the log has, if it is sound.
    rows: Option<i64>,
    /// The last row that a signed head speaks for, if it is sound.
    signed_to: Option<i64>,
    /// What is wrong.
    findings: Vec<Finding>,
}

/// What was done in a project.
#[utoipa::path(
    get, path = "/api/projects/{id}/operations", operation_id = "list_operations", tag = "operations",
    params(("id" = String, Path), OperationQuery), security(("session" = [])),
    responses(
        (status = 200, description = "A page of operations.", body = Page<OperationView>),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn list(
    State(Api(api)): State<Api>,
    session: Session,
    Path(project): Path<String>,
    query: Result<Query<OperationQuery>, QueryRejection>,
) -> Result<Json<Page<OperationView>>, ApiError> {
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let project = theirs(&api, session.user, &project).await?;
    let limit = query.limit.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(ApiError::InvalidField { field: "limit", expected: "a number from 1 to 200" });
    }
    let run = query.run.as_deref().map(str::parse::<RunId>).transpose();
    let run = run.map_err(|_| ApiError::InvalidField { field: "run", expected: "a run's id" })?;
    let digits = query.cursor.as_deref().is_none_or(|text| text.len() <= 19 && text.bytes().all(|byte| byte.is_ascii_digit()));
    let cursor = query.cursor.as_deref().map(str::parse::<i64>).transpose();
    let cursor = cursor.ok().filter(|_| digits);
    let cursor = cursor.ok_or(ApiError::InvalidField { field: "cursor", expected: "what the page before gave as next" })?;
    let order = query.order.unwrap_or_default();
    let wanted = |row: &Recorded| {
        query.action.is_none_or(|action| row.operation.action == action) && run.is_none_or(|run| concerns(row, run))
    };
    let limit = usize::try_from(limit).unwrap_or_default();
    let mut part = order.from(cursor);
    let (mut data, mut looked_at) = (Vec::new(), 0);
    let next = 'page: loop {
        let rows = api.log.read(session.user, project, part, TOGETHER).await?;
        let whole = rows.len() as u64 == TOGETHER;
        for row in rows {
            looked_at += 1;
            part = order.from(Some(row.seq));
            let seq = row.seq;
            if wanted(&row) {
                data.push(OperationView::from(row));
            }
            // Below the first there is nothing; whether something follows the newest, only the next page knows.
            if data.len() == limit || looked_at == LOOKED_AT {
                break 'page (order == Order::Oldest || seq > 1).then(|| seq.to_string());
            }
        }
        if !whole {
            break None;
        }
    };
    Ok(Json(Page { data, next }))
}

/// Whether a project's log is what was written: its hashes, links, numbers and signed heads, and that each row opens.
#[utoipa::path(
    get, path = "/api/projects/{id}/operations/verify", operation_id = "verify_operations", tag = "operations",
    params(("id" = String, Path)), security(("session" = [])),
    responses(
        (status = 200, description = "What was found.", body = Verdict),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn verify(State(Api(api)): State<Api>, session: Session, Path(project): Path<String>) -> Result<Json<Verdict>, ApiError> {
    let project = theirs(&api, session.user, &project).await?;
    let report = api.log.verify(project).await?;
    let log = report.logs.first();
    let (rows, signed_to) = (log.map(|log| log.rows), log.map(|log| log.signed_to));
    Ok(Json(Verdict { sound: report.sound, key: report.key, rows, signed_to, findings: report.findings }))
}

/// The whole log, oldest first, one JSON object a line.
#[utoipa::path(
    get, path = "/api/projects/{id}/operations/export", operation_id = "export_operations", tag = "operations",
    params(("id" = String, Path)), security(("session" = [])),
    responses(
        (status = 200, description = "Lines, each an operation as in a page of them.", body = String,
         content_type = "application/x-ndjson"),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn export(State(Api(api)): State<Api>, session: Session, Path(project): Path<String>) -> Result<Response, ApiError> {
    let project = theirs(&api, session.user, &project).await?;
    let body = Body::from_stream(lines(api.log.clone(), session.user, project));
    let disposition = "attachment; filename=\"operations.jsonl\"";
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson"), (header::CONTENT_DISPOSITION, disposition)], body).into_response())
}

/// A whole log, oldest first, in pieces of whole lines.
pub(super) fn lines(log: Log, owner: UserId, project: ProjectId) -> impl Stream<Item = Result<Bytes, StoreError>> + Send {
    stream::try_unfold(Some(0), move |above: Option<i64>| {
        let log = log.clone();
        async move {
            let Some(above) = above else { return Ok(None) };
            let rows = log.read(owner, project, Part::After(above), TOGETHER).await?;
            let last = rows.last().map(|row| row.seq);
            let mut lines = Vec::new();
            for row in rows {
                serde_json::to_writer(&mut lines, &OperationView::from(row)).map_err(|_| StoreError::Corrupt("operation"))?;
                lines.push(b'\n');
            }
            Ok(Some((Bytes::from(lines), last)))
        }
    })
    .try_filter(|piece| std::future::ready(!piece.is_empty()))
}

/// The project, if it is this person's.
async fn theirs(api: &Inner, owner: UserId, project: &str) -> Result<ProjectId, ApiError> {
    let project = projects::id(project)?;
    api.store.project(owner, project).await?.map(|project| project.id).ok_or(ApiError::NotFound)
}

/// Whether a run did it, or it was done to the run.
fn concerns(row: &Recorded, wanted: RunId) -> bool {
    match &row.operation.actor {
        Actor::Agent { run, .. } => *run == wanted,
        Actor::Person | Actor::Program { .. } => row.operation.target.as_deref().is_some_and(|target| target.parse() == Ok(wanted)),
    }
}

impl Order {
    const fn from(self, seq: Option<i64>) -> Part {
        match (self, seq) {
            (Self::Newest, seq) => Part::Before(seq),
            (Self::Oldest, Some(seq)) => Part::After(seq),
            (Self::Oldest, None) => Part::After(0),
        }
    }
}

impl From<Recorded> for OperationView {
    fn from(Recorded { seq, time, hash, operation }: Recorded) -> Self {
        Self {
            seq,
            time,
            actor: operation.actor,
            action: operation.action,
            target: operation.target,
            arguments: operation.arguments,
            approval: operation.approval,
            result: operation.result,
            cost: Credits::of_nano(operation.cost_nano),
            model: operation.model,
            device: operation.device,
            hash: encode(&hash),
        }
    }
}
