//! The controls of a fake that runs as a program: JSON lines on standard input, and one line of answer to each on standard output.
//!
//! Whoever started it holds the other end; when that one is gone, the fake ends too.

use std::{
    io::{BufRead, Write},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::scripted::Step;

/// A step of a part, as it is written on a line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenStep {
    #[serde(default)]
    think: String,
    #[serde(default)]
    say: String,
    #[serde(default)]
    calls: Vec<WrittenCall>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCall {
    tool: String,
    arguments: Value,
}

impl From<WrittenStep> for Step {
    fn from(written: WrittenStep) -> Self {
        let step = Self::say(&written.say).thinking(&written.think);
        written.calls.iter().fold(step, |step, call| step.and_call(&call.tool, &call.arguments))
    }
}

/// Carries out each line, until there are no more of them.
///
/// # Errors
/// When nobody reads the answers any more.
pub fn obey<C: for<'a> Deserialize<'a>>(mut carry_out: impl FnMut(C) -> anyhow::Result<Value>) -> anyhow::Result<()> {
    for line in std::io::stdin().lock().lines() {
        let answer = serde_json::from_str(&line?).map_err(anyhow::Error::from).and_then(&mut carry_out);
        let answer = answer.unwrap_or_else(|error| json!({"error": format!("{error:#}")}));
        let mut out = std::io::stdout().lock();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

/// Milliseconds since 1970 at that moment: clocks of two processes can be compared by it.
#[must_use]
pub fn unix_ms(at: Instant) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(at.elapsed());
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
