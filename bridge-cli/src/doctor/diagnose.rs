//! From what was seen to what it means and what to do: pure functions, one per part.

use std::path::PathBuf;

use bridge_core::{
    config::ConfigError,
    credentials::{self, Store},
    dial::DialError,
    ollama::{self, OLDEST, Version},
    status::LinkState,
};
use serde::Serialize;

/// A clock that is off by more makes certificates look expired and signatures look old.
const CLOCK_LIMIT_S: u64 = 60;

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Row {
    /// What was looked at: a stable name.
    pub(super) check: &'static str,
    /// How it is.
    pub(super) state: State,
    /// What was seen.
    pub(super) detail: String,
    /// What to do.
    pub(super) action: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// As it should be.
    Pass,
    /// It works, and yet.
    Warn,
    /// It does not work.
    Fail,
    /// It could not be looked at, because something before it does not work.
    Skip,
}

/// Everything that was seen.
pub(super) struct Seen {
    pub(super) config_file: PathBuf,
    pub(super) pairing: Pairing,
    pub(super) ollama: OllamaSeen,
    pub(super) bridge: BridgeSeen,
}

/// Whether there is a Lab to talk to.
pub(super) enum Pairing {
    /// No.
    None,
    /// `device.toml` cannot be read.
    Unreadable(ConfigError),
    /// Yes.
    With {
        lab: String,
        owner: String,
        store: Store,
        key: Result<(), credentials::Error>,
        /// The Lab's clock minus ours in seconds, where it told.
        reached: Result<Option<i64>, DialError>,
    },
}

/// What there is at Ollama's address and around it.
pub(super) struct OllamaSeen {
    /// The address that the bridge asks.
    pub(super) url: String,
    pub(super) is_loopback: bool,
    pub(super) answer: Result<Version, ollama::Error>,
    /// An Ollama at its default address, where the bridge asks another one in vain.
    pub(super) at_default: Option<Version>,
    /// The program, where the PATH has it.
    pub(super) program: Option<PathBuf>,
    /// How many models there are and how many of them are shared, where it answers.
    pub(super) models: Option<Models>,
    /// The number of the user who listens there, where it is nobody that Ollama would run as.
    pub(super) stranger: Option<u32>,
    /// Whether it writes the bodies of requests to disk.
    pub(super) body_logging: bool,
}

/// Ollama's models, counted.
#[derive(Clone, Copy)]
pub(super) struct Models {
    pub(super) local: usize,
    pub(super) elsewhere: usize,
    pub(super) shared: usize,
}

/// The running bridge.
pub(super) enum BridgeSeen {
    /// None runs.
    NotRunning,
    /// One runs and does not answer.
    Broken(String),
    /// Its link.
    Running(LinkState),
}

/// The only row where the configuration cannot be read.
pub(super) fn broken_configuration(error: &ConfigError) -> Row {
    fail("configuration", error.to_string(), "correct it there, then run `1k4-bridge doctor` again")
}

/// What it all means, in the order of the way from here to the Lab.
pub(super) fn rows(seen: &Seen) -> Vec<Row> {
    let mut rows = vec![pass("configuration", format!("{} (or its defaults)", seen.config_file.display()))];
    rows.extend(ollama_rows(&seen.ollama));
    rows.extend(pairing_rows(&seen.pairing));
    rows.push(clock_row(&seen.pairing, &seen.bridge));
    rows.push(link_row(&seen.pairing, &seen.bridge));
    rows
}

