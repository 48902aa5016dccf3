//! `/api/requests` and `/v1/requests/{id}`: what is kept of requests, which is everything that is kept of them.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wire::RequestId;

use super::{
    Api, Inner, Page, Principal, projects,
    table::{Cell, Format, Row},
};
use crate::{
    account::api_key::Kid,
    calendar,
    credits::Credits,
    error::{ApiError, ErrorBody},
    lab::models::HOUSE_KEY,
    store::{Cursor, RequestFilter, RequestRecord},
};

/// Entries of a page, unless the query says otherwise.
const PAGE: u64 = 100;
/// Entries of a page at most.
const MAX_PAGE: u64 = 1000;

/// A query that holds an unknown field, or a value of the wrong kind.
pub(super) const INVALID_QUERY: ApiError =
    ApiError::InvalidField { field: "the query", expected: "made of the fields that this address takes; see /api/openapi.json" };

/// Everything that is kept of a request.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Request)]
pub(crate) struct RequestView {
    /// As the answer's `x-1k4-request-id` said.
    id: String,
    /// When it came, in milliseconds since 1970.
    time: i64,
    /// The model that was asked for.
    model: String,
    /// What was asked of it.
    operation: String,
    /// The workstation that answered.
    device: Option<String>,
    /// The provider that answered.
    provider: Option<String>,
    /// Tokens of the prompt, where they are known.
    input_tokens: Option<i64>,
    /// Tokens of the answer, where they are known.
    output_tokens: Option<i64>,
    /// Whether they were estimated.
    estimated: bool,
    /// Credits.
    cost: Credits,
    /// The same in billionths of a credit.
    cost_nano: i64,
    /// The price list that the cost was made from.
    prices: Option<String>,
    /// Whose request it was.
    user: String,
    /// For which project.
    project: String,
    /// Under which key; `TheLabItself` where the Lab asked for somebody who is signed in, in a conversation or as an agent.
    key: String,
    /// Milliseconds from arrival to end.
    latency_ms: i64,
    /// Milliseconds from arrival to the first byte of the answer.
    first_token_ms: Option<i64>,
    /// Whether a stream was asked for.
    stream: bool,
    /// The HTTP status; 499 when the caller hung up before there was one.
    status: i32,
    /// `complete`, `cancelled`, or the code of the error.
    outcome: String,
}

/// Which requests are meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RequestQuery {
    /// From this UTC day on, such as `2026-11-20`, or this millisecond since 1970 on.
    from: Option<String>,
    /// Before this UTC day, or before this millisecond.
    to: Option<String>,
    /// Of this project.
    project: Option<String>,
    /// Under this key; `TheLabItself` for what was asked under none.
    key: Option<String>,
    /// Of this model.
    model: Option<String>,
    /// What the page before gave as `next`.
    cursor: Option<String>,
    /// Requests on a page: 1 to 1000, else 100.
    limit: Option<u64>,
    /// `json` or `csv`; else as `accept` says.
    #[param(inline)]
    format: Option<Format>,
}

