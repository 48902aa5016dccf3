//! The Lab as people use it: many answers that stream at once, each watched, and one who has kept much.
//!
//! A fake provider says a token every 20 ms. The Lab asks it in conversations of ten people, numbers what it says, keeps it and shows
//! it over TLS to one watcher for each answer.

use std::{fs, process::Command, time::Duration};

use anyhow::Context;
use serde_json::Value;

use super::{
    Findings, Generator, Row, cpu_seconds,
    proxy::{Lab, Provider, make_certificate},
    resident_mib,
};
use crate::{service::Service, stack::StateDir, stop::Stop};

/// A minute of tokens at fifty a second: longer than it takes to start all runs and to measure them.
pub(super) const PACED: &str = "fake-n3000-d20000";
/// Answers at once, and how many of them are one person's.
const RUNS: usize = 200;
const EACH: usize = 20;
/// How long everybody may take to be in the middle.
const GATHERED: Duration = Duration::from_secs(50);

/// All of it.
pub(super) fn measure(generator: &Generator<'_>, stop: &Stop) -> anyhow::Result<Findings> {
    let state = StateDir::new()?;
    let tls = state.make("tls")?;
    make_certificate(&tls)?;
    let provider = Provider::start(generator.programs, &state, stop)?;
    let lab = Lab::start(generator.programs, &provider, &tls, &state, stop)?;
    let (runs, messages) = if generator.quick { (EACH, 500) } else { (RUNS, 10_000) };
    for person in 0..runs / EACH {
        let name = format!("person-{person}");
        lab.admin(&["users", "add", &name])?;
        lab.admin(&["projects", "add", "talk", "--user", &name])?;
        lab.admin(&["credits", "grant", "1000", "--user", &name])?;
    }
    let people = |words: &[&str]| -> anyhow::Result<Command> {
        let mut command = Command::new(generator.programs.path("people")?);
        let address = lab.url.rsplit_once(':').context("the Lab names no port")?.1;
        command.args(["--lab", &format!("127.0.0.1:{address}"), "--ca-file"]).arg(&lab.ca_file);
        command.arg("--data-dir").arg(lab.config.with_file_name("data")).args(words);
        Ok(command)
    };
    let mut rows = watched(generator, &lab, &people, runs, &state, stop)?;
    eprintln!("Keeping {messages} messages …");
    let mut keep = people(&["keep", "--messages", &messages.to_string(), "--bytes", "500"])?;
    let kept = last_line(&mut Service::start("one who keeps much", &mut keep, state.log("keep"))?, "search_ms", stop)?;
    rows.push(Row::at_most("search among 10,000 messages of 500 B, p50", "ms", 300.0, number(&kept, "search_ms")?));
    rows.push(Row::at_most("export of 10,000 messages", "s", 60.0, number(&kept, "export_s")?));
    Ok(Findings { rows, failed: 0 })
}

fn watched(
    generator: &Generator<'_>,
    lab: &Lab,
    people: &dyn Fn(&[&str]) -> anyhow::Result<Command>,
    runs: usize,
    state: &StateDir,
    stop: &Stop,
) -> anyhow::Result<Vec<Row>> {
    let seconds = if generator.quick { "2" } else { "20" };
    let (all, each) = (runs.to_string(), EACH.to_string());
    let words = ["watch", "--model", PACED, "--pace-ms", "20", "--runs", &all, "--each", &each, "--seconds", seconds];
    eprintln!("Watching {runs} answers for {seconds} s …");
    let mut crowd = Service::start("the watchers", &mut people(&words)?, state.log("watchers"))?;
    let lab = lab.service.id();
    let said = |word: &'static str| move |crowd: &Service| Ok(crowd.printed().contains(word).then_some(()));
    crowd.until(stop, GATHERED, "the watchers to be in the middle", said("watching"))?;
    let (cpu, written) = (cpu_seconds(lab)?, written_mib(lab)?);
    crowd.until(stop, GATHERED, "the watchers to have watched", said("watched"))?;
    let (cpu, written, resident) = (cpu_seconds(lab)? - cpu, written_mib(lab)? - written, resident_mib(lab)?);
    let seen = last_line(&mut crowd, "gap_beyond_p99_ms", stop)?;
    let took = seconds.parse::<f64>()?;
    Ok(vec![
        Row::at_most("200 answers, each watched: gap p99 beyond the model's", "ms", 100.0, number(&seen, "gap_beyond_p99_ms")?),
        Row::for_scale("  the longest", "ms", number(&seen, "gap_beyond_max_ms")?),
        Row::for_scale("  from the Lab to who watches, p99", "ms", number(&seen, "late_p99_ms")?),
        Row::for_scale("  events of one answer", "/s", number(&seen, "events_per_run_s")?),
        Row::at_most("  rows written of one answer", "/s", 5.0, number(&seen, "writes_per_run_s")?),
        Row::for_scale("  written to files in all", "MiB/s", written / took),
        Row::for_scale("  Lab: processor time of an event", "µs", cpu * 1e6 / number(&seen, "events")?),
        Row::for_scale("  Lab: share of a core", "%", 100.0 * cpu / took),
        Row::for_scale("  Lab: resident memory", "MiB", resident),
    ])
}

/// The line with this word in it, once it is printed.
fn last_line(service: &mut Service, word: &str, stop: &Stop) -> anyhow::Result<Value> {
    service.until(stop, Duration::from_secs(300), "the figures", |service| {
        let lines = service.printed();
        let line = lines.lines().find(|line| line.contains(word) && line.ends_with('}'));
        Ok(line.and_then(|line| serde_json::from_str(line).ok()))
    })
}

fn number(line: &Value, name: &str) -> anyhow::Result<f64> {
    line[name].as_f64().with_context(|| format!("the people do not say {name}"))
}

/// What a process has had written to files so far, as the system counts it.
fn written_mib(process: u32) -> anyhow::Result<f64> {
    let io = fs::read_to_string(format!("/proc/{process}/io")).context("the process is gone")?;
    let bytes = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse::<f64>().ok());
    Ok(bytes.context("the system does not say what the process wrote")? / 1024.0 / 1024.0)
}
