//! The arithmetic of a chain: what a row's hash is made of.

use sha2::{Digest, Sha256};

const DOMAIN: &[u8] = b"1k4-operation-v1";

/// A row's hash: of the one before it and of everything that the row says. Each part stands behind its length, so that no two rows
/// are one text.
pub(super) fn link(project: &str, seq: i64, time: i64, sealed: &[u8], previous: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [DOMAIN, previous, project.as_bytes(), &seq.to_be_bytes(), &time.to_be_bytes(), sealed] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}
