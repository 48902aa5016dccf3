//! One metadata record per API request, and nothing of its content. They are kept for 90 days.

use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, sea_query::OnConflict};

use super::{Store, StoreError};

/// What is kept of a request. There is no field that could hold a word of a prompt or an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
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
}

impl Store {
    /// Writes records, all or none. One that is there already is left as it is, so that a batch may be tried again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn write_requests(&self, records: &[RequestRecord]) -> Result<(), StoreError> {
        if records.is_empty() {
            return Ok(());
        }
        let rows = records.iter().cloned().map(entity::ActiveModel::from);
        let once = OnConflict::column(entity::Column::Id).do_nothing().to_owned();
        match entity::Entity::insert_many(rows).on_conflict(once).exec_without_returning(&self.db).await {
            Ok(_) | Err(DbErr::RecordNotInserted) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// One record, if it is of this project.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn request(&self, project: wire::ProjectId, request: wire::RequestId) -> Result<Option<RequestRecord>, StoreError> {
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
    pub async fn requests(&self, owner: wire::UserId) -> Result<Vec<RequestRecord>, StoreError> {
        let rows = entity::Entity::find()
            .filter(entity::Column::User.eq(owner.to_string()))
            .order_by_asc(entity::Column::Time)
            .all(&self.db)
            .await?;
        Ok(rows.into_iter().map(RequestRecord::from).collect())
    }

    /// Deletes what is older than `before` (milliseconds since 1970), from the write-ahead log too, and says how many records.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn purge_requests(&self, before: i64) -> Result<u64, StoreError> {
        let purged = entity::Entity::delete_many().filter(entity::Column::Time.lt(before)).exec(&self.db).await?;
        if purged.rows_affected > 0 {
            // `secure_delete` overwrote the rows; this takes their old pages out of the log.
            self.db.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        }
        Ok(purged.rows_affected)
    }
}

/// The two shapes have the same fields; SeaORM wants its own.
macro_rules! same_fields {
    ($($field:ident),+ $(,)?) => {
        impl From<RequestRecord> for entity::ActiveModel {
            fn from(record: RequestRecord) -> Self {
                Self { $($field: Set(record.$field)),+ }
            }
        }

        impl From<entity::Model> for RequestRecord {
            fn from(row: entity::Model) -> Self {
                Self { $($field: row.$field),+ }
            }
        }
    };
}

same_fields!(
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
);

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
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{now_ms, scratch::Scratch};

    fn record(user: wire::UserId, time: i64) -> RequestRecord {
        RequestRecord {
            id: wire::RequestId::random().to_string(),
            time,
            model: "local/llama3.2".into(),
            operation: "ollama.chat".into(),
            device: Some(wire::DeviceId::random().to_string()),
            provider: None,
            input_tokens: Some(0),
            output_tokens: None,
            cost_nano: 0,
            user: user.to_string(),
            project: wire::ProjectId::random().to_string(),
            key: "0123456789ab".into(),
            latency_ms: 12,
            first_token_ms: Some(3),
            stream: true,
            status: 200,
            outcome: "complete".into(),
            estimated: false,
        }
    }

    #[tokio::test]
    async fn records_come_back_as_they_went_and_old_ones_go() {
        let scratch = Scratch::new().await;
        let (ada, now) = (wire::UserId::random(), now_ms());
        let records: Vec<_> = (0..64).map(|n| record(ada, now - n * 1000)).collect();
        scratch.store.write_requests(&records).await.unwrap();
        scratch.store.write_requests(&records[..2]).await.unwrap();
        let mut kept = scratch.store.requests(ada).await.unwrap();
        kept.reverse();
        assert_eq!(kept, records);
        assert_eq!(scratch.store.requests(wire::UserId::random()).await.unwrap(), []);
        assert_eq!(scratch.store.purge_requests(now - 31_500).await.unwrap(), 32);
        assert_eq!(scratch.store.requests(ada).await.unwrap().len(), 32);
    }
}
