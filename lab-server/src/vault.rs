//! What people keep here is sealed: each scope has a key of its own, and whoever deletes the key deletes everything under it.
//!
//! ```text
//! master key (KEK)          where its owner put it: keyring, credential, file; never beside a backup
//!   └─ scope's key (DEK)    wrapped in the keystore, a second database: a person's, a project's, a conversation's, the Lab's own
//!        └─ record's key    HKDF-SHA256(DEK, 16 random bytes, table): AES-256-GCM, 96 random bits of nonce
//! ```
//!
//! A sealed value opens only at the [`Place`] it was sealed for: table, column, row and version are authenticated with it, as is the
//! scope, so that nothing can be moved, swapped or put back. Deriving a key for each record removes GCM's limit of 2³² messages
//! under one key (SECURITY 4.7).

mod keystore;
mod master;

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use wire::{ConversationId, ProjectId, UserId};
use zeroize::Zeroizing;

use keystore::{Keystore, WrappedKey};
use master::MasterKeys;

pub use master::{MasterError, MasterSource};

use crate::random::random_bytes;

/// The form of everything that is sealed; the first byte of it.
const FORM: u8 = 1;
/// Random bytes that a record's key is derived with.
const SALT: usize = 16;
/// GCM's nonce.
const NONCE: usize = 12;
/// GCM's tag.
const TAG: usize = 16;
/// Form, generation, salt and nonce.
const HEAD: usize = 1 + 4 + SALT + NONCE;
/// What sealing adds to a value, in bytes.
pub const OVERHEAD: usize = HEAD + TAG;
/// Opened keys that are remembered. One takes some 200 bytes.
const REMEMBERED: usize = 16_384;

/// Opens and closes everything that is sealed; clones share what they know.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    keystore: Keystore,
    master: MasterKeys,
    known: Mutex<HashMap<Scope, Key>>,
}

/// What has a key of its own. Deleting the key of a scope is how its content is deleted for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The Lab itself: what belongs to nobody yet, and the look-up of people by what they are called.
    Lab,
    /// A person: names, addresses, folders.
    User(UserId),
    /// A project of theirs: its files, tasks, instructions, operation log.
    Project(UserId, ProjectId),
    /// A conversation of theirs: its messages and runs.
    Conversation(UserId, ConversationId),
}

/// Where a sealed value stands. It opens nowhere else.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The row's identity.
    pub row: &'a str,
    /// The row's version; 0 for what is never rewritten.
    pub version: i64,
}

/// The opened key of one scope, in all its generations; the newest one seals.
#[derive(Clone)]
pub struct Key(Arc<Ring>);

struct Ring {
    scope: Scope,
    /// Generation and key, oldest first; never empty.
    generations: Vec<(u32, Zeroizing<[u8; 32]>)>,
    /// For looking things up without opening them; the same in all generations.
    index: Zeroizing<[u8; 32]>,
}

/// A text's stand-in, by which a row is found without knowing the text: HMAC-SHA256 under the scope's index key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlindIndex([u8; 32]);

