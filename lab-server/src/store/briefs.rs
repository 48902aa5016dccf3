//! What a project tells whoever works in it: instructions, what it is about, what its agents begin with.

use sea_orm::{ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wire::{ProjectId, UserId};

use super::{Store, StoreError, sealed, unsealed};
use crate::{
    lab::{agent::budget::Budgets, content::ModelChoice},
    vault::{Key, Place},
};

/// What a project tells whoever works in it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProjectBrief {
    /// What models are to keep in mind in all its conversations, as Markdown; empty for nothing.
    pub instructions: String,
    /// The rest.
    pub settings: BriefSettings,
    /// Grows with each change.
    pub version: i64,
}

/// What a project says besides its instructions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BriefSettings {
    /// What it is about, for people; empty for nothing.
    #[schema(max_length = 4096)]
    pub description: String,
    /// What its agents begin with.
    pub agents: AgentDefaults,
}

/// What a project's agents begin with, unless a run says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AgentDefaults {
    /// Who thinks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelChoice>,
    /// Whether they have a tool that gets pages of the public web. What they know can leave the project in the addresses that they ask
    /// for, so it is off at first, and each host is asked for.
    pub web_fetch: bool,
    /// What a run may use up.
    pub budgets: Budgets,
}

impl Store {
    /// What a project tells; nothing where it never said.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project.
    pub async fn brief(&self, owner: UserId, project: ProjectId) -> Result<ProjectBrief, StoreError> {
        let key = self.project_key(owner, project).await?;
        of_owner(&self.db, owner, project).await?.open(&key)
    }

    /// Changes what a project tells. With `seen`, only as long as it is still of that version.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project, [`StoreError::Stale`] when it was changed meanwhile.
    pub async fn update_brief(
        &self,
        owner: UserId,
        project: ProjectId,
        seen: Option<i64>,
        change: impl FnOnce(&mut String, &mut BriefSettings) + Send,
    ) -> Result<ProjectBrief, StoreError> {
        let key = self.project_key(owner, project).await?;
        let transaction = self.write().await?;
        let mut row = of_owner(&transaction, owner, project).await?;
        if seen.is_some_and(|seen| seen != row.version) {
            return Err(StoreError::Stale("project"));
        }
        let mut brief = row.open(&key)?;
        change(&mut brief.instructions, &mut brief.settings);
        brief.version += 1;
        row.version = brief.version;
        row.instructions_sealed = Some(sealed(&key, place("instructions", &row.id, row.version), &brief.instructions)?);
        row.settings_sealed = Some(sealed(&key, place("settings", &row.id, row.version), &brief.settings)?);
        row.into_active_model().reset_all().update(&transaction).await?;
        transaction.commit().await?;
        Ok(brief)
    }
}

async fn of_owner(db: &impl ConnectionTrait, owner: UserId, project: ProjectId) -> Result<entity::Model, StoreError> {
    let row = entity::Entity::find()
        .filter(entity::Column::Id.eq(project.to_string()))
        .filter(entity::Column::UserId.eq(owner.to_string()))
        .filter(entity::Column::DeletedAt.is_null())
        .one(db)
        .await?;
    row.ok_or(StoreError::Missing("project"))
}

fn place<'a>(column: &'static str, row: &'a str, version: i64) -> Place<'a> {
    Place { table: "projects", column, row, version }
}

impl entity::Model {
    fn open(&self, key: &Key) -> Result<ProjectBrief, StoreError> {
        let instructions = self.instructions_sealed.as_ref();
        let instructions =
            instructions.map(|text| unsealed(key, place("instructions", &self.id, self.version), text)).transpose()?;
        let settings = self.settings_sealed.as_ref();
        let settings = settings.map(|text| unsealed(key, place("settings", &self.id, self.version), text)).transpose()?;
        Ok(ProjectBrief {
            instructions: instructions.unwrap_or_default(),
            settings: settings.unwrap_or_default(),
            version: self.version,
        })
    }
}

/// The columns of a project that are the brief's.
#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "projects")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub instructions_sealed: Option<Vec<u8>>,
        pub settings_sealed: Option<Vec<u8>>,
        pub version: i64,
        pub deleted_at: Option<i64>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
