//! What the bridge was told: flags over environment over file, read once, valid from then on.
//!
//! The tray and the CLI load through the same function. `config.toml` is its owner's and is never written; what the bridge has to
//! remember by itself lies in the state directory: `device.toml` (the [`Pairing`]) and `policy.toml` (a policy changed through the
//! control socket). Secrets are in neither, and come from neither flags nor environment.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use wire::DeviceId;

use crate::{
    credentials::{SYSTEMD_CREDENTIAL, Store},
    ollama::OllamaHost,
    policy::{InvalidPolicy, Policy},
    private_file,
};

mod origin;

pub use origin::{InvalidOrigin, Origin};

/// The Lab's origin.
pub const ENV_LAB: &str = "ONEK4_LAB";
/// A file of further certificates to trust.
pub const ENV_CA_FILE: &str = "ONEK4_CA_FILE";
/// Where `config.toml` is.
pub const ENV_CONFIG: &str = "ONEK4_CONFIG";
/// Where the bridge keeps what it remembers.
pub const ENV_STATE_DIR: &str = "ONEK4_STATE_DIR";
/// Ollama's own variable, in Ollama's own grammar.
pub const ENV_OLLAMA_HOST: &str = "OLLAMA_HOST";
/// Where systemd puts a service's credentials.
const ENV_CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";
/// The user's directory for sockets, in memory and closed to others.
const ENV_RUNTIME: &str = "XDG_RUNTIME_DIR";

/// The longest name of a workstation, in characters: it stands in tables and menus.
const NAME_MAX: usize = 64;
/// The longest path of a Unix socket that every system takes, in bytes: macOS has 104 with the closing zero, Linux 108.
const SOCKET_PATH_MAX: usize = 103;
/// The largest file that is read as configuration, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// Everything that a bridge needs to know to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// The Lab to dial; `None` before the first `login`.
    pub lab: Option<Origin>,
    /// Certificates to trust beside the system's, as PEM.
    pub ca_file: Option<PathBuf>,
    /// The local Ollama.
    pub ollama: OllamaHost,
    /// What the workstation is called.
    pub device_name: String,
    /// Where the device's key lies.
    pub credential_store: Store,
    /// What the owner shares.
    pub policy: Policy,
    /// Files and directories.
    pub paths: Paths,
    /// What the command itself was told.
    pub told: Told,
}

/// Where things lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The owner's configuration; it need not exist.
    pub config_file: PathBuf,
    /// What the bridge remembers; made when something is first written.
    pub state_dir: PathBuf,
    /// The control socket. Its directory is to be made with mode 0700.
    pub socket: PathBuf,
    /// Held while a bridge runs, so that there is one at a time.
    pub lock: PathBuf,
}

/// What was said on the command line or in the tray. It wins over everything else.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// See [`Paths::config_file`]. A file that is named must exist.
    pub config_file: Option<PathBuf>,
    /// See [`Paths::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`Config::lab`].
    pub lab: Option<Origin>,
    /// See [`Config::ca_file`].
    pub ca_file: Option<PathBuf>,
    /// See [`Config::ollama`].
    pub ollama: Option<OllamaHost>,
    /// See [`Config::device_name`].
    pub device_name: Option<String>,
    /// See [`Config::credential_store`].
    pub credential_store: Option<CredentialStoreKind>,
}

/// The places a person can name for the device's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CredentialStoreKind {
    /// The desktop's keyring.
    #[serde(rename = "keyring")]
    Keyring,
    /// The credential `device-key` of the systemd unit.
    #[serde(rename = "systemd-credential")]
    SystemdCredential,
    /// `device-key` in the state directory, not encrypted.
    #[serde(rename = "insecure-file")]
    InsecureFile,
}

/// A text that names no place for the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a credential store is one of keyring, systemd-credential, insecure-file")]
pub struct UnknownCredentialStore;

