//! `cargo xtask bench`: the way through the Lab beside the direct one, in one run, interleaved.
//!
//! Direct is the load generator to the fake Ollama. The path is the load generator, TLS, the Lab with key and record, the link, the
//! bridge, the same fake Ollama. All share this machine's cores, so a ratio also says what the path's own work costs.

use std::{
    fs,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    home::{Profile, Programs},
    packages,
    stack::{Stack, Wanted},
    stop::Stop,
};

/// `bench`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One short round of each: shows that the measurements work, not how fast anything is
    #[arg(long)]
    quick: bool,
}

/// Sixteen tokens, as fast as they can be written.
const SMALL: &str = "fake-n16";
/// A hundred tokens, as fast as they can be written.
const STREAM: &str = "fake-n100";
/// A hundred tokens, one each 10 ms: what a good graphics card does.
const PACED: &str = "fake-n100-d10000";
/// More than any measurement has at once, so that no owner's limit is what is measured.
const POLICY: &str = "max_concurrent = 1024\nmax_queued = 1024\n";

/// Measures and prints the table. A missed target is a finding, not an error; a failed request is one.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    packages::provide(packages::TO_RUN)?;
    eprintln!("Building for release …");
    let programs = Programs::build(Profile::Release)?;
    let stop = Stop::listen()?;
    let stack = Stack::start(&programs, &Wanted::Fake(&[SMALL, STREAM, PACED]), POLICY, &stop)?;
    let bench = Bench { programs: &programs, stack: &stack, quick: args.quick };
    let (_, bridge) = stack.ids();
    // The link is up and its first snapshot is out: from here on an idle bridge only beats.
    stop.wait(if args.quick { Duration::from_secs(1) } else { Duration::from_secs(10) })?;
    let mut rows = vec![Row::at_most("bridge, resident memory when idle", "MiB", 15.0, resident_mib(bridge)?)];
    let mut failed = 0;
    for measure in [one_caller, first_token, many_callers, many_streams, paced_streams, no_stall] {
        stop.wait(Duration::ZERO)?;
        failed += measure(&bench, &mut rows)?;
    }
    rows.extend(fleet(&programs));
    print(&rows, args.quick);
    if failed > 0 {
        eprintln!("{failed} requests failed: the figures above are not to be trusted");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

struct Bench<'a> {
    programs: &'a Programs,
    stack: &'a Stack,
    quick: bool,
}

impl Bench<'_> {
    /// Runs the load generator on both ways in turn; its answer has the direct target first.
    fn load(&self, model: &str, words: &[&str], seconds: &str) -> anyhow::Result<Report> {
        let access = self.stack.access();
        let key_file = access.ca_file.with_file_name("bench-key");
        fs::write(&key_file, &access.api_key)?;
        let direct = format!("direct {}/v1/chat/completions", self.stack.ollama_url());
        let path = format!(
            "path {}/v1/chat/completions model=local/{model} key-file={} ca={}",
            access.lab_url,
            key_file.display(),
            access.ca_file.display()
        );
        let (rounds, seconds) = if self.quick { ("1", "0.5") } else { ("5", seconds) };
        let output = Command::new(self.programs.path("load")?)
            .args(["--target", &direct, "--target", &path, "--model", model, "--rounds", rounds, "--seconds", seconds])
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("the load generator cannot be started")?;
        ensure!(output.status.success(), "the load generator failed ({})", output.status);
        Ok(Report(serde_json::from_slice(&output.stdout).context("the load generator printed no JSON")?))
    }
}

/// What the load generator saw.
struct Report(Value);

impl Report {
    fn number(&self, pointer: &str) -> anyhow::Result<f64> {
        self.0.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("the load generator's report has no {pointer}"))
    }

    fn failed(&self) -> anyhow::Result<u64> {
        let mut failed = 0.0;
        for target in ["/targets/0", "/targets/1"] {
            let errors = self.number(&format!("{target}/errors"))?;
            if errors > 0.0 {
                eprintln!("{errors} errors: {}", self.0.pointer(&format!("{target}/error_kinds")).unwrap_or(&Value::Null));
            }
            failed += errors;
        }
        Ok(failed as u64)
    }
}

