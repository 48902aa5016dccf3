//! Fake cloud providers, and a Lab's configuration that names them.

use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use serde_json::{Map, Value, json};

use crate::{home::Programs, service::Service, stop::Stop};

/// How long the process may take until it serves. Generous: the machine may be compiling something else.
const START: Duration = Duration::from_secs(60);

/// A provider of the Lab's, and one account at it.
struct Account {
    /// What the provider is called in the Lab; several accounts may be with one.
    provider: &'static str,
    kind: &'static str,
    /// Which of the fakes it is, as that one says.
    fake: &'static str,
    /// What stands behind the fake's address.
    root: &'static str,
    /// What it may be asked for.
    models: &'static [&'static str],
    /// What it fails at.
    troubled: &'static [&'static str],
    /// The deployment of each model, where they are called otherwise.
    deployments: &'static [(&'static str, &'static str)],
}

/// What the suites ask for. The letters in a name are how a fake is told to misbehave. The Lab leaves an account alone that misbehaved,
/// so each of these names is asked once, and has an account of its own.
const ACCOUNTS: [Account; 7] = [
    Account {
        provider: "openai",
        kind: "openai",
        fake: "openai.com",
        root: "",
        models: &["gpt-fake", "gpt-fake-embedding", "gpt-fake-image", "gpt-fake-c3"],
        troubled: &[
            "gpt-fake-x3",
            "gpt-fake-h400",
            "gpt-fake-h401",
            "gpt-fake-h402",
            "gpt-fake-h403",
            "gpt-fake-h404",
            "gpt-fake-h422",
            "gpt-fake-h429",
            "gpt-fake-h500",
            "gpt-fake-h503",
            "gpt-fake-h400-node",
            "gpt-fake-h401-node",
            "gpt-fake-h404-node",
            "gpt-fake-h429-node",
            "gpt-fake-h500-node",
        ],
        deployments: &[],
    },
    Account {
        provider: "anthropic",
        kind: "anthropic",
        fake: "anthropic.com",
        root: "",
        models: &["claude-fake", "claude-fake-small", "claude-fake-c5"],
        troubled: &[
            "claude-fake-x3",
            "claude-fake-h400",
            "claude-fake-h401",
            "claude-fake-h404",
            "claude-fake-h413",
            "claude-fake-h429",
            "claude-fake-h500",
            "claude-fake-h529",
            "claude-fake-h400-node",
            "claude-fake-h401-node",
            "claude-fake-h404-node",
            "claude-fake-h429-node",
            "claude-fake-h500-node",
        ],
        deployments: &[],
    },
    Account {
        provider: "google",
        kind: "gemini",
        fake: "googleapis.com",
        root: "",
        models: &["gemini-fake", "gemini-fake-embedding", "text-fake-embedding"],
        troubled: &[
            "gemini-fake-h400-usual",
            "gemini-fake-h401-usual",
            "gemini-fake-h403-usual",
            "gemini-fake-h404-usual",
            "gemini-fake-h429-usual",
            "gemini-fake-h500-usual",
            "gemini-fake-h503-usual",
            "gemini-fake-h400-v1beta",
            "gemini-fake-h401-v1beta",
            "gemini-fake-h403-v1beta",
            "gemini-fake-h404-v1beta",
            "gemini-fake-h429-v1beta",
            "gemini-fake-h500-v1beta",
            "gemini-fake-h503-v1beta",
        ],
        deployments: &[],
    },
    Account { provider: "xai", kind: "xai", fake: "x.ai", root: "", models: &["grok-fake"], troubled: &[], deployments: &[] },
    Account {
        provider: "azure",
        kind: "azure",
        fake: "azure.com",
        root: "",
        models: &["azure-fake"],
        troubled: &[],
        deployments: &[("azure-fake", "azure-fake")],
    },
    Account {
        provider: "azure",
        kind: "azure-deployments",
        fake: "azure.com",
        root: "",
        models: &["deployed-fake"],
        troubled: &[],
        deployments: &[("deployed-fake", "operators-deployment")],
    },
    Account {
        provider: "other",
        kind: "openai-compatible",
        fake: "compatible",
        root: "/v1",
        models: &["other-fake"],
        troubled: &[],
        deployments: &[],
    },
];

/// The fake providers, up.
pub(crate) struct Cloud {
    service: Service,
    fakes: Vec<Fake>,
}

/// One of them.
struct Fake {
    name: String,
    url: String,
    /// It opens nothing but the fake.
    key: String,
}

