//! What was done in a project, told truly: one chain of sealed rows, each of which names the hash of the one before it.
//!
//! Who did it, with which arguments, who allowed it and what came of it is sealed under the project's key; the hashes are not, so that
//! the chain can be checked by somebody who can read none of it, and after its project's key was deleted too. A chain alone cannot
//! show that its end was cut off or that all of it was written anew, so its head is signed and kept elsewhere.
//!
//! A row is never sealed again under a newer generation of the project's key: its hash covers the bytes as they stand.

mod chain;
mod heads;
mod recovery;
mod verify;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use heads::Sink;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
use utoipa::ToSchema;
use wire::{ApprovalId, ProjectId, RuleId, UserId};

pub(crate) use chain::encode;
pub use heads::{HeadsError, Keeper};
pub use verify::{Finding, Problem, Report, Sound, verify};

use super::content::Actor;
use crate::{
    store::{OperationDraft, OperationRow, Store, StoreError},
    vault::{Key, Place, Scope},
};

/// Something that was done in a project, or that somebody tried to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// Who did it.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// What it was done to: a path, an id, a tool's name, an address.
    pub target: Option<String>,
    /// With which arguments, a JSON object; `null` where there are none. Contents of files are left out of it, their sizes are not.
    pub arguments: Value,
    /// Who allowed it.
    pub approval: Approval,
    /// What came of it.
    pub result: Outcome,
    /// What it cost in nano-credits.
    pub cost_nano: i64,
    /// The model that was asked, where one was.
    pub model: Option<String>,
    /// The workstation that this model ran on; `None` for a provider's.
    pub device: Option<String>,
}

/// What can be done in a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The project was made.
    ProjectCreated,
    /// Its name, limits or settings were changed.
    ProjectChanged,
    /// It was deleted: the last line of its log. Nobody can read it, and its time and its signature show when the log ended.
    ProjectDeleted,
    /// What models are told all along was changed.
    InstructionsChanged,
    /// An API key was made.
    KeyCreated,
    /// An API key's terms were changed, or it was replaced.
    KeyChanged,
    /// An API key was ended.
    KeyRevoked,
    /// The files were listed.
    FilesListed,
    /// The files were searched.
    FilesSearched,
    /// A file was read.
    FileRead,
    /// A file was written: it is new, or has a new version.
    FileWritten,
    /// Parts of a file were replaced.
    FilePatched,
    /// A version of a file whose line was lost when the Lab was ended in the middle: who allowed it is not known any more.
    FileRecovered,
    /// A file has another path.
    FileRenamed,
    /// A file was deleted.
    FileDeleted,
    /// The tasks were listed.
    TasksListed,
    /// A task was added.
    TaskCreated,
    /// A task was changed, moved or assigned.
    TaskChanged,
    /// A task was deleted.
    TaskDeleted,
    /// A conversation was begun.
    ConversationCreated,
    /// A conversation was moved, named or archived.
    ConversationChanged,
    /// A conversation was deleted.
    ConversationDeleted,
    /// An answer to a question was remembered.
    RuleAdded,
    /// Such an answer was forgotten.
    RuleRemoved,
    /// A tool server was added.
    ToolServerAdded,
    /// A tool server was changed.
    ToolServerChanged,
    /// A tool server was removed.
    ToolServerRemoved,
    /// A tool of a tool server was used.
    ToolUsed,
    /// A page of the web was fetched.
    WebFetched,
    /// A part of the work was given to another model.
    Delegated,
    /// A model was asked.
    ModelAsked,
    /// A plan was made.
    Planned,
    /// A run began.
    RunStarted,
    /// A run was stopped.
    RunStopped,
    /// A run came to its end.
    RunEnded,
    /// A run's question was answered.
    ApprovalAnswered,
}

