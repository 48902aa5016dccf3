//! `logs`: the running bridge's own last lines.

use bridge_core::control::{Client, Follow, LogLine};
use clap::Args;

use crate::{
    clock,
    failure::Failure,
    output::{Ink, Output, Tone},
};

/// `logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Stay and print new lines as they come
    #[arg(long, short)]
    follow: bool,
}

/// Prints them.
pub(crate) async fn show(client: &Client, args: Logs, output: Output) -> Result<(), Failure> {
    let follow = if args.follow { Follow::Yes } else { Follow::No };
    let mut lines = client.logs(follow).await?;
    while let Some(line) = lines.next().await? {
        output.print(&line, text)?;
    }
    Ok(())
}

fn text(ink: Ink, line: &LogLine) -> String {
    let tone = match line.level.as_str() {
        "error" => Tone::Bad,
        "warn" => Tone::Caution,
        _ => Tone::Dim,
    };
    let level = ink.paint(tone, format_args!("{:<5}", line.level));
    let fields: String =
        line.fields.iter().map(|(name, value)| format!(" {name}={}", value.as_str().unwrap_or_default())).collect();
    format!("{} {level} {}{}", ink.paint(Tone::Dim, clock::utc(line.time_ms)), line.message, ink.paint(Tone::Dim, fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_from_left_to_right() {
        let fields = serde_json::json!({"attempt": "3"});
        let line = LogLine {
            time_ms: 1_795_000_000_123,
            level: "warn".into(),
            target: "bridge_core::dial".into(),
            message: "the link is down".into(),
            fields: fields.as_object().cloned().unwrap_or_default(),
        };
        assert_eq!(text(Ink::Plain, &line), "2026-11-18 11:06:40Z warn  the link is down attempt=3");
    }
}
