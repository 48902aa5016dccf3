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
mod rotation;
#[cfg(test)]
mod tests;
mod tombstones;

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use aes_gcm::{
    Aes256Gcm, KeyInit, Nonce, Tag,
    aead::{AeadInOut, inout::InOutBuf},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use wire::{ConversationId, ProjectId, UserId};
use zeroize::{Zeroize, Zeroizing};

use keystore::{Added, Keystore, WrappedKey};
use master::{Master, MasterKeys};
use tombstones::Outposts;

pub(crate) use keystore::bury_in;
pub use master::{MasterError, MasterSource};
pub(crate) use master::{NewMaster, renew};
pub use rotation::{Held, Rotated};
pub use tombstones::{FILE_NAME as TOMBSTONES, Tombstone, TombstoneError};

use crate::{random::random_bytes, store::now_ms};

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
/// Opened keys that are remembered though nobody holds them. One takes some 300 bytes.
const REMEMBERED: usize = 16_384;
/// How long a new generation waits before it seals, in milliseconds: twice as long as a server can go without hearing of it
/// (SECURITY 4.3's lease), so that whoever is to open it knows it by then.
const GRACE_MS: i64 = 2_000;

/// Opens and closes everything that is sealed; clones share what they know.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    keystore: Keystore,
    master: Master,
    known: Mutex<Known>,
    outposts: Outposts,
}

/// Every key that this process has open. One that somebody holds is always here, so that its end reaches them.
#[derive(Default)]
struct Known {
    keys: HashMap<Scope, Key>,
    /// Grows with every deletion that this process hears of: what was fetched before is not remembered after it.
    forgotten: u64,
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

/// The opened key of one scope, in all its generations; the newest one seals. Whoever holds it hears of new generations and of its
/// end: after its scope was deleted it opens nothing, and what it seals nobody opens.
#[derive(Clone)]
pub struct Key(Arc<Ring>);

struct Ring {
    scope: Scope,
    /// For looking things up without opening them; the same in all generations.
    index: Zeroizing<[u8; 32]>,
    /// Oldest first; `None` once the scope was deleted, and ever after.
    generations: RwLock<Option<Vec<Generation>>>,
}

struct Generation {
    number: u32,
    key: Zeroizing<[u8; 32]>,
    /// When it begins to seal, milliseconds since 1970. The oldest seals whatever stands here.
    from: i64,
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
        // A keystore without its master key must not be given another one.
        let first = tokio::fs::metadata(path).await.map_or(true, |file| file.len() == 0);
        let master = Master::fetch(source, first).await?;
        let keystore = Keystore::open(path).await?;
        keystore.begin(&master.keys()).await?;
        let vault = Self(Arc::new(Inner { keystore, master, known: Mutex::default(), outposts: Outposts::default() }));
        // Whether the master key is the right one is found out now, not when somebody's words are wanted.
        vault.create(Scope::Lab).await?;
        Ok(vault)
    }

    /// From now on every deletion is also written down in these folders, where the backups are: whoever restores one knows then what
    /// has been deleted since. What a folder that is away missed is written when it is there again.
    #[must_use]
    pub fn telling(self, folders: Vec<PathBuf>) -> Self {
        self.0.outposts.are(folders);
        self
    }

    /// The key of a scope.
    ///
    /// # Errors
    /// [`VaultError::NoKey`] when it was deleted or never made.
    pub async fn key(&self, scope: Scope) -> Result<Key, VaultError> {
        if let Some(key) = self.known().keys.get(&scope) {
            return Ok(key.clone());
        }
        self.keys(&[scope]).await?.remove(&scope).ok_or(VaultError::NoKey)
    }

    /// The keys of many scopes, fetched together; what has none is missing among them.
    ///
    /// # Errors
    /// When the keystore or the master key cannot be used.
    pub async fn keys(&self, scopes: &[Scope]) -> Result<HashMap<Scope, Key>, VaultError> {
        loop {
            let (mut found, missing, before) = {
                let known = self.known();
                let found: HashMap<Scope, Key> =
                    scopes.iter().filter_map(|scope| Some((*scope, known.keys.get(scope)?.clone()))).collect();
                let missing: Vec<Scope> = scopes.iter().filter(|scope| !found.contains_key(scope)).copied().collect();
                (found, missing, known.forgotten)
            };
            if missing.is_empty() {
                return Ok(found);
            }
            let rings = self.fetch(&missing).await?;
            // One of them may have been deleted meanwhile; then they are fetched again.
            if let Some(keys) = self.remember(rings, before) {
                found.extend(keys);
                return Ok(found);
            }
        }
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
        let mut master = self.0.master.keys();
        loop {
            let kek = self.0.keystore.wraps().await?;
            if master.named(&kek).is_err() {
                master = self.0.master.fetch_again().await?;
            }
            let wrapped = wrap(master.named(&kek)?, &kek, scope, 1, &key, &index);
            match self.0.keystore.add(scope, &wrapped).await? {
                // Another process may have been first: what stands there is the key.
                Added::Yes => return self.key(scope).await,
                Added::Deleted => return Err(VaultError::NoKey),
                Added::OtherMaster => {}
            }
        }
    }

