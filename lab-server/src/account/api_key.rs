//! API keys: `1k4_<env>_<kid>_<secret><crc>`, all in base 62.
//!
//! The id finds the row, the 256 bits of the secret prove the right, the checksum lets a typo be refused without asking anybody and
//! a secret scanner be sure of what it found. Stored is SHA-256 over domain ‖ salt ‖ secret: enough for a secret that is random, and
//! worth nothing when shown as a key.
//!
//! For scanners: `1k4_(live|test)_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}`.

use std::{fmt, str::FromStr};

use api_proxy::KeyId;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::random::random_bytes;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of a key's id: 71 bits, so that ids do not collide.
const KID_LEN: usize = KeyId::LEN;
/// Characters of the secret: 62⁴³ > 2²⁵⁶.
const SECRET_LEN: usize = 43;
/// Characters of the checksum: 62⁶ > 2³².
const CRC_LEN: usize = 6;
const DOMAIN: &[u8] = b"1k4-key-v1";

/// What an unknown key is compared with, so that the answer takes as long. No secret is known that it matches.
pub(super) const NOBODYS: Secret = Secret { salt: [0; 16], hash: [0; 32] };

/// Whether a key is for real work or for trying things out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Real work.
    #[default]
    Live,
    /// Trying things out.
    Test,
}

/// A text that is no [`Environment`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an environment is `live` or `test`")]
pub struct InvalidEnvironment;

impl Environment {
    /// Its name, as it stands in keys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

impl FromStr for Environment {
    type Err = InvalidEnvironment;

    fn from_str(text: &str) -> Result<Self, InvalidEnvironment> {
        [Self::Live, Self::Test].into_iter().find(|environment| environment.as_str() == text).ok_or(InvalidEnvironment)
    }
}

/// The public part of a key: names it in lists, records and logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kid(KeyId);

/// A text that names no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key id is {KID_LEN} letters and digits")]
pub struct InvalidKid;

impl FromStr for Kid {
    type Err = InvalidKid;

    fn from_str(text: &str) -> Result<Self, InvalidKid> {
        text.parse().map(Self).map_err(|_| InvalidKid)
    }
}

impl From<KeyId> for Kid {
    fn from(id: KeyId) -> Self {
        Self(id)
    }
}

impl From<Kid> for KeyId {
    fn from(kid: Kid) -> Self {
        kid.0
    }
}

impl fmt::Display for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Kid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Serialize for Kid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A key that somebody shows: well-formed and with a right checksum, which says nothing of whether it is valid.
pub struct PresentedKey {
    kid: Kid,
    secret: String,
}

/// A text that cannot be a key. It is not repeated: it may be one with a typo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an API key of this lab; keys look like 1k4_live_…, copy the whole of it")]
pub struct InvalidKey;

impl PresentedKey {
    /// The public part.
    #[must_use]
    pub fn kid(&self) -> Kid {
        self.kid
    }

    /// Whether this is the key whose secret was stored, in a time that does not depend on the answer.
    #[must_use]
    pub fn matches(&self, stored: &Secret) -> bool {
        hash(&stored.salt, &self.secret).ct_eq(&stored.hash).into()
    }
}

impl FromStr for PresentedKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let rest = text.strip_prefix("1k4_").ok_or(InvalidKey)?;
        let rest = rest.strip_prefix("live_").or_else(|| rest.strip_prefix("test_")).ok_or(InvalidKey)?;
        let (kid, tail) = rest.split_once('_').ok_or(InvalidKey)?;
        if !is_base62(tail, SECRET_LEN + CRC_LEN) {
            return Err(InvalidKey);
        }
        let (body, crc) = text.split_at(text.len() - CRC_LEN);
        if checksum(body) != crc {
            return Err(InvalidKey);
        }
        Ok(Self { kid: kid.parse().map_err(|_| InvalidKey)?, secret: tail[..SECRET_LEN].to_owned() })
    }
}

impl fmt::Debug for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.kid)
    }
}

/// What is stored of a key's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    pub(crate) salt: [u8; 16],
    pub(crate) hash: [u8; 32],
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// A key that was just made: the only moment at which it can be read.
pub struct NewKey {
    kid: Kid,
    text: String,
}

impl NewKey {
    /// Draws a key.
    #[must_use]
    pub fn generate(environment: Environment) -> Self {
        let kid = random_kid();
        let mut text = format!("1k4_{}_{kid}_{}", environment.as_str(), random_base62(SECRET_LEN));
        text.push_str(&checksum(&text));
        Self { kid, text }
    }

