//! What the Lab's owner decides before it starts: where data lies, where to listen, under which address it is known.
//!
//! Flags win over `ONEK4_LAB_*` variables, which win over the file; what none of them says has a default. [`Config::load`] is the one
//! place where the three meet, and its result cannot be wrong: nobody checks again. Nothing here is a secret: the providers' are named
//! by the place where they lie.

pub mod agents;
pub mod assistant;
mod audit;
pub mod backup;
mod document;
pub mod providers;
pub mod sign_in;
mod vault;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use agents::Agents;
use assistant::Assistant;
use backup::Backup;
use document::{Document, Section};
use providers::Providers;
use sign_in::{Mail, SignIn};

pub use document::Mistake;

use crate::{clock::Clock, edge::Limits, gateway::pairing::Terms, meter::DefaultRates, store::Rates, vault::MasterSource};

/// Name of the configuration file.
pub const FILE_NAME: &str = "1k4-lab.toml";
/// Where the Lab listens unless told otherwise: this machine only.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);
/// Requests that a new account has for nothing, unless the file says otherwise.
const FREE_REQUESTS: u32 = 20;

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds the database and the test CA. Created with mode 0700.
    pub data_dir: PathBuf,
    /// The SQLite file.
    pub database: PathBuf,
    /// Holds the keys that everything is sealed under, themselves wrapped.
    pub keystore: PathBuf,
    /// Where the master key lies.
    pub master: MasterSource,
    /// How the Lab is copied; `None` for not at all.
    pub backup: Option<Backup>,
    /// What people upload, sealed: a folder.
    pub blobs: PathBuf,
    /// What running answers have said since the database last heard of them: a folder.
    pub tails: PathBuf,
    /// Signed heads of operation logs: a file that is only ever added to, best on another machine's disk.
    pub audit_heads: PathBuf,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The address that people and bridges know; `None` stands for `https://localhost` and the port that was bound.
    pub public_url: Option<Origin>,
    /// Where the certificate comes from.
    pub tls: Tls,
    /// Where the operator's own listener is; `None` for none. On a loopback address it speaks plain HTTP, elsewhere TLS.
    pub admin: Option<SocketAddr>,
    /// How often each user may ask who has no limits of their own.
    pub rates: Rates,
    /// Requests that a new account has for nothing.
    pub free_requests: u32,
    /// Who is asked for models that are on nobody's workstation.
    pub providers: Providers,
    /// What agents may reach.
    pub agents: Agents,
    /// Which model answers questions about accounts; `None` for no assistant.
    pub assistant: Option<Assistant>,
    /// Who may sign in, and at whose providers.
    pub sign_in: SignIn,
    /// How links to sign in with are sent.
    pub mail: Mail,
    /// The edge's limits. Constants of the program; here so that a test can have shorter ones.
    pub limits: Limits,
    /// The times and counts of pairing, likewise.
    pub pairing: Terms,
    /// What time it is for people's sessions, likewise.
    pub clock: Clock,
    /// How long a caller is held for a bridge's return, likewise.
    pub resume_window: Duration,
}

impl Config {
    /// Everything by default, with data in `data_dir`.
    #[must_use]
    pub fn in_dir(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            database: data_dir.join("lab.sqlite"),
            keystore: data_dir.join("keystore.sqlite"),
            master: MasterSource::Own(data_dir.join("master.key")),
            backup: None,
            blobs: data_dir.join("blobs"),
            tails: data_dir.join("runs"),
            audit_heads: data_dir.join(audit::FILE_NAME),
            listen: DEFAULT_LISTEN,
            public_url: None,
            tls: Tls::OwnCa,
            admin: None,
            rates: DefaultRates::default().user,
            free_requests: FREE_REQUESTS,
            providers: Providers::default(),
            agents: Agents::default(),
            assistant: None,
            sign_in: SignIn::default(),
            mail: Mail::Outbox(data_dir.join("outbox")),
            limits: Limits::default(),
            pairing: Terms::default(),
            clock: Clock::default(),
            resume_window: wire::relay::RESUME_WINDOW,
            data_dir,
        }
    }

    /// Reads the file, lays `overrides` over it and fills in what nobody said.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the line, or the setting, and says what is expected.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let Some(path) = find_file(overrides.config.as_deref())? else { return resolve(FromFile::default(), overrides) };
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        let base = path.parent().unwrap_or(Path::new(""));
        match read(&text, base) {
            Ok(file) => resolve(file, overrides),
            Err(mistakes) => Err(ConfigError::Invalid { path, mistakes }),
        }
    }

    /// The Lab's origin once it is known which port was bound.
    #[must_use]
    pub fn origin(&self, bound: SocketAddr) -> Origin {
        self.public_url.clone().unwrap_or_else(|| Origin::localhost(bound.port()))
    }
}

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// A test CA of the Lab's own, kept in the data folder; clients are given its `ca.pem`.
    OwnCa,
    /// PEM files that somebody else keeps fresh.
    Files {
        /// The chain, leaf first.
        cert: PathBuf,
        /// The leaf's private key.
        key: PathBuf,
    },
}

