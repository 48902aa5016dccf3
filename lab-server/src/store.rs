//! Everything that the Lab remembers, in one SQLite file.
//!
//! One file of this folder per aggregate; its methods are the verbs of the domain. Values are always bound, and whose row it may be
//! stands in the `WHERE`. Identities are the texts of `wire`'s types, times are milliseconds since 1970. No table has a place for a
//! prompt or an answer.

mod api_keys;
mod approvals;
mod balances;
mod blobs;
mod bookmark;
mod briefs;
mod conversations;
mod departures;
mod devices;
mod farewells;
mod files;
mod folders;
mod identities;
mod key_terms;
mod lab_secrets;
mod ledger;
mod messages;
mod migration;
mod names;
mod operations;
mod pairings;
mod projects;
mod read_only;
mod requests;
mod rules;
mod runs;
mod security_epoch;
mod sessions;
mod settlements;
mod sign_in;
mod spending;
mod tasks;
mod tool_servers;
pub mod transparency;
mod users;

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime},
};

use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
    sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous},
};
use sea_orm_migration::MigratorTrait;
use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

pub use api_keys::{ApiKeyRecord, KeyOwner, ValidKey};
pub use approvals::{Approval, ApprovalState, Question};
pub use balances::{Balance, Credited, FREE_REQUESTS};
pub use bookmark::{Bookmark, InvalidBookmark};
pub use briefs::{AgentDefaults, BriefSettings, ProjectBrief};
pub use conversations::{Conversation, ConversationChange, ConversationFilter, ConversationSettings, NewConversation};
pub use devices::{Device, DeviceName, Enrolment, InvalidDeviceName};
pub use files::{FileEntry, FileRef, FileVersion, MadeVersion, NewFileVersion, Purged};
pub use folders::{Folder, FolderChange, MAX_FOLDER_DEPTH};
pub use identities::{Identity, MAIL, Subject};
pub use key_terms::{InvalidModelPattern, InvalidScope, KeyTerms, ModelPattern, Rates, Scope, Scopes, Spending};
pub use ledger::{EntryKind, LedgerEntry};
pub use messages::{AT_ONCE, Branch, Message, MessagePosition, Role};
pub use operations::{BEGINNING, HeadRow, NewestOperation, OperationDraft, OperationPosition, OperationRow};
pub use pairings::{NewPairing, Pairing, PairingState};
pub use projects::{Project, ProjectSettings};
pub use read_only::ReadOnly;
pub use requests::{Cursor, InvalidCursor, RequestFilter, RequestRecord, SumBy, UsageSum};
pub use rules::StoredRule;
pub use runs::{Run, RunBeginning, RunBegun, RunEnd, RunKind, RunProgress, RunState, UnfinishedRun};
pub use sessions::{SessionRecord, TokenRecord};
pub use settlements::{Charge, Settlement};
pub use sign_in::{Attempt, Link, NewAttempt, NewLink};
pub use spending::{SpendingWindow, Spent};
pub use tasks::{Assignee, NewTask, Task, TaskChange, TaskPlace, TaskState};
pub use tool_servers::{ChosenTool, HeaderSecret, ToolServer, ToolServerTerms};
pub use users::User;

use crate::{
    config::Config,
    vault::{Key, Place, Vault, VaultError},
};

/// How long a statement waits for another process's write. The `admin` command and the server share the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections: readers in WAL mode do not wait for the writer, and SQLite has one writer anyway.
pub(crate) const CONNECTIONS: u32 = 8;

