//! `cargo xtask bench`: the way through the Lab beside the direct one, in one run, interleaved.
//!
//! Direct is the load generator to the fake Ollama. The path is the load generator, TLS, the Lab with key and record, the link, the
//! bridge, the same fake Ollama. All share this machine's cores, so a ratio also says what the path's own work costs.

use std::{
    fs,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::{
    home::{Profile, Programs},
    packages,
    service::Service,
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
    allow_many_sockets()?;
    let stop = Stop::listen()?;
    let stack = Stack::start(&programs, &Wanted::Fake(&[SMALL, STREAM, PACED]), POLICY, &stop)?;
    let (_, bridge) = stack.ids();
    // The link is up and its first snapshot is out: from here on an idle bridge only beats.
    stop.wait(if args.quick { Duration::from_secs(1) } else { Duration::from_secs(10) })?;
    let mut rows = vec![Row::at_most("bridge, resident memory when idle", "MiB", 15.0, resident_mib(bridge)?)];
    let mut failed = 0;
    for measure in [one_caller, first_token, many_callers, many_streams, paced_streams, no_stall] {
        stop.wait(Duration::ZERO)?;
        failed += measure(&Bench { programs: &programs, stack: &stack, quick: args.quick }, &mut rows)?;
    }
    drop(stack);
    rows.extend(fleet(&programs, args.quick, &stop)?);
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

/// The Lab under many idle bridges, which are one process of their own. It is a fresh Lab: one that has worked has memory to reuse.
fn fleet(programs: &Programs, quick: bool, stop: &Stop) -> anyhow::Result<Vec<Row>> {
    let (bridges, watched) = if quick { (500, Duration::from_secs(5)) } else { (5_000, Duration::from_secs(60)) };
    let stack = Stack::start(programs, &Wanted::Fake(&[]), "", stop)?;
    let (lab, _) = stack.ids();
    let access = stack.access();
    let before = resident_mib(lab)?;
    let mut command = Command::new(programs.path("fleet")?);
    command
        .args(["--lab", &access.lab_url, "--count", &bridges.to_string(), "--ca-file"])
        .arg(&access.ca_file)
        .arg("--database")
        .arg(access.ca_file.with_file_name("lab.sqlite"));
    let mut fleet = Service::start("the fleet", &mut command, access.ca_file.with_file_name("fleet.log"))?;
    let linked = format!("linked {bridges}");
    eprintln!("Linking {bridges} simulated bridges …");
    fleet
        .until(stop, Duration::from_secs(300), "the fleet to link", |fleet| Ok(fleet.printed().contains(&linked).then_some(())))?;
    let (cpu, begun) = (cpu_seconds(lab)?, Instant::now());
    stop.wait(watched)?;
    let share = 100.0 * (cpu_seconds(lab)? - cpu) / begun.elapsed().as_secs_f64();
    let each = (resident_mib(lab)? - before) * 1024.0 / f64::from(bridges);
    ensure!(!fleet.printed().contains("a link has ended"), "links of the fleet ended while they were watched");
    Ok(vec![
        Row::at_most("Lab: resident memory per idle bridge, of 5,000", "KiB", 40.0, each),
        Row::at_most("Lab: share of a core for 5,000 bridges' heartbeats", "%", 5.0, share),
    ])
}

/// A line of the table.
struct Row {
    what: &'static str,
    unit: &'static str,
    target: Target,
    figure: f64,
}

#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Row {
    const fn at_most(what: &'static str, unit: &'static str, target: f64, figure: f64) -> Self {
        Self { what, unit, target: Target::AtMost(target), figure }
    }

    const fn at_least(what: &'static str, unit: &'static str, target: f64, figure: f64) -> Self {
        Self { what, unit, target: Target::AtLeast(target), figure }
    }

    fn verdict(&self) -> String {
        let (target, missed) = match self.target {
            Target::AtMost(target) => (target, self.figure > target),
            Target::AtLeast(target) => (target, self.figure < target),
        };
        if missed { format!("missed by {} {}", rounded((self.figure - target).abs()), self.unit) } else { "reached".to_owned() }
    }
}

fn print(rows: &[Row], quick: bool) {
    println!("\n{:<54} {:>12} {:>12}  verdict", "", "target", "figure");
    for row in rows {
        let target = match row.target {
            Target::AtMost(target) => format!("≤ {} {}", rounded(target), row.unit),
            Target::AtLeast(target) => format!("≥ {} {}", rounded(target), row.unit),
        };
        let figure = format!("{} {}", rounded(row.figure), row.unit);
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

/// Five thousand links are as many sockets, in the Lab and in the fleet: more than a process may have by default.
fn allow_many_sockets() -> anyhow::Result<()> {
    let limits = getrlimit(Resource::Nofile);
    let wanted = 20_000;
    ensure!(
        limits.maximum.is_none_or(|most| most >= wanted),
        "the system allows fewer than {wanted} open files; raise `ulimit -Hn`"
    );
    setrlimit(Resource::Nofile, Rlimit { current: Some(limits.current.unwrap_or(wanted).max(wanted)), maximum: limits.maximum })
        .context("the limit of open files cannot be raised")
}

/// Processor time of a process so far.
fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    // Linux counts in hundredths of a second towards programs, on every architecture that matters here.
    const TICKS_PER_S: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).context("the process is gone")?;
    // The name in parentheses may hold anything; behind it user time and system time are the 12th and 13th fields.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |index: usize| {
        fields.get(index).and_then(|field| field.parse::<f64>().ok()).context("the system does not say how long the process ran")
    };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_S)
}

/// Resident memory of a process, as the system counts it.
fn resident_mib(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("the process is gone")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.context("the system does not say how much memory the process has")? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_says_by_how_much() {
        assert_eq!(Row::at_most("", "µs", 250.0, 250.0).verdict(), "reached");
        assert_eq!(Row::at_most("", "µs", 250.0, 260.5).verdict(), "missed by 10.50 µs");
        assert_eq!(Row::at_least("", "×", 0.1, 0.05).verdict(), "missed by 0.05 ×");
    }
}
