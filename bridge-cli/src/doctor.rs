//! `doctor`: looks at everything between a model on this computer and the Lab, and says what to do about what is wrong.
//!
//! [`probe`] looks, [`diagnose`] judges: the judging takes values and returns rows, so that every row has a test.

mod diagnose;
mod probe;

use bridge_core::config::{Config, ConfigError};
use serde::Serialize;

use self::diagnose::{Row, State};
use crate::{
    exit::Exit,
    failure::Failure,
    output::{Ink, Output, Tone},
};

#[derive(Serialize)]
struct Report {
    /// Whether nothing failed.
    ok: bool,
    checks: Vec<Row>,
}

/// Looks, judges, prints. A configuration that cannot be read is the first finding, and the last one.
pub(crate) async fn run(config: Result<Config, ConfigError>, output: Output) -> Result<(), Failure> {
    let checks = match config {
        Err(error) => vec![diagnose::broken_configuration(&error)],
        Ok(config) => diagnose::rows(&probe::look(&config).await),
    };
    let report = Report { ok: checks.iter().all(|row| row.state != State::Fail), checks };
    output.print(&report, text)?;
    if report.ok { Ok(()) } else { Err(Failure::already_said(Exit::Problems)) }
}

fn text(ink: Ink, report: &Report) -> String {
    let width = report.checks.iter().map(|row| row.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in &report.checks {
        let (tone, mark) = match row.state {
            State::Pass => (Tone::Good, "ok  "),
            State::Warn => (Tone::Caution, "look"),
            State::Fail => (Tone::Bad, "FAIL"),
            State::Skip => (Tone::Dim, "-   "),
        };
        text.push_str(&format!("{}  {:<width$}  {}\n", ink.paint(tone, mark), row.check, row.detail));
        if let Some(action) = &row.action {
            text.push_str(&format!("      {:width$}  {} {action}\n", "", ink.paint(Tone::Strong, "->")));
        }
    }
    let problems = report.checks.iter().filter(|row| row.state == State::Fail).count();
    text.push_str(&match problems {
        0 => ink.paint(Tone::Good, "No problems found."),
        1 => ink.paint(Tone::Bad, "1 problem found."),
        n => ink.paint(Tone::Bad, format_args!("{n} problems found.")),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_action_stands_under_what_it_mends() {
        let row =
            |check, state, action: Option<&str>| Row { check, state, detail: "detail".into(), action: action.map(str::to_owned) };
        let report =
            Report { ok: false, checks: vec![row("tls", State::Pass, None), row("ollama", State::Fail, Some("start it"))] };
        assert_eq!(
            text(Ink::Plain, &report),
            "ok    tls     detail\nFAIL  ollama  detail\n              -> start it\n1 problem found."
        );
    }
}