    /// Deletes the key of a scope, of a person with everything of theirs, and remembers that it was deleted. When this returns,
    /// nothing that was sealed under it can be opened by this process, nor by whoever has the keystore and all that was sealed.
    ///
    /// # Errors
    /// When the keystore fails; nothing is deleted then.
    pub async fn shred(&self, scope: Scope) -> Result<(), VaultError> {
        self.shred_all(&[scope]).await
    }

    /// Deletes the keys of many scopes at once, all or none.
    ///
    /// # Errors
    /// When the keystore fails; nothing is deleted then.
    pub async fn shred_all(&self, scopes: &[Scope]) -> Result<(), VaultError> {
        let stones = self.0.keystore.shred(scopes).await?;
        {
            let mut known = self.known();
            known.forgotten += 1;
            known.keys.retain(|scope, key| {
                let goes =
                    scopes.iter().any(|gone| gone == scope || matches!(gone, Scope::User(user) if scope.owner() == Some(*user)));
                if goes {
                    key.0.bury();
                }
                !goes
            });
        }
        self.0.outposts.tell(&self.0.keystore, stones).await;
        Ok(())
    }

    /// Writes down, in the folders of the backups, the deletions that one of them missed while it was away.
    ///
    /// # Errors
    /// When the keystore fails. A folder that is still away is tried again next time.
    pub async fn tell_again(&self) -> Result<(), VaultError> {
        self.0.outposts.catch_up(&self.0.keystore).await
    }

    /// Forgets the keys that nobody holds, and reads those again that somebody does: another process may have deleted some or made
    /// new generations.
    ///
    /// # Errors
    /// When the keystore or the master key cannot be used; then nothing that is open changes.
    pub async fn refresh(&self) -> Result<(), VaultError> {
        let held: Vec<Scope> = {
            let mut known = self.known();
            known.forgotten += 1;
            known.keys.retain(|_, key| key.is_held());
            known.keys.keys().copied().collect()
        };
        let mut fetched = self.fetch(&held).await?;
        let mut known = self.known();
        known.keys.retain(|scope, key| {
            let Some(at) = fetched.iter().position(|ring| ring.scope == *scope) else {
                // One that was opened since is not among those that were asked for.
                let stays = !held.contains(scope);
                if !stays {
                    key.0.bury();
                }
                return stays;
            };
            key.0.renew(fetched.swap_remove(at));
            true
        });
        Ok(())
    }

    /// Everything that was ever deleted, oldest first.
    ///
    /// # Errors
    /// When the keystore fails.
    pub async fn deleted(&self) -> Result<Vec<Scope>, VaultError> {
        Ok(self.0.keystore.tombstones().await?.iter().filter_map(Tombstone::scope).collect())
    }

    /// Copies the keystore as it is now into a new file.
    ///
    /// # Errors
    /// When the keystore fails or the file is there already.
    pub async fn copy_to(&self, file: &Path) -> Result<(), VaultError> {
        Ok(self.0.keystore.copy_to(file).await?)
    }