/// What the configuration says that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A line of a file.
    #[error("{}:{line}: {message}", file.display())]
    Line {
        /// Which file.
        file: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong there, with the unknown key by name.
        message: String,
    },
    /// A file that cannot be read or written.
    #[error("{}: {kind}; see that it exists and that the user of the bridge may use it", file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        kind: io::ErrorKind,
    },
    /// A flag or a variable of the environment.
    #[error("{name}: {message}")]
    Value {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// A number of the policy.
    #[error("{}: policy: {error}", file.display())]
    Policy {
        /// In which file.
        file: PathBuf,
        /// Which number.
        error: InvalidPolicy,
    },
    /// The path of the control socket is too long.
    #[error("{} is longer than a socket's path may be ({SOCKET_PATH_MAX} bytes): name a shorter directory with {ENV_STATE_DIR}", .0.display())]
    SocketPath(PathBuf),
    /// The system tells no home directory.
    #[error("this user has no home directory: name a directory with {ENV_STATE_DIR} and a file with {ENV_CONFIG}")]
    NoHome,
}

impl Config {
    /// Loads the configuration. `env` looks up the environment; the programs pass [`std::env::var_os`].
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn load(overrides: Overrides, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let env = Environment(&env);
        let paths = Paths::resolve(&overrides, &env)?;
        let is_named = overrides.config_file.is_some() || env.path(ENV_CONFIG).is_some();
        let file = match read::<File>(&paths.config_file)? {
            None if is_named => {
                return Err(ConfigError::File { file: paths.config_file, kind: io::ErrorKind::NotFound });
            }
            file => file.unwrap_or_default(),
        };
        let beside_file = |path: PathBuf| paths.config_file.parent().map_or(path.clone(), |directory| directory.join(path));

        let pairing = Pairing::load(&paths)?;
        let remembered = pairing.as_ref().map(|pairing| pairing.told.clone()).unwrap_or_default();
        let lab = overrides.lab.or(env.parse(ENV_LAB)?).or(file.lab).or(pairing.map(|pairing| pairing.lab));
        let told = Told {
            ca_file: overrides.ca_file.clone(),
            credential_store: overrides.credential_store,
            device_name: overrides.device_name.clone(),
        };
        let device_name = match overrides.device_name {
            Some(name) => {
                valid_name(name).map_err(|message| ConfigError::Value { name: "the name of the workstation", message })?
            }
            None => file.device_name.map(|name| name.0).or(remembered.device_name).unwrap_or_else(host_name),
        };
        Ok(Self {
            lab,
            ca_file: overrides.ca_file.or(env.path(ENV_CA_FILE)).or(file.ca_file.map(beside_file)).or(remembered.ca_file),
            ollama: overrides.ollama.or(env.parse(ENV_OLLAMA_HOST)?).or(file.ollama_host).unwrap_or_default(),
            device_name,
            credential_store: store(
                overrides.credential_store.or(file.credential_store).or(remembered.credential_store),
                &paths,
                &env,
            ),
            told,
            policy: effective_policy(&paths, file.policy)?,
            paths,
        })
    }
}

impl Paths {
    fn resolve(overrides: &Overrides, env: &Environment<'_>) -> Result<Self, ConfigError> {
        let home = directories::ProjectDirs::from("", "", "1k4-bridge");
        let config_file = match overrides.config_file.clone().or_else(|| env.path(ENV_CONFIG)) {
            Some(file) => file,
            None => home.as_ref().ok_or(ConfigError::NoHome)?.config_dir().join("config.toml"),
        };
        let named = overrides.state_dir.clone().or_else(|| env.path(ENV_STATE_DIR));
        let runtime = env.path(ENV_RUNTIME).filter(|directory| directory.is_absolute());
        let (state_dir, socket) = match (named, runtime) {
            // A state directory of its own makes a bridge of its own, with its own socket.
            (Some(directory), _) => (directory.clone(), directory.join("bridge.sock")),
            (None, runtime) => {
                let home = home.as_ref().ok_or(ConfigError::NoHome)?;
                let directory = home.state_dir().unwrap_or_else(|| home.data_local_dir()).to_owned();
                let socket = runtime.map_or_else(|| directory.clone(), |runtime| runtime.join("1k4")).join("bridge.sock");
                (directory, socket)
            }
        };
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(ConfigError::SocketPath(socket));
        }
        Ok(Self { config_file, lock: state_dir.join("bridge.lock"), state_dir, socket })
    }

    /// Remembers a policy that was changed through the control socket. It holds until somebody changes the `[policy]` of
    /// `config.toml`: the last word counts, whoever had it.
    ///
    /// # Errors
    /// When the file cannot be written, or `config.toml` cannot be read any more.
    pub fn save_policy(&self, policy: &Policy) -> Result<(), ConfigError> {
        let based_on = read::<File>(&self.config_file)?.unwrap_or_default().policy;
        write(&self.state_dir.join("policy.toml"), &ChangedPolicy { based_on, policy: policy.clone() })
    }
}

