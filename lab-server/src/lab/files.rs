//! The files of projects: names and versions in the store, contents sealed in a folder.
//!
//! A content passes through in chunks of 1 MiB both ways; a file that is written or read takes some 3 MiB of memory, whatever its
//! size. The same content lies once in a project: it is found by a keyed hash of it, which tells nobody else anything.
//!
//! A content is written under a passing name, brought to the disk, given its name and only then told to the store. Whatever fails or
//! is dropped before that leaves nothing but a file that no row knows, and those are removed when the Lab starts.

mod blob;
mod path;

use std::{io, path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncReadExt};
use wire::{BlobId, FileId, ProjectId, UserId};

pub use path::{InvalidPath, Path};

use crate::{
    lab::content::Actor,
    store::{FileEntry, FileRef, FileVersion, NewFileVersion, Purged, Store, StoreError, make_private_dir},
};
use blob::{CHUNK, Draft, Reader};

/// Bytes of a file at most.
pub const MAX_FILE: u64 = 50 * 1024 * 1024;
/// How much is read of a source at once.
const READ: usize = 64 * 1024;

/// The files of all projects; clones are the same.
#[derive(Debug, Clone)]
pub struct Files(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    folder: PathBuf,
}

/// Why a file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The store says no, or what lies on the disk is not what was written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is larger than a file may be, or than the caller takes.
    #[error("the file is larger than that; a file may have 50 MiB")]
    TooLarge,
    /// It is no text.
    #[error("the file is no text in UTF-8")]
    NotText,
    /// Whoever sends it stopped in the middle. Nothing was kept of it.
    #[error("the file did not arrive as a whole: {0}")]
    Source(io::Error),
    /// The disk failed or is full.
    #[error("the disk failed: {0}")]
    Disk(io::Error),
}

/// A text file's content, or its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Of which version.
    pub version: FileVersion,
    /// The text.
    pub text: String,
    /// Whether there is more of it.
    pub cut: bool,
}

impl Files {
    /// Files whose contents lie in this folder, which is made where it is missing. What lies there and is nobody's is removed.
    ///
    /// # Errors
    /// When the folder cannot be made or read, or the database fails.
    pub async fn open(store: Store, folder: PathBuf) -> Result<Self, FileError> {
        let files = Self(Arc::new(Inner { store, folder }));
        files.sweep().await?;
        Ok(files)
    }

    /// Makes what `source` gives the newest version of the file at `path`. With `seen`, only as long as the file is of that version;
    /// 0 stands for none.
    ///
    /// # Errors
    /// [`FileError`] says why not; nothing has changed then.
    pub async fn write(
        &self,
        owner: UserId,
        project: ProjectId,
        path: &Path,
        seen: Option<i64>,
        source: impl AsyncRead + Send,
        actor: Actor,
    ) -> Result<FileVersion, FileError> {
        let key = self.0.store.project_key(owner, project).await?;
        let (folder, blob) = (self.folder(project), BlobId::random());
        let mut draft = on_disk(move || Draft::begin(&folder, blob, key)).await?;
        let mut source = std::pin::pin!(source);
        let mut waiting = BytesMut::with_capacity(CHUNK + READ);
        let placed = loop {
            let read = (&mut source).take(READ as u64).read_buf(&mut waiting).await.map_err(FileError::Source)?;
            if draft.size() + waiting.len() as u64 > MAX_FILE {
                return Err(FileError::TooLarge);
            }
            if read == 0 {
                break on_disk(move || draft.push(&waiting, true)?.place()).await?;
            }
            if waiting.len() > CHUNK {
                let rest = BytesMut::from(&waiting[CHUNK..]);
                waiting.truncate(CHUNK);
                (draft, waiting) = on_disk(move || draft.push(&waiting, false).map(|draft| (draft, waiting))).await?;
                waiting.clear();
                waiting.extend_from_slice(&rest);
            }
        };
        let (store, path) = (self.0.store.clone(), path.clone());
        // A task of its own: a caller who leaves now must not leave it open whether there is a version.
        let told = tokio::spawn(async move {
            let blob::Placed { draft, address } = placed;
            let size = i64::try_from(draft.size()).unwrap_or(i64::MAX);
            let new = NewFileVersion { blob, address, size, media_type: draft.media_type().to_owned(), actor };
            let added = store.add_file_version(owner, project, &path, seen, new).await;
            match &added {
                // The project had it: the other one stays.
                Ok(version) if version.blob != blob => on_disk(move || Ok(drop(draft))).await?,
                // Whether the row is there is not known: if not, it is removed when the Lab starts.
                Ok(_) | Err(StoreError::Database(_)) => draft.keep(),
                Err(_) => on_disk(move || Ok(drop(draft))).await?,
            }
            Ok(added?)
        });
        finished(told.await)
    }