/// `https://host[:port]`, in lower case, without a path or a trailing slash: what bridges sign over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    text: String,
    host: String,
}

impl Origin {
    /// `https://localhost:PORT`.
    #[must_use]
    pub fn localhost(port: u16) -> Self {
        Self { text: format!("https://localhost:{port}"), host: "localhost".to_owned() }
    }

    /// As it is signed and shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name or address alone, without the brackets of an IPv6 address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text that is no [`Origin`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be https://host or https://host:port, without a path")]
pub struct InvalidOrigin;

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let uri: http::Uri = text.parse().map_err(|_| InvalidOrigin)?;
        let authority = uri.authority().ok_or(InvalidOrigin)?;
        let bare = uri.scheme_str() == Some("https") && uri.path() == "/" && uri.query().is_none();
        if !bare || text.contains(['#', '@', '?']) || authority.host().is_empty() {
            return Err(InvalidOrigin);
        }
        let host = authority.host().to_ascii_lowercase();
        // A colon with nothing or with something that is no port behind it is an error, not a default.
        let text = match (authority.port_u16(), authority.as_str().len() == host.len()) {
            (None, true) | (Some(443), _) => format!("https://{host}"),
            (Some(port @ 1..), _) => format!("https://{host}:{port}"),
            (Some(0) | None, _) => return Err(InvalidOrigin),
        };
        Ok(Self { text, host: host.trim_matches(['[', ']']).to_owned() })
    }
}

/// Settings from flags and the environment.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// Configuration file (default: 1k4-lab.toml here, then in the user's configuration folder).
    #[arg(long, global = true, env = "ONEK4_LAB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder for the database and the test CA.
    #[arg(long, global = true, env = "ONEK4_LAB_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// SQLite file (default: lab.sqlite in the data folder).
    #[arg(long, global = true, env = "ONEK4_LAB_DATABASE", value_name = "FILE")]
    pub database: Option<PathBuf>,
    /// Address and port to listen on.
    #[arg(long, global = true, env = "ONEK4_LAB_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// The address that people and bridges use, e.g. `https://lab.example.com`.
    #[arg(long, global = true, env = "ONEK4_LAB_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// Certificate chain (PEM); without it the Lab makes a test CA of its own.
    #[arg(long, global = true, env = "ONEK4_LAB_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, global = true, env = "ONEK4_LAB_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

/// Why there is no valid configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was named cannot be read.
    #[error("cannot read the configuration file {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be. Each mistake is a line of the text.
    #[error("{}", listed(path, mistakes))]
    Invalid {
        /// Which.
        path: PathBuf,
        /// All that is wrong with it, from top to bottom; never empty.
        mistakes: Vec<Mistake>,
    },
    /// A flag or a variable has no valid value, or does not go with the rest.
    #[error("{setting} {problem}")]
    Setting {
        /// Its name in the file.
        setting: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The system names no place for data.
    #[error("this system names no folder for a program's data; set data_dir in the configuration or give --data-dir")]
    NoDataDir,
}

fn listed(path: &Path, mistakes: &[Mistake]) -> String {
    let lines: Vec<String> =
        mistakes.iter().map(|Mistake { line, problem }| format!("{}:{line}: {problem}", path.display())).collect();
    lines.join("\n")
}

/// What the file says, valid already; its paths are relative to it.
#[derive(Default)]
struct FromFile {
    data_dir: Option<PathBuf>,
    database: Option<PathBuf>,
    keystore: Option<PathBuf>,
    master: Option<MasterSource>,
    backup: Option<Backup>,
    listen: Option<SocketAddr>,
    public_url: Option<Origin>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    admin: Option<SocketAddr>,
    rates: Rates,
    free_requests: Option<u32>,
    audit_heads: Option<PathBuf>,
    providers: Providers,
    agents: Agents,
    assistant: Option<Assistant>,
    sign_in: SignIn,
    mail: Option<Mail>,
}

