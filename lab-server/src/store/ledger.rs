//! The ledger: every change of anybody's credits, in the order in which it came to be. Entries are added and never changed or
//! removed, which the database itself enforces; each has an idempotency key, so that doing it again does nothing.

use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr};
use serde::Serialize;
use wire::UserId;

use super::{Store, StoreError, id};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerEntry {
    /// Its place in the order.
    pub seq: i64,
    /// Milliseconds since 1970.
    pub time: i64,
    /// Whose credits.
    pub user: UserId,
    /// Why.
    pub kind: EntryKind,
    /// Nano-credits: positive where they were given, negative where they were taken.
    pub amount_nano: i64,
    /// What it was done once for: `req_…` for requests.
    pub idempotency_key: String,
    /// The request that it was for; forgotten with its record.
    pub request: Option<String>,
    /// The project of that request; likewise.
    pub project: Option<String>,
    /// The key of that request; likewise.
    pub key: Option<String>,
}

/// Why credits change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// The operator gave them.
    Grant,
    /// A request cost them.
    Usage,
    /// A request used up a free one, and cost nothing.
    Free,
    /// The operator set something right.
    Adjustment,
    /// They were given back.
    Refund,
}

impl EntryKind {
    const ALL: [Self; 5] = [Self::Grant, Self::Usage, Self::Free, Self::Adjustment, Self::Refund];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Usage => "usage",
            Self::Free => "free",
            Self::Adjustment => "adjustment",
            Self::Refund => "refund",
        }
    }
}

/// An entry before it has its place.
pub(super) struct NewEntry<'a> {
    pub(super) time: i64,
    pub(super) user: UserId,
    pub(super) kind: EntryKind,
    pub(super) amount_nano: i64,
    pub(super) idempotency_key: &'a str,
}

impl Store {
    /// A person's entries, newest first, at most `limit`, those before the place `before` where one is given.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ledger(&self, user: UserId, before: Option<i64>, limit: u64) -> Result<Vec<LedgerEntry>, StoreError> {
        let mut find = entity::Entity::find().filter(entity::Column::UserId.eq(user.to_string()));
        if let Some(before) = before {
            find = find.filter(entity::Column::Seq.lt(before));
        }
        let rows = find.order_by_desc(entity::Column::Seq).limit(limit).all(&self.db).await?;
        rows.into_iter().map(LedgerEntry::try_from).collect()
    }

    /// The sum of all of a person's entries: what their balance must be.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ledger_sum(&self, user: UserId) -> Result<i64, StoreError> {
        let sum: Option<Option<i64>> = entity::Entity::find()
            .select_only()
            .column_as(Expr::cust("CAST(SUM(amount_nano) AS bigint)"), "sum")
            .filter(entity::Column::UserId.eq(user.to_string()))
            .into_tuple()
            .one(&self.db)
            .await?;
        Ok(sum.flatten().unwrap_or_default())
    }
}

/// Whether a person was ever given credits.
pub(super) async fn was_credited(db: &impl ConnectionTrait, user: UserId) -> Result<bool, StoreError> {
    let given: Option<i64> = entity::Entity::find()
        .select_only()
        .column(entity::Column::Seq)
        .filter(entity::Column::UserId.eq(user.to_string()))
        .filter(entity::Column::Kind.is_in([EntryKind::Grant.as_str(), EntryKind::Adjustment.as_str()]))
        .limit(1)
        .into_tuple()
        .one(db)
        .await?;
    Ok(given.is_some())
}

pub(super) async fn find(db: &impl ConnectionTrait, idempotency_key: &str) -> Result<Option<LedgerEntry>, StoreError> {
    let row = entity::Entity::find().filter(entity::Column::IdempotencyKey.eq(idempotency_key)).one(db).await?;
    row.map(LedgerEntry::try_from).transpose()
}

