//! Where the device's key lies: the one secret of a bridge.
//!
//! The desktop's keyring by default; on a server without one a systemd credential, or, when its owner names it in so many words,
//! a file of their own. There is no fallback from one to another: a key that silently landed in a plain file would be found by
//! the next backup.
//!
//! A locked keyring blocks its caller until somebody types the password, and a blocked thread of the runtime keeps a program from
//! ending. So the calls are made on one thread of their own, which nobody waits for longer than [`LIMIT`].

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use data_encoding::BASE64;
use ed25519_dalek::SigningKey;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::{config::Origin, private_file};

#[cfg_attr(target_os = "linux", path = "credentials/linux.rs")]
#[cfg_attr(target_os = "macos", path = "credentials/macos.rs")]
#[cfg_attr(windows, path = "credentials/windows.rs")]
mod keyring;

/// How long one call may take: a person at the program's other end learns within 5 s what is wrong.
pub const LIMIT: Duration = Duration::from_millis(4_500);

/// The name of the credential in systemd's directory.
pub const SYSTEMD_CREDENTIAL: &str = "device-key";

/// What the keyring files the key under, beside the Lab's origin.
const SERVICE: &str = "1k4-bridge";

/// Which place holds the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// The desktop's keyring: Secret Service, macOS keychain, Windows credential manager.
    Keyring,
    /// A credential that systemd decrypted for this service. It can be read and not changed.
    SystemdCredential {
        /// `$CREDENTIALS_DIRECTORY`.
        dir: PathBuf,
    },
    /// A file that is not encrypted, for its owner alone.
    File {
        /// Where it is.
        path: PathBuf,
    },
}

/// The key of this device for one Lab, wherever it lies.
#[derive(Debug)]
pub struct Credentials {
    store: Store,
    jobs: mpsc::Sender<Job>,
}

/// Why the key could not be had, kept or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The keyring needs its password, and nobody was there to type it.
    #[error("the keyring is locked, or was never set up: log in to the desktop or unlock it in its own settings, then try again")]
    Locked,
    /// There is no keyring on this computer, or none that this session reaches.
    #[error(
        "no keyring answers in this session: start one (GNOME Keyring, KWallet), or on a server set credential_store to \"systemd-credential\" \
         in config.toml"
    )]
    Absent,
    /// The place is there and holds no key for this Lab.
    #[error("this device has no key for the Lab yet: pair it with `1k4-bridge login`")]
    NoEntry,
    /// No answer within [`LIMIT`].
    #[error(
        "the keyring does not answer, most likely because it asks for its password on the screen: answer it there, then try again"
    )]
    TimedOut,
    /// What lies there is no device key.
    #[error(
        "what is stored as this device's key is not one: remove it with `1k4-bridge logout`, then pair again with `1k4-bridge login`"
    )]
    Corrupt,
    /// The keyring holds several keys for this Lab.
    #[error(
        "the keyring holds more than one key for this Lab: delete the entries of 1k4-bridge in it, then pair again with `1k4-bridge login`"
    )]
    Ambiguous,
    /// The keyring failed in another way; its own words went to the log.
    #[error("the keyring failed: see whether other programs can use it, and try again")]
    Keyring,
    /// Others can read the file.
    #[error("{} can be read by others, or belongs to somebody else: give it to the user of the bridge and run `chmod 600` on it", .0.display())]
    FilePermissions(PathBuf),
    /// Others can look into the file's directory.
    #[error("{} is open to others, or belongs to somebody else: give it to the user of the bridge and run `chmod 700` on it", .0.display())]
    DirectoryPermissions(PathBuf),
    /// The file cannot be read or written.
    #[error("{}: {kind}; see that the user of the bridge may use it", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        kind: io::ErrorKind,
    },
    /// A systemd credential cannot be changed from inside the service.
    #[error(
        "a systemd credential cannot be changed from here: pair with credential_store = \"insecure-file\", encrypt that file with \
         `systemd-creds encrypt --name=device-key`, and name the result in LoadCredentialEncrypted= of the unit"
    )]
    ReadOnly,
    /// The system gives no thread or no randomness.
    #[error("the system is out of threads or memory: close something and try again")]
    Exhausted,
}

/// A fresh key for this device.
///
/// # Errors
/// [`Error::Exhausted`] when the operating system has no randomness.
pub fn new_key() -> Result<SigningKey, Error> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice()).map_err(|_| Error::Exhausted)?;
    Ok(SigningKey::from_bytes(&seed))
}

