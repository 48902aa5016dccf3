//! The bridge as a whole: starts the parts, owns the link's state, and writes the one [`Status`] that everybody watches.
//!
//! Three tasks live as long as the bridge: [`Linker`] dials and holds the link, the composer turns what the parts know into
//! [`Status`] and into the snapshot that the Lab sees, and the sweeper ends relays that nobody reads any more.

mod linker;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wire::{
    ModelName, RelayId,
    relay::{RESUME_WINDOW, Snapshot},
};

use self::linker::Linker;
use crate::{
    config::{Config, ConfigError, Pairing},
    credentials::Store,
    dial::{DialError, Dialer},
    gpu::Gpus,
    ollama::{self, Inventory, Ollama, Runs},
    policy::{InvalidPolicy, Policy},
    relay::Relays,
    shared::{self, Paused, Shared},
    status::{Activity, LinkState, Pause, Status, now_ms},
};

/// The status is composed at most this often: ten thousand relays a second are one change to whoever looks.
const COMPOSE_PAUSE: Duration = Duration::from_millis(50);
/// A pause that runs out and quiet hours that begin are noticed within this.
const CLOCK_EVERY: Duration = Duration::from_secs(1);
/// How long relays may finish when the bridge is told to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Starts bridges.
pub struct Bridge;

/// Why a bridge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Trust or proxies cannot be set up.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The system gives no thread.
    #[error("the system is out of threads or memory; close something and try again")]
    Exhausted,
}

/// Why a policy was not taken.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A value is out of its range.
    #[error(transparent)]
    Invalid(#[from] InvalidPolicy),
    /// It cannot be kept on disk.
    #[error(transparent)]
    NotSaved(#[from] ConfigError),
}

/// What tests set and nobody else.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// How long a generation outlives its link.
    pub resume_window: Duration,
    /// The longest wait before the Lab is dialled again.
    pub longest_wait: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { resume_window: RESUME_WINDOW, longest_wait: Duration::MAX }
    }
}

impl Bridge {
    /// Starts a bridge on the current runtime.
    ///
    /// # Errors
    /// When trust or proxies cannot be set up, or the system gives no thread. A Lab that cannot be reached is no error: it is a state.
    pub fn start(config: Config) -> Result<Handle, StartError> {
        let dialer = Dialer::new(config.ca_file.as_deref())?;
        Self::start_with(config, dialer, &Tuning::default())
    }

    /// As [`Bridge::start`], with a dialer of one's own and a test's tuning.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start_with(config: Config, dialer: Dialer, tuning: &Tuning) -> Result<Handle, StartError> {
        let gpus = Gpus::start().map_err(|_| StartError::Exhausted)?;
        let ollama = Ollama::new(config.ollama.clone());
        let inventory = ollama::watch(ollama.clone());
        let policy = watch::Sender::new(Arc::new(config.policy.clone()));
        let pause = watch::Sender::new(Pause::Serving);
        let relays = Relays::new(policy.subscribe(), pause.subscribe(), ollama.clone(), inventory.clone(), tuning.resume_window);
        // A file that cannot be read is the linker's to report.
        let link = match Pairing::load(&config.paths) {
            Ok(Some(pairing)) => LinkState::Connecting { lab: pairing.lab.to_string(), attempt: 1 },
            Ok(None) | Err(_) => LinkState::Unpaired,
        };
        if let Store::File { path } = &config.credential_store {
            tracing::warn!(path = %path.display(), "the device's key lies in a file that is not encrypted, as configured");
        }
        let shared = Arc::new({
            let snapshot = Snapshot { name: config.device_name.clone(), version: version(), ..Snapshot::default() };
            let status = Status {
                version: version(),
                name: config.device_name.clone(),
                link: link.clone(),
                credential_store: None,
                ollama: snapshot.ollama.clone(),
                ollama_url: config.ollama.as_str().to_owned(),
                models: Vec::new(),
                loaded: Vec::new(),
                gpus: Vec::new(),
                relays: Vec::new(),
                pause: Pause::Serving,
                policy: config.policy.summary(false),
            };
            Shared {
                config,
                relays: Arc::clone(&relays),
                ollama,
                policy,
                pause,
                link: watch::Sender::new(link),
                snapshot: watch::Sender::new(Arc::new(snapshot)),
                status: watch::Sender::new(Arc::new(status)),
                gpus: watch::Sender::new(Vec::new()),
                inventory,
                wake: Notify::new(),
                paused: Mutex::new(None),
                worked: Mutex::new(None),
                stop: CancellationToken::new(),
                tasks: TaskTracker::new(),
            }
        });
        shared.spawn(relays.sweep());
        shared.spawn(look_at_gpus(Arc::clone(&shared), gpus));
        shared.spawn(watch_the_clock(Arc::clone(&shared)));
        shared.spawn(compose(Arc::clone(&shared)));
        shared.spawn(Linker::new(Arc::clone(&shared), dialer, tuning.longest_wait).run());
        Ok(Handle { shared })
    }
}