/// Reads the text of a file that lies in `base`, to its end.
fn read(text: &str, base: &Path) -> Result<FromFile, Vec<Mistake>> {
    let (document, table) = Document::parse(text);
    // Of a text that is no TOML only the beginning can be made out; what it seems to lack would be no mistake of anybody's.
    if document.has_mistakes() {
        return Err(document.into_mistakes());
    }
    let mut root = document.root(&table);
    let mut file = FromFile {
        data_dir: root.text("data_dir").map(|dir| base.join(dir.value)),
        database: root.text("database").map(|file| base.join(file.value)),
        listen: listen(&mut root),
        public_url: root.parse("public_url").map(|url| url.value),
        ..FromFile::default()
    };
    if let Some(mut tls) = root.table("tls") {
        for key in ["cert", "key"] {
            tls.need(key);
        }
        file.tls_cert = tls.text("cert").map(|file| base.join(file.value));
        file.tls_key = tls.text("key").map(|file| base.join(file.value));
        tls.finish();
    }
    if let Some(mut admin) = root.table("admin") {
        admin.need("listen");
        file.admin = listen(&mut admin);
        admin.finish();
    }
    if let Some(limits) = root.table("limits") {
        file.rates = rates(limits);
    }
    if let Some(mut trial) = root.table("trial") {
        trial.need("free_requests");
        let free = trial.number("free_requests", 0..=1_000_000);
        file.free_requests = free.and_then(|free| u32::try_from(free.value).ok());
        trial.finish();
    }
    file.audit_heads = audit::read(&mut root, base);
    if let Some(mut storage) = root.table("storage") {
        storage.need("keystore");
        file.keystore = storage.text("keystore").map(|file| base.join(file.value));
        storage.finish();
    }
    file.master = vault::read(&mut root, base);
    file.backup = backup::read(&mut root, base);
    file.providers = providers::read(&mut root, base);
    file.agents = agents::read(&mut root);
    file.assistant = assistant::read(&mut root, base);
    (file.sign_in, file.mail) = sign_in::read(&mut root, base);
    root.finish();
    let mistakes = document.into_mistakes();
    if mistakes.is_empty() { Ok(file) } else { Err(mistakes) }
}

fn listen(section: &mut Section<'_, '_>) -> Option<SocketAddr> {
    let text = section.text("listen")?;
    match text.value.parse() {
        Ok(address) => Some(address),
        Err(_) => section.wrong(text.line, format_args!("listen {LISTEN_FORM}")),
    }
}

fn rates(mut limits: Section<'_, '_>) -> Rates {
    let mut limit = |key| {
        let limit = limits.number(key, 1..=u64::from(u32::MAX))?;
        u32::try_from(limit.value).ok().and_then(NonZeroU32::new)
    };
    let rates = Rates {
        requests_per_minute: limit("requests_per_minute"),
        tokens_per_minute: limit("tokens_per_minute"),
        concurrent: limit("concurrent"),
    };
    limits.finish();
    rates
}

const LISTEN_FORM: &str = "must be an address with a port, such as 127.0.0.1:8443 or [::]:443";

/// Lays flags and variables over the file. Their paths are relative to the working directory.
fn resolve(file: FromFile, overrides: &Overrides) -> Result<Config, ConfigError> {
    let data_dir = match overrides.data_dir.clone().or(file.data_dir) {
        Some(dir) => dir,
        None => default_dirs().ok_or(ConfigError::NoDataDir)?.data_dir().to_owned(),
    };
    let mut config = Config::in_dir(data_dir);
    if let Some(database) = overrides.database.clone().or(file.database) {
        config.database = database;
    }
    config.keystore = file.keystore.unwrap_or(config.keystore);
    config.master = file.master.unwrap_or(config.master);
    config.backup = file.backup;
    let setting = |setting, problem: &dyn fmt::Display| ConfigError::Setting { setting, problem: problem.to_string() };
    let listen = match &overrides.listen {
        Some(text) => Some(text.parse().map_err(|_| setting("listen", &LISTEN_FORM))?),
        None => file.listen,
    };
    config.listen = listen.unwrap_or(config.listen);
    config.public_url = match &overrides.public_url {
        Some(text) => Some(text.parse().map_err(|error: InvalidOrigin| setting("public_url", &error))?),
        None => file.public_url,
    };
    config.tls = match (overrides.tls_cert.clone().or(file.tls_cert), overrides.tls_key.clone().or(file.tls_key)) {
        (None, None) => Tls::OwnCa,
        (Some(cert), Some(key)) => Tls::Files { cert, key },
        _ => return Err(setting("tls", &"needs both cert and key, or neither for a test CA")),
    };
    config.admin = file.admin;
    config.rates = Rates {
        requests_per_minute: file.rates.requests_per_minute.or(config.rates.requests_per_minute),
        tokens_per_minute: file.rates.tokens_per_minute.or(config.rates.tokens_per_minute),
        concurrent: file.rates.concurrent.or(config.rates.concurrent),
    };
    config.free_requests = file.free_requests.unwrap_or(config.free_requests);
    if let Some(heads) = file.audit_heads {
        config.audit_heads = heads;
    }
    config.providers = file.providers;
    config.agents = file.agents;
    config.assistant = file.assistant;
    config.sign_in = file.sign_in;
    config.mail = file.mail.unwrap_or(config.mail);
    Ok(config)
}

