//! What was deleted is also written down beside the backups, at once: a backup that was made before a deletion holds the key of what
//! was deleted, and whoever restores it must know.
//!
//! One line for each scope: when, which, whose. Identities only; nothing of it says what anybody wrote or is called.

use std::{
    collections::HashSet,
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Keystore, Scope, VaultError};

/// What the file is called in each folder.
pub const FILE_NAME: &str = "tombstones";

/// A scope that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tombstone {
    pub(super) scope: String,
    pub(super) owner: String,
    /// When, milliseconds since 1970.
    pub(super) deleted_at: i64,
}

/// Why what was deleted cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum TombstoneError {
    /// The file is there and cannot be read.
    #[error("the list of what was deleted, {}, cannot be read ({kind}); without it deleted data would come back", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// A line is none of ours.
    #[error("line {line} of {} is no deletion; repair it, or deleted data would come back", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
}

impl Tombstone {
    /// What was deleted.
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        Scope::of(&self.scope, &self.owner)
    }

    /// The deletions that are written down in a folder; none where there is no such file.
    ///
    /// # Errors
    /// When the file cannot be read, or a line of it is none.
    pub fn in_folder(folder: &Path) -> Result<Vec<Self>, TombstoneError> {
        let path = folder.join(FILE_NAME);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(TombstoneError::Unreadable { path, kind: error.kind() }),
        };
        // A line that a power cut left half is the last, and was never reported as written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().enumerate();
        lines
            .map(|(at, line)| line.parse().map_err(|InvalidLine| TombstoneError::Line { path: path.clone(), line: at + 1 }))
            .collect()
    }
}

impl fmt::Display for Tombstone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.deleted_at, self.scope, self.owner)
    }
}

/// A text that is no [`Tombstone`].
#[derive(Debug)]
pub struct InvalidLine;

impl FromStr for Tombstone {
    type Err = InvalidLine;

    fn from_str(line: &str) -> Result<Self, InvalidLine> {
        let mut words = line.split(' ');
        let (Some(at), Some(scope), Some(owner), None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(InvalidLine);
        };
        let stone = Self { scope: scope.to_owned(), owner: owner.to_owned(), deleted_at: at.parse().map_err(|_| InvalidLine)? };
        if stone.scope().is_none() { Err(InvalidLine) } else { Ok(stone) }
    }
}

/// The folders where deletions are written down too.
#[derive(Default)]
pub(super) struct Outposts(Arc<Mutex<Vec<Outpost>>>);

struct Outpost {
    folder: PathBuf,
    /// Whether it may lack deletions: it was away, or this process has not looked yet.
    behind: bool,
}

impl Outposts {
    /// These and no others.
    pub(super) fn are(&self, folders: Vec<PathBuf>) {
        *lock(&self.0) = folders.into_iter().map(|folder| Outpost { folder, behind: true }).collect();
    }

    /// Writes down what has just been deleted, and what a folder missed before.
    pub(super) async fn tell(&self, keystore: &Keystore, new: Vec<Tombstone>) {
        let told = if lock(&self.0).iter().any(|outpost| outpost.behind) {
            self.catch_up(keystore).await
        } else {
            self.write(new, Known::Exactly).await;
            Ok(())
        };
        if let Err(error) = told {
            tracing::error!(%error, "what was deleted cannot be written down beside the backups; it is tried again");
        }
    }

    /// Writes down what a folder missed while it was away.
    pub(super) async fn catch_up(&self, keystore: &Keystore) -> Result<(), VaultError> {
        if lock(&self.0).iter().any(|outpost| outpost.behind) {
            self.write(keystore.tombstones().await?, Known::Perhaps).await;
        }
        Ok(())
    }

    async fn write(&self, stones: Vec<Tombstone>, known: Known) {
        let outposts = Arc::clone(&self.0);
        let write = move || {
            for outpost in &mut *lock(&outposts) {
                let written = add(&outpost.folder, &stones, known);
                if let Err(kind) = written
                    && !outpost.behind
                {
                    tracing::warn!(%kind, "a destination of backups is away; what is deleted meanwhile is written down there later");
                }
                outpost.behind = written.is_err();
            }
        };
        // A task that panicked was reported by the hook.
        let _ = tokio::task::spawn_blocking(write).await;
    }
}

/// Whether a file may hold some of what is to be added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It may.
    Perhaps,
    /// It does not.
    Exactly,
}

/// Adds lines to the file of a folder, which must be there: one that is not mounted is not made.
fn add(folder: &Path, stones: &[Tombstone], known: Known) -> Result<(), io::ErrorKind> {
    let path = folder.join(FILE_NAME);
    let there: HashSet<String> = match known {
        Known::Perhaps if path.exists() => {
            let lines = std::fs::read_to_string(&path).map_err(|error| error.kind())?;
            lines.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
        }
        _ => HashSet::new(),
    };
    let lines: String =
        stones.iter().map(ToString::to_string).filter(|line| !there.contains(line)).map(|line| line + "\n").collect();
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&path).and_then(|mut file| {
        if known == Known::Perhaps {
            // What a power cut left half is written again, whole.
            let text = std::fs::read(&path)?;
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            file.set_len(u64::try_from(whole).unwrap_or(u64::MAX))?;
        }
        file.write_all(lines.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| error.kind())
}

fn lock(outposts: &Mutex<Vec<Outpost>>) -> MutexGuard<'_, Vec<Outpost>> {
    outposts.lock().unwrap_or_else(PoisonError::into_inner)
}
