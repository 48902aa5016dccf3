//! `1k4-lab check`: everything that can be wrong before anybody is served, said at once.
//!
//! The configuration's own mistakes were found when it was read; here are the secrets that lie elsewhere, the prices of today, and,
//! with `--probe`, the providers themselves.

use std::{io::Write, time::SystemTime};

use api_proxy::{Channel, Probe, Tuning};
use serde::Serialize;

use crate::{
    account::sign_in,
    admin::{AdminError, Printer},
    config::{Config, Mistake, providers::Providers},
    providers, vault_command,
};

/// `1k4-lab check …`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Check {
    /// Ask each channel's provider whether it can be reached and takes the secret.
    #[arg(long)]
    pub probe: bool,
    /// Print JSON, one line.
    #[arg(long)]
    pub json: bool,
}

/// What was found, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Whether the Lab can be started like this.
    ok: bool,
    /// What is wrong with the file.
    mistakes: &'a [Mistake],
    /// What is wrong elsewhere, sentence by sentence.
    problems: &'a [String],
    /// What works and could be better, sentence by sentence.
    remarks: &'a [String],
    channels: Vec<Row>,
}

/// One channel.
#[derive(Debug, Serialize)]
struct Row {
    channel: String,
    provider: String,
    models: usize,
    /// `ok`, `missing` or `none`.
    secret: &'static str,
    /// What came of asking it; `null` when it was not asked.
    probe: Option<String>,
}

/// Checks a configuration that could be read, and prints what was found. Whether the Lab can be started like this.
///
/// # Errors
/// When nobody reads what is printed.
pub async fn run(config: &Config, check: Check, out: &mut impl Write) -> Result<bool, AdminError> {
    let mut problems = Vec::new();
    let (channels, mut rows) = secrets(&config.providers, &mut problems).await;
    let catalogue = providers::catalogue(&config.providers);
    match &catalogue {
        Ok(catalogue) => {
            let now = SystemTime::now();
            for (row, planned) in rows.iter_mut().zip(&config.providers.channels) {
                let served = catalogue.models().filter(|model| model.provider == planned.channel.provider);
                let named = planned.channel.models.as_ref();
                let served = served.filter(|model| named.is_none_or(|named| named.iter().any(|name| **name == *model.id)));
                row.models = served.filter(|model| model.is_priced(now)).count();
                if row.models == 0 {
                    problems.push(format!(
                        "the channel {} serves no model that has a price today; name others, or add [[models]]",
                        row.channel
                    ));
                }
            }
        }
        Err(error) => problems.push(error.to_string()),
    }
    match providers::upstream(channels, &config.providers, Tuning::default()) {
        Ok(upstream) if check.probe => {
            for (row, planned) in rows.iter_mut().zip(&config.providers.channels) {
                // One without a secret is not there to be asked.
                let Some(probe) = upstream.probe(&planned.channel.name).await else { continue };
                row.probe = Some(said(probe));
                if probe != Probe::Ok {
                    problems.push(format!("the channel {}: {}", row.channel, said(probe)));
                }
            }
        }
        Ok(_) => {}
        Err(error) => problems.push(error.to_string()),
    }
    problems.extend(sign_in::problems(config).await.iter().map(ToString::to_string));
    let ok = problems.is_empty();
    let remarks: Vec<String> = vault_command::remark(&config.master).into_iter().collect();
    let mut printer = Printer { json: check.json, out };
    if check.json {
        printer.say(&Report { ok, mistakes: &[], problems: &problems, remarks: &remarks, channels: rows }, "")?;
    } else {
        if !rows.is_empty() {
            printer.list(&rows, ["CHANNEL", "PROVIDER", "MODELS", "SECRET", "PROBE"], |row| {
                let probe = row.probe.clone().unwrap_or_else(|| "-".to_owned());
                [row.channel.clone(), row.provider.clone(), row.models.to_string(), row.secret.to_owned(), probe]
            })?;
        }
        for remark in &remarks {
            printer.say(&(), &format!("note: {remark}"))?;
        }
        for problem in &problems {
            printer.say(&(), problem)?;
        }
        if ok {
            let channels = rows.len();
            printer.say(
                &(),
                &format!("the configuration is valid; {channels} {}", if channels == 1 { "channel" } else { "channels" }),
            )?;
        }
    }
    Ok(ok)
}

/// Prints what is wrong with a file that could not be read to its end, in the form that was asked for.
///
/// # Errors
/// When nobody reads what is printed.
pub fn mistakes(mistakes: &[Mistake], out: &mut impl Write) -> Result<(), AdminError> {
    Printer { json: true, out }.say(&Report { ok: false, mistakes, problems: &[], remarks: &[], channels: Vec::new() }, "")
}

/// Every channel whose secret can be had, and a row for each.
async fn secrets(providers: &Providers, problems: &mut Vec<String>) -> (Vec<Channel>, Vec<Row>) {
    let (mut channels, mut rows) = (Vec::new(), Vec::new());
    for planned in &providers.channels {
        let secret = match providers::with_secret(planned).await {
            Ok(channel) => {
                let secret = if channel.secret.is_some() { "ok" } else { "none" };
                channels.push(channel);
                secret
            }
            Err(cause) => {
                problems.push(format!("the channel {} has no secret: {cause}", planned.channel.name));
                "missing"
            }
        };
        let (channel, provider) = (planned.channel.name.to_string(), planned.channel.provider.to_string());
        rows.push(Row { channel, provider, models: 0, secret, probe: None });
    }
    (channels, rows)
}

/// What a probe means and what to do about it.
fn said(probe: Probe) -> String {
    match probe {
        Probe::Ok => "ok".to_owned(),
        Probe::KeyRefused => "refuses the secret; check that it is this provider's and still valid".to_owned(),
        Probe::Unreachable => "cannot be reached; check base_url, the network and ca_file".to_owned(),
        Probe::Timeout => "does not answer in time; check base_url and the network".to_owned(),
        Probe::Unexpected(status) => format!("answers {status} to a list of its models; check base_url"),
    }
}
