//! What must be on the machine beside Rust: found, or installed and said.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};

/// Something that is needed, how to see whether it is there, and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    sign: Sign,
    package: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Sign {
    Program(&'static str),
    PythonModule(&'static str),
}

const fn program(name: &'static str, package: &'static str) -> Need {
    Need { sign: Sign::Program(name), package }
}

/// What building and running need.
pub(crate) const TO_RUN: &[Need] = &[program("cc", "gcc"), program("curl", "curl")];

/// What the tests need beyond that: a keyring, other people's clients, and tools to look from outside.
pub(crate) const TO_TEST: &[Need] = &[
    program("dbus-run-session", "dbus"),
    program("gnome-keyring-daemon", "gnome-keyring"),
    program("secret-tool", "libsecret-tools"),
    program("gdbus", "libglib2.0-bin"),
    program("openssl", "openssl"),
    program("ss", "iproute2"),
    program("setpriv", "util-linux"),
    program("python3", "python3"),
    Need { sign: Sign::PythonModule("ensurepip"), package: "python3-venv" },
    program("node", "nodejs"),
    program("npm", "npm"),
];

/// What looking at pages needs beyond that: a browser, with letters for every script that an answer may be in.
pub(crate) const TO_BROWSE: &[Need] = &[program("node", "nodejs"), program("npm", "npm"), program("chromium", "chromium")];

/// What measuring needs: somebody to be compared with, and a certificate for both.
pub(crate) const TO_BENCH: &[Need] = &[program("nginx", "nginx-light"), program("openssl", "openssl")];

/// What making the prices again needs: pip, to fetch packages that are read and not run.
pub(crate) const TO_GEN: &[Need] =
    &[program("python3", "python3"), Need { sign: Sign::PythonModule("ensurepip"), package: "python3-venv" }];

impl Need {
    fn is_met(&self) -> bool {
        match self.sign {
            Sign::Program(name) => is_on_path(name),
            Sign::PythonModule(name) => succeeds(Command::new("python3").args(["-c", &format!("import {name}")])),
        }
    }
}

/// Installs what is missing of `needs` with apt-get, or names it where that is not possible.
pub(crate) fn provide(needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<&str> = needs.iter().filter(|need| !need.is_met()).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    let is_root = rustix::process::geteuid().is_root();
    if !is_on_path("apt-get") {
        bail!("these are missing: {names} (their names in Debian); install them with this system's package manager");
    }
    if !is_root && !is_on_path("sudo") {
        bail!("these Debian packages are missing, and only root can install them: apt-get install {names}");
    }
    eprintln!("Installing these Debian packages: {names}");
    apt_get(is_root, &["update", "--quiet"])?;
    let install: Vec<&str> =
        ["install", "--yes", "--quiet", "--no-install-recommends"].into_iter().chain(missing.iter().copied()).collect();
    apt_get(is_root, &install)?;
    let still: Vec<&str> = needs.iter().filter(|need| !need.is_met()).map(|need| need.package).collect();
    if !still.is_empty() {
        bail!("apt-get brought no working {}; see what it said above", still.join(" "));
    }
    Ok(())
}

fn apt_get(is_root: bool, words: &[&str]) -> anyhow::Result<()> {
    let mut command = if is_root {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    } else {
        let mut command = Command::new("sudo");
        command.args(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command
    };
    // apt-get's own words go to standard error: standard output may be a program's to read.
    let status = command.args(words).stdout(std::io::stderr()).status().context("apt-get cannot be started")?;
    if !status.success() {
        bail!("`apt-get {}` failed ({status}); the reason stands above", words.join(" "));
    }
    Ok(())
}

/// Whether a program of that name can be started. The places of administrators' tools count, as a user's `PATH` may lack them.
pub(crate) fn is_on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).any(|dir| Path::new(&dir).join(name).is_file())
}

fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_what_is_not_is_not() {
        assert!(program("sh", "dash").is_met());
        assert!(!program("no-such-program-1k4", "none").is_met());
        assert!(!Need { sign: Sign::PythonModule("no_such_module_1k4"), package: "none" }.is_met());
    }
}
