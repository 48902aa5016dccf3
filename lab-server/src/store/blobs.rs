//! Which contents of files there are. The contents themselves lie in a folder, sealed; `lab::files` keeps them.

use std::collections::HashSet;

use sea_orm::{
    ActiveModelTrait,
    ActiveValue::Set,
    ColumnTrait, DatabaseTransaction, EntityTrait, FromQueryResult, QueryFilter, QuerySelect,
    sea_query::{Expr, Func, Query, SimpleExpr},
};
use wire::{BlobId, ProjectId, UserId};

use super::{Store, StoreError, files::entity_versions, id, now_ms};
use crate::vault::BlindIndex;

/// Bytes of all contents of a person at most, over all their projects: ten projects as full as one can be.
const MAX_PERSON_BYTES: i64 = 20 * 1024 * 1024 * 1024;

/// A content that is to be known.
pub(super) struct NewBlob {
    pub(super) id: BlobId,
    pub(super) address: BlindIndex,
    pub(super) size: i64,
}

impl Store {
    /// The contents that a project's files have, whoever's project it is: what else lies in its folder belongs to nobody.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn blobs_of_project(&self, project: ProjectId) -> Result<HashSet<BlobId>, StoreError> {
        let rows = entity::Entity::find().filter(entity::Column::ProjectId.eq(project.to_string())).all(&self.db).await?;
        rows.into_iter().map(|row| id(&row.id, "blob id")).collect()
    }
}

/// The content at this address, which is `new` unless the project has it already.
pub(super) async fn keep(
    transaction: &DatabaseTransaction,
    owner: UserId,
    project: ProjectId,
    new: &NewBlob,
    most: i64,
) -> Result<BlobId, StoreError> {
    let known = entity::Entity::find()
        .filter(entity::Column::ProjectId.eq(project.to_string()))
        .filter(entity::Column::UserId.eq(owner.to_string()))
        .filter(entity::Column::AddressIndex.eq(new.address.as_bytes().to_vec()))
        .one(transaction)
        .await?;
    if let Some(known) = known {
        return id(&known.id, "blob id");
    }
    let of_person = entity::Column::UserId.eq(owner.to_string());
    if used(transaction, of_person).await?.saturating_add(new.size) > MAX_PERSON_BYTES {
        return Err(StoreError::Full(
            "your files are as large as they can be in all projects together; delete some for good first",
        ));
    }
    if used(transaction, entity::Column::ProjectId.eq(project.to_string())).await?.saturating_add(new.size) > most {
        return Err(StoreError::Full("the project's files are as large as they can be together; delete some for good first"));
    }
    entity::ActiveModel {
        id: Set(new.id.to_string()),
        user_id: Set(owner.to_string()),
        project_id: Set(project.to_string()),
        address_index: Set(new.address.as_bytes().to_vec()),
        size: Set(new.size),
        created_at: Set(now_ms()),
    }
    .insert(transaction)
    .await?;
    Ok(new.id)
}

/// Forgets those of a project's contents that no version of a file has any more.
pub(super) async fn forget_unused(
    transaction: &DatabaseTransaction,
    owner: UserId,
    project: ProjectId,
) -> Result<Vec<BlobId>, StoreError> {
    let used = Query::select().column(entity_versions::Column::BlobId).from(entity_versions::Entity).take();
    let rows = entity::Entity::find()
        .filter(entity::Column::ProjectId.eq(project.to_string()))
        .filter(entity::Column::UserId.eq(owner.to_string()))
        .filter(entity::Column::Id.not_in_subquery(used))
        .all(transaction)
        .await?;
    let unused = rows.iter().map(|row| id(&row.id, "blob id")).collect::<Result<Vec<_>, _>>()?;
    for row in rows {
        entity::Entity::delete_by_id(row.id).exec(transaction).await?;
    }
    Ok(unused)
}

/// Bytes of all contents of a project, or of a person.
async fn used(transaction: &DatabaseTransaction, whose: SimpleExpr) -> Result<i64, StoreError> {
    #[derive(FromQueryResult)]
    struct Sum {
        size: i64,
    }
    let sum = Func::coalesce([Func::sum(Expr::col(entity::Column::Size)).into(), Expr::val(0_i64)]);
    let sum = entity::Entity::find().filter(whose).select_only().expr_as(sum, "size").into_model::<Sum>().one(transaction).await?;
    Ok(sum.map_or(0, |sum| sum.size))
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "blobs")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub user_id: String,
        pub project_id: String,
        pub address_index: Vec<u8>,
        pub size: i64,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
