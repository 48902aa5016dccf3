//! `cargo xtask gen`: makes again what is committed but made by a program.

mod prices;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;

use crate::{home, packages};

/// The sets of prices, pinned: a newer one is taken by naming it here.
const LITELLM: &str = "litellm==1.109.1";
const GENAI_PRICES: &str = "genai-prices==0.2.3";
const EXTRACT: &str = include_str!("gen/extract.py");

/// `gen`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The cloud models' prices: api-proxy/prices and api-proxy/catalogue.json
    Prices {
        /// Keep the committed sources, and only derive the catalogue from them
        #[arg(long)]
        offline: bool,
    },
}

/// Makes it.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let What::Prices { offline } = args.what;
    if !offline {
        fetch_sources()?;
    }
    let catalogue = prices::derive(&prices::Sources::read(&sources())?)?;
    fs::write(home::root().join(CATALOGUE), catalogue).with_context(|| format!("{CATALOGUE} cannot be written"))?;
    eprintln!("{CATALOGUE} is made.");
    Ok(ExitCode::SUCCESS)
}

/// What is made.
const CATALOGUE: &str = "api-proxy/catalogue.json";

/// What it is made from.
fn sources() -> PathBuf {
    home::root().join("api-proxy").join("prices")
}

/// Fetches both packages, which are read and never run, and writes down what is used of them.
fn fetch_sources() -> anyhow::Result<()> {
    packages::provide(packages::TO_GEN)?;
    // The environment of the clients' tests: whoever comes first makes it.
    let python = home::target().join("venv").join("bin").join("python");
    if !python.exists() {
        succeed(Command::new("python3").args(["-m", "venv"]).arg(home::target().join("venv")))?;
    }
    let wheels = home::target().join("prices");
    fs::create_dir_all(&wheels)?;
    for (package, file) in [(LITELLM, "litellm-"), (GENAI_PRICES, "genai_prices-")] {
        for old in wheels_in(&wheels, file)? {
            fs::remove_file(old)?;
        }
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
        ]);
        succeed(pip.arg(&wheels).arg(package))?;
    }
    let today = said(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?;
    let mut extract = Command::new(&python);
    extract.args(["-c", EXTRACT]).arg(only(&wheels, "litellm-")?).arg(only(&wheels, "genai_prices-")?);
    succeed(extract.arg(sources()).arg(today.trim()))
}

fn only(folder: &Path, beginning: &str) -> anyhow::Result<PathBuf> {
    match <[PathBuf; 1]>::try_from(wheels_in(folder, beginning)?) {
        Ok([wheel]) => Ok(wheel),
        Err(found) => bail!("pip left {} files {beginning}* in {}, not one", found.len(), folder.display()),
    }
}

fn wheels_in(folder: &Path, beginning: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(beginning) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("{} cannot be started", command.get_program().display()))?;
    ensure!(status.success(), "{} failed ({status}); the reason stands above", command.get_program().display());
    Ok(())
}

fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{} failed ({})", command.get_program().display(), output.status);
    Ok(String::from_utf8(output.stdout)?)
}