    /// A file's version, the newest unless told otherwise, and its content.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such file. The stream ends with an error when what lies on the disk is not what
    /// was written.
    pub async fn read(
        &self,
        owner: UserId,
        project: ProjectId,
        file: &FileRef,
        version: Option<i64>,
    ) -> Result<(FileVersion, impl Stream<Item = Result<Bytes, FileError>> + Send + use<>), FileError> {
        let version = self.0.store.file_version(owner, project, file, version).await?.ok_or(StoreError::Missing("file"))?;
        let key = self.0.store.project_key(owner, project).await?;
        let (folder, blob) = (self.folder(project), version.blob);
        let size = u64::try_from(version.size).map_err(|_| StoreError::Corrupt("size"))?;
        let reader = opened(move || Reader::open(&folder, blob, size, key)).await?;
        let chunks =
            futures_util::stream::try_unfold(reader, |mut reader| opened(move || Ok(reader.next()?.map(|chunk| (chunk, reader)))));
        Ok((version, chunks))
    }

    /// As [`Files::read`], as a whole.
    ///
    /// # Errors
    /// As [`Files::read`], and [`FileError::TooLarge`] when it has more bytes than `limit`.
    pub async fn read_whole(
        &self,
        owner: UserId,
        project: ProjectId,
        file: &FileRef,
        version: Option<i64>,
        limit: usize,
    ) -> Result<(FileVersion, Bytes), FileError> {
        let (version, chunks) = self.read(owner, project, file, version).await?;
        if usize::try_from(version.size).map_or(true, |size| size > limit) {
            return Err(FileError::TooLarge);
        }
        Ok((version, collect(chunks, limit).await?.freeze()))
    }

    /// A text file's beginning, at most `limit` bytes of it.
    ///
    /// # Errors
    /// As [`Files::read`], and [`FileError::NotText`] when it is no text.
    pub async fn read_text(
        &self,
        owner: UserId,
        project: ProjectId,
        file: &FileRef,
        version: Option<i64>,
        limit: usize,
    ) -> Result<Text, FileError> {
        let (version, chunks) = self.read(owner, project, file, version).await?;
        if version.media_type != blob::TEXT {
            return Err(FileError::NotText);
        }
        let mut bytes = Vec::from(collect(chunks, limit).await?);
        bytes.truncate(limit);
        // A character that the limit cuts is left out.
        let whole = std::str::from_utf8(&bytes).map_or_else(|error| error.valid_up_to(), str::len);
        bytes.truncate(whole);
        let text = String::from_utf8(bytes).map_err(|_| FileError::NotText)?;
        let cut = usize::try_from(version.size).map_or(true, |size| size > text.len());
        Ok(Text { version, text, cut })
    }

    /// A project's files that are not deleted, by their paths.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such project.
    pub async fn list(&self, owner: UserId, project: ProjectId) -> Result<Vec<FileEntry>, FileError> {
        let (mut files, _) = self.0.store.files(owner, project, false, None, i64::MAX as u64 - 1).await?;
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }

    /// Deletes a file so that it can be brought back.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such file, or it is deleted.
    pub async fn delete(&self, owner: UserId, project: ProjectId, file: &FileRef) -> Result<(), FileError> {
        let file = self.0.store.file(owner, project, file).await?.ok_or(StoreError::Missing("file"))?;
        Ok(self.0.store.delete_file(owner, file.id).await?)
    }

