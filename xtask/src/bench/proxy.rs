//! The way to a cloud provider, beside none at all and beside nginx.
//!
//! Direct is the load generator to a fake provider that answers as fast as a socket can. The Lab stands between them with everything
//! that it does for a paying caller: TLS, a key with limits of every kind, a price list, the reservation, the journal, the ledger, the
//! record. nginx stands there too, with the same certificate and nothing to do but to pass bytes. All three take turns in each round.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{Findings, Generator, Report, Row, cpu_seconds, lab, nginx::Nginx, resident_mib};
use crate::{
    curl::{self, Question},
    home::Programs,
    service::Service,
    stack::StateDir,
    stop::Stop,
};

/// Sixteen tokens at once.
const SMALL: &str = "fake-n16";
/// A hundred tokens, each written as soon as the one before it.
const STREAM: &str = "fake-n100";
/// How long a process may take until it serves. Generous: the machine may be compiling something else.
const START: Duration = Duration::from_secs(60);
/// What the caller may spend, in credits: more than it will, so that no refusal is what is measured.
const CREDITS: i64 = 1_000_000;
/// How long the books may take to be written up once nobody asks any more.
const BOOKED: Duration = Duration::from_secs(30);

/// All of it.
pub(super) fn measure(generator: &Generator<'_>, stop: &Stop) -> anyhow::Result<Findings> {
    let mut rows = Vec::new();
    let mut failed = 0;
    {
        let ways = Ways::start(generator.programs, stop)?;
        stop.wait(if generator.quick { Duration::from_secs(1) } else { Duration::from_secs(10) })?;
        rows.push(Row::at_most("Lab: resident memory when idle", "MiB", 25.0, resident_mib(ways.lab.service.id())?));
        let mut asked = 0;
        for measure in [one_caller, first_token, many_callers, many_streams] {
            stop.wait(Duration::ZERO)?;
            let report = measure(&Bench { generator, ways: &ways }, &mut rows)?;
            failed += report.failed()?;
            asked += answers(&report, "lab")?;
        }
        rows.push(Row::for_scale("Lab: resident memory after all that", "MiB", resident_mib(ways.lab.service.id())?));
        ways.lab.ensure_books_balance(asked, stop)?;
    }
    // A fresh Lab: in one that has worked hard, a leak would hide in the memory that it has to spare.
    let ways = Ways::start(generator.programs, stop)?;
    failed += soak(&Bench { generator, ways: &ways }, &mut rows, stop)?;
    Ok(Findings { rows, failed })
}

struct Bench<'a> {
    generator: &'a Generator<'a>,
    ways: &'a Ways,
}

impl Bench<'_> {
    /// All three ways in turn, in the order of `names`; what comes first is what the others are compared with.
    fn load(&self, names: [&str; 3], model: &str, words: &[&str]) -> anyhow::Result<Report> {
        let targets = names.map(|name| self.ways.target(name));
        self.generator.measure(&targets.each_ref().map(String::as_str), model, words, "3")
    }
}

