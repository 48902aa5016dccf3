//! One bridge per state directory: who holds the lock runs the core and serves the socket, everybody else is a client.
//!
//! The lock is the operating system's, so it ends with its process however that ends. On Unix the locked file says where the
//! socket is: a bridge in a desktop's session listens in that session's runtime directory, and a shell that came in over ssh or
//! through `su` knows nothing of it.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

#[cfg(unix)]
use super::unix as os;
#[cfg(windows)]
use super::windows as os;
use crate::{config::Paths, private_file};

/// The right to be the bridge of a state directory, until dropped.
#[derive(Debug)]
pub struct Claim {
    socket: PathBuf,
    /// Locked. It is never removed: a new file of the same name would be another lock.
    _lock: File,
}

/// Why there is no [`Claim`].
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process is the bridge.
    #[error("a bridge is already running for this state directory; `1k4-bridge status` shows it")]
    AlreadyRunning,
    /// The lock cannot be used.
    #[error("{}: {kind}; see that its directory exists and that the user of the bridge may use it", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system says.
        kind: io::ErrorKind,
    },
}

/// Claims the state directory of `paths` for this process.
///
/// # Errors
/// When another process has it, or when it cannot be written.
pub fn claim(paths: &Paths) -> Result<Claim, ClaimError> {
    let failed = |error: io::Error| ClaimError::Io { path: paths.lock.clone(), kind: error.kind() };
    private_file::make_directory(&paths.state_dir).map_err(failed)?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&paths.lock).map_err(failed)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => ClaimError::AlreadyRunning,
        TryLockError::Error(error) => failed(error),
    })?;
    #[cfg(unix)]
    note_socket(&lock, &paths.socket).map_err(failed)?;
    Ok(Claim { socket: paths.socket.clone(), _lock: lock })
}

impl Claim {
    /// Binds the socket that belongs to this claim.
    pub(super) fn listen(&self) -> io::Result<os::Listener> {
        os::Listener::bind(&self.socket)
    }

    /// Where the control socket is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// Where the bridge of `paths` listens: where the last one noted that it does, or where one would.
pub(super) fn find_socket(paths: &Paths) -> PathBuf {
    #[cfg(unix)]
    if let Some(noted) = noted_socket(&paths.lock) {
        return noted;
    }
    paths.socket.clone()
}

#[cfg(unix)]
fn note_socket(mut lock: &File, socket: &Path) -> io::Result<()> {
    use std::{io::Write, os::unix::ffi::OsStrExt};

    lock.set_len(0)?;
    lock.write_all(std::path::absolute(socket)?.as_os_str().as_bytes())
}

#[cfg(unix)]
fn noted_socket(lock: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;

    // A lock that is not there or cannot be read tells nothing, and the usual place is asked.
    let noted = std::fs::read(lock).ok()?;
    (!noted.is_empty()).then(|| std::ffi::OsString::from_vec(noted).into())
}
