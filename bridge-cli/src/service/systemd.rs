//! systemd as the bridge needs it: one unit of one name, in the user's manager or in the system's.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bridge_core::config::{Config, Pairing};
use serde::Serialize;

use crate::{args::Global, exit::Exit, failure::Failure, system};

/// The unit's name.
const NAME: &str = "1k4-bridge.service";
/// Where the packages put the program, as the units name it.
const PACKAGED: &str = "/usr/bin/1k4-bridge";
const USER_UNIT: &str = include_str!("../../../installers/systemd/user/1k4-bridge.service");
const SYSTEM_UNIT: &str = include_str!("../../../installers/systemd/system/1k4-bridge.service");
/// What the system unit's `LoadCredentialEncrypted=` names.
const SEALED_KEY: &str = "/etc/credstore.encrypted/1k4-bridge.device-key";
/// The settings of a fresh system-wide bridge. The store is named, so that a file that is left over is never used.
const SYSTEM_SETTINGS: &str =
    "# Settings of the system-wide bridge; see `1k4-bridge --help`.\ncredential_store = \"systemd-credential\"\n";

/// Whose service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Scope {
    /// This user's.
    User,
    /// The computer's.
    System,
}

impl Scope {
    /// The command that installs it, or goes on with that.
    pub(super) fn install_command(self) -> &'static str {
        match self {
            Self::User => "1k4-bridge service install",
            Self::System => "sudo 1k4-bridge service install --system",
        }
    }
}

/// The unit, installed or not.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) scope: Scope,
    /// Where its file belongs.
    pub(super) path: PathBuf,
}

impl Unit {
    /// Finds its place.
    pub(super) fn locate(scope: Scope) -> Result<Self, Failure> {
        if !cfg!(target_os = "linux") {
            return Err(unavailable("services are managed on Linux only; here the tray app starts the bridge when you log in"));
        }
        let directory = match scope {
            Scope::System => PathBuf::from("/etc/systemd/system"),
            Scope::User => {
                let home = || env::home_dir().filter(|home| !home.as_os_str().is_empty()).map(|home| home.join(".config"));
                env::var_os("XDG_CONFIG_HOME")
                    .map(PathBuf::from)
                    .filter(|directory| directory.is_absolute())
                    .or_else(home)
                    .ok_or_else(|| unavailable("this user has no home directory; use --system"))?
                    .join("systemd/user")
            }
        };
        Ok(Self { scope, path: directory.join(NAME) })
    }

