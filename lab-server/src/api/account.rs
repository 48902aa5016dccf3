//! `/api/account` and `/api/ledger`.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::Response,
};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wire::UserId;

use super::{
    Api, Page, Principal, requests,
    table::{Cell, Format, Row},
};
use crate::{
    credits::Credits,
    error::{ApiError, ErrorBody},
    store::{EntryKind, LedgerEntry},
};

/// What a person has.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Account {
    /// Who.
    #[schema(value_type = String)]
    user: UserId,
    /// As people call them.
    name: String,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Credits.
    balance: Credits,
    /// The same in billionths of a credit.
    balance_nano: i64,
    /// Requests that are left of the trial.
    free_requests_left: i32,
}

/// A change of a person's credits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LedgerEntry)]
pub(crate) struct EntryView {
    /// Its place in the order.
    seq: i64,
    /// Milliseconds since 1970.
    time: i64,
    /// Why.
    #[schema(value_type = LedgerKind)]
    kind: EntryKind,
    /// Positive where credits were given, negative where they were taken.
    amount: Credits,
    /// The same in billionths of a credit.
    amount_nano: i64,
    /// The request that it was for, as long as its record is kept.
    request: Option<String>,
    /// The project of that request.
    project: Option<String>,
    /// The key of that request.
    key: Option<String>,
}

/// Why credits change.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the schema of a type whose own module knows no schema")]
pub(crate) enum LedgerKind {
    Grant,
    Usage,
    Free,
    Adjustment,
    Refund,
}

/// Which entries.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LedgerQuery {
    /// What the page before gave as `next`.
    cursor: Option<i64>,
    /// Entries on a page: 1 to 1000, else 100.
    limit: Option<u64>,
    /// `json` or `csv`; else as `accept` says.
    #[param(inline)]
    format: Option<Format>,
}

/// What the account has.
#[utoipa::path(
    get, path = "/api/account", operation_id = "show_account", tag = "account",
    responses(
        (status = 200, description = "What the account has.", body = Account),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn show(State(Api(api)): State<Api>, principal: Principal) -> Result<Json<Account>, ApiError> {
    let owner = principal.manages()?;
    let user = api.store.user(owner).await?.ok_or(ApiError::NotFound)?;
    let balance = api.store.balance(owner).await?.ok_or(ApiError::NotFound)?;
    Ok(Json(Account {
        user: user.id,
        name: user.name,
        created_at: user.created_at,
        balance: Credits::of_nano(balance.balance_nano),
        balance_nano: balance.balance_nano,
        free_requests_left: balance.free_requests_left,
    }))
}

/// Every change of the account's credits, newest first.
#[utoipa::path(
    get, path = "/api/ledger", operation_id = "list_ledger", tag = "account", params(LedgerQuery),
    responses(
        (status = 200, description = "A page of the ledger.", content(
            (Page<EntryView> = "application/json"),
            (String = "text/csv")
        )),
        (status = "4XX", description = "Why not.", body = ErrorBody)
    )
)]
pub(super) async fn ledger(
    State(Api(api)): State<Api>,
    principal: Principal,
    headers: HeaderMap,
    query: Result<Query<LedgerQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let owner = principal.manages()?;
    let Query(query) = query.map_err(|_| requests::INVALID_QUERY)?;
    let limit = requests::limit(query.limit)?;
    let mut entries = api.store.ledger(owner, query.cursor, limit + 1).await?;
    // One more than asked for tells whether there are more.
    let more = entries.len() as u64 > limit;
    entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = entries.last().filter(|_| more).map(|entry| entry.seq.to_string());
    Format::of(query.format, &headers).write(Page { data: entries.into_iter().map(EntryView::from).collect(), next })
}

impl From<LedgerEntry> for EntryView {
    fn from(entry: LedgerEntry) -> Self {
        Self {
            seq: entry.seq,
            time: entry.time,
            kind: entry.kind,
            amount: Credits::of_nano(entry.amount_nano),
            amount_nano: entry.amount_nano,
            request: entry.request,
            project: entry.project,
            key: entry.key,
        }
    }
}

impl Row for EntryView {
    const HEADER: &'static [&'static str] = &["seq", "time", "kind", "amount", "request", "project", "key"];

    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::plain(self.seq),
            Cell::plain(self.time),
            Cell::text(self.kind.as_str()),
            Cell::plain(self.amount),
            Cell::maybe(self.request.as_ref()),
            Cell::maybe(self.project.as_ref()),
            Cell::maybe(self.key.as_ref()),
        ]
    }
}
