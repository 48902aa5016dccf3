//! `1k4-bridge`: the bridge without a screen, and one verb for every action of the tray.
//!
//! The verbs translate and decide nothing: all but `login`, `logout`, `run`, `doctor` and `service` are one request to the running
//! bridge's control socket. What the exit codes mean stands in [`exit`].

mod args;
mod clock;
mod doctor;
mod exit;
mod failure;
mod logs;
mod models;
mod output;
mod pairing;
mod pause;
mod policy;
mod run;
mod service;
mod service_manager;
mod signal;
mod status;
mod system;

use std::process::ExitCode;

use args::{Ask, Cli, Verb};
use bridge_core::{config::Config, control::Client};
use clap::{CommandFactory, Parser};
use exit::Exit;
use failure::Failure;
use output::Output;

fn main() -> ExitCode {
    // A panic's message may hold what the program was working on; its place says enough.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => eprintln!("1k4-bridge: a part failed at {place}; please report this line"),
        None => eprintln!("1k4-bridge: a part failed; please report this"),
    }));
    let cli = Cli::parse();
    let output = Output::new(cli.global.json);
    match carry_out(cli, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(output);
            failure.exit.into()
        }
    }
}

fn carry_out(cli: Cli, output: Output) -> Result<(), Failure> {
    let Cli { global, verb } = cli;
    if global.system && !matches!(verb, Verb::Service(_) | Verb::Completions { .. }) {
        system::become_its_user()?;
    }
    let overrides = global.overrides();
    let read = |overrides| Config::load(overrides, |name| std::env::var_os(name));
    let load = |overrides| read(overrides).map_err(|error| Failure::new(Exit::Configuration, "config", error));
    match verb {
        Verb::Completions { shell } => {
            print_completions(shell);
            Ok(())
        }
        Verb::Service(args) => service::run(&args, &global, output),
        Verb::Login(args) => {
            let config = load(args.overrides(overrides)?)?;
            block_on(pairing::login(&config, &args.lab, output))
        }
        Verb::Logout => block_on(pairing::logout(&load(overrides)?, output)),
        Verb::Run(args) => {
            let config = load(overrides)?;
            // A workstation may have a hundred cores, and the bridge only moves bytes.
            let workers = std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4));
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            finish(runtime.worker_threads(workers).enable_all(), run::run(config, args))
        }
        Verb::Doctor => block_on(doctor::run(read(overrides), output)),
        Verb::Ask(verb) => {
            let client = Client::new(&load(overrides)?.paths);
            block_on(ask(&client, verb, output))
        }
    }
}

/// The verbs that are one request to the running bridge.
async fn ask(client: &Client, verb: Ask, output: Output) -> Result<(), Failure> {
    match verb {
        Ask::Status(args) => status::show(client, args, output).await,
        Ask::Pause(args) => pause::pause(client, args, output).await,
        Ask::Resume => pause::resume(client, output).await,
        Ask::Models(args) => models::run(client, args, output).await,
        Ask::Policy(args) => policy::run(client, args, output).await,
        Ask::Activity => status::activity(client, output).await,
        Ask::Logs(args) => logs::show(client, args, output).await,
        Ask::Retry => pause::retry(client, output).await,
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    finish(tokio::runtime::Builder::new_current_thread().enable_all(), work)
}

fn finish(runtime: &mut tokio::runtime::Builder, work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime.build().map_err(|error| {
        Failure::new(Exit::Temporary, "runtime", format!("the system gives no resources to start ({})", error.kind()))
    })?;
    let result = runtime.block_on(work);
    // A name server or a keyring that does not answer holds a thread; nobody waits for it.
    runtime.shutdown_background();
    result
}

fn print_completions(shell: clap_complete::Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "1k4-bridge", &mut std::io::stdout());
}