impl Credentials {
    /// Opens `store` for the key that belongs to `lab`. Nothing is read yet.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when the system gives no thread.
    pub fn open(store: Store, lab: &Origin) -> Result<Self, Error> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let place = Place { store: store.clone(), lab: lab.as_str().to_owned() };
        // It ends when `self` is dropped; one that a keyring holds up ends with the process.
        thread::Builder::new()
            .name("credentials".to_owned())
            .spawn(move || todo.iter().for_each(|job| job(&place)))
            .map_err(|_| Error::Exhausted)?;
        Ok(Self { store, jobs })
    }

    /// Which place it is.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Reads the key.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load(&self) -> Result<SigningKey, Error> {
        self.call(Place::load).await
    }

    /// Keeps `key`, in place of an older one.
    ///
    /// # Errors
    /// See [`Error`]. After [`Error::TimedOut`] the key may yet be kept, when somebody unlocks the keyring.
    pub async fn save(&self, key: &SigningKey) -> Result<(), Error> {
        let seed = Zeroizing::new(key.to_bytes());
        self.call(move |place| place.save(&seed)).await
    }

    /// Removes the key; one that is not there is removed already.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self) -> Result<(), Error> {
        self.call(Place::delete).await
    }

    async fn call<T: Send + 'static>(&self, work: impl FnOnce(&Place) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move |place: &Place| {
            // Whoever asked may have given up while an earlier call was stuck: what nobody waits for is not done.
            if !reply.is_closed() {
                // Nobody listens any more after a time-out, and that call has its error.
                let _ = reply.send(work(place));
            }
        });
        self.jobs.send(job).map_err(|_| Error::Exhausted)?;
        match tokio::time::timeout(LIMIT, answer).await {
            Ok(Ok(result)) => result,
            // The thread panicked inside the keyring's library.
            Ok(Err(_)) => Err(Error::Keyring),
            Err(_) => Err(Error::TimedOut),
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyring => f.write_str("the keyring"),
            Self::SystemdCredential { .. } => f.write_str("a systemd credential"),
            Self::File { path } => write!(f, "a file that is not encrypted: {}", path.display()),
        }
    }
}

impl Error {
    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked => "credential_locked",
            Self::Absent => "credential_absent",
            Self::NoEntry => "credential_no_entry",
            Self::TimedOut => "credential_timed_out",
            Self::Corrupt => "credential_corrupt",
            Self::Ambiguous => "credential_ambiguous",
            Self::Keyring => "credential_keyring",
            Self::FilePermissions(_) => "credential_file_permissions",
            Self::DirectoryPermissions(_) => "credential_directory_permissions",
            Self::File { .. } => "credential_file",
            Self::ReadOnly => "credential_read_only",
            Self::Exhausted => "credential_exhausted",
        }
    }
}

type Job = Box<dyn FnOnce(&Place) + Send>;

/// A store and the Lab whose key is meant. Lives on the thread.
struct Place {
    store: Store,
    lab: String,
}

impl Place {
    fn load(&self) -> Result<SigningKey, Error> {
        match &self.store {
            Store::Keyring => {
                let text = self.entry()?.get_password().map_err(keyring_error)?;
                decode(Zeroizing::new(text.into_bytes()))
            }
            Store::SystemdCredential { dir } => {
                let path = dir.join(SYSTEMD_CREDENTIAL);
                decode(Zeroizing::new(fs::read(&path).map_err(|e| file_error(&path, &e))?))
            }
            Store::File { path } => load_file(path),
        }
    }

    fn save(&self, seed: &[u8; 32]) -> Result<(), Error> {
        let text = Zeroizing::new(BASE64.encode(seed));
        match &self.store {
            Store::Keyring => self.entry()?.set_password(&text).map_err(keyring_error),
            Store::SystemdCredential { .. } => Err(Error::ReadOnly),
            Store::File { path } => {
                let directory = directory_of(path);
                private_file::make_directory(directory).map_err(|e| file_error(directory, &e))?;
                refuse_open_directory(directory)?;
                private_file::write(path, text.as_bytes()).map_err(|e| file_error(path, &e))
            }
        }
    }

