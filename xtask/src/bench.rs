//! `cargo xtask bench`: the ways through the Lab beside the direct ones, each compared in one run, interleaved.
//!
//! Everything shares this machine's cores, so a ratio also says what a way's own work costs.

mod lab;
mod link;
mod nginx;
mod proxy;
mod web;

use std::{
    borrow::Cow,
    fs,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;

use crate::{
    browser,
    home::{Profile, Programs},
    packages,
    stop::Stop,
};

/// `bench`
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One short round of each: shows that the measurements work, not how fast anything is
    #[arg(long)]
    quick: bool,
    /// Measure this part alone
    #[arg(value_enum)]
    part: Option<Part>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Answers that stream to people, and what they keep
    Lab,
    /// The way through a bridge to a workstation
    Link,
    /// The way to a cloud provider, beside nginx
    Proxy,
    /// The pages, in Chromium
    Web,
}

impl Part {
    const ALL: [Self; 4] = [Self::Lab, Self::Link, Self::Proxy, Self::Web];

    const fn title(self) -> &'static str {
        match self {
            Self::Lab => "To people, from the Lab",
            Self::Link => "To a workstation, through the Lab and a bridge",
            Self::Proxy => "To a cloud provider, through the Lab",
            Self::Web => "In the browser",
        }
    }
}

/// Measures and prints the table. A missed target is a finding, not an error; a failed request is one.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let parts = args.part.map_or_else(|| Part::ALL.to_vec(), |part| vec![part]);
    packages::provide(packages::TO_RUN)?;
    if parts.contains(&Part::Proxy) {
        packages::provide(packages::TO_BENCH)?;
    }
    if parts.contains(&Part::Web) {
        // The Lab takes the pages in when it is built.
        packages::provide(packages::TO_BROWSE)?;
        browser::pages()?;
    }
    eprintln!("Building for release …");
    let programs = Programs::build(Profile::Release)?;
    allow_many_sockets()?;
    let stop = Stop::listen()?;
    let generator = Generator { programs: &programs, quick: args.quick };
    let mut failed = 0;
    let mut tables = Vec::new();
    for part in parts {
        let findings = match part {
            Part::Lab => lab::measure(&generator, &stop)?,
            Part::Link => link::measure(&generator, &stop)?,
            Part::Proxy => proxy::measure(&generator, &stop)?,
            Part::Web => web::measure(&programs)?,
        };
        failed += findings.failed;
        tables.push((part.title(), findings.rows));
    }
    print(&tables, args.quick);
    if failed > 0 {
        eprintln!("{failed} requests failed: the figures above are not to be trusted");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// What came of a part.
struct Findings {
    rows: Vec<Row>,
    failed: u64,
}

/// The load generator, and how long it is run.
struct Generator<'a> {
    programs: &'a Programs,
    quick: bool,
}

impl Generator<'_> {
    /// Asks all targets in turn, `seconds` each, for five rounds. The first is what the others are compared with.
    fn measure(&self, targets: &[&str], model: &str, words: &[&str], seconds: &str) -> anyhow::Result<Report> {
        let (rounds, seconds) = if self.quick { ("1", "0.5") } else { ("5", seconds) };
        let output = self
            .command(targets, model)?
            .args(["--rounds", rounds, "--seconds", seconds])
            .args(words)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("the load generator cannot be started")?;
        ensure!(output.status.success(), "the load generator failed ({})", output.status);
        Report::parse(&output.stdout)
    }

    fn command(&self, targets: &[&str], model: &str) -> anyhow::Result<Command> {
        let mut command = Command::new(self.programs.path("load")?);
        command.args(targets.iter().flat_map(|target| ["--target", target])).args(["--model", model]);
        Ok(command)
    }
}

/// What the load generator saw.
struct Report(Value);

impl Report {
    fn parse(text: &[u8]) -> anyhow::Result<Self> {
        Ok(Self(serde_json::from_slice(text).context("the load generator printed no JSON")?))
    }

    fn number(&self, pointer: &str) -> anyhow::Result<f64> {
        self.0.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("the load generator's report has no {pointer}"))
    }

    fn failed(&self) -> anyhow::Result<u64> {
        let mut failed = 0.0;
        for target in 0..self.0["targets"].as_array().map_or(0, Vec::len) {
            let errors = self.number(&format!("/targets/{target}/errors"))?;
            if errors > 0.0 {
                let target = &self.0["targets"][target];
                eprintln!("{errors} errors on the way {}: {}", target["name"], target["error_kinds"]);
            }
            failed += errors;
        }
        Ok(failed as u64)
    }
}

/// A line of the table.
struct Row {
    what: Cow<'static, str>,
    unit: Cow<'static, str>,
    target: Target,
    figure: f64,
}

#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// There is none: the figure is for scale.
    None,
}

impl Row {
    const fn at_most(what: &'static str, unit: &'static str, target: f64, figure: f64) -> Self {
        Self::named(what, unit, Target::AtMost(target), figure)
    }

    const fn at_least(what: &'static str, unit: &'static str, target: f64, figure: f64) -> Self {
        Self::named(what, unit, Target::AtLeast(target), figure)
    }

    const fn for_scale(what: &'static str, unit: &'static str, figure: f64) -> Self {
        Self::named(what, unit, Target::None, figure)
    }

    const fn named(what: &'static str, unit: &'static str, target: Target, figure: f64) -> Self {
        Self { what: Cow::Borrowed(what), unit: Cow::Borrowed(unit), target, figure }
    }

    fn verdict(&self) -> String {
        let (target, missed) = match self.target {
            Target::AtMost(target) => (target, self.figure > target),
            Target::AtLeast(target) => (target, self.figure < target),
            Target::None => return String::new(),
        };
        if missed { format!("missed by {} {}", rounded((self.figure - target).abs()), self.unit) } else { "reached".to_owned() }
    }
}

fn print(tables: &[(&str, Vec<Row>)], quick: bool) {
    for (title, rows) in tables {
        println!("\n{title:<WIDTH$} {:>16} {:>16}  verdict", "target", "figure");
        for row in rows {
            let target = match row.target {
                Target::AtMost(target) => format!("≤ {} {}", rounded(target), row.unit),
                Target::AtLeast(target) => format!("≥ {} {}", rounded(target), row.unit),
                Target::None => String::new(),
            };
            let figure = format!("{} {}", rounded(row.figure), row.unit);
            println!("{:<WIDTH$} {target:>16} {figure:>16}  {}", row.what, row.verdict());
        }
    }
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("\nOn {cores} cores, which the load generator, the fakes and what is measured share.");
    if quick {
        println!("One short round each: these figures only show that measuring works.");
    } else {
        println!("Differences and ratios are medians of 5 rounds, in each of which all ways took turns.");
    }
}

/// Of the column that says what a figure is.
const WIDTH: usize = 60;

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
        assert_eq!(Row::for_scale("", "µs", 1.0).verdict(), "");
    }
}
