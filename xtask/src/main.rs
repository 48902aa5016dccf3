//! `cargo xtask run | test | bench`: the two commands of the README and their kin.
//!
//! Each works on a fresh Debian or Ubuntu that has Rust and nothing else: what is missing is installed, and said.

mod bench;
mod browser;
mod clients;
mod cloud;
mod curl;
mod r#gen;
mod home;
mod npm;
mod packages;
mod run;
mod service;
mod stack;
mod stop;
mod suite;
mod tally;
mod web;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs, tests and measures 1K4.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a Lab and a bridge on this machine, pair them, and say how to ask a model
    Run(run::Args),
    /// Install what the tests need and run all of them
    Test(suite::Args),
    /// Make again what is committed but made by a program
    Gen(r#gen::Args),
    /// Make the pictures of the main screens again, in docs/screens
    Screens(browser::Screens),
    /// Measure the way through the Lab beside the direct one, in a release build
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().verb {
        Verb::Run(args) => run::run(&args),
        Verb::Test(args) => suite::run(&args),
        Verb::Gen(args) => r#gen::run(&args),
        Verb::Screens(args) => browser::screens(&args),
        Verb::Bench(args) => bench::run(&args),
    };
    match done {
        Ok(code) => code,
        // Whoever pressed Ctrl-C knows why it ended.
        Err(error) if error.is::<stop::Stopped>() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