impl Cloud {
    /// Starts all of them as one process.
    pub(crate) fn start(programs: &Programs, log: PathBuf, stop: &Stop) -> anyhow::Result<Self> {
        let mut command = Command::new(programs.path("fake-provider")?);
        let mut service = Service::start("the fake providers", command.args(["--kind", "all", "--addr", "127.0.0.1:0"]), log)?;
        let fakes = service.until(stop, START, "the fake providers", |service| {
            let printed = service.printed();
            let fakes: Vec<Fake> = printed.lines().filter_map(Fake::parse).collect();
            let is_whole = ACCOUNTS.iter().all(|account| fakes.iter().any(|fake| fake.name == account.fake));
            Ok((is_whole && printed.ends_with('\n')).then_some(fakes))
        })?;
        Ok(Self { service, fakes })
    }

    /// Writes a Lab's configuration that names them into `dir`, and their keys into files beside it.
    pub(crate) fn configure(&self, dir: &Path) -> anyhow::Result<PathBuf> {
        for fake in &self.fakes {
            write_secret(&dir.join(&fake.name), &fake.key)?;
        }
        let path = dir.join("1k4-lab.toml");
        std::fs::write(&path, self.configuration(dir)?).context("the Lab's configuration cannot be written")?;
        Ok(path)
    }

    fn configuration(&self, dir: &Path) -> anyhow::Result<String> {
        // The suites ask faster than people do.
        let mut text = "[limits]\nrequests_per_minute = 100000\ntokens_per_minute = 1000000000\nconcurrent = 1000\n".to_owned();
        let mut providers: Vec<&str> = ACCOUNTS.iter().map(|account| account.provider).collect();
        providers.dedup();
        for provider in providers {
            writeln!(text, "\n[[providers]]\nname = \"{provider}\"")?;
            for account in ACCOUNTS.iter().filter(|account| account.provider == provider) {
                let fake = self.fakes.iter().find(|fake| fake.name == account.fake).context("a fake provider is missing")?;
                let mut channel = |name: &str, models: &[&str]| {
                    write!(
                        text,
                        "[[providers.channels]]\nname = \"{name}\"\nkind = \"{}\"\nbase_url = \"{}{}\"\n\
                         secret = {{ file = {} }}\nmodels = {models:?}\n",
                        account.kind,
                        fake.url,
                        account.root,
                        Value::from(dir.join(&fake.name).to_string_lossy()),
                    )?;
                    let deployments: Vec<String> =
                        account.deployments.iter().map(|(model, deployment)| format!("\"{model}\" = \"{deployment}\"")).collect();
                    if !deployments.is_empty() {
                        writeln!(text, "deployments = {{ {} }}", deployments.join(", "))?;
                    }
                    Ok::<_, std::fmt::Error>(())
                };
                channel(account.kind, account.models)?;
                for model in account.troubled {
                    channel(model, &[*model])?;
                }
            }
        }
        for account in &ACCOUNTS {
            for model in account.models.iter().chain(account.troubled) {
                write!(
                    text,
                    "\n[[models]]\nid = \"{model}\"\nprovider = \"{provider}\"\nmax_input = 100000\nmax_output = 10000\n\
                     usd_per_mtok = {{ input = \"2\", cached = \"0.2\", cache_write_short = \"2.5\", cache_write_long = \"4\", \
                     output = \"10\", output_image = \"40\" }}\n",
                    provider = account.provider,
                )?;
            }
        }
        Ok(text)
    }

    /// What a program has to know to ask them directly.
    pub(crate) fn as_json(&self) -> Value {
        let fakes = self.fakes.iter().map(|fake| (fake.name.clone(), json!({"url": fake.url, "key": fake.key})));
        Value::Object(fakes.collect::<Map<_, _>>())
    }

    /// Fails if the process has ended.
    pub(crate) fn ensure_runs(&mut self) -> anyhow::Result<()> {
        self.service.ensure_runs()
    }
}

impl Fake {
    /// A line of three words: which, where, and its key.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ').map(str::to_owned);
        let (name, url, key) = (words.next()?, words.next()?, words.next()?);
        (url.starts_with("http") && words.next().is_none()).then_some(Self { name, url, key })
    }
}

/// The Lab takes a secret's file that its owner alone can read.
fn write_secret(path: &Path, secret: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("{} cannot be made", path.display()))?;
    file.write_all(secret.as_bytes()).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fake_says_three_words() {
        let fake = Fake::parse("x.ai http://127.0.0.1:1/x.ai xai-fake").unwrap();
        assert_eq!((fake.name.as_str(), fake.url.as_str(), fake.key.as_str()), ("x.ai", "http://127.0.0.1:1/x.ai", "xai-fake"));
        assert!(Fake::parse("listening on http://127.0.0.1:1").is_none());
    }
}
