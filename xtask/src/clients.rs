//! The official clients against a running 1K4: the stack is started as a person starts it, and asked as a person's programs ask.
//! Behind it are a workstation and fake cloud providers; each suite asks them directly too and compares.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    curl::{self, Question},
    home, npm, stack,
    suite::check as one_check,
    tally::{self, Counts, Tally},
};

/// The clients' tests, and what they are written in.
const FOLDER: &str = "tests/clients";
/// No Ollama listens on the port of the TCP multiplexer: the stack takes the fake.
const NO_OLLAMA: &str = "127.0.0.1:1";

/// What of the suites is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Only tests with this in their names.
    pub(crate) filter: Option<&'a str>,
    /// Also what takes long.
    pub(crate) full: bool,
}

/// Runs the suites on the fake Ollama, and where a real one with models answers on that too.
pub(crate) fn check(tally: &mut Tally, asked: Asked<'_>) {
    let mut ready = Ok(());
    tally.step("client libraries", || {
        ready = install();
        ready.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
        Ok(Counts::default())
    });
    if ready.is_err() {
        return;
    }
    on(tally, ["clients: start", "clients: Python and curl", "clients: Node", "clients: end"], NO_OLLAMA, asked);
    let host = std::env::var("OLLAMA_HOST").unwrap_or_default();
    match has_models(&stack::ollama_url(Some(&host))) {
        Ok(true) => {
            on(tally, ["real Ollama: start", "real Ollama: Python and curl", "real Ollama: Node", "real Ollama: end"], &host, asked)
        }
        Ok(false) => tally.skip("real Ollama", "none with a model answers on this machine"),
        Err(error) => tally.skip("real Ollama", &format!("{error:#}")),
    }
}

fn on(tally: &mut Tally, [start, python, node, end]: [&'static str; 4], ollama_host: &str, asked: Asked<'_>) {
    let mut started = None;
    tally.step(start, || {
        started = Some(Started::start(ollama_host)?);
        Ok(one_check(true, "`cargo xtask run --json --fake-providers` starts, pairs and lists a model"))
    });
    let Some(mut started) = started else { return };
    tally.step(python, || python_tests(&started, asked));
    tally.step(node, || node_tests(&started, asked.filter));
    tally.step(end, || started.end());
}

/// `cargo xtask run --json`, held up.
struct Started {
    run: Child,
    /// The line that it printed, in a file that only we can read: it holds a key.
    line: PathBuf,
    ca_file: PathBuf,
}

impl Started {
    fn start(ollama_host: &str) -> anyhow::Result<Self> {
        let mut run = Command::new(std::env::current_exe()?);
        run.args(["run", "--json", "--fake-providers"]).env("OLLAMA_HOST", ollama_host).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut run = run.spawn().context("`cargo xtask run` cannot be started")?;
        let mut text = String::new();
        BufReader::new(run.stdout.as_mut().context("no output")?).read_line(&mut text)?;
        let line: Value = match serde_json::from_str(&text) {
            Ok(line) => line,
            Err(_) => {
                let status = run.wait()?;
                anyhow::bail!("`cargo xtask run --json` printed no JSON ({status}); the reason stands above");
            }
        };
        let ca_file = PathBuf::from(line["ca_file"].as_str().unwrap_or_default());
        let path = home::target().join(format!("clients-{}.json", run.id()));
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?.write_all(text.as_bytes())?;
        Ok(Self { run, line: path, ca_file })
    }

    /// Asks it to end, as Ctrl-C does, and looks at what it leaves behind.
    fn end(&mut self) -> anyhow::Result<Counts> {
        let still_up = self.run.try_wait()?.is_none();
        self.ask_to_end()?;
        let status = self.run.wait()?;
        let rest: Vec<_> = BufReader::new(self.run.stdout.take().context("no output")?).lines().collect();
        ensure!(rest.is_empty(), "`cargo xtask run --json` printed more than its one line");
        ensure!(!self.ca_file.exists(), "`cargo xtask run` left its state behind");
        Ok(one_check(still_up && status.success(), "`cargo xtask run` stayed up, and ends what it started when asked"))
    }

    fn ask_to_end(&mut self) -> anyhow::Result<()> {
        if let (None, Some(pid)) = (self.run.try_wait()?, Pid::from_raw(self.run.id().cast_signed())) {
            kill_process(pid, Signal::TERM)?;
        }
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // Both are gone already when the last step was taken.
        let _ = self.ask_to_end();
        let _ = self.run.wait();
        let _ = fs::remove_file(&self.line);
    }
}

fn python_tests(started: &Started, asked: Asked<'_>) -> anyhow::Result<Counts> {
    let mut pytest = Command::new(venv().join("bin").join("python"));
    pytest
        .current_dir(home::root())
        .args(["-B", "-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", FOLDER])
        .env("ONEK4_RUN", &started.line)
        // The fake and the Lab are on this machine.
        .env("NO_PROXY", "*");
    if asked.full {
        pytest.env("ONEK4_FULL", "1");
    }
    if let Some(filter) = asked.filter {
        pytest.args(["-k", filter]);
    }
    tally::counted(&mut pytest, tally::pytest)
}

fn node_tests(started: &Started, filter: Option<&str>) -> anyhow::Result<Counts> {
    let mut node = Command::new("node");
    node.current_dir(home::root().join(FOLDER))
        .args(["--test", "--test-reporter=tap"])
        .env("ONEK4_RUN", &started.line)
        .env("NODE_EXTRA_CA_CERTS", &started.ca_file);
    if let Some(filter) = filter {
        node.arg(format!("--test-name-pattern={filter}"));
    }
    let counts = tally::counted(node.args(["openai.test.mjs", "cloud.test.mjs", "sign_in.test.mjs"]), tally::tap)?;
    // To node, a test that was not asked for is a skipped one.
    Ok(if filter.is_some() { Counts { skipped: 0, ..counts } } else { counts })
}

fn has_models(ollama_url: &str) -> anyhow::Result<bool> {
    let answer = curl::ask(&Question { url: &format!("{ollama_url}/api/tags"), ..Question::default() })?;
    let tags = answer.and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
    Ok(tags.is_some_and(|tags| tags["models"].as_array().is_some_and(|models| !models.is_empty())))
}

fn venv() -> PathBuf {
    home::target().join("venv")
}

/// Brings the pinned libraries, unless they are there in the version that the files name.
fn install() -> anyhow::Result<()> {
    let folder = home::root().join(FOLDER);
    let (wanted, installed) = (folder.join("requirements.txt"), venv().join("requirements.txt"));
    if npm::differs(&wanted, &installed) {
        home::succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(venv()))?;
        let mut pip = Command::new(venv().join("bin").join("python"));
        home::succeed(
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--requirement"]).arg(&wanted),
        )?;
        fs::copy(&wanted, &installed)?;
    }
    npm::provide(&folder)
}