    /// The public part.
    #[must_use]
    pub fn kid(&self) -> Kid {
        self.kid
    }

    /// The whole key, for its owner's eyes.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// The last four characters, by which the owner tells keys apart.
    #[must_use]
    pub fn last4(&self) -> &str {
        &self.text[self.text.len() - 4..]
    }

    /// What is to be stored: another salt, and so another hash, with every call.
    #[must_use]
    pub fn secret(&self) -> Secret {
        let salt = random_bytes();
        let secret = &self.text[self.text.len() - CRC_LEN - SECRET_LEN..self.text.len() - CRC_LEN];
        Secret { salt, hash: hash(&salt, secret) }
    }
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "new key {}", self.kid)
    }
}

fn hash(salt: &[u8; 16], secret: &str) -> [u8; 32] {
    Sha256::new_with_prefix(DOMAIN).chain_update(salt).chain_update(secret.as_bytes()).finalize().into()
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [b'0'; CRC_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[rest % ALPHABET.len()];
        rest /= ALPHABET.len();
    }
    digits.into_iter().map(char::from).collect()
}

fn is_base62(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Each character equally likely: bytes above the largest multiple of 62 are drawn again.
fn random_base62(len: usize) -> String {
    const FAIR: u8 = (256 / ALPHABET.len() * ALPHABET.len()) as u8;
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let fair = random_bytes::<64>().into_iter().filter(|byte| *byte < FAIR);
        text.extend(fair.take(len - text.len()).map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])));
    }
    text
}

#[expect(clippy::expect_used, reason = "base 62 of the right length is a key id")]
fn random_kid() -> Kid {
    Kid(random_base62(KID_LEN).parse().expect("base 62 of the right length is a key id"))
}

/// A key with the id of one and the secret of another, well-formed.
#[cfg(test)]
pub(super) fn splice(kid: Kid, other: &NewKey) -> PresentedKey {
    let secret = &other.text[other.text.len() - CRC_LEN - SECRET_LEN..other.text.len() - CRC_LEN];
    PresentedKey { kid, secret: secret.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_looks_as_published_and_is_recognised() {
        for environment in [Environment::Live, Environment::Test] {
            let new = NewKey::generate(environment);
            let text = new.reveal();
            assert_eq!(text.len(), "1k4_live_".len() + 12 + 1 + 49);
            assert!(text.starts_with(&format!("1k4_{}_{}_", environment.as_str(), new.kid())));
            let key: PresentedKey = text.parse().unwrap();
            assert_eq!(key.kid(), new.kid());
            assert!(key.matches(&new.secret()));
            assert!(!key.matches(&NewKey::generate(environment).secret()));
            assert!(!key.matches(&NOBODYS));
            assert!(text.ends_with(new.last4()));
        }
    }

    #[test]
    fn the_checksum_is_what_it_was() {
        // Keys that are in use must stay valid: the checksum's form never changes.
        assert_eq!(checksum("1k4_live_000000000000_0000000000000000000000000000000000000000000").len(), 6);
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(checksum("123456789"), "3jZRME");
    }

    #[test]
    fn nothing_prints_the_secret() {
        let new = NewKey::generate(Environment::Live);
        let key: PresentedKey = new.reveal().parse().unwrap();
        let kid = new.kid();
        assert_eq!(format!("{new:?} {key:?} {:?}", new.secret()), format!("new key {kid} key {kid} ****"));
    }

    proptest! {
        #[test]
        fn one_changed_character_is_noticed(at in 0_usize..71, to in 0_usize..62) {
            let text = NewKey::generate(Environment::Live).reveal().to_owned();
            let mut changed = text.clone().into_bytes();
            prop_assume!(changed[at] != ALPHABET[to]);
            changed[at] = ALPHABET[to];
            prop_assert_eq!(String::from_utf8(changed).unwrap().parse::<PresentedKey>().err(), Some(InvalidKey));
        }

        #[test]
        fn no_text_breaks_the_parser(text in ".{0,100}", tail in "[0-9A-Za-z_é]{0,70}") {
            prop_assert!(text.parse::<PresentedKey>().is_err());
            let prefixed = format!("1k4_live_{tail}");
            prop_assert!(prefixed.parse::<PresentedKey>().is_err());
        }
    }
}