fn ollama_rows(seen: &OllamaSeen) -> Vec<Row> {
    let mut rows = vec![answer_row(seen)];
    rows.push(match &seen.answer {
        Ok(version) if version.is_safe() => pass("ollama version", version.to_string()),
        Ok(version) => fail(
            "ollama version",
            format!("{version} is older than {OLDEST}, the oldest that is safe to share (older ones leak memory: CVE-2026-7482)"),
            "update Ollama (on Linux: `curl -fsSL https://ollama.com/install.sh | sh`), then restart it",
        ),
        Err(_) => skip("ollama version"),
    });
    rows.push(match seen.models {
        None => skip("models"),
        Some(Models { local: 0, elsewhere: 0, .. }) => fail(
            "models",
            "Ollama has no models".to_owned(),
            "download one: `1k4-bridge models pull llama3.2`, or `ollama pull llama3.2`",
        ),
        Some(Models { local: 0, elsewhere, .. }) => fail(
            "models",
            format!("all {elsewhere} models run in somebody's cloud and are never shared"),
            "download one that runs here: `1k4-bridge models pull llama3.2`",
        ),
        Some(Models { local, shared: 0, .. }) => {
            fail("models", format!("{local} here, none of them shared"), "share one: `1k4-bridge policy allow MODEL`")
        }
        Some(Models { local, shared, .. }) => pass("models", format!("{local} here, {shared} shared")),
    });
    rows.push(if seen.body_logging {
        fail(
            "ollama logging",
            "Ollama writes, or wrote, every prompt to disk (ollama-request-logs-* in the temporary directory)".to_owned(),
            "unset OLLAMA_DEBUG_LOG_REQUESTS, restart Ollama and delete those directories",
        )
    } else {
        pass("ollama logging", "no sign of prompts being written to disk".to_owned())
    });
    rows
}

fn answer_row(seen: &OllamaSeen) -> Row {
    const CHECK: &str = "ollama";
    let url = &seen.url;
    let error = match &seen.answer {
        Ok(_) if let Some(uid) = seen.stranger => {
            return fail(
                CHECK,
                format!("another user (number {uid}) listens at {url} and would read your prompts"),
                "find out who it is (`getent passwd`), have them stop, then start your own Ollama",
            );
        }
        Ok(_) if seen.is_loopback => return pass(CHECK, format!("running at {url}")),
        Ok(_) => {
            return warn(
                CHECK,
                format!("running at {url}, which is not this computer: prompts cross the network unencrypted"),
                "run Ollama here, or see that the network between the two is yours",
            );
        }
        Err(error) => error,
    };
    if let Some(version) = &seen.at_default {
        return fail(
            CHECK,
            format!("nothing usable at {url} ({error}), but Ollama {version} runs at its default address"),
            "the address is wrong: unset OLLAMA_HOST, or remove ollama_host from the configuration",
        );
    }
    match error {
        ollama::Error::NotOllama | ollama::Error::Status(_) => fail(
            CHECK,
            format!("something other than Ollama answers at {url}"),
            "the port is wrong or taken: set OLLAMA_HOST (or ollama_host in the configuration) to where Ollama listens",
        ),
        ollama::Error::NotRunning | ollama::Error::Unreachable | ollama::Error::TimedOut => match &seen.program {
            None if seen.is_loopback => fail(
                CHECK,
                format!("not installed: no program `ollama`, and nothing at {url}"),
                "install it from https://ollama.com/download (on Linux: `curl -fsSL https://ollama.com/install.sh | sh`)",
            ),
            Some(program) if seen.is_loopback => fail(
                CHECK,
                format!("installed at {} and not running at {url}", program.display()),
                "start it: `ollama serve`, or `systemctl start ollama` where it is a service",
            ),
            _ => fail(
                CHECK,
                format!("no answer from {url}"),
                "start Ollama there, and see that OLLAMA_HOST names it and no firewall is in the way",
            ),
        },
        other => fail(CHECK, other.to_string(), "restart Ollama; its log says more"),
    }
}

