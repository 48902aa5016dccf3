//! A person's projects. API keys belong to one.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder, Select,
    sea_query::Expr,
};
use serde::{Deserialize, Serialize};
use wire::{ProjectId, UserId};

use super::{Rates, Store, StoreError, api_keys, departures, id, names, now_ms, rate, security_epoch, stored_rate, taken};
use crate::vault::{Key, Scope, VaultError};

/// Projects of a person at most: the list of them is one page, and each has a key and a log of its own.
const MAX_PROJECTS: u64 = 200;

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
    /// What its owner says of it.
    #[serde(flatten)]
    pub settings: ProjectSettings,
}

/// What an owner can say of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectSettings {
    /// Whether OpenAI's streams are asked for their usage, at the price of some bytes of the request.
    pub exact_usage: bool,
    /// How fast all its keys together may ask.
    pub rates: Rates,
}

impl Store {
    /// Starts a project.
    ///
    /// # Errors
    /// [`StoreError::Taken`] when the owner has one of that name, [`StoreError::Full`] when they have too many.
    pub async fn add_project(&self, owner: UserId, name: &str) -> Result<Project, StoreError> {
        let key = self.key_of(owner).await?;
        // Looked at before there is a key: one that is made for nothing stays. The index has the last word on the name.
        let index = names::PROJECTS.index(&key, name);
        if of(owner).filter(entity::Column::NameIndex.eq(&index)).count(&self.db).await? > 0 {
            return Err(StoreError::Taken("a project"));
        }
        if of(owner).count(&self.db).await? >= MAX_PROJECTS {
            return Err(StoreError::Full("you have 200 projects, which is as many as a person can have; delete one first"));
        }
        let settings = ProjectSettings::default();
        let project = Project { id: ProjectId::random(), user: owner, name: name.to_owned(), created_at: now_ms(), settings };
        let row = project.id.to_string();
        self.vault.create(Scope::Project(owner, project.id)).await?;
        entity::ActiveModel {
            user_id: Set(owner.to_string()),
            name_index: Set(index),
            name_sealed: Set(names::PROJECTS.seal(&key, &row, 0, name)),
            name_version: Set(0),
            id: Set(row),
            created_at: Set(project.created_at),
            exact_usage: Set(false),
            requests_per_minute: Set(None),
            tokens_per_minute: Set(None),
            concurrent: Set(None),
            deleted_at: Set(None),
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
        let rows = of(owner).order_by_asc(entity::Column::CreatedAt).all(&self.db).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.key_of(owner).await?;
        rows.into_iter().map(|row| row.opened(&key)).collect()
    }

    /// One project, if it is this person's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn project(&self, owner: UserId, project: ProjectId) -> Result<Option<Project>, StoreError> {
        let row = of(owner).filter(entity::Column::Id.eq(project.to_string())).one(&self.db).await?;
        let Some(row) = row else { return Ok(None) };
        row.opened(&self.key_of(owner).await?).map(Some)
    }

    /// What bounds a person's requests for a project of theirs: its settings, and how fast they may ask with everything that is
    /// theirs. `None` when there is no such project, or the person is no more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn project_terms(&self, owner: UserId, project: ProjectId) -> Result<Option<(ProjectSettings, Rates)>, StoreError> {
        let found = of(owner)
            .filter(entity::Column::Id.eq(project.to_string()))
            .find_also_related(super::users::entity::Entity)
            .one(&self.db)
            .await?;
        let Some((project, Some(user))) = found else { return Ok(None) };
        Ok(Some((project.settings()?, user.rates()?)))
    }

    /// Changes a project's name and settings, and gives it with the security epoch, which this raises so that running servers learn
    /// of it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project, [`StoreError::Taken`] when they have another one of that name.
    pub async fn update_project(
        &self,
        owner: UserId,
        project: ProjectId,
        change: impl FnOnce(&mut String, &mut ProjectSettings) + Send,
    ) -> Result<(Project, u64), StoreError> {
        let key = self.key_of(owner).await?;
        let transaction = self.write().await?;
        let row = of(owner).filter(entity::Column::Id.eq(project.to_string())).one(&transaction).await?;
        let mut row = row.ok_or(StoreError::Missing("project"))?;
        let Project { mut name, mut settings, .. } = row.clone().opened(&key)?;
        change(&mut name, &mut settings);
        row.name_version += 1;
        row.name_index = names::PROJECTS.index(&key, &name);
        row.name_sealed = names::PROJECTS.seal(&key, &row.id, row.name_version, &name);
        row.exact_usage = settings.exact_usage;
        row.requests_per_minute = stored_rate(settings.rates.requests_per_minute);
        row.tokens_per_minute = stored_rate(settings.rates.tokens_per_minute);
        row.concurrent = stored_rate(settings.rates.concurrent);
        let row = row.into_active_model().reset_all().update(&transaction).await.map_err(|error| taken(error, "a project"))?;
        let epoch = security_epoch::raise(&transaction).await?;
        transaction.commit().await?;
        Ok((row.opened(&key)?, epoch))
    }

    /// Deletes a project with everything in it: all its keys are revoked, its name becomes free, its records stay until they are
    /// old. Gives the security epoch. What is sealed goes first: what fails afterwards is done by deleting once more, or when the
    /// Lab starts.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project.
    pub async fn delete_project(&self, owner: UserId, project: ProjectId) -> Result<u64, StoreError> {
        self.shred_project(owner, project).await?;
        let transaction = self.write().await?;
        let now = now_ms();
        let deleted = entity::Entity::update_many()
            .col_expr(entity::Column::DeletedAt, Expr::value(now))
            .col_expr(entity::Column::NameIndex, Expr::value(""))
            .col_expr(entity::Column::NameSealed, Expr::value(Vec::<u8>::new()))
            .filter(entity::Column::Id.eq(project.to_string()))
            .filter(entity::Column::UserId.eq(owner.to_string()))
            .filter(entity::Column::DeletedAt.is_null())
            .exec(&transaction)
            .await?;
        if deleted.rows_affected == 0 {
            return Err(StoreError::Missing("project"));
        }
        let conversations = departures::clear_project(&transaction, owner, project).await?;
        api_keys::revoke_all(&transaction, project, now).await?;
        let epoch = security_epoch::raise(&transaction).await?;
        // Before their rows are gone for good: keys that no row names are never found again.
        let scopes: Vec<_> = conversations.into_iter().map(|conversation| Scope::Conversation(owner, conversation)).collect();
        self.vault.shred_all(&scopes).await?;
        transaction.commit().await?;
        Ok(epoch)
    }
}

