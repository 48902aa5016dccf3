//! What nobody has read of a request's body when it is refused: it is read to its end all the same, within bounds.
//!
//! Most clients send all of a body before they look at the answer. Were the connection closed with the refusal, they would be told that
//! it broke, and not why: that they are signed out, or what is wrong. Over HTTP/2 a stream is then reset behind a whole answer, and some
//! clients, curl 7.88 among them, tell of the reset and not of the answer.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;

/// Bytes that are read at most: twice what the Lab's own API takes.
const MOST: usize = 2 * 1024 * 1024;
/// How long the rest may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Has the rest of a body read when its handler drops it.
pub(crate) async fn read(request: Request, next: Next) -> Response {
    next.run(request.map(|body| Body::new(Unread(body)))).await
}

/// A body that is read to its end, by somebody.
struct Unread(Body);

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // What is far longer than anything that is taken is not waited for: its sender is cut off.
        if self.0.is_end_stream() || self.0.size_hint().lower() > MOST as u64 {
            return;
        }
        tokio::spawn(tokio::time::timeout(PATIENCE, discard(std::mem::take(&mut self.0))));
    }
}

async fn discard(mut body: Body) {
    let mut left = MOST;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}
