//! What the Lab's owner decides before it starts: where data lies, where to listen, under which address it is known.
//!
//! Flags win over `ONEK4_LAB_*` variables, which win over the file; what none of them says has a default. [`Config::load`] is the one
//! place where the three meet, and its result cannot be wrong: nobody checks again. Nothing here is a secret.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::Deserialize;

use crate::{edge::Limits, gateway::pairing::Terms};

/// Name of the configuration file.
pub const FILE_NAME: &str = "1k4-lab.toml";
/// Where the Lab listens unless told otherwise: this machine only.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds the database and the test CA. Created with mode 0700.
    pub data_dir: PathBuf,
    /// The SQLite file.
    pub database: PathBuf,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The address that people and bridges know; `None` stands for `https://localhost` and the port that was bound.
    pub public_url: Option<Origin>,
    /// Where the certificate comes from.
    pub tls: Tls,
    /// The edge's limits. Constants of the program; here so that a test can have shorter ones.
    pub limits: Limits,
    /// The times and counts of pairing, likewise.
    pub pairing: Terms,
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
            data_dir,
            listen: DEFAULT_LISTEN,
            public_url: None,
            tls: Tls::OwnCa,
            limits: Limits::default(),
            pairing: Terms::default(),
            resume_window: wire::relay::RESUME_WINDOW,
        }
    }

    /// Reads the file, lays `overrides` over it and fills in what nobody said.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the line, or the setting, and says what is expected.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let file = find_file(overrides.config.as_deref())?;
        let raw = file.as_deref().map(Raw::read).transpose()?.unwrap_or_default();
        let base = file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        raw.resolve(base, overrides)
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
    /// The file is not what it should be.
    #[error("{}:{line}: {problem}", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Where in it, counted from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A setting, wherever it came from, has no valid value.
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

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    data_dir: Option<PathBuf>,
    database: Option<PathBuf>,
    listen: Option<String>,
    public_url: Option<String>,
    tls: Option<RawTls>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    cert: PathBuf,
    key: PathBuf,
}

impl Raw {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|error| ConfigError::Invalid {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            problem: error.message().to_owned(),
        })
    }

    /// Paths in the file are relative to the file; those of flags and variables to the working directory.
    fn resolve(self, base: &Path, overrides: &Overrides) -> Result<Config, ConfigError> {
        let data_dir = match (&overrides.data_dir, self.data_dir) {
            (Some(dir), _) => dir.clone(),
            (None, Some(dir)) => base.join(dir),
            (None, None) => default_dirs().ok_or(ConfigError::NoDataDir)?.data_dir().to_owned(),
        };
        let mut config = Config::in_dir(data_dir);
        if let Some(database) = overrides.database.clone().or_else(|| self.database.map(|file| base.join(file))) {
            config.database = database;
        }
        if let Some(listen) = overrides.listen.as_ref().or(self.listen.as_ref()) {
            config.listen = listen.parse().map_err(|_| ConfigError::Setting {
                setting: "listen",
                problem: "must be an address with a port, such as 127.0.0.1:8443 or [::]:443".to_owned(),
            })?;
        }
        if let Some(url) = overrides.public_url.as_ref().or(self.public_url.as_ref()) {
            config.public_url = Some(
                url.parse()
                    .map_err(|error: InvalidOrigin| ConfigError::Setting { setting: "public_url", problem: error.to_string() })?,
            );
        }
        let (file_cert, file_key) = self.tls.map(|tls| (base.join(tls.cert), base.join(tls.key))).unzip();
        config.tls = match (overrides.tls_cert.clone().or(file_cert), overrides.tls_key.clone().or(file_key)) {
            (None, None) => Tls::OwnCa,
            (Some(cert), Some(key)) => Tls::Files { cert, key },
            _ => {
                return Err(ConfigError::Setting {
                    setting: "tls",
                    problem: "needs both cert and key, or neither for a test CA".to_owned(),
                });
            }
        };
        Ok(config)
    }
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
        assert!(error.starts_with(&format!("{}:3: unknown field `listen_on`", path.display())), "{error}");
        std::fs::write(&path, "public_url = \"http://lab.example.com\"\n").unwrap();
        assert_eq!(
            Config::load(&overrides).unwrap_err().to_string(),
            "public_url must be https://host or https://host:port, without a path"
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
