//! `1k4-lab`: parse, configure, build, run, map the result to an exit code.

use std::{
    future::Future,
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use lab_server::{
    Config,
    admin::{self, Admin},
    app::{self, App},
    audit::{self, Audit},
    backup::{self, BackupCommand},
    check::{self, Check},
    config::{ConfigError, Overrides},
    store::Store,
    vault_command::{self, VaultCommand},
};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// The Lab: gives every client of OpenAI, Anthropic and Ollama the models on your own workstations.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 65 an operation log is not what was written (`audit verify`), 78 wrong configuration
/// (also what `check` finds).
#[derive(Parser)]
#[command(name = "1k4-lab", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    overrides: Overrides,
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Run the Lab until interrupted. Brings the database up to date first.
    Serve {
        /// Once it listens, print one line of JSON: addr, origin, ca_file, admin_addr.
        #[arg(long)]
        json: bool,
    },
    /// Bring the database up to date and leave.
    Migrate,
    /// Say everything that is wrong with the configuration: settings, secrets, prices and, if asked to, providers.
    Check(Check),
    /// Users, projects, keys, credits and devices; works while the Lab runs.
    Admin(Admin),
    /// Whether the operation logs are what was written; works while the Lab runs.
    Audit(Audit),
    /// The keys that everything is sealed under; works while the Lab runs.
    Vault(VaultCommand),
    /// Encrypted copies of the Lab, and the way back.
    Backup(BackupCommand),
}

/// `EX_DATAERR` of sysexits.
const NOT_SOUND: u8 = 65;
/// `EX_CONFIG` of sysexits.
const WRONG_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    // A panic's message may hold what the program was working on; its place says enough.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => eprintln!("1k4-lab: a part failed at {place}; please report this line"),
        None => eprintln!("1k4-lab: a part failed; please report this"),
    }));
    let cli = Cli::parse();
    let config = match Config::load(&cli.overrides) {
        Ok(config) => config,
        Err(error) => {
            if let (Command::Check(Check { json: true, .. }), ConfigError::Invalid { mistakes, .. }) = (&cli.command, &error)
                && let Err(error) = check::mistakes(mistakes, &mut std::io::stdout())
            {
                eprintln!("1k4-lab: {error}");
            }
            // One mistake of the file stands on each line.
            error.to_string().lines().for_each(|line| eprintln!("1k4-lab: {line}"));
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    match run(cli.command, config) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("1k4-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(command: Command, config: Config) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { json } => serve(config, json).await?,
        Command::Migrate => migrated(&config).await?.close().await?,
        Command::Check(check) => {
            if !check::run(&config, check, &mut std::io::stdout()).await? {
                return Ok(ExitCode::from(WRONG_CONFIGURATION));
            }
        }
        Command::Admin(admin) => {
            let store = migrated(&config).await?;
            let result = admin::run(&store, admin, &config, &mut std::io::stdout()).await;
            store.close().await?;
            result?;
        }
        Command::Vault(vault) => vault_command::run(&config, vault, &mut std::io::stdout()).await?,
        Command::Backup(backup) => backup::run(&config, backup, &mut std::io::stdout()).await?,
        Command::Audit(audit) => {
            let store = migrated(&config).await?;
            let sound = audit::run(&store, &config, audit, &mut std::io::stdout()).await;
            store.close().await?;
            if !sound? {
                return Ok(ExitCode::from(NOT_SOUND));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config, json: bool) -> anyhow::Result<()> {
    log_to_stderr();
    keep_memory_private();
    if let Some(remark) = vault_command::remark(&config.master) {
        tracing::warn!(target: "lab_server", "{remark}");
    }
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}; is another program there?", config.listen))?;
    let addr = listener.local_addr()?;
    let app = App::build(&config, addr).await?;
    let ca_file = app.ca_pem.is_some().then(|| config.data_dir.join("ca.pem"));
    announce(addr, app.admin_addr, app.origin.as_str(), ca_file, json)?;
    app::serve(app, listener, interrupted()?).await?;
    Ok(())
}

fn announce(
    addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    origin: &str,
    ca_file: Option<PathBuf>,
    json: bool,
) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    if json {
        let line = serde_json::json!({ "addr": addr, "origin": origin, "ca_file": ca_file, "admin_addr": admin_addr });
        writeln!(out, "{line}")?;
    } else {
        writeln!(out, "1k4-lab listens on {addr} and is known as {origin}")?;
        if let Some(addr) = admin_addr {
            writeln!(out, "its operator finds /metrics and /readyz on {addr}")?;
        }
        if let Some(file) = ca_file {
            writeln!(out, "its certificate is of its own test CA; give clients {}", file.display())?;
        }
    }
    out.flush()
}

/// Prompts pass through this process: no core dump, and no reading of its memory by its user's other programs.
#[cfg(target_os = "linux")]
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    if limited.and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable)).is_err() {
        tracing::warn!(target: "lab_server", "the system does not let this process forbid core dumps");
    }
}

/// Elsewhere the Lab is run to be tried out.
#[cfg(not(target_os = "linux"))]
fn keep_memory_private() {}

async fn migrated(config: &Config) -> anyhow::Result<Store> {
    Ok(Store::of(config).await?)
}

/// Ends at SIGINT or SIGTERM (Windows: Ctrl-C).
#[cfg(unix)]
fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends at SIGINT or SIGTERM (Windows: Ctrl-C).
#[cfg(windows)]
fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = tokio::signal::windows::ctrl_c()?;
    Ok(async move {
        interrupt.recv().await;
    })
}

/// Only what this house says: dependencies log frames and values, and `RUST_LOG` is not read.
fn log_to_stderr() {
    let ours = Targets::new()
        .with_target("lab_server", tracing::Level::INFO)
        .with_target("api_proxy", tracing::Level::INFO)
        .with_target("wire", tracing::Level::INFO);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry().with(ours).with(lines).init();
}
