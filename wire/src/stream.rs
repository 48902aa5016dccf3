//! Binary WebSocket messages as a stream of bytes, for HTTP/2 to run over.
//!
//! Reading never waits on writing: the two halves share nothing but the socket, so a peer that reads slowly cannot keep window
//! updates and PING answers from arriving. One copy each way, from the message into the reader's buffer and from the writer's
//! slices into a message.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error as WsError, Message, protocol::WebSocketConfig},
};

/// The most bytes put into one message: large enough that framing costs nothing, small enough that tokens of other streams do not
/// wait behind a megabyte of image.
const MESSAGE: usize = 64 << 10;

/// Limits of the WebSocket under a link.
///
/// tungstenite allocates the read buffer for every socket at once (its default is 128 KiB, 1.3 GB for 10,000 idle bridges) and
/// leaves the write buffer unbounded by default. 4 KiB are enough for tokens, and a larger message is read in several pieces.
#[must_use]
pub fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(MESSAGE)
        .max_write_buffer_size(1 << 20)
        .max_message_size(Some(1 << 20))
        .max_frame_size(Some(1 << 20))
}

/// When the other end was last heard of. Any byte counts.
#[derive(Clone)]
pub struct Pulse(Arc<PulseInner>);

struct PulseInner {
    start: Instant,
    /// Milliseconds from `start` to the last byte that came in.
    last: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        Self(Arc::new(PulseInner { start: Instant::now(), last: AtomicU64::new(0) }))
    }

    fn beat(&self) {
        let now = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last.store(now, Ordering::Relaxed);
    }

    /// How long the other end has been silent.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.0.start.elapsed().saturating_sub(Duration::from_millis(self.0.last.load(Ordering::Relaxed)))
    }
}

/// The byte stream over one WebSocket.
pub struct LinkStream<T> {
    socket: WebSocketStream<T>,
    /// What of the last message has not been read yet.
    unread: Bytes,
    pulse: Pulse,
}

impl<T: AsyncRead + AsyncWrite + Unpin> LinkStream<T> {
    /// Over a WebSocket whose hello is done.
    pub fn new(socket: WebSocketStream<T>) -> Self {
        Self { socket, unread: Bytes::new(), pulse: Pulse::new() }
    }

    /// A handle that tells when the other end was last heard of.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, len: usize, fill: impl FnOnce(&mut BytesMut)) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.socket).poll_ready(cx)).map_err(into_io)?;
        let mut message = BytesMut::with_capacity(len);
        fill(&mut message);
        Pin::new(&mut self.socket).start_send(Message::Binary(message.freeze())).map_err(into_io)?;
        Poll::Ready(Ok(len))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for LinkStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.unread.is_empty() {
            match ready!(Pin::new(&mut this.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => {
                    this.pulse.beat();
                    this.unread = bytes;
                }
                // tungstenite answers a Ping itself, on the next read or flush.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => this.pulse.beat(),
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "a text message on the link")));
                }
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
        let count = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread[..count]);
        this.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LinkStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = buf.len().min(MESSAGE);
        self.poll_send(cx, count, |message| message.extend_from_slice(&buf[..count]))
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let count = slices.iter().map(|s| s.len()).sum::<usize>().min(MESSAGE);
        self.poll_send(cx, count, |message| {
            for slice in slices {
                let room = count - message.len();
                message.extend_from_slice(&slice[..slice.len().min(room)]);
            }
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(into_io)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx).map_err(into_io)
    }
}

/// Only the kind goes on: tungstenite's texts can quote what was received.
fn into_io(error: WsError) -> io::Error {
    match error {
        WsError::Io(error) => error,
        WsError::ConnectionClosed | WsError::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        WsError::Capacity(_) => io::Error::new(io::ErrorKind::InvalidData, "a message larger than the link allows"),
        _ => io::Error::new(io::ErrorKind::InvalidData, "not the WebSocket protocol"),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::SinkExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    async fn pair(pipe: usize) -> (LinkStream<DuplexStream>, LinkStream<DuplexStream>) {
        let (a, b) = duplex(pipe);
        let config = Some(websocket_config());
        let a = WebSocketStream::from_raw_socket(a, Role::Client, config).await;
        let b = WebSocketStream::from_raw_socket(b, Role::Server, config).await;
        (LinkStream::new(a), LinkStream::new(b))
    }

    #[tokio::test]
    async fn bytes_arrive_in_order_through_a_narrow_pipe() {
        let sent: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
        let (mut a, mut b) = pair(8).await;
        let to_send = sent.clone();
        let writer = tokio::spawn(async move {
            a.write_all(&to_send).await.unwrap();
            a.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        b.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    }

    #[tokio::test]
    async fn reading_goes_on_while_writing_is_blocked() {
        let (a, mut b) = pair(64).await;
        let (mut a_read, mut a_write) = tokio::io::split(a);
        // Nobody reads what `a` writes until `b` has been heard: the write blocks, the read must not.
        let blocked = tokio::spawn(async move { a_write.write_all(&vec![1; 1 << 20]).await });
        tokio::task::yield_now().await;
        b.write_all(b"hello").await.unwrap();
        b.flush().await.unwrap();
        let mut got = [0; 5];
        a_read.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        assert!(!blocked.is_finished());
        blocked.abort();
    }

    #[tokio::test]
    async fn text_is_no_part_of_the_link() {
        let (a, b) = duplex(1024);
        let mut a = WebSocketStream::from_raw_socket(a, Role::Client, None).await;
        let mut b = LinkStream::new(WebSocketStream::from_raw_socket(b, Role::Server, Some(websocket_config())).await);
        a.send(Message::text("hello")).await.unwrap();
        assert_eq!(b.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_message_over_the_limit_ends_the_link() {
        let (a, b) = duplex(4 << 20);
        let mut a = WebSocketStream::from_raw_socket(a, Role::Client, None).await;
        let mut b = LinkStream::new(WebSocketStream::from_raw_socket(b, Role::Server, Some(websocket_config())).await);
        a.send(Message::binary(vec![0; (1 << 20) + 1])).await.unwrap();
        assert_eq!(b.read_u8().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
