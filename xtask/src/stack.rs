//! A Lab, a bridge paired to it, and an Ollama, each a process of its own on this machine.

use std::{
    fs::{self, DirBuilder},
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::{
    cloud::Cloud,
    curl::{self, Question},
    home::{self, Programs},
    service::Service,
    stop::Stop,
};

/// How long a process may take until it serves. Generous: the machine may be compiling something else.
const START: Duration = Duration::from_secs(60);
/// The workstation's name in the Lab.
const WORKSTATION: &str = "workstation";
/// What the one user may spend where there are providers, in credits: more than any suite does.
const CREDITS: &str = "1000";

/// Which Ollama the bridge is to share.
pub(crate) enum Wanted<'a> {
    /// A real one if it answers, else the fake, said to be one.
    Real,
    /// The fake, with these models beside its own.
    Fake(&'a [&'a str]),
}

/// Everything that was started. What is dropped first ends first: the bridge takes its leave from a Lab that still listens.
pub(crate) struct Stack {
    bridge: Service,
    lab: Service,
    ollama: Ollama,
    cloud: Option<Cloud>,
    access: Access,
    /// For whoever needs a Lab that may be broken.
    lab_program: PathBuf,
    _state: StateDir,
}

/// How a client gets in.
pub(crate) struct Access {
    /// `https://localhost:PORT`
    pub(crate) lab_url: String,
    /// A key of the one project.
    pub(crate) api_key: String,
    /// The Lab's test CA.
    pub(crate) ca_file: PathBuf,
    /// A model that was listed, as `/v1` names it.
    pub(crate) model: String,
}

struct Ollama {
    url: String,
    fake: Option<Service>,
}

impl Stack {
    /// Starts all of it and waits until a model can be asked. `policy` is the owner's, as TOML lines.
    pub(crate) fn start(programs: &Programs, wanted: &Wanted<'_>, policy: &str, stop: &Stop) -> anyhow::Result<Self> {
        let state = StateDir::new()?;
        Self::start_in(state, None, programs, wanted, policy, stop)
    }

    /// The same with fake cloud providers, and a user who has credits for them.
    pub(crate) fn start_with_fake_providers(programs: &Programs, wanted: &Wanted<'_>, stop: &Stop) -> anyhow::Result<Self> {
        let state = StateDir::new()?;
        let cloud = Cloud::start(programs, state.log("fake-provider"), stop)?;
        Self::start_in(state, Some(cloud), programs, wanted, "", stop)
    }

    fn start_in(
        state: StateDir,
        cloud: Option<Cloud>,
        programs: &Programs,
        wanted: &Wanted<'_>,
        policy: &str,
        stop: &Stop,
    ) -> anyhow::Result<Self> {
        let ollama = Ollama::find_or_start(programs, wanted, &state, stop)?;
        let config = cloud.as_ref().map(|cloud| cloud.configure(&state.make("providers")?)).transpose()?;
        let mut lab = Lab::start(programs, config, &state, stop)?;
        let api_key = lab.make_key()?;
        if cloud.is_some() {
            lab.admin(&["credits", "grant", CREDITS])?;
        }
        let bridge = Bridge { program: programs.path("1k4-bridge")?, dir: state.make("bridge")?, ollama: &ollama.url };
        bridge.configure(&lab, policy)?;
        bridge.log_in(&lab)?;
        let mut bridge = bridge.run(&state)?;
        let question =
            Question { url: &format!("{}/v1/models", lab.url), key: Some(&api_key), ca_file: Some(&lab.ca_file), json: None };
        let model = bridge.until(stop, START, "the Lab to list the bridge's models", |_| {
            lab.service.ensure_runs()?;
            let listed = curl::ask(&question)?.and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
            let ids = listed.iter().flat_map(|list| list["data"].as_array()).flatten().filter_map(|model| model["id"].as_str());
            Ok(ids.into_iter().find(|id| id.starts_with("local/")).map(str::to_owned))
        })?;
        let access = Access { lab_url: lab.url, api_key, ca_file: lab.ca_file, model };
        let lab_program = lab.program.to_owned();
        Ok(Self { bridge, lab: lab.service, ollama, cloud, access, lab_program, _state: state })
    }

    /// How a client gets in.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Where Ollama answers.
    pub(crate) fn ollama_url(&self) -> &str {
        &self.ollama.url
    }

    /// Whether it is a real one.
    pub(crate) fn ollama_is_real(&self) -> bool {
        self.ollama.fake.is_none()
    }

    /// The process ids of the Lab and of the bridge.
    pub(crate) fn ids(&self) -> (u32, u32) {
        (self.lab.id(), self.bridge.id())
    }

    /// What a program that uses it has to know.
    pub(crate) fn as_json(&self) -> Value {
        let mut line = json!({
            "lab_url": self.access.lab_url,
            "api_key": self.access.api_key,
            "ca_file": self.access.ca_file,
            "ollama_url": self.ollama.url,
            "ollama_is_real": self.ollama_is_real(),
            "bridge": WORKSTATION,
            "lab_program": self.lab_program,
        });
        if let Some(cloud) = &self.cloud {
            line["providers"] = cloud.as_json();
        }
        line
    }

