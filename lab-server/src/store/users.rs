//! People with an account.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, sea_query::Expr,
};
use serde::Serialize;
use wire::UserId;

use super::{Rates, Store, StoreError, balances, id, names, now_ms, rate, security_epoch, stored_rate, taken};
use crate::vault::{Key, Scope};

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
        let name_index = names::USERS.index(&self.lab_key().await?, name);
        if find_named(&self.db, &name_index).await?.is_some() {
            return Err(StoreError::Taken("a user"));
        }
        let (row, key) = (user.id.to_string(), self.vault.create(Scope::User(user.id)).await?);
        let transaction = self.write().await?;
        entity::ActiveModel {
            name_sealed: Set(names::USERS.seal(&key, &row, 0, name)),
            name_version: Set(0),
            name_index: Set(name_index),
            id: Set(row),
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
        let keys = self.keys_of(rows.iter().map(|row| row.id.as_str())).await?;
        let mut users = Vec::with_capacity(rows.len());
        for row in rows {
            if let Some(key) = keys.get(&id(&row.id, "user id")?) {
                users.push(row.opened(key)?);
            }
        }
        Ok(users)
    }

    /// One person by identity.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user(&self, user: UserId) -> Result<Option<User>, StoreError> {
        let row = entity::Entity::find_by_id(user.to_string()).one(&self.db).await?;
        self.opened_user(row).await
    }

    /// One person by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn user_named(&self, name: &str) -> Result<Option<User>, StoreError> {
        let row = find_named(&self.db, &names::USERS.index(&self.lab_key().await?, name)).await?;
        self.opened_user(row).await
    }

    async fn opened_user(&self, row: Option<entity::Model>) -> Result<Option<User>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        match self.key_of(id(&row.id, "user id")?).await {
            Ok(key) => row.opened(&key).map(Some),
            Err(StoreError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
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

async fn find_named(db: &impl ConnectionTrait, name_index: &str) -> Result<Option<entity::Model>, StoreError> {
    Ok(entity::Entity::find().filter(entity::Column::NameIndex.eq(name_index)).one(db).await?)
}

impl entity::Model {
    fn opened(self, key: &Key) -> Result<User, StoreError> {
        let name = names::USERS.open(key, &self.id, self.name_version, &self.name_sealed)?;
        Ok(User { id: id(&self.id, "user id")?, rates: self.rates()?, name, created_at: self.created_at })
    }

    pub(super) fn rates(&self) -> Result<Rates, StoreError> {
        Ok(Rates {
            requests_per_minute: rate(self.requests_per_minute)?,
            tokens_per_minute: rate(self.tokens_per_minute)?,
            concurrent: rate(self.concurrent)?,
        })
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
        pub name_index: String,
        pub created_at: i64,
        pub requests_per_minute: Option<i64>,
        pub tokens_per_minute: Option<i64>,
        pub concurrent: Option<i64>,
        pub name_sealed: Vec<u8>,
        pub name_version: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
