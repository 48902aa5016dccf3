//! Copies of the Lab that only their recipients can open, at two places, and the way back.
//!
//! A copy is two files. `….data.age` holds the database and what people uploaded, `….keys.age` the keystore: sealed data and wrapped
//! keys, encrypted once more to `age` recipients. The master key is in neither. Copies of the keystore live for days only, and what is
//! deleted is written down beside them at once ([`crate::vault::TOMBSTONES`]): whoever restores brings nothing back that was deleted.

mod archive;
mod command;

use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use age::x25519::Identity;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub use command::{BackupCommand, BackupVerb, run};

use crate::{
    calendar,
    config::{Config, backup::Backup as Plan},
    secret::{self, SecretError},
    store::{self, Store, StoreError, make_private_dir, now_ms},
    vault::{self, Scope, Tombstone, TombstoneError, VaultError},
};

/// What the database and the keystore are called in a copy and after the way back.
const DATABASE: &str = "lab.sqlite";
const KEYSTORE: &str = "keystore.sqlite";
/// The folder of uploads, likewise.
const BLOBS: &str = "blobs";
/// The folders, below that of the data, in which a copy is prepared, begin like this.
const TEMPORARY: &str = "backup-";
const DAY_MS: i64 = 86_400_000;
/// When what a copy was prepared in is nobody's any more: the largest copy takes minutes.
const STALE: Duration = Duration::from_secs(3 * 3_600);
/// How often a running Lab looks whether a copy is due.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why there is no copy, or no way back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nobody said where to.
    #[error("no backup is configured; add [backup] with recipients and destinations to the configuration")]
    NotConfigured,
    /// The database or the keystore.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or a folder.
    #[error("{} cannot be used ({kind}); check the path, its owner and the space left", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// A copy reached some destinations only.
    #[error("{failed} of {of} destinations have no copy: {cause}")]
    Incomplete {
        /// How many have none.
        failed: usize,
        /// How many there are.
        of: usize,
        /// Why the first of them has none.
        cause: Box<BackupError>,
    },
    /// The recipients do not go together.
    #[error("the copy cannot be encrypted to these recipients; check recipients under [backup]")]
    Recipients,
    /// The identity cannot be read.
    #[error("the identity cannot be read: {0}")]
    Identity(#[from] SecretError),
    /// It is none.
    #[error("the identity's file holds no age identity; it has a line that begins with AGE-SECRET-KEY-1")]
    NoIdentity,
    /// A copy does not open.
    #[error("{} does not open with this identity, or was changed", .0.display())]
    Closed(PathBuf),
    /// There is no copy there.
    #[error("there is no whole backup at {}: it takes a file that ends in .data.age and a keystore's that ends in .keys.age", .0.display())]
    NoBackup(PathBuf),
    /// The folder is in use.
    #[error("{} is there and not empty; restore into a new folder", .0.display())]
    NotEmpty(PathBuf),
    /// What was deleted since cannot be found out.
    #[error(transparent)]
    Tombstones(#[from] TombstoneError),
    /// A part of the Lab failed.
    #[error("a part of the lab failed while it copied; its log names the place")]
    Panicked,
}

/// One file of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// Where.
    pub path: PathBuf,
    /// What of the Lab.
    pub part: Part,
    /// When it was made, milliseconds since 1970.
    pub made_at: i64,
    /// Its size, in bytes.
    pub size: u64,
}

/// What of the Lab a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The database and what people uploaded.
    Data,
    /// The keystore.
    Keys,
}

/// What came of the way back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The copy of the data.
    pub data: PathBuf,
    /// The copy of the keystore.
    pub keys: PathBuf,
    /// People, projects and conversations that had been deleted since, and stay deleted.
    pub deleted: usize,
}

/// Copies the Lab to every destination, and removes what is older than it may be.
///
/// # Errors
/// When nothing could be copied, or not to everywhere: the copies that are whole stay.
pub async fn create(config: &Config, store: &Store) -> Result<Vec<Copy>, BackupError> {
    let plan = config.backup.clone().ok_or(BackupError::NotConfigured)?;
    store.vault().tell_again().await.map_err(StoreError::from)?;
    let draft = Draft::begin(&config.data_dir)?;
    // The keystore last: it then has the key of everything that the copy of the database holds.
    store.copy_to(&draft.0.join(DATABASE)).await?;
    store.vault().copy_to(&draft.0.join(KEYSTORE)).await.map_err(StoreError::from)?;
    let blobs = config.blobs.clone();
    let written = tokio::task::spawn_blocking(move || write(&plan, &draft.0, &blobs)).await;
    written.map_err(|_| BackupError::Panicked)?
}

