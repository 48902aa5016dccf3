//! A person's words, as a type that can be sent and nothing else.
//!
//! "Prompts are never stored or logged" is kept by construction: [`Content`] has no `Debug`, `Display`, `Serialize`, `Clone` or
//! `AsRef<str>`, so a log line, an error or a database row that holds one does not compile.

use bytes::{Buf, Bytes};

/// Bytes of a prompt or an answer on their way through.
///
/// It is a [`Buf`], which is how a socket takes it. The two ways to look inside are named for why one may:
/// [`Content::for_routing`] and [`Content::for_retry`].
///
/// ```compile_fail
/// let content = wire::Content::from(bytes::Bytes::from_static(b"secret"));
/// println!("{content:?}");
/// ```
/// ```compile_fail
/// let content = wire::Content::from(bytes::Bytes::from_static(b"secret"));
/// println!("{content}");
/// ```
/// ```compile_fail
/// let content = wire::Content::from(bytes::Bytes::from_static(b"secret"));
/// let _ = serde_json::to_string(&content);
/// ```
/// ```compile_fail
/// let content = wire::Content::from(bytes::Bytes::from_static(b"secret"));
/// let _ = content.clone();
/// ```
#[derive(Default)]
pub struct Content(Bytes);

impl Content {
    /// The bytes, for reading the fields that decide where a request goes and what an answer cost.
    #[must_use]
    pub fn for_routing(&self) -> &[u8] {
        &self.0
    }

    /// A second handle on the same bytes, so that a request can be sent again after a cut. Nothing is copied.
    #[must_use]
    pub fn for_retry(&self) -> Self {
        Self(self.0.clone())
    }

    /// How many bytes are left.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Bytes> for Content {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Buf for Content {
    fn remaining(&self) -> usize {
        self.0.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.0.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }

    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        self.0.copy_to_bytes(len)
    }
}