fn one_caller(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<Report> {
    let report = bench.load(["direct", "lab", "nginx"], SMALL, &["--concurrency", "1"])?;
    let added = |target: usize, quantile: &str| report.number(&format!("/targets/{target}/vs_base/latency_{quantile}_us"));
    rows.push(Row::at_most("one caller: added latency, p50", "µs", 80.0, added(1, "p50")?));
    rows.push(Row::for_scale("  nginx", "µs", added(2, "p50")?));
    rows.push(Row::at_most("one caller: added latency, p99", "µs", 300.0, added(1, "p99")?));
    rows.push(Row::for_scale("  nginx", "µs", added(2, "p99")?));
    Ok(report)
}

fn first_token(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<Report> {
    let report = bench.load(["direct", "lab", "nginx"], SMALL, &["--concurrency", "1", "--stream"])?;
    let added = |target: usize| report.number(&format!("/targets/{target}/vs_base/ttft_p50_us"));
    rows.push(Row::at_most("one caller: added time to first token, p50", "µs", 120.0, added(1)?));
    rows.push(Row::for_scale("  nginx", "µs", added(2)?));
    Ok(report)
}

fn many_callers(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<Report> {
    let before = Spent::by(bench.ways)?;
    // Every connection is open before the first round.
    let report = bench.load(["nginx", "lab", "direct"], SMALL, &["--concurrency", "64", "--warmup", "500"])?;
    let spent = Spent::by(bench.ways)?;
    rows.push(Row::at_least("64 callers: requests/s, of nginx's", "×", 0.6, report.number("/targets/1/vs_base/rps_ratio")?));
    for (what, target) in [("  Lab", 1), ("  nginx", 0), ("  direct", 2)] {
        rows.push(Row::for_scale(what, "/s", report.number(&format!("/targets/{target}/requests_per_s"))?));
    }
    let each = |seconds: f64, name| Ok::<_, anyhow::Error>(seconds * 1e6 / answers(&report, name)?.max(1) as f64);
    rows.push(Row::for_scale("64 callers: Lab's processor time of a request", "µs", each(spent.lab - before.lab, "lab")?));
    rows.push(Row::for_scale("  nginx", "µs", each(spent.nginx - before.nginx, "nginx")?));
    Ok(report)
}

fn many_streams(bench: &Bench<'_>, rows: &mut Vec<Row>) -> anyhow::Result<Report> {
    let report = bench.load(["nginx", "lab", "direct"], STREAM, &["--concurrency", "16", "--stream"])?;
    rows.push(Row::at_least(
        "16 callers, 100-token streams: tokens/s, of nginx's",
        "×",
        0.85,
        report.number("/targets/1/vs_base/tokens_ratio")?,
    ));
    for (what, target) in [("  Lab", 1), ("  nginx", 0), ("  direct", 2)] {
        rows.push(Row::for_scale(what, "/s", report.number(&format!("/targets/{target}/tokens_per_s"))?));
    }
    Ok(report)
}

/// Whole answers, streams, lists and refusals at a rate that leaves the machine time, while the Lab's memory is watched.
fn soak(bench: &Bench<'_>, rows: &mut Vec<Row>, stop: &Stop) -> anyhow::Result<u64> {
    // Ten times this; a second stands for a minute where only the measuring is to be shown.
    let minute = if bench.generator.quick { Duration::from_secs(1) } else { Duration::from_secs(60) };
    eprintln!("Watching the Lab's memory for {} s …", (10 * minute).as_secs());
    let target = bench.ways.target("lab");
    let seconds = (10 * minute).as_secs().to_string();
    let load = |name, model, words: &[&str]| {
        let mut command = bench.generator.command(&[&target], model)?;
        command.args(["--rounds", "1", "--seconds", &seconds, "--concurrency", "8"]).args(words);
        Service::start(name, &mut command, bench.ways.state.log(name))
    };
    let loads = [load("soak-answers", SMALL, &["--rate", "200"])?, load("soak-streams", STREAM, &["--rate", "20", "--stream"])?];
    let begun = Instant::now();
    let mut samples = Vec::new();
    while begun.elapsed() < 10 * minute {
        stop.wait(minute / 20)?;
        bench.ways.lab.ask("/v1/models", true, 200)?;
        bench.ways.lab.ask("/v1/models", false, 401)?;
        samples.push((begun.elapsed(), resident_mib(bench.ways.lab.service.id())?));
    }
    let within = |which: u32| {
        let (from, to) = ((which - 1) * minute, which * minute);
        middle(samples.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, mib)| *mib).collect())
    };
    let (early, late) = (within(2)?, within(10)?);
    rows.push(Row::at_most("Lab: memory grown from minute 2 to 10 of a mixed load", "MiB", 2.0, late - early));
    rows.push(Row::for_scale("  in minute 10", "MiB", late));
    let mut failed = 0;
    let mut asked = 0;
    for load in &loads {
        let report = stop.until(START, "the load generator's report", || {
            Ok(load.printed().lines().find(|line| line.starts_with('{')).map(|line| Report::parse(line.as_bytes())))
        })??;
        failed += report.failed()?;
        asked += answers(&report, "lab")?;
    }
    bench.ways.lab.ensure_books_balance(asked, stop)?;
    Ok(failed)
}

/// How many requests of a way were answered.
fn answers(report: &Report, name: &str) -> anyhow::Result<u64> {
    let targets = report.0["targets"].as_array().context("the load generator's report has no targets")?;
    let target = targets.iter().find(|target| target["name"] == name);
    target.and_then(|target| target["answers"].as_u64()).with_context(|| format!("the load generator's report lacks {name}"))
}

fn middle(mut numbers: Vec<f64>) -> anyhow::Result<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().context("the machine was too busy to look at the Lab's memory")
}