/// Who allowed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
#[schema(as = OperationApproval)]
pub enum Approval {
    /// Nobody was asked: the owner did it, or it needs no leave.
    Nobody,
    /// The owner answered a question.
    Person {
        /// Which.
        #[schema(value_type = String)]
        approval: ApprovalId,
        /// Whether it may be done.
        allowed: bool,
    },
    /// A remembered answer held.
    Rule {
        /// Which.
        #[schema(value_type = String)]
        rule: RuleId,
        /// Whether it may be done.
        allowed: bool,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[schema(as = OperationOutcome)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not allowed.
    Refused,
    /// It was not done.
    Failed {
        /// Why, for programs.
        code: String,
    },
}

impl Operation {
    /// What the owner did, signed in: done, without a price, without asking.
    #[must_use]
    pub fn by_person(action: Action, target: Option<String>, arguments: Value) -> Self {
        Self::by(Actor::Person, action, target, arguments)
    }

    /// The same, done by the owner or by a program of theirs.
    #[must_use]
    pub fn by(actor: Actor, action: Action, target: Option<String>, arguments: Value) -> Self {
        Self {
            actor,
            action,
            target,
            arguments,
            approval: Approval::Nobody,
            result: Outcome::Done,
            cost_nano: 0,
            model: None,
            device: None,
        }
    }
}

/// An operation with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Its number, from 1 on, without gaps.
    pub seq: i64,
    /// Milliseconds since 1970 when it was recorded.
    pub time: i64,
    /// The row's hash.
    pub hash: Vec<u8>,
    /// What was done.
    pub operation: Operation,
}

/// Which part of a log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The newest below that number, or of all, newest first.
    Before(Option<i64>),
    /// The oldest above that number, oldest first.
    After(i64),
}

/// The operation logs of all projects; clones share what they know.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    store: Store,
    /// One lock for each project that somebody writes to now: rows are numbered one after the other.
    appending: Mutex<HashMap<ProjectId, Arc<tokio::sync::Mutex<()>>>>,
    /// The newest row of each log that has rows which no head speaks for.
    unsigned: Mutex<HashMap<ProjectId, Newest>>,
    /// A log has so many new rows that its head is due.
    due: Notify,
    /// Where heads go; nowhere until [`Log::keep_heads`] was called.
    sink: OnceLock<Sink>,
}

/// A log's newest row.
#[derive(Debug, Clone, Copy)]
struct Newest {
    seq: i64,
    hash: [u8; 32],
}

