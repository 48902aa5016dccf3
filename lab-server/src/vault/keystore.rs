//! Wrapped keys and the memory of deleted ones: a database of its own, so that its backups can live shorter than those of the data.

use std::path::Path;

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr, EntityTrait, QueryFilter,
    QueryOrder, TransactionTrait,
    sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous},
};

use super::{Scope, VaultError};
use crate::store::{make_private_dir, make_private_file, now_ms};

/// The tables. The keystore has no versions: what it holds is bytes.
const TABLES: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS keys (scope TEXT NOT NULL, generation BIGINT NOT NULL, owner TEXT, kek TEXT NOT NULL, wrapped BLOB NOT NULL, \
     created_at BIGINT NOT NULL, PRIMARY KEY (scope, generation))",
    "CREATE INDEX IF NOT EXISTS keys_of_owner ON keys (owner)",
    "CREATE TABLE IF NOT EXISTS tombstones (scope TEXT NOT NULL PRIMARY KEY, deleted_at BIGINT NOT NULL)",
];

/// The keystore's database.
#[derive(Debug, Clone)]
pub(super) struct Keystore {
    db: DatabaseConnection,
}

/// A scope's key in one generation.
#[derive(Clone)]
pub(super) struct WrappedKey {
    pub(super) generation: u32,
    /// The name of the master key that it is wrapped under.
    pub(super) kek: String,
    /// Nonce and ciphertext of the key and the index key.
    pub(super) wrapped: Vec<u8>,
}

impl Keystore {
    pub(super) async fn open(path: &Path) -> Result<Self, VaultError> {
        let in_file = |source| VaultError::File { path: path.display().to_string(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            make_private_dir(folder).map_err(in_file)?;
        }
        make_private_file(path).map_err(in_file)?;
        let file = path.to_owned();
        let mut options = ConnectOptions::new("sqlite:");
        options.max_connections(4).sqlx_logging(false).test_before_acquire(false).map_sqlx_sqlite_opts(move |sqlite| {
            sqlite
                .filename(&file)
                .journal_mode(SqliteJournalMode::Wal)
                // A deletion that was reported survives a power cut, and so does a key that something was sealed under.
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(std::time::Duration::from_secs(5))
                .pragma("secure_delete", "ON")
                .pragma("temp_store", "MEMORY")
        });
        let db = Database::connect(options).await?;
        for table in TABLES {
            db.execute_unprepared(table).await?;
        }
        Ok(Self { db })
    }

    /// Every generation of a scope's key, oldest first.
    pub(super) async fn keys(&self, scope: Scope) -> Result<Vec<WrappedKey>, DbErr> {
        let rows = entity::Entity::find()
            .filter(entity::Column::Scope.eq(scope.to_string()))
            .order_by_asc(entity::Column::Generation)
            .all(&self.db)
            .await?;
        Ok(rows.into_iter().map(WrappedKey::from).collect())
    }

    /// Adds a key unless there is one of that generation; says no for a scope that was deleted.
    pub(super) async fn add(&self, scope: Scope, key: &WrappedKey) -> Result<bool, DbErr> {
        let transaction = self.db.begin().await?;
        let deleted =
            tombstone::Entity::find().filter(tombstone::Column::Scope.is_in(scope_and_owner(scope))).one(&transaction).await?;
        if deleted.is_some() {
            return Ok(false);
        }
        let row = entity::ActiveModel {
            scope: Set(scope.to_string()),
            generation: Set(i64::from(key.generation)),
            owner: Set(scope.owner().map(|owner| owner.to_string())),
            kek: Set(key.kek.clone()),
            wrapped: Set(key.wrapped.clone()),
            created_at: Set(now_ms()),
        };
        let insert = entity::Entity::insert(row).on_conflict_do_nothing();
        insert.exec(&transaction).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Deletes every key of a scope, and with a person's all that are theirs. The pages are overwritten, the log of the database too.
    pub(super) async fn shred(&self, scope: Scope) -> Result<(), DbErr> {
        let transaction = self.db.begin().await?;
        let mut whose = Condition::any().add(entity::Column::Scope.eq(scope.to_string()));
        if let Scope::User(owner) = scope {
            whose = whose.add(entity::Column::Owner.eq(owner.to_string()));
        }
        entity::Entity::delete_many().filter(whose).exec(&transaction).await?;
        let stone = tombstone::ActiveModel { scope: Set(scope.to_string()), deleted_at: Set(now_ms()) };
        tombstone::Entity::insert(stone).on_conflict_do_nothing().exec(&transaction).await?;
        transaction.commit().await?;
        self.db.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await?;
        Ok(())
    }

    pub(super) async fn close(&self) -> Result<(), DbErr> {
        self.db.clone().close().await
    }
}

/// Whoever is deleted takes what is theirs along.
fn scope_and_owner(scope: Scope) -> Vec<String> {
    [Some(scope.to_string()), scope.owner().map(|owner| owner.to_string())].into_iter().flatten().collect()
}

impl From<entity::Model> for WrappedKey {
    fn from(row: entity::Model) -> Self {
        Self { generation: u32::try_from(row.generation).unwrap_or_default(), kek: row.kek, wrapped: row.wrapped }
    }
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub scope: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub generation: i64,
        pub owner: Option<String>,
        pub kek: String,
        pub wrapped: Vec<u8>,
        pub created_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod tombstone {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tombstones")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub scope: String,
        pub deleted_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