    /// Writes its file, for the program that runs now.
    pub(super) fn write(&self, global: &Global) -> Result<(), Failure> {
        let program = env::current_exe().map_err(|error| failed("the program's own path", &error))?;
        let text = match self.scope {
            Scope::User => with_settings(USER_UNIT, global)?,
            Scope::System => SYSTEM_UNIT.to_owned(),
        };
        let text = text.replace(PACKAGED, &quoted(&program)?);
        self.check_manager()?;
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory).map_err(|error| failed(&directory.display().to_string(), &error))?;
        }
        fs::write(&self.path, text).map_err(|error| failed(&self.path.display().to_string(), &error))
    }

    /// Has it started from the next login or boot on.
    pub(super) fn enable(&self) -> Result<(), Failure> {
        self.systemctl(&["daemon-reload"])?;
        self.systemctl(&["enable", NAME])
    }

    /// Has it started now as well, anew if it runs.
    pub(super) fn enable_and_start(&self) -> Result<(), Failure> {
        self.enable()?;
        self.systemctl(&["restart", NAME])
    }

    /// Stops it and removes its file.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        self.check_manager()?;
        if !self.path.exists() {
            return Err(Failure::new(
                Exit::Failed,
                "not_installed",
                format!("there is no {}; nothing to remove", self.path.display()),
            ));
        }
        self.systemctl(&["disable", "--now", NAME])?;
        fs::remove_file(&self.path).map_err(|error| failed(&self.path.display().to_string(), &error))?;
        self.systemctl(&["daemon-reload"])
    }

    /// In a word or two.
    pub(super) fn state(&self) -> Result<&'static str, Failure> {
        self.check_manager()?;
        if !self.path.exists() {
            return Ok("not installed");
        }
        let answer = self.command().args(["is-active", NAME]).output().map_err(|error| no_systemctl(&error))?;
        Ok(match answer.stdout.trim_ascii() {
            b"active" => "running",
            b"activating" | b"reloading" => "starting",
            b"failed" => "failed",
            _ => "stopped",
        })
    }

    /// Whether there is a manager to talk to.
    fn check_manager(&self) -> Result<(), Failure> {
        let answer = self.command().arg("show-environment").stdin(Stdio::null()).output().map_err(|error| no_systemctl(&error))?;
        if answer.status.success() {
            return Ok(());
        }
        Err(match self.scope {
            Scope::System if Path::new("/run/systemd/system").exists() => {
                Failure::new(Exit::Failed, "systemd_refused", "systemd did not answer; use sudo")
            }
            Scope::User if Path::new("/run/systemd/system").exists() => unavailable(
                "there is no systemd session for this user; log in directly (ssh, console) instead of through su or sudo, \
                 or use `sudo 1k4-bridge service install --system`",
            ),
            Scope::System | Scope::User => {
                unavailable("systemd does not run this computer (a container, perhaps); run `1k4-bridge run` instead")
            }
        })
    }

    fn systemctl(&self, arguments: &[&str]) -> Result<(), Failure> {
        let answer = self.command().args(arguments).stdin(Stdio::null()).output().map_err(|error| no_systemctl(&error))?;
        if answer.status.success() {
            return Ok(());
        }
        let words = String::from_utf8_lossy(&answer.stderr);
        let message = format!("`systemctl {}` failed: {}", arguments.join(" "), words.trim());
        Err(Failure::new(Exit::Failed, "systemctl", message))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("systemctl");
        if self.scope == Scope::User {
            command.arg("--user");
        }
        command
    }
}

/// Whether there is a pairing for the user's service to use.
pub(super) fn user_is_paired(global: &Global) -> Result<bool, Failure> {
    let config = Config::load(global.overrides(), |name| env::var_os(name))
        .map_err(|error| Failure::new(Exit::Configuration, "config", error))?;
    Ok(Pairing::load(&config.paths).map_err(|error| Failure::new(Exit::Configuration, "config", error))?.is_some())
}

/// Makes what the system unit needs: the user, the directories, the sealed key. Returns whether it can be started.
pub(super) fn prepare_system() -> Result<bool, Failure> {
    if !system::is_root() {
        let message = "the system-wide service is root's to install: `sudo 1k4-bridge service install --system`";
        return Err(Failure::new(Exit::Failed, "not_root", message));
    }
    let user = format!("u {} - \"1K4 Bridge\" {}", system::USER, system::STATE_DIR);
    tool("systemd-sysusers", &["--inline", &user])?;
    tool("install", &["-d", "-m", "0700", "-o", system::USER, "-g", system::USER, system::STATE_DIR])?;
    let settings = Path::new(system::CONFIG_FILE);
    if !settings.exists() {
        tool("install", &["-d", "-m", "0755", "/etc/1k4-bridge"])?;
        fs::write(settings, SYSTEM_SETTINGS).map_err(|error| failed(system::CONFIG_FILE, &error))?;
    }
    seal_key()?;
    Ok(Path::new(SEALED_KEY).exists() && Path::new(system::STATE_DIR).join("device.toml").exists())
}

/// Encrypts the key that `login --system --insecure-file-store` left, and removes the file.
fn seal_key() -> Result<(), Failure> {
    let plain = Path::new(system::STATE_DIR).join("device-key");
    if !plain.exists() {
        return Ok(());
    }
    tool("install", &["-d", "-m", "0700", "/etc/credstore.encrypted"])?;
    let plain = plain.display().to_string();
    tool("systemd-creds", &["encrypt", "--name=device-key", &plain, SEALED_KEY])?;
    fs::remove_file(&plain).map_err(|error| failed(&plain, &error))
}

