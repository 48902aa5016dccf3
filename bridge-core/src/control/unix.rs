//! The control socket on Linux and macOS: a socket in a directory that only its owner can enter.
//!
//! Three walls, each enough alone: the directory is 0700, the socket is 0600, and a peer of another user is hung up on before a
//! byte of it is read.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

use crate::private_file;

/// One connection.
pub(super) type Connection = UnixStream;

/// A bound control socket. The file goes away with it.
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path`. The caller holds the claim, so a socket that lies there already belongs to a bridge that died.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        private_directory(path.parent().unwrap_or(Path::new(".")))?;
        private_file::remove(path)?;
        let socket = UnixListener::bind(path)?;
        // Between bind and chmod the directory keeps others out.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The next connection of the same user. Another user's is closed unread.
    pub(super) async fn accept(&mut self) -> io::Result<Connection> {
        loop {
            let (connection, _) = self.socket.accept().await?;
            match connection.peer_cred() {
                Ok(peer) if peer.uid() == rustix::process::geteuid().as_raw() => return Ok(connection),
                Ok(peer) => tracing::warn!(uid = peer.uid(), "another user tried the control socket"),
                // The peer is gone already.
                Err(_) => {}
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have been removed already; a stale one is removed at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Connects to the socket at `path`, provided it is the same user's: a bridge must not be impersonated either.
pub(super) async fn connect(path: &Path) -> io::Result<Connection> {
    let connection = UnixStream::connect(path).await?;
    if connection.peer_cred()?.uid() == rustix::process::geteuid().as_raw() {
        Ok(connection)
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the control socket belongs to another user"))
    }
}

/// Makes `path` a directory that is ours and closed to everybody else, or says why it cannot be.
fn private_directory(path: &Path) -> io::Result<()> {
    private_file::make_directory(path)?;
    let found = fs::metadata(path)?;
    // A directory in which others may write is theirs as well (/tmp, say): closing it is not ours to do.
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        let cause = format!("{} is not a directory of this user's alone: name another state directory", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, cause));
    }
    if found.mode() & 0o077 != 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}