fn pairing_rows(pairing: &Pairing) -> Vec<Row> {
    match pairing {
        Pairing::None => {
            let action = "pair it: `1k4-bridge login https://your-lab`";
            vec![
                fail("pairing", "this workstation is not paired with a Lab".to_owned(), action),
                skip("device key"),
                skip("network"),
                skip("tls"),
                skip("lab"),
            ]
        }
        Pairing::Unreadable(error) => {
            let action = "pair again: `1k4-bridge login https://your-lab`";
            vec![fail("pairing", error.to_string(), action), skip("device key"), skip("network"), skip("tls"), skip("lab")]
        }
        Pairing::With { lab, owner, store, key, reached } => {
            let mut rows = vec![pass("pairing", format!("with {lab}, for {owner}")), key_row(store, key)];
            rows.extend(lab_rows(lab, reached));
            rows
        }
    }
}

fn key_row(store: &Store, key: &Result<(), credentials::Error>) -> Row {
    use credentials::Error;
    const CHECK: &str = "device key";
    const ALTERNATIVES: &str = "on a computer without a keyring choose one of two: a systemd credential (`sudo 1k4-bridge service install --system`), \
                                or a file that is not encrypted (`1k4-bridge login LAB --insecure-file-store`)";
    match key {
        Ok(()) => match store {
            Store::File { .. } => warn(
                CHECK,
                format!("readable, in {store}"),
                "use a keyring or a systemd credential where there is one: whoever reads that file is this workstation",
            ),
            Store::Keyring | Store::SystemdCredential { .. } => pass(CHECK, format!("readable, in {store}")),
        },
        Err(error @ (Error::Locked | Error::TimedOut)) => fail(
            CHECK,
            format!("the keyring is locked ({error})"),
            format!("unlock it by logging in to the desktop; {ALTERNATIVES}"),
        ),
        Err(Error::Absent) => fail(
            CHECK,
            "no keyring answers in this session".to_owned(),
            format!("start one (GNOME Keyring, KWallet); {ALTERNATIVES}"),
        ),
        Err(Error::NoEntry) => fail(CHECK, format!("there is none in {store}"), "pair again: `1k4-bridge login LAB`"),
        Err(error) => fail(CHECK, error.to_string(), "do as it says, then run `1k4-bridge doctor` again"),
    }
}

/// The way to the Lab, up to where it ends.
fn lab_rows(lab: &str, reached: &Result<Option<i64>, DialError>) -> Vec<Row> {
    let error = match reached {
        Ok(_) => {
            return vec![
                pass("network", "the Lab's address is reached".to_owned()),
                pass("tls", "the Lab's certificate is trusted".to_owned()),
                pass("lab", format!("{lab} answers")),
            ];
        }
        Err(error) => error,
    };
    let through_network = || pass("network", "the Lab's address is reached".to_owned());
    let (at, action) = match error {
        DialError::Dns { .. } => ("network", "check the spelling of the Lab's address and this computer's network"),
        DialError::Tcp { .. } => ("network", "check that the Lab runs, and that no firewall is in the way"),
        DialError::TimedOut { .. } => ("network", "check that the Lab runs, and that no firewall drops the connection"),
        DialError::ProxyAuth { .. } => {
            ("proxy", "put the proxy's user and password into HTTPS_PROXY: http://user:password@host:port")
        }
        DialError::ProxyRefused { .. } => ("proxy", "ask the proxy's administrator to allow the Lab, or add the Lab to NO_PROXY"),
        DialError::Proxy { .. } => ("proxy", "correct HTTPS_PROXY, or unset it where no proxy is needed"),
        DialError::TlsUntrusted { .. } => ("tls", "for a Lab of your own set ca_file in the configuration to its ca.pem"),
        DialError::Tls { .. } => ("tls", "open the Lab in a browser: a sign-in page or a filter may be in the way"),
        DialError::CaFile { .. } => ("tls", "correct ca_file in the configuration"),
        DialError::NoTrust => ("tls", "install the package ca-certificates, or set ca_file"),
        DialError::NotALab { .. } => ("lab", "check the Lab's address; where this network has a sign-in page, sign in first"),
        DialError::OtherName { .. } => ("lab", "log in again with the address that the Lab calls itself"),
        DialError::Unavailable { .. } | DialError::Broken => ("lab", "wait a minute; if it stays so, ask who runs the Lab"),
        DialError::Refused { .. } => ("lab", "pair again: `1k4-bridge login LAB`"),
    };
    let failed = fail(at, error.to_string(), action);
    match at {
        "network" | "proxy" => vec![failed, skip("tls"), skip("lab")],
        "tls" => vec![through_network(), failed, skip("lab")],
        _ => vec![through_network(), pass("tls", "the Lab's certificate is trusted".to_owned()), failed],
    }
}