/// What was sealed, while it is looked at; wiped afterwards.
pub type Opened = Zeroizing<Vec<u8>>;

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The scope has no key: it was deleted, or never was.
    #[error("there is no key for this any more: it was deleted")]
    NoKey,
    /// The value was not sealed for this place, or was changed since.
    #[error("a stored value was changed, moved or put back: it does not open where it stands; restore it from a backup")]
    Broken,
    /// The master key is missing or is another one.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The keystore failed. Its texts name tables and files, never keys.
    #[error("the keystore failed: {0}")]
    Keystore(#[from] sea_orm::DbErr),
    /// The keystore's file cannot be used.
    #[error("cannot use the keystore {path}: {source}; check the path and its permissions")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

impl Vault {
    /// Opens the keystore at `path`, making it where it is missing, under the master key that lies at `source`.
    ///
    /// # Errors
    /// When the master key cannot be had, or is not the one that the keystore was made under.
    pub async fn open(path: &Path, source: &MasterSource) -> Result<Self, VaultError> {
        let master = MasterKeys::fetch(source).await?;
        let keystore = Keystore::open(path).await?;
        let vault = Self(Arc::new(Inner { keystore, master, known: Mutex::default() }));
        // Whether the master key is the right one is found out now, not when somebody's words are wanted.
        vault.create(Scope::Lab).await?;
        Ok(vault)
    }

    /// The key of a scope.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] when it was deleted or never made.
    pub async fn key(&self, scope: Scope) -> Result<Key, VaultError> {
        if let Some(key) = self.known().get(&scope) {
            return Ok(key.clone());
        }
        let rows = self.0.keystore.keys(scope).await?;
        let key = self.unwrap(scope, &rows)?.ok_or(VaultError::NoKey)?;
        Ok(self.remember(scope, key))
    }

    /// The key of a scope, made now if there is none. A scope whose key was deleted gets none again.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] when it was deleted.
    pub async fn create(&self, scope: Scope) -> Result<Key, VaultError> {
        match self.key(scope).await {
            Err(VaultError::NoKey) => {}
            other => return other,
        }
        let (key, index) = (random_key(), random_key());
        let wrapped = self.wrap(scope, 1, &key, &index);
        if !self.0.keystore.add(scope, &wrapped).await? {
            return Err(VaultError::NoKey);
        }
        // Another process may have been first: what stands there is the key.
        self.key(scope).await
    }

    /// Deletes the key of a scope, of a person with everything of theirs, and remembers that it was deleted. When this returns,
    /// nothing that was sealed under it can be opened by this process, nor by whoever has the keystore and all that was sealed.
    ///
    /// # Errors
    /// When the keystore fails; nothing is deleted then.
    pub async fn shred(&self, scope: Scope) -> Result<(), VaultError> {
        self.0.keystore.shred(scope).await?;
        self.known().retain(|known, _| *known != scope && !(matches!(scope, Scope::User(_)) && known.owner() == scope.owner()));
        Ok(())
    }

    /// Forgets the keys that are open: another process may have deleted some.
    pub fn forget(&self) {
        self.known().clear();
    }

    /// Closes the keystore.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn close(&self) -> Result<(), VaultError> {
        self.forget();
        Ok(self.0.keystore.close().await?)
    }

    fn remember(&self, scope: Scope, key: Key) -> Key {
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(scope, key.clone());
        key
    }

    fn unwrap(&self, scope: Scope, rows: &[WrappedKey]) -> Result<Option<Key>, VaultError> {
        let mut generations = Vec::with_capacity(rows.len());
        let mut index = None;
        for row in rows {
            let kek = self.0.master.named(&row.kek)?;
            let payload = Payload { msg: &row.wrapped, aad: &wrapping(scope, row.generation, &row.kek) };
            let (nonce, sealed) = row.wrapped.split_at_checked(NONCE).ok_or(VaultError::Broken)?;
            let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| VaultError::Broken)?;
            let opened = cipher(kek).decrypt(&Nonce::from(nonce), Payload { msg: sealed, ..payload });
            let opened = Zeroizing::new(opened.map_err(|_| VaultError::Broken)?);
            let (key, found) = opened.split_at_checked(32).ok_or(VaultError::Broken)?;
            generations.push((row.generation, Zeroizing::new(key.try_into().map_err(|_| VaultError::Broken)?)));
            index = Some(Zeroizing::new(found.try_into().map_err(|_| VaultError::Broken)?));
        }
        Ok(index.map(|index| Key(Arc::new(Ring { scope, generations, index }))))
    }

    fn wrap(&self, scope: Scope, generation: u32, key: &[u8; 32], index: &[u8; 32]) -> WrappedKey {
        let (kek, master) = self.0.master.current();
        let both = Zeroizing::new([&key[..], &index[..]].concat());
        let nonce = random_bytes::<NONCE>();
        let payload = Payload { msg: &both, aad: &wrapping(scope, generation, &kek) };
        // GCM fails for messages of 64 GiB only.
        let sealed = cipher(&master).encrypt(&Nonce::from(nonce), payload).unwrap_or_default();
        WrappedKey { generation, kek, wrapped: [&nonce[..], &sealed].concat() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Scope, Key>> {
        // No code that can panic runs under the lock.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    /// Seals a value for its place. The result is [`OVERHEAD`] bytes longer.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let Some((generation, key)) = self.0.generations.last() else { return Vec::new() };
        let (salt, nonce) = (random_bytes::<SALT>(), random_bytes::<NONCE>());
        let mut sealed = Vec::with_capacity(HEAD + plain.len() + TAG);
        sealed.push(FORM);
        sealed.extend_from_slice(&generation.to_be_bytes());
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&nonce);
        let payload = Payload { msg: plain, aad: &self.bound_to(place, *generation) };
        let record = record_key(key, &salt, place.table);
        // GCM fails for messages of 64 GiB only.
        sealed.extend(cipher(&record).encrypt(&Nonce::from(nonce), payload).unwrap_or_default());
        sealed
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// [`VaultError::Broken`] for anything else, be it one bit.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Opened, VaultError> {
        let (head, body) = sealed.split_at_checked(HEAD).ok_or(VaultError::Broken)?;
        let (form, rest) = head.split_at(1);
        let (generation, rest) = rest.split_at(4);
        let (salt, nonce) = rest.split_at(SALT);
        let generation = u32::from_be_bytes(generation.try_into().map_err(|_| VaultError::Broken)?);
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| VaultError::Broken)?;
        let found = self.0.generations.iter().find(|(known, _)| *known == generation);
        let (_, key) = found.filter(|_| form == [FORM]).ok_or(VaultError::Broken)?;
        let payload = Payload { msg: body, aad: &self.bound_to(place, generation) };
        let opened = cipher(&record_key(key, salt, place.table)).decrypt(&Nonce::from(nonce), payload);
        opened.map(Zeroizing::new).map_err(|_| VaultError::Broken)
    }

    /// The stand-in for a text, for one purpose: the same text has another one elsewhere.
    #[must_use]
    pub fn blind(&self, purpose: &'static str, text: &[u8]) -> BlindIndex {
        let mut mac = match <Hmac<Sha256> as KeyInit>::new_from_slice(&self.0.index[..]) {
            Ok(mac) => mac,
            // HMAC takes keys of every length.
            Err(_) => return BlindIndex([0; 32]),
        };
        mac.update(&(purpose.len() as u64).to_be_bytes());
        mac.update(purpose.as_bytes());
        mac.update(text);
        BlindIndex(mac.finalize().into_bytes().into())
    }

    /// What is authenticated beside the value, each part with its length.
    fn bound_to(&self, place: Place<'_>, generation: u32) -> Vec<u8> {
        let scope = self.0.scope.to_string();
        let version = place.version.to_be_bytes();
        let generation = generation.to_be_bytes();
        joined(&[
            b"1k4-sealed-v1",
            scope.as_bytes(),
            place.table.as_bytes(),
            place.row.as_bytes(),
            place.column.as_bytes(),
            &version,
            &generation,
        ])
    }
}

