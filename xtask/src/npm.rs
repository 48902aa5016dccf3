//! Packages of npm's: brought once for each lock file.

use std::{fs, path::Path, process::Command};

use crate::home;

/// Brings the packages that a folder's lock file names, unless they are there already. Nothing of theirs is run.
pub(crate) fn provide(folder: &Path) -> anyhow::Result<()> {
    let (wanted, installed) = (folder.join("package-lock.json"), folder.join("node_modules").join("package-lock.json"));
    if differs(&wanted, &installed) {
        // `npm ci` would refuse a lock file that does not name the optional packages of every other system. Versions and hashes are
        // the lock file's this way too.
        let words = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"];
        home::succeed(Command::new("npm").current_dir(folder).args(words))?;
        fs::copy(&wanted, &installed)?;
    }
    Ok(())
}

/// Whether what was installed is not what is wanted now.
pub(crate) fn differs(wanted: &Path, installed: &Path) -> bool {
    fs::read(wanted).ok() != fs::read(installed).ok()
}
