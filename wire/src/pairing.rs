//! Pairing a workstation with a Lab: the device flow of RFC 8628, with a proof that the bridge holds its key.
//!
//! The bridge makes an Ed25519 key and sends the public half ([`DeviceRequest`] to [`AUTHORIZE_PATH`]); a person approves the short
//! code after comparing the fingerprint's words; the bridge polls [`TOKEN_PATH`] ([`TokenRequest`]) and gets a device id. Nothing
//! that is exchanged is a credential: only the key, which never leaves the workstation, opens a link.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{DeviceId, hello::BadProof};

/// `POST`: ask for a code.
pub const AUTHORIZE_PATH: &str = "/bridge/v1/device_authorization";
/// `POST`: has it been approved?
pub const TOKEN_PATH: &str = "/bridge/v1/token";
/// The letters of a user code: no vowels, so no words; nothing that looks like a digit (RFC 8628 §6.1).
pub const CODE_ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Letters in a user code: 20⁸ ≈ 2³⁴·⁶.
pub const CODE_LEN: usize = 8;

const DOMAIN: &[u8] = b"1k4-pair-v1\0";

/// Bridge to Lab: a workstation would like to be paired.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceRequest {
    /// The device's Ed25519 public key, 32 bytes as hex.
    pub public_key: String,
    /// The workstation's name, shown to the person who approves.
    pub hostname: String,
    /// Operating system and version, likewise.
    pub os: String,
    /// The bridge's version.
    pub version: String,
}

/// Lab to bridge: show this code.
#[derive(Clone, Serialize, Deserialize)]
pub struct DeviceGrant {
    /// Polls for the outcome; 256 bits, known to this bridge only.
    pub device_code: String,
    /// What the person types: eight letters with a dash in the middle.
    pub user_code: String,
    /// Where they type it. There is deliberately no address that carries the code (SECURITY 4.6: phishing).
    pub verification_uri: String,
    /// Seconds until the code is dead.
    pub expires_in: u64,
    /// Seconds between polls.
    pub interval: u64,
}

/// Bridge to Lab: was the code approved?
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// From [`DeviceGrant`].
    pub device_code: String,
    /// Ed25519 over domain ‖ origin ‖ 0 ‖ device code, 64 bytes as hex: a stolen device code alone pairs nothing.
    pub signature: String,
}

impl TokenRequest {
    /// Signs `device_code` for the Lab at `lab`, the origin that was dialled.
    #[must_use]
    pub fn sign(key: &SigningKey, lab: &str, device_code: String) -> Self {
        let signature = key.sign(&signed_bytes(lab, &device_code));
        Self { device_code, signature: data_encoding::HEXLOWER.encode(&signature.to_bytes()) }
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`BadProof`] when key, Lab or code differ.
    pub fn verify(&self, key: &VerifyingKey, lab: &str) -> Result<(), BadProof> {
        let bytes = data_encoding::HEXLOWER.decode(self.signature.as_bytes()).map_err(|_| BadProof)?;
        let signature = Signature::from_slice(&bytes).map_err(|_| BadProof)?;
        key.verify_strict(&signed_bytes(lab, &self.device_code), &signature).map_err(|_| BadProof)
    }
}

fn signed_bytes(lab: &str, device_code: &str) -> Vec<u8> {
    [DOMAIN, lab.as_bytes(), b"\0", device_code.as_bytes()].concat()
}

/// Lab to bridge: paired.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Paired {
    /// The identity to present in each hello.
    pub device: DeviceId,
    /// Whose workstation it now is, as the Lab shows them.
    pub owner: String,
}

/// Lab to bridge with status 400: RFC 8628 §3.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenError {
    /// Why there is no device id (yet).
    pub error: TokenErrorCode,
}

/// The codes of RFC 8628 §3.5 and RFC 6749 §5.2 that this flow uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenErrorCode {
    /// Nobody has typed the code yet: poll again.
    AuthorizationPending,
    /// Polled too fast: add 5 s to the interval from now on.
    SlowDown,
    /// Somebody typed the code and said no.
    AccessDenied,
    /// The code is dead: start again.
    ExpiredToken,
    /// The device code or the signature is not known here.
    InvalidGrant,
}
