//! The command line: every verb, on one page.

use std::path::PathBuf;

use bridge_core::config::Overrides;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::{exit, logs, models, pairing, pause, policy, run, service, status, system};

/// Shares the models of this workstation with its owner's 1K4 Lab.
#[derive(Debug, Parser)]
#[command(name = "1k4-bridge", version, after_help = exit::HELP, arg_required_else_help = true, propagate_version = true)]
pub(crate) struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What holds for every verb.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Read the configuration from this file
    #[arg(long, global = true, env = "ONEK4_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Keep the pairing, the lock and the policy in this directory
    #[arg(long, global = true, env = "ONEK4_STATE_DIR", value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Speak to the system-wide bridge, the one that the system unit runs
    #[arg(long, global = true, conflicts_with_all = ["config", "state_dir"])]
    pub(crate) system: bool,
}

impl Global {
    /// What of the configuration the command line decides.
    pub(crate) fn overrides(&self) -> Overrides {
        if !self.system {
            return Overrides { config_file: self.config.clone(), state_dir: self.state_dir.clone(), ..Overrides::default() };
        }
        Overrides {
            config_file: Some(system::CONFIG_FILE.into()),
            state_dir: Some(system::STATE_DIR.into()),
            ..Overrides::default()
        }
    }
}

/// Every verb.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Pair this workstation with a Lab
    Login(pairing::Login),
    /// Forget the pairing and remove the device's key
    Logout,
    /// Hold the link, in the foreground
    Run(run::Run),
    /// A verb that is one request.
    #[command(flatten)]
    Ask(Ask),
    /// Look for what is wrong, and say what to do about it
    Doctor,
    /// Keep the bridge running under systemd
    Service(service::ServiceArgs),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// The verbs that are one request to the running bridge.
#[derive(Debug, Subcommand)]
pub(crate) enum Ask {
    /// Show the state of the link, of Ollama and of the work
    Status(status::Show),
    /// Take no more work
    Pause(pause::For),
    /// Take work again
    Resume,
    /// List, download, remove or unload Ollama's models
    Models(models::Models),
    /// Show or change what is shared
    Policy(policy::PolicyArgs),
    /// Show finished requests: when, which model, how long; never their content
    Activity,
    /// Show the bridge's log
    Logs(logs::Logs),
    /// Dial the Lab at once
    Retry,
}
