//! Files that only their owner can read: what the bridge writes by itself.
//!
//! A file is replaced as a whole (a temporary file in the same directory, flushed, renamed), so a reader or a power cut sees the
//! old one or the new one. On Windows a profile's directories are closed to other users by their access lists, and nothing is
//! added here.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;

/// Makes `directory` and what is missing above it; what is made is for its owner alone.
///
/// # Errors
/// When the system does not let it be made.
pub(crate) fn make_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Replaces the file at `path`, making its directory where it is missing.
///
/// # Errors
/// When the system does not let it be written; the old file is then as it was.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_directory(directory)?;
    let temporary = temporary_beside(path)?;
    let written = write_and_flush(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // It may never have been made; what counts is the first error.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    // The rename is on disk when its directory is; Windows has no such call and needs none.
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    Ok(())
}

/// Removes the file at `path`; one that is not there is removed already.
///
/// # Errors
/// When the system does not let it be removed.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether anybody but this process's user could read or change what `metadata` is of.
#[cfg(unix)]
pub(crate) fn is_exposed(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0
}

fn write_and_flush(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A name that no other writer picks, in the directory of `path`: a rename does not cross file systems.
fn temporary_beside(path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| io::Error::other("the operating system gives no randomness"))?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.tmp", HEXLOWER.encode(&random)));
    Ok(path.with_file_name(name))
}
