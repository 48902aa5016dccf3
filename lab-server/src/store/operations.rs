//! Operation logs: rows that are only ever added. None is ever sealed anew, under a newer generation of its project's key neither: its
//! hash, and those of all that follow, cover the bytes as they stand. They stay when their project is deleted, and go with the account.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, SqlErr, Statement,
};
use wire::{ProjectId, UserId};

use super::{Store, StoreError, bytes, id, now_ms, projects};

pub use entity::Model as OperationRow;
pub use head::Model as HeadRow;

/// A log, its newest row's number and hash, and the last row that a signed head speaks for, 0 for none.
pub type NewestOperation = (ProjectId, i64, [u8; 32], i64);

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

    /// The newest row of a log and its hash.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest_operation(&self, project: ProjectId) -> Result<Option<(i64, [u8; 32])>, StoreError> {
        let row = of(project).order_by_desc(entity::Column::Seq).one(&self.db).await?;
        row.map(|row| Ok((row.seq, bytes(row.hash, "hash")?))).transpose()
    }

    /// For every project that has a log its newest row and the last that a head speaks for.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest_operations(&self) -> Result<Vec<NewestOperation>, StoreError> {
        // Two seeks in an index for each project, and not a look at every row.
        let sql = "SELECT o.project_id, o.seq, o.hash, COALESCE((SELECT MAX(h.seq) FROM operation_heads h \
                   WHERE h.project_id = o.project_id), 0) AS signed_to FROM projects p JOIN operations o \
                   ON o.project_id = p.id AND o.seq = (SELECT MAX(seq) FROM operations WHERE project_id = p.id)";
        let rows = self.db.query_all_raw(Statement::from_string(self.db.get_database_backend(), sql)).await?;
        let newest = rows.into_iter().map(|row| {
            let (project, hash): (String, Vec<u8>) = (row.try_get("", "project_id")?, row.try_get("", "hash")?);
            let (seq, signed_to) = (row.try_get("", "seq")?, row.try_get("", "signed_to")?);
            Ok((id(&project, "project id")?, seq, bytes(hash, "hash")?, signed_to))
        });
        newest.collect()
    }

    /// What the rows of all logs say which project they are of, as it stands there: somebody may have changed it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn operation_projects(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let sql = "SELECT CAST(project_id AS BLOB) AS project FROM operations GROUP BY project_id UNION \
                   SELECT CAST(project_id AS BLOB) AS project FROM operation_heads GROUP BY project_id";
        let rows = self.db.query_all_raw(Statement::from_string(self.db.get_database_backend(), sql)).await?;
        rows.into_iter().map(|row| Ok(row.try_get("", "project")?)).collect()
    }

    /// Whose a project is or was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn owner_of_project(&self, project: ProjectId) -> Result<Option<UserId>, StoreError> {
        let row = projects::entity::Entity::find_by_id(project.to_string()).one(&self.db).await?;
        row.map(|row| id(&row.user_id, "user id")).transpose()
    }

    /// Keeps signed heads. One of a project that was deleted meanwhile has no place any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn add_operation_heads(&self, rows: Vec<HeadRow>) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        for row in rows {
            let row = head::Entity::insert(row.into_active_model()).on_conflict_do_nothing();
            match row.exec(&transaction).await {
                Err(error) if !matches!(error.sql_err(), Some(SqlErr::ForeignKeyConstraintViolation(_))) => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(transaction.commit().await?)
    }

    /// The signed heads of a log, in order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn operation_heads(&self, project: ProjectId) -> Result<Vec<HeadRow>, StoreError> {
        let rows = head::Entity::find().filter(head::Column::ProjectId.eq(project.to_string()));
        Ok(rows.order_by_asc(head::Column::Seq).all(&self.db).await?)
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

#[allow(unreachable_pub, reason = "the derive writes pub items")]
pub(super) mod head {
    use sea_orm::entity::prelude::*;

    /// A signed head as it stands.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "operation_heads")]
    pub struct Model {
        /// Whose log.
        #[sea_orm(primary_key, auto_increment = false)]
        pub project_id: String,
        /// The row that it speaks for.
        #[sea_orm(primary_key, auto_increment = false)]
        pub seq: i64,
        /// The row's hash.
        pub hash: Vec<u8>,
        /// The Lab's.
        pub signature: Vec<u8>,
        /// Milliseconds since 1970 when it was signed.
        pub time: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
