//! One metadata record per API request, and nothing of its content. They are kept for 90 days. How they come here stands in
//! `settlements.rs`.

use std::{fmt, str::FromStr};

use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{ProjectId, RequestId, UserId};

use super::{SpendingWindow, Store, StoreError, ledger, spending};
use crate::account::api_key::Kid;

/// What is kept of a request. There is no field that could hold a word of a prompt or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// `req_…`, as the answer's `x-1k4-request-id` says.
    pub id: String,
    /// When it came, milliseconds since 1970.
    pub time: i64,
    /// The model that was asked for.
    pub model: String,
    /// What was asked of it.
    pub operation: String,
    /// The workstation that did it.
    pub device: Option<String>,
    /// The provider that did it.
    pub provider: Option<String>,
    /// Tokens of the prompt, where they are known.
    pub input_tokens: Option<i64>,
    /// Tokens of the answer, where they are known.
    pub output_tokens: Option<i64>,
    /// Price in nano-credits.
    pub cost_nano: i64,
    /// Whose request it was.
    pub user: String,
    /// For which project.
    pub project: String,
    /// Under which key.
    pub key: String,
    /// Milliseconds until the end.
    pub latency_ms: i64,
    /// Milliseconds until the first byte of the answer's body.
    pub first_token_ms: Option<i64>,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// The HTTP status that the caller got.
    pub status: i32,
    /// How it ended.
    pub outcome: String,
    /// Whether the tokens were counted here rather than by whoever ran the model.
    pub estimated: bool,
    /// The price list that the cost was made from, where something has a price.
    pub prices: Option<String>,
}

impl Store {
    /// One record, if it is of this project.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn request(&self, project: ProjectId, request: RequestId) -> Result<Option<RequestRecord>, StoreError> {
        let row = entity::Entity::find_by_id(request.to_string())
            .filter(entity::Column::Project.eq(project.to_string()))
            .one(&self.db)
            .await?;
        Ok(row.map(RequestRecord::from))
    }

    /// A person's records, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn requests(&self, owner: UserId) -> Result<Vec<RequestRecord>, StoreError> {
        let rows = entity::Entity::find()
            .filter(entity::Column::User.eq(owner.to_string()))
            .order_by_asc(entity::Column::Time)
            .all(&self.db)
            .await?;
        Ok(rows.into_iter().map(RequestRecord::from).collect())
    }

    /// Some of the records that `filter` lets through, newest first: at most `limit`, those after `after` where one is given, and
    /// where the next ones begin if there are more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn requests_page(
        &self,
        filter: &RequestFilter,
        after: Option<&Cursor>,
        limit: u64,
    ) -> Result<(Vec<RequestRecord>, Option<Cursor>), StoreError> {
        let mut find = filter.apply(entity::Entity::find());
        if let Some(Cursor { time, id }) = after {
            let same_time = Condition::all().add(entity::Column::Time.eq(*time)).add(entity::Column::Id.lt(id.to_string()));
            find = find.filter(Condition::any().add(entity::Column::Time.lt(*time)).add(same_time));
        }
        // One more than asked for tells whether there are more.
        let rows = find
            .order_by_desc(entity::Column::Time)
            .order_by_desc(entity::Column::Id)
            .limit(limit.saturating_add(1))
            .all(&self.db)
            .await?;
        let kept = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > kept;
        let records: Vec<_> = rows.into_iter().take(kept).map(RequestRecord::from).collect();
        let next = records.last().filter(|_| more).map(Cursor::after).transpose()?;
        Ok((records, next))
    }

    /// What the requests that `filter` lets through come to, put together by `by`: days in their order, everything else the dearest
    /// first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn usage_sums(&self, filter: &RequestFilter, by: SumBy) -> Result<Vec<UsageSum>, StoreError> {
        use sea_orm::sea_query::Expr;

        // Whole days since 1970: both are integers, so that nothing is left over.
        let group = Expr::cust(match by {
            SumBy::Day => "CAST(time / 86400000 AS text)",
            SumBy::Model => "model",
            SumBy::Key => "key",
            SumBy::Project => "project",
        });
        let rows: Vec<(String, i64, i64, i64, i64)> = filter
            .apply(entity::Entity::find())
            .select_only()
            .column_as(group.clone(), "bucket")
            .column_as(Expr::cust("CAST(COUNT(*) AS bigint)"), "requests")
            .column_as(Expr::cust(sum_of_tokens("input_tokens")), "input_tokens")
            .column_as(Expr::cust(sum_of_tokens("output_tokens")), "output_tokens")
            .column_as(Expr::cust("CAST(COALESCE(SUM(cost_nano), 0) AS bigint)"), "cost_nano")
            .group_by(group)
            .into_tuple()
            .all(&self.db)
            .await?;
        let mut sums: Vec<_> = rows
            .into_iter()
            .map(|(bucket, requests, input_tokens, output_tokens, cost_nano)| UsageSum {
                bucket: match by {
                    SumBy::Day => day_of(&bucket),
                    SumBy::Model if bucket.is_empty() => NO_MODEL.to_owned(),
                    SumBy::Model | SumBy::Key | SumBy::Project => bucket,
                },
                requests,
                input_tokens,
                output_tokens,
                cost_nano,
            })
            .collect();
        match by {
            SumBy::Day => sums.sort_by(|a, b| a.bucket.cmp(&b.bucket)),
            SumBy::Model | SumBy::Key | SumBy::Project => {
                sums.sort_by(|a, b| b.cost_nano.cmp(&a.cost_nano).then(b.requests.cmp(&a.requests)).then(a.bucket.cmp(&b.bucket)));
            }
        }
        Ok(sums)
    }

    /// Deletes what is older than `before` (milliseconds since 1970), from the write-ahead log too, and says how many records. What
    /// they cost stays in the ledger, which forgets what it was for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge_requests(&self, before: i64) -> Result<u64, StoreError> {
        let transaction = self.write().await?;
        let purged = entity::Entity::delete_many().filter(entity::Column::Time.lt(before)).exec(&transaction).await?;
        ledger::forget_requests(&transaction, before).await?;
        spending::forget_days(&transaction, before).await?;
        transaction.commit().await?;
        if purged.rows_affected > 0 {
            // `secure_delete` overwrote the rows; this takes their old pages out of the log.
            self.db.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        }
        Ok(purged.rows_affected)
    }
}