impl Log {
    /// The logs that lie in this store.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Inner {
            store,
            appending: Mutex::default(),
            unsigned: Mutex::default(),
            due: Notify::new(),
            sink: OnceLock::new(),
        }))
    }

    /// Names the file that heads go to beside the database. Without it none are signed.
    ///
    /// # Errors
    /// When the file or the Lab's key cannot be used.
    pub async fn open_heads(&self, file: &Path) -> Result<(), HeadsError> {
        let sink = Sink::open(self.0.store.clone(), file).await?;
        // Whoever opened one first is heeded.
        let _ = self.0.sink.set(sink);
        Ok(())
    }

    /// Signs heads from now on: after 1,000 rows of a log, or after a minute. What an earlier process left unsigned is signed at once.
    ///
    /// # Errors
    /// Like [`Self::open_heads`].
    pub async fn keep_heads(&self, file: &Path) -> Result<Keeper, HeadsError> {
        self.open_heads(file).await?;
        for (project, seq, hash, signed_to) in self.0.store.newest_operations().await? {
            if seq > signed_to {
                self.0.unsigned().entry(project).or_insert(Newest { seq, hash });
            } else if seq < signed_to {
                // It is said, and not signed: the heads that are there go on showing it.
                tracing::error!(%project, "an operation log ends before its signed head; `1k4-lab audit verify` says more");
            }
        }
        Ok(Keeper::start(self.clone()))
    }

    /// Says in the file of heads that a log ends, because its project is to be deleted for good: without that its absence would look
    /// like somebody's work.
    ///
    /// # Errors
    /// When the file or the database fails.
    pub async fn end(&self, project: ProjectId) -> Result<(), HeadsError> {
        let newest = self.0.store.newest_operation(project).await?;
        self.0.unsigned().remove(&project);
        match (self.0.sink.get(), newest) {
            (Some(sink), Some((seq, hash))) => sink.end(project, Newest { seq, hash }).await,
            _ => Ok(()),
        }
    }

    /// Adds a row to a project's log and gives its number, from 1 on. Call it before anybody is told that the operation was done:
    /// when it returns the row is committed.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the person has no such project.
    pub async fn record(&self, owner: UserId, project: ProjectId, operation: Operation) -> Result<u64, StoreError> {
        let key = self.0.store.vault().key(Scope::Project(owner, project)).await?;
        let plain = serde_json::to_vec(&operation).map_err(|_| StoreError::Corrupt("operation"))?;
        let turn = self.turn_of(project);
        let guard = turn.lock().await;
        let row = self.0.store.append_operation(owner, project, |at| {
            let sealed = key.seal(place(&row_of(project, at.seq)), &plain);
            let hash = chain::link(&project.to_string(), at.seq, at.time, &sealed, &at.previous);
            OperationDraft { sealed, hash }
        });
        let row = row.await;
        if let Ok(row) = &row {
            self.note(project, row);
        }
        drop(guard);
        self.leave(project, &turn);
        u64::try_from(row?.seq).map_err(|_| StoreError::Corrupt("operation"))
    }

    /// A part of a log of this person's, at most so many rows; empty where they have no such project.
    ///
    /// # Errors
    /// When a row does not open where it stands: it was changed.
    pub async fn read(&self, owner: UserId, project: ProjectId, part: Part, limit: u64) -> Result<Vec<Recorded>, StoreError> {
        let rows = match part {
            Part::Before(below) => self.0.store.operations_before(owner, project, below, limit).await?,
            Part::After(above) => self.0.store.operations_after(owner, project, above, limit).await?,
        };
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.0.store.vault().key(Scope::Project(owner, project)).await?;
        let opened = rows.into_iter().map(|row| {
            let operation = open(&key, project, row.seq, &row.entry_sealed)?;
            Ok(Recorded { seq: row.seq, time: row.time, hash: row.hash, operation })
        });
        opened.collect()
    }

    /// Remembers that a row has no head yet.
    fn note(&self, project: ProjectId, row: &OperationRow) {
        if let Ok(hash) = row.hash.as_slice().try_into() {
            self.0.unsigned().insert(project, Newest { seq: row.seq, hash });
        }
        if row.seq % heads::ROWS == 0 {
            self.0.due.notify_one();
        }
    }

    fn turn_of(&self, project: ProjectId) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.0.appending().entry(project).or_default())
    }

    /// Forgets a project's lock when nobody else waits for it.
    fn leave(&self, project: ProjectId, turn: &Arc<tokio::sync::Mutex<()>>) {
        let mut appending = self.0.appending();
        // One is the map's, one is ours.
        if Arc::strong_count(turn) <= 2 {
            appending.remove(&project);
        }
    }
}

impl Inner {
    fn appending(&self) -> std::sync::MutexGuard<'_, HashMap<ProjectId, Arc<tokio::sync::Mutex<()>>>> {
        // No code that can panic runs under the lock.
        self.appending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unsigned(&self) -> std::sync::MutexGuard<'_, HashMap<ProjectId, Newest>> {
        self.unsigned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

/// A row's name among all rows of all projects.
fn row_of(project: ProjectId, seq: i64) -> String {
    format!("{project}/{seq}")
}

fn place(row: &str) -> Place<'_> {
    Place { table: "operations", column: "entry_sealed", row, version: 0 }
}

/// Reads a row that was sealed at its place.
fn open(key: &Key, project: ProjectId, seq: i64, sealed: &[u8]) -> Result<Operation, StoreError> {
    let plain = key.open(place(&row_of(project, seq)), sealed)?;
    serde_json::from_slice(&plain).map_err(|_| StoreError::Corrupt("operation"))
}

#[cfg(test)]
mod tests;
