//! The master key: where it lies, and which of several wraps.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    random::random_bytes,
    secret::{self, SecretError},
};

/// What an env file calls it.
const VARIABLE: &str = "ONEK4_MASTER_KEY";
/// What a master key begins with, so that one is recognised where it does not belong.
const PREFIX: &str = "mk1_";
/// The variable that names the folder in which systemd lays a service's credentials.
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Where the master key lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterSource {
    /// A file of the Lab's own, made with the keystore. Beside the data it protects backups, not a stolen disk of this machine's.
    Own(PathBuf),
    /// A file that its owner made, readable by nobody else.
    File(PathBuf),
    /// A file of variables, readable by nobody but its owner, with a line for [`VARIABLE`].
    EnvFile(PathBuf),
    /// An account of the system's keyring.
    Keyring(String),
    /// A credential that systemd hands to this service, by name.
    Credential(String),
}

/// Why the master key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// It cannot be read where it lies.
    #[error("the master key cannot be had: {0}")]
    Unreadable(#[from] SecretError),
    /// The file cannot be made.
    #[error("the master key's file {} cannot be written ({kind}); check the path and its owner", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// systemd gave this process no credentials.
    #[error(
        "systemd gave this process no credential {0}; add LoadCredentialEncrypted={0}:… to the service, and start it by systemd"
    )]
    NoCredential(String),
    /// What lies there is no master key.
    #[error("what lies where the master key should be is none; make one with `1k4-lab vault new-master`")]
    NotAKey,
    /// The keystore was made under another one.
    #[error(
        "the keystore needs the master key {0}, which is not among those at hand; put that key back, behind a newer one if there is one"
    )]
    Another(String),
}

/// Where the master keys lie, and those that were found there last.
pub(super) struct Master {
    source: MasterSource,
    keys: RwLock<Arc<MasterKeys>>,
}

impl Master {
    /// Fetches the keys. The Lab's own file is made only where there is no keystore yet that would need another one.
    pub(super) async fn fetch(source: &MasterSource, first: bool) -> Result<Self, MasterError> {
        if let MasterSource::Own(path) = source
            && first
        {
            make(path)?;
        }
        let keys = RwLock::new(Arc::new(fetch(source).await?));
        Ok(Self { source: source.clone(), keys })
    }

    /// All master keys at hand.
    pub(super) fn keys(&self) -> Arc<MasterKeys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks again where they lie: another process may have changed them.
    pub(super) async fn fetch_again(&self) -> Result<Arc<MasterKeys>, MasterError> {
        let keys = Arc::new(fetch(&self.source).await?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&keys);
        Ok(keys)
    }
}

/// All master keys at hand: the first wraps, the others only open what was wrapped before they were replaced.
pub(super) struct MasterKeys {
    first: (String, Zeroizing<[u8; 32]>),
    older: Vec<(String, Zeroizing<[u8; 32]>)>,
}

impl MasterKeys {
    /// The name of the one that wraps.
    pub(super) fn first(&self) -> &str {
        &self.first.0
    }

    /// The names of all, the one that wraps first.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.first).chain(&self.older).map(|(name, _)| name.as_str())
    }

    /// The key of this name.
    pub(super) fn named(&self, kek: &str) -> Result<&[u8; 32], MasterError> {
        let found = std::iter::once(&self.first).chain(&self.older).find(|(name, _)| name == kek);
        found.map(|(_, key)| &**key).ok_or_else(|| MasterError::Another(kek.to_owned()))
    }
}

/// What became of a new master key.
#[derive(Debug)]
pub(crate) enum NewMaster {
    /// It stands in its place, in front of those that were there, under this name.
    Kept(String),
    /// Its source is not for programs to write: whoever called puts this text in front there.
    Told(Zeroizing<String>),
}

/// Makes a master key and puts it in front of those that are there.
pub(crate) async fn renew(source: &MasterSource) -> Result<NewMaster, MasterError> {
    let line = new_line();
    let name = parse(&line)?.first.0;
    match source {
        MasterSource::Own(path) | MasterSource::File(path) => {
            let before = if path.exists() { secret::from_file(path)? } else { Zeroizing::default() };
            // What is no key is not ours to overwrite.
            if !before.is_empty() {
                parse(&before)?;
            }
            replace(path, &Zeroizing::new(format!("{}{}", *line, *before)))?;
        }
        MasterSource::Keyring(account) => {
            let before = match secret::from_keyring(account.clone()).await {
                Err(SecretError::NoEntry(_)) => Zeroizing::default(),
                other => other?,
            };
            secret::into_keyring(account.clone(), Zeroizing::new(format!("{}{}", *line, *before))).await?;
        }
        MasterSource::EnvFile(_) | MasterSource::Credential(_) => return Ok(NewMaster::Told(line)),
    }
    Ok(NewMaster::Kept(name))
}

