//! A secret, fetched from where its owner put it: a variable, a file of their own, or the system's keyring. Providers' keys and the
//! master key lie in such places.
//!
//! Nothing here repeats what it read. A locked keyring blocks whoever asks it, so it is asked on a thread of its own, which nobody
//! waits for longer than [`LIMIT`].

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use api_proxy::ProviderSecret;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::config::providers::SecretSource;

#[cfg_attr(target_os = "linux", path = "secret/linux.rs")]
#[cfg_attr(target_os = "macos", path = "secret/macos.rs")]
#[cfg_attr(windows, path = "secret/windows.rs")]
mod keyring;

/// How long a keyring may take.
const LIMIT: Duration = Duration::from_secs(5);
/// The longest secret, in bytes; a signed token of a large identity has some 4,000.
const MOST: u64 = 16 * 1024;
/// What the keyring files secrets under.
pub const SERVICE: &str = "1k4-lab";

/// Why a secret cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// No such variable.
    #[error("the environment variable {0} is not set; set it for the process that runs 1k4-lab")]
    NoVariable(String),
    /// The file cannot be read.
    #[error("the file {} cannot be read ({kind}); check the path and its owner", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        kind: io::ErrorKind,
    },
    /// The file is open to others.
    #[error("others can read the file {}; run `chmod 600` on it, and change the secret if others may have read it", .0.display())]
    Exposed(PathBuf),
    /// The keyring has no such account.
    #[error("the keyring has no account {0} of the service {SERVICE}; store the secret there first")]
    NoEntry(String),
    /// The keyring is locked.
    #[error("the keyring is locked; unlock it, or keep the secret in a file on a server without a desktop")]
    Locked,
    /// There is no keyring, or it failed.
    #[error("no keyring answers here; keep the secret in a file or a variable on a server without a desktop")]
    NoKeyring,
    /// The keyring does not answer.
    #[error("the keyring did not answer within 5 s, most likely because it asks for its password on a screen")]
    TimedOut,
    /// What was found cannot be a secret.
    #[error("what was found there is empty, too long or not one line of plain characters; store the secret and nothing else")]
    NoSecret,
}

/// Fetches a secret.
///
/// # Errors
/// [`SecretError`] says where it was looked for and what to do.
pub async fn fetch(source: &SecretSource) -> Result<ProviderSecret, SecretError> {
    Ok(ProviderSecret::new(&fetch_text(source).await?))
}

/// Fetches a secret that is no provider's.
///
/// # Errors
/// [`SecretError`] says where it was looked for and what to do.
pub(crate) async fn fetch_text(source: &SecretSource) -> Result<Zeroizing<String>, SecretError> {
    let text = match source {
        SecretSource::Env(name) => {
            let text = env::var_os(name).ok_or_else(|| SecretError::NoVariable(name.clone()))?;
            Zeroizing::new(text.into_string().map_err(|_| SecretError::NoSecret)?)
        }
        SecretSource::File(path) => from_file(path)?,
        SecretSource::Keyring(account) => from_keyring(account.clone()).await?,
    };
    let line = text.trim();
    // Anything else could not stand in a header.
    let fits = !line.is_empty() && line.len() as u64 <= MOST && line.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(Zeroizing::new(line.to_owned())) } else { Err(SecretError::NoSecret) }
}

/// A file that nobody but its owner can read.
pub(crate) fn from_file(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let failed = |error: io::Error| SecretError::File { path: path.to_owned(), kind: error.kind() };
    let file = fs::File::open(path).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        // Asked of the open file: what is looked at is what is read.
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(SecretError::Exposed(path.to_owned()));
        }
    }
    text_of(file, path)
}

/// A file whose readers the system answers for.
pub(crate) fn from_any_file(path: &Path) -> Result<Zeroizing<String>, SecretError> {
    let file = fs::File::open(path).map_err(|error| SecretError::File { path: path.to_owned(), kind: error.kind() })?;
    text_of(file, path)
}