/// Which records are meant; what is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFilter {
    /// Whose.
    pub user: Option<UserId>,
    /// For which project.
    pub project: Option<ProjectId>,
    /// Under which key.
    pub key: Option<Kid>,
    /// Of which model, by its whole name.
    pub model: Option<String>,
    /// Not before this time, in milliseconds since 1970.
    pub from: Option<i64>,
    /// Before this time.
    pub to: Option<i64>,
}

impl RequestFilter {
    fn apply(&self, mut find: Select<entity::Entity>) -> Select<entity::Entity> {
        use entity::Column;

        let texts = [
            (Column::User, self.user.map(|user| user.to_string())),
            (Column::Project, self.project.map(|project| project.to_string())),
            (Column::Key, self.key.map(|key| key.to_string())),
            (Column::Model, self.model.clone()),
        ];
        for (column, text) in texts {
            if let Some(text) = text {
                find = find.filter(column.eq(text));
            }
        }
        if let Some(from) = self.from {
            find = find.filter(Column::Time.gte(from));
        }
        if let Some(to) = self.to {
            find = find.filter(Column::Time.lt(to));
        }
        find
    }
}

/// Where a page of records ended: `<time>-<request>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    time: i64,
    id: RequestId,
}

/// A text that is no [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: use the one that came with the page before")]
pub struct InvalidCursor;

impl Cursor {
    fn after(record: &RequestRecord) -> Result<Self, StoreError> {
        Ok(Self { time: record.time, id: super::id(&record.id, "request id")? })
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (time, id) = text.split_once('-').ok_or(InvalidCursor)?;
        Ok(Self { time: time.parse().map_err(|_| InvalidCursor)?, id: id.parse().map_err(|_| InvalidCursor)? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.id)
    }
}

/// What requests are put together by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SumBy {
    /// The UTC day of their arrival.
    Day,
    /// The model.
    Model,
    /// The key.
    Key,
    /// The project.
    Project,
}

