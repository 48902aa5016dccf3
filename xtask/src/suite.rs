//! `cargo xtask test`: everything that can be checked without a screen or a second machine, in one command.

use std::{
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use crate::{
    browser, clients,
    home::{self, Profile, Programs},
    packages,
    tally::{self, Counts, Tally},
    web,
};

/// `test`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also what takes long: tests marked as slow, and the dependencies' licences and advisories
    #[arg(long)]
    full: bool,
    /// Only tests with this in their names; the checks of form are left out
    filter: Option<String>,
}

/// Takes every step, whatever became of those before, and sums up.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    packages::provide(packages::TO_RUN)?;
    packages::provide(packages::TO_TEST)?;
    let mut tally = Tally::default();
    if args.filter.is_none() {
        check_form(&mut tally, args.full);
        // Before the programs, which carry it.
        web::check(&mut tally);
    }
    tally.step("Rust tests", || tally::counted(&mut rust_tests(args), tally::libtest));
    tally.step("release programs", || {
        Programs::build(Profile::Release)?;
        tally::counted(&mut programs_tests(args), tally::libtest)
    });
    if args.full {
        tally.step("long journeys", || tally::counted(&mut long_journeys(), tally::libtest));
    }
    browser::check(&mut tally, args.filter.as_deref(), args.full);
    clients::check(&mut tally, clients::Asked { filter: args.filter.as_deref(), full: args.full });
    Ok(if tally.conclude() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_form(tally: &mut Tally, full: bool) {
    tally.step("formatting", || tally::holds(home::cargo().args(["fmt", "--all", "--check"])));
    tally
        .step("lints", || tally::holds(home::cargo().args(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])));
    tally.step("documentation", || {
        tally::holds(
            home::cargo()
                .args(["doc", "--workspace", "--no-deps", "--document-private-items"])
                .env("RUSTDOCFLAGS", "--deny warnings"),
        )
    });
    check_dependencies(tally, full);
}

fn rust_tests(args: &Args) -> Command {
    let mut cargo = home::cargo();
    cargo.args(["test", "--workspace", "--no-fail-fast"]).args(&args.filter);
    cargo
}

/// What is true of the shipped programs only: no trace of a prompt, no listener, sleep, other networks.
fn programs_tests(args: &Args) -> Command {
    let mut cargo = home::cargo();
    cargo.args(["test", "--package", "journeys", "--test", "programs", "--"]).args(&args.filter).arg("--ignored");
    // They measure times and stop processes; side by side they would measure each other.
    cargo.args(["--test-threads", "1"]);
    if !args.full {
        cargo.args(["--skip", "full_"]);
    }
    cargo
}

/// Thousands of streams and tens of thousands of cuts.
fn long_journeys() -> Command {
    let mut cargo = home::cargo();
    cargo.args(["test", "--package", "journeys", "--test", "journeys", "--", "--ignored", "full_", "--test-threads", "1"]);
    cargo
}

/// cargo-deny takes minutes to build, so it is fetched only when everything is asked for, and used whenever it is there.
fn check_dependencies(tally: &mut Tally, full: bool) {
    const LICENCES: &str = "dependencies";
    const ADVISORIES: &str = "advisories";
    let Some(deny) = cargo_deny(full) else {
        return tally.skip(LICENCES, "cargo-deny is not installed; `cargo xtask test --full` installs it");
    };
    let check = |what: &[&str]| {
        let mut check = Command::new(&deny);
        check.current_dir(home::root()).arg("check").args(what);
        check
    };
    tally.step(LICENCES, || tally::holds(&mut check(&["bans", "licenses", "sources"])));
    if full {
        // The list of advisories comes from outside, and a machine without a way there cannot be blamed for a dependency.
        let fetched = Command::new(&deny).current_dir(home::root()).args(["fetch", "db"]).stdin(Stdio::null()).status();
        if fetched.is_ok_and(|status| status.success()) {
            tally.step(ADVISORIES, || tally::holds(&mut check(&["advisories"])));
        } else {
            tally.skip(ADVISORIES, "the advisory database cannot be fetched from here");
        }
    }
}

fn cargo_deny(may_install: bool) -> Option<PathBuf> {
    let works = |program: &PathBuf| {
        let asked =
            Command::new(program).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.is_ok_and(|status| status.success())
    };
    let own = home::target().join("tools");
    let places = [PathBuf::from("cargo-deny"), own.join("bin").join("cargo-deny")];
    if let Some(found) = places.iter().find(|place| works(place)) {
        return Some(found.clone());
    }
    if !may_install {
        return None;
    }
    println!("\nInstalling cargo-deny {CARGO_DENY} into {} …", own.display());
    let mut install = home::cargo();
    install.args(["install", "cargo-deny", "--version", CARGO_DENY, "--locked", "--debug", "--root"]).arg(&own);
    // A failure shows as a skipped step, with what cargo said above it.
    let installed = install.stdin(Stdio::null()).status().is_ok_and(|status| status.success());
    places.into_iter().next_back().filter(|_| installed)
}

/// The version whose configuration format `deny.toml` is written in.
const CARGO_DENY: &str = "0.20.2";

/// One check that passed or not, as a step of the clients' suites sees it.
pub(crate) fn check(holds: bool, what: &str) -> Counts {
    println!("{} {what}", if holds { "ok    " } else { "FAILED" });
    Counts::of(holds)
}