/// A text of at most [`MOST`] bytes; reading it takes no time that anybody would notice.
fn text_of(file: fs::File, path: &Path) -> Result<Zeroizing<String>, SecretError> {
    // Enough for every text: one that grew would leave pieces of itself behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MOST).unwrap_or(usize::MAX) + 2));
    io::Read::read_to_string(&mut io::Read::take(file, MOST + 1), &mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => SecretError::NoSecret,
        kind => SecretError::File { path: path.to_owned(), kind },
    })?;
    if text.len() as u64 > MOST { Err(SecretError::NoSecret) } else { Ok(text) }
}

/// Stores a secret under an account of the keyring, in the place of what is there.
pub(crate) async fn into_keyring(account: String, secret: Zeroizing<String>) -> Result<(), SecretError> {
    asked(move || {
        let entry = keyring::entry(SERVICE, &account).map_err(|_| SecretError::NoKeyring)?;
        entry.set_password(&secret).map_err(|error| keyring_error(error, account))
    })
    .await
}

/// What the keyring keeps under an account.
pub(crate) async fn from_keyring(account: String) -> Result<Zeroizing<String>, SecretError> {
    asked(move || {
        let entry = keyring::entry(SERVICE, &account).map_err(|_| SecretError::NoKeyring)?;
        entry.get_password().map(Zeroizing::new).map_err(|error| keyring_error(error, account))
    })
    .await
}

/// Asks the keyring on a thread of its own, which ends with its answer; one that the keyring holds up ends with the process.
async fn asked<T: Send + 'static>(ask: impl FnOnce() -> Result<T, SecretError> + Send + 'static) -> Result<T, SecretError> {
    let (reply, answer) = oneshot::channel();
    let asked = thread::Builder::new().name("keyring".to_owned()).spawn(move || {
        // Whoever asked may have given up.
        let _ = reply.send(ask());
    });
    asked.map_err(|_| SecretError::NoKeyring)?;
    match tokio::time::timeout(LIMIT, answer).await {
        Ok(Ok(answer)) => answer,
        // The thread panicked inside the keyring's library.
        Ok(Err(_)) => Err(SecretError::NoKeyring),
        Err(_) => Err(SecretError::TimedOut),
    }
}

/// The errors of an entry. Their texts are not passed on: some carry what was stored.
fn keyring_error(error: keyring_core::Error, account: String) -> SecretError {
    use keyring_core::Error as Keyring;
    match error {
        Keyring::NoEntry => SecretError::NoEntry(account),
        Keyring::NoStorageAccess(_) => SecretError::Locked,
        Keyring::BadEncoding(stored) | Keyring::BadDataFormat(stored, _) => {
            drop(Zeroizing::new(stored));
            SecretError::NoSecret
        }
        _ => SecretError::NoKeyring,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let path = std::env::temp_dir().join(format!("1k4-secret-{}", wire::RequestId::random()));
        let source = SecretSource::File(path.clone());
        let missing = SecretError::File { path: path.clone(), kind: io::ErrorKind::NotFound };
        assert_eq!(fetch(&source).await.err(), Some(missing));
        for (content, mode, expected) in [
            ("sk-1\n", 0o600, None),
            ("sk-1", 0o400, None),
            ("sk-1", 0o640, Some(SecretError::Exposed(path.clone()))),
            ("sk-1", 0o604, Some(SecretError::Exposed(path.clone()))),
            ("", 0o600, Some(SecretError::NoSecret)),
            ("\n", 0o600, Some(SecretError::NoSecret)),
            ("sk 1", 0o600, Some(SecretError::NoSecret)),
            ("sk-1\nsk-2", 0o600, Some(SecretError::NoSecret)),
            (&"s".repeat(16 * 1024 + 1), 0o600, Some(SecretError::NoSecret)),
        ] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let fetched = fetch(&source).await;
            assert_eq!(fetched.as_ref().err(), expected.as_ref(), "{mode:o}");
            // The letters alone may stand in the file's random name.
            assert!(!format!("{fetched:?}").contains("sk-") && !format!("{fetched:?}").contains("sk 1"));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn a_variable_that_is_not_set_is_named() {
        let error = fetch(&SecretSource::Env("ONEK4_NOBODY_SETS_THIS".into())).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the environment variable ONEK4_NOBODY_SETS_THIS is not set; set it for the process that runs 1k4-lab"
        );
    }
}