impl Scope {
    /// Whose it is.
    #[must_use]
    pub const fn owner(self) -> Option<UserId> {
        match self {
            Self::Lab => None,
            Self::User(owner) | Self::Project(owner, _) | Self::Conversation(owner, _) => Some(owner),
        }
    }
}

/// As it stands in the keystore.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lab => f.write_str("lab"),
            Self::User(user) => user.fmt(f),
            Self::Project(_, project) => project.fmt(f),
            Self::Conversation(_, conversation) => conversation.fmt(f),
        }
    }
}

impl BlindIndex {
    /// The bytes, for a binary column.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// For a column of texts.
impl fmt::Display for BlindIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for BlindIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0.scope)
    }
}

fn random_key() -> Zeroizing<[u8; 32]> {
    Zeroizing::new(random_bytes())
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(key.into())
}

fn record_key(key: &[u8; 32], salt: &[u8], table: &str) -> Zeroizing<[u8; 32]> {
    let mut derived = Zeroizing::new([0; 32]);
    // It fails for lengths that no key has.
    let _ = Hkdf::<Sha256>::new(Some(salt), key).expand_multi_info(&[table.as_bytes(), b"/v1"], &mut derived[..]);
    derived
}

/// What a wrapped key is authenticated with.
fn wrapping(scope: Scope, generation: u32, kek: &str) -> Vec<u8> {
    let owner = scope.owner().map(|owner| owner.to_string()).unwrap_or_default();
    joined(&[b"1k4-key-v1", owner.as_bytes(), scope.to_string().as_bytes(), &generation.to_be_bytes(), kek.as_bytes()])
}

/// Parts one after the other, each behind its length, so that no two lists of parts are one text.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    let mut text = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        text.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        text.extend_from_slice(part);
    }
    text
}