/// A handle on the database; clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    db: DatabaseConnection,
    /// Seals what people call theirs.
    vault: Vault,
    /// What a new account begins with.
    free_requests: i32,
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed. Its texts name tables, columns and files, never values.
    #[error("the database failed: {0}")]
    Database(#[from] DbErr),
    /// The file cannot be opened or made.
    #[error("cannot use the database file {}: {source}; check the path and its permissions", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something of that name is there already.
    #[error("there is already {0} of that name; choose another name")]
    Taken(&'static str),
    /// What is to be changed is not there.
    #[error("there is no such {0}")]
    Missing(&'static str),
    /// What is to be changed is not what the caller has seen.
    #[error("the {0} was changed meanwhile; look at it again and repeat the change")]
    Stale(&'static str),
    /// There is no place for it.
    #[error("{0}")]
    Full(&'static str),
    /// It would break a rule.
    #[error("{0}")]
    Refused(&'static str),
    /// A row holds what no version of this program wrote.
    #[error("the database holds an invalid {0}; restore it from a backup")]
    Corrupt(&'static str),
    /// Something that is sealed does not open, or cannot be sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl StoreError {
    /// Whether a row was there and holds what its columns cannot.
    #[must_use]
    pub fn is_undecodable(&self) -> bool {
        use sea_orm::{RuntimeErr, sqlx};

        match self {
            Self::Database(DbErr::Type(_)) => true,
            Self::Database(DbErr::Query(RuntimeErr::SqlxError(error))) => {
                matches!(**error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_))
            }
            _ => false,
        }
    }

    /// Whether the database has no place for more. What it was to write is not there then.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        use sea_orm::{RuntimeErr, sqlx};

        let Self::Database(DbErr::Exec(error) | DbErr::Query(error) | DbErr::Conn(error)) = self else { return false };
        matches!(error, RuntimeErr::SqlxError(error)
            if matches!(&**error, sqlx::Error::Database(error) if error.code().as_deref() == Some(SQLITE_FULL)))
    }
}

/// SQLite's code for a disk that is full.
const SQLITE_FULL: &str = "13";

impl Store {
    /// Opens the file, making it (mode 0600) and its folder (mode 0700) where they are missing. Does not migrate.
    ///
    /// # Errors
    /// When the file cannot be made or is not a database.
    pub async fn open(path: &Path, vault: Vault) -> Result<Self, StoreError> {
        Ok(Self { db: connect(path).await?, vault, free_requests: FREE_REQUESTS })
    }

    /// The store of a Lab that is configured so, migrated.
    ///
    /// # Errors
    /// When the master key, the keystore or the database cannot be used.
    pub async fn of(config: &Config) -> Result<Self, StoreError> {
        let folders = config.backup.as_ref().map(|backup| backup.destinations.clone()).unwrap_or_default();
        let vault = Vault::open(&config.keystore, &config.master).await?.telling(folders);
        let store = Self {
            free_requests: i32::try_from(config.free_requests).unwrap_or(i32::MAX),
            ..Self::open(&config.database, vault).await?
        };
        store.migrate().await?;
        Ok(store)
    }

    /// Brings the tables up to this version.
    ///
    /// # Errors
    /// When the database fails, or was written by a newer version.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        migration::Migrator::up(&self.db, None).await?;
        self.seal_old_names().await
    }

    /// Closes all connections; what was committed is in the file.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn close(self) -> Result<(), StoreError> {
        self.db.close().await?;
        Ok(self.vault.close().await?)
    }

    /// Copies the database as it is now into a file that is not there yet.
    ///
    /// # Errors
    /// When the database fails or the file is there.
    pub(crate) async fn copy_to(&self, file: &Path) -> Result<(), StoreError> {
        Ok(copy_database(&self.db, file).await?)
    }

    /// What seals and opens the rows.
    #[must_use]
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// For tests that look below what the verbs show.
    #[cfg(test)]
    pub(crate) fn connection(&self) -> &DatabaseConnection {
        &self.db
    }

    /// A transaction that takes the write lock first thing: one that reads first would fail, not wait, when another wrote meanwhile.
    async fn write(&self) -> Result<DatabaseTransaction, StoreError> {
        let immediate =
            TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate), ..Default::default() };
        Ok(self.db.begin_with_options(immediate).await?)
    }
}

/// Milliseconds since 1970.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Makes a folder that only this user can enter.
pub(crate) fn make_private_dir(path: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes an empty file that only this user can read, where there is none.
pub(crate) fn make_private_file(path: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    // A file that was there before keeps its mode otherwise.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    drop(file);
    Ok(())
}

/// Connections to the database at `path`, which is made where it is missing.
async fn connect(path: &Path) -> Result<DatabaseConnection, StoreError> {
    let in_file = |source| StoreError::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_private_dir(folder).map_err(in_file)?;
    }
    // SQLite gives its journal files the mode of the database.
    make_private_file(path).map_err(in_file)?;
    let file = path.to_owned();
    let mut options = ConnectOptions::new("sqlite:");
    options.max_connections(CONNECTIONS).sqlx_logging(false).test_before_acquire(false).map_sqlx_sqlite_opts(move |sqlite| {
        sqlite
            .filename(&file)
            .journal_mode(SqliteJournalMode::Wal)
            // A power cut may cost the last commits, never the file; every commit reaches the disk at a checkpoint.
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("secure_delete", "ON")
            .pragma("temp_store", "MEMORY")
    });
    Ok(Database::connect(options).await?)
}

/// Deletes from the database at `path`, which nobody has open, the people, projects and conversations that were deleted.
pub(crate) async fn forget_in(path: &Path, deleted: &[crate::vault::Scope]) -> Result<(), StoreError> {
    let db = connect(path).await?;
    let transaction = db.begin().await?;
    for scope in deleted {
        let table = match scope {
            crate::vault::Scope::Lab => continue,
            crate::vault::Scope::User(_) => "users",
            crate::vault::Scope::Project(..) => "projects",
            crate::vault::Scope::Conversation(..) => "conversations",
        };
        let delete = format!("DELETE FROM {table} WHERE id = ?");
        let delete = Statement::from_sql_and_values(db.get_database_backend(), delete, [scope.to_string().into()]);
        transaction.execute_raw(delete).await?;
    }
    transaction.commit().await?;
    db.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    Ok(db.close().await?)
}

