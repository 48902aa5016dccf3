//! Asking a server, with the same tool that the printed line uses.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

/// An answer: its status and its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// What to ask.
#[derive(Default)]
pub(crate) struct Question<'a> {
    pub(crate) url: &'a str,
    /// An API key. It travels by standard input: arguments can be read by every user of the machine.
    pub(crate) key: Option<&'a str>,
    /// The CA to trust.
    pub(crate) ca_file: Option<&'a Path>,
    /// Sent with POST where there is one.
    pub(crate) json: Option<&'a str>,
}

/// Asks; `None` when nobody answers.
pub(crate) fn ask(question: &Question<'_>) -> anyhow::Result<Option<Answer>> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "5", "--noproxy", "*", "--write-out", "\n%{http_code}", "--config", "-"]);
    if let Some(ca_file) = question.ca_file {
        curl.arg("--cacert").arg(ca_file);
    }
    if let Some(json) = question.json {
        curl.args(["--header", "content-type: application/json", "--data-raw", json]);
    }
    let mut asking = curl
        .arg(question.url)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("curl cannot be started")?;
    if let (Some(mut config), Some(key)) = (asking.stdin.take(), question.key) {
        writeln!(config, "header = \"Authorization: Bearer {key}\"")?;
    }
    let answer = asking.wait_with_output()?;
    if !answer.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&answer.stdout);
    let (body, status) = text.rsplit_once('\n').unwrap_or_default();
    Ok(Some(Answer { status: status.parse().unwrap_or(0), body: body.to_owned() }))
}