/// Requests, newest first: the account's with a key that manages it, else those of the key's own project.
#[utoipa::path(
    get, path = "/api/requests", operation_id = "list_requests", tag = "usage", params(RequestQuery),
    responses(
        (status = 200, description = "A page of requests.", content(
            (Page<RequestView> = "application/json"),
            (String = "text/csv")
        )),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn list(
    State(Api(api)): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    query: Result<Query<RequestQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let wanted = Wanted { from: query.from, to: query.to, project: query.project, key: query.key, model: query.model };
    let filter = wanted.filter(&api, &principal).await?;
    let expected = "what the page before gave as next";
    let cursor: Option<Cursor> =
        query.cursor.map(|cursor| cursor.parse().map_err(|_| ApiError::InvalidField { field: "cursor", expected })).transpose()?;
    let (records, next) = api.store.requests_page(&filter, cursor.as_ref(), limit(query.limit)?).await?;
    let data = records.into_iter().map(RequestView::from).collect();
    Format::of(query.format, &headers).write(Page { data, next: next.map(|next| next.to_string()) })
}

/// The whole stored record of one request, for any key of the same project.
#[utoipa::path(
    get, path = "/v1/requests/{id}", operation_id = "show_request", tag = "usage", security(("key" = [])), params(("id" = String, Path)),
    responses(
        (status = 200, description = "The record.", body = RequestView),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn own(State(Api(api)): State<Api>, principal: Result<Principal, ApiError>, Path(id): Path<String>) -> Response {
    let found = async {
        let project = principal?.looks_up()?;
        let id: RequestId = id.parse().map_err(|_| ApiError::NotFound)?;
        // Records are written in batches; the meter knows also those that are on their way.
        api.meter.record(project, id).await?.ok_or(ApiError::NotFound)
    };
    match found.await {
        Ok(record) => Json(RequestView::from(record)).into_response(),
        Err(error) => error.for_openai_clients(),
    }
}

/// What a query says of the records that are meant.
pub(super) struct Wanted {
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) project: Option<String>,
    pub(super) key: Option<String>,
    pub(super) model: Option<String>,
}

impl Wanted {
    /// Whose project or key is named must be the asking person's; else there is no such thing.
    pub(super) async fn filter(self, api: &Inner, principal: &Principal) -> Result<RequestFilter, ApiError> {
        let reach = principal.reads()?;
        let owner = reach.owner();
        let project = reach.project(self.project.as_deref().map(projects::id).transpose()?)?;
        if let Some(project) = project
            && api.store.project(owner, project).await?.is_none()
        {
            return Err(ApiError::NotFound);
        }
        let key = self.key.map(|key| key.parse().map_err(|_| ApiError::NotFound)).transpose()?;
        // What was asked under no key is everybody's own by its user.
        if let Some(key) = key.filter(|key: &Kid| key.to_string() != HOUSE_KEY.to_string()) {
            let record = api.store.key(owner, key).await?.ok_or(ApiError::NotFound)?;
            if project.is_some_and(|project| project != record.project) {
                return Err(ApiError::NotFound);
            }
        }
        let expected = "a UTC day such as 2026-11-20, or milliseconds since 1970";
        let time = |field, text: Option<String>| {
            text.map(|text| time(&text).ok_or(ApiError::InvalidField { field, expected })).transpose()
        };
        let (from, to) = (time("from", self.from)?, time("to", self.to)?);
        Ok(RequestFilter { user: Some(owner), project, key, model: self.model, from, to })
    }
}

/// A day, or milliseconds.
fn time(text: &str) -> Option<i64> {
    match calendar::day(text) {
        Some(day) => i64::try_from(day * 86_400_000).ok(),
        None => text.parse().ok().filter(|time| *time >= 0),
    }
}

/// How many entries a page has.
pub(super) fn limit(asked: Option<u64>) -> Result<u64, ApiError> {
    match asked {
        None => Ok(PAGE),
        Some(limit @ 1..=MAX_PAGE) => Ok(limit),
        Some(_) => Err(ApiError::InvalidField { field: "limit", expected: "a number from 1 to 1000" }),
    }
}

impl From<RequestRecord> for RequestView {
    fn from(record: RequestRecord) -> Self {
        Self {
            id: record.id,
            time: record.time,
            model: record.model,
            operation: record.operation,
            device: record.device,
            provider: record.provider,
            input_tokens: record.input_tokens,
            output_tokens: record.output_tokens,
            estimated: record.estimated,
            cost: Credits::of_nano(record.cost_nano),
            cost_nano: record.cost_nano,
            prices: record.prices,
            user: record.user,
            project: record.project,
            key: record.key,
            latency_ms: record.latency_ms,
            first_token_ms: record.first_token_ms,
            stream: record.stream,
            status: record.status,
            outcome: record.outcome,
        }
    }
}

impl Row for RequestView {
    const HEADER: &'static [&'static str] = &[
        "id",
        "time",
        "model",
        "operation",
        "device",
        "provider",
        "input_tokens",
        "output_tokens",
        "estimated",
        "cost",
        "prices",
        "project",
        "key",
        "latency_ms",
        "first_token_ms",
        "stream",
        "status",
        "outcome",
    ];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.id),
            Cell::plain(self.time),
            Cell::text(&self.model),
            Cell::text(&self.operation),
            Cell::maybe(self.device.as_ref()),
            Cell::maybe(self.provider.as_ref()),
            Cell::maybe(self.input_tokens),
            Cell::maybe(self.output_tokens),
            Cell::plain(self.estimated),
            Cell::plain(self.cost),
            Cell::maybe(self.prices.as_ref()),
            Cell::text(&self.project),
            Cell::text(&self.key),
            Cell::plain(self.latency_ms),
            Cell::maybe(self.first_token_ms),
            Cell::plain(self.stream),
            Cell::plain(self.status),
            Cell::text(&self.outcome),
        ]
    }
}