/// Makes a copy whenever one is due, until `ended`.
pub async fn follow(config: Config, store: Store, ended: CancellationToken) {
    let Some((plan, hours)) = config.backup.as_ref().and_then(|plan| Some((plan.clone(), plan.every_hours?))) else { return };
    let every = i64::from(hours) * 3_600_000;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = looks.tick() => {}
        }
        if let Err(error) = sweep(&config.data_dir) {
            tracing::error!(%error, "what an unfinished backup left cannot be removed");
        }
        // Asked of the destinations, so that whoever starts the Lab often does not copy it as often.
        let newest = |folder: &PathBuf| list(folder).ok()?.into_iter().map(|copy| copy.made_at).max();
        let due = plan.destinations.iter().any(|folder| newest(folder).is_none_or(|made_at| now_ms() - made_at >= every));
        if !due {
            continue;
        }
        match create(&config, &store).await {
            Ok(copies) => tracing::info!(files = copies.len(), "copied the lab"),
            Err(error) => {
                tracing::error!(%error, "the lab is not backed up; it is tried again in an hour");
                tokio::select! {
                    () = ended.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(3_600)) => {}
                }
            }
        }
    }
}

/// The files of copies in a folder, oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<Copy>, BackupError> {
    let mut copies = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
        let path = entry.map_err(|error| failed(folder, &error))?.path();
        if let Some((made_at, part)) = path.file_name().and_then(|name| name.to_str()).and_then(named) {
            let size = std::fs::metadata(&path).map_err(|error| failed(&path, &error))?.len();
            copies.push(Copy { path, part, made_at, size });
        }
    }
    copies.sort_by(|a, b| (a.made_at, &a.path).cmp(&(b.made_at, &b.path)));
    Ok(copies)
}

/// Reads a copy to its end: whether it opens with this identity and is whole. Gives the number of files in it.
///
/// # Errors
/// [`BackupError::Closed`] when it does not.
pub fn verify(copy: &Copy, identities: &[Identity]) -> Result<usize, BackupError> {
    archive::files(&copy.path, identities)
}

/// The identities of a file that only its owner can read.
///
/// # Errors
/// When there is none.
pub fn identities(file: &Path) -> Result<Vec<Identity>, BackupError> {
    let text = secret::from_file(file)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let identities: Vec<Identity> =
        lines.map(|line| line.parse().map_err(|_| BackupError::NoIdentity)).collect::<Result<_, _>>()?;
    if identities.is_empty() { Err(BackupError::NoIdentity) } else { Ok(identities) }
}

