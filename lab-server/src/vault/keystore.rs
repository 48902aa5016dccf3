//! Wrapped keys and the memory of deleted ones: a database of its own, so that its backups can live shorter than those of the data.

use std::{collections::HashMap, path::Path, time::Duration};

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbErr, EntityTrait,
    QueryFilter, QueryOrder, QuerySelect, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
    sea_query::Expr,
    sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous},
};

use super::{Scope, Tombstone, VaultError, master::MasterKeys};
use crate::store::{make_private_dir, make_private_file, now_ms};

/// The tables. The keystore has no versions: what it holds is bytes.
const TABLES: [&str; 4] = [
    "CREATE TABLE IF NOT EXISTS keys (scope TEXT NOT NULL, generation BIGINT NOT NULL, owner TEXT NOT NULL, kek TEXT NOT NULL, \
     wrapped BLOB NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (scope, generation))",
    "CREATE INDEX IF NOT EXISTS keys_of_owner ON keys (owner)",
    "CREATE TABLE IF NOT EXISTS tombstones (scope TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, deleted_at BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS wrapping (id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1), kek TEXT NOT NULL)",
];
/// Values that are bound in one statement, well below what SQLite takes.
const AT_ONCE: usize = 500;
/// How long a statement waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The keystore's database.
#[derive(Debug, Clone)]
pub(super) struct Keystore {
    db: DatabaseConnection,
}

/// A scope's key in one generation.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct WrappedKey {
    pub(super) generation: u32,
    /// The name of the master key that it is wrapped under.
    pub(super) kek: String,
    /// Nonce and ciphertext of the key and the index key.
    pub(super) wrapped: Vec<u8>,
    /// Milliseconds since 1970.
    pub(super) created_at: i64,
}