/// What some requests come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsageSum {
    /// The day (`2026-11-20`), model, key or project; `-` for requests that asked for no model there is.
    pub bucket: String,
    /// How many there were.
    pub requests: i64,
    /// Tokens of their prompts, as far as they are known.
    pub input_tokens: i64,
    /// Tokens of their answers, as far as they are known.
    pub output_tokens: i64,
    /// What they cost, in nano-credits.
    pub cost_nano: i64,
}

/// What requests that asked for no model there is are summed under, so that the models' sums come to the same as the days'.
const NO_MODEL: &str = "-";

/// A sum never fails: the meter believes no provider more tokens than this for one request, and what an older record says beyond
/// is not counted either, so that it takes two billion requests to leave the numbers.
fn sum_of_tokens(column: &str) -> String {
    let most = 1_u64 << 32;
    format!("CAST(COALESCE(SUM(CASE WHEN {column} > {most} THEN {most} ELSE {column} END), 0) AS bigint)")
}

/// The name of a day counted from 1970.
fn day_of(days: &str) -> String {
    SpendingWindow::Day.bucket(days.parse::<i64>().unwrap_or_default().saturating_mul(86_400_000))
}

impl From<entity::Model> for RequestRecord {
    fn from(row: entity::Model) -> Self {
        let entity::Model { id, time, model, operation, device, provider, input_tokens, output_tokens, cost_nano, .. } = row;
        let entity::Model { user, project, key, latency_ms, first_token_ms, stream, status, outcome, estimated, prices, .. } = row;
        Self {
            id,
            time,
            model,
            operation,
            device,
            provider,
            input_tokens,
            output_tokens,
            cost_nano,
            user,
            project,
            key,
            latency_ms,
            first_token_ms,
            stream,
            status,
            outcome,
            estimated,
            prices,
        }
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "requests")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub time: i64,
        pub model: String,
        pub operation: String,
        pub device: Option<String>,
        pub provider: Option<String>,
        pub input_tokens: Option<i64>,
        pub output_tokens: Option<i64>,
        pub cost_nano: i64,
        pub user: String,
        pub project: String,
        pub key: String,
        pub latency_ms: i64,
        pub first_token_ms: Option<i64>,
        pub stream: bool,
        pub status: i32,
        pub outcome: String,
        pub estimated: bool,
        pub prices: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::store::{Charge, Settlement, now_ms, scratch::Scratch};

    pub(crate) fn record(user: UserId, time: i64) -> RequestRecord {
        RequestRecord {
            id: RequestId::random().to_string(),
            time,
            model: "local/llama3.2".into(),
            operation: "ollama.chat".into(),
            device: Some(wire::DeviceId::random().to_string()),
            provider: None,
            input_tokens: Some(0),
            output_tokens: None,
            cost_nano: 0,
            user: user.to_string(),
            project: ProjectId::random().to_string(),
            key: "0123456789ab".into(),
            latency_ms: 12,
            first_token_ms: Some(3),
            stream: true,
            status: 200,
            outcome: "complete".into(),
            estimated: false,
            prices: Some("0123456789abcdef".into()),
        }
    }

    pub(crate) fn settled(record: &RequestRecord) -> Settlement {
        Settlement { record: record.clone(), charge: Charge::Nothing }
    }

    #[tokio::test]
    async fn records_come_back_as_they_went_and_old_ones_go() {
        let scratch = Scratch::new().await;
        let (ada, now) = (UserId::random(), now_ms());
        let records: Vec<_> = (0..64).map(|n| record(ada, now - n * 1000)).collect();
        let batch: Vec<_> = records.iter().map(settled).collect();
        scratch.store.write_settlements(&batch).await.unwrap();
        scratch.store.write_settlements(&batch[..2]).await.unwrap();
        let mut kept = scratch.store.requests(ada).await.unwrap();
        kept.reverse();
        assert_eq!(kept, records);
        assert_eq!(scratch.store.requests(UserId::random()).await.unwrap(), []);
        assert_eq!(scratch.store.purge_requests(now - 31_500).await.unwrap(), 32);
        assert_eq!(scratch.store.requests(ada).await.unwrap().len(), 32);
    }

