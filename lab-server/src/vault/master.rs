//! The master key: where it lies, and which of several wraps.

use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::random::random_bytes;

/// Where the master key lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MasterSource {
    /// A file of the Lab's own, made where it is missing. Beside the data it protects backups and stolen disks of other places, not
    /// this one.
    Own(PathBuf),
    /// A file that its owner made, readable by nobody else.
    File(PathBuf),
}

/// Why the master key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// The file cannot be read or made.
    #[error("the master key's file {} cannot be used ({kind}); check the path and its owner", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        kind: std::io::ErrorKind,
    },
    /// What lies there is no master key.
    #[error("what lies where the master key should be is none; make one with `1k4-lab vault new-master`")]
    NotAKey,
    /// The keystore was made under another one.
    #[error(
        "the keystore was made under the master key {0}, which is not among those at hand; put that key back behind the newer one"
    )]
    Another(String),
}

/// All master keys at hand: the first wraps, the others only open what was wrapped before they were replaced.
pub(super) struct MasterKeys(Vec<(String, Zeroizing<[u8; 32]>)>);

impl MasterKeys {
    pub(super) async fn fetch(source: &MasterSource) -> Result<Self, MasterError> {
        match source {
            MasterSource::Own(path) => {
                if !path.exists() {
                    make(path)?;
                }
                read(path)
            }
            MasterSource::File(path) => read(path),
        }
    }

    pub(super) fn current(&self) -> (String, Zeroizing<[u8; 32]>) {
        // Parsing gave at least one.
        self.0.first().cloned().unwrap_or_default()
    }

    pub(super) fn named(&self, kek: &str) -> Result<&[u8; 32], MasterError> {
        let found = self.0.iter().find(|(id, _)| id == kek);
        found.map(|(_, key)| &**key).ok_or_else(|| MasterError::Another(kek.to_owned()))
    }
}

/// One key a line: `mk1_` and 43 letters of base64url. Blank lines and lines that begin with `#` are nothing.
fn parse(text: &str) -> Result<MasterKeys, MasterError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<_> = lines
        .map(|line| {
            let digits = line.strip_prefix("mk1_").ok_or(MasterError::NotAKey)?;
            let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(digits.as_bytes()).map_err(|_| MasterError::NotAKey)?);
            let key = Zeroizing::new(<[u8; 32]>::try_from(&bytes[..]).map_err(|_| MasterError::NotAKey)?);
            Ok((name(&key), key))
        })
        .collect::<Result<_, MasterError>>()?;
    if keys.is_empty() { Err(MasterError::NotAKey) } else { Ok(MasterKeys(keys)) }
}

/// What a key is called beside what it wrapped; it tells nothing of the key.
fn name(key: &[u8; 32]) -> String {
    let digest = Sha256::new().chain_update(b"1k4-master-key-name-v1").chain_update(key).finalize();
    format!("mk_{}", data_encoding::HEXLOWER.encode(&digest[..6]))
}

fn read(path: &Path) -> Result<MasterKeys, MasterError> {
    let failed = |error: std::io::Error| MasterError::File { path: path.to_owned(), kind: error.kind() };
    parse(&Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?))
}

fn make(path: &Path) -> Result<(), MasterError> {
    use std::io::Write;

    let failed = |error: std::io::Error| MasterError::File { path: path.to_owned(), kind: error.kind() };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        crate::store::make_private_dir(folder).map_err(failed)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o400);
    let line = Zeroizing::new(format!("mk1_{}\n", BASE64URL_NOPAD.encode(&random_bytes::<32>())));
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}
