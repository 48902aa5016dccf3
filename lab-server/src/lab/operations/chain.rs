//! The arithmetic of a chain: what a row's hash is made of, and what a signature over its head says.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wire::ProjectId;

const ROW: &[u8] = b"1k4-operation-v1";
const HEAD: &[u8] = b"1k4-operation-head-v1";

/// A row's hash: of the one before it and of everything that the row says. Each part stands behind its length, so that no two rows
/// are one text.
pub(super) fn link(project: &str, seq: i64, time: i64, sealed: &[u8], previous: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [ROW, previous, project.as_bytes(), &seq.to_be_bytes(), &time.to_be_bytes(), sealed] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// What the Lab says of a chain: up to this row it was so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Whose log.
    pub project: ProjectId,
    /// The row.
    pub seq: i64,
    /// Milliseconds since 1970 when this was signed.
    pub time: i64,
    /// The row's hash.
    pub hash: [u8; 32],
    /// Whether the log ended here, because its owner had it deleted.
    pub ended: bool,
    /// Over all of this, by the Lab's key.
    pub signature: [u8; 64],
}

/// A head as it stands in the file of heads: one JSON object a line, bytes in URL-safe base64 without padding.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadLine {
    project: ProjectId,
    seq: i64,
    time: i64,
    hash: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ended: bool,
    signature: String,
}

impl Head {
    pub(super) fn sign(key: &SigningKey, project: ProjectId, seq: i64, time: i64, hash: [u8; 32], ended: bool) -> Self {
        let mut head = Self { project, seq, time, hash, ended, signature: [0; 64] };
        head.signature = key.sign(&head.said()).to_bytes();
        head
    }

    /// Whether the Lab that has this key said so.
    #[must_use]
    pub fn holds(&self, key: &VerifyingKey) -> bool {
        key.verify_strict(&self.said(), &Signature::from_bytes(&self.signature)).is_ok()
    }

    fn said(&self) -> Vec<u8> {
        let project = self.project.to_string();
        let parts =
            [HEAD, project.as_bytes(), &self.seq.to_be_bytes(), &self.time.to_be_bytes(), &self.hash, &[u8::from(self.ended)]];
        let mut text = Vec::new();
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        }
        text
    }

    /// As a line of the file, with its end.
    pub(super) fn to_line(&self) -> Result<String, serde_json::Error> {
        let line = HeadLine {
            project: self.project,
            seq: self.seq,
            time: self.time,
            hash: encode(&self.hash),
            ended: self.ended,
            signature: encode(&self.signature),
        };
        Ok(serde_json::to_string(&line)? + "\n")
    }

    /// Out of a line of the file.
    pub(super) fn from_line(line: &str) -> Option<Self> {
        let HeadLine { project, seq, time, hash, ended, signature } = serde_json::from_str(line).ok()?;
        Some(Self { project, seq, time, hash: decode(&hash)?, ended, signature: decode(&signature)? })
    }
}

/// Bytes as they are shown.
pub(crate) fn encode(bytes: &[u8]) -> String {
    data_encoding::BASE64URL_NOPAD.encode(bytes)
}

fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}
