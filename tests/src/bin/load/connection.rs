//! A connection and the HTTP/1.1 on it, written by hand: a client library would cost more than what is measured.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::target::Target;

/// A request with no byte for this long has failed.
const SILENCE: Duration = Duration::from_secs(30);

/// Why there is no answer, or not all of it: a name to count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broken {
    /// No connection.
    Connect,
    /// Closed before the answer began.
    ClosedBeforeHead,
    /// What came is no HTTP.
    NoHttp,
    /// Closed in mid-answer.
    Truncated,
    /// Nothing came for a long time.
    Silence,
}

impl Broken {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ClosedBeforeHead => "closed_before_head",
            Self::NoHttp => "no_http",
            Self::Truncated => "truncated",
            Self::Silence => "silence",
        }
    }
}

/// An open connection.
pub(crate) struct Connection {
    socket: Socket,
    unread: BytesMut,
    /// Whether it has served a request: then the peer may have closed it meanwhile.
    pub(crate) is_used: bool,
}

/// An answer's head, as far as it matters.
pub(crate) struct Head {
    pub(crate) status: u16,
    length: Length,
    pub(crate) closes: bool,
}

#[derive(Clone, Copy)]
enum Length {
    Chunked,
    Bytes(usize),
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self, Broken> {
        let opening = async {
            let tcp = TcpStream::connect((target.host.as_str(), target.port)).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, io::Error>(match &target.tls {
                None => Socket::Plain(tcp),
                Some((connector, name)) => Socket::Tls(Box::new(connector.connect(name.clone(), tcp).await?)),
            })
        };
        match tokio::time::timeout(SILENCE, opening).await {
            Ok(Ok(socket)) => Ok(Self { socket, unread: BytesMut::with_capacity(32 << 10), is_used: false }),
            Ok(Err(_)) | Err(_) => Err(Broken::Connect),
        }
    }

    /// Sends a request and reads the head of its answer.
    pub(crate) async fn send(&mut self, request: &[u8]) -> Result<Head, Broken> {
        let sent = async {
            self.socket.write_all(request).await?;
            self.socket.flush().await
        };
        sent.await.map_err(|_| Broken::ClosedBeforeHead)?;
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let head = Head::parse(&self.unread[..end]).ok_or(Broken::NoHttp)?;
                self.unread.advance(end + 4);
                return Ok(head);
            }
            if self.fill().await? == 0 {
                return Err(Broken::ClosedBeforeHead);
            }
        }
    }

    /// Reads a body and hands its data to `take`, with the moment at which it came.
    pub(crate) async fn body(&mut self, head: &Head, mut take: impl FnMut(&[u8], Instant)) -> Result<(), Broken> {
        let mut now = Instant::now();
        let mut part = match head.length {
            Length::Bytes(0) => return Ok(()),
            Length::Bytes(left) => Part::Data(left),
            Length::Chunked => Part::Size,
        };
        loop {
            match part {
                Part::Data(left) if !self.unread.is_empty() => {
                    let data = left.min(self.unread.len());
                    take(&self.unread[..data], now);
                    self.unread.advance(data);
                    part = match (left - data, head.length) {
                        (0, Length::Bytes(_)) => return Ok(()),
                        (0, Length::Chunked) => Part::AfterData,
                        (left, _) => Part::Data(left),
                    };
                    continue;
                }
                Part::AfterData if self.unread.len() >= 2 => {
                    self.unread.advance(2);
                    part = Part::Size;
                    continue;
                }
                Part::Size | Part::Trailers => {
                    if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                        let line = self.unread[..end].trim_ascii();
                        if matches!(part, Part::Trailers) {
                            let is_last = line.is_empty();
                            self.unread.advance(end + 1);
                            if is_last {
                                return Ok(());
                            }
                            continue;
                        }
                        let digits = std::str::from_utf8(line).unwrap_or_default();
                        let size = usize::from_str_radix(digits.split(';').next().unwrap_or_default().trim(), 16);
                        part = match size {
                            Ok(0) => Part::Trailers,
                            Ok(size) => Part::Data(size),
                            Err(_) => return Err(Broken::NoHttp),
                        };
                        self.unread.advance(end + 1);
                        continue;
                    }
                }
                Part::Data(_) | Part::AfterData => {}
            }
            if self.fill().await? == 0 {
                return Err(Broken::Truncated);
            }
            now = Instant::now();
        }
    }

    async fn fill(&mut self) -> Result<usize, Broken> {
        self.unread.reserve(16 << 10);
        match tokio::time::timeout(SILENCE, self.socket.read_buf(&mut self.unread)).await {
            Err(_) => Err(Broken::Silence),
            // A reset is an end too; whether one was due is known to the caller.
            Ok(Err(_)) => Ok(0),
            Ok(Ok(count)) => Ok(count),
        }
    }
}

/// Where in a body the reader is.
#[derive(Clone, Copy)]
enum Part {
    Size,
    Data(usize),
    AfterData,
    Trailers,
}

impl Head {
    fn parse(head: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        let (mut length, mut closes) = (None, false);
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(Length::Bytes(value.parse().ok()?));
            } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
                length = Some(Length::Chunked);
            } else if name.eq_ignore_ascii_case("connection") {
                closes = value.eq_ignore_ascii_case("close");
            }
        }
        Some(Self { status, length: length?, closes })
    }
}

/// Where `needle` begins.
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(socket) => Pin::new(socket).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(socket) => Pin::new(socket).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(socket) => Pin::new(socket).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked").unwrap();
        assert!(head.status == 200 && matches!(head.length, Length::Chunked) && !head.closes);
        let head = Head::parse(b"HTTP/1.1 503 Busy\r\ncontent-length: 12\r\nconnection: close").unwrap();
        assert!(head.status == 503 && matches!(head.length, Length::Bytes(12)) && head.closes);
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\nserver: x").is_none());
        assert!(Head::parse(b"SSH-2.0").is_none());
    }
}