pub(super) async fn append(db: &impl ConnectionTrait, new: NewEntry<'_>) -> Result<LedgerEntry, StoreError> {
    let row = entity::ActiveModel {
        seq: sea_orm::ActiveValue::NotSet,
        time: Set(new.time),
        user_id: Set(new.user.to_string()),
        kind: Set(new.kind.as_str().to_owned()),
        amount_nano: Set(new.amount_nano),
        idempotency_key: Set(new.idempotency_key.to_owned()),
        request: Set(None),
        project: Set(None),
        key: Set(None),
    };
    entity::Entity::insert(row).exec_with_returning(db).await?.try_into()
}

/// Forgets which requests old entries were for. Their amounts stay.
pub(super) async fn forget_requests(db: &impl ConnectionTrait, before: i64) -> Result<(), StoreError> {
    entity::Entity::update_many()
        .col_expr(entity::Column::Request, Expr::value(None::<String>))
        .col_expr(entity::Column::Project, Expr::value(None::<String>))
        .col_expr(entity::Column::Key, Expr::value(None::<String>))
        .filter(entity::Column::Time.lt(before))
        .filter(entity::Column::Request.is_not_null())
        .exec(db)
        .await?;
    Ok(())
}

impl TryFrom<entity::Model> for LedgerEntry {
    type Error = StoreError;

    fn try_from(row: entity::Model) -> Result<Self, StoreError> {
        let kind = EntryKind::ALL.into_iter().find(|kind| kind.as_str() == row.kind);
        Ok(Self {
            seq: row.seq,
            time: row.time,
            user: id(&row.user_id, "user id")?,
            kind: kind.ok_or(StoreError::Corrupt("ledger entry"))?,
            amount_nano: row.amount_nano,
            idempotency_key: row.idempotency_key,
            request: row.request,
            project: row.project,
            key: row.key,
        })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "ledger")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub seq: i64,
        pub time: i64,
        pub user_id: String,
        pub kind: String,
        pub amount_nano: i64,
        pub idempotency_key: String,
        pub request: Option<String>,
        pub project: Option<String>,
        pub key: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use sea_orm::ConnectionTrait;

    use super::*;
    use crate::store::scratch::Scratch;

    #[tokio::test]
    async fn the_database_itself_keeps_every_entry() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let ada = store.add_user("ada").await.unwrap().id;
        store.grant(ada, 5, "order-1").await.unwrap();
        for sql in [
            "DELETE FROM ledger",
            "UPDATE ledger SET amount_nano = 6",
            "UPDATE ledger SET user_id = 'x'",
            "UPDATE ledger SET idempotency_key = 'x'",
            "UPDATE ledger SET kind = 'refund'",
        ] {
            let error = store.db.execute_unprepared(sql).await.unwrap_err();
            assert!(error.to_string().contains("the ledger is append-only"), "{sql}: {error}");
        }
        store.db.execute_unprepared("UPDATE ledger SET request = NULL").await.unwrap();
        assert_eq!(store.ledger(ada, None, 10).await.unwrap().len(), 1);
        assert_eq!(store.ledger_sum(ada).await.unwrap(), 5);
        assert_eq!(store.ledger_sum(UserId::random()).await.unwrap(), 0);
        assert!(store.db.execute_unprepared("UPDATE balances SET balance_nano = -1").await.is_err());
    }

    #[tokio::test]
    async fn entries_come_in_pages() {
        let scratch = Scratch::new().await;
        let ada = scratch.store.add_user("ada").await.unwrap().id;
        for n in 1..=5 {
            scratch.store.grant(ada, n, &format!("order-{n}")).await.unwrap();
        }
        let amounts = |page: &[LedgerEntry]| page.iter().map(|entry| entry.amount_nano).collect::<Vec<_>>();
        let first = scratch.store.ledger(ada, None, 3).await.unwrap();
        assert_eq!(amounts(&first), [5, 4, 3]);
        let second = scratch.store.ledger(ada, Some(first[2].seq), 3).await.unwrap();
        assert_eq!(amounts(&second), [2, 1]);
    }
}