/// Puts a copy into a new folder. `from` is a copy of the data, or a folder whose newest is taken; the newest keystore beside it goes
/// with it. What `lists` and that folder say was deleted since is deleted there before anybody can open it.
///
/// # Errors
/// When the copy does not open or what was deleted since cannot be known; the new folder is then as it was.
pub async fn restore(from: &Path, identities: Vec<Identity>, to: &Path, lists: &[PathBuf]) -> Result<Restored, BackupError> {
    let folder = if from.is_dir() { from.to_owned() } else { from.parent().unwrap_or(Path::new("")).to_owned() };
    let copies = list(&folder)?;
    let newest = |part| copies.iter().rfind(|copy| copy.part == part).map(|copy| copy.path.clone());
    let data = if from.is_dir() { newest(Part::Data) } else { Some(from.to_owned()) };
    let (Some(data), Some(keys)) = (data, newest(Part::Keys)) else { return Err(BackupError::NoBackup(from.to_owned())) };
    let mut stones: Vec<Tombstone> = Vec::new();
    for folder in std::iter::once(&folder).chain(lists) {
        stones.extend(Tombstone::in_folder(folder)?);
    }
    let mut seen = HashSet::new();
    stones.retain(|stone| seen.insert(stone.clone()));
    if to.exists() && std::fs::read_dir(to).map_err(|error| failed(to, &error))?.next().is_some() {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    let was_there = to.exists();
    let restored = put_back(&data, &keys, identities, to, &stones).await;
    if restored.is_err() {
        // Half of it, or with what was deleted still in it, it must not stay.
        let _ = std::fs::remove_dir_all(to);
        if was_there {
            let _ = make_private_dir(to);
        }
    }
    restored.map(|()| Restored { data, keys, deleted: stones.len() })
}

async fn put_back(data: &Path, keys: &Path, identities: Vec<Identity>, to: &Path, stones: &[Tombstone]) -> Result<(), BackupError> {
    make_private_dir(to).map_err(|error| failed(to, &error))?;
    let (data, keys, folder) = (data.to_owned(), keys.to_owned(), to.to_owned());
    let unpacked = tokio::task::spawn_blocking(move || {
        archive::unpack(&data, &identities, &folder)?;
        archive::unpack(&keys, &identities, &folder)
    });
    unpacked.await.map_err(|_| BackupError::Panicked)??;
    for file in [DATABASE, KEYSTORE] {
        if !to.join(file).is_file() {
            return Err(BackupError::NoBackup(to.join(file)));
        }
    }
    vault::bury_in(&to.join(KEYSTORE), stones).await.map_err(StoreError::from)?;
    let scopes: Vec<Scope> = stones.iter().filter_map(Tombstone::scope).collect();
    store::forget_in(&to.join(DATABASE), &scopes).await?;
    Ok(())
}

/// Writes both files to every destination. What one of them lacks the others have nevertheless.
fn write(plan: &Plan, draft: &Path, blobs: &Path) -> Result<Vec<Copy>, BackupError> {
    let (made_at, mut copies, mut failures) = (now_ms(), Vec::new(), Vec::new());
    for folder in &plan.destinations {
        // Keys that are too old go whether or not newer ones can be written: people were told when a deletion is final. Data waits
        // for its successor.
        if let Err(error) = prune(plan, folder, Part::Keys, made_at) {
            failures.push(error);
            continue;
        }
        let written = [Part::Data, Part::Keys].into_iter().try_fold(Vec::new(), |mut written, part| {
            let path = folder.join(Named(made_at, part).to_string());
            let parts: &[(&Path, &str)] = match part {
                Part::Data => &[(&draft.join(DATABASE), DATABASE), (blobs, BLOBS)],
                Part::Keys => &[(&draft.join(KEYSTORE), KEYSTORE)],
            };
            let size = archive::pack(parts, &plan.recipients, &path)?;
            written.push(Copy { path, part, made_at, size });
            Ok(written)
        });
        match written.and_then(|written| prune(plan, folder, Part::Data, made_at).map(|()| written)) {
            Ok(written) => copies.extend(written),
            Err(error) => failures.push(error),
        }
    }
    let (failed, of) = (failures.len(), plan.destinations.len());
    match failures.into_iter().next() {
        None => Ok(copies),
        Some(cause) => Err(BackupError::Incomplete { failed, of, cause: Box::new(cause) }),
    }
}

/// Removes what is older than it may be.
fn prune(plan: &Plan, folder: &Path, part: Part, now: i64) -> Result<(), BackupError> {
    let days = match part {
        Part::Data => plan.keep_days,
        Part::Keys => plan.keystore_keep_days,
    };
    for copy in list(folder)?.into_iter().filter(|copy| copy.part == part) {
        if now - copy.made_at >= i64::from(days) * DAY_MS {
            std::fs::remove_file(&copy.path).map_err(|error| failed(&copy.path, &error))?;
        }
    }
    Ok(())
}

/// The folder in which a copy is prepared. It goes when this does.
struct Draft(PathBuf);

impl Draft {
    /// A new folder; what a sudden death left of older ones goes.
    fn begin(data_dir: &Path) -> Result<Self, BackupError> {
        sweep(data_dir)?;
        let path = data_dir.join(format!("{TEMPORARY}{}", wire::RequestId::random()));
        make_private_dir(&path).map_err(|error| failed(&path, &error))?;
        Ok(Self(path))
    }
}

/// Removes the folders that copies were prepared in and that a sudden death left: they hold wrapped keys, of people deleted since too.
/// One that is younger than [`STALE`] may be another process's.
fn sweep(data_dir: &Path) -> Result<(), BackupError> {
    let in_data = |error: &std::io::Error| failed(data_dir, error);
    for entry in std::fs::read_dir(data_dir).map_err(|error| in_data(&error))? {
        let entry = entry.map_err(|error| in_data(&error))?;
        let old = || entry.metadata().and_then(|old| old.modified()).ok()?.elapsed().ok();
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY));
        if is_ours && old().is_some_and(|age| age > STALE) {
            std::fs::remove_dir_all(entry.path()).map_err(|error| in_data(&error))?;
        }
    }
    Ok(())
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It holds nothing that is not sealed; the next copy tries again.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file's name: when it was made, to the second for people and to the millisecond for us, and what it holds.
struct Named(i64, Part);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(made_at, part) = self;
        let day = u64::try_from(made_at / DAY_MS).unwrap_or_default();
        let ((year, month, date), second) = (calendar::date(day), made_at % DAY_MS / 1_000);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        let part = match part {
            Part::Data => "data",
            Part::Keys => "keys",
        };
        write!(f, "1k4-{year:04}{month:02}{date:02}T{hour:02}{minute:02}{second:02}Z-{made_at}.{part}.age")
    }
}

/// What a file's name says; `None` for what is no copy.
fn named(name: &str) -> Option<(i64, Part)> {
    let (stem, part) = match (name.strip_suffix(".data.age"), name.strip_suffix(".keys.age")) {
        (Some(stem), _) => (stem, Part::Data),
        (_, Some(stem)) => (stem, Part::Keys),
        _ => return None,
    };
    let made_at = stem.strip_prefix("1k4-")?.rsplit_once('-')?.1.parse().ok()?;
    (Named(made_at, part).to_string() == name).then_some((made_at, part))
}

fn failed(path: &Path, error: &std::io::Error) -> BackupError {
    BackupError::File { path: path.to_owned(), kind: error.kind() }
}

impl From<VaultError> for BackupError {
    fn from(error: VaultError) -> Self {
        Self::Store(error.into())
    }
}

#[cfg(test)]
mod tests;