    /// Gives a file another path.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such file, [`StoreError::Taken`] when there is one of that path.
    pub async fn rename(
        &self,
        owner: UserId,
        project: ProjectId,
        file: &FileRef,
        to: &Path,
        actor: Actor,
    ) -> Result<FileVersion, FileError> {
        let file = self.0.store.file(owner, project, file).await?.ok_or(StoreError::Missing("file"))?;
        Ok(self.0.store.rename_file(owner, file.id, to, None, actor).await?)
    }

    /// Deletes a file for good, with all its versions and what only they have.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such file.
    pub async fn purge(&self, owner: UserId, file: FileId) -> Result<(), FileError> {
        let Purged { project, blobs } = self.0.store.purge_file(owner, file).await?;
        let folder = self.folder(project);
        let removed =
            on_disk(move || blobs.iter().try_for_each(|blob| gone(std::fs::remove_file(folder.join(blob.to_string()))))).await;
        if let Err(error) = removed {
            // No row knows them any more: they go when the Lab starts.
            tracing::warn!(%error, %project, "cannot remove contents of files that were deleted");
        }
        Ok(())
    }

    /// Removes the contents of a project that was deleted.
    ///
    /// # Errors
    /// When the disk fails; they go when the Lab starts then.
    pub async fn forget(&self, project: ProjectId) -> Result<(), FileError> {
        let folder = self.folder(project);
        on_disk(move || gone(std::fs::remove_dir_all(folder))).await
    }

    /// Removes what no row knows: what was being written when the Lab was stopped, and what could not be removed when it was deleted.
    async fn sweep(&self) -> Result<(), FileError> {
        let folder = self.0.folder.clone();
        let projects: Vec<ProjectId> = on_disk(move || {
            make_private_dir(&folder)?;
            names(&folder)
        })
        .await?;
        for project in projects {
            let known = self.0.store.blobs_of_project(project).await?;
            let folder = self.folder(project);
            on_disk(move || {
                for entry in std::fs::read_dir(&folder)? {
                    let path = entry?.path();
                    let blob = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
                    if !blob.is_some_and(|blob: BlobId| known.contains(&blob)) {
                        gone(std::fs::remove_file(&path))?;
                    }
                }
                if known.is_empty() { gone(std::fs::remove_dir(&folder)) } else { Ok(()) }
            })
            .await?;
        }
        Ok(())
    }

    fn folder(&self, project: ProjectId) -> PathBuf {
        self.0.folder.join(project.to_string())
    }
}

/// The entries of a folder that are called by an identity of this kind.
fn names<T: std::str::FromStr>(folder: &std::path::Path) -> io::Result<Vec<T>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        found.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
    }
    Ok(found)
}

/// What is not there is gone.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Chunks until there are at least `limit` bytes, or all.
async fn collect(chunks: impl Stream<Item = Result<Bytes, FileError>> + Send, limit: usize) -> Result<BytesMut, FileError> {
    use futures_util::TryStreamExt;

    let mut chunks = std::pin::pin!(chunks);
    let mut all = BytesMut::new();
    while all.len() < limit
        && let Some(chunk) = chunks.try_next().await?
    {
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// Work with the disk, where it keeps nobody waiting.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, FileError> {
    opened(|| work().map_err(FileError::Disk)).await
}

async fn opened<T: Send + 'static>(work: impl FnOnce() -> Result<T, FileError> + Send + 'static) -> Result<T, FileError> {
    finished(tokio::task::spawn_blocking(work).await)
}

/// A task's result; its panic is the caller's too.
fn finished<T>(joined: Result<Result<T, FileError>, tokio::task::JoinError>) -> Result<T, FileError> {
    match joined {
        Ok(done) => done,
        Err(ended) if ended.is_panic() => std::panic::resume_unwind(ended.into_panic()),
        Err(_) => Err(FileError::Store(StoreError::Refused("the Lab is being stopped"))),
    }
}