impl Store {
    /// The key of a project, which must be this person's.
    pub(crate) async fn project_key(&self, owner: UserId, project: ProjectId) -> Result<Key, StoreError> {
        of_owner(&self.db, owner, project).await?;
        match self.vault.create(Scope::Project(owner, project)).await {
            Err(VaultError::NoKey) => Err(StoreError::Missing("project")),
            other => Ok(other?),
        }
    }
}

/// One project, which must be this person's and still be there.
pub(super) async fn of_owner(
    db: &impl sea_orm::ConnectionTrait,
    owner: UserId,
    project: ProjectId,
) -> Result<entity::Model, StoreError> {
    let row = of(owner).filter(entity::Column::Id.eq(project.to_string())).one(db).await?;
    row.ok_or(StoreError::Missing("project"))
}

/// A person's projects that are still there.
fn of(owner: UserId) -> Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::UserId.eq(owner.to_string())).filter(entity::Column::DeletedAt.is_null())
}

impl entity::Model {
    fn opened(self, key: &Key) -> Result<Project, StoreError> {
        let name = names::PROJECTS.open(key, &self.id, self.name_version, &self.name_sealed)?;
        Ok(Project {
            id: id(&self.id, "project id")?,
            user: id(&self.user_id, "user id")?,
            settings: self.settings()?,
            name,
            created_at: self.created_at,
        })
    }

    pub(super) fn settings(&self) -> Result<ProjectSettings, StoreError> {
        let rates = Rates {
            requests_per_minute: rate(self.requests_per_minute)?,
            tokens_per_minute: rate(self.tokens_per_minute)?,
            concurrent: rate(self.concurrent)?,
        };
        Ok(ProjectSettings { exact_usage: self.exact_usage, rates })
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
        pub name_index: String,
        pub created_at: i64,
        pub exact_usage: bool,
        pub requests_per_minute: Option<i64>,
        pub tokens_per_minute: Option<i64>,
        pub concurrent: Option<i64>,
        pub deleted_at: Option<i64>,
        pub name_sealed: Vec<u8>,
        pub name_version: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {
        #[sea_orm(
            belongs_to = "crate::store::users::entity::Entity",
            from = "Column::UserId",
            to = "crate::store::users::entity::Column::Id"
        )]
        User,
    }

    impl Related<crate::store::users::entity::Entity> for Entity {
        fn to() -> RelationDef {
            Relation::User.def()
        }
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::{
        account::create_key,
        store::{KeyTerms, scratch::Scratch},
    };

    #[tokio::test]
    async fn a_project_is_changed_and_deleted_by_its_owner_alone() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let (ada, eve) = (store.add_user("ada").await.unwrap().id, store.add_user("eve").await.unwrap().id);
        let project = store.add_project(ada, "default").await.unwrap();
        store.add_project(ada, "other").await.unwrap();
        let rates = Rates { concurrent: NonZeroU32::new(2), ..Rates::default() };
        let settings = ProjectSettings { exact_usage: true, rates };
        let epoch = store.security_epoch().await.unwrap();
        let change = |name: &mut String, old: &mut ProjectSettings| {
            "renamed".clone_into(name);
            *old = settings;
        };
        assert!(matches!(store.update_project(eve, project.id, change).await, Err(StoreError::Missing("project"))));
        let (changed, raised) = store.update_project(ada, project.id, change).await.unwrap();
        assert_eq!((&changed, raised), (&Project { name: "renamed".into(), settings, ..project.clone() }, epoch + 1));
        assert_eq!(store.project(ada, project.id).await.unwrap(), Some(changed));
        assert_eq!(store.project(eve, project.id).await.unwrap(), None);
        let taken = store.update_project(ada, project.id, |name, _| "other".clone_into(name)).await;
        assert!(matches!(taken, Err(StoreError::Taken("a project"))));

        let (key, _) = create_key(store, project.id, "k", KeyTerms::default()).await.unwrap();
        assert!(matches!(store.delete_project(eve, project.id).await, Err(StoreError::Missing("project"))));
        assert!(store.valid_key(key.kid()).await.unwrap().is_some());
        assert_eq!(store.delete_project(ada, project.id).await.unwrap(), epoch + 2);
        assert!(store.valid_key(key.kid()).await.unwrap().is_none());
        let (late, _) = create_key(store, project.id, "late", KeyTerms::default()).await.unwrap();
        assert!(store.valid_key(late.kid()).await.unwrap().is_none());
        assert_eq!(store.projects(ada).await.unwrap().len(), 1);
        store.add_project(ada, "renamed").await.unwrap();
    }
}