/// A handle on a running bridge.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// The state, now and on every change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<Status>> {
        self.shared.status.subscribe()
    }

    /// Takes no more work, for a while or until resumed. What runs goes on.
    pub fn pause(&self, for_: Option<Duration>) {
        let until_ms = for_.map(|d| now_ms().saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)));
        self.shared.set_paused(Some(Paused { until_ms }));
    }

    /// Takes work again.
    pub fn resume(&self) {
        self.shared.set_paused(None);
    }

    /// The owner's policy.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.shared.policy()
    }

    /// Changes the owner's policy, for good. It holds from the next request on.
    ///
    /// # Errors
    /// When a value is out of range or the policy cannot be saved; the old one then stays.
    pub async fn set_policy(&self, policy: Policy) -> Result<(), PolicyError> {
        policy.validate()?;
        let paths = self.shared.config.paths.clone();
        let saved = policy.clone();
        let written = tokio::task::spawn_blocking(move || paths.save_policy(&saved)).await;
        // Writing a file neither panics nor is cancelled.
        written.unwrap_or(Ok(()))?;
        self.shared.policy.send_replace(Arc::new(policy));
        self.shared.refresh_pause();
        Ok(())
    }

    /// What has been done lately, oldest first. No word of any content.
    #[must_use]
    pub fn activity(&self) -> Vec<Activity> {
        self.shared.relays.activity()
    }

    /// Dials at once, with the pairing and the key as they are on disk now.
    pub fn retry_now(&self) {
        self.shared.wake.notify_one();
    }

    /// Ends a relay: the owner wants the GPU back. Returns whether there was one.
    #[must_use]
    pub fn cancel(&self, relay: RelayId) -> bool {
        self.shared.relays.cancel(relay)
    }

    /// The local Ollama.
    #[must_use]
    pub fn ollama(&self) -> &Ollama {
        &self.shared.ollama
    }

    /// Everything that Ollama has, shared or not.
    #[must_use]
    pub fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.shared.inventory.borrow())
    }

    /// The configuration that the bridge was started with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Stops in order: no new work, ten seconds for what runs, then the link.
    pub async fn shutdown(&self) {
        self.shared.set_paused(Some(Paused { until_ms: None }));
        let mut changes = self.shared.relays.changes();
        let idle = async {
            // Until the Lab has the last byte: an answer that is finished here is not delivered yet.
            while self.shared.relays.is_wanted() {
                // The sender lives as long as the relays.
                let _ = changes.changed().await;
            }
        };
        let _ = tokio::time::timeout(STOP_LIMIT, idle).await;
        self.shared.stop.cancel();
        self.stopped().await;
    }

    /// Ready when the bridge has stopped.
    pub async fn stopped(&self) {
        self.shared.stop.cancelled().await;
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }
}

async fn watch_the_clock(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(CLOCK_EVERY);
    loop {
        tick.tick().await;
        shared.note_work();
        shared.refresh_pause();
    }
}

async fn look_at_gpus(shared: Arc<Shared>, driver: Gpus) {
    let mut tick = tokio::time::interval(shared::GPU_EVERY);
    loop {
        tick.tick().await;
        let found = driver.read().await;
        shared.gpus.send_if_modified(|gpus| {
            let is_new = *gpus != found;
            *gpus = found;
            is_new
        });
    }
}

/// The sole writer of the status and of the snapshot.
async fn compose(shared: Arc<Shared>) {
    let mut inventory = shared.inventory.clone();
    let mut policy = shared.policy.subscribe();
    let mut pause = shared.pause.subscribe();
    let mut link = shared.link.subscribe();
    let mut gpus = shared.gpus.subscribe();
    let mut relays = shared.relays.changes();
    loop {
        let now_policy = Arc::clone(&policy.borrow_and_update());
        let now_pause = *pause.borrow_and_update();
        let now_link = link.borrow_and_update().clone();
        let now_gpus = gpus.borrow_and_update().clone();
        relays.mark_unchanged();
        let (state, models, loaded) = {
            let inventory = inventory.borrow_and_update();
            let here = |name: &ModelName| inventory.models.iter().any(|m| m.model.name == *name && m.runs == Runs::Here);
            let is_shared = |name: &ModelName| now_policy.shares(name) && here(name);
            let models: Vec<_> = inventory.models.iter().map(|m| &m.model).filter(|m| is_shared(&m.name)).cloned().collect();
            let loaded: Vec<_> = inventory.loaded.iter().filter(|m| is_shared(&m.name)).cloned().collect();
            (inventory.state.clone(), models, loaded)
        };
        let snapshot = Snapshot {
            name: shared.config.device_name.clone(),
            version: version(),
            ollama: state,
            models,
            loaded,
            gpus: now_gpus,
            policy: now_policy.summary(now_pause != Pause::Serving),
            relays: Vec::new(),
            queued: 0,
        };
        let status = Status {
            version: snapshot.version.clone(),
            name: snapshot.name.clone(),
            link: now_link,
            credential_store: Some(store_in_words(&shared.config.credential_store)),
            ollama: snapshot.ollama.clone(),
            ollama_url: shared.config.ollama.as_str().to_owned(),
            models: snapshot.models.clone(),
            loaded: snapshot.loaded.clone(),
            gpus: snapshot.gpus.clone(),
            relays: shared.relays.running(),
            pause: now_pause,
            policy: snapshot.policy.clone(),
        };
        shared.snapshot.send_if_modified(|current| {
            let is_new = **current != snapshot;
            *current = Arc::new(snapshot);
            is_new
        });
        shared.status.send_if_modified(|current| {
            let is_new = **current != status;
            *current = Arc::new(status);
            is_new
        });
        // The senders live in `shared`, so none of these can fail.
        tokio::select! {
            _ = inventory.changed() => {}
            _ = policy.changed() => {}
            _ = pause.changed() => {}
            _ = link.changed() => {}
            _ = gpus.changed() => {}
            _ = relays.changed() => tokio::time::sleep(COMPOSE_PAUSE).await,
        }
    }
}

fn store_in_words(store: &Store) -> String {
    match store {
        Store::Keyring => "the system keyring".to_owned(),
        Store::SystemdCredential { .. } => "a systemd credential".to_owned(),
        Store::File { path } => format!("the unencrypted file {}", path.display()),
    }
}

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}
