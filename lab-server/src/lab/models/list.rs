//! Which models a person can ask, where each is, and in what state.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use api_proxy::{Bridges, Endpoint, Offer, Presence, Workstation, local_prefix};
use serde::Serialize;
use utoipa::ToSchema;
use wire::{
    DeviceId, UserId,
    relay::{Model, OllamaState},
};

use super::Inner;

/// How long the catalogue's part is good for: channels come with the configuration, and prices with a date.
const CLOUD_FOR: Duration = Duration::from_secs(60);

/// A model that can be asked for.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ModelView {
    /// By this name: `gpt-5.2`, `local/llama3.2:latest`, `local@den/llama3.2:latest`.
    pub name: String,
    /// Where it runs.
    #[serde(flatten)]
    pub host: Host,
    /// Tokens of prompt and answer together that it takes; `null` where nobody says.
    pub context_length: Option<u64>,
    /// Tokens of an answer at most; `null` where nobody says.
    pub max_output_tokens: Option<u64>,
    /// `tools`, `vision`, `thinking`, `embedding`, `completion`, ...: as far as its host tells.
    pub capabilities: Vec<String>,
}

/// Where a model runs.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(tag = "host", rename_all = "snake_case")]
pub enum Host {
    /// At a provider.
    Cloud {
        /// Which.
        provider: String,
        /// What a million tokens cost; `null` where it has no price by the token.
        prices: Option<CloudPrices>,
    },
    /// On one workstation.
    Device {
        /// Which.
        #[schema(value_type = String)]
        device: DeviceId,
        /// What it is called.
        device_name: String,
        /// What is known of it there.
        #[serde(flatten)]
        state: LocalState,
    },
    /// On whichever workstation is free.
    AnyDevice {
        /// Those that have it.
        #[schema(value_type = Vec<String>)]
        devices: Vec<DeviceId>,
        /// Whether one of them would take it now: the best state of theirs.
        availability: Availability,
    },
}

/// What a million tokens cost, in credits, as decimal strings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct CloudPrices {
    /// Of the prompt.
    pub input: String,
    /// Of the prompt, out of the provider's cache; `null` where it has no price of its own.
    pub cached_input: Option<String>,
    /// Of the answer.
    pub output: String,
}

/// What is known of a model on a workstation.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LocalState {
    /// Whether it would take work now.
    pub availability: Availability,
    /// Milliseconds since 1970 when the workstation's link was lost; `null` while it has one, and where it had none since the Lab
    /// started.
    pub last_seen: Option<i64>,
    /// Whether the model is in memory.
    pub loaded: bool,
    /// Bytes on disk.
    pub size: u64,
    /// Requests that wait for their turn there.
    pub queued: u32,
    /// Requests that run there now.
    pub running: u32,
    /// Tokens of the answer a second, of the last run there; `null` when there was none since the Lab started.
    pub tokens_per_second: Option<f64>,
}

/// Whether a workstation would take work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It is linked and idle.
    Online,
    /// It is linked and at work; a request waits or shares.
    Busy,
    /// Its link was lost a moment ago; it may be back at once. A workstation that sleeps looks like this first.
    Away,
    /// Its owner has paused it, or these are quiet hours.
    Paused,
    /// Its Ollama does not answer.
    OllamaDown,
    /// It has no link.
    Offline,
}

pub(super) fn list(inner: &Inner, user: UserId) -> Vec<ModelView> {
    let mut workstations = inner.gateway.workstations(user);
    workstations.sort_by(|a, b| (&a.name, a.device).cmp(&(&b.name, b.device)));
    let last_seen = inner.gateway.last_seen(user);
    let mut views = Vec::new();
    let mut anywhere: BTreeMap<String, Vec<(usize, &Workstation, &Model)>> = BTreeMap::new();
    for workstation in &workstations {
        let prefix = local_prefix(workstation, &workstations);
        let seen = last_seen.get(&workstation.device).copied();
        for model in &workstation.snapshot.models {
            anywhere.entry(format!("local/{}", model.name)).or_default().push((views.len(), workstation, model));
            views.push(on(workstation, model, &prefix, seen, inner.speeds.of(workstation.device, model.name.as_str())));
        }
    }
    let any = anywhere.into_iter().map(|(name, places)| anywhere_of(name, &places, &views)).collect::<Vec<_>>();
    let mut all = any;
    all.append(&mut views);
    all.extend(cloud(inner).iter().cloned());
    all
}