/// The file that was named must exist; the two places where it is looked for otherwise may be empty.
fn find_file(named: Option<&Path>) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(path) = named {
        return Ok(Some(path.to_owned()));
    }
    let here = PathBuf::from(FILE_NAME);
    let home = default_dirs().map(|dirs| dirs.config_dir().join(FILE_NAME));
    Ok([Some(here), home].into_iter().flatten().find(|path| path.is_file()))
}

fn default_dirs() -> Option<directories::ProjectDirs> {
    directories::ProjectDirs::from("", "", "1k4-lab")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_normal_or_refused() {
        for (text, origin, host) in [
            ("https://Lab.Example.com", "https://lab.example.com", "lab.example.com"),
            ("https://lab.example.com/", "https://lab.example.com", "lab.example.com"),
            ("https://lab.example.com:443", "https://lab.example.com", "lab.example.com"),
            ("https://localhost:8443", "https://localhost:8443", "localhost"),
            ("https://[::1]:8443", "https://[::1]:8443", "::1"),
        ] {
            let parsed: Origin = text.parse().unwrap();
            assert_eq!((parsed.as_str(), parsed.host()), (origin, host), "{text}");
        }
        for text in [
            "",
            "lab.example.com",
            "http://lab.example.com",
            "https://lab.example.com/x",
            "https://lab.example.com?x",
            "https://lab.example.com/#x",
            "https://user@lab.example.com",
            "https://lab.example.com:0",
            "https://lab.example.com:",
            "https://lab.example.com:99999",
            "https://",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(InvalidOrigin), "{text}");
        }
    }

    #[test]
    fn the_file_is_read_and_flags_win() {
        let dir = std::env::temp_dir().join(format!("1k4-config-{}", wire::RequestId::random()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join(FILE_NAME);
        std::fs::write(&path, "data_dir = \"data\"\nlisten = \"127.0.0.1:1\"\n[tls]\ncert = \"c.pem\"\nkey = \"/k.pem\"\n")
            .unwrap();
        let overrides = Overrides { config: Some(path.clone()), listen: Some("127.0.0.1:2".into()), ..Overrides::default() };
        let config = Config::load(&overrides).unwrap();
        assert_eq!(config.data_dir, dir.join("data"));
        assert_eq!(config.database, dir.join("data/lab.sqlite"));
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.tls, Tls::Files { cert: dir.join("c.pem"), key: "/k.pem".into() });
        assert_eq!(config.origin(config.listen).as_str(), "https://localhost:2");

        std::fs::write(&path, "data_dir = \"data\"\n\nlisten_on = 1\n").unwrap();
        let error = Config::load(&overrides).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}:3: unknown field `listen_on` in the file, expected one of data_dir", path.display())),
            "{error}"
        );
        std::fs::write(&path, "public_url = \"http://lab.example.com\"\nlisten = 1\n").unwrap();
        let at = path.display();
        assert_eq!(
            Config::load(&overrides).unwrap_err().to_string(),
            format!(
                "{at}:1: public_url must be https://host or https://host:port, without a path\n{at}:2: listen must be a text in quotes"
            )
        );
        let overrides = Overrides { config: None, public_url: Some("x".into()), ..Overrides::default() };
        assert_eq!(
            Config::load(&overrides).unwrap_err().to_string(),
            "public_url must be https://host or https://host:port, without a path"
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