    /// Closes the keystore.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn close(&self) -> Result<(), VaultError> {
        self.known().keys.clear();
        Ok(self.0.keystore.close().await?)
    }

    /// The keys of these scopes as they stand in the keystore.
    async fn fetch(&self, scopes: &[Scope]) -> Result<Vec<Ring>, VaultError> {
        let rows = self.0.keystore.keys(scopes).await?;
        let master = self.0.master.keys();
        let missing = rows.iter().flat_map(|(_, rows)| rows).any(|row| master.named(&row.kek).is_err());
        // Its owner may have put another one in front while this runs.
        let master = if missing { self.0.master.fetch_again().await? } else { master };
        rows.into_iter().map(|(scope, rows)| unwrap_all(&master, scope, &rows)).collect()
    }

    /// Keeps what was fetched. `None` when something was deleted since `before`.
    fn remember(&self, rings: Vec<Ring>, before: u64) -> Option<Vec<(Scope, Key)>> {
        let mut known = self.known();
        if known.forgotten != before {
            return None;
        }
        if known.keys.len() + rings.len() > REMEMBERED {
            known.keys.retain(|_, key| key.is_held());
        }
        let keys = rings.into_iter().map(|ring| {
            let key = known.keys.entry(ring.scope).or_insert_with(|| Key(Arc::new(ring)));
            (key.0.scope, key.clone())
        });
        Some(keys.collect())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No code that can panic runs under the lock.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    /// Seals a value for its place. The result is [`OVERHEAD`] bytes longer.
    #[must_use]
    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let (generation, key) = self.0.sealing();
        let (salt, nonce) = (random_bytes::<SALT>(), random_bytes::<NONCE>());
        let mut sealed = Vec::with_capacity(plain.len() + OVERHEAD);
        sealed.push(FORM);
        sealed.extend_from_slice(&generation.to_be_bytes());
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let cipher = cipher(&record_key(&key, &salt, place.table));
        let bound = self.bound_to(place, generation);
        match cipher.encrypt_inout_detached(&Nonce::from(nonce), &bound, InOutBuf::from(&mut sealed[HEAD..])) {
            Ok(tag) => sealed.extend_from_slice(&tag),
            // GCM refuses messages of 64 GiB only. What is left opens nowhere.
            Err(_) => sealed.zeroize(),
        }
        sealed
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// [`VaultError::Broken`] for anything else, be it one bit, and [`VaultError::NoKey`] once the scope was deleted.
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Opened, VaultError> {
        let (head, rest) = sealed.split_first_chunk::<HEAD>().ok_or(VaultError::Broken)?;
        let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(VaultError::Broken)?;
        let [form, a, b, c, d, rest @ ..] = head;
        let (salt, nonce) = rest.split_first_chunk::<SALT>().ok_or(VaultError::Broken)?;
        let nonce: [u8; NONCE] = nonce.try_into().map_err(|_| VaultError::Broken)?;
        if *form != FORM {
            return Err(VaultError::Broken);
        }
        let generation = u32::from_be_bytes([*a, *b, *c, *d]);
        let key = self.0.generation(generation)?;
        let cipher = cipher(&record_key(&key, salt, place.table));
        let bound = self.bound_to(place, generation);
        let mut plain = Zeroizing::new(vec![0; body.len()]);
        let buffer = InOutBuf::new(body, &mut plain[..]).map_err(|_| VaultError::Broken)?;
        // The tag is compared first: nothing is decrypted that is not whole.
        cipher.decrypt_inout_detached(&Nonce::from(nonce), &bound, buffer, &Tag::from(*tag)).map_err(|_| VaultError::Broken)?;
        Ok(plain)
    }

    /// Opens a text.
    ///
    /// # Errors
    /// Like [`Key::open`].
    pub fn open_text(&self, place: Place<'_>, sealed: &[u8]) -> Result<String, VaultError> {
        String::from_utf8(std::mem::take(&mut *self.open(place, sealed)?)).map_err(|_| VaultError::Broken)
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

    /// Whether its scope was deleted, by this process or, since the last [`Vault::refresh`], by another one.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.generations.read().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    /// Whether somebody beside the vault holds it.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// What is authenticated beside the value, each part with its length.
    fn bound_to(&self, place: Place<'_>, generation: u32) -> Vec<u8> {
        let (owner, scope) = (self.0.scope.owner_text(), self.0.scope.to_string());
        joined(&[
            b"1k4-sealed-v1",
            owner.as_bytes(),
            scope.as_bytes(),
            place.table.as_bytes(),
            place.row.as_bytes(),
            place.column.as_bytes(),
            &place.version.to_be_bytes(),
            &generation.to_be_bytes(),
        ])
    }
}

impl Ring {
    /// The newest generation whose time has come, and its key. A deleted scope's is one that nobody has.
    fn sealing(&self) -> (u32, Zeroizing<[u8; 32]>) {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        let Some(generations) = generations.as_deref() else { return (0, random_key()) };
        let newest = match generations {
            [only] => Some(only),
            several => {
                let now = now_ms();
                several.iter().rev().find(|generation| generation.from <= now).or(several.first())
            }
        };
        newest.map_or_else(|| (0, random_key()), |generation| (generation.number, generation.key.clone()))
    }

    fn generation(&self, number: u32) -> Result<Zeroizing<[u8; 32]>, VaultError> {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        let generations = generations.as_ref().ok_or(VaultError::NoKey)?;
        let found = generations.iter().find(|generation| generation.number == number);
        found.map(|generation| generation.key.clone()).ok_or(VaultError::Broken)
    }

    /// The scope was deleted.
    fn bury(&self) {
        *self.generations.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Takes over the generations that were fetched anew, unless the scope was deleted since.
    fn renew(&self, fetched: Self) {
        let fetched = fetched.generations.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(generations) = &mut *self.generations.write().unwrap_or_else(PoisonError::into_inner)
            && let Some(fetched) = fetched
        {
            *generations = fetched;
        }
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

    /// Whose it is, as it stands in the keystore; nothing for the Lab's own.
    fn owner_text(self) -> String {
        self.owner().map(|owner| owner.to_string()).unwrap_or_default()
    }

    /// As it stood in the keystore, with its owner.
    fn of(scope: &str, owner: &str) -> Option<Self> {
        if scope == LAB {
            return Some(Self::Lab);
        }
        let owner = UserId::from_str(owner).ok()?;
        let own = UserId::from_str(scope).ok().filter(|user| *user == owner).map(Self::User);
        let project = || ProjectId::from_str(scope).ok().map(|project| Self::Project(owner, project));
        let conversation = || ConversationId::from_str(scope).ok().map(|conversation| Self::Conversation(owner, conversation));
        own.or_else(project).or_else(conversation)
    }
}

/// What the Lab's own scope is called in the keystore.
const LAB: &str = "lab";

/// As it stands in the keystore.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lab => f.write_str(LAB),
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

/// Every generation of a scope's key, oldest first.
fn unwrap_all(master: &MasterKeys, scope: Scope, rows: &[WrappedKey]) -> Result<Ring, VaultError> {
    let mut generations = Vec::with_capacity(rows.len());
    let mut index = Err(VaultError::NoKey);
    for row in rows {
        let both = unwrap(master, scope, row)?;
        let (key, found) = both.split_first_chunk::<32>().ok_or(VaultError::Broken)?;
        let from = row.created_at.saturating_add(GRACE_MS);
        generations.push(Generation { number: row.generation, key: Zeroizing::new(*key), from });
        index = Ok(Zeroizing::new(found.try_into().map_err(|_| VaultError::Broken)?));
    }
    Ok(Ring { scope, index: index?, generations: RwLock::new(Some(generations)) })
}

/// The key and the index key of one generation, one behind the other.
fn unwrap(master: &MasterKeys, scope: Scope, row: &WrappedKey) -> Result<Zeroizing<[u8; 64]>, VaultError> {
    let kek = master.named(&row.kek)?;
    let (nonce, rest) = row.wrapped.split_first_chunk::<NONCE>().ok_or(VaultError::Broken)?;
    let (body, tag) = rest.split_last_chunk::<TAG>().ok_or(VaultError::Broken)?;
    let mut both = Zeroizing::new([0; 64]);
    let buffer = InOutBuf::new(body, &mut both[..]).map_err(|_| VaultError::Broken)?;
    let bound = wrapping(scope, row.generation, &row.kek);
    let opened = cipher(kek).decrypt_inout_detached(&Nonce::from(*nonce), &bound, buffer, &Tag::from(*tag));
    opened.map(|()| both).map_err(|_| VaultError::Broken)
}

/// Wraps a key and its index key under a master key.
fn wrap(master: &[u8; 32], kek: &str, scope: Scope, generation: u32, key: &[u8; 32], index: &[u8; 32]) -> WrappedKey {
    let mut both = Zeroizing::new([0; 64]);
    both[..32].copy_from_slice(key);
    both[32..].copy_from_slice(index);
    rewrap(master, kek, scope, generation, &both)
}

fn rewrap(master: &[u8; 32], kek: &str, scope: Scope, generation: u32, both: &[u8; 64]) -> WrappedKey {
    let nonce = random_bytes::<NONCE>();
    let mut sealed = Zeroizing::new(*both);
    let bound = wrapping(scope, generation, kek);
    let tag = cipher(master).encrypt_inout_detached(&Nonce::from(nonce), &bound, InOutBuf::from(&mut sealed[..]));
    // GCM refuses messages of 64 GiB only; nothing that opens comes of one.
    let wrapped = tag.map(|tag| [&nonce[..], &sealed[..], &tag[..]].concat()).unwrap_or_default();
    WrappedKey { generation, kek: kek.to_owned(), wrapped, created_at: now_ms() }
}

/// What a wrapped key is authenticated with.
fn wrapping(scope: Scope, generation: u32, kek: &str) -> Vec<u8> {
    let (owner, scope) = (scope.owner_text(), scope.to_string());
    joined(&[b"1k4-key-v1", owner.as_bytes(), scope.as_bytes(), &generation.to_be_bytes(), kek.as_bytes()])
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
