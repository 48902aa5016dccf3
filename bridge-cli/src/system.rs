//! `--system`: any verb, for the bridge that the system unit runs.
//!
//! The bridge answers its own user only, root included. So root, who asked for it with `--system`, goes on as that user.

#[cfg(unix)]
use std::os::unix::{fs::MetadataExt, process::CommandExt};

use crate::{exit::Exit, failure::Failure};

/// The user of the system unit.
pub(crate) const USER: &str = "onek4-bridge";
/// Its state directory.
pub(crate) const STATE_DIR: &str = "/var/lib/1k4-bridge";
/// Its settings.
pub(crate) const CONFIG_FILE: &str = "/etc/1k4-bridge/config.toml";

/// Whether this process may do everything.
#[cfg(unix)]
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The user's number, as text.
#[cfg(unix)]
pub(crate) fn user_number() -> String {
    rustix::process::geteuid().as_raw().to_string()
}

/// Goes on as the system-wide bridge's user, when root: this same command, in this same process.
#[cfg(unix)]
pub(crate) fn become_its_user() -> Result<(), Failure> {
    let owner = match std::fs::metadata(STATE_DIR) {
        Ok(owner) => owner,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = "there is no system-wide bridge on this computer; `sudo 1k4-bridge service install --system` makes one";
            return Err(Failure::new(Exit::Configuration, "no_system_bridge", message));
        }
        Err(error) => return Err(Failure::new(Exit::Failed, "state_dir", format!("{STATE_DIR}: {}", error.kind()))),
    };
    if !is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|error| Failure::new(Exit::Failed, "program", error))?;
    // The groups of root go with it: the standard library clears them when root gives itself up.
    let error = std::process::Command::new(program).args(std::env::args_os().skip(1)).uid(owner.uid()).gid(owner.gid()).exec();
    Err(Failure::new(Exit::Failed, "user", format!("this command could not go on as the user {USER} ({})", error.kind())))
}

/// No.
#[cfg(windows)]
pub(crate) fn is_root() -> bool {
    false
}

/// There is none.
#[cfg(windows)]
pub(crate) fn user_number() -> String {
    String::new()
}

/// There is none.
#[cfg(windows)]
pub(crate) fn become_its_user() -> Result<(), Failure> {
    Err(Failure::new(Exit::Configuration, "no_system_bridge", "there is no system-wide bridge on Windows"))
}
