//! What Ollama has, kept up to date: models that appear and go, what is in memory, whether it answers at all.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::watch, time};
use tracing::Instrument;
use wire::{
    ModelName,
    relay::{LoadedModel, Model, OllamaState},
};

#[cfg(target_os = "linux")]
use super::listener;
use super::{Error, Ollama, Version, forget_parent};
use crate::policy::{guard::KnownModel, shortest};

/// How often Ollama is looked at. It announces nothing, and a change is to be seen within 2 s.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Every how many looks the cloud switch and the owner of the port are looked at, and whenever Ollama comes back.
const CLOUD_EVERY: u32 = 10;

/// What Ollama has, at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Inventory {
    /// Whether it answers, and as which version.
    pub state: OllamaState,
    /// The models on its disk; empty while it does not answer.
    pub models: Vec<Installed>,
    /// The models in memory.
    pub loaded: Vec<LoadedModel>,
    /// Whether its owner switched off the models of Ollama's cloud; `None` where it does not say.
    pub cloud_disabled: Option<bool>,
}

/// A model in Ollama's list.
#[derive(Debug, Clone, PartialEq)]
pub struct Installed {
    /// What Ollama says of it.
    pub model: Model,
    /// Whose computer would do the work.
    pub runs: Runs,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// Where this Ollama is.
    Here,
    /// Somewhere else: the entry only points there.
    Elsewhere,
}

impl Inventory {
    /// What is known of the model that `name` means, in any spelling under which Ollama would find it.
    #[must_use]
    pub fn known_model(&self, name: &ModelName) -> Option<KnownModel> {
        let wanted = shortest(name.as_str());
        let mut found = self.models.iter().filter(|m| shortest(m.model.name.as_str()) == wanted).peekable();
        found.peek()?;
        // Two entries that differ in case only: which one Ollama takes is its secret, so both must run here.
        Some(if found.all(|m| m.runs == Runs::Here) { KnownModel::Local } else { KnownModel::Remote })
    }
}

/// Looks at Ollama for as long as somebody holds the receiver, and publishes what has changed.
///
/// Must be called on a tokio runtime.
#[must_use]
pub fn watch(ollama: Ollama) -> watch::Receiver<Arc<Inventory>> {
    let (publish, inventory) = watch::channel(Arc::default());
    let watching = async move {
        let mut watcher = Watcher { ollama, looks: 0, tags: Page::default(), ps: Page::default(), cloud_disabled: None };
        let mut ticks = time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = publish.closed() => return,
                _ = ticks.tick() => {}
            }
            let seen = tokio::select! {
                () = publish.closed() => return,
                seen = watcher.look() => seen,
            };
            publish.send_if_modified(|published: &mut Arc<Inventory>| {
                let is_new = **published != seen;
                if is_new {
                    *published = Arc::new(seen);
                }
                is_new
            });
        }
    };
    tokio::spawn(watching.instrument(tracing::info_span!("ollama")));
    inventory
}

struct Watcher {
    ollama: Ollama,
    looks: u32,
    tags: Page<Installed>,
    ps: Page<LoadedModel>,
    cloud_disabled: Option<bool>,
}

impl Watcher {
    /// Ollama's version, from a program that may be trusted to be Ollama: any user of this computer can take a port that is free,
    /// and would then be sent the prompts.
    async fn version(&self) -> Result<Version, String> {
        #[cfg(target_os = "linux")]
        if self.looks.is_multiple_of(CLOUD_EVERY)
            && let Some(address) = self.ollama.host().loopback()
            && let Ok(Ok(listener::Listener::Stranger { uid })) = tokio::task::spawn_blocking(move || listener::find(address)).await
        {
            return Err(format!(
                "another user of this computer (uid {uid}) listens at Ollama's address; run Ollama as yourself, as root or as the user ollama"
            ));
        }
        self.ollama.version().await.map_err(|error| error.to_string())
    }

