//! The replay buffer of one relay: what Ollama has said and the Lab has not yet acknowledged.
//!
//! One task writes, one reader follows by byte offset. When the link dies the reader goes and the writer does not notice; a new
//! reader starts at any offset that is still kept. When the buffer is full the writer waits, which stops the reading of Ollama:
//! nothing is ever dropped.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use wire::relay::Ending;

/// A reader that has fallen behind gets small chunks merged up to this size: one HTTP/2 frame.
const MERGE: usize = 16 << 10;

/// A chunk shorter than this is copied out of the buffer that it came in.
const SMALL: usize = 4 << 10;

/// The buffer and its ending.
pub(crate) struct Journal {
    state: Mutex<State>,
    /// Told when acknowledged bytes are forgotten.
    room: Notify,
    capacity: usize,
}

#[derive(Default)]
struct State {
    /// Chunks with the offset of their first byte, oldest first, without gaps.
    chunks: VecDeque<(u64, Bytes)>,
    /// Offset of the first byte that is kept.
    start: u64,
    /// Offset after the last byte.
    end: u64,
    ending: Option<Ending>,
    /// Counts readers: the newest one reads, an older one is told that it is not wanted any more.
    reader: u64,
    /// How far the newest reader is. What it has not been given cannot have arrived anywhere.
    read: u64,
    waker: Option<Waker>,
}

/// What a reader finds at its offset.
#[derive(Debug, PartialEq)]
pub(crate) enum Read {
    /// The next bytes.
    Bytes(Bytes),
    /// Everything has been read; this is how it ended.
    End(Ending),
    /// A newer reader has taken over.
    Superseded,
}

/// The offset that was asked for has been acknowledged and forgotten, or lies beyond what was ever written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetGone;

impl Journal {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), room: Notify::new(), capacity }
    }

    /// Waits until there is room for more. The one chunk that crosses the limit is still taken, so the buffer holds at most its
    /// capacity and one chunk.
    pub(crate) async fn room(&self) {
        loop {
            let freed = self.room.notified();
            {
                let state = self.lock();
                if state.end - state.start < self.capacity as u64 {
                    return;
                }
            }
            freed.await;
        }
    }

    /// Appends bytes.
    pub(crate) fn push(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        // A token's bytes are a slice of the 8 KiB that the HTTP client read into. Kept as they are they would keep all of that,
        // thirty times what is counted here, and make the client allocate anew for each token.
        let bytes = if bytes.len() < SMALL { Bytes::copy_from_slice(&bytes) } else { bytes };
        let mut state = self.lock();
        let at = state.end;
        state.end += bytes.len() as u64;
        state.chunks.push_back((at, bytes));
        state.wake();
    }

    /// Ends the answer. The first ending stands; returns whether this was it.
    pub(crate) fn finish(&self, ending: Ending) -> bool {
        let mut state = self.lock();
        if state.ending.is_some() {
            return false;
        }
        state.ending = Some(ending);
        state.wake();
        true
    }

    /// How it ended, if it has.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.lock().ending
    }

    /// Forgets what lies before `offset`, as far as it has been read: an acknowledgement comes off the wire.
    pub(crate) fn acknowledge(&self, offset: u64) {
        let mut state = self.lock();
        let offset = offset.min(state.read);
        if offset <= state.start {
            return;
        }
        state.start = offset;
        while state.chunks.front().is_some_and(|(at, bytes)| at + bytes.len() as u64 <= offset) {
            state.chunks.pop_front();
        }
        drop(state);
        self.room.notify_one();
    }

    /// A reader from `offset` on. Any earlier reader is superseded.
    pub(crate) fn read_from(self: &Arc<Self>, offset: u64) -> Result<Reader, OffsetGone> {
        let mut state = self.lock();
        if offset < state.start || offset > state.end {
            return Err(OffsetGone);
        }
        state.reader += 1;
        state.read = offset;
        state.wake();
        Ok(Reader { number: state.reader, journal: Arc::clone(self), offset })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The bytes from `offset`, which lies within what is kept: one chunk as it is, or several small ones merged.
    fn bytes_from(&self, offset: u64) -> Bytes {
        let index = self.chunks.partition_point(|(at, bytes)| at + bytes.len() as u64 <= offset);
        let Some((at, first)) = self.chunks.get(index) else { return Bytes::new() };
        let first = first.slice(usize::try_from(offset - at).unwrap_or(usize::MAX).min(first.len())..);
        let rest = || self.chunks.range(index + 1..).map(|(_, bytes)| bytes);
        match rest().next() {
            Some(second) if first.len() + second.len() <= MERGE => {
                let mut merged = BytesMut::with_capacity(MERGE);
                merged.extend_from_slice(&first);
                for bytes in rest() {
                    if merged.len() + bytes.len() > MERGE {
                        break;
                    }
                    merged.extend_from_slice(bytes);
                }
                merged.freeze()
            }
            _ => first,
        }
    }
}

/// Follows a journal from an offset.
pub(crate) struct Reader {
    journal: Arc<Journal>,
    offset: u64,
    number: u64,
}

impl Reader {
    /// Whether no newer reader has taken over.
    pub(crate) fn is_newest(&self) -> bool {
        self.journal.lock().reader == self.number
    }

