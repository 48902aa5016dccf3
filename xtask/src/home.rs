//! The workspace: where it is, and its programs.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// How the programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build.
    Dev,
    /// As it is shipped.
    Release,
}

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    // xtask is run where it was built.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// A folder for what is made on the way and may be thrown away.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The workspace's programs by name, freshly built.
pub(crate) struct Programs(HashMap<String, PathBuf>);

impl Programs {
    /// Builds all of them. What cargo says goes to standard error.
    pub(crate) fn build(profile: Profile) -> anyhow::Result<Self> {
        let mut cargo = cargo();
        // The same selection as the tests', so that no dependency is built twice with different features.
        cargo.args(["build", "--workspace", "--exclude", "xtask", "--bins", "--message-format", "json-render-diagnostics"]);
        if profile == Profile::Release {
            cargo.arg("--release");
        }
        let mut building = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cargo cannot be started")?;
        let mut programs = HashMap::new();
        for line in building.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
            let Ok(message) = serde_json::from_str::<Value>(&line?) else { continue };
            if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str()) {
                programs.insert(name.to_owned(), PathBuf::from(path));
            }
        }
        if !building.wait()?.success() {
            bail!("the programs could not be built: the reason stands above");
        }
        Ok(Self(programs))
    }

    /// The path of one.
    pub(crate) fn path(&self, name: &str) -> anyhow::Result<&Path> {
        self.0.get(name).map(PathBuf::as_path).with_context(|| format!("the workspace has no program `{name}`"))
    }
}

/// Runs a command that must succeed.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    ensure!(status.success(), "{} failed ({status}); the reason stands above", command.get_program().display());
    Ok(())
}