    async fn look(&mut self) -> Inventory {
        let version = match self.version().await {
            Ok(version) => version,
            Err(cause) => {
                // The next Ollama there may be another one.
                (self.looks, self.tags, self.ps, self.cloud_disabled) = (0, Page::default(), Page::default(), None);
                return Inventory { state: OllamaState::Unreachable { cause }, ..Inventory::default() };
            }
        };
        self.tags.refresh(self.ollama.document("/api/tags").await, installed);
        self.ps.refresh(self.ollama.document("/api/ps").await, loaded);
        if self.looks.is_multiple_of(CLOUD_EVERY)
            && let Ok(cloud_disabled) = self.ollama.cloud_disabled().await
        {
            self.cloud_disabled = cloud_disabled;
        }
        self.looks = self.looks.wrapping_add(1);
        Inventory {
            state: state(&version),
            models: self.tags.entries.clone(),
            loaded: self.ps.entries.clone(),
            cloud_disabled: self.cloud_disabled,
        }
    }
}

/// A document as it was last seen. Most looks bring the same bytes, which are not parsed again.
struct Page<T> {
    document: Bytes,
    entries: Vec<T>,
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Self { document: Bytes::new(), entries: Vec::new() }
    }
}

impl<T> Page<T> {
    /// A look that fails while Ollama answers otherwise leaves the entries as they were: a busy moment is not an empty disk.
    fn refresh(&mut self, document: Result<Bytes, Error>, parse: impl FnOnce(&[u8]) -> Option<Vec<T>>) {
        match document {
            Ok(document) if document == self.document => {}
            Ok(document) => match parse(&document) {
                Some(entries) => *self = Self { document, entries },
                None => tracing::debug!("a list of Ollama's could not be read"),
            },
            Err(error) => tracing::debug!(%error, "a list of Ollama's could not be had"),
        }
    }
}

fn state(version: &Version) -> OllamaState {
    let text = version.to_string();
    if version.is_safe() { OllamaState::Running { version: text } } else { OllamaState::TooOld { version: text } }
}

/// `/api/tags`. An entry whose name is none is left out: nobody could ask for it.
fn installed(document: &[u8]) -> Option<Vec<Installed>> {
    #[derive(Deserialize)]
    struct Tags {
        models: Option<Vec<Tag>>,
    }
    #[derive(Deserialize)]
    struct Tag {
        name: String,
        #[serde(default)]
        modified_at: String,
        #[serde(default)]
        size: u64,
        #[serde(default)]
        digest: String,
        #[serde(default)]
        details: Value,
        capabilities: Option<Vec<String>>,
        remote_model: Option<String>,
        remote_host: Option<String>,
    }
    let tags: Tags = serde_json::from_slice(document).ok()?;
    let installed = tags.models.unwrap_or_default().into_iter().filter_map(|mut tag| {
        forget_parent(&mut tag.details);
        let name: ModelName = tag.name.parse().ok()?;
        let points_elsewhere = [&tag.remote_host, &tag.remote_model].into_iter().flatten().any(|text| !text.is_empty());
        let runs = if points_elsewhere || name.is_cloud() { Runs::Elsewhere } else { Runs::Here };
        let model = Model {
            name,
            modified_at: tag.modified_at,
            size: tag.size,
            digest: tag.digest,
            details: tag.details,
            capabilities: tag.capabilities.unwrap_or_default(),
        };
        Some(Installed { model, runs })
    });
    let mut installed: Vec<_> = installed.collect();
    // Newest first, as Ollama has them; those of one second come in another order each time they are asked for.
    let second = |entry: &Installed| entry.model.modified_at.get(..19).unwrap_or_default().to_owned();
    installed.sort_by(|a, b| second(b).cmp(&second(a)).then_with(|| a.model.name.cmp(&b.model.name)));
    Some(installed)
}

/// `/api/ps`.
fn loaded(document: &[u8]) -> Option<Vec<LoadedModel>> {
    #[derive(Deserialize)]
    struct Running {
        models: Option<Vec<Value>>,
    }
    let running: Running = serde_json::from_slice(document).ok()?;
    Some(running.models.unwrap_or_default().into_iter().filter_map(|model| serde_json::from_value(model).ok()).collect())
}
