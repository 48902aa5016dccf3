//! A content on disk: chunks of 1 MiB, each sealed for its content, its number and whether it is the last.
//!
//! A chunk that is flipped, swapped, repeated or from elsewhere does not open; one too few is missing by its number or its end, one
//! too many makes the file longer than its content. Whoever reads gets a chunk when it has been opened, never before.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wire::BlobId;

use super::FileError;
use crate::{
    store::{StoreError, make_private_file},
    vault::{self, Key, Place, VaultError},
};

/// Bytes of a chunk's content.
pub(super) const CHUNK: usize = 1024 * 1024;
/// Beginnings that tell what a content is, of the few kinds that browsers may show.
const KINDS: [(&[u8], &str); 5] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
];
/// Text: every byte is UTF-8, and none is NUL.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
/// Whatever else.
const BYTES: &str = "application/octet-stream";

/// A content that is being written. What is not finished is gone when this is.
pub(super) struct Draft {
    key: Key,
    blob: BlobId,
    temporary: PathBuf,
    place: PathBuf,
    file: File,
    chunks: u64,
    size: u64,
    hash: Sha256,
    kind: Kind,
    kept: bool,
}

/// A content that lies in its place. It is gone with this unless it is kept.
pub(super) struct Placed {
    pub(super) draft: Draft,
    /// Stands for the content, within its project.
    pub(super) address: vault::BlindIndex,
}

impl Draft {
    /// Begins a content in a folder.
    pub(super) fn begin(folder: &Path, blob: BlobId, key: Key) -> io::Result<Self> {
        crate::store::make_private_dir(folder)?;
        let place = folder.join(blob.to_string());
        let temporary = place.with_extension("part");
        make_private_file(&temporary)?;
        let file = File::options().write(true).open(&temporary)?;
        let (hash, kind) = (Sha256::new(), Kind::default());
        Ok(Self { key, blob, temporary, place, file, chunks: 0, size: 0, hash, kind, kept: false })
    }

    /// The next chunk: [`CHUNK`] bytes, or less if it is the last.
    pub(super) fn push(mut self, chunk: &[u8], is_last: bool) -> io::Result<Self> {
        self.hash.update(chunk);
        self.kind.look(chunk);
        self.size += chunk.len() as u64;
        self.file.write_all(&self.key.seal(chunk_place(&chunk_name(self.blob, self.chunks, is_last)), chunk))?;
        self.chunks += 1;
        Ok(self)
    }

    /// Puts it in its place, where it survives a power cut.
    pub(super) fn place(mut self) -> io::Result<Placed> {
        self.file.sync_all()?;
        std::fs::rename(&self.temporary, &self.place)?;
        self.temporary.clone_from(&self.place);
        sync_folder(&self.place)?;
        let hash = std::mem::take(&mut self.hash).finalize();
        let address = self.key.blind("blob", &hash);
        Ok(Placed { draft: self, address })
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    /// What it is, by its bytes: what whoever sent it says of it is not asked.
    pub(super) fn media_type(&self) -> &'static str {
        self.kind.name()
    }

    /// It stays.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed when the Lab starts.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// A name in a folder survives a power cut when the folder is written.
#[cfg(unix)]
fn sync_folder(file: &Path) -> io::Result<()> {
    file.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(not(unix))]
fn sync_folder(_file: &Path) -> io::Result<()> {
    Ok(())
}

/// A content that is being read.
pub(super) struct Reader {
    key: Key,
    blob: BlobId,
    file: File,
    left: u64,
    chunk: u64,
    ended: bool,
}

impl Reader {
    /// Opens a content of that many bytes.
    pub(super) fn open(folder: &Path, blob: BlobId, size: u64, key: Key) -> Result<Self, FileError> {
        let file = File::open(folder.join(blob.to_string())).map_err(FileError::Disk)?;
        let chunks = size.div_ceil(CHUNK as u64).max(1);
        if file.metadata().map_err(FileError::Disk)?.len() != size + chunks * vault::OVERHEAD as u64 {
            return Err(BROKEN);
        }
        Ok(Self { key, blob, file, left: size, chunk: 0, ended: false })
    }

    /// The next chunk; nothing at the end.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FileError> {
        if self.ended {
            return Ok(None);
        }
        let is_last = self.left <= CHUNK as u64;
        let length = usize::try_from(self.left.min(CHUNK as u64)).unwrap_or(CHUNK);
        let mut sealed = vec![0; length + vault::OVERHEAD];
        self.file.read_exact(&mut sealed).map_err(FileError::Disk)?;
        let name = chunk_name(self.blob, self.chunk, is_last);
        let mut opened = self.key.open(chunk_place(&name), &sealed).map_err(|error| FileError::Store(error.into()))?;
        self.left -= length as u64;
        self.chunk += 1;
        self.ended = is_last;
        Ok(Some(std::mem::take(&mut *opened).into()))
    }
}

/// What is stored is not what was stored.
pub(super) const BROKEN: FileError = FileError::Store(StoreError::Vault(VaultError::Broken));

fn chunk_name(blob: BlobId, chunk: u64, is_last: bool) -> String {
    format!("{blob}/{chunk}/{}", if is_last { "last" } else { "more" })
}

fn chunk_place(row: &str) -> Place<'_> {
    Place { table: "blobs", column: "content", row, version: 0 }
}

/// What is known of a content's kind so far.
#[derive(Default)]
struct Kind {
    begun: bool,
    known: Option<&'static str>,
    is_binary: bool,
    /// The first bytes of a character that the next chunk goes on with.
    rest: Vec<u8>,
}

impl Kind {
    fn look(&mut self, chunk: &[u8]) {
        if !std::mem::replace(&mut self.begun, true) {
            let is_webp = chunk.starts_with(b"RIFF") && chunk.get(8..12) == Some(b"WEBP");
            let known = KINDS.iter().find(|(beginning, _)| chunk.starts_with(beginning)).map(|(_, name)| *name);
            self.known = if is_webp { Some("image/webp") } else { known };
        }
        if self.is_binary || self.known.is_some() {
            return;
        }
        self.is_binary = memchr::memchr(0, chunk).is_some();
        let mut text = std::mem::take(&mut self.rest);
        text.extend_from_slice(chunk);
        if let Err(error) = std::str::from_utf8(&text) {
            self.is_binary |= error.error_len().is_some();
            self.rest = text.split_off(error.valid_up_to());
        }
    }

    fn name(&self) -> &'static str {
        match self.known {
            Some(known) => known,
            None if self.is_binary || !self.rest.is_empty() => BYTES,
            None => TEXT,
        }
    }
}
