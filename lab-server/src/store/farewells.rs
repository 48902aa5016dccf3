//! The end of an account, in two steps: nothing of it is taken any more, and then nothing of it is there.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect, QueryTrait, sea_query::Expr};
use wire::{ProjectId, UserId};

use super::{Store, StoreError, api_keys, devices, id, now_ms, pairings, projects, security_epoch, sessions, sign_in, users};
use crate::vault::Scope;

impl Store {
    /// Ends all keys, devices, sessions, links and invitations of a person at once, and gives the security epoch.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such person.
    pub async fn revoke_user(&self, user: UserId) -> Result<u64, StoreError> {
        let addresses = sign_in::link_indices(self, user).await?;
        let transaction = self.write().await?;
        let (text, now) = (user.to_string(), now_ms());
        if users::entity::Entity::find_by_id(&text).one(&transaction).await?.is_none() {
            return Err(StoreError::Missing("user"));
        }
        let theirs = projects::entity::Entity::find()
            .select_only()
            .column(projects::entity::Column::Id)
            .filter(projects::entity::Column::UserId.eq(&text));
        api_keys::entity::Entity::update_many()
            .col_expr(api_keys::entity::Column::RevokedAt, Expr::value(now))
            .filter(api_keys::entity::Column::ProjectId.in_subquery(theirs.into_query()))
            .filter(api_keys::entity::Column::RevokedAt.is_null())
            .exec(&transaction)
            .await?;
        devices::entity::Entity::update_many()
            .col_expr(devices::entity::Column::RevokedAt, Expr::value(now))
            .filter(devices::entity::Column::UserId.eq(&text))
            .filter(devices::entity::Column::RevokedAt.is_null())
            .exec(&transaction)
            .await?;
        sessions::entity::Entity::delete_many().filter(sessions::entity::Column::UserId.eq(&text)).exec(&transaction).await?;
        sign_in::forget_links(&transaction, addresses).await?;
        let epoch = security_epoch::raise(&transaction).await?;
        transaction.commit().await?;
        Ok(epoch)
    }

    /// Every project that a person has or had.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn projects_ever(&self, user: UserId) -> Result<Vec<ProjectId>, StoreError> {
        let ids = projects::entity::Entity::find().select_only().column(projects::entity::Column::Id);
        let ids: Vec<String> = ids.filter(projects::entity::Column::UserId.eq(user.to_string())).into_tuple().all(&self.db).await?;
        ids.iter().map(|project| id(project, "project id")).collect()
    }

    /// Removes every row of a person. The records of their requests and the ledger stay, as books must; the random name in them stands
    /// for nobody from then on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn erase_user(&self, user: UserId) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let text = user.to_string();
        pairings::entity::Entity::delete_many().filter(pairings::entity::Column::UserId.eq(&text)).exec(&transaction).await?;
        // Everything else belongs to the person or to something of theirs, and goes along.
        users::entity::Entity::delete_by_id(&text).exec(&transaction).await?;
        transaction.commit().await?;
        // What was overwritten in the database still stands in its log. A reader may hold it; then the next checkpoint does it.
        self.db.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        Ok(())
    }

    /// People whose keys were deleted and whose rows are still there: a Lab was stopped in the middle of their farewell.
    ///
    /// # Errors
    /// When the database or the keystore fails.
    pub async fn half_gone(&self) -> Result<Vec<UserId>, StoreError> {
        let mut found = Vec::new();
        for scope in self.vault.deleted().await? {
            let Scope::User(user) = scope else { continue };
            if users::entity::Entity::find_by_id(user.to_string()).one(&self.db).await?.is_some() {
                found.push(user);
            }
        }
        Ok(found)
    }
}