/// What a command was told on its line about reaching the Lab. `login` remembers it, so that a `run` that follows needs no more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Told {
    /// The extra CA, as an absolute path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Where the device's key is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_store: Option<CredentialStoreKind>,
    /// The workstation's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
}

/// Who this workstation is to its Lab: written by a successful `login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairing {
    /// The Lab.
    pub lab: Origin,
    /// The identity that it gave.
    pub device: DeviceId,
    /// Whose workstation it is, as the Lab shows them.
    pub owner: String,
    /// What `login` was told. Flags, environment and `config.toml` come before it.
    #[serde(default)]
    pub told: Told,
}

impl Pairing {
    /// The pairing, if there is one.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn load(paths: &Paths) -> Result<Option<Self>, ConfigError> {
        read(&Self::file(paths))
    }

    /// Remembers the pairing, in place of an older one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, paths: &Paths) -> Result<(), ConfigError> {
        write(&Self::file(paths), self)
    }

    /// Forgets the pairing.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(paths: &Paths) -> Result<(), ConfigError> {
        let file = Self::file(paths);
        private_file::remove(&file).map_err(|error| ConfigError::File { kind: error.kind(), file })
    }

    fn file(paths: &Paths) -> PathBuf {
        paths.state_dir.join("device.toml")
    }
}

impl CredentialStoreKind {
    /// As it is written in `config.toml`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keyring => "keyring",
            Self::SystemdCredential => "systemd-credential",
            Self::InsecureFile => "insecure-file",
        }
    }
}

impl FromStr for CredentialStoreKind {
    type Err = UnknownCredentialStore;

    fn from_str(text: &str) -> Result<Self, UnknownCredentialStore> {
        [Self::Keyring, Self::SystemdCredential, Self::InsecureFile]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(UnknownCredentialStore)
    }
}

/// `config.toml` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    lab: Option<Origin>,
    ca_file: Option<PathBuf>,
    ollama_host: Option<OllamaHost>,
    device_name: Option<DeviceName>,
    credential_store: Option<CredentialStoreKind>,
    policy: Policy,
}

/// `policy.toml`: what the owner changed, and what `config.toml` said then.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedPolicy {
    based_on: Policy,
    policy: Policy,
}

/// A name in `config.toml`, checked while the line is still known.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct DeviceName(String);

impl TryFrom<String> for DeviceName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        valid_name(name).map(Self)
    }
}

struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// An empty variable is one that is not set, as everywhere in the XDG rules.
    fn path(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn parse<T: FromStr<Err: ToString>>(&self, name: &'static str) -> Result<Option<T>, ConfigError> {
        let Some(value) = (self.0)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let text = value.to_str().ok_or_else(|| ConfigError::Value { name, message: "is not UTF-8".to_owned() })?;
        text.parse().map(Some).map_err(|error: T::Err| ConfigError::Value { name, message: error.to_string() })
    }
}

/// A unit that carries the credential means it to be used; anything less safe than the keyring has to be asked for by name.
fn store(kind: Option<CredentialStoreKind>, paths: &Paths, env: &Environment<'_>) -> Store {
    let credentials = env.path(ENV_CREDENTIALS);
    match (kind, credentials) {
        (None, Some(dir)) if dir.join(SYSTEMD_CREDENTIAL).exists() => Store::SystemdCredential { dir },
        (None | Some(CredentialStoreKind::Keyring), _) => Store::Keyring,
        (Some(CredentialStoreKind::SystemdCredential), Some(dir)) => Store::SystemdCredential { dir },
        // Outside the unit, as for `1k4-bridge status`: where systemd keeps it while the unit runs.
        (Some(CredentialStoreKind::SystemdCredential), None) => {
            Store::SystemdCredential { dir: PathBuf::from("/run/credentials/1k4-bridge.service") }
        }
        (Some(CredentialStoreKind::InsecureFile), _) => Store::File { path: paths.state_dir.join(SYSTEMD_CREDENTIAL) },
    }
}

