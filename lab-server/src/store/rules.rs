//! What owners decided for calls of agents to come, in each of their projects.

use sea_orm::{ActiveModelTrait, ColumnTrait, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, QueryOrder, Select};
use wire::{ProjectId, RuleId, UserId};

use super::{Store, StoreError, id, key_of, now_ms, projects, sealed, unsealed};
use crate::{
    lab::tools::policy::Rule,
    vault::{Key, Place, Scope},
};

/// Rules of a project at most: somebody has to be able to read them, and all are tried for each call.
const MAX_RULES: u64 = 500;

/// A rule of a project's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRule {
    /// Which.
    pub id: RuleId,
    /// What it says.
    pub rule: Rule,
    /// Milliseconds since 1970.
    pub created_at: i64,
}

impl Store {
    /// Adds a rule to a project. One about the same tool and the same targets is replaced by it.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project, [`StoreError::Full`] when it has as many as it can have.
    pub async fn add_rule(&self, owner: UserId, project: ProjectId, rule: Rule) -> Result<StoredRule, StoreError> {
        let key = self.project_key(owner, project).await?;
        let stored = StoredRule { id: RuleId::random(), rule, created_at: now_ms() };
        let row = stored.row(owner, project, &key)?;
        let transaction = self.write().await?;
        projects::of_owner(&transaction, owner, project).await?;
        for other in of(owner, project).all(&transaction).await? {
            let known = other.clone().open(&key)?.rule;
            if known.tool == stored.rule.tool && known.targets == stored.rule.targets {
                entity::Entity::delete_by_id(other.id).exec(&transaction).await?;
            }
        }
        if of(owner, project).count(&transaction).await? >= MAX_RULES {
            return Err(StoreError::Full("the project has 500 rules, which is as many as it can have; remove some first"));
        }
        row.into_active_model().insert(&transaction).await?;
        transaction.commit().await?;
        Ok(stored)
    }

    /// A project's rules, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project.
    pub async fn rules(&self, owner: UserId, project: ProjectId) -> Result<Vec<StoredRule>, StoreError> {
        projects::of_owner(&self.db, owner, project).await?;
        let rows = of(owner, project).order_by_asc(entity::Column::CreatedAt).all(&self.db).await?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = key_of(&self.vault, Scope::Project(owner, project), "project").await?;
        rows.into_iter().map(|row| row.open(&key)).collect()
    }

    /// Forgets a rule; gives what it said.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such rule in this project.
    pub async fn delete_rule(&self, owner: UserId, project: ProjectId, rule: RuleId) -> Result<StoredRule, StoreError> {
        let missing = StoreError::Missing("rule");
        let row = of(owner, project).filter(entity::Column::Id.eq(rule.to_string())).one(&self.db).await?.ok_or(missing)?;
        let key = key_of(&self.vault, Scope::Project(owner, project), "rule").await?;
        let stored = row.open(&key)?;
        let deleted = entity::Entity::delete_by_id(rule.to_string()).exec(&self.db).await?;
        if deleted.rows_affected == 0 { Err(StoreError::Missing("rule")) } else { Ok(stored) }
    }
}

fn of(owner: UserId, project: ProjectId) -> Select<entity::Entity> {
    entity::Entity::find()
        .filter(entity::Column::UserId.eq(owner.to_string()))
        .filter(entity::Column::ProjectId.eq(project.to_string()))
}

fn place(row: &str) -> Place<'_> {
    Place { table: "rules", column: "content_sealed", row, version: 0 }
}

impl StoredRule {
    fn row(&self, owner: UserId, project: ProjectId, key: &Key) -> Result<entity::Model, StoreError> {
        let row = self.id.to_string();
        Ok(entity::Model {
            content_sealed: sealed(key, place(&row), &self.rule)?,
            id: row,
            user_id: owner.to_string(),
            project_id: project.to_string(),
            created_at: self.created_at,
        })
    }
}

impl entity::Model {
    fn open(self, key: &Key) -> Result<StoredRule, StoreError> {
        let rule = unsealed(key, place(&self.id), &self.content_sealed)?;
        Ok(StoredRule { id: id(&self.id, "rule id")?, rule, created_at: self.created_at })
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rules")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub project_id: String,
        pub content_sealed: Vec<u8>,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        lab::tools::policy::{Targets, Verdict},
        store::scratch::Scratch,
    };

    #[tokio::test]
    async fn rules_are_their_owners_and_one_replaces_another_about_the_same() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let (ada, eve) = (store.add_user("ada").await.unwrap().id, store.add_user("eve").await.unwrap().id);
        let (ours, theirs) = (store.add_project(ada, "p").await.unwrap().id, store.add_project(eve, "p").await.unwrap().id);
        let rule = |pattern: &str, verdict| Rule {
            tool: "files_write".into(),
            targets: Targets::Matching { pattern: pattern.into() },
            verdict,
            definition: None,
        };
        let first = store.add_rule(ada, ours, rule("a/**", Verdict::Allow)).await.unwrap();
        let second = store.add_rule(ada, ours, rule("b/**", Verdict::Allow)).await.unwrap();
        let third = store.add_rule(ada, ours, rule("a/**", Verdict::Deny)).await.unwrap();
        assert_eq!(store.rules(ada, ours).await.unwrap(), [second.clone(), third.clone()]);
        assert!(matches!(store.rules(eve, ours).await, Err(StoreError::Missing("project"))));
        assert!(matches!(store.add_rule(eve, ours, first.rule.clone()).await, Err(StoreError::Missing("project"))));
        for (owner, project, rule) in
            [(eve, ours, second.id), (ada, theirs, second.id), (eve, theirs, second.id), (ada, ours, first.id)]
        {
            assert!(matches!(store.delete_rule(owner, project, rule).await, Err(StoreError::Missing("rule"))));
        }
        assert_eq!(store.delete_rule(ada, ours, second.id).await.unwrap(), second);
        assert_eq!(store.rules(ada, ours).await.unwrap(), [third]);
    }
}
