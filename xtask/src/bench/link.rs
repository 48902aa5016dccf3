//! The way through a bridge: to a model on somebody's workstation.
//!
//! Direct is the load generator to the fake Ollama. The path is the load generator, TLS, the Lab with key and record, the link, the
//! bridge, the same fake Ollama.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{Findings, Generator, Report, Row, cpu_seconds, resident_mib};
use crate::{
    home::Programs,
    service::Service,
    stack::{Stack, Wanted},
    stop::Stop,
};

/// Sixteen tokens, as fast as they can be written.
const SMALL: &str = "fake-n16";
/// A hundred tokens, as fast as they can be written.
const STREAM: &str = "fake-n100";
/// A hundred tokens, one each 10 ms: what a good graphics card does.
const PACED: &str = "fake-n100-d10000";
/// More than any measurement has at once, so that no owner's limit is what is measured.
const POLICY: &str = "max_concurrent = 1024\nmax_queued = 1024\n";

/// All of it.
pub(super) fn measure(generator: &Generator<'_>, stop: &Stop) -> anyhow::Result<Findings> {
    let stack = Stack::start(generator.programs, &Wanted::Fake(&[SMALL, STREAM, PACED]), POLICY, stop)?;
    let (_, bridge) = stack.ids();
    // The link is up and its first snapshot is out: from here on an idle bridge only beats.
    stop.wait(if generator.quick { Duration::from_secs(1) } else { Duration::from_secs(10) })?;
    let mut rows = vec![Row::at_most("bridge, resident memory when idle", "MiB", 15.0, resident_mib(bridge)?)];
    let mut failed = 0;
    for measure in [one_caller, first_token, many_callers, many_streams, paced_streams, no_stall] {
        stop.wait(Duration::ZERO)?;
        failed += measure(&Bench { generator, stack: &stack }, &mut rows)?;
    }
    drop(stack);
    rows.extend(fleet(generator.programs, generator.quick, stop)?);
    Ok(Findings { rows, failed })
}

struct Bench<'a> {
    generator: &'a Generator<'a>,
    stack: &'a Stack,
}

impl Bench<'_> {
    /// Direct and the path in turn; the answer has direct first.
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
        self.generator.measure(&[&direct, &path], model, words, seconds)
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
        .arg("--data-dir")
        .args(access.ca_file.parent());
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