async fn fetch(source: &MasterSource) -> Result<MasterKeys, MasterError> {
    match source {
        MasterSource::Own(path) | MasterSource::File(path) => parse(&secret::from_file(path)?),
        MasterSource::EnvFile(path) => parse(&variable(&secret::from_file(path)?)?),
        MasterSource::Keyring(account) => parse(&secret::from_keyring(account.clone()).await?),
        MasterSource::Credential(name) => {
            let folder = std::env::var_os(CREDENTIALS).ok_or_else(|| MasterError::NoCredential(name.clone()))?;
            // systemd lets the service's user in by an access list, which shows as a mode for groups; the folder is theirs alone.
            parse(&secret::from_any_file(&Path::new(&folder).join(name))?)
        }
    }
}

/// Keys of the form `mk1_` and 43 letters of base64url, apart from each other. Lines that begin with `#` are nothing.
pub(super) fn parse(text: &str) -> Result<MasterKeys, MasterError> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut keys = lines.flat_map(str::split_whitespace).map(|word| {
        let digits = word.strip_prefix(PREFIX).ok_or(MasterError::NotAKey)?;
        let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(digits.as_bytes()).map_err(|_| MasterError::NotAKey)?);
        let key = Zeroizing::new(<[u8; 32]>::try_from(&bytes[..]).map_err(|_| MasterError::NotAKey)?);
        Ok((name(&key), key))
    });
    Ok(MasterKeys { first: keys.next().ok_or(MasterError::NotAKey)??, older: keys.collect::<Result<_, MasterError>>()? })
}

/// The value of [`VARIABLE`] in a text of `KEY=VALUE` lines, with or without quotes.
pub(super) fn variable(text: &str) -> Result<Zeroizing<String>, MasterError> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("export "));
    let mut values =
        lines.filter_map(|line| line.split_once('=').filter(|(key, _)| key.trim() == VARIABLE).map(|(_, value)| value));
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(Zeroizing::new(value.trim().trim_matches(['"', '\'']).to_owned())),
        // Of two it would not be clear which one counts.
        _ => Err(MasterError::NotAKey),
    }
}

/// What a key is called beside what it wrapped; it tells nothing of the key.
fn name(key: &[u8; 32]) -> String {
    let digest = Sha256::new().chain_update(b"1k4-master-key-name-v1").chain_update(key).finalize();
    format!("mk_{}", data_encoding::HEXLOWER.encode(&digest[..6]))
}

pub(super) fn new_line() -> Zeroizing<String> {
    let key = Zeroizing::new(random_bytes::<32>());
    Zeroizing::new(format!("{PREFIX}{}\n", *Zeroizing::new(BASE64URL_NOPAD.encode(&key[..]))))
}

/// Makes the Lab's own file unless it is there. It appears whole or not at all: another process may be about to read it.
fn make(path: &Path) -> Result<(), MasterError> {
    if path.exists() {
        return Ok(());
    }
    let temporary = beside(path, &new_line())?;
    // Unlike a rename this leaves alone what another process was first to make.
    let linked = std::fs::hard_link(&temporary, path);
    let _ = std::fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(path, &error)),
        _ => synced(path),
    }
}

/// Puts a text in a file's place, all of it or nothing.
fn replace(path: &Path, text: &str) -> Result<(), MasterError> {
    let temporary = beside(path, text)?;
    std::fs::rename(&temporary, path).map_err(|error| failed(path, &error))?;
    synced(path)
}

/// A new file beside `path` that only its owner can read.
fn beside(path: &Path, text: &str) -> Result<PathBuf, MasterError> {
    if let Some(folder) = folder_of(path) {
        crate::store::make_private_dir(folder).map_err(|error| failed(path, &error))?;
    }
    let temporary = path.with_extension(format!("{}.new", wire::RequestId::random()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o400);
    let mut file = options.open(&temporary).map_err(|error| failed(path, &error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| failed(path, &error))?;
    Ok(temporary)
}

/// The folder's entry reaches the disk too: a key that something was wrapped under must not go with the power.
fn synced(path: &Path) -> Result<(), MasterError> {
    #[cfg(unix)]
    if let Some(folder) = folder_of(path) {
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(path, &error))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn folder_of(path: &Path) -> Option<&Path> {
    path.parent().filter(|folder| !folder.as_os_str().is_empty())
}

fn failed(path: &Path, error: &io::Error) -> MasterError {
    MasterError::File { path: path.to_owned(), kind: error.kind() }
}
