//! A whole 1K4 on this machine: a real Lab, a real bridge paired to it through a fault proxy, and a fake Ollama.

pub mod cloud;

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use bridge_core::{
    bridge::{Bridge, Handle, Tuning},
    config::{Config as BridgeConfig, Origin, Overrides, Pairing, Told},
    credentials::{self, Credentials, Store as KeyStore},
    dial::Dialer,
    policy::Policy,
    status::{LinkState, Status},
};
use hyper_util::client::proxy::matcher::Matcher;
use lab_server::{
    Config as LabConfig, Lab,
    account::{self, session},
    config::agents::Agents,
    lab::tools::reach::HostPort,
    store::{Enrolment, MAIL, Rates, RequestRecord, Subject},
};
use tempfile::TempDir;
use tokio::sync::watch;
use wire::{DeviceId, UserId};

use crate::{
    caller::Caller,
    fake_ollama::{FakeOllama, Model},
    fault_proxy::FaultProxy,
};

/// Waiting longer than this for something that should happen is a failure.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a test wants different from the default.
#[derive(Default)]
pub struct Wishes {
    /// The owner's policy.
    pub policy: Policy,
    /// The resume window on both sides.
    pub resume_window: Option<Duration>,
    /// Proxies for the bridge.
    pub proxies: Option<Matcher>,
    /// An Ollama other than the fake one.
    pub ollama_url: Option<String>,
    /// Models of the fake Ollama's grammar, beside those that it has anyway.
    pub models: Vec<String>,
    /// The longest wait before the bridge dials again.
    pub longest_wait: Option<Duration>,
    /// What agents reach although it is on this machine.
    pub allow_private: Vec<HostPort>,
}

/// Everything that runs. Dropping it ends all of it.
pub struct World {
    /// The server.
    pub lab: Lab,
    /// The workstation's bridge.
    pub bridge: Handle,
    /// The fake Ollama beside the bridge.
    pub ollama: FakeOllama,
    /// What stands between bridge and Lab.
    pub network: FaultProxy,
    /// A client with the owner's key.
    pub caller: Caller,
    /// The owner.
    pub user: UserId,
    /// The workstation.
    pub device: DeviceId,
    /// The bridge's configuration, for a second one of the same identity.
    pub bridge_config: BridgeConfig,
    dir: TempDir,
}

impl World {
    /// The default world, with the link up and the models known.
    pub async fn start() -> Self {
        Self::with(Wishes::default()).await
    }

    /// A world to one's wishes.
    ///
    /// # Panics
    /// When a part does not start: nothing can be tested then.
    pub async fn with(wishes: Wishes) -> Self {
        let world = Self::without_waiting(wishes).await;
        world.wait(|status| matches!(status.link, LinkState::Online { .. }) && !status.models.is_empty()).await;
        world.models_are_listed().await;
        world
    }

    /// A world whose link may never come up.
    ///
    /// # Panics
    /// When a part does not start.
    pub async fn without_waiting(wishes: Wishes) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ollama = FakeOllama::start();
        wishes.models.iter().for_each(|name| ollama.add_model(Model::new(name)));
        let network = FaultProxy::start(([127, 0, 0, 1], 9).into());
        let lab_url = format!("https://localhost:{}", network.addr().port());
        let lab = Lab::start(LabConfig {
            listen: ([127, 0, 0, 1], 0).into(),
            public_url: Some(lab_url.parse().expect("an origin")),
            resume_window: wishes.resume_window.unwrap_or(wire::relay::RESUME_WINDOW),
            // These journeys press the link; how many may run at once for one person is the cloud's journeys' matter.
            rates: Rates { concurrent: NonZeroU32::new(2_000), ..Rates::default() },
            agents: Agents { allow_private: wishes.allow_private, ..Agents::default() },
            ..LabConfig::in_dir(dir.path().join("lab"))
        })
        .await
        .expect("the Lab starts");
        network.retarget(lab.addr);
        let user = lab.store.add_user("owner@example.com").await.expect("a user");
        let project = lab.store.add_project(user.id, "default").await.expect("a project");
        let (key, _) =
            account::create_key(&lab.store, project.id, "test", lab_server::store::KeyTerms::default()).await.expect("a key");
        let ca_pem = lab.ca_pem.clone().expect("a test CA");
        let ca_file = dir.path().join("ca.pem");
        std::fs::write(&ca_file, &ca_pem).expect("the CA file");