    fn delete(&self) -> Result<(), Error> {
        match &self.store {
            Store::Keyring => match self.entry()?.delete_credential().map_err(keyring_error) {
                Err(Error::NoEntry) => Ok(()),
                result => result,
            },
            Store::SystemdCredential { .. } => Err(Error::ReadOnly),
            Store::File { path } => private_file::remove(path).map_err(|e| file_error(path, &e)),
        }
    }

    /// The keyring is opened anew for every call: one that was not there a minute ago may be now.
    fn entry(&self) -> Result<keyring_core::Entry, Error> {
        keyring::entry(SERVICE, &self.lab).map_err(|error| match error {
            // Nothing was asked of an entry yet, so it is the service that failed.
            keyring_core::Error::PlatformFailure(cause) => {
                tracing::debug!(%cause, "no keyring");
                Error::Absent
            }
            other => keyring_error(other),
        })
    }
}

fn load_file(path: &Path) -> Result<SigningKey, Error> {
    let mut file = fs::File::open(path).map_err(|e| file_error(path, &e))?;
    refuse_open_directory(directory_of(path))?;
    #[cfg(unix)]
    if private_file::is_exposed(&file.metadata().map_err(|e| file_error(path, &e))?) {
        return Err(Error::FilePermissions(path.to_owned()));
    }
    // One allocation, so that no copy stays behind in one that was outgrown.
    let mut text = Zeroizing::new(Vec::with_capacity(256));
    io::Read::read_to_end(&mut io::Read::take(&mut file, 128), &mut text).map_err(|e| file_error(path, &e))?;
    decode(text)
}

#[cfg_attr(not(unix), expect(clippy::unnecessary_wraps, reason = "the mode of a directory is looked at on Unix"))]
fn refuse_open_directory(directory: &Path) -> Result<(), Error> {
    #[cfg(unix)]
    if private_file::is_exposed(&fs::metadata(directory).map_err(|e| file_error(directory, &e))?) {
        return Err(Error::DirectoryPermissions(directory.to_owned()));
    }
    Ok(())
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A key is 32 bytes as base64: KWallet keeps text only, and an administrator can pass it through a terminal.
fn decode(text: Zeroizing<Vec<u8>>) -> Result<SigningKey, Error> {
    let bytes = Zeroizing::new(BASE64.decode(text.trim_ascii()).map_err(|_| Error::Corrupt)?);
    let seed: &[u8; 32] = bytes.as_slice().try_into().map_err(|_| Error::Corrupt)?;
    Ok(SigningKey::from_bytes(seed))
}

fn file_error(path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::NoEntry,
        kind => Error::File { path: path.to_owned(), kind },
    }
}