/// Processor time so far.
struct Spent {
    lab: f64,
    nginx: f64,
}

impl Spent {
    fn by(ways: &Ways) -> anyhow::Result<Self> {
        Ok(Self { lab: cpu_seconds(ways.lab.service.id())?, nginx: ways.nginx.cpu_seconds()? })
    }
}

/// The provider and what stands before it. The provider ends last.
struct Ways {
    lab: Lab,
    nginx: Nginx,
    provider: Provider,
    state: StateDir,
}

impl Ways {
    /// Starts all of it; the Lab has answered one request through the provider by then.
    fn start(programs: &Programs, stop: &Stop) -> anyhow::Result<Self> {
        let state = StateDir::new()?;
        let tls = state.make("tls")?;
        make_certificate(&tls)?;
        let provider = Provider::start(programs, &state, stop)?;
        let nginx = Nginx::start(&provider.address, &tls, &state, stop)?;
        let lab = Lab::start(programs, &provider, &tls, &state, stop)?;
        Ok(Self { lab, nginx, provider, state })
    }

    /// A way, as the load generator is told of it.
    fn target(&self, name: &str) -> String {
        let path = "v1/chat/completions";
        let ca = self.lab.ca_file.display();
        match name {
            "lab" => format!("lab {}/{path} key-file={} ca={ca}", self.lab.url, self.lab.key_file.display()),
            "nginx" => format!("nginx {}/{path} ca={ca}", self.nginx.url),
            _ => format!("{name} http://{}/{path}", self.provider.address),
        }
    }
}

/// The fake provider.
pub(super) struct Provider {
    /// `ADDRESS:PORT`
    address: String,
    _service: Service,
}

impl Provider {
    pub(super) fn start(programs: &Programs, state: &StateDir, stop: &Stop) -> anyhow::Result<Self> {
        let mut command = Command::new(programs.path("fast-provider")?);
        let mut service = Service::start("the fake provider", &mut command, state.log("provider"))?;
        let address = service.until(stop, START, "the fake provider", |service| {
            Ok(service.printed().lines().find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned)))
        })?;
        Ok(Self { address, _service: service })
    }
}

/// A Lab that sells the provider's models.
pub(super) struct Lab {
    program: PathBuf,
    pub(super) config: PathBuf,
    pub(super) service: Service,
    /// `https://localhost:PORT`
    pub(super) url: String,
    pub(super) ca_file: PathBuf,
    key: String,
    key_file: PathBuf,
}