fn clock_row(pairing: &Pairing, bridge: &BridgeSeen) -> Row {
    const CHECK: &str = "clock";
    let by_http = match pairing {
        Pairing::With { reached: Ok(skew), .. } => *skew,
        Pairing::With { reached: Err(_), .. } | Pairing::None | Pairing::Unreadable(_) => None,
    };
    let by_hello = match bridge {
        BridgeSeen::Running(LinkState::Online { clock_skew_s, .. }) => Some(*clock_skew_s),
        BridgeSeen::Running(_) | BridgeSeen::NotRunning | BridgeSeen::Broken(_) => None,
    };
    match by_http.or(by_hello) {
        None => skip(CHECK),
        Some(skew) if skew.unsigned_abs() > CLOCK_LIMIT_S => fail(
            CHECK,
            format!("this computer's clock is {} s {}", skew.unsigned_abs(), if skew > 0 { "slow" } else { "fast" }),
            "switch time synchronisation on (on Linux: `timedatectl set-ntp true`)",
        ),
        Some(skew) => pass(CHECK, format!("within {} s of the Lab's", skew.unsigned_abs().max(1))),
    }
}

fn link_row(pairing: &Pairing, bridge: &BridgeSeen) -> Row {
    const CHECK: &str = "link";
    let link = match bridge {
        BridgeSeen::NotRunning => {
            let action = "start it: `1k4-bridge run`, or `1k4-bridge service install` to have it always on";
            return if matches!(pairing, Pairing::With { .. }) {
                warn(CHECK, "the bridge is not running".to_owned(), action)
            } else {
                skip(CHECK)
            };
        }
        BridgeSeen::Broken(cause) => return fail(CHECK, cause.clone(), "restart the bridge"),
        BridgeSeen::Running(link) => link,
    };
    match link {
        LinkState::Online { lab, .. } => pass(CHECK, format!("linked to {lab}")),
        LinkState::Connecting { lab, .. } => {
            warn(CHECK, format!("dialling {lab} just now"), "run `1k4-bridge doctor` again in a moment")
        }
        LinkState::Waiting { cause, .. } => {
            fail(CHECK, cause.clone(), "once the cause is mended it comes back by itself; `1k4-bridge retry` dials at once")
        }
        LinkState::Refused { code, cause, .. } if code == "revoked" => fail(
            CHECK,
            format!("revoked: {cause}"),
            "pair again: `1k4-bridge login LAB`; if it was not you who revoked it, ask who runs the Lab",
        ),
        LinkState::Refused { cause, .. } => fail(CHECK, cause.clone(), "do as it says, then `1k4-bridge retry`"),
        LinkState::NoCredential { cause, .. } => fail(CHECK, cause.clone(), "see `device key` above, then `1k4-bridge retry`"),
        LinkState::Unpaired => match pairing {
            Pairing::With { .. } => {
                warn(CHECK, "the running bridge does not know of the pairing yet".to_owned(), "tell it: `1k4-bridge retry`")
            }
            Pairing::None | Pairing::Unreadable(_) => skip(CHECK),
        },
    }
}

fn pass(check: &'static str, detail: String) -> Row {
    Row { check, state: State::Pass, detail, action: None }
}

fn warn(check: &'static str, detail: String, action: impl Into<String>) -> Row {
    Row { check, state: State::Warn, detail, action: Some(action.into()) }
}

