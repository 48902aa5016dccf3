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
                Ok(version) if version.blob != blob => gone_from_disk(draft).await?,
                Ok(_) => draft.keep(),
                // Whether the row is there is not known: if not, it is removed when the Lab starts.
                Err(error @ StoreError::Database(_)) if !error.is_disk_full() => draft.keep(),
                Err(_) => gone_from_disk(draft).await?,
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

/// Removes what is not kept.
async fn gone_from_disk(draft: Draft) -> Result<(), FileError> {
    on_disk(move || {
        drop(draft);
        Ok(())
    })
    .await
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

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::{error::ApiError, store::scratch::Scratch};

    struct Space {
        scratch: Scratch,
        files: Files,
        owner: UserId,
        project: ProjectId,
    }

    impl Space {
        async fn new() -> Self {
            let scratch = Scratch::new().await;
            let owner = scratch.store.add_user("ada").await.unwrap().id;
            let project = scratch.store.add_project(owner, "one").await.unwrap().id;
            let files = Files::open(scratch.store.clone(), scratch.dir.join("blobs")).await.unwrap();
            Self { scratch, files, owner, project }
        }

        async fn write(&self, path: &str, bytes: &[u8]) -> Result<FileVersion, FileError> {
            self.write_seen(path, None, bytes).await
        }

        async fn write_seen(&self, path: &str, seen: Option<i64>, bytes: &[u8]) -> Result<FileVersion, FileError> {
            let source = Cursor::new(bytes.to_vec());
            self.files.write(self.owner, self.project, &path.parse().unwrap(), seen, source, Actor::Person).await
        }

        async fn bytes(&self, file: &FileRef, version: Option<i64>) -> Result<Bytes, FileError> {
            Ok(self.files.read_whole(self.owner, self.project, file, version, 1 << 30).await?.1)
        }

        fn blobs(&self) -> Vec<PathBuf> {
            let folder = self.files.folder(self.project);
            let mut found: Vec<_> =
                std::fs::read_dir(folder).map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default();
            found.sort();
            found
        }
    }

    fn path(text: &str) -> FileRef {
        FileRef::Path(text.parse().unwrap())
    }

    #[tokio::test]
    async fn a_file_is_what_it_was_at_each_version() {
        let space = Space::new().await;
        let (store, owner, project) = (&space.scratch.store, space.owner, space.project);
        let first = space.write("notes/a.md", b"one").await.unwrap();
        let second = space.write("notes/a.md", b"two").await.unwrap();
        assert_eq!((first.version, second.version, first.file), (1, 2, second.file));
        assert_eq!(second.media_type, "text/plain; charset=utf-8");
        let by_id = FileRef::Id(first.file);
        assert_eq!(&space.bytes(&by_id, Some(1)).await.unwrap()[..], b"one");
        assert_eq!(&space.bytes(&path("notes/a.md"), None).await.unwrap()[..], b"two");

        // What somebody has not seen is not written over.
        let stale = space.write_seen("notes/a.md", Some(1), b"three").await;
        assert!(matches!(stale, Err(FileError::Store(StoreError::Stale("file")))));
        assert!(matches!(space.write_seen("notes/a.md", Some(0), b"x").await, Err(FileError::Store(StoreError::Stale(_)))));
        assert_eq!(space.blobs().len(), 2);

        // The same content lies there once, and goes with the last that has it.
        let copy = space.write("b.md", b"one").await.unwrap();
        assert_eq!((copy.blob, space.blobs().len()), (first.blob, 2));

        let moved = space.files.rename(owner, project, &by_id, &"c.md".parse().unwrap(), Actor::Person).await.unwrap();
        assert_eq!((moved.version, moved.path.as_str()), (3, "c.md"));
        assert!(matches!(
            space.files.rename(owner, project, &by_id, &"b.md".parse().unwrap(), Actor::Person).await,
            Err(FileError::Store(StoreError::Taken(_)))
        ));
        let listed: Vec<_> =
            space.files.list(owner, project).await.unwrap().into_iter().map(|file| file.path.as_str().to_owned()).collect();
        assert_eq!(listed, ["b.md", "c.md"]);

        space.files.delete(owner, project, &by_id).await.unwrap();
        assert!(space.bytes(&path("c.md"), None).await.is_err());
        let back = store.restore_file(owner, first.file, 1, None, Actor::Person).await.unwrap();
        assert_eq!((back.version, back.path.as_str()), (4, "notes/a.md"));
        assert_eq!(&space.bytes(&path("notes/a.md"), None).await.unwrap()[..], b"one");
        let versions = store.file_versions(owner, project, first.file, None, 10).await.unwrap();
        assert_eq!(versions.iter().map(|version| version.version).collect::<Vec<_>>(), [4, 3, 2, 1]);

        space.files.purge(owner, first.file).await.unwrap();
        assert_eq!(space.blobs().len(), 1);
        assert_eq!(&space.bytes(&path("b.md"), None).await.unwrap()[..], b"one");
        space.files.purge(owner, copy.file).await.unwrap();
        assert!(space.blobs().is_empty());
    }

    #[tokio::test]
    async fn a_file_is_its_owners_alone() {
        let space = Space::new().await;
        let (store, project) = (&space.scratch.store, space.project);
        let eve = store.add_user("eve").await.unwrap().id;
        let hers = store.add_project(eve, "hers").await.unwrap().id;
        let file = space.write("a", b"secret").await.unwrap().file;
        let id = FileRef::Id(file);
        let missing = |error: FileError| assert!(matches!(error, FileError::Store(StoreError::Missing(_))), "{error}");
        for project in [project, hers] {
            missing(space.files.read(eve, project, &id, None).await.map(drop).unwrap_err());
            missing(space.files.delete(eve, project, &id).await.unwrap_err());
        }
        missing(space.files.write(eve, project, &"a".parse().unwrap(), None, &b"x"[..], Actor::Person).await.unwrap_err());
        missing(space.files.purge(eve, file).await.unwrap_err());
        missing(space.files.list(eve, project).await.unwrap_err());
        assert!(store.delete_file(eve, file).await.is_err());
        assert!(store.rename_file(eve, file, &"b".parse().unwrap(), None, Actor::Person).await.is_err());
        assert!(store.restore_file(eve, file, 1, None, Actor::Person).await.is_err());
        assert_eq!(&space.bytes(&id, None).await.unwrap()[..], b"secret");
        // The same content in another project tells nothing: it is another blob.
        let other = store.add_project(space.owner, "two").await.unwrap().id;
        space.files.write(space.owner, other, &"a".parse().unwrap(), None, &b"secret"[..], Actor::Person).await.unwrap();
        assert_ne!(store.blobs_of_project(project).await.unwrap(), store.blobs_of_project(other).await.unwrap());
    }

    #[tokio::test]
    async fn every_change_to_a_content_on_disk_is_found() {
        let space = Space::new().await;
        let bytes: Vec<u8> = (0..3 * CHUNK + 5).map(|at| u8::try_from(at % 251).unwrap()).collect();
        space.write("big", &bytes).await.unwrap();
        space.write("other", &bytes[1..]).await.unwrap();
        let file = path("big");
        assert_eq!(&space.bytes(&file, None).await.unwrap()[..], bytes);
        let blob = space.files.folder(space.project).join(
            space.scratch.store.file_version(space.owner, space.project, &file, None).await.unwrap().unwrap().blob.to_string(),
        );
        let sound = std::fs::read(&blob).unwrap();
        assert!(!sound.windows(64).any(|window| window == &bytes[..64]));
        let piece = CHUNK + crate::vault::OVERHEAD;
        let swapped = |one: usize, two: usize| {
            let mut changed = sound.clone();
            let (a, b) = (one * piece, two * piece);
            for at in 0..piece {
                changed.swap(a + at, b + at);
            }
            changed
        };
        let mut cases = vec![
            swapped(0, 1),
            swapped(0, 2),
            swapped(1, 2),
            sound[..3 * piece].to_vec(),
            sound[..sound.len() - 1].to_vec(),
            sound[piece..].to_vec(),
            [&sound[..piece], &sound[2 * piece..]].concat(),
            [&sound[..], &[0]].concat(),
            [&sound[..piece], &sound[..]].concat(),
            [&sound[..piece], &sound[..piece], &sound[2 * piece..]].concat(),
            Vec::new(),
        ];
        for at in [0, 1, 5, 30, 60, piece - 1, piece, 2 * piece + 77, 3 * piece, sound.len() - 1] {
            let mut flipped = sound.clone();
            flipped[at] ^= 1;
            cases.push(flipped);
        }
        // A chunk of another file of the project, at the same number.
        let other = space.blobs().into_iter().find(|other| *other != blob).unwrap();
        let mut foreign = sound.clone();
        foreign[..piece].copy_from_slice(&std::fs::read(other).unwrap()[..piece]);
        cases.push(foreign);
        for (number, case) in cases.into_iter().enumerate() {
            std::fs::write(&blob, case).unwrap();
            assert!(space.bytes(&file, None).await.is_err(), "case {number} was not found");
        }
        std::fs::write(&blob, sound).unwrap();
        assert_eq!(space.bytes(&file, None).await.unwrap().len(), bytes.len());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn versions_have_no_gaps_whoever_writes() {
        let space = Arc::new(Space::new().await);
        let mut writers = tokio::task::JoinSet::new();
        for number in 0..32 {
            let space = Arc::clone(&space);
            writers.spawn(async move { space.write("one", format!("content {number}").as_bytes()).await.unwrap().version });
        }
        let mut versions = writers.join_all().await;
        versions.sort_unstable();
        assert_eq!(versions, (1..=32).collect::<Vec<_>>());
        assert_eq!(space.blobs().len(), 32);
    }

    #[tokio::test]
    async fn what_breaks_off_or_is_too_large_leaves_nothing() {
        let space = Space::new().await;
        let place: Path = "a".parse().unwrap();
        let write = |source| space.files.write(space.owner, space.project, &place, None, source, Actor::Person);
        let most = vec![7_u8; usize::try_from(MAX_FILE).unwrap()];
        let largest = write(Box::pin(Cursor::new(most.clone())) as std::pin::Pin<Box<dyn AsyncRead + Send>>).await.unwrap();
        assert_eq!((largest.size, space.blobs().len()), (i64::try_from(MAX_FILE).unwrap(), 1));
        let larger = Box::pin(Cursor::new(most).chain(&b"x"[..]));
        assert!(matches!(write(larger).await, Err(FileError::TooLarge)));

        // A source that fails, and one whose caller leaves.
        let (mut far, near) = tokio::io::duplex(CHUNK);
        let sent = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut far, &vec![1; 3 * CHUNK]).await.unwrap();
            far
        });
        let writing = write(Box::pin(near));
        tokio::select! {
            written = writing => panic!("it ended: {:?}", written.map(|version| version.version)),
            far = sent => drop(far.unwrap()),
        }
        // What a blocking task held goes when that task is over.
        tokio::time::timeout(std::time::Duration::from_secs(10), async {
            while space.blobs().len() > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        assert_eq!(
            space.scratch.store.file(space.owner, space.project, &FileRef::Path(place.clone())).await.unwrap().unwrap().version,
            1
        );
    }

    /// What the test below runs in a process whose files may have few MiB.
    #[cfg(unix)]
    #[tokio::test]
    #[ignore = "needs the limit that the test below gives it"]
    async fn within_a_limit() {
        let space = Space::new().await;
        let large = space.write("a", &vec![7; 12 * CHUNK]).await;
        assert_eq!(ApiError::from(large.unwrap_err()), ApiError::NoSpace);
        assert!(space.blobs().is_empty());
        assert_eq!(space.write("a", b"small").await.unwrap().version, 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_disk_that_takes_no_more_leaves_nothing_and_says_so() {
        // The limit is a process's, and counts blocks of 512 or 1024 bytes. Where its signal is not ignored it ends the process.
        let script = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" --exact --ignored lab::files::tests::within_a_limit";
        let program = std::env::current_exe().unwrap();
        let run = std::process::Command::new("sh").args(["-c", script]).arg(program).output().unwrap();
        let told = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&run.stderr));
    }

    /// A device that answers every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_from_a_broken_one() {
        use std::io::Write;

        use axum::response::IntoResponse;

        let full = std::fs::File::options().write(true).open("/dev/full").unwrap().write_all(b"x").unwrap_err();
        assert_eq!(ApiError::from(FileError::Disk(full)).into_response().status(), 507);
        let broken = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(ApiError::from(FileError::Disk(broken)), ApiError::Internal);
    }

    #[tokio::test]
    async fn a_database_that_takes_no_more_leaves_nothing_and_says_so() {
        use sea_orm::{ConnectionTrait, TransactionTrait};

        let space = Space::new().await;
        let db = space.scratch.store.connection();
        let limit = async |pages: u32| {
            // It is each connection's own.
            let mut held = Vec::new();
            for _ in 0..crate::store::CONNECTIONS {
                let connection = db.begin().await.unwrap();
                connection.execute_unprepared(&format!("PRAGMA max_page_count = {pages}")).await.unwrap();
                held.push(connection);
            }
        };
        // No fewer than there are.
        limit(1).await;
        let name = |number: usize| format!("{number}-{}", "x".repeat(500));
        let mut written = 0;
        let refused = loop {
            match space.write(&name(written), name(written).as_bytes()).await {
                Ok(_) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 500, "it takes all");
        };
        assert_eq!(ApiError::from(refused), ApiError::NoSpace);
        assert_eq!(space.blobs().len(), written);
        limit(1 << 20).await;
        assert_eq!(space.write(&name(written), b"small").await.unwrap().version, 1);
        assert_eq!(space.blobs().len(), written + 1);
    }

    #[tokio::test]
    async fn what_no_row_knows_goes_when_the_lab_starts() {
        let space = Space::new().await;
        space.write("a", b"kept").await.unwrap();
        let kept = space.blobs();
        let folder = space.files.folder(space.project);
        std::fs::write(folder.join(BlobId::random().to_string()), b"orphan").unwrap();
        std::fs::write(folder.join(format!("{}.part", BlobId::random())), b"half").unwrap();
        let elsewhere = space.files.0.folder.join(ProjectId::random().to_string());
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join(BlobId::random().to_string()), b"of a deleted project").unwrap();
        Files::open(space.scratch.store.clone(), space.files.0.folder.clone()).await.unwrap();
        assert_eq!((space.blobs(), elsewhere.exists()), (kept, false));
        assert_eq!(&space.bytes(&path("a"), None).await.unwrap()[..], b"kept");
    }

    #[tokio::test]
    async fn a_content_is_known_by_its_bytes() {
        let space = Space::new().await;
        let cases: [(&[u8], &str); 9] = [
            (b"", "text/plain; charset=utf-8"),
            (b"<html><script>", "text/plain; charset=utf-8"),
            ("ä".as_bytes(), "text/plain; charset=utf-8"),
            (b"\x89PNG\r\n\x1a\nrest", "image/png"),
            (b"RIFF0000WEBPVP8 ", "image/webp"),
            (b"%PDF-1.7", "application/pdf"),
            (b"a\0b", "application/octet-stream"),
            (b"\xff\xfe", "application/octet-stream"),
            (b"cut \xc3", "application/octet-stream"),
        ];
        for (number, (bytes, expected)) in cases.into_iter().enumerate() {
            assert_eq!(space.write(&format!("f{number}"), bytes).await.unwrap().media_type, expected, "{number}");
        }
        // A character that two chunks share is one.
        let mut text = vec![b'a'; CHUNK - 1];
        text.extend("äöü".as_bytes());
        space.write("text", &text).await.unwrap();
        let cut = space.files.read_text(space.owner, space.project, &path("text"), None, CHUNK).await.unwrap();
        assert_eq!((cut.text.len(), cut.cut), (CHUNK - 1, true));
        let whole = space.files.read_text(space.owner, space.project, &path("text"), None, 2 * CHUNK).await.unwrap();
        assert!(whole.text.ends_with("aäöü") && !whole.cut);
        let binary = space.files.read_text(space.owner, space.project, &path("f6"), None, 10).await;
        assert!(matches!(binary, Err(FileError::NotText)));
    }
}
