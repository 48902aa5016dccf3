//! What each person has: credits, and the free requests that are left. Every change of it is an entry of the ledger in the same
//! transaction, and no transaction takes more than there is.

use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, sea_query::Expr};
use serde::Serialize;
use wire::UserId;

use super::{EntryKind, LedgerEntry, Store, StoreError, ledger, now_ms, security_epoch};

/// Free requests that every account begins with (R11), unless the configuration says otherwise.
pub const FREE_REQUESTS: i32 = 20;

/// What a person has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Balance {
    /// Nano-credits; never negative.
    pub balance_nano: i64,
    /// Of [`FREE_REQUESTS`].
    pub free_requests_left: i32,
    /// Whether the account was ever given credits.
    pub had_credits: bool,
}

/// What came of a grant or an adjustment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credited {
    /// What stands in the ledger.
    pub entry: LedgerEntry,
    /// What the person has now.
    pub balance_nano: i64,
    /// Whether it had been done before under the same idempotency key, so that nothing changed now.
    pub repeated: bool,
}

impl Store {
    /// What a person has; `None` when there is no such person.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn balance(&self, user: UserId) -> Result<Option<Balance>, StoreError> {
        let Some(row) = entity::Entity::find_by_id(user.to_string()).one(&self.db).await? else { return Ok(None) };
        let had_credits = row.balance_nano > 0 || ledger::was_credited(&self.db, user).await?;
        Ok(Some(Balance { balance_nano: row.balance_nano, free_requests_left: row.free_requests_left, had_credits }))
    }

    /// Gives credits, once for each idempotency key.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when `nano` is not positive or the balance would leave the range of numbers, [`StoreError::Missing`]
    /// when there is no such person, [`StoreError::Taken`] when the idempotency key was used for something else.
    pub async fn grant(&self, user: UserId, nano: i64, idempotency_key: &str) -> Result<Credited, StoreError> {
        if nano <= 0 {
            return Err(StoreError::Refused("a grant gives more than nothing; to take credits back, adjust"));
        }
        self.credit(user, EntryKind::Grant, nano, idempotency_key).await
    }

    /// Adds to or takes from a balance, once for each idempotency key. Taking raises the security epoch, so that running servers
    /// look at the balance again.
    ///
    /// # Errors
    /// Like [`Store::grant`], and [`StoreError::Refused`] when less would be left than nothing.
    pub async fn adjust(&self, user: UserId, nano: i64, idempotency_key: &str) -> Result<Credited, StoreError> {
        if nano == 0 {
            return Err(StoreError::Refused("an adjustment of nothing changes nothing"));
        }
        self.credit(user, EntryKind::Adjustment, nano, idempotency_key).await
    }

    async fn credit(&self, user: UserId, kind: EntryKind, nano: i64, idempotency_key: &str) -> Result<Credited, StoreError> {
        let transaction = self.write().await?;
        let row = entity::Entity::find_by_id(user.to_string()).one(&transaction).await?;
        let before = row.ok_or(StoreError::Missing("user"))?.balance_nano;
        if let Some(entry) = ledger::find(&transaction, idempotency_key).await? {
            let same = entry.user == user && entry.kind == kind && entry.amount_nano == nano;
            return if same {
                Ok(Credited { entry, balance_nano: before, repeated: true })
            } else {
                Err(StoreError::Taken("an entry"))
            };
        }
        let balance_nano = before.checked_add(nano).ok_or(StoreError::Refused("a balance cannot be that large"))?;
        if balance_nano < 0 {
            return Err(StoreError::Refused("there are not that many credits to take"));
        }
        let new = ledger::NewEntry { time: now_ms(), user, kind, amount_nano: nano, idempotency_key };
        let entry = ledger::append(&transaction, new).await?;
        entity::Entity::update_many()
            .col_expr(entity::Column::BalanceNano, Expr::value(balance_nano))
            .filter(entity::Column::UserId.eq(user.to_string()))
            .exec(&transaction)
            .await?;
        if nano < 0 {
            security_epoch::raise(&transaction).await?;
        }
        transaction.commit().await?;
        Ok(Credited { entry, balance_nano, repeated: false })
    }
}

