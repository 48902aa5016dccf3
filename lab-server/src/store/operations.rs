//! Operation logs: rows that are only ever added.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, SqlErr,
};
use wire::{ProjectId, UserId};

use super::{Store, StoreError, now_ms, projects};

pub use entity::Model as OperationRow;

/// How often a row is numbered anew because another process took its number.
const ATTEMPTS: u32 = 16;

/// What stands as the hash before the first row.
pub const BEGINNING: [u8; 32] = [0; 32];

/// Where the next row of a log stands.
#[derive(Debug, Clone)]
pub struct OperationPosition {
    /// Its number, from 1 on.
    pub seq: i64,
    /// Milliseconds since 1970; never before the row before it.
    pub time: i64,
    /// The hash of the row before it; [`BEGINNING`] for the first.
    pub previous: Vec<u8>,
}

/// What stands in the next row.
pub struct OperationDraft {
    /// The sealed entry.
    pub sealed: Vec<u8>,
    /// The row's hash.
    pub hash: [u8; 32],
}

impl Store {
    /// Adds a row to the log of a project of this person's, as `draft` makes it once its place is known.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the person has no such project.
    pub async fn append_operation(
        &self,
        owner: UserId,
        project: ProjectId,
        draft: impl Fn(&OperationPosition) -> OperationDraft + Send + Sync,
    ) -> Result<OperationRow, StoreError> {
        let mut attempt = 1;
        loop {
            let transaction = self.write().await?;
            let theirs = projects::entity::Entity::find_by_id(project.to_string())
                .filter(projects::entity::Column::UserId.eq(owner.to_string()))
                .filter(projects::entity::Column::DeletedAt.is_null());
            if theirs.one(&transaction).await?.is_none() {
                return Err(StoreError::Missing("project"));
            }
            let last = of(project).order_by_desc(entity::Column::Seq).one(&transaction).await?;
            let now = now_ms();
            let at = match last {
                Some(last) => OperationPosition { seq: last.seq + 1, time: now.max(last.time), previous: last.hash },
                None => OperationPosition { seq: 1, time: now, previous: BEGINNING.to_vec() },
            };
            let OperationDraft { sealed, hash } = draft(&at);
            let row = entity::ActiveModel {
                project_id: Set(project.to_string()),
                seq: Set(at.seq),
                time: Set(at.time),
                entry_sealed: Set(sealed),
                previous_hash: Set(at.previous),
                hash: Set(hash.to_vec()),
            };
            match row.insert(&transaction).await {
                Ok(row) => {
                    transaction.commit().await?;
                    return Ok(row);
                }
                Err(error) if attempt < ATTEMPTS && matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => {
                    transaction.rollback().await?;
                    attempt += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The newest rows of a log of this person's below that number, newest first, at most so many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn operations_before(
        &self,
        owner: UserId,
        project: ProjectId,
        below: Option<i64>,
        limit: u64,
    ) -> Result<Vec<OperationRow>, StoreError> {
        let below = below.map(|below| entity::Column::Seq.lt(below));
        let rows = of(project).filter(theirs(owner)).filter(sea_orm::Condition::all().add_option(below));
        Ok(rows.order_by_desc(entity::Column::Seq).limit(limit).all(&self.db).await?)
    }

    /// Rows of a log of this person's above that number, in order, at most so many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn operations_after(
        &self,
        owner: UserId,
        project: ProjectId,
        above: i64,
        limit: u64,
    ) -> Result<Vec<OperationRow>, StoreError> {
        let rows = of(project).filter(theirs(owner)).filter(entity::Column::Seq.gt(above));
        Ok(rows.order_by_asc(entity::Column::Seq).limit(limit).all(&self.db).await?)
    }

    /// Rows of a log from that number on, in order, at most so many; whose it is, is the caller's to know.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn operations_from(&self, project: ProjectId, first: i64, limit: u64) -> Result<Vec<OperationRow>, StoreError> {
        let rows = of(project).filter(entity::Column::Seq.gte(first)).order_by_asc(entity::Column::Seq).limit(limit);
        Ok(rows.all(&self.db).await?)
    }
}

fn of(project: ProjectId) -> sea_orm::Select<entity::Entity> {
    entity::Entity::find().filter(entity::Column::ProjectId.eq(project.to_string()))
}

/// Of a project that is this person's and still there.
fn theirs(owner: UserId) -> sea_orm::sea_query::SimpleExpr {
    let projects = projects::entity::Entity::find()
        .select_only()
        .column(projects::entity::Column::Id)
        .filter(projects::entity::Column::UserId.eq(owner.to_string()))
        .filter(projects::entity::Column::DeletedAt.is_null());
    entity::Column::ProjectId.in_subquery(projects.into_query())
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod entity {
    use sea_orm::entity::prelude::*;

    /// A row as it stands.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "operations")]
    pub struct Model {
        /// Whose log.
        #[sea_orm(primary_key, auto_increment = false)]
        pub project_id: String,
        /// Its number.
        #[sea_orm(primary_key, auto_increment = false)]
        pub seq: i64,
        /// Milliseconds since 1970.
        pub time: i64,
        /// What was done.
        pub entry_sealed: Vec<u8>,
        /// The hash of the row before it.
        pub previous_hash: Vec<u8>,
        /// Its own.
        pub hash: Vec<u8>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