/// The errors of an entry. Their texts are not passed on: some carry what was stored.
fn keyring_error(error: keyring_core::Error) -> Error {
    use keyring_core::Error as Keyring;
    match error {
        Keyring::NoEntry => Error::NoEntry,
        Keyring::NoStorageAccess(_) => Error::Locked,
        Keyring::BadEncoding(stored) | Keyring::BadDataFormat(stored, _) => {
            drop(Zeroizing::new(stored));
            Error::Corrupt
        }
        Keyring::Ambiguous(_) => Error::Ambiguous,
        Keyring::PlatformFailure(cause) => {
            tracing::debug!(%cause, "the keyring failed");
            Error::Keyring
        }
        _ => Error::Keyring,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab() -> Origin {
        "https://lab.example.com".parse().unwrap()
    }

    /// A directory of this test's own, removed with it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let mut random = [0; 8];
            getrandom::fill(&mut random).unwrap();
            let path = std::env::temp_dir().join(format!("1k4-credentials-{}", data_encoding::HEXLOWER.encode(&random)));
            private_file::make_directory(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[tokio::test]
    async fn a_file_keeps_the_key_and_forgets_it() {
        let scratch = Scratch::new();
        let path = scratch.0.join("state").join("device-key");
        let credentials = Credentials::open(Store::File { path: path.clone() }, &lab()).unwrap();
        assert_eq!(credentials.load().await.err(), Some(Error::NoEntry));
        credentials.delete().await.unwrap();

        let (first, second) = (new_key().unwrap(), new_key().unwrap());
        assert_ne!(first.to_bytes(), second.to_bytes());
        credentials.save(&first).await.unwrap();
        credentials.save(&second).await.unwrap();
        assert_eq!(credentials.load().await.unwrap().to_bytes(), second.to_bytes());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");

        credentials.delete().await.unwrap();
        assert_eq!(credentials.load().await.err(), Some(Error::NoEntry));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new();
        let path = scratch.0.join("device-key");
        let credentials = Credentials::open(Store::File { path: path.clone() }, &lab()).unwrap();
        credentials.save(&new_key().unwrap()).await.unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        for (of_file, of_directory, refusal) in [
            (0o600, 0o700, None),
            (0o400, 0o700, None),
            (0o640, 0o700, Some(Error::FilePermissions(path.clone()))),
            (0o604, 0o700, Some(Error::FilePermissions(path.clone()))),
            (0o620, 0o700, Some(Error::FilePermissions(path.clone()))),
            (0o600, 0o750, Some(Error::DirectoryPermissions(scratch.0.clone()))),
            (0o600, 0o701, Some(Error::DirectoryPermissions(scratch.0.clone()))),
        ] {
            set(&path, of_file);
            set(&scratch.0, of_directory);
            assert_eq!(credentials.load().await.err(), refusal, "{of_file:o} in {of_directory:o}");
        }
        set(&scratch.0, 0o755);
        let saved = credentials.save(&new_key().unwrap()).await;
        assert_eq!(saved, Err(Error::DirectoryPermissions(scratch.0.clone())));
    }

    /// Only root can give a file away, and only then can this be tried.
    #[cfg(unix)]
    #[tokio::test]
    async fn a_file_of_somebody_else_is_refused() {
        let scratch = Scratch::new();
        let path = scratch.0.join("device-key");
        let credentials = Credentials::open(Store::File { path: path.clone() }, &lab()).unwrap();
        credentials.save(&new_key().unwrap()).await.unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            assert_eq!(credentials.load().await.err(), Some(Error::FilePermissions(path)));
        }
    }

    #[tokio::test]
    async fn a_systemd_credential_is_read_and_never_written() {
        let scratch = Scratch::new();
        let credentials = Credentials::open(Store::SystemdCredential { dir: scratch.0.clone() }, &lab()).unwrap();
        assert_eq!(credentials.load().await.err(), Some(Error::NoEntry));

        let key = new_key().unwrap();
        fs::write(scratch.0.join("device-key"), format!("{}\n", BASE64.encode(&key.to_bytes()))).unwrap();
        assert_eq!(credentials.load().await.unwrap().to_bytes(), key.to_bytes());
        assert_eq!(credentials.save(&key).await, Err(Error::ReadOnly));
        assert_eq!(credentials.delete().await, Err(Error::ReadOnly));
    }

    #[tokio::test]
    async fn what_is_no_key_is_corrupt() {
        let scratch = Scratch::new();
        let credentials = Credentials::open(Store::SystemdCredential { dir: scratch.0.clone() }, &lab()).unwrap();
        let short = BASE64.encode(&[7; 31]);
        for text in ["", "not base64!", short.as_str()] {
            fs::write(scratch.0.join("device-key"), text).unwrap();
            assert_eq!(credentials.load().await.err(), Some(Error::Corrupt), "{text:?}");
        }
    }

    /// A keyring that waits for its password: the call gives up in time, and what nobody waits for any more is not done later.
    #[tokio::test]
    async fn a_call_that_hangs_is_given_up() {
        let scratch = Scratch::new();
        let credentials = Credentials::open(Store::SystemdCredential { dir: scratch.0.clone() }, &lab()).unwrap();
        let (enter, entered) = oneshot::channel();
        let (unlock, locked) = mpsc::channel::<()>();
        let started = tokio::time::Instant::now();
        let stuck = credentials.call(move |_| {
            enter.send(()).unwrap();
            locked.recv().map_err(|_| Error::Keyring)
        });
        tokio::pin!(stuck);
        tokio::select! {
            result = &mut stuck => panic!("{result:?}"),
            result = entered => result.unwrap(),
        }
        tokio::time::pause();
        assert_eq!(stuck.await, Err(Error::TimedOut));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

        let (done, was_done) = mpsc::channel::<()>();
        let behind = credentials.call(move |_| done.send(()).map_err(|_| Error::Keyring)).await;
        assert_eq!(behind, Err(Error::TimedOut));
        unlock.send(()).unwrap();
        assert_eq!(was_done.recv(), Err(mpsc::RecvError), "a save that its caller has given up must not happen");
    }
}