fn effective_policy(paths: &Paths, configured: Policy) -> Result<Policy, ConfigError> {
    let valid = |policy: Policy, file: &Path| match policy.validate() {
        Ok(()) => Ok(policy),
        Err(error) => Err(ConfigError::Policy { file: file.to_owned(), error }),
    };
    let file = paths.state_dir.join("policy.toml");
    match read::<ChangedPolicy>(&file)? {
        Some(changed) if changed.based_on == configured => valid(changed.policy, &file),
        Some(_) => {
            tracing::warn!("[policy] in config.toml was changed after the policy was last set at run time: config.toml counts");
            valid(configured, &paths.config_file)
        }
        None => valid(configured, &paths.config_file),
    }
}

fn valid_name(name: String) -> Result<String, String> {
    let is_valid = (1..=NAME_MAX).contains(&name.chars().count())
        && name.trim() == name
        && !name.contains(|c: char| c.is_control() || c == '/' || c == '@');
    // A caller names a workstation in `local@<name>/<model>`.
    is_valid
        .then_some(name)
        .ok_or_else(|| format!("a workstation's name has 1 to {NAME_MAX} characters, without / and @ and line breaks"))
}

/// The computer's name up to its first dot.
fn host_name() -> String {
    let name = sysinfo::System::host_name().unwrap_or_default();
    let label = name.split('.').next().unwrap_or_default().to_owned();
    valid_name(label).unwrap_or_else(|_| "workstation".to_owned())
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, ConfigError> {
    let broken = |error: io::Error| ConfigError::File { file: file.to_owned(), kind: error.kind() };
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(broken(error)),
        Ok(metadata) if metadata.len() > FILE_MAX => return Err(broken(io::ErrorKind::FileTooLarge.into())),
        Ok(_) => {}
    }
    let text = fs::read_to_string(file).map_err(broken)?;
    toml::from_str(&text).map(Some).map_err(|error| {
        let line = 1 + error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count());
        ConfigError::Line { file: file.to_owned(), line, message: error.message().to_owned() }
    })
}