/// What became of a new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It is there, or one of that generation was before it.
    Yes,
    /// The scope was deleted.
    Deleted,
    /// It is wrapped under a master key that wraps no more.
    OtherMaster,
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
                .busy_timeout(BUSY_TIMEOUT)
                .pragma("secure_delete", "ON")
                .pragma("temp_store", "MEMORY")
        });
        let db = Database::connect(options).await?;
        for table in TABLES {
            db.execute_unprepared(table).await?;
        }
        Ok(Self { db })
    }

    /// From now on the first of these master keys wraps, here and in every other process.
    pub(super) async fn begin(&self, keys: &MasterKeys) -> Result<(), VaultError> {
        let transaction = self.write().await?;
        let wraps = wraps(&transaction).await?;
        if let Some(kek) = &wraps {
            keys.named(kek)?;
        }
        if wraps.as_deref() != Some(keys.first()) {
            let row = wrapping::ActiveModel { id: Set(1), kek: Set(keys.first().to_owned()) };
            wrapping::Entity::delete_many().exec(&transaction).await?;
            wrapping::Entity::insert(row).exec_without_returning(&transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The name of the master key that wraps.
    pub(super) async fn wraps(&self) -> Result<String, DbErr> {
        wraps(&self.db).await?.ok_or_else(|| DbErr::RecordNotFound("the keystore names no master key".to_owned()))
    }

    /// Every generation of these scopes' keys, oldest first; of those that have any. Somebody else's are not found.
    pub(super) async fn keys(&self, scopes: &[Scope]) -> Result<Vec<(Scope, Vec<WrappedKey>)>, DbErr> {
        let mut found = Vec::with_capacity(scopes.len());
        for scopes in scopes.chunks(AT_ONCE) {
            let rows = entity::Entity::find()
                .filter(entity::Column::Scope.is_in(scopes.iter().map(ToString::to_string)))
                .order_by_asc(entity::Column::Generation)
                .all(&self.db)
                .await?;
            let mut keys: HashMap<(String, String), Vec<WrappedKey>> = HashMap::with_capacity(scopes.len());
            for mut row in rows {
                let whose = (std::mem::take(&mut row.scope), std::mem::take(&mut row.owner));
                keys.entry(whose).or_default().push(row.into());
            }
            found.extend(scopes.iter().filter_map(|scope| Some((*scope, keys.remove(&(scope.to_string(), scope.owner_text()))?))));
        }
        Ok(found)
    }

    /// Adds a key unless there is one of that generation; says no for a scope that was deleted.
    pub(super) async fn add(&self, scope: Scope, key: &WrappedKey) -> Result<Added, DbErr> {
        let transaction = self.write().await?;
        let deleted =
            tombstone::Entity::find().filter(tombstone::Column::Scope.is_in(scope_and_owner(scope))).one(&transaction).await?;
        if deleted.is_some() {
            return Ok(Added::Deleted);
        }
        if wraps(&transaction).await?.as_ref() != Some(&key.kek) {
            return Ok(Added::OtherMaster);
        }
        insert(&transaction, scope, key).await?;
        transaction.commit().await?;
        Ok(Added::Yes)
    }

    /// Adds the next generations of keys that are still there.
    pub(super) async fn add_generations(&self, keys: &[(Scope, WrappedKey)]) -> Result<Added, DbErr> {
        let transaction = self.write().await?;
        let wraps = wraps(&transaction).await?;
        for (scope, key) in keys {
            if wraps.as_ref() != Some(&key.kek) {
                return Ok(Added::OtherMaster);
            }
            let before = entity::Column::Generation.eq(i64::from(key.generation) - 1);
            let before = entity::Entity::find().filter(entity::Column::Scope.eq(scope.to_string())).filter(before);
            if before.one(&transaction).await?.is_some() {
                insert(&transaction, *scope, key).await?;
            }
        }
        transaction.commit().await?;
        Ok(Added::Yes)
    }

    /// Adds many keys at once.
    #[cfg(test)]
    pub(super) async fn add_all(&self, keys: &[(Scope, WrappedKey)]) -> Result<(), DbErr> {
        let transaction = self.write().await?;
        for (scope, key) in keys {
            insert(&transaction, *scope, key).await?;
        }
        transaction.commit().await
    }

    /// Some scopes behind `after` with the newest generation of their keys, of one person or of everybody.
    pub(super) async fn newest(&self, owner: Option<String>, after: &str) -> Result<Vec<(Scope, WrappedKey)>, DbErr> {
        let mut scopes = entity::Entity::find().select_only().column(entity::Column::Scope).distinct();
        scopes = scopes.filter(entity::Column::Scope.gt(after)).order_by_asc(entity::Column::Scope);
        if let Some(owner) = owner {
            scopes = scopes.filter(entity::Column::Owner.eq(owner));
        }
        let scopes: Vec<String> = scopes.limit(AT_ONCE as u64).into_tuple().all(&self.db).await?;
        let rows = entity::Entity::find()
            .filter(entity::Column::Scope.is_in(scopes))
            .order_by_asc(entity::Column::Scope)
            .order_by_desc(entity::Column::Generation)
            .all(&self.db)
            .await?;
        let mut newest: Vec<(Scope, WrappedKey)> = Vec::new();
        for row in rows {
            let scope = named(&row)?;
            if newest.last().is_none_or(|(last, _)| *last != scope) {
                newest.push((scope, row.into()));
            }
        }
        Ok(newest)
    }

    /// Some keys that are wrapped under another master key than `kek`.
    pub(super) async fn not_under(&self, kek: &str) -> Result<Vec<(Scope, WrappedKey)>, DbErr> {
        let rows = entity::Entity::find().filter(entity::Column::Kek.ne(kek)).limit(AT_ONCE as u64).all(&self.db).await?;
        rows.into_iter().map(|row| Ok((named(&row)?, row.into()))).collect()
    }

    /// Puts keys in the place of what was wrapped under other master keys. What was deleted meanwhile stays deleted.
    pub(super) async fn rewrap(&self, keys: &[(Scope, WrappedKey)]) -> Result<(), DbErr> {
        let transaction = self.write().await?;
        for (scope, key) in keys {
            entity::Entity::update_many()
                .col_expr(entity::Column::Kek, Expr::value(key.kek.clone()))
                .col_expr(entity::Column::Wrapped, Expr::value(key.wrapped.clone()))
                .filter(entity::Column::Scope.eq(scope.to_string()))
                .filter(entity::Column::Generation.eq(i64::from(key.generation)))
                .exec(&transaction)
                .await?;
        }
        transaction.commit().await
    }

    /// How many keys are wrapped under which master key.
    pub(super) async fn wrapped(&self) -> Result<Vec<(String, i64)>, DbErr> {
        let count = entity::Entity::find().select_only().column(entity::Column::Kek).column_as(entity::Column::Scope.count(), "n");
        count.group_by(entity::Column::Kek).order_by_asc(entity::Column::Kek).into_tuple().all(&self.db).await
    }

    /// Deletes every key of these scopes, and with a person's all that are theirs. The pages are overwritten, the log of the database
    /// too. Gives what was not deleted before.
    pub(super) async fn shred(&self, scopes: &[Scope]) -> Result<Vec<Tombstone>, DbErr> {
        let (transaction, now) = (self.write().await?, now_ms());
        let mut stones = Vec::with_capacity(scopes.len());
        for scope in scopes {
            let stone = Tombstone { scope: scope.to_string(), owner: scope.owner_text(), deleted_at: now };
            if bury(&transaction, &stone).await? {
                stones.push(stone);
            }
        }
        transaction.commit().await?;
        self.wipe().await?;
        Ok(stones)
    }

    /// Everything that was deleted.
    pub(super) async fn tombstones(&self) -> Result<Vec<Tombstone>, DbErr> {
        let rows = tombstone::Entity::find().order_by_asc(tombstone::Column::DeletedAt).all(&self.db).await?;
        Ok(rows.into_iter().map(|row| Tombstone { scope: row.scope, owner: row.owner, deleted_at: row.deleted_at }).collect())
    }

    /// Copies the keystore as it is into a file that is not there yet.
    pub(super) async fn copy_to(&self, file: &Path) -> Result<(), DbErr> {
        crate::store::copy_database(&self.db, file).await
    }

    /// Moves the log into the database and empties it: what was overwritten there must not live on in the log. A reader may hold it
    /// up; then the next deletion does it.
    pub(super) async fn wipe(&self) -> Result<(), DbErr> {
        let checkpoint = Statement::from_string(self.db.get_database_backend(), "PRAGMA wal_checkpoint(TRUNCATE)");
        let row = self.db.query_one_raw(checkpoint).await?;
        if row.is_none_or(|row| row.try_get_by_index::<i32>(0).unwrap_or(1) != 0) {
            tracing::warn!("a reader keeps the keystore's log from being emptied; it is emptied with the next deletion");
        }
        Ok(())
    }

    pub(super) async fn close(&self) -> Result<(), DbErr> {
        self.db.clone().close().await
    }

    /// A transaction that takes the write lock first thing: one that reads first would fail, not wait, when another wrote meanwhile.
    async fn write(&self) -> Result<DatabaseTransaction, DbErr> {
        let immediate =
            TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
        self.db.begin_with_options(immediate).await
    }
}

/// Deletes from the keystore at `path`, which nobody has open, what these say; no master key is needed for that.
pub(crate) async fn bury_in(path: &Path, stones: &[Tombstone]) -> Result<(), VaultError> {
    let keystore = Keystore::open(path).await?;
    let transaction = keystore.write().await?;
    for stone in stones {
        bury(&transaction, stone).await?;
    }
    transaction.commit().await?;
    keystore.wipe().await?;
    Ok(keystore.close().await?)
}

/// Deletes a scope's keys, and with a person's all that are theirs. Whether it had not been deleted before.
async fn bury(db: &impl ConnectionTrait, stone: &Tombstone) -> Result<bool, DbErr> {
    let mine = Condition::all().add(entity::Column::Scope.eq(&stone.scope)).add(entity::Column::Owner.eq(&stone.owner));
    let mut which = Condition::any().add(mine);
    if stone.scope == stone.owner {
        which = which.add(entity::Column::Owner.eq(&stone.owner));
    }
    entity::Entity::delete_many().filter(which).exec(db).await?;
    if tombstone::Entity::find_by_id(stone.scope.clone()).one(db).await?.is_some() {
        return Ok(false);
    }
    let row = tombstone::ActiveModel {
        scope: Set(stone.scope.clone()),
        owner: Set(stone.owner.clone()),
        deleted_at: Set(stone.deleted_at),
    };
    tombstone::Entity::insert(row).exec_without_returning(db).await?;
    Ok(true)
}

async fn wraps(db: &impl ConnectionTrait) -> Result<Option<String>, DbErr> {
    Ok(wrapping::Entity::find_by_id(1).one(db).await?.map(|row| row.kek))
}

async fn insert(db: &impl ConnectionTrait, scope: Scope, key: &WrappedKey) -> Result<(), DbErr> {
    let row = entity::ActiveModel {
        scope: Set(scope.to_string()),
        generation: Set(i64::from(key.generation)),
        owner: Set(scope.owner_text()),
        kek: Set(key.kek.clone()),
        wrapped: Set(key.wrapped.clone()),
        created_at: Set(key.created_at),
    };
    entity::Entity::insert(row).on_conflict_do_nothing().exec_without_returning(db).await.map(drop)
}

/// Whoever is deleted takes what is theirs along.
fn scope_and_owner(scope: Scope) -> Vec<String> {
    [Some(scope.to_string()), scope.owner().map(|owner| owner.to_string())].into_iter().flatten().collect()
}

fn named(row: &entity::Model) -> Result<Scope, DbErr> {
    Scope::of(&row.scope, &row.owner).ok_or_else(|| DbErr::Type("the keystore holds a key of nothing that is known".to_owned()))
}

impl From<entity::Model> for WrappedKey {
    fn from(row: entity::Model) -> Self {
        // What is no generation does not open.
        let generation = u32::try_from(row.generation).unwrap_or_default();
        Self { generation, kek: row.kek, wrapped: row.wrapped, created_at: row.created_at }
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
        pub owner: String,
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
        pub owner: String,
        pub deleted_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod wrapping {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "wrapping")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i32,
        pub kek: String,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