        let origin: Origin = lab_url.parse().expect("an origin");
        let ollama_url = wishes.ollama_url.unwrap_or_else(|| ollama.url());
        let bridge_config = bridge_config(dir.path().join("bridge"), &origin, ca_file, &ollama_url, wishes.policy);
        let device = enrol(&lab, &bridge_config, &origin, user.id).await;
        let default = Tuning::default();
        let tuning = Tuning {
            resume_window: wishes.resume_window.unwrap_or(default.resume_window),
            longest_wait: wishes.longest_wait.unwrap_or(default.longest_wait),
        };
        let bridge = start_bridge(&bridge_config, wishes.proxies, &tuning);
        let caller = Caller::new(lab.addr, &ca_pem, Some(key.reveal().to_owned()));
        Self { lab, bridge, ollama, network, caller, user: user.id, device, bridge_config, dir }
    }

    /// A second bridge with the same identity, as a copied disk would make it.
    #[must_use]
    pub fn twin(&self) -> Handle {
        let mut config = self.bridge_config.clone();
        config.paths.socket = self.dir.path().join("twin.sock");
        start_bridge(&config, None, &Tuning::default())
    }

    /// The owner's browser, signed in.
    ///
    /// # Panics
    /// When they cannot be signed in.
    pub async fn sign_in(&self) -> Caller {
        self.caller.with_session(&sign_in(&self.lab, self.user).await)
    }

    /// Waits until the bridge's status is as described.
    ///
    /// # Panics
    /// When it does not become so in time.
    pub async fn wait(&self, is_so: impl FnMut(&Status) -> bool) -> Arc<Status> {
        wait(self.bridge.status(), is_so).await
    }

    /// Waits until the Lab lists a model: it has heard the bridge's snapshot.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn models_are_listed(&self) {
        eventually("a model is listed", async || !self.caller.models().await.is_empty()).await;
    }

    /// The records of all requests but lists of models, once there are `count` of them.
    ///
    /// # Panics
    /// When there are not so many in time.
    pub async fn records(&self, count: usize) -> Vec<RequestRecord> {
        eventually("the records are written", async || self.all_records().await.len() >= count).await;
        self.all_records().await
    }

    /// Where everything of this world lies on disk.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    async fn all_records(&self) -> Vec<RequestRecord> {
        let mut records = self.lab.store.requests(self.user).await.expect("the records can be read");
        // The world itself lists models, to see whether they are there.
        records.retain(|record| record.operation != "models.list");
        records
    }
}

/// Signs somebody in, without the ceremony; signing in has tests of its own.
///
/// # Panics
/// When they cannot be signed in.
pub async fn sign_in(lab: &Lab, user: UserId) -> session::NewSession {
    let now = lab.clock.now_ms();
    let known = lab.store.identities(user).await.expect("the identities");
    let identity = match known.first() {
        Some(identity) => identity.id,
        None => {
            let subject = Subject { provider: MAIL.to_owned(), subject: format!("{user}@example.com"), email: None };
            lab.store.add_identity(user, &subject, now).await.expect("an identity").id
        }
    };
    session::open(&lab.store, user, identity, &session::Browser::of(None), now).await.expect("a session")
}

/// Waits until a bridge's status is as described.
///
/// # Panics
/// When it does not become so in time.
pub async fn wait(mut status: watch::Receiver<Arc<Status>>, mut is_so: impl FnMut(&Status) -> bool) -> Arc<Status> {
    let found = tokio::time::timeout(PATIENCE, status.wait_for(|status| is_so(status))).await;
    if let Ok(found) = found {
        return Arc::clone(&found.expect("the bridge runs"));
    }
    drop(found);
    let last = status.borrow();
    panic!("the status did not become as expected: {last:?}")
}

/// Asks again and again until it is so. For what cannot be watched: another process, a database.
///
/// # Panics
/// When it does not become so in time.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn start_bridge(config: &BridgeConfig, proxies: Option<Matcher>, tuning: &Tuning) -> Handle {
    // The environment's proxies are none of a test's business.
    let proxies = proxies.unwrap_or_else(|| Matcher::builder().build());
    let dialer = Dialer::with_proxies(config.ca_file.as_deref(), proxies).expect("a dialer");
    Bridge::start_with(config.clone(), dialer, tuning).expect("the bridge starts")
}

/// A bridge's configuration for a state directory of its own.
///
/// # Panics
/// When a part of it is invalid.
#[must_use]
pub fn bridge_config(state_dir: PathBuf, lab: &Origin, ca_file: PathBuf, ollama_url: &str, policy: Policy) -> BridgeConfig {
    let overrides = Overrides {
        config_file: None,
        state_dir: Some(state_dir.clone()),
        lab: Some(lab.clone()),
        ca_file: Some(ca_file),
        ollama: Some(ollama_url.parse().expect("Ollama's address")),
        device_name: Some("workstation".to_owned()),
        credential_store: None,
    };
    let mut config = BridgeConfig::load(overrides, |_| None).expect("a configuration");
    config.credential_store = KeyStore::File { path: state_dir.join("device.key") };
    config.policy = policy;
    config
}

/// What `login` does, without its five seconds of polite waiting; the journey of pairing has a test of its own.
async fn enrol(lab: &Lab, config: &BridgeConfig, origin: &Origin, owner: UserId) -> DeviceId {
    let key = credentials::new_key().expect("a key");
    let credentials = Credentials::open(config.credential_store.clone(), origin).expect("a key store");
    credentials.save(&key).await.expect("the key is kept");
    let public_key = key.verifying_key();
    let enrolment = Enrolment { owner, public_key: public_key.as_bytes(), hostname: "workstation", os: "test", version: "0.0.0" };
    let device = lab.store.enrol_device(&enrolment).await.expect("the device is enrolled");
    let pairing = Pairing { lab: origin.clone(), device: device.id, owner: "owner@example.com".to_owned(), told: Told::default() };
    pairing.save(&config.paths).expect("the pairing is kept");
    device.id
}