    /// Stays until somebody asks to stop; fails when one of the processes ends before.
    pub(crate) fn hold(&mut self, stop: &Stop) -> anyhow::Result<()> {
        while stop.wait(Duration::from_millis(200)).is_ok() {
            self.bridge.ensure_runs()?;
            self.lab.ensure_runs()?;
            self.ollama.fake.as_mut().map_or(Ok(()), Service::ensure_runs)?;
            self.cloud.as_mut().map_or(Ok(()), Cloud::ensure_runs)?;
        }
        Ok(())
    }
}

impl Ollama {
    fn find_or_start(programs: &Programs, wanted: &Wanted<'_>, state: &StateDir, stop: &Stop) -> anyhow::Result<Self> {
        let models: &[&str] = match wanted {
            Wanted::Real => {
                let url = ollama_url(std::env::var("OLLAMA_HOST").ok().as_deref());
                match version(&url)? {
                    Some(version) => {
                        eprintln!("Using Ollama {version} at {url}");
                        return Ok(Self { url, fake: None });
                    }
                    None => eprintln!(
                        "No Ollama answers at {url}. To have one: install it from ollama.com, run `ollama serve` and `ollama pull llama3.2`.\n\
                         Until then a FAKE Ollama stands in as a demonstration: its words are made up."
                    ),
                }
                &[]
            }
            Wanted::Fake(models) => models,
        };
        let mut fake = Service::start(
            "the fake Ollama",
            Command::new(programs.path("fake-ollama")?).args(["--addr", "127.0.0.1:0"]),
            state.log("fake-ollama"),
        )?;
        let url = fake.until(stop, START, "the fake Ollama", |fake| {
            Ok(fake.printed().lines().find_map(|line| line.strip_prefix("listening on ").map(str::to_owned)))
        })?;
        for model in models {
            let pull = json!({"model": model, "stream": false}).to_string();
            let answer = curl::ask(&Question { url: &format!("{url}/api/pull"), json: Some(&pull), ..Question::default() })?;
            ensure!(answer.is_some_and(|answer| answer.status == 200), "the fake Ollama does not take the model {model}");
        }
        Ok(Self { url, fake: Some(fake) })
    }
}

/// The base URL that `OLLAMA_HOST` means, by Ollama's rules for host and port.
pub(crate) fn ollama_url(host: Option<&str>) -> String {
    let host = host.map(|host| host.trim().trim_matches(['"', '\'']).trim_end_matches('/')).filter(|host| !host.is_empty());
    let (scheme, rest, default_port) = match host.unwrap_or("127.0.0.1").split_once("://") {
        Some(("https", rest)) => ("https", rest, 443),
        Some((_, rest)) => ("http", rest, 80),
        None => ("http", host.unwrap_or("127.0.0.1"), 11434),
    };
    let (name, port) = match rest.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && (!name.contains(':') || name.ends_with(']')) => {
            (name, port.parse().unwrap_or(default_port))
        }
        _ => (rest, default_port),
    };
    // "Every address" is where to listen, not where to ask.
    let name = match name {
        "" | "0.0.0.0" => "127.0.0.1",
        "::" | "[::]" => "[::1]",
        name => name,
    };
    format!("{scheme}://{name}:{port}")
}

/// The version of the Ollama at `url`, if one answers.
pub(crate) fn version(url: &str) -> anyhow::Result<Option<String>> {
    let answer = curl::ask(&Question { url: &format!("{url}/api/version"), ..Question::default() })?;
    let body = answer.and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
    Ok(body.and_then(|body| body["version"].as_str().map(str::to_owned)))
}

struct Lab<'a> {
    program: &'a Path,
    /// Its configuration, where it has one.
    config: Option<PathBuf>,
    dir: PathBuf,
    service: Service,
    url: String,
    ca_file: PathBuf,
}

impl<'a> Lab<'a> {
    fn start(programs: &'a Programs, config: Option<PathBuf>, state: &StateDir, stop: &Stop) -> anyhow::Result<Self> {
        let program = programs.path("1k4-lab")?;
        let dir = state.make("lab")?;
        let port = free_port()?;
        let url = format!("https://localhost:{port}");
        let mut serve = Command::new(program);
        serve.arg("serve").args(["--listen", &format!("127.0.0.1:{port}"), "--public-url", &url]).arg("--data-dir").arg(&dir);
        if let Some(config) = &config {
            serve.arg("--config").arg(config);
        }
        let mut service = Service::start("the Lab", &mut serve, state.log("lab"))?;
        let ca_file = dir.join("ca.pem");
        service.until(stop, START, "the Lab to answer", |_| {
            Ok(curl::ask(&Question { url: &url, ca_file: Some(&ca_file), ..Question::default() })?.map(drop))
        })?;
        Ok(Self { program, config, dir, service, url, ca_file })
    }

