//! People with an account.

use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, sea_query::Expr};
use serde::Serialize;
use wire::UserId;

use super::{Rates, Store, StoreError, balances, id, now_ms, rate, security_epoch, stored_rate, taken};

/// A person with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// As people call them; unique on this Lab.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// How fast all their keys together may ask; where it says nothing, this Lab's defaults hold.
    pub rates: Rates,
}

impl Store {
    /// Opens an account, with the free requests that everybody begins with.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the name is in use.
    pub async fn add_user(&self, name: &str) -> Result<User, StoreError> {
        let user = User { id: UserId::random(), name: name.to_owned(), created_at: now_ms(), rates: Rates::default() };
        let transaction = self.write().await?;
        entity::ActiveModel {
            id: Set(user.id.to_string()),
            name: Set(user.name.clone()),
            created_at: Set(user.created_at),
            requests_per_minute: Set(None),
            tokens_per_minute: Set(None),
            concurrent: Set(None),
        }
        .insert(&transaction)
        .await
        .map_err(|error| taken(error, "a user"))?;
        balances::open(&transaction, user.id, self.free_requests).await?;
        transaction.commit().await?;
        Ok(user)
    }

    /// Everybody, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        let rows = entity::Entity::find().order_by_asc(entity::Column::CreatedAt).all(&self.db).await?;
        rows.into_iter().map(User::try_from).collect()
    }

    /// One person by identity.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user(&self, user: UserId) -> Result<Option<User>, StoreError> {
        entity::Entity::find_by_id(user.to_string()).one(&self.db).await?.map(User::try_from).transpose()
    }

    /// One person by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user_named(&self, name: &str) -> Result<Option<User>, StoreError> {
        let row = entity::Entity::find().filter(entity::Column::Name.eq(name)).one(&self.db).await?;
        row.map(User::try_from).transpose()
    }

    /// Says how fast a person may ask, and gives the security epoch, which it raises so that running servers learn of it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such person.
    pub async fn set_user_rates(&self, user: UserId, rates: Rates) -> Result<u64, StoreError> {
        let transaction = self.write().await?;
        let changed = entity::Entity::update_many()
            .col_expr(entity::Column::RequestsPerMinute, Expr::value(stored_rate(rates.requests_per_minute)))
            .col_expr(entity::Column::TokensPerMinute, Expr::value(stored_rate(rates.tokens_per_minute)))
            .col_expr(entity::Column::Concurrent, Expr::value(stored_rate(rates.concurrent)))
            .filter(entity::Column::Id.eq(user.to_string()))
            .exec(&transaction)
            .await?;
        if changed.rows_affected == 0 {
            return Err(StoreError::Missing("user"));
        }
        let epoch = security_epoch::raise(&transaction).await?;
        transaction.commit().await?;
        Ok(epoch)
    }
}

impl entity::Model {
    pub(super) fn rates(&self) -> Result<Rates, StoreError> {
        Ok(Rates {
            requests_per_minute: rate(self.requests_per_minute)?,
            tokens_per_minute: rate(self.tokens_per_minute)?,
            concurrent: rate(self.concurrent)?,
        })
    }
}

impl TryFrom<entity::Model> for User {
    type Error = StoreError;

    fn try_from(row: entity::Model) -> Result<Self, StoreError> {
        Ok(Self { id: id(&row.id, "user id")?, rates: row.rates()?, name: row.name, created_at: row.created_at })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub name: String,
        pub created_at: i64,
        pub requests_per_minute: Option<i64>,
        pub tokens_per_minute: Option<i64>,
        pub concurrent: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
