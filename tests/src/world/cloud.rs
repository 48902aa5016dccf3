//! The world without a workstation: a real Lab whose providers are fakes, each behind a channel of its own.
//!
//! The Lab is configured as an operator does it, by a file and by secrets in files of their own. Beside the catalogue's models every
//! provider has some that are this world's: a fake goes by the letters in their names, and all of them cost the same.

use std::{collections::HashSet, fmt::Write as _, fs, path::Path, time::Duration};

use lab_server::{
    Config, Lab,
    account::{self, api_key::NewKey},
    config::Overrides,
    store::{KeyTerms, RequestRecord, Scope},
};
use tempfile::TempDir;
use wire::{ProjectId, UserId};

use super::{PATIENCE, eventually, sign_in};
use crate::{
    caller::Caller,
    fake_provider::{FakeProvider, Kind, Outcome, Seen},
};

/// What a token of a prompt costs in this world, in nano-credits: 1 USD a million.
pub const INPUT_NANO: i64 = 1_000;
/// And a token of an answer: 5 USD a million.
pub const OUTPUT_NANO: i64 = 5_000;
/// What the owner has to begin with: a thousand credits.
pub const CREDITS_NANO: i64 = 1_000_000_000_000;

/// A provider of the Lab's, and what is behind its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provider {
    /// What the Lab calls it.
    pub name: &'static str,
    /// Whose manners it has.
    pub kind: Kind,
    /// Its usual model. Others begin with it, and a hyphen and letters behind it say how they answer.
    pub model: &'static str,
    spoken: &'static str,
}

/// Two channels: [`CloudWorld::providers`] first, [`CloudWorld::spare`] when that one fails.
pub const OPENAI: Provider = Provider { name: "openai", kind: Kind::Openai, model: "ofake", spoken: "openai" };
/// One channel.
pub const ANTHROPIC: Provider = Provider { name: "anthropic", kind: Kind::Anthropic, model: "afake", spoken: "anthropic" };
/// Likewise.
pub const GOOGLE: Provider = Provider { name: "google", kind: Kind::Gemini, model: "gfake", spoken: "gemini" };
/// Likewise.
pub const XAI: Provider = Provider { name: "xai", kind: Kind::Xai, model: "xfake", spoken: "xai" };
/// Azure's newer API; its deployments are called as its models are.
pub const AZURE: Provider = Provider { name: "azure", kind: Kind::Azure, model: "zfake", spoken: "azure" };
/// Azure's older one.
pub const DEPLOYMENTS: Provider = Provider { name: "azure-old", kind: Kind::Azure, model: "wfake", spoken: "azure-deployments" };
/// A server of the operator's own that asks for no key.
pub const HOME: Provider = Provider { name: "home", kind: Kind::Compatible, model: "hfake", spoken: "openai-compatible" };

/// All of them.
pub const PROVIDERS: [Provider; 7] = [OPENAI, ANTHROPIC, GOOGLE, XAI, AZURE, DEPLOYMENTS, HOME];

/// What a test wants different from the default.
pub struct CloudWishes {
    /// What the owner is given.
    pub credits_nano: i64,
    /// Requests that a new account has for nothing.
    pub free_requests: u32,
    /// The terms of the caller's key.
    pub terms: KeyTerms,
    /// Models beside the usual ones; their first letters say whose they are.
    pub models: Vec<&'static str>,
    /// How long a caller may take nothing of an answer.
    pub stall: Option<Duration>,
    /// Whether [`HOME`]'s model answers questions about accounts.
    pub assistant: bool,
}

impl Default for CloudWishes {
    fn default() -> Self {
        Self {
            credits_nano: CREDITS_NANO,
            free_requests: 0,
            terms: KeyTerms::default(),
            models: Vec::new(),
            stall: None,
            assistant: false,
        }
    }
}

/// Everything that runs. Dropping it ends all of it.
pub struct CloudWorld {
    /// The server.
    pub lab: Lab,
    /// Every provider's first channel.
    pub providers: FakeProvider,
    /// OpenAI's second one.
    pub spare: FakeProvider,
    /// A client with the owner's key.
    pub caller: Caller,
    /// That key.
    pub key: NewKey,
    /// Its project.
    pub project: ProjectId,
    /// The owner.
    pub user: UserId,
    dir: TempDir,
}

