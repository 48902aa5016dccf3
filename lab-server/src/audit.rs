//! `1k4-lab audit`: whether the operation logs are what was written.
//!
//! It reads the database and the file of signed heads, needs the Lab's own key and nobody else's, and works while the Lab runs.

use std::{io::Write, path::PathBuf};

use wire::ProjectId;

use crate::{
    admin::{AdminError, Printer},
    config::Config,
    lab::operations::{self, HeadsError, Problem, Report},
    store::Store,
};

/// `1k4-lab audit …`.
#[derive(Debug, clap::Args)]
pub struct Audit {
    /// What to do.
    #[command(subcommand)]
    pub verb: AuditVerb,
}

/// What can be done with operation logs.
#[derive(Debug, clap::Subcommand)]
pub enum AuditVerb {
    /// Check hashes, links, numbers and signed heads of every log, and name the first bad line. Exit code 65 when there is one.
    Verify {
        /// Of one project only, by its id.
        #[arg(long, value_name = "ID")]
        project: Option<ProjectId>,
        /// The file of signed heads, or a copy of it that was kept elsewhere (default: the configuration's).
        #[arg(long, value_name = "FILE")]
        heads: Option<PathBuf>,
        /// Print JSON, one line.
        #[arg(long)]
        json: bool,
    },
}

/// Why the logs could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The database or the file.
    #[error(transparent)]
    Heads(#[from] HeadsError),
    /// Nobody reads what is printed.
    #[error(transparent)]
    Output(#[from] AdminError),
}

/// Does what was asked and prints the result to `out`. Whether all that was looked at is sound.
///
/// # Errors
/// When the database or the file cannot be read. A log that is not sound is no error.
pub async fn run(store: &Store, config: &Config, audit: Audit, out: &mut (impl Write + Send)) -> Result<bool, AuditError> {
    let AuditVerb::Verify { project, heads, json } = audit.verb;
    // A file that was named must be there; a Lab that never ran has none.
    let file = heads.or_else(|| Some(config.audit_heads.clone()).filter(|file| file.exists()));
    let report = operations::verify(store, project, file.as_deref()).await?;
    let mut printer = Printer { json, out };
    printer.say(&report, &text(&report))?;
    Ok(report.sound)
}

/// What whoever restored the Lab does about heads that are newer than its data.
const RESTORED: &str = "after a restore: keep the file of heads under another name, beside the backup, and start the lab with a new one; \
                        what was cut off before is then no longer told from what the backup did not have";

fn text(report: &Report) -> String {
    let mut lines: Vec<String> = report.findings.iter().map(operations::Finding::sentence).collect();
    for log in &report.logs {
        lines.push(match (log.ended, log.rows - log.signed_to) {
            (true, _) => format!("{}: deleted by its owner", log.project),
            (false, 0) => format!("{}: {} lines as they were written, all of them signed for", log.project, log.rows),
            (false, unsigned) => {
                format!("{}: {} lines as they were written, the last {unsigned} not signed for yet", log.project, log.rows)
            }
        });
    }
    if report.findings.iter().any(|finding| matches!(finding.problem, Problem::CutOff | Problem::Rewritten)) {
        lines.push(RESTORED.to_owned());
    }
    lines.push(match report.findings.len() {
        0 => format!("sound; heads are signed by {}", report.key),
        bad => format!("not sound: {bad} found; heads are signed by {}", report.key),
    });
    lines.join("\n")
}
