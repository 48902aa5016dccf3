//! `run`: the bridge itself, in the foreground, by hand or under systemd.

use std::time::Duration;

use bridge_core::{
    bridge::{Bridge, Handle},
    config::{Config, Pairing},
    control::{LogRing, OwnLines, Server, claim},
    credentials,
    status::LinkState,
};
use clap::{Args, ValueEnum};
use tracing_subscriber::{Layer, filter::LevelFilter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{exit::Exit, failure::Failure, service_manager, signal, status::headline};

/// How long stopping may take in all; the core gives running requests ten seconds of it. Below systemd's own 90 s by far.
const DRAIN: Duration = Duration::from_secs(15);

/// `run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// How much to log on standard error
    #[arg(long, env = "ONEK4_LOG", value_enum, default_value_t = Level::Info)]
    log: Level,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
}

/// Runs until told to stop.
pub(crate) async fn run(config: Config, args: Run) -> Result<(), Failure> {
    let logs = start_log(args.log);
    keep_memory_private();
    let claim = claim(&config.paths)?;
    let is_paired = Pairing::load(&config.paths).map_err(|error| Failure::new(Exit::Configuration, "config", error))?.is_some();
    if !is_paired {
        if service_manager::is_there() {
            let message =
                "this workstation is not paired with a Lab; pair it with `1k4-bridge login`, then start the service again";
            return Err(Failure::new(Exit::Configuration, "not_paired", message));
        }
        tracing::warn!("not paired with a Lab yet: run `1k4-bridge login https://your-lab` in another terminal");
    }
    let socket = claim.socket().to_owned();
    let bridge = Bridge::start(config).map_err(|error| Failure::new(Exit::Configuration, "start", error))?;
    let server = Server::start(claim, bridge.clone(), logs).map_err(|error| {
        Failure::new(
            Exit::Configuration,
            "control_socket",
            format!("the control socket {} cannot be made ({error})", socket.display()),
        )
    })?;
    let telling = tokio::spawn(tell(bridge.clone()));

    tokio::select! {
        () = signal::stop() => tracing::info!("asked to stop"),
        () = server.quit_asked() => tracing::info!("asked to quit"),
        () = bridge.stopped() => tracing::error!("the bridge ended by itself"),
    }
    telling.abort();
    service_manager::stopping();
    server.shutdown().await;
    if tokio::time::timeout(DRAIN, bridge.shutdown()).await.is_err() {
        tracing::warn!("requests were still running and were cut off");
    }
    Ok(())
}

/// Tells the service manager that the bridge is up, how it is, and that it is alive. It is ready when configuration and key have
/// been read, not when the Lab is reached: a machine must boot without its network.
async fn tell(bridge: Handle) {
    let mut status = bridge.status();
    let mut alive = service_manager::watchdog();
    // By then the key is read, or that it cannot be is the state.
    let mut key_read = std::pin::pin!(tokio::time::sleep(credentials::LIMIT));
    let mut is_ready = false;
    let mut said = String::new();
    loop {
        let words = headline(&status.borrow_and_update());
        if words != said {
            service_manager::say(&words);
            tracing::info!("{words}");
            said = words;
        }
        let has_tried = matches!(
            status.borrow().link,
            LinkState::Online { .. } | LinkState::Waiting { .. } | LinkState::Refused { .. } | LinkState::NoCredential { .. }
        );
        if !is_ready && (has_tried || key_read.is_elapsed()) {
            is_ready = true;
            service_manager::ready();
        }
        tokio::select! {
            changed = status.changed() => if changed.is_err() { return },
            () = alive.due() => service_manager::alive(),
            () = key_read.as_mut(), if !is_ready => {}
        }
    }
}

fn start_log(level: Level) -> LogRing {
    let most = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    };
    let ring = LogRing::new();
    // Our own lines only, whatever RUST_LOG says: some of what is linked in would log whole frames.
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = if service_manager::stamps_lines() {
        lines.without_time().with_ansi(false).with_filter(OwnLines).boxed()
    } else {
        lines.with_ansi(uses_colour()).with_filter(OwnLines).boxed()
    };
    tracing_subscriber::registry().with(most).with(lines).with(ring.layer()).init();
    ring
}

fn uses_colour() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prompts pass through this process: no core dump, and no reading of its memory by the user's other programs.
#[cfg(target_os = "linux")]
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

    let limited = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    if limited.and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable)).is_err() {
        tracing::warn!("the system does not let this process forbid core dumps");
    }
}

/// Prompts pass through this process: no core dump.
#[cfg(all(unix, not(target_os = "linux")))]
fn keep_memory_private() {
    use rustix::process::{Resource, Rlimit, setrlimit};

    if setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).is_err() {
        tracing::warn!("the system does not let this process forbid core dumps");
    }
}

/// Windows writes no core dump of a program that did not ask for one.
#[cfg(windows)]
fn keep_memory_private() {}
