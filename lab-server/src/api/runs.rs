//! Answers and agents at work: `/api/runs`.

use std::{convert::Infallible, pin::Pin, time::Duration};

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
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};
use wire::{ConversationId, FileId, MessageId, RunId};

use super::{Api, Inner, Object, Page, Session, requests::INVALID_QUERY};
use crate::{
    credits::Credits,
    error::{ApiError, ErrorBody},
    lab::{
        agent::AgentTerms,
        content::{Content, ModelChoice, Part},
        event::{Event, Numbered},
        runs::{Follow, NewRun, Order, RunError, Started},
    },
    store::{Bookmark, FileRef, Run, RunKind, RunState},
};

/// Pieces of what a person says at once.
const MAX_PARTS: usize = 64;
/// What budgets must be.
pub(super) const BUDGETS: &str =
    "at most 500 steps, 43200 seconds, 50000000 tokens and 100000000000 nano-credits, and of the first three at least 1";
/// Runs of a page, unless the query says otherwise.
const PAGE: u64 = 50;
/// Runs of a page at most.
const MAX_PAGE: u64 = 200;
/// A stream says something this often: its reader takes one that is silent for twice as long for dead and comes again, as when a
/// laptop was carried into another network.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// When a browser comes again after its stream broke, in milliseconds.
pub(super) const RETRY: &str = "retry: 500\n\n";

/// What a stream says that has nothing to say.
pub(super) const STILL_HERE: &str = ": still here\n\n";

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/runs", get(unfinished).post(start))
        .route("/api/runs/{id}", get(show))
        .route("/api/runs/{id}/stop", post(stop))
        .route("/api/runs/{id}/events", get(events))
        .route("/api/conversations/{id}/runs", get(list))
}

pub(super) fn description() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    paths(unfinished, start, show, stop, events, list),
    components(schemas(Numbered)),
    tags((name = "runs", description = "An answer or an agent's work. It goes on whether or not anybody watches; any number may."))
)]
struct Description;

/// What is to be answered, and by whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RunOrder {
    /// In which conversation.
    #[schema(max_length = 30)]
    conversation: String,
    /// Below which message; none at the conversation's beginning.
    #[schema(max_length = 30)]
    parent: Option<String>,
    /// What its owner says there. Without it the parent, which is what they said before, is answered, perhaps once more.
    #[schema(min_items = 1, max_items = 64)]
    says: Option<Vec<SaidPart>>,
    /// The model; else the conversation's.
    model: Option<ModelChoice>,
    /// With it an agent works on what is said, with the project's tools; an empty object for one as the project's settings say. Without
    /// it a model answers.
    agent: Option<AgentTerms>,
}

/// A piece of what a person says.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum SaidPart {
    /// Words, as Markdown.
    Text {
        /// They.
        #[schema(min_length = 1, max_length = 1_000_000)]
        text: String,
    },
    /// A file of the conversation's project.
    File {
        /// Which.
        #[schema(max_length = 30)]
        file: String,
        /// Which version; else the newest.
        #[schema(minimum = 1)]
        version: Option<i64>,
    },
}

/// A run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
pub(crate) struct RunView {
    /// Which.
    id: String,
    /// In which project.
    project: String,
    /// In which conversation.
    conversation: String,
    /// The message that it makes; empty until the end.
    message: String,
    /// What it is.
    kind: RunKind,
    /// Where it is in its life.
    state: RunState,
    /// The number of its newest event; while it is not over, of the newest that can be had.
    last_seq: u64,
    /// Credits that it cost so far.
    cost: Credits,
    /// The same in billionths of a credit.
    cost_nano: i64,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Milliseconds since 1970; `null` while it is not over.
    ended_at: Option<i64>,
}

/// Every run that is not over, newest first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Runs)]
pub(crate) struct RunsView {
    data: Vec<RunView>,
}

/// A run, with what was wanted of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RunDetail)]
pub(crate) struct RunDetail {
    /// It.
    #[serde(flatten)]
    run: RunView,
    /// The model that was to answer.
    model: ModelChoice,
    /// An agent's terms; its budgets are those that it works with. `null` for an answer.
    agent: Option<AgentTerms>,
}