/// A model on one workstation.
fn on(workstation: &Workstation, model: &Model, prefix: &str, last_seen: Option<i64>, speed: Option<f64>) -> ModelView {
    let snapshot = &workstation.snapshot;
    let loaded = snapshot.loaded.iter().find(|loaded| loaded.name == model.name);
    let is_linked = workstation.presence == Presence::Online;
    let whole = model.details["context_length"].as_u64();
    ModelView {
        name: format!("{prefix}{}", model.name),
        host: Host::Device {
            device: workstation.device,
            device_name: workstation.name.clone(),
            state: LocalState {
                availability: availability(workstation),
                last_seen,
                loaded: is_linked && loaded.is_some(),
                size: model.size,
                queued: if is_linked { snapshot.queued } else { 0 },
                running: workstation.active,
                tokens_per_second: speed,
            },
        },
        // What it is loaded with is what it takes now.
        context_length: loaded.map(|loaded| loaded.context_length).filter(|length| *length > 0 && is_linked).or(whole),
        max_output_tokens: None,
        capabilities: model.capabilities.clone(),
    }
}

/// A model on whichever workstation has it: what all of them can is what it can.
fn anywhere_of(name: String, places: &[(usize, &Workstation, &Model)], views: &[ModelView]) -> ModelView {
    let can_all = |what: &String| places.iter().all(|(_, _, model)| model.capabilities.contains(what));
    ModelView {
        name,
        host: Host::AnyDevice {
            devices: places.iter().map(|(_, workstation, _)| workstation.device).collect(),
            availability: places.iter().map(|(_, station, _)| availability(station)).min().unwrap_or(Availability::Offline),
        },
        context_length: places.iter().filter_map(|(at, ..)| views.get(*at)?.context_length).min(),
        max_output_tokens: None,
        capabilities: places
            .first()
            .map(|(_, _, model)| model.capabilities.iter().filter(|c| can_all(c)).cloned().collect())
            .unwrap_or_default(),
    }
}

fn availability(workstation: &Workstation) -> Availability {
    let snapshot = &workstation.snapshot;
    match workstation.presence {
        Presence::Offline => Availability::Offline,
        Presence::Away => Availability::Away,
        Presence::Online if snapshot.policy.paused => Availability::Paused,
        Presence::Online => match snapshot.ollama {
            OllamaState::TooOld { .. } | OllamaState::Unreachable { .. } => Availability::OllamaDown,
            OllamaState::Running { .. } | OllamaState::Unknown => {
                if workstation.active > 0 || snapshot.queued > 0 {
                    Availability::Busy
                } else {
                    Availability::Online
                }
            }
        },
    }
}

/// The catalogue's part, which is the same for everybody.
fn cloud(inner: &Inner) -> Arc<[ModelView]> {
    let mut known = inner.cloud.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((since, views)) = &*known
        && since.elapsed() < CLOUD_FOR
    {
        return Arc::clone(views);
    }
    let now = SystemTime::now();
    let views: Arc<[ModelView]> = inner.proxy.offers().iter().map(|offer| at_provider(offer, now)).collect();
    *known = Some((Instant::now(), Arc::clone(&views)));
    views
}

fn at_provider(offer: &Offer, now: SystemTime) -> ModelView {
    let model = &offer.model;
    let has = |endpoint| offer.endpoints.contains(&endpoint);
    let talks = has(Endpoint::OpenaiChat) || has(Endpoint::AnthropicMessages) || has(Endpoint::GeminiStreamGenerate);
    // The catalogue knows prices and sizes. Whatever answers with tokens is believed to take tools, as all that it lists do.
    let capabilities: &[&str] = if model.max_output == 0 {
        &["embedding"]
    } else if talks {
        &["completion", "tools"]
    } else {
        &[]
    };
    let prices = model.list_price(now).map(|price| CloudPrices {
        input: price.input,
        cached_input: Some(price.cached),
        output: price.output,
    });
    ModelView {
        name: offer.name.to_string(),
        host: Host::Cloud { provider: model.provider.to_string(), prices },
        context_length: Some(model.max_input).filter(|tokens| *tokens > 0),
        max_output_tokens: Some(model.max_output).filter(|tokens| *tokens > 0),
        capabilities: capabilities.iter().map(|&can| can.to_owned()).collect(),
    }
}
