//! `service`: keeps the bridge running under systemd, for this user or for the whole system.

mod systemd;

use clap::{Args, Subcommand};
use serde::Serialize;

use self::systemd::{Scope, Unit};
use crate::{
    args::Global,
    exit::Exit,
    failure::Failure,
    output::{Ink, Output, Tone},
};

/// `service`
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum Verb {
    /// Write the unit, enable it and start it; with --system for the whole computer
    Install,
    /// Stop the service and remove its unit; settings and pairing stay
    Uninstall,
    /// Show how the service is
    Status,
}

/// What was done, and what is left to do.
#[derive(Debug, Serialize)]
struct Report {
    scope: Scope,
    unit: std::path::PathBuf,
    state: &'static str,
    next: Vec<String>,
}

/// Does what `args` say.
pub(crate) fn run(args: &ServiceArgs, global: &Global, output: Output) -> Result<(), Failure> {
    let scope = if global.system { Scope::System } else { Scope::User };
    let unit = Unit::locate(scope)?;
    match args.verb {
        Verb::Install => output.print(&install(&unit, global)?, text),
        Verb::Uninstall => {
            unit.remove()?;
            output.print(&Report { scope, unit: unit.path, state: "removed", next: Vec::new() }, text)
        }
        Verb::Status => {
            let state = unit.state()?;
            let next =
                if state == "not installed" { vec![format!("install it: `{}`", scope.install_command())] } else { Vec::new() };
            output.print(&Report { scope, unit: unit.path, state, next }, text)?;
            if state == "running" { Ok(()) } else { Err(Failure::already_said(Exit::NotRunning)) }
        }
    }
}

fn install(unit: &Unit, global: &Global) -> Result<Report, Failure> {
    let scope = unit.scope;
    let mut next = Vec::new();
    let is_paired = match scope {
        Scope::User => systemd::user_is_paired(global)?,
        Scope::System => systemd::prepare_system()?,
    };
    unit.write(global)?;
    let state = if is_paired {
        unit.enable_and_start()?;
        "running"
    } else {
        unit.enable()?;
        next.push(match scope {
            Scope::User => "pair this workstation: `1k4-bridge login https://your-lab`".to_owned(),
            Scope::System => {
                "pair this workstation: `sudo 1k4-bridge login --system https://your-lab --insecure-file-store`".to_owned()
            }
        });
        next.push(format!("then start it: `{}`", scope.install_command()));
        "enabled"
    };
    if scope == Scope::User && !systemd::lingers() {
        next.push("to have it run while you are not logged in: `loginctl enable-linger`".to_owned());
    }
    Ok(Report { scope, unit: unit.path.clone(), state, next })
}

fn text(ink: Ink, report: &Report) -> String {
    let tone = if report.state == "running" { Tone::Good } else { Tone::Caution };
    let mut text = format!("{} the service is {} ({})\n", ink.paint(tone, "●"), report.state, report.unit.display());
    for step in &report.next {
        text.push_str(&format!("  {} {step}\n", ink.paint(Tone::Strong, "->")));
    }
    text
}