/// Copies a database as it is now into a file that is not there yet, without what was deleted of it.
pub(crate) async fn copy_database(db: &impl ConnectionTrait, file: &Path) -> Result<(), DbErr> {
    let path = file.to_str().ok_or_else(|| DbErr::Custom("the path of the copy is no text".to_owned()))?;
    let copy = Statement::from_sql_and_values(db.get_database_backend(), "VACUUM INTO ?", [path.into()]);
    db.execute_raw(copy).await.map(drop)
}

/// Opens many rows where it keeps nobody waiting.
async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        Err(_) => Err(StoreError::Refused("the Lab is being stopped")),
    }
}

/// A value that is sealed as JSON.
fn sealed(key: &Key, place: Place<'_>, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    // Our own types are always written: their maps have texts as keys.
    let plain = Zeroizing::new(serde_json::to_vec(value).map_err(|_| StoreError::Corrupt(place.column))?);
    Ok(key.seal(place, &plain))
}

/// A value that was sealed as JSON.
fn unsealed<T: DeserializeOwned>(key: &Key, place: Place<'_>, sealed: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(&key.open(place, sealed)?).map_err(|_| StoreError::Corrupt(place.column))
}

/// The key of what is about to be looked at; whose key was deleted is gone, be its rows there for another moment.
async fn key_of(vault: &Vault, scope: crate::vault::Scope, what: &'static str) -> Result<Key, StoreError> {
    match vault.key(scope).await {
        Err(VaultError::NoKey) => Err(StoreError::Missing(what)),
        other => Ok(other?),
    }
}

/// An identity out of a row.
fn id<T: FromStr>(text: &str, what: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt(what))
}

/// A limit out of a row.
fn rate(stored: Option<i64>) -> Result<Option<NonZeroU32>, StoreError> {
    stored.map(|rate| u32::try_from(rate).ok().and_then(NonZeroU32::new).ok_or(StoreError::Corrupt("rate"))).transpose()
}

/// A limit for a row.
fn stored_rate(rate: Option<NonZeroU32>) -> Option<i64> {
    rate.map(|rate| i64::from(rate.get()))
}

/// Fixed-size bytes out of a row.
fn bytes<const N: usize>(bytes: Vec<u8>, what: &'static str) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Corrupt(what))
}

/// Turns a broken uniqueness rule into [`StoreError::Taken`].
fn taken(error: DbErr, what: &'static str) -> StoreError {
    match error.sql_err() {
        Some(sea_orm::SqlErr::UniqueConstraintViolation(_)) => StoreError::Taken(what),
        _ => error.into(),
    }
}

#[cfg(test)]
pub(crate) mod scratch {
    //! A store in a folder that goes when the test ends.

    use std::path::PathBuf;

    use super::Store;
    use crate::vault::{MasterSource, Vault};

    pub(crate) struct Scratch {
        pub(crate) store: Store,
        pub(crate) dir: PathBuf,
    }

    impl Scratch {
        pub(crate) async fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("1k4-store-{}", wire::RequestId::random()));
            let store = Self::open(&dir).await;
            store.migrate().await.unwrap();
            Self { store, dir }
        }

        /// The same files once more, as another process would open them.
        pub(crate) async fn open(dir: &std::path::Path) -> Store {
            let master = MasterSource::Own(dir.join("master.key"));
            let vault = Vault::open(&dir.join("keystore.sqlite"), &master).await.unwrap();
            Store::open(&dir.join("lab.sqlite"), vault).await.unwrap()
        }
    }

    impl Store {
        /// Every row of every table, for comparing.
        pub(crate) async fn dump(&self) -> Vec<String> {
            use sea_orm::{ConnectionTrait, Statement};

            let query = async |sql: String| {
                self.db.query_all_raw(Statement::from_string(self.db.get_database_backend(), sql)).await.unwrap()
            };
            let mut rows = Vec::new();
            for table in query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name".to_owned()).await {
                let table: String = table.try_get_by_index(0).unwrap();
                for row in query(format!("SELECT * FROM \"{table}\"")).await {
                    rows.push(format!("{table}: {row:?}"));
                }
            }
            rows
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

#[cfg(test)]
pub(crate) use requests::tests as sample;

#[cfg(test)]
mod tests {
    use super::scratch::Scratch;

    #[cfg(unix)]
    #[tokio::test]
    async fn only_the_owner_can_read_the_files() {
        use std::os::unix::fs::PermissionsExt;

        let scratch = Scratch::new().await;
        scratch.store.add_user("ada").await.unwrap();
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&scratch.dir), 0o700);
        let mut files = 0;
        for file in std::fs::read_dir(&scratch.dir).unwrap() {
            let file = file.unwrap().path();
            let expected = if file.ends_with("master.key") { 0o400 } else { 0o600 };
            assert_eq!(mode(&file), expected, "{}", file.display());
            files += 1;
        }
        // Database and keystore, each with its log and the log's index, and the master key.
        assert_eq!(files, 7);
    }
}