/// Whether the user's services run while they are logged out.
pub(super) fn lingers() -> bool {
    let asked = Command::new("loginctl").args(["show-user", "--property=Linger", "--value"]).arg(system::user_number()).output();
    // Who cannot be asked is told of the possibility.
    asked.is_ok_and(|answer| answer.stdout.trim_ascii() == b"yes")
}

fn tool(program: &str, arguments: &[&str]) -> Result<(), Failure> {
    let answer = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => unavailable(format!("the program {program} is missing; it comes with systemd")),
        _ => failed(program, &error),
    })?;
    if answer.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&answer.stderr);
    Err(Failure::new(Exit::Failed, "tool", format!("`{program}` failed: {}", words.trim())))
}

/// The unit with the places that the command line named.
fn with_settings(unit: &str, global: &Global) -> Result<String, Failure> {
    let mut lines = String::from("[Service]\n");
    for (name, path) in [("ONEK4_CONFIG", &global.config), ("ONEK4_STATE_DIR", &global.state_dir)] {
        if let Some(path) = path {
            let path = std::path::absolute(path).map_err(|error| failed(&path.display().to_string(), &error))?;
            lines.push_str(&format!("Environment={}\n", quoted(Path::new(&format!("{name}={}", path.display())))?));
        }
    }
    Ok(unit.replacen("[Service]\n", &lines, 1))
}

/// A word of a unit file: `%` starts a specifier, `$` a variable, blanks end a word.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path
        .to_str()
        .filter(|text| !text.contains(['\n', '\r']))
        .ok_or_else(|| Failure::new(Exit::Failed, "path", format!("systemd cannot be given the path {}", path.display())))?;
    let escaped = text.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    Ok(if escaped.contains([' ', '\t', '\'', '"', '\\', ';']) { format!("\"{escaped}\"") } else { escaped })
}

fn unavailable(message: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, "no_systemd", message)
}

fn no_systemctl(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => {
            unavailable("systemd is not on this computer; have `1k4-bridge run` started by what manages services here")
        }
        _ => failed("systemctl", error),
    }
}

fn failed(what: &str, error: &io::Error) -> Failure {
    let hint = if error.kind() == io::ErrorKind::PermissionDenied { "; use sudo" } else { "" };
    Failure::new(Exit::Failed, "service", format!("{what}: {error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_name_the_packaged_program_once_and_never_restart_an_unpaired_bridge() {
        for unit in [USER_UNIT, SYSTEM_UNIT] {
            assert_eq!(unit.matches(PACKAGED).count(), 1);
            for line in [
                "Type=notify",
                "WatchdogSec=60",
                "Restart=on-failure",
                "RestartSec=2",
                "RestartPreventExitStatus=78",
                "LimitCORE=0",
            ] {
                assert!(unit.lines().any(|l| l == line), "{line}");
            }
        }
        assert!(SYSTEM_UNIT.contains(&format!("LoadCredentialEncrypted=device-key:{SEALED_KEY}\n")));
        assert!(SYSTEM_UNIT.contains(&format!("User={}\n", system::USER)));
        assert!(SYSTEM_UNIT.contains(&format!("Environment=ONEK4_CONFIG={}\n", system::CONFIG_FILE)));
        assert!(SYSTEM_UNIT.contains(&format!("Environment=ONEK4_STATE_DIR={}\n", system::STATE_DIR)));
    }

    #[test]
    fn named_places_go_into_the_unit() {
        let global = Global { config: Some("/a b/c.toml".into()), state_dir: Some("/100%".into()), json: false, system: false };
        let unit = with_settings(USER_UNIT, &global).unwrap();
        assert!(
            unit.contains("[Service]\nEnvironment=\"ONEK4_CONFIG=/a b/c.toml\"\nEnvironment=ONEK4_STATE_DIR=/100%%\nType=notify\n"),
            "{unit}"
        );
    }

    #[test]
    fn paths_are_words() {
        for (path, word) in [("/usr/bin/x", "/usr/bin/x"), ("/a b", "\"/a b\""), ("/a\"b", "\"/a\\\"b\""), ("/$x%", "/$$x%%")] {
            assert_eq!(quoted(Path::new(path)).unwrap(), word);
        }
        assert!(quoted(Path::new("/a\nExecStartPre=/b")).is_err());
    }
}
