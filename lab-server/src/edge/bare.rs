//! Answers that no handler makes: what hyper says by itself to a request that it cannot read.
//!
//! It writes a bare head of `400` or `431` and closes. Every answer of the Lab carries the headers of [`headers`], these too, so they
//! are put in on the way out. Whatever a handler made has them already and passes untouched.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::headers;

/// The longest bare head that hyper writes is a status line and three short fields.
const LONGEST_BARE: usize = 256;

/// A connection whose bare answers are completed.
pub(super) struct Completed<S> {
    stream: S,
    /// A completed head that the stream has not taken yet.
    held: Bytes,
}

impl<S> Completed<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, held: Bytes::new() }
    }
}

impl<S: AsyncWrite + Unpin> Completed<S> {
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.held.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// The head with what it lacks, if it is a bare one.
fn completed(bytes: &[u8]) -> Option<Bytes> {
    let is_bare = bytes.len() <= LONGEST_BARE
        && bytes.starts_with(b"HTTP/1.1 4")
        && bytes.ends_with(b"\r\n\r\n")
        && memchr::memmem::find(bytes, b"strict-transport-security").is_none();
    let fields_begin = memchr::memchr(b'\n', bytes).filter(|_| is_bare)? + 1;
    let mut fields = HeaderMap::new();
    headers::secure(&mut fields);
    let mut head = bytes[..fields_begin].to_vec();
    for (name, value) in &fields {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(&bytes[fields_begin..]);
    Some(head.into())
}

impl<S: AsyncRead + Unpin> AsyncRead for Completed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Completed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_held(cx))?;
        match completed(bytes) {
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
            Some(head) => {
                self.held = head;
                // What does not go out now goes out before anything else does.
                match self.poll_held(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes.len())),
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut filled = slices.iter().filter(|slice| !slice.is_empty());
        match (filled.next(), filled.next()) {
            (Some(only), None) => self.poll_write(cx, only),
            _ => {
                ready!(self.poll_held(cx))?;
                Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn only_bare_heads_are_completed_and_nothing_is_lost() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        let dressed = "HTTP/1.1 404 Not Found\r\nstrict-transport-security: x\r\n\r\n";
        let body = "HTTP/1.1 4 is how this body begins";
        // A pipe so narrow that the completed head goes out in many pieces.
        let (near, mut far) = tokio::io::duplex(8);
        let reading = tokio::spawn(async move {
            let mut all = String::new();
            far.read_to_string(&mut all).await.map(|_| all)
        });
        let mut stream = Completed::new(near);
        for text in [dressed, body, bare] {
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        drop(stream);
        let all = reading.await.unwrap().unwrap();
        let last = all.strip_prefix(&format!("{dressed}{body}")).unwrap();
        assert!(last.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\nstrict-transport-security: max-age="), "{last}");
        assert!(last.contains("\r\nx-xss-protection: 0\r\n"), "{last}");
        assert!(last.ends_with("\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"), "{last}");
    }
}