    /// The next bytes, or the end.
    pub(crate) fn poll_read(&mut self, cx: &Context<'_>) -> Poll<Read> {
        let mut state = self.journal.lock();
        if state.reader != self.number {
            return Poll::Ready(Read::Superseded);
        }
        if self.offset < state.end {
            let bytes = state.bytes_from(self.offset);
            self.offset += bytes.len() as u64;
            state.read = self.offset;
            return Poll::Ready(Read::Bytes(bytes));
        }
        if let Some(ending) = state.ending {
            return Poll::Ready(Read::End(ending));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use wire::relay::Outcome;

    use super::*;

    const COMPLETE: Ending = Ending { outcome: Outcome::Complete, usage: None };

    async fn read_all(reader: &mut Reader) -> (Vec<u8>, Option<Ending>) {
        let mut got = Vec::new();
        loop {
            match poll_fn(|cx| reader.poll_read(cx)).await {
                Read::Bytes(bytes) => got.extend_from_slice(&bytes),
                Read::End(ending) => return (got, Some(ending)),
                Read::Superseded => return (got, None),
            }
        }
    }

    #[tokio::test]
    async fn a_second_reader_goes_on_where_it_asks() {
        let journal = Arc::new(Journal::new(100));
        journal.push(Bytes::from_static(b"hello "));
        journal.push(Bytes::from_static(b"world"));
        journal.finish(COMPLETE);
        for from in 0..=11 {
            let mut reader = journal.read_from(from).unwrap();
            assert_eq!(read_all(&mut reader).await, (b"hello world"[from as usize..].to_vec(), Some(COMPLETE)));
        }
        assert!(matches!(journal.read_from(12), Err(OffsetGone)));
    }

    #[tokio::test]
    async fn acknowledged_bytes_are_gone_and_the_rest_is_not() {
        let journal = Arc::new(Journal::new(100));
        journal.push(Bytes::from_static(b"abcdef"));
        journal.push(Bytes::from_static(b"ghi"));
        let mut first = journal.read_from(0).unwrap();
        assert_eq!(poll_fn(|cx| first.poll_read(cx)).await, Read::Bytes(Bytes::from_static(b"abcdefghi")));
        journal.acknowledge(4);
        assert!(matches!(journal.read_from(3), Err(OffsetGone)));
        journal.finish(COMPLETE);
        assert_eq!(read_all(&mut journal.read_from(4).unwrap()).await, (b"efghi".to_vec(), Some(COMPLETE)));
        journal.acknowledge(99);
        assert_eq!(read_all(&mut journal.read_from(9).unwrap()).await, (vec![], Some(COMPLETE)));
    }

    #[tokio::test]
    async fn a_full_journal_makes_the_writer_wait_for_an_acknowledgement() {
        let journal = Arc::new(Journal::new(4));
        journal.push(Bytes::from_static(b"abcd"));
        let mut reader = journal.read_from(0).unwrap();
        assert_eq!(poll_fn(|cx| reader.poll_read(cx)).await, Read::Bytes(Bytes::from_static(b"abcd")));
        let mut room = std::pin::pin!(journal.room());
        assert!(futures_util::FutureExt::now_or_never(room.as_mut()).is_none());
        journal.acknowledge(1);
        room.await;
    }

    #[tokio::test]
    async fn the_newest_reader_reads() {
        let journal = Arc::new(Journal::new(100));
        let mut old = journal.read_from(0).unwrap();
        let waiting = tokio::spawn(async move { read_all(&mut old).await });
        tokio::task::yield_now().await;
        let mut new = journal.read_from(0).unwrap();
        assert_eq!(waiting.await.unwrap(), (vec![], None));
        journal.push(Bytes::from_static(b"x"));
        journal.finish(COMPLETE);
        assert_eq!(read_all(&mut new).await, (b"x".to_vec(), Some(COMPLETE)));
    }

    #[tokio::test]
    async fn what_was_not_read_cannot_be_acknowledged() {
        let journal = Arc::new(Journal::new(100));
        journal.push(Bytes::from_static(b"abcd"));
        let mut reader = journal.read_from(0).unwrap();
        journal.acknowledge(u64::MAX);
        journal.push(Bytes::from_static(b"ef"));
        journal.finish(COMPLETE);
        assert_eq!(read_all(&mut reader).await, (b"abcdef".to_vec(), Some(COMPLETE)));
    }

    #[test]
    fn small_chunks_are_merged_for_a_reader_that_has_fallen_behind() {
        let journal = Arc::new(Journal::new(1 << 20));
        for _ in 0..1000 {
            journal.push(Bytes::from_static(&[b'x'; 100]));
        }
        let mut reader = journal.read_from(50).unwrap();
        let cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Read::Bytes(bytes)) = reader.poll_read(&cx) else { panic!("bytes are there") };
        assert_eq!(bytes.len(), 50 + 163 * 100);
    }

    #[test]
    fn the_first_ending_stands() {
        let journal = Journal::new(1);
        assert!(journal.finish(COMPLETE));
        assert!(!journal.finish(Ending { outcome: Outcome::Cancelled, usage: None }));
        assert_eq!(journal.ending(), Some(COMPLETE));
    }
}