fn write(file: &Path, value: &impl Serialize) -> Result<(), ConfigError> {
    let broken = |kind| ConfigError::File { file: file.to_owned(), kind };
    let text = toml::to_string(value).map_err(|_| broken(io::ErrorKind::InvalidData))?;
    let text = format!("# Written by 1k4-bridge. Changes belong in config.toml.\n{text}");
    private_file::write(file, text.as_bytes()).map_err(|error| broken(error.kind()))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// A home of this test's own, removed with it.
    struct Home(PathBuf);

    impl Home {
        fn new() -> Self {
            let mut random = [0; 8];
            getrandom::fill(&mut random).unwrap();
            let path = std::env::temp_dir().join(format!("1k4-config-{}", data_encoding::HEXLOWER.encode(&random)));
            private_file::make_directory(&path).unwrap();
            Self(path)
        }

        fn write(&self, text: &str) {
            fs::write(self.config(), text).unwrap();
        }

        fn config(&self) -> PathBuf {
            self.0.join("config.toml")
        }

        fn overrides(&self) -> Overrides {
            Overrides { config_file: Some(self.config()), state_dir: Some(self.0.join("state")), ..Overrides::default() }
        }

        fn load(&self, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
            Config::load(self.overrides(), environment(env))
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn environment(pairs: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + use<> {
        let map: HashMap<String, String> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        move |name| map.get(name).map(OsString::from)
    }

    fn origin(text: &str) -> Origin {
        text.parse().unwrap()
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let home = Home::new();
        home.write("");
        let config = home.load(&[]).unwrap();
        assert_eq!(config.lab, None);
        assert_eq!(config.ca_file, None);
        assert_eq!(config.ollama, OllamaHost::default());
        assert_eq!(config.credential_store, Store::Keyring);
        assert_eq!(config.policy, Policy::default());
        assert_eq!(valid_name(config.device_name.clone()), Ok(config.device_name));
        let state = home.0.join("state");
        assert_eq!(
            config.paths,
            Paths {
                config_file: home.config(),
                socket: state.join("bridge.sock"),
                lock: state.join("bridge.lock"),
                state_dir: state
            }
        );
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let home = Home::new();
        home.write(
            "lab = \"https://file.example\"\nca_file = \"ca.pem\"\nollama_host = \"127.0.0.1:1\"\ndevice_name = \"file\"\n\
             credential_store = \"insecure-file\"\n[policy]\nmax_concurrent = 2\n",
        );
        let config = home.load(&[]).unwrap();
        assert_eq!(config.lab, Some(origin("https://file.example")));
        assert_eq!(config.ca_file, Some(home.0.join("ca.pem")), "a path in the file is meant from the file");
        assert_eq!(config.ollama.port(), 1);
        assert_eq!(config.device_name, "file");
        assert_eq!(config.credential_store, Store::File { path: home.0.join("state").join("device-key") });
        assert_eq!(config.policy, Policy { max_concurrent: 2, ..Policy::default() });

        let env = [(ENV_LAB, "https://env.example"), (ENV_CA_FILE, "env.pem"), (ENV_OLLAMA_HOST, "0.0.0.0:2")];
        let config = home.load(&env).unwrap();
        assert_eq!(config.lab, Some(origin("https://env.example")));
        assert_eq!(config.ca_file, Some(PathBuf::from("env.pem")));
        assert_eq!((config.ollama.host(), config.ollama.port()), ("127.0.0.1", 2));

        let overrides = Overrides {
            lab: Some(origin("https://flag.example")),
            ca_file: Some("flag.pem".into()),
            ollama: Some("127.0.0.1:3".parse().unwrap()),
            device_name: Some("flag".to_owned()),
            credential_store: Some(CredentialStoreKind::Keyring),
            ..home.overrides()
        };
        let config = Config::load(overrides, environment(&env)).unwrap();
        assert_eq!(config.lab, Some(origin("https://flag.example")));
        assert_eq!(config.ca_file, Some(PathBuf::from("flag.pem")));
        assert_eq!(config.ollama.port(), 3);
        assert_eq!(config.device_name, "flag");
        assert_eq!(config.credential_store, Store::Keyring);
    }

    #[test]
    fn a_wrong_line_is_named() {
        let home = Home::new();
        for (text, line, part) in [
            ("\n\nlabb = \"https://x\"\n", 3, "unknown field `labb`"),
            ("[policy]\nmax_concurrent = 4\nmax_concurent = 5\n", 3, "unknown field `max_concurent`"),
            ("device_name = \"a\"\nlab = \"http://lab.example.com\"\n", 2, "a Lab is reached over https only"),
            ("ollama_host = \"https://ollama.com\"\n", 1, "Ollama itself speaks plain http"),
            ("# one\n# two\ncredential_store = \"file\"\n", 3, "unknown variant `file`"),
            ("device_name = \"a/b\"\n", 1, "a workstation's name has 1 to 64 characters"),
            ("lab = \n", 1, ""),
        ] {
            home.write(text);
            match home.load(&[]) {
                Err(ConfigError::Line { file, line: found, message }) => {
                    assert_eq!((file, found), (home.config(), line), "{text}");
                    assert!(message.contains(part), "{text}: {message}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_else_is_wrong_is_named() {
        let home = Home::new();
        assert_eq!(home.load(&[]).err(), Some(ConfigError::File { file: home.config(), kind: io::ErrorKind::NotFound }));
        home.write("[policy]\nmax_concurrent = 0\n");
        let error = InvalidPolicy { field: "max_concurrent", min: 1, max: 1024 };
        assert_eq!(home.load(&[]).err(), Some(ConfigError::Policy { file: home.config(), error }));
        home.write("");
        let message = InvalidOrigin::Http.to_string();
        assert_eq!(home.load(&[(ENV_LAB, "http://x")]).err(), Some(ConfigError::Value { name: ENV_LAB, message }));
        let far = home.0.join("x".repeat(SOCKET_PATH_MAX));
        let overrides = Overrides { state_dir: Some(far.clone()), ..home.overrides() };
        assert_eq!(Config::load(overrides, environment(&[])).err(), Some(ConfigError::SocketPath(far.join("bridge.sock"))));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_socket_lies_in_the_runtime_directory_unless_the_state_directory_is_named() {
        let named = Overrides { state_dir: Some("/s".into()), ..Overrides::default() };
        for (overrides, runtime, socket) in [
            (Overrides::default(), "/run/user/7", Some("/run/user/7/1k4/bridge.sock")),
            (named.clone(), "/run/user/7", Some("/s/bridge.sock")),
            (named, "", Some("/s/bridge.sock")),
            (Overrides::default(), "", None),
            (Overrides::default(), "relative", None),
        ] {
            let env = environment(&[(ENV_RUNTIME, runtime)]);
            let paths = Paths::resolve(&overrides, &Environment(&env)).unwrap();
            assert_eq!(paths.socket, socket.map_or_else(|| paths.state_dir.join("bridge.sock"), PathBuf::from), "{runtime}");
        }
    }

    #[test]
    fn a_credential_of_the_unit_is_used_without_being_named() {
        let home = Home::new();
        home.write("");
        let env = [(ENV_CREDENTIALS, home.0.to_str().unwrap())];
        assert_eq!(home.load(&env).unwrap().credential_store, Store::Keyring, "there is none in it");
        fs::write(home.0.join("device-key"), "").unwrap();
        assert_eq!(home.load(&env).unwrap().credential_store, Store::SystemdCredential { dir: home.0.clone() });
        home.write("credential_store = \"keyring\"");
        assert_eq!(home.load(&env).unwrap().credential_store, Store::Keyring);
        home.write("credential_store = \"systemd-credential\"");
        let outside = Store::SystemdCredential { dir: "/run/credentials/1k4-bridge.service".into() };
        assert_eq!(home.load(&[]).unwrap().credential_store, outside);
    }

    #[test]
    fn a_pairing_is_remembered_and_forgotten() {
        let home = Home::new();
        home.write("");
        let paths = home.load(&[]).unwrap().paths;
        assert_eq!(Pairing::load(&paths), Ok(None));
        let pairing = Pairing {
            lab: origin("https://lab.example.com"),
            device: DeviceId::random(),
            owner: "Ada \"A\" 🦙".into(),
            told: Told::default(),
        };
        pairing.save(&paths).unwrap();
        assert_eq!(Pairing::load(&paths), Ok(Some(pairing.clone())));
        assert_eq!(home.load(&[]).unwrap().lab, Some(pairing.lab));
        assert_eq!(home.load(&[(ENV_LAB, "https://other.example")]).unwrap().lab, Some(origin("https://other.example")));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&paths.state_dir), mode(&paths.state_dir.join("device.toml"))), (0o700, 0o600));
        }
        Pairing::remove(&paths).unwrap();
        Pairing::remove(&paths).unwrap();
        assert_eq!(Pairing::load(&paths), Ok(None));
    }

    #[test]
    fn the_last_word_on_the_policy_counts() {
        let home = Home::new();
        let limit = |max_concurrent| Policy { max_concurrent, ..Policy::default() };
        home.write("[policy]\nmax_concurrent = 2\n");
        let paths = home.load(&[]).unwrap().paths;
        paths.save_policy(&limit(3)).unwrap();
        assert_eq!(home.load(&[]).unwrap().policy, limit(3));
        assert_eq!(fs::read_to_string(home.config()).unwrap(), "[policy]\nmax_concurrent = 2\n", "the owner's file is left alone");

        home.write("# a comment changes nothing\nlab = \"https://lab.example.com\"\n[policy]\nmax_concurrent = 2\n");
        assert_eq!(home.load(&[]).unwrap().policy, limit(3));
        home.write("[policy]\nmax_concurrent = 1\n");
        assert_eq!(home.load(&[]).unwrap().policy, limit(1));
    }
}