impl CloudWorld {
    /// The default world.
    pub async fn start() -> Self {
        Self::with(CloudWishes::default()).await
    }

    /// The default world with more models.
    pub async fn with_models(models: &[&'static str]) -> Self {
        Self::with(CloudWishes { models: models.to_vec(), ..CloudWishes::default() }).await
    }

    /// A world to one's wishes.
    ///
    /// # Panics
    /// When a part does not start: nothing can be tested then.
    pub async fn with(wishes: CloudWishes) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (providers, spare) = (FakeProvider::start_all(), FakeProvider::start(Kind::Openai));
        let file = dir.path().join("1k4-lab.toml");
        fs::write(&file, configuration(dir.path(), &wishes, &providers, &spare)).expect("the configuration file");
        let overrides = Overrides {
            config: Some(file),
            data_dir: Some(dir.path().join("lab")),
            listen: Some("127.0.0.1:0".to_owned()),
            ..Overrides::default()
        };
        let mut config = Config::load(&overrides).expect("a configuration");
        config.limits.stall = wishes.stall.unwrap_or(config.limits.stall);
        let lab = Lab::start(config).await.expect("the Lab starts");
        let user = lab.store.add_user("owner@example.com").await.expect("a user").id;
        if wishes.credits_nano > 0 {
            lab.store.grant(user, wishes.credits_nano, "to begin with").await.expect("credits");
        }
        let project = lab.store.add_project(user, "default").await.expect("a project").id;
        let (key, _) = account::create_key(&lab.store, project, "test", wishes.terms).await.expect("a key");
        let ca_pem = lab.ca_pem.clone().expect("a test CA");
        let caller = Caller::new(lab.addr, &ca_pem, Some(key.reveal().to_owned()));
        Self { lab, providers, spare, caller, key, project, user, dir }
    }

    /// A further key of the owner's first project.
    ///
    /// # Panics
    /// When none can be made.
    pub async fn key(&self, terms: KeyTerms) -> NewKey {
        let (key, _) = account::create_key(&self.lab.store, self.project, "another", terms).await.expect("a key");
        key
    }

    /// A client with another key.
    #[must_use]
    pub fn caller_with(&self, key: &NewKey) -> Caller {
        self.caller.with_key(Some(key.reveal().to_owned()))
    }

    /// A client who may manage the account.
    ///
    /// # Panics
    /// When there is no key to be had.
    pub async fn manager(&self) -> Caller {
        let terms = KeyTerms { scopes: [Scope::Manage].into_iter().collect(), ..KeyTerms::default() };
        self.caller_with(&self.key(terms).await)
    }

    /// The owner's browser, signed in.
    ///
    /// # Panics
    /// When they cannot be signed in.
    pub async fn sign_in(&self) -> Caller {
        self.caller.with_session(&sign_in(&self.lab, self.user).await)
    }

    /// Everything that was asked of a model, once there is nothing more to come: `count` records and no more.
    ///
    /// # Panics
    /// When there are not so many in time, or more.
    pub async fn records(&self, count: usize) -> Vec<RequestRecord> {
        let all = async || self.lab.store.requests(self.user).await.expect("the records can be read");
        eventually("the records are written", async || all().await.len() >= count).await;
        let records = all().await;
        let ids: HashSet<&str> = records.iter().map(|record| record.id.as_str()).collect();
        assert_eq!((records.len(), ids.len()), (count, count), "each request leaves one record");
        records
    }

    /// The record of one request, once it is over.
    ///
    /// # Panics
    /// When there is none in time.
    pub async fn record(&self, request: &str) -> RequestRecord {
        let id = request.parse().expect("a request's id");
        let find = async || self.lab.store.request(self.project, id).await.expect("the records can be read");
        eventually("the record is written", async || find().await.is_some()).await;
        find().await.expect("it was there")
    }

    /// Checks that what was charged, what is recorded and what is gone are one sum, and gives it.
    ///
    /// # Panics
    /// When they are not.
    pub async fn spent(&self, given_nano: i64, records: &[RequestRecord]) -> i64 {
        let ledger = self.lab.store.ledger_sum(self.user).await.expect("the ledger");
        let balance = self.lab.store.balance(self.user).await.expect("the balance").expect("a balance").balance_nano;
        let recorded: i64 = records.iter().map(|record| record.cost_nano).sum();
        assert_eq!((balance, given_nano - ledger), (ledger, recorded), "balance, ledger and records are one sum");
        recorded
    }

