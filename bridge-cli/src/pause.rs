//! `pause`, `resume`, `retry`: one request each.

use std::time::Duration;

use bridge_core::control::Client;
use clap::Args;

use crate::{
    failure::Failure,
    output::{Output, span},
};

/// `pause`
#[derive(Debug, Args)]
pub(crate) struct For {
    /// For how long, such as 30m, 1h or 1h30m; until resumed when left out
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: Option<Duration>,
}

/// Takes no more work.
pub(crate) async fn pause(client: &Client, args: For, output: Output) -> Result<(), Failure> {
    client.pause(args.time).await?;
    match args.time {
        Some(time) => {
            output.done(format_args!("Paused for {}. Running requests finish; `1k4-bridge resume` ends it sooner.", span(time)))
        }
        None => output.done("Paused. Running requests finish; `1k4-bridge resume` ends it."),
    }
}

/// Takes work again.
pub(crate) async fn resume(client: &Client, output: Output) -> Result<(), Failure> {
    client.resume().await?;
    output.done("Serving again.")
}

/// Dials at once.
pub(crate) async fn retry(client: &Client, output: Output) -> Result<(), Failure> {
    client.retry().await?;
    output.done("Dialling; `1k4-bridge status --watch` shows how it goes.")
}

/// Reads `90s`, `30m`, `1h`, `1h30m`, `2d`. A bare number is refused: it could be meant in any unit.
fn time(text: &str) -> Result<Duration, String> {
    const WANTED: &str = "write a time such as 90s, 30m, 1h30m or 2d";
    let mut seconds: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(WANTED)?;
        let number: u64 = rest[..digits].parse().map_err(|_| WANTED)?;
        let unit = rest[digits..].chars().next().ok_or(WANTED)?;
        let scale = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(WANTED.to_owned()),
        };
        seconds = number.checked_mul(scale).and_then(|more| seconds.checked_add(more)).ok_or(WANTED)?;
        rest = &rest[digits + unit.len_utf8()..];
    }
    // A year is as good as "until resumed" and keeps every clock arithmetic in its range.
    if (1..=366 * 86_400).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(WANTED.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h", 3600), ("1h30m", 5400), ("2d", 172_800)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0s", "5", "h", "1x", "1h5", "-1h", "1µ", "99999999999999999999h", "9999999999999999h", "400d"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