fn fail(check: &'static str, detail: String, action: impl Into<String>) -> Row {
    Row { check, state: State::Fail, detail, action: Some(action.into()) }
}

fn skip(check: &'static str) -> Row {
    Row { check, state: State::Skip, detail: "not looked at: something before it is missing".to_owned(), action: None }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const URL: &str = "http://127.0.0.1:11434";
    const LAB: &str = "https://lab.example.com";

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn ollama() -> OllamaSeen {
        OllamaSeen {
            url: URL.into(),
            is_loopback: true,
            answer: Ok(version("0.32.15")),
            at_default: None,
            program: Some("/usr/bin/ollama".into()),
            models: Some(Models { local: 2, elsewhere: 0, shared: 1 }),
            stranger: None,
            body_logging: false,
        }
    }

    fn silent(error: ollama::Error) -> OllamaSeen {
        OllamaSeen { answer: Err(error), models: None, ..ollama() }
    }

    fn paired(key: Result<(), credentials::Error>, reached: Result<Option<i64>, DialError>) -> Pairing {
        Pairing::With { lab: LAB.into(), owner: "Ada".into(), store: Store::Keyring, key, reached }
    }

    /// The row named `check` is in `state`, says `detail` and advises `action`.
    fn check(rows: &[Row], check: &str, state: State, detail: &str, action: &str) {
        let row = rows.iter().find(|row| row.check == check).unwrap_or_else(|| panic!("no row {check} in {rows:#?}"));
        assert_eq!(row.state, state, "{row:?}");
        assert!(row.detail.contains(detail), "{row:?} does not say {detail:?}");
        assert!(row.action.as_deref().unwrap_or_default().contains(action), "{row:?} does not advise {action:?}");
        assert_eq!(row.action.is_some(), matches!(row.state, State::Warn | State::Fail), "{row:?}");
    }

    #[test]
    fn what_is_wrong_with_ollama_is_named() {
        use ollama::Error;
        for (seen, row, state, detail, action) in [
            (ollama(), "ollama", State::Pass, URL, ""),
            (
                OllamaSeen { program: None, ..silent(Error::NotRunning) },
                "ollama",
                State::Fail,
                "not installed",
                "ollama.com/download",
            ),
            (silent(Error::NotRunning), "ollama", State::Fail, "installed at /usr/bin/ollama and not running", "ollama serve"),
            (silent(Error::NotOllama), "ollama", State::Fail, "something other than Ollama answers", "port is wrong or taken"),
            (
                OllamaSeen { at_default: Some(version("0.32.15")), url: "http://127.0.0.1:9".into(), ..silent(Error::NotRunning) },
                "ollama",
                State::Fail,
                "Ollama 0.32.15 runs at its default address",
                "unset OLLAMA_HOST",
            ),
            (OllamaSeen { is_loopback: false, ..silent(Error::TimedOut) }, "ollama", State::Fail, "no answer from", "firewall"),
            (OllamaSeen { is_loopback: false, ..ollama() }, "ollama", State::Warn, "unencrypted", "run Ollama here"),
            (OllamaSeen { stranger: Some(1001), ..ollama() }, "ollama", State::Fail, "another user (number 1001)", "getent"),
            (silent(Error::NotRunning), "ollama version", State::Skip, "", ""),
            (ollama(), "ollama version", State::Pass, "0.32.15", ""),
            (
                OllamaSeen { answer: Ok(version("0.17.0")), ..ollama() },
                "ollama version",
                State::Fail,
                "0.17.0 is older than 0.17.1",
                "update",
            ),
            (OllamaSeen { answer: Ok(version("0.17.1")), ..ollama() }, "ollama version", State::Pass, "0.17.1", ""),
            (ollama(), "models", State::Pass, "2 here, 1 shared", ""),
            (silent(Error::NotRunning), "models", State::Skip, "", ""),
            (
                OllamaSeen { models: Some(Models { local: 0, elsewhere: 0, shared: 0 }), ..ollama() },
                "models",
                State::Fail,
                "no models",
                "models pull",
            ),
            (
                OllamaSeen { models: Some(Models { local: 0, elsewhere: 3, shared: 0 }), ..ollama() },
                "models",
                State::Fail,
                "cloud",
                "models pull",
            ),
            (
                OllamaSeen { models: Some(Models { local: 2, elsewhere: 0, shared: 0 }), ..ollama() },
                "models",
                State::Fail,
                "none of them shared",
                "policy allow",
            ),
            (ollama(), "ollama logging", State::Pass, "no sign", ""),
            (
                OllamaSeen { body_logging: true, ..ollama() },
                "ollama logging",
                State::Fail,
                "every prompt to disk",
                "OLLAMA_DEBUG_LOG_REQUESTS",
            ),
        ] {
            check(&ollama_rows(&seen), row, state, detail, action);
        }
    }

    #[test]
    fn what_is_wrong_with_the_pairing_and_the_key_is_named() {
        use credentials::Error;
        let ok = || Ok(Some(0));
        let broken = ConfigError::File { file: "/s/device.toml".into(), kind: io::ErrorKind::PermissionDenied };
        for (pairing, row, state, detail, action) in [
            (Pairing::None, "pairing", State::Fail, "not paired", "1k4-bridge login"),
            (Pairing::None, "device key", State::Skip, "", ""),
            (Pairing::Unreadable(broken), "pairing", State::Fail, "/s/device.toml", "login"),
            (paired(Ok(()), ok()), "pairing", State::Pass, "with https://lab.example.com, for Ada", ""),
            (paired(Ok(()), ok()), "device key", State::Pass, "the keyring", ""),
            (paired(Err(Error::Locked), ok()), "device key", State::Fail, "locked", "a systemd credential"),
            (paired(Err(Error::Locked), ok()), "device key", State::Fail, "locked", "--insecure-file-store"),
            (paired(Err(Error::TimedOut), ok()), "device key", State::Fail, "locked", "unlock it"),
            (paired(Err(Error::Absent), ok()), "device key", State::Fail, "no keyring answers", "a systemd credential"),
            (paired(Err(Error::Absent), ok()), "device key", State::Fail, "no keyring answers", "--insecure-file-store"),
            (paired(Err(Error::NoEntry), ok()), "device key", State::Fail, "there is none", "pair again"),
            (paired(Err(Error::Corrupt), ok()), "device key", State::Fail, "is not one", "do as it says"),
        ] {
            check(&pairing_rows(&pairing), row, state, detail, action);
        }
    }

    #[test]
    fn a_key_in_a_plain_file_is_pointed_out() {
        let store = Store::File { path: "/s/device-key".into() };
        let pairing = Pairing::With { lab: LAB.into(), owner: "Ada".into(), store, key: Ok(()), reached: Ok(None) };
        check(&pairing_rows(&pairing), "device key", State::Warn, "/s/device-key", "a systemd credential");
    }

    #[test]
    fn the_way_to_the_lab_is_followed_to_where_it_ends() {
        let host = || "lab.example.com".to_owned();
        let proxy = || "proxy:3128".to_owned();
        for (error, row, detail, action, after) in [
            (DialError::Dns { host: host() }, "network", "cannot be resolved", "spelling", Some("tls")),
            (
                DialError::Tcp { host: host(), port: 443, kind: io::ErrorKind::ConnectionRefused },
                "network",
                "no connection to lab.example.com:443",
                "firewall",
                Some("tls"),
            ),
            (DialError::TimedOut { step: "TCP" }, "network", "in time", "firewall", Some("tls")),
            (DialError::ProxyAuth { proxy: proxy() }, "proxy", "407", "http://user:password@host:port", Some("tls")),
            (DialError::ProxyRefused { proxy: proxy(), status: 403 }, "proxy", "status 403", "NO_PROXY", Some("tls")),
            (
                DialError::Proxy { proxy: proxy(), kind: io::ErrorKind::ConnectionRefused },
                "proxy",
                "cannot be used",
                "HTTPS_PROXY",
                Some("tls"),
            ),
            (DialError::TlsUntrusted { reason: "its issuer is unknown" }, "tls", "its issuer is unknown", "ca_file", Some("lab")),
            (DialError::NotALab { host: host(), status: 302 }, "lab", "status 302", "sign-in page", None),
        ] {
            let rows = pairing_rows(&paired(Ok(()), Err(error)));
            check(&rows, row, State::Fail, detail, action);
            if let Some(after) = after {
                check(&rows, after, State::Skip, "", "");
            }
        }
        let rows = pairing_rows(&paired(Ok(()), Ok(None)));
        for row in ["network", "tls", "lab"] {
            check(&rows, row, State::Pass, "", "");
        }
    }

    #[test]
    fn a_wrong_clock_is_named_by_direction() {
        let not_running = BridgeSeen::NotRunning;
        for (skew, state, detail) in [
            (Some(0), State::Pass, "within 1 s"),
            (Some(-60), State::Pass, "within 60 s"),
            (Some(61), State::Fail, "61 s slow"),
            (Some(-3600), State::Fail, "3600 s fast"),
            (None, State::Skip, ""),
        ] {
            let action = if state == State::Fail { "time synchronisation" } else { "" };
            check(&[clock_row(&paired(Ok(()), Ok(skew)), &not_running)], "clock", state, detail, action);
        }
        let device = "dev_00000000000000000000000000".parse().unwrap();
        let online = BridgeSeen::Running(LinkState::Online { lab: LAB.into(), device, since_ms: 0, clock_skew_s: 90 });
        check(&[clock_row(&paired(Ok(()), Ok(None)), &online)], "clock", State::Fail, "90 s slow", "");
    }

    #[test]
    fn the_link_is_judged_by_the_running_bridge() {
        let device = "dev_00000000000000000000000000".parse().unwrap();
        let lab = || LAB.to_owned();
        let refused = |code: &str| LinkState::Refused { lab: lab(), code: code.into(), cause: "the Lab said no".into() };
        let ok = || paired(Ok(()), Ok(Some(0)));
        for (pairing, bridge, state, detail, action) in [
            (ok(), BridgeSeen::NotRunning, State::Warn, "not running", "service install"),
            (Pairing::None, BridgeSeen::NotRunning, State::Skip, "", ""),
            (ok(), BridgeSeen::Broken("it is mute".into()), State::Fail, "it is mute", "restart"),
            (
                ok(),
                BridgeSeen::Running(LinkState::Online { lab: lab(), device, since_ms: 0, clock_skew_s: 0 }),
                State::Pass,
                LAB,
                "",
            ),
            (ok(), BridgeSeen::Running(LinkState::Connecting { lab: lab(), attempt: 1 }), State::Warn, "dialling", "again"),
            (ok(), BridgeSeen::Running(refused("revoked")), State::Fail, "revoked", "login"),
            (ok(), BridgeSeen::Running(refused("upgrade_required")), State::Fail, "the Lab said no", "as it says"),
            (ok(), BridgeSeen::Running(LinkState::Unpaired), State::Warn, "does not know", "retry"),
            (Pairing::None, BridgeSeen::Running(LinkState::Unpaired), State::Skip, "", ""),
        ] {
            check(&[link_row(&pairing, &bridge)], "link", state, detail, action);
        }
    }

    #[test]
    fn a_configuration_that_cannot_be_read_is_the_only_row() {
        let error = ConfigError::Line { file: "/c/config.toml".into(), line: 3, message: "unknown field `labb`".into() };
        check(&[broken_configuration(&error)], "configuration", State::Fail, "/c/config.toml:3", "correct it");
    }
}
