//! `/api/usage`: sums over requests.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Api, Page, Principal,
    requests::{INVALID_QUERY, Wanted},
    table::{Cell, Format, Row},
};
use crate::{
    credits::Credits,
    error::{ApiError, ErrorBody},
    store::{SumBy, UsageSum},
};

/// What some requests come to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageSum)]
pub(crate) struct SumView {
    /// The day (`2026-11-20`), model, key or project; `-` for requests that asked for no model there is, and `TheLabItself` for what was
    /// asked for somebody who is signed in, under no key: in conversations and by agents.
    bucket: String,
    /// How many there were.
    requests: i64,
    /// Tokens of their prompts, as far as they are known.
    input_tokens: i64,
    /// Tokens of their answers, as far as they are known.
    output_tokens: i64,
    /// Credits.
    cost: Credits,
    /// The same in billionths of a credit.
    cost_nano: i64,
}

/// Which sums.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageQuery {
    /// `day`, `model`, `key` or `project`; else `day`.
    #[param(inline)]
    by: Option<SumBy>,
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
    /// `json` or `csv`; else as `accept` says.
    #[param(inline)]
    format: Option<Format>,
}

/// Sums over the requests of the last 90 days: the account's with a key that manages it, else those of the key's own project.
#[utoipa::path(
    get, path = "/api/usage", operation_id = "sum_usage", tag = "usage", params(UsageQuery),
    responses(
        (status = 200, description = "The sums.", content(
            (Page<SumView> = "application/json"),
            (String = "text/csv")
        )),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn sums(
    State(Api(api)): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    query: Result<Query<UsageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|_| INVALID_QUERY)?;
    let wanted = Wanted { from: query.from, to: query.to, project: query.project, key: query.key, model: query.model };
    let filter = wanted.filter(&api, &principal).await?;
    let sums = api.store.usage_sums(&filter, query.by.unwrap_or(SumBy::Day)).await?;
    Format::of(query.format, &headers).write(Page { data: sums.into_iter().map(SumView::from).collect(), next: None })
}

impl From<UsageSum> for SumView {
    fn from(sum: UsageSum) -> Self {
        Self {
            bucket: sum.bucket,
            requests: sum.requests,
            input_tokens: sum.input_tokens,
            output_tokens: sum.output_tokens,
            cost: Credits::of_nano(sum.cost_nano),
            cost_nano: sum.cost_nano,
        }
    }
}

impl Row for SumView {
    const HEADER: &'static [&'static str] = &["bucket", "requests", "input_tokens", "output_tokens", "cost"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::text(&self.bucket),
            Cell::plain(self.requests),
            Cell::plain(self.input_tokens),
            Cell::plain(self.output_tokens),
            Cell::plain(self.cost),
        ]
    }
}
