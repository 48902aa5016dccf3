//! A person's projects. API keys belong to one.

use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use serde::Serialize;
use wire::{ProjectId, UserId};

use super::{Store, StoreError, id, now_ms, taken};

/// One of a person's projects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Project {
    /// Which.
    pub id: ProjectId,
    /// Whose.
    pub user: UserId,
    /// As its owner calls it; unique among the owner's.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

impl Store {
    /// Starts a project.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the owner has one of that name.
    pub async fn add_project(&self, owner: UserId, name: &str) -> Result<Project, StoreError> {
        let project = Project { id: ProjectId::random(), user: owner, name: name.to_owned(), created_at: now_ms() };
        entity::ActiveModel {
            id: Set(project.id.to_string()),
            user_id: Set(owner.to_string()),
            name: Set(project.name.clone()),
            created_at: Set(project.created_at),
        }
        .insert(&self.db)
        .await
        .map_err(|error| taken(error, "a project"))?;
        Ok(project)
    }

    /// A person's projects, oldest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn projects(&self, owner: UserId) -> Result<Vec<Project>, StoreError> {
        let rows = entity::Entity::find()
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .order_by_asc(entity::Column::CreatedAt)
            .all(&self.db)
            .await?;
        rows.into_iter().map(Project::try_from).collect()
    }
}

impl TryFrom<entity::Model> for Project {
    type Error = StoreError;

    fn try_from(row: entity::Model) -> Result<Self, StoreError> {
        Ok(Self { id: id(&row.id, "project id")?, user: id(&row.user_id, "user id")?, name: row.name, created_at: row.created_at })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "projects")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub name: String,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