    #[tokio::test]
    async fn pages_go_through_every_record_once() {
        let scratch = Scratch::new().await;
        let (ada, now) = (UserId::random(), now_ms());
        // Several in the same millisecond.
        let mut records: Vec<_> = (0..50).map(|n| record(ada, now - n / 7)).collect();
        let batch: Vec<_> = records.iter().map(settled).collect();
        scratch.store.write_settlements(&batch).await.unwrap();
        let filter = RequestFilter { user: Some(ada), ..RequestFilter::default() };
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let (page, next) = scratch.store.requests_page(&filter, cursor.as_ref(), 8).await.unwrap();
            seen.extend(page);
            let Some(next) = next else { break };
            cursor = Some(next.to_string().parse().unwrap());
        }
        records.sort_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
        assert_eq!(seen, records);
        assert_eq!("x".parse::<Cursor>(), Err(InvalidCursor));
    }

    #[tokio::test]
    async fn filters_and_sums_take_only_what_is_meant() {
        let scratch = Scratch::new().await;
        let (ada, eve) = (UserId::random(), UserId::random());
        let day = 86_400_000;
        let at = |time: i64, model: &str, tokens: i64| RequestRecord {
            model: model.into(),
            input_tokens: Some(tokens),
            output_tokens: Some(1),
            ..record(ada, time)
        };
        let mut records = [at(day, "a", 1), at(2 * day - 1, "b", 2), at(2 * day, "a", 4), record(eve, day)];
        records[2].key = "otherotherxx".into();
        let batch: Vec<_> = records.iter().map(settled).collect();
        scratch.store.write_settlements(&batch).await.unwrap();
        let filter = RequestFilter { user: Some(ada), ..RequestFilter::default() };
        let sum = |bucket: &str, requests, input_tokens| UsageSum {
            bucket: bucket.into(),
            requests,
            input_tokens,
            output_tokens: requests,
            cost_nano: 0,
        };
        let sums = async |filter: RequestFilter, by| scratch.store.usage_sums(&filter, by).await.unwrap();
        assert_eq!(sums(filter.clone(), SumBy::Day).await, [sum("1970-01-02", 2, 3), sum("1970-01-03", 1, 4)]);
        assert_eq!(sums(filter.clone(), SumBy::Model).await, [sum("a", 2, 5), sum("b", 1, 2)]);
        assert_eq!(sums(filter.clone(), SumBy::Key).await, [sum("0123456789ab", 2, 3), sum("otherotherxx", 1, 4)]);
        assert_eq!(sums(filter.clone(), SumBy::Project).await.len(), 3);
        // Whoever asked for nothing there is, and whatever a provider claims.
        let claims: Vec<_> = (0..3).map(|_| settled(&RequestRecord { user: "bob".into(), ..at(day, "", i64::MAX) })).collect();
        scratch.store.write_settlements(&claims).await.unwrap();
        let bob = RequestFilter { from: Some(day), to: Some(day + 1), model: Some(String::new()), ..RequestFilter::default() };
        assert_eq!(sums(bob, SumBy::Model).await, [sum("-", 3, 3 << 32)]);
        let of = |change: fn(&mut RequestFilter)| {
            let mut filter = filter.clone();
            change(&mut filter);
            filter
        };
        for (filter, expected) in [
            (of(|f| f.model = Some("a".into())), 2),
            (of(|f| f.from = Some(2 * 86_400_000)), 1),
            (of(|f| f.to = Some(2 * 86_400_000)), 2),
            (of(|f| f.key = "otherotherxx".parse().ok()), 1),
            (of(|f| f.project = Some(ProjectId::random())), 0),
            (RequestFilter::default(), 7),
        ] {
            assert_eq!(scratch.store.requests_page(&filter, None, 100).await.unwrap().0.len(), expected, "{filter:?}");
        }
    }
}
