//! A new connection to a provider: its name looked up, its packets sent at once, its certificate checked.
//!
//! This is the one place of the proxy that opens a socket, and it goes where the operator's configuration says and nowhere else.

use std::{io, time::Duration};

use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::BaseUrl;

/// Addresses of one name that are tried.
const MOST_ADDRESSES: usize = 8;
/// One that swallows packets must leave time for the next: many machines have an IPv6 address that leads nowhere.
const SHARE: u32 = 4;

/// An open connection. What it is made of concerns nobody who speaks over it.
pub(super) type Socket = Box<dyn Duplex>;

/// What can be read and written.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What is spoken over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// One exchange at a time.
    Http1,
    /// Many at once.
    Http2,
}

/// Where to.
#[derive(Debug)]
pub(super) struct Destination {
    host: String,
    port: u16,
    tls: Option<ServerName<'static>>,
}

impl Destination {
    /// Where a channel is; `None` for a host that no certificate can name.
    pub(super) fn new(base: &BaseUrl) -> Option<Self> {
        let tls = if base.https { Some(ServerName::try_from(base.host.clone()).ok()?) } else { None };
        Some(Self { host: base.host.clone(), port: base.port, tls })
    }

    /// What is spoken there, where that is known beforehand.
    pub(super) fn version(&self) -> Option<Version> {
        self.tls.is_none().then_some(Version::Http1)
    }

    /// Opens a connection within `limit`.
    pub(super) async fn dial(&self, tls: &TlsConnector, limit: Duration) -> io::Result<(Socket, Version)> {
        timeout(limit, self.open(tls, limit / SHARE)).await?
    }

    #[expect(clippy::disallowed_types, reason = "this is where the proxy goes to providers, and the only place")]
    async fn open(&self, tls: &TlsConnector, share: Duration) -> io::Result<(Socket, Version)> {
        let mut last = io::ErrorKind::NotFound.into();
        for address in tokio::net::lookup_host((self.host.as_str(), self.port)).await?.take(MOST_ADDRESSES) {
            match timeout(share, tokio::net::TcpStream::connect(address)).await.unwrap_or_else(|late| Err(late.into())) {
                Ok(stream) => {
                    // A head and a small body are one packet, and wait for nobody's acknowledgement.
                    stream.set_nodelay(true)?;
                    let Some(name) = &self.tls else { return Ok((Box::new(stream), Version::Http1)) };
                    let stream = tls.connect(name.clone(), stream).await?;
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    return Ok((Box::new(stream), if is_http2 { Version::Http2 } else { Version::Http1 }));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