    /// Waits until somebody stands at a hold of the first channels.
    ///
    /// # Panics
    /// When nobody does in time.
    pub async fn held(&self, count: usize) {
        self.providers.wait_for(|seen| seen.iter().filter(|seen| seen.held).count() == count).await;
    }

    /// The last request that reached the first channels.
    ///
    /// # Panics
    /// When there was none.
    #[must_use]
    pub fn last_seen(&self) -> Seen {
        self.providers.log().pop().expect("somebody was asked")
    }

    /// Waits until the first channels noticed that somebody hung up, and says when.
    ///
    /// # Panics
    /// When they do not in time.
    pub async fn hung_up(&self) -> std::time::Instant {
        self.providers.wait_for(|log| log.iter().any(|seen| gone(seen).is_some())).await;
        self.providers.log().iter().find_map(gone).expect("somebody is gone")
    }

    /// Where everything of this world lies on disk.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// When the fake noticed that its client was gone.
#[must_use]
pub fn gone(seen: &Seen) -> Option<std::time::Instant> {
    match seen.outcome {
        Outcome::ClientGone { at, .. } => Some(at),
        Outcome::Running | Outcome::Finished | Outcome::Stopped => None,
    }
}

/// Waits for what should come.
///
/// # Panics
/// When it does not come in time.
pub async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("not in time: {what}"),
    }
}

fn configuration(dir: &Path, wishes: &CloudWishes, providers: &FakeProvider, spare: &FakeProvider) -> String {
    let mut text = format!("[trial]\nfree_requests = {}\n", wishes.free_requests);
    if wishes.assistant {
        let _ = write!(
            text,
            "[assistant]\nkind = \"{}\"\nmodel = \"{}\"\nbase_url = \"{}/v1\"\n",
            HOME.spoken,
            HOME.model,
            providers.url(HOME.kind)
        );
    }
    for provider in PROVIDERS {
        let of_provider = |model: &&&str| model.starts_with(provider.model);
        let models: Vec<&str> = [&provider.model].into_iter().chain(wishes.models.iter().filter(of_provider)).copied().collect();
        let _ = write!(text, "[[providers]]\nname = \"{}\"\nkind = \"{}\"\n", provider.name, provider.spoken);
        let base = match provider {
            DEPLOYMENTS | AZURE => format!("{}/openai", providers.url(provider.kind)),
            _ => providers.url(provider.kind),
        };
        let base = if provider == AZURE { base + "/v1" } else { base };
        // A base address of its own is taken at its word.
        let base = if provider == HOME { base + "/v1" } else { base };
        text += &channel(dir, provider, "first", &base, &providers.key(provider.kind), &models);
        if provider == OPENAI {
            text += &channel(dir, provider, "second", &spare.origin(), &spare.key(provider.kind), &models);
            text += "priority = 1\n";
        }
        for model in models {
            let _ = write!(
                text,
                "[[models]]\nid = \"{model}\"\nprovider = \"{}\"\nmax_input = 100000\nmax_output = 1000\n\
                 usd_per_mtok = {{ input = 1, output = 5 }}\n",
                provider.name
            );
        }
    }
    text
}

fn channel(dir: &Path, provider: Provider, which: &str, base: &str, key: &str, models: &[&str]) -> String {
    let name = format!("{}-{which}", provider.name);
    let mut text = format!("[[providers.channels]]\nname = \"{name}\"\nbase_url = \"{base}\"\n");
    if provider != HOME {
        let secret = dir.join(format!("{name}.key"));
        fs::write(&secret, key).expect("the secret's file");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("a file of its owner's own");
        }
        let _ = writeln!(text, "secret = {{ file = '{}' }}", secret.display());
    }
    if provider.kind == Kind::Azure {
        let pairs: Vec<String> = models.iter().map(|model| format!("\"{model}\" = \"{model}\"")).collect();
        let _ = writeln!(text, "deployments = {{ {} }}", pairs.join(", "));
    }
    text
}
