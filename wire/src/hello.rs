//! The first three messages on a new link: who dialled, proven without a secret crossing the wire.
//!
//! The Lab sends a [`Challenge`], the bridge answers with a [`Proof`], the Lab closes with a [`Verdict`]. Each is one JSON text
//! message; the whole exchange has [`DEADLINE`]. There is no bearer token, so none can be stolen or replayed: the proof is a
//! signature over a nonce that this socket alone was given.

use std::time::Duration;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::DeviceId;

/// The WebSocket's path on the Lab.
pub const LINK_PATH: &str = "/bridge/v1/link";
/// The WebSocket subprotocol; it names the wire's version before a byte of it is spoken.
pub const SUBPROTOCOL: &str = "1k4.link.v1";
/// The protocol number inside the hello. Servers are upgraded first and refuse what they no longer speak.
pub const PROTOCOL: u16 = 1;
/// How long the whole hello may take.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// The longest message of the hello in bytes; each is a few hundred.
pub const MAX_MESSAGE: usize = 4096;

/// Separates this signature from every other use of the device's key.
const DOMAIN: &[u8] = b"1k4-bridge-v1\0";

/// Lab to bridge, first: sign this.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Challenge {
    /// 32 random bytes, used once, for this socket only.
    #[serde(with = "hex32")]
    pub nonce: [u8; 32],
    /// The Lab's origin as its owner configured it, e.g. `https://lab.example.com`.
    pub lab: String,
}

/// Bridge to Lab: this device, this signature.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Who dials.
    pub device: DeviceId,
    /// [`PROTOCOL`] as the bridge speaks it.
    pub protocol: u16,
    /// The bridge's version, for the owner's eyes.
    pub version: String,
    /// Ed25519 over domain, origin, device, nonce and protocol; 64 bytes as hex.
    pub signature: String,
}

/// Lab to bridge, last.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case", deny_unknown_fields)]
pub enum Verdict {
    /// The link is up; HTTP/2 follows.
    Welcome {
        /// Counts this device's links; the newest one wins.
        epoch: u64,
        /// The Lab's clock, seconds since 1970, so that a wrong clock on the workstation can be named.
        time: u64,
    },
    /// The link is not to be.
    Refused {
        /// Why.
        code: RefusalCode,
        /// When to look again; `None` leaves it to the bridge's own backoff.
        retry_after_s: Option<u64>,
    },
}

/// Why the Lab does not take a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// The device was revoked or never existed.
    Revoked,
    /// The signature does not fit the device's key, this Lab or this nonce.
    BadProof,
    /// The bridge speaks a protocol that this Lab does not.
    UpgradeRequired,
    /// The Lab is going away or full.
    Unavailable,
}

/// Why a [`Proof`] was not believed. All of them are [`RefusalCode::BadProof`] to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match")]
pub struct BadProof;

impl Proof {
    /// Signs `challenge` for `device`. `lab` is the origin that the bridge dialled, **not** the one the challenge names: a Lab that
    /// passes on another Lab's challenge gets a signature that is worth nothing there.
    #[must_use]
    pub fn sign(key: &SigningKey, device: DeviceId, lab: &str, challenge: &Challenge, version: &str) -> Self {
        let signature = key.sign(&signed_bytes(lab, device, &challenge.nonce, PROTOCOL));
        Self {
            device,
            protocol: PROTOCOL,
            version: version.to_owned(),
            signature: data_encoding::HEXLOWER.encode(&signature.to_bytes()),
        }
    }

    /// Checks the signature against the key on record, this Lab's origin and the nonce this socket was given.
    ///
    /// # Errors
    /// [`BadProof`] when any of them differs.
    pub fn verify(&self, key: &VerifyingKey, lab: &str, nonce: &[u8; 32]) -> Result<(), BadProof> {
        let bytes = data_encoding::HEXLOWER.decode(self.signature.as_bytes()).map_err(|_| BadProof)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| BadProof)?;
        key.verify_strict(&signed_bytes(lab, self.device, nonce, self.protocol), &signature).map_err(|_| BadProof)
    }
}

/// domain ‖ origin ‖ 0 ‖ device ‖ nonce ‖ protocol. The zero byte ends the one part of free length.
fn signed_bytes(lab: &str, device: DeviceId, nonce: &[u8; 32], protocol: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend_from_slice(DOMAIN);
    bytes.extend_from_slice(lab.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(device.to_string().as_bytes());
    bytes.extend_from_slice(nonce);
    bytes.extend_from_slice(&protocol.to_be_bytes());
    bytes
}

mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&data_encoding::HEXLOWER.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| de::Error::custom("not hex"))?;
        bytes.try_into().map_err(|_| de::Error::custom("not 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAB: &str = "https://lab.example.com";

    #[test]
    fn a_proof_holds_for_its_own_lab_device_and_nonce_only() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let challenge = Challenge { nonce: [1; 32], lab: LAB.into() };
        let proof = Proof::sign(&key, DeviceId::random(), LAB, &challenge, "0");
        let public = key.verifying_key();
        assert_eq!(proof.verify(&public, LAB, &[1; 32]), Ok(()));
        assert_eq!(proof.verify(&public, "https://lab.example.co", &[1; 32]), Err(BadProof));
        assert_eq!(proof.verify(&public, LAB, &[2; 32]), Err(BadProof));
        assert_eq!(proof.verify(&SigningKey::from_bytes(&[8; 32]).verifying_key(), LAB, &[1; 32]), Err(BadProof));
        let other_device = Proof { device: DeviceId::random(), ..proof.clone() };
        assert_eq!(other_device.verify(&public, LAB, &[1; 32]), Err(BadProof));
        let other_protocol = Proof { protocol: 2, ..proof };
        assert_eq!(other_protocol.verify(&public, LAB, &[1; 32]), Err(BadProof));
    }

    #[test]
    fn the_wire_is_what_it_was() {
        let verdict = Verdict::Refused { code: RefusalCode::Revoked, retry_after_s: Some(900) };
        assert_eq!(serde_json::to_string(&verdict).unwrap(), r#"{"verdict":"refused","code":"revoked","retry_after_s":900}"#);
        let challenge = Challenge { nonce: [0xab; 32], lab: LAB.into() };
        assert_eq!(serde_json::to_string(&challenge).unwrap(), format!(r#"{{"nonce":"{}","lab":"{LAB}"}}"#, "ab".repeat(32)));
    }
}
