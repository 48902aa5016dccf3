//! How a project or a conversation goes: its keys first, then everything that they opened.

use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait, QueryFilter, QuerySelect,
    sea_query::{Expr, ExprTrait, Query},
};
use wire::{ConversationId, ProjectId, UserId};

use super::{Store, StoreError, conversations, id, projects};
use crate::vault::Scope;

/// The tables whose rows are a project's, in an order in which none refers to a row that is gone. What is a conversation's or a
/// file's goes with it. The operation log stays, which nobody can open any more: its chain still shows that no row is missing.
const TABLES: [&str; 6] = ["conversations", "files", "blobs", "tasks", "rules", "tool_servers"];

/// Values that are bound in one statement, well below what SQLite takes.
const AT_ONCE: usize = 500;

impl Store {
    /// Ends what a Lab before this one left half deleted: conversations and projects whose keys are gone and whose rows are there.
    ///
    /// # Errors
    /// When the database or the keystore fails.
    pub async fn finish_departures(&self) -> Result<(), StoreError> {
        let (mut projects, mut conversations) = (Vec::new(), Vec::new());
        for scope in self.vault.deleted().await? {
            match scope {
                Scope::Project(owner, project) => projects.push((owner, project)),
                Scope::Conversation(_, conversation) => conversations.push(conversation.to_string()),
                // Whole people are another matter, and the Lab itself stays.
                Scope::User(_) | Scope::Lab => {}
            }
        }
        for some in projects.chunks(AT_ONCE) {
            let left: Vec<String> = projects::entity::Entity::find()
                .select_only()
                .column(projects::entity::Column::Id)
                .filter(projects::entity::Column::Id.is_in(some.iter().map(|(_, project)| project.to_string())))
                .filter(projects::entity::Column::DeletedAt.is_null())
                .into_tuple()
                .all(&self.db)
                .await?;
            for (owner, project) in some.iter().filter(|(_, project)| left.contains(&project.to_string())) {
                self.delete_project(*owner, *project).await?;
            }
        }
        for some in conversations.chunks(AT_ONCE) {
            conversations::entity::Entity::delete_many()
                .filter(conversations::entity::Column::Id.is_in(some))
                .exec(&self.db)
                .await?;
        }
        Ok(())
    }

    /// Deletes the keys of a project and of its conversations: nobody reads them any more. Safe to repeat.
    pub(super) async fn shred_project(&self, owner: UserId, project: ProjectId) -> Result<(), StoreError> {
        projects::of_owner(&self.db, owner, project).await?;
        let conversations = conversations_of(&self.db, owner, project).await?;
        let mut scopes = vec![Scope::Project(owner, project)];
        scopes.extend(conversations.into_iter().map(|conversation| Scope::Conversation(owner, conversation)));
        Ok(self.vault.shred_all(&scopes).await?)
    }
}

/// Deletes everything that a project holds, and gives its conversations: one may have been begun since their keys were deleted.
pub(super) async fn clear_project(
    transaction: &DatabaseTransaction,
    owner: UserId,
    project: ProjectId,
) -> Result<Vec<ConversationId>, StoreError> {
    let conversations = conversations_of(transaction, owner, project).await?;
    for table in TABLES {
        let delete = Query::delete().from_table(table).and_where(Expr::col("project_id").eq(project.to_string())).to_owned();
        transaction.execute(&delete).await?;
    }
    let empty = Option::<Vec<u8>>::None;
    let clear = Query::update()
        .table("projects")
        .values([("instructions_sealed", Expr::value(empty.clone())), ("settings_sealed", Expr::value(empty))])
        .and_where(Expr::col("id").eq(project.to_string()))
        .to_owned();
    transaction.execute(&clear).await?;
    Ok(conversations)
}

async fn conversations_of(db: &impl ConnectionTrait, owner: UserId, project: ProjectId) -> Result<Vec<ConversationId>, StoreError> {
    let ids: Vec<String> = conversations::entity::Entity::find()
        .select_only()
        .column(conversations::entity::Column::Id)
        .filter(conversations::entity::Column::UserId.eq(owner.to_string()))
        .filter(conversations::entity::Column::ProjectId.eq(project.to_string()))
        .into_tuple()
        .all(db)
        .await?;
    ids.iter().map(|text| id(text, "conversation id")).collect()
}