fn one_caller(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<u64> {
    let report = bench.load(SMALL, &["--concurrency", "1"], "3")?;
    rows.push(Row::at_most("one caller: added latency, p50", "µs", 250.0, report.number("/targets/1/vs_base/latency_p50_us")?));
    rows.push(Row::at_most("one caller: added latency, p99", "µs", 1000.0, report.number("/targets/1/vs_base/latency_p99_us")?));
    report.failed()
}

fn first_token(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<u64> {
    let report = bench.load(SMALL, &["--concurrency", "1", "--stream"], "3")?;
    rows.push(Row::at_most(
        "one caller: added time to first token, p50",
        "µs",
        350.0,
        report.number("/targets/1/vs_base/ttft_p50_us")?,
    ));
    report.failed()
}

fn many_callers(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<u64> {
    let report = bench.load(SMALL, &["--concurrency", "64"], "3")?;
    rows.push(Row::at_least("64 callers: requests/s, of direct's", "×", 0.10, report.number("/targets/1/vs_base/rps_ratio")?));
    report.failed()
}

fn many_streams(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<u64> {
    let report = bench.load(STREAM, &["--concurrency", "16", "--stream"], "3")?;
    rows.push(Row::at_least(
        "16 callers, 100-token streams: tokens/s, of direct's",
        "×",
        0.40,
        report.number("/targets/1/vs_base/tokens_ratio")?,
    ));
    report.failed()
}

fn paced_streams(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<u64> {
    let report = bench.load(PACED, &["--concurrency", "500", "--stream", "--ramp-ms", "1000"], "4")?;
    rows.push(Row::at_most(
        "500 streams at 10 ms a token: gap p99 beyond direct's",
        "ms",
        5.0,
        report.number("/targets/1/vs_base/gap_p99_us")? / 1000.0,
    ));
    report.failed()
}

/// Nagle's algorithm on any socket of the path would show here as a gap of 40 ms and more: nothing else is going on.
fn no_stall(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<u64> {
    let report = bench.load(PACED, &["--concurrency", "1", "--stream", "--warmup", "2"], "3")?;
    rows.push(Row::at_most(
        "one stream at 10 ms a token: longest gap",
        "ms",
        40.0,
        report.number("/targets/1/gap_us/max")? / 1000.0,
    ));
    report.failed()
}

/// The Lab under many idle bridges. It needs a fleet of simulated ones in a process of its own, which is not written yet.
fn fleet(programs: &Programs) -> Vec<Row> {
    let why = if programs.path("fleet").is_ok() { "this command does not use the fleet yet" } else { "no simulated fleet yet" };
    vec![
        Row::missing("Lab: memory per idle bridge, at 5,000 bridges", "KiB", Target::AtMost(40.0), why),
        Row::missing("Lab: one core's share for their heartbeats", "%", Target::AtMost(5.0), why),
    ]
}

/// A line of the table.
struct Row {
    what: &'static str,
    unit: &'static str,
    target: Target,
    figure: Figure,
}

#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

enum Figure {
    Measured(f64),
    Missing(&'static str),
}

impl Row {
    const fn at_most(what: &'static str, unit: &'static str, target: f64, figure: f64) -> Self {
        Self { what, unit, target: Target::AtMost(target), figure: Figure::Measured(figure) }
    }

    const fn at_least(what: &'static str, unit: &'static str, target: f64, figure: f64) -> Self {
        Self { what, unit, target: Target::AtLeast(target), figure: Figure::Measured(figure) }
    }

    const fn missing(what: &'static str, unit: &'static str, target: Target, why: &'static str) -> Self {
        Self { what, unit, target, figure: Figure::Missing(why) }
    }

    fn verdict(&self) -> String {
        let (figure, target, missed) = match (&self.figure, self.target) {
            (Figure::Missing(why), _) => return format!("not measured: {why}"),
            (Figure::Measured(figure), Target::AtMost(target)) => (*figure, target, *figure > target),
            (Figure::Measured(figure), Target::AtLeast(target)) => (*figure, target, *figure < target),
        };
        if missed { format!("missed by {} {}", rounded((figure - target).abs()), self.unit) } else { "reached".to_owned() }
    }
}

fn print(rows: &[Row], quick: bool) {
    println!("\n{:<54} {:>12} {:>12}  verdict", "", "target", "figure");
    for row in rows {
        let target = match row.target {
            Target::AtMost(target) => format!("≤ {} {}", rounded(target), row.unit),
            Target::AtLeast(target) => format!("≥ {} {}", rounded(target), row.unit),
        };
        let figure = match row.figure {
            Figure::Measured(figure) => format!("{} {}", rounded(figure), row.unit),
            Figure::Missing(_) => "-".to_owned(),
        };
        println!("{:<54} {target:>12} {figure:>12}  {}", row.what, row.verdict());
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("\nOn {cores} cores that the load generator, the fake Ollama, the bridge and the Lab share.");
    if quick {
        println!("One short round each: these figures only show that measuring works.");
    } else {
        println!("Differences and ratios are medians of 5 rounds, in each of which both ways took turns.");
    }
}

fn rounded(number: f64) -> String {
    if number.abs() >= 100.0 { format!("{number:.0}") } else { format!("{number:.2}") }
}

/// Resident memory of a process, as the system counts it.
fn resident_mib(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("the bridge is gone")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("the system does not say how much memory the bridge has")? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_by_how_much() {
        assert_eq!(Row::at_most("", "µs", 250.0, 250.0).verdict(), "reached");
        assert_eq!(Row::at_most("", "µs", 250.0, 260.5).verdict(), "missed by 10.50 µs");
        assert_eq!(Row::at_least("", "×", 0.1, 0.05).verdict(), "missed by 0.05 ×");
        assert_eq!(Row::missing("", "%", Target::AtMost(5.0), "no fleet").verdict(), "not measured: no fleet");
    }
}
