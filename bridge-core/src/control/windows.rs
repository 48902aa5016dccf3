//! The control socket on Windows: a named pipe of this machine only.
//!
//! A pipe made without a security descriptor can be opened for writing by its creator, the system and administrators alone; others
//! may open it for reading, and a reader who cannot ask gets no answer. The name is taken as the first
//! instance, so nobody can stand in for the bridge.

use std::{
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::windows::named_pipe::{ClientOptions, NamedPipeClient, NamedPipeServer, ServerOptions},
};

/// `ERROR_PIPE_BUSY`: every instance is taken, and another one is on its way.
const PIPE_BUSY: i32 = 231;

/// One connection, seen from either end.
pub(super) enum Connection {
    /// The bridge's end.
    Server(NamedPipeServer),
    /// The asking end.
    Client(NamedPipeClient),
}

/// A pipe with one instance waiting.
pub(super) struct Listener {
    waiting: NamedPipeServer,
    name: String,
}

impl Listener {
    /// Takes the name that stands for `path`.
    pub(super) fn bind(path: &Path) -> io::Result<Self> {
        let name = pipe_name(path)?;
        let waiting = ServerOptions::new().first_pipe_instance(true).reject_remote_clients(true).create(&name)?;
        Ok(Self { waiting, name })
    }

    /// The next connection.
    pub(super) async fn accept(&mut self) -> io::Result<Connection> {
        self.waiting.connect().await?;
        // The next instance exists before this one is served, so that nobody finds the name free.
        let next = ServerOptions::new().reject_remote_clients(true).create(&self.name)?;
        Ok(Connection::Server(std::mem::replace(&mut self.waiting, next)))
    }
}

/// Connects to the pipe at `path`.
pub(super) async fn connect(path: &Path) -> io::Result<Connection> {
    let name = pipe_name(path)?;
    loop {
        match ClientOptions::new().open(&name) {
            Err(error) if error.raw_os_error() == Some(PIPE_BUSY) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            opened => return opened.map(Connection::Client),
        }
    }
}

/// The pipe that stands for the socket `path`: pipes have a name space of their own. The user's name is in the path.
fn pipe_name(path: &Path) -> io::Result<String> {
    // FNV-1a: two builds must agree on it, which the standard library's hasher does not promise. It keeps names apart, not people.
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let path = std::path::absolute(path)?;
    let hash = path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step);
    Ok(format!(r"\\.\pipe\1k4-bridge-{hash:016x}"))
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Server(pipe) => Pin::new(pipe).poll_read(cx, buf),
            Self::Client(pipe) => Pin::new(pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Server(pipe) => Pin::new(pipe).poll_write(cx, buf),
            Self::Client(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Server(pipe) => Pin::new(pipe).poll_flush(cx),
            Self::Client(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Server(pipe) => Pin::new(pipe).poll_shutdown(cx),
            Self::Client(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}
