//! People with an account.

use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde::Serialize;
use wire::UserId;

use super::{Store, StoreError, id, now_ms, taken};

/// A person with an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// As people call them; unique on this Lab.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

impl Store {
    /// Opens an account.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the name is in use.
    pub async fn add_user(&self, name: &str) -> Result<User, StoreError> {
        let user = User { id: UserId::random(), name: name.to_owned(), created_at: now_ms() };
        entity::ActiveModel { id: Set(user.id.to_string()), name: Set(user.name.clone()), created_at: Set(user.created_at) }
            .insert(&self.db)
            .await
            .map_err(|error| taken(error, "a user"))?;
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
}

impl TryFrom<entity::Model> for User {
    type Error = StoreError;

    fn try_from(row: entity::Model) -> Result<Self, StoreError> {
        Ok(Self { id: id(&row.id, "user id")?, name: row.name, created_at: row.created_at })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub name: String,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