    /// A user, a project and a key.
    fn make_key(&self) -> anyhow::Result<String> {
        self.admin(&["users", "add", "owner"])?;
        self.admin(&["projects", "add", "demonstration"])?;
        let key = self.admin(&["keys", "create"])?;
        key["key"].as_str().map(str::to_owned).context("the Lab shows no key")
    }

    fn admin(&self, words: &[&str]) -> anyhow::Result<Value> {
        let mut admin = Command::new(self.program);
        admin.arg("admin").args(words).arg("--json").arg("--data-dir").arg(&self.dir);
        if let Some(config) = &self.config {
            admin.arg("--config").arg(config);
        }
        let output = admin.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("1k4-lab cannot be started")?;
        ensure!(output.status.success(), "`1k4-lab admin {}` failed ({})", words.join(" "), output.status);
        serde_json::from_slice(&output.stdout).with_context(|| format!("`1k4-lab admin {}` printed no JSON", words.join(" ")))
    }
}

struct Bridge<'a> {
    program: &'a Path,
    dir: PathBuf,
    ollama: &'a str,
}

impl Bridge<'_> {
    fn configure(&self, lab: &Lab<'_>, policy: &str) -> anyhow::Result<()> {
        let quoted = |path: &Path| Value::from(path.to_string_lossy()).to_string();
        let config = format!(
            "lab = {}\nca_file = {}\nollama_host = {}\ndevice_name = \"{WORKSTATION}\"\ncredential_store = \"insecure-file\"\n\n[policy]\n{policy}",
            Value::from(lab.url.as_str()),
            quoted(&lab.ca_file),
            Value::from(self.ollama),
        );
        fs::write(self.dir.join("config.toml"), config).context("the bridge's configuration cannot be written")
    }

    /// `login`, with the code approved as its owner would.
    fn log_in(&self, lab: &Lab<'_>) -> anyhow::Result<()> {
        let mut login = self.command();
        login.args(["login", &lab.url, "--insecure-file-store", "--json", "--ca-file"]).arg(&lab.ca_file);
        let mut login = login.stdout(Stdio::piped()).spawn().context("1k4-bridge cannot be started")?;
        let mut lines = BufReader::new(login.stdout.take().context("no output")?).lines().map_while(Result::ok);
        let approved = lines.find_map(|line| {
            let code = serde_json::from_str::<Value>(&line).ok()?["user_code"].as_str()?.to_owned();
            Some(lab.admin(&["devices", "approve", &code]))
        });
        if !matches!(approved, Some(Ok(_))) {
            // It would wait for its approval until the code is too old. A process that has ended by itself is no failure here.
            let _ = login.kill();
        }
        // It has more to say, and would fail if nobody listened.
        lines.for_each(drop);
        let status = login.wait()?;
        match approved {
            None => bail!("`1k4-bridge login` showed no code ({status}); the reason stands above"),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) if status.success() => Ok(()),
            Some(Ok(_)) => bail!("`1k4-bridge login` failed ({status}); the reason stands above"),
        }
    }

    fn run(&self, state: &StateDir) -> anyhow::Result<Service> {
        Service::start("the bridge", self.command().arg("run"), state.log("bridge"))
    }

    fn command(&self) -> Command {
        let mut bridge = Command::new(self.program);
        bridge
            .arg("--config")
            .arg(self.dir.join("config.toml"))
            .arg("--state-dir")
            .arg(&self.dir)
            .env_remove("ONEK4_LAB")
            .env_remove("ONEK4_CA_FILE")
            .env("OLLAMA_HOST", self.ollama)
            .stdin(Stdio::null());
        bridge
    }
}

/// Where everything of one run lies; gone when it ends.
pub(crate) struct StateDir(PathBuf);

impl StateDir {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let path = home::target().join("run").join(std::process::id().to_string());
        if path.exists() {
            // Left by a process of the same number that was killed.
            fs::remove_dir_all(&path)?;
        }
        private_dir(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn make(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.0.join(name);
        private_dir(&path)?;
        Ok(path)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.log"))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

/// Keys lie in it.
fn private_dir(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("{} cannot be made", path.display()))
}

/// A port that is free now. The Lab has to know its own address before it listens.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ollama_host_is_read_as_ollama_reads_it() {
        for (host, url) in [
            (None, "http://127.0.0.1:11434"),
            (Some(""), "http://127.0.0.1:11434"),
            (Some("0.0.0.0"), "http://127.0.0.1:11434"),
            (Some(":1234"), "http://127.0.0.1:1234"),
            (Some("\"box:1234\""), "http://box:1234"),
            (Some("[::]:1234"), "http://[::1]:1234"),
            (Some("[::1]"), "http://[::1]:11434"),
            (Some("http://box"), "http://box:80"),
            (Some("https://box/"), "https://box:443"),
        ] {
            assert_eq!(ollama_url(host), url, "{host:?}");
        }
    }
}