/// Begins an account's balance, as part of its opening.
pub(super) async fn open(db: &impl ConnectionTrait, user: UserId, free_requests: i32) -> Result<(), StoreError> {
    let row = entity::ActiveModel { user_id: Set(user.to_string()), balance_nano: Set(0), free_requests_left: Set(free_requests) };
    entity::Entity::insert(row).exec_without_returning(db).await?;
    Ok(())
}

/// Takes what requests cost and used up, if there is as much; whether there was.
pub(super) async fn take(db: &impl ConnectionTrait, user: &str, nano: i64, free_requests: i32) -> Result<bool, StoreError> {
    let taken = entity::Entity::update_many()
        .col_expr(entity::Column::BalanceNano, Expr::col(entity::Column::BalanceNano).sub(nano))
        .col_expr(entity::Column::FreeRequestsLeft, Expr::col(entity::Column::FreeRequestsLeft).sub(free_requests))
        .filter(entity::Column::UserId.eq(user))
        .filter(entity::Column::BalanceNano.gte(nano))
        .filter(entity::Column::FreeRequestsLeft.gte(free_requests))
        .exec(db)
        .await?;
    Ok(taken.rows_affected == 1)
}

/// Credits and free requests of a person, inside a transaction; nothing for somebody who is not there.
pub(super) async fn read(db: &impl ConnectionTrait, user: &str) -> Result<(i64, i32), StoreError> {
    let row = entity::Entity::find_by_id(user).one(db).await?;
    Ok(row.map_or((0, 0), |row| (row.balance_nano, row.free_requests_left)))
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "balances")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub user_id: String,
        pub balance_nano: i64,
        pub free_requests_left: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scratch::Scratch;

    #[tokio::test]
    async fn credits_are_given_once_for_each_key_and_never_fall_below_nothing() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let (ada, eve) = (store.add_user("ada").await.unwrap().id, store.add_user("eve").await.unwrap().id);
        let fresh = Balance { balance_nano: 0, free_requests_left: 20, had_credits: false };
        assert_eq!(store.balance(ada).await.unwrap(), Some(fresh));
        assert_eq!(store.balance(UserId::random()).await.unwrap(), None);

        let first = store.grant(ada, 5_000_000_000, "order-1").await.unwrap();
        assert_eq!((first.balance_nano, first.repeated), (5_000_000_000, false));
        let again = store.grant(ada, 5_000_000_000, "order-1").await.unwrap();
        assert_eq!(again, Credited { repeated: true, ..first.clone() });
        for (user, nano) in [(ada, 1), (eve, 5_000_000_000)] {
            assert!(matches!(store.grant(user, nano, "order-1").await, Err(StoreError::Taken("an entry"))));
        }
        assert!(matches!(store.grant(ada, 0, "order-2").await, Err(StoreError::Refused(_))));
        assert!(matches!(store.grant(ada, i64::MAX, "order-2").await, Err(StoreError::Refused(_))));
        assert!(matches!(store.grant(UserId::random(), 1, "order-2").await, Err(StoreError::Missing("user"))));
        assert!(matches!(store.adjust(ada, -5_000_000_001, "back").await, Err(StoreError::Refused(_))));

        let epoch = store.security_epoch().await.unwrap();
        assert_eq!(store.adjust(ada, -5_000_000_000, "back").await.unwrap().balance_nano, 0);
        assert_eq!(store.security_epoch().await.unwrap(), epoch + 1);
        assert_eq!(store.balance(ada).await.unwrap(), Some(Balance { had_credits: true, ..fresh }));
        assert_eq!(store.balance(eve).await.unwrap(), Some(fresh));
        let amounts: Vec<i64> = store.ledger(ada, None, 10).await.unwrap().iter().map(|entry| entry.amount_nano).collect();
        assert_eq!(amounts, [-5_000_000_000, 5_000_000_000]);
    }

    #[tokio::test]
    async fn fifty_at_once_give_it_once() {
        let scratch = Scratch::new().await;
        let ada = scratch.store.add_user("ada").await.unwrap().id;
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let store = scratch.store.clone();
                tokio::spawn(async move { store.grant(ada, 7, "order-1").await.unwrap().repeated })
            })
            .collect();
        let mut new = 0;
        for task in tasks {
            new += usize::from(!task.await.unwrap());
        }
        assert_eq!((new, scratch.store.balance(ada).await.unwrap().unwrap().balance_nano), (1, 7));
    }
}