impl Lab {
    pub(super) fn start(
        programs: &Programs,
        provider: &Provider,
        tls: &Path,
        state: &StateDir,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let dir = state.make("lab")?;
        fs::write(dir.join("secret"), "not-a-secret-but-one-line")?;
        fs::set_permissions(dir.join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let config = dir.join("1k4-lab.toml");
        fs::write(&config, configuration(&provider.address, tls))?;
        let program = programs.path("1k4-lab")?.to_owned();
        let mut serve = Command::new(&program);
        serve.args(["serve", "--json", "--config"]).arg(&config);
        let mut service = Service::start("the Lab", &mut serve, state.log("lab"))?;
        let url = service.until(stop, START, "the Lab to listen", |service| {
            let said = service.printed().lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(said.and_then(|said| said["origin"].as_str().map(str::to_owned)))
        })?;
        let key_file = dir.join("key");
        let mut lab = Self { program, config, service, url, ca_file: tls.join("cert.pem"), key: String::new(), key_file };
        lab.admin(&["users", "add", "buyer"])?;
        lab.admin(&["projects", "add", "benchmark"])?;
        lab.admin(&["credits", "grant", &CREDITS.to_string()])?;
        let limits = ["--rpm", MUCH, "--tpm", MUCH, "--concurrent", "1024", "--spend-day", "1000000", "--model", "fake-*"];
        let made = lab.admin(&[&["keys", "create"][..], &limits].concat())?;
        made["key"].as_str().context("the Lab shows no key")?.clone_into(&mut lab.key);
        fs::write(&lab.key_file, &lab.key)?;
        let json = format!(r#"{{"model":"{SMALL}","messages":[{{"role":"user","content":"Are you there?"}}]}}"#);
        let url = format!("{}/v1/chat/completions", lab.url);
        let answer = curl::ask(&Question { json: Some(&json), ..lab.question(&url, true) })?.context("the Lab does not answer")?;
        ensure!(answer.status == 200, "the Lab answers {} instead of the provider's words: {}", answer.status, answer.body);
        Ok(lab)
    }

    fn question<'a>(&'a self, url: &'a str, with_key: bool) -> Question<'a> {
        Question { url, key: with_key.then_some(self.key.as_str()), ca_file: Some(&self.ca_file), json: None }
    }

    /// One request on a connection of its own.
    fn ask(&self, path: &str, with_key: bool, status: u16) -> anyhow::Result<()> {
        let answer = curl::ask(&self.question(&format!("{}{path}", self.url), with_key))?.context("the Lab does not answer")?;
        ensure!(answer.status == status, "the Lab answers {} to {path}, not {status}: {}", answer.status, answer.body);
        Ok(())
    }

    /// Whether all answers have a record, and the buyer has paid what the records say. Otherwise something that is meant to be
    /// measured was not done.
    fn ensure_books_balance(&self, answers: u64, stop: &Stop) -> anyhow::Result<()> {
        stop.until(BOOKED, "the Lab to book what was asked", || {
            let usage = self.admin(&["usage", "--by", "model"])?;
            let sums = usage.as_array().context("the Lab shows no usage")?;
            let requests: u64 = sums.iter().filter_map(|sum| sum["requests"].as_u64()).sum();
            let cost: i64 = sums.iter().filter_map(|sum| sum["cost_nano"].as_i64()).sum();
            let holdings = self.admin(&["credits", "show"])?;
            let left = holdings[0]["balance_nano"].as_i64().context("the Lab shows no balance")?;
            Ok((requests > answers && cost > 0 && CREDITS * NANO_PER_CREDIT - left == cost).then_some(()))
        })
    }

    pub(super) fn admin(&self, words: &[&str]) -> anyhow::Result<Value> {
        let output = Command::new(&self.program)
            .arg("admin")
            .args(words)
            .args(["--json", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .context("1k4-lab cannot be started")?;
        ensure!(output.status.success(), "`1k4-lab admin {}` failed ({})", words.join(" "), output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("`1k4-lab admin {}` printed no JSON", words.join(" ")))
    }
}

const NANO_PER_CREDIT: i64 = 1_000_000_000;
/// More than can be asked in a minute, and still a limit that is kept.
const MUCH: &str = "4000000000";

/// Every limit is there and none is ever reached. Nothing is free: what is not charged is not measured.
fn configuration(provider: &str, tls: &Path) -> String {
    let tls = tls.display();
    let model = |id, max_output| {
        format!(
            r#"
[[models]]
id = "{id}"
provider = "openai"
max_input = 100000
max_output = {max_output}
usd_per_mtok = {{ input = "1.25", cached = "0.125", output = "10" }}
"#
        )
    };
    format!(
        r#"data_dir = "data"
listen = "127.0.0.1:0"

[tls]
cert = "{tls}/cert.pem"
key = "{tls}/key.pem"

[limits]
requests_per_minute = {MUCH}
tokens_per_minute = {MUCH}
concurrent = 4096

[trial]
free_requests = 0

[[providers]]
name = "openai"

[[providers.channels]]
name = "fast"
base_url = "http://{provider}"
secret = {{ file = "secret" }}
{}{}{}"#,
        model(SMALL, 128),
        model(STREAM, 128),
        model(lab::PACED, 10_000)
    )
}

/// A certificate for `localhost` that is its own authority: `cert.pem` and `key.pem`.
pub(super) fn make_certificate(dir: &Path) -> anyhow::Result<()> {
    let request = "[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = leaf\n[name]\nCN = localhost\n\
                   [leaf]\nsubjectAltName = DNS:localhost\nbasicConstraints = critical, CA:FALSE\n";
    fs::write(dir.join("request.conf"), request)?;
    let output = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -config request.conf".split(' '))
        .args(["-keyout", "key.pem", "-out", "cert.pem"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .context("openssl cannot be started")?;
    ensure!(output.status.success(), "openssl made no certificate: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
