//! A request's body must arrive at a walking pace: whoever sends a byte a minute holds a place and memory for nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use api_proxy::TooSlow;
use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a body may take whatever its pace (SECURITY 4.11).
const GRACE: Duration = Duration::from_secs(10);
/// And from then on it must have come at this pace, in bytes per second (likewise).
const PACE: u64 = 1024;

/// A body that fails when it comes too slowly.
pub(super) struct Paced<B> {
    body: B,
    began: Instant,
    received: u64,
    /// Made when the body is first waited for: most are there already.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    /// The clock starts now.
    pub(super) fn new(body: B) -> Self {
        Self { body, began: Instant::now(), received: 0, alarm: None }
    }

    fn deadline(&self) -> Instant {
        self.began + GRACE + Duration::from_secs(self.received / PACE)
    }
}

impl<B> HttpBody for Paced<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(|frame| frame.data_ref().map_or(0, Bytes::len))) {
                self.received += data as u64;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = self.deadline();
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() < deadline {
            alarm.as_mut().reset(deadline);
        }
        alarm.as_mut().poll(cx).map(|()| Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// As axum takes it.
impl<B> From<Paced<B>> for Body
where
    B: HttpBody<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<axum::BoxError>,
{
    fn from(paced: Paced<B>) -> Self {
        Self::new(paced)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// So many bytes each so often.
    fn dripping(bytes: usize, every: Duration, count: usize) -> impl HttpBody<Data = Bytes, Error = axum::BoxError> + Unpin {
        let frames = stream::unfold(0, move |sent| async move {
            tokio::time::sleep(every).await;
            (sent < count).then(|| (Ok(Frame::data(Bytes::from(vec![b'x'; bytes]))), sent + 1))
        });
        StreamBody::new(Box::pin(frames))
    }

    async fn taken(bytes: usize, every: Duration, count: usize) -> (bool, Duration) {
        let began = Instant::now();
        let taken = Paced::new(dripping(bytes, every, count)).collect().await.is_ok();
        (taken, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_phone_gets_through_and_a_dripping_tap_does_not() {
        let second = Duration::from_secs(1);
        assert_eq!(taken(1, second, 8).await, (true, 9 * second), "short is never too slow");
        assert_eq!(taken(2048, second, 120).await, (true, 121 * second));
        assert_eq!(taken(1, second, 1000).await, (false, 10 * second));
        // Half the pace: it lasts until its head start is used up.
        let (taken, after) = taken(512, second, 1000).await;
        assert!(!taken && after < 30 * second, "{after:?}");
    }
}