/// A run that was started.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StartedRun)]
pub(crate) struct StartedView {
    /// It.
    run: RunView,
    /// The message that the owner's words became; `null` where they said nothing new.
    asked: Option<String>,
}

/// Where to go on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// The number of the last event that is known; 0, or nothing, for the beginning. The header `last-event-id` goes before it.
    after: Option<u64>,
}

/// Which runs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RunsQuery {
    /// What the page before gave as `next`.
    #[param(max_length = 60)]
    cursor: Option<String>,
    /// Runs on a page: 1 to 200, else 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u64>,
}

/// The account's runs that are not over, of all projects.
#[utoipa::path(
    get, path = "/api/runs", operation_id = "list_unfinished_runs", tag = "runs", security(("session" = [])),
    responses(
        (status = 200, description = "Every one.", body = RunsView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn unfinished(State(Api(api)): State<Api>, session: Session) -> Json<RunsView> {
    Json(RunsView { data: api.runs.unfinished(session.user).into_iter().map(RunView::from).collect() })
}

/// Starts a run. It goes on whatever becomes of whoever asked for it. Where the answer before is still being made, this one waits for
/// it; a run that waits is stopped like any other.
#[utoipa::path(
    post, path = "/api/runs", operation_id = "start_run", tag = "runs", security(("session" = [])), request_body = RunOrder,
    responses(
        (status = 202, description = "It was started.", body = StartedView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn start(
    State(Api(api)): State<Api>,
    session: Session,
    body: Result<Object<RunOrder>, JsonRejection>,
) -> Result<(StatusCode, Json<StartedView>), ApiError> {
    let Object(order) = body?;
    let id = order.conversation.parse::<ConversationId>().map_err(|_| ApiError::NotFound)?;
    let parent = order.parent.as_deref().map(str::parse::<MessageId>).transpose().map_err(|_| ApiError::NotFound)?;
    let conversation = api.store.conversation(session.user, id).await?.ok_or(ApiError::NotFound)?;
    let choice = order
        .model
        .or(conversation.settings.model)
        .ok_or(ApiError::InvalidField { field: "model", expected: "given, because the conversation has none of its own" })?;
    let choice = valid(choice)?;
    let content = match order.says {
        Some(parts) => Some(said(&api, &session, conversation.project, parts).await?),
        None => None,
    };
    if order.agent.as_ref().and_then(|terms| terms.budgets).is_some_and(|budgets| !budgets.are_within()) {
        return Err(ApiError::InvalidField { field: "agent.budgets", expected: BUDGETS });
    }
    if order.agent.as_ref().and_then(|terms| terms.delegate.as_deref()).is_some_and(|model| !is_model(model)) {
        return Err(ApiError::InvalidField { field: "agent.delegate", expected: MODEL });
    }
    let kind = if order.agent.is_some() { RunKind::Agent } else { RunKind::Chat };
    let agent = match order.agent {
        // What the project's settings say now holds to the run's end, and is what its watchers are shown.
        Some(terms) if terms.budgets.is_none() => {
            let settings = api.store.brief(session.user, conversation.project).await?.settings.agents;
            Some(AgentTerms { budgets: Some(settings.budgets), ..terms })
        }
        given => given,
    };
    let order = Order { choice, agent };
    let new = NewRun { conversation: id, parent, content, kind, order };
    let Started { run, asked } = api.runs.start(session.user, new).await?;
    Ok((StatusCode::ACCEPTED, Json(StartedView { run: run.into(), asked: asked.map(|asked| asked.to_string()) })))
}

/// One run as it is now.
#[utoipa::path(
    get, path = "/api/runs/{id}", operation_id = "show_run", tag = "runs", security(("session" = [])), params(("id" = String, Path)),
    responses(
        (status = 200, description = "The run.", body = RunDetail),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn show(State(Api(api)): State<Api>, session: Session, Path(run): Path<String>) -> Result<Json<RunDetail>, ApiError> {
    let run = id(&run)?;
    let Order { choice, agent } = api.store.run_order(session.user, run).await?;
    Ok(Json(RunDetail { run: api.runs.get(session.user, run).await?.into(), model: choice, agent }))
}

/// Stops a run. Its message keeps what was said; one that is over stays as it ended.
#[utoipa::path(
    post, path = "/api/runs/{id}/stop", operation_id = "stop_run", tag = "runs", security(("session" = [])),
    params(("id" = String, Path)),
    responses(
        (status = 202, description = "It was told to; its last event says when it has."),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn stop(State(Api(api)): State<Api>, session: Session, Path(run): Path<String>) -> Result<StatusCode, ApiError> {
    api.runs.stop(session.user, id(&run)?).await?;
    Ok(StatusCode::ACCEPTED)
}

/// What happens in a run, as server-sent events: each with its number as `id`, its type as `event`, and one line of JSON. The stream
/// ends behind the event `ended`; one that breaks goes on where `last-event-id` says.
#[utoipa::path(
    get, path = "/api/runs/{id}/events", operation_id = "follow_run", tag = "runs", security(("session" = [])),
    params(
        ("id" = String, Path),
        EventsQuery,
        ("last-event-id" = Option<u64>, Header, description = "The number of the last event that is known.")
    ),
    responses(
        (status = 200, description = "The events, from the one behind.", content((String = "text/event-stream"))),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn events(
    State(api): State<Api>,
    session: Session,
    Path(run): Path<String>,
    headers: HeaderMap,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let after = match headers.get("last-event-id") {
        None => query.after.unwrap_or(0),
        Some(last) => last
            .to_str()
            .ok()
            .and_then(|last| last.parse().ok())
            .ok_or(ApiError::InvalidField { field: "last-event-id", expected: "the number of an event of this run" })?,
    };
    let follow = api.0.runs.follow(session.user, id(&run)?, after).await?;
    let watching = Watching { follow, signed_out: Box::pin(session.ended(api)) };
    let beginning = stream::iter([Ok::<_, Infallible>(Bytes::from_static(RETRY.as_bytes()))]);
    let body = Body::from_stream(futures_util::StreamExt::chain(beginning, stream::unfold(watching, Watching::next)));
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Proxies in front that gather answers would hold back words.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((head, body).into_response())
}

/// A conversation's runs, newest first.
#[utoipa::path(
    get, path = "/api/conversations/{id}/runs", operation_id = "list_runs", tag = "runs", security(("session" = [])),
    params(("id" = String, Path), RunsQuery),
    responses(
        (status = 200, description = "A page of runs.", body = Page<RunView>),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
async fn list(
    State(Api(api)): State<Api>,
    session: Session,
    Path(conversation): Path<String>,
    query: Result<Query<RunsQuery>, QueryRejection>,
) -> Result<Json<Page<RunView>>, ApiError> {
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let conversation = conversation.parse().map_err(|_| ApiError::NotFound)?;
    let invalid = |field, expected| ApiError::InvalidField { field, expected };
    let after = query.cursor.as_deref().map(str::parse::<Bookmark<RunId>>).transpose();
    let after = after.map_err(|_| invalid("cursor", "what the page before gave as `next`"))?;
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(invalid("limit", "a number from 1 to 200"));
    }
    let (runs, next) = api.runs.list(session.user, conversation, after, limit).await?;
    Ok(Json(Page { data: runs.into_iter().map(RunView::from).collect(), next: next.map(|next| next.to_string()) }))
}

/// A stream of events that somebody reads.
struct Watching {
    follow: Follow,
    signed_out: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Watching {
    /// What goes out next; `None` at the end, when the watcher is signed out, and when the database fails: they come again.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let text = tokio::select! {
            biased;
            () = &mut self.signed_out => return None,
            events = tokio::time::timeout(KEEP_ALIVE, self.follow.next()) => match events {
                Err(_) => STILL_HERE.to_owned(),
                Ok(Ok(Some(events))) => events.iter().fold(String::new(), |text, event| text + &line(event)),
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => {
                    tracing::error!(%error, "cannot read what a run said");
                    return None;
                }
            },
        };
        Some((Ok(text.into()), self))
    }
}

/// An event as a browser's `EventSource` reads it. JSON has no line breaks.
fn line(event: &Numbered) -> String {
    // Events are plain data: writing them as JSON does not fail.
    let json = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {json}\n\n", event.seq, kind(&event.event))
}

/// An event's type, as its JSON says it.
const fn kind(event: &Event) -> &'static str {
    match event {
        Event::Asked { .. } => "asked",
        Event::Waiting { .. } => "waiting",
        Event::Text { .. } => "text",
        Event::Reasoning { .. } => "reasoning",
        Event::ToolCall { .. } => "tool_call",
        Event::ApprovalAsked { .. } => "approval_asked",
        Event::ApprovalAnswered { .. } => "approval_answered",
        Event::ToolResult { .. } => "tool_result",
        Event::Planned { .. } => "planned",
        Event::Used { .. } => "used",
        Event::Ended { .. } => "ended",
    }
}

/// What a person says: words and their own files, nothing that only models and tools say.
async fn said(api: &Inner, session: &Session, project: wire::ProjectId, parts: Vec<SaidPart>) -> Result<Content, ApiError> {
    let invalid = |expected| ApiError::InvalidField { field: "says", expected };
    if !(1..=MAX_PARTS).contains(&parts.len()) {
        return Err(invalid("1 to 64 pieces"));
    }
    let mut said = Vec::with_capacity(parts.len());
    for part in parts {
        said.push(match part {
            SaidPart::Text { text } if text.is_empty() => return Err(invalid("made of pieces that say something")),
            SaidPart::Text { text } => Part::Text { text },
            SaidPart::File { file, version } => {
                let file: FileId = file.parse().map_err(|_| ApiError::NotFound)?;
                let found = api.store.file_version(session.user, project, &FileRef::Id(file), version).await?;
                let found = found.ok_or(ApiError::NotFound)?;
                Part::File { file, version: found.version, name: found.path.as_str().to_owned(), media_type: found.media_type }
            }
        });
    }
    Ok(Content { parts: said, usage: Vec::new() })
}

/// What the name of a model must be.
const MODEL: &str = "the name of a model, 1 to 200 characters";

fn is_model(name: &str) -> bool {
    (1..=200).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// A choice that a model can be asked with.
fn valid(choice: ModelChoice) -> Result<ModelChoice, ApiError> {
    let invalid = |field, expected| Err(ApiError::InvalidField { field, expected });
    if !is_model(&choice.model) {
        return invalid("model.model", MODEL);
    }
    if choice.max_output_tokens == Some(0) {
        return invalid("model.max_output_tokens", "at least 1");
    }
    if choice.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
        return invalid("model.temperature", "a number from 0 to 2");
    }
    Ok(choice)
}

/// A text that is no id names nothing.
fn id(text: &str) -> Result<RunId, ApiError> {
    text.parse().map_err(|_| ApiError::NotFound)
}

impl From<Run> for RunView {
    fn from(run: Run) -> Self {
        Self {
            id: run.id.to_string(),
            project: run.project.to_string(),
            conversation: run.conversation.to_string(),
            message: run.message.to_string(),
            kind: run.kind,
            state: run.state,
            last_seq: run.last_seq,
            cost: Credits::of_nano(run.cost_nano),
            cost_nano: run.cost_nano,
            created_at: run.created_at,
            ended_at: run.ended_at,
        }
    }
}

impl From<RunError> for ApiError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::TooMany => Self::Full { why: "too many runs are unfinished; stop one or wait for it" },
            RunError::Busy => Self::Full { why: "the lab works on as many runs as it can; try again in a minute" },
            RunError::Stopping => Self::Stopping,
            RunError::Store(error) => error.into(),
            error @ RunError::Tail { .. } => {
                tracing::error!(%error, "the runs failed");
                Self::Internal
            }
        }
    }
}
