//! One number that grows with every revocation, whoever revokes: what was believed under an older one is checked again.

use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, sea_query::Expr};

use super::{Store, StoreError};

/// The table's only row.
const ROW: i32 = 1;

impl Store {
    /// The epoch as it is now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn security_epoch(&self) -> Result<u64, StoreError> {
        read(&self.db).await
    }

    /// Raises the epoch, so that running servers look again at what they remember.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn raise_security_epoch(&self) -> Result<u64, StoreError> {
        let transaction = self.write().await?;
        let epoch = raise(&transaction).await?;
        transaction.commit().await?;
        Ok(epoch)
    }
}

/// Raises the epoch inside the revocation's own transaction, and gives the new one.
pub(super) async fn raise(db: &impl ConnectionTrait) -> Result<u64, StoreError> {
    entity::Entity::update_many()
        .col_expr(entity::Column::Epoch, Expr::col(entity::Column::Epoch).add(1))
        .filter(entity::Column::Id.eq(ROW))
        .exec(db)
        .await?;
    read(db).await
}

/// Writes the first row; part of the migration that makes the table.
pub(super) async fn begin(db: &impl ConnectionTrait) -> Result<(), sea_orm::DbErr> {
    entity::Entity::insert(entity::ActiveModel { id: Set(ROW), epoch: Set(1) }).exec_without_returning(db).await.map(drop)
}

/// The epoch as this connection or transaction sees it.
pub(super) async fn read(db: &impl ConnectionTrait) -> Result<u64, StoreError> {
    let row = entity::Entity::find_by_id(ROW).one(db).await?.ok_or(StoreError::Corrupt("security epoch"))?;
    u64::try_from(row.epoch).map_err(|_| StoreError::Corrupt("security epoch"))
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "security_epoch")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub epoch: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
