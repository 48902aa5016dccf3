//! Signed heads, in the database and in a file outside of it: what a chain alone cannot show, they do.

use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use ed25519_dalek::SigningKey;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::ProjectId;

use super::{Log, Newest, chain::Head};
use crate::{
    random::random_bytes,
    store::{HeadRow, Store, StoreError, make_private_dir, make_private_file, now_ms},
};

/// A head is signed when so many rows were added since the last one (SECURITY 4.8) …
pub(super) const ROWS: i64 = 1_000;
/// … and after this long where fewer were.
const PERIOD: Duration = Duration::from_secs(60);
/// The key's name among the Lab's secrets.
const KEY: &str = "operation-heads";

/// Why heads cannot be signed or kept.
#[derive(Debug, thiserror::Error)]
pub enum HeadsError {
    /// The key or the database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file outside of the database.
    #[error("cannot use the file of signed heads {}: {source}; check [audit] heads, its folder and its permissions", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// The key, and both places where heads are kept.
pub(super) struct Sink {
    store: Store,
    key: SigningKey,
    file: PathBuf,
}

impl Sink {
    pub(super) async fn open(store: Store, file: &Path) -> Result<Self, HeadsError> {
        let key = signing_key(&store).await?;
        let path = file.to_owned();
        let prepared = tokio::task::spawn_blocking(move || prepare(&path)).await.unwrap_or_else(|_| Err(panicked()));
        prepared.map_err(|source| HeadsError::File { path: file.to_owned(), source })?;
        Ok(Self { store, key, file: file.to_owned() })
    }

    /// Signs and keeps. The file outside of the database is first: it is the one that whoever can write the database cannot.
    async fn keep(&self, rows: &[(ProjectId, Newest)], ended: bool) -> Result<(), HeadsError> {
        let now = now_ms();
        let heads: Vec<Head> =
            rows.iter().map(|(project, newest)| Head::sign(&self.key, *project, newest.seq, now, newest.hash, ended)).collect();
        let lines: Result<String, serde_json::Error> = heads.iter().map(Head::to_line).collect();
        let lines = lines.map_err(|_| StoreError::Corrupt("head"))?;
        let path = self.file.clone();
        let appended = tokio::task::spawn_blocking(move || append(&path, lines.as_bytes())).await;
        let appended = appended.unwrap_or_else(|_| Err(panicked()));
        appended.map_err(|source| HeadsError::File { path: self.file.clone(), source })?;
        if !ended {
            let rows: Vec<HeadRow> = heads.iter().map(HeadRow::from).collect();
            self.store.add_operation_heads(rows).await?;
        }
        Ok(())
    }

    /// Says that a log ends here: its owner has it deleted.
    pub(super) async fn end(&self, project: ProjectId, newest: Newest) -> Result<(), HeadsError> {
        self.keep(&[(project, newest)], true).await
    }
}

/// Signs heads until it is told to finish.
#[derive(Debug)]
pub struct Keeper {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Signs what is not signed yet, and ends.
    pub async fn finish(self) {
        self.stop.cancel();
        // A part that panicked was reported by the hook, and keeps nobody from closing the store.
        let _ = self.task.await;
    }

    pub(super) fn start(log: Log) -> Self {
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(sign_heads(log, stop.clone())), stop }
    }
}

async fn sign_heads(log: Log, stop: CancellationToken) {
    let mut periods = tokio::time::interval(PERIOD);
    periods.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        let last = tokio::select! {
            () = stop.cancelled() => true,
            () = log.0.due.notified() => false,
            _ = periods.tick() => false,
        };
        match log.sign_heads().await {
            Ok(()) => failing = false,
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "cannot keep the heads of operation logs; they are signed as soon as it can be done");
                }
                failing = true;
            }
        }
        if last {
            return;
        }
    }
}

impl Log {
    /// Signs the head of every log that has rows which no head speaks for.
    ///
    /// # Errors
    /// When the file or the database fails; what was not signed is the next time.
    pub async fn sign_heads(&self) -> Result<(), HeadsError> {
        let Some(sink) = self.0.sink.get() else { return Ok(()) };
        let rows: Vec<(ProjectId, Newest)> = self.0.unsigned().drain().collect();
        if rows.is_empty() {
            return Ok(());
        }
        let kept = sink.keep(&rows, false).await;
        if kept.is_err() {
            let mut unsigned = self.0.unsigned();
            for (project, newest) in rows {
                // A newer row may have come meanwhile.
                unsigned.entry(project).or_insert(newest);
            }
        }
        kept
    }
}

/// The Lab's key for heads, made the first time that it is asked for.
pub(super) async fn signing_key(store: &Store) -> Result<SigningKey, StoreError> {
    let secret = store.lab_secret(KEY, || random_bytes::<32>().to_vec()).await?;
    let secret: &[u8; 32] = secret.as_slice().try_into().map_err(|_| StoreError::Corrupt("key for heads"))?;
    Ok(SigningKey::from_bytes(secret))
}

/// Makes the file where it is missing, and ends a line that a power cut left without an end.
fn prepare(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_private_dir(folder)?;
    }
    make_private_file(path)?;
    let torn = last_byte(path)?.is_some_and(|byte| byte != b'\n');
    if torn { append(path, b"\n") } else { Ok(()) }
}

fn last_byte(path: &Path) -> std::io::Result<Option<u8>> {
    use std::io::{Read, Seek, SeekFrom};

    let mut file = std::fs::File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(None);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut byte = [0];
    file.read_exact(&mut byte)?;
    Ok(Some(byte[0]))
}

/// One write, so that two processes' lines do not mix, and then down to the disk.
fn append(path: &Path, lines: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(lines)?;
    file.sync_data()
}

fn panicked() -> std::io::Error {
    std::io::Error::other("a part of the lab failed")
}

impl From<&Head> for HeadRow {
    fn from(head: &Head) -> Self {
        Self {
            project_id: head.project.to_string(),
            seq: head.seq,
            hash: head.hash.to_vec(),
            signature: head.signature.to_vec(),
            time: head.time,
        }
    }
}
