//! Which models a person can ask, where each is, and in what state.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use api_proxy::{Abilities, Bridges, Endpoint, Offer, Presence, Workstation, local_prefix};
use serde::Serialize;
use utoipa::ToSchema;
use wire::{
    DeviceId, UserId,
    relay::{Model, OllamaState, Snapshot},
};

use super::{Inner, Speeds};

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
    /// Tokens that it takes: on a workstation of prompt and answer together, as far as the model and its owner go; at a provider of the
    /// prompt alone. `null` where nobody says.
    pub context_length: Option<u64>,
    /// Tokens of an answer at most; `null` where nobody says.
    pub max_output_tokens: Option<u64>,
    /// `tools`, `vision`, `thinking`, `embedding`, `completion`, ...: as far as its host tells.
    pub capabilities: Vec<String>,
    /// Those of `tools`, `vision` and `thinking` of which nobody says whether it has them: they may be tried.
    pub unsure: Vec<String>,
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

impl Availability {
    pub(crate) fn of(workstation: &Workstation) -> Self {
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
}

pub(super) fn list(inner: &Inner, user: UserId) -> Vec<ModelView> {
    let mut all = local(inner.gateway.workstations(user), &inner.gateway.last_seen(user), &inner.speeds);
    all.extend(cloud(inner).iter().cloned());
    all
}

/// The models on these workstations: first wherever they are, then on each.
fn local(mut workstations: Vec<Workstation>, last_seen: &HashMap<DeviceId, i64>, speeds: &Speeds) -> Vec<ModelView> {
    workstations.sort_by(|a, b| (&a.name, a.device).cmp(&(&b.name, b.device)));
    let mut views = Vec::new();
    let mut anywhere: BTreeMap<String, Vec<(usize, &Workstation, &Model)>> = BTreeMap::new();
    for workstation in &workstations {
        let prefix = local_prefix(workstation, &workstations);
        let seen = last_seen.get(&workstation.device).copied();
        for model in &workstation.snapshot.models {
            anywhere.entry(format!("local/{}", model.name)).or_default().push((views.len(), workstation, model));
            views.push(on(workstation, model, &prefix, seen, speeds.of(workstation.device, model.name.as_str())));
        }
    }
    let mut all = anywhere.into_iter().map(|(name, places)| anywhere_of(name, &places, &views)).collect::<Vec<_>>();
    all.append(&mut views);
    all
}

/// A model on one workstation.
fn on(workstation: &Workstation, model: &Model, prefix: &str, last_seen: Option<i64>, speed: Option<f64>) -> ModelView {
    let snapshot = &workstation.snapshot;
    let loaded = snapshot.loaded.iter().find(|loaded| loaded.name == model.name);
    let is_linked = workstation.presence == Presence::Online;
    ModelView {
        name: format!("{prefix}{}", model.name),
        host: Host::Device {
            device: workstation.device,
            device_name: workstation.name.clone(),
            state: LocalState {
                availability: Availability::of(workstation),
                last_seen,
                loaded: is_linked && loaded.is_some(),
                size: model.size,
                queued: if is_linked { snapshot.queued } else { 0 },
                running: workstation.active,
                tokens_per_second: speed,
            },
        },
        context_length: longest_context(snapshot, model),
        max_output_tokens: None,
        capabilities: model.capabilities.clone(),
        unsure: unsure(model.capabilities.is_empty()),
    }
}

/// The longest context that a model takes on a workstation and its owner lets be asked for. Not what it is loaded with: that grows with
/// the conversation.
pub(super) fn longest_context(snapshot: &Snapshot, model: &Model) -> Option<u64> {
    let whole = model.details["context_length"].as_u64().filter(|length| *length > 0);
    let allowed = snapshot.policy.num_ctx.map(u64::from);
    // The owner's limit says little of a model of which nothing is known.
    whole.map(|whole| allowed.map_or(whole, |allowed| whole.min(allowed))).or_else(|| loaded_context(snapshot, model))
}

/// The context that it is loaded with.
pub(super) fn loaded_context(snapshot: &Snapshot, model: &Model) -> Option<u64> {
    let loaded = snapshot.loaded.iter().find(|loaded| loaded.name == model.name);
    loaded.map(|loaded| loaded.context_length).filter(|length| *length > 0)
}

/// Everything that can be unsure, for a model of which nobody says anything.
fn unsure(is_untold: bool) -> Vec<String> {
    if is_untold { ["tools", "vision", "thinking"].map(str::to_owned).into() } else { Vec::new() }
}

/// A model on whichever workstation has it: what all of them can is what it can.
fn anywhere_of(name: String, places: &[(usize, &Workstation, &Model)], views: &[ModelView]) -> ModelView {
    let can_all = |what: &String| places.iter().all(|(_, _, model)| model.capabilities.contains(what));
    ModelView {
        name,
        host: Host::AnyDevice {
            devices: places.iter().map(|(_, workstation, _)| workstation.device).collect(),
            availability: places.iter().map(|(_, station, _)| Availability::of(station)).min().unwrap_or(Availability::Offline),
        },
        context_length: places.iter().filter_map(|(at, ..)| views.get(*at)?.context_length).min(),
        max_output_tokens: None,
        capabilities: places
            .first()
            .map(|(_, _, model)| model.capabilities.iter().filter(|c| can_all(c)).cloned().collect())
            .unwrap_or_default(),
        unsure: unsure(places.iter().all(|(_, _, model)| model.capabilities.is_empty())),
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
    let mut capabilities = match model.max_output {
        0 => vec!["embedding".to_owned()],
        _ if talks => vec!["completion".to_owned()],
        _ => Vec::new(),
    };
    let mut unsure = Vec::new();
    // What cannot be talked with cannot be shown a picture here, whatever it sees elsewhere.
    if talks && model.max_output > 0 {
        let Abilities { tools, vision, thinking } = model.can;
        for (name, can) in [("tools", tools), ("vision", vision), ("thinking", thinking)] {
            match can {
                Some(true) => capabilities.push(name.to_owned()),
                Some(false) => {}
                None => unsure.push(name.to_owned()),
            }
        }
    }
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
        capabilities,
        unsure,
    }
}

#[cfg(test)]
mod tests {
    use wire::relay::{LoadedModel, PolicySummary};

    use super::*;

    fn model(name: &str) -> Model {
        Model {
            name: name.parse().unwrap(),
            modified_at: String::new(),
            size: 7,
            digest: String::new(),
            details: serde_json::json!({ "context_length": 131_072 }),
            capabilities: vec!["completion".into(), "tools".into()],
        }
    }

    fn workstation(name: &str, presence: Presence, snapshot: Snapshot) -> Workstation {
        Workstation { device: DeviceId::random(), name: name.to_owned(), presence, snapshot: Arc::new(snapshot), active: 0 }
    }

    fn snapshot(names: &[String]) -> Snapshot {
        Snapshot { models: names.iter().map(|name| model(name)).collect(), ..Snapshot::default() }
    }

    #[test]
    fn two_workstations_with_one_model_are_told_apart_and_the_better_one_speaks_for_both() {
        let names = ["m:latest".to_owned()];
        let mut den = workstation("den", Presence::Online, snapshot(&names));
        let attic = workstation("attic", Presence::Offline, snapshot(&names));
        let list = |den: &Workstation| {
            let seen = [(attic.device, 5)].into();
            let all = local(vec![den.clone(), attic.clone()], &seen, &Speeds::default());
            assert_eq!(
                all.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(),
                ["local/m:latest", "local@attic/m:latest", "local@den/m:latest"]
            );
            let Host::AnyDevice { devices, availability } = &all[0].host else { panic!("{all:?}") };
            assert_eq!(devices, &[attic.device, den.device]);
            let states = all[1..].iter().map(|view| match &view.host {
                Host::Device { state, .. } => state.clone(),
                other => panic!("{other:?}"),
            });
            let states: Vec<LocalState> = states.collect();
            assert_eq!((states[0].availability, states[0].last_seen), (Availability::Offline, Some(5)));
            (*availability, states[1].clone(), all[2].context_length)
        };
        let (any, state, context) = list(&den);
        assert_eq!((any, state.availability, context), (Availability::Online, Availability::Online, Some(131_072)));
        assert!(!state.loaded && state.last_seen.is_none());
        den.active = 1;
        let loaded = LoadedModel {
            name: names[0].parse().unwrap(),
            size: 7,
            size_vram: 7,
            context_length: 4_096,
            expires_at: String::new(),
        };
        let policy = PolicySummary { num_ctx: Some(32_768), ..PolicySummary::default() };
        den.snapshot = Arc::new(Snapshot { loaded: vec![loaded], policy: policy.clone(), queued: 3, ..snapshot(&names) });
        let (any, state, context) = list(&den);
        assert_eq!((any, context), (Availability::Busy, Some(32_768)));
        assert_eq!((state.loaded, state.running, state.queued), (true, 1, 3));
        den.snapshot = Arc::new(Snapshot { policy: PolicySummary { paused: true, ..policy }, ..snapshot(&names) });
        assert_eq!(list(&den).0, Availability::Paused);
        den.presence = Presence::Away;
        assert_eq!(list(&den).0, Availability::Away);
        den.presence = Presence::Offline;
        assert_eq!(list(&den).0, Availability::Offline);
    }

    #[test]
    fn many_workstations_with_many_models_are_listed_in_no_time() {
        let names: Vec<String> = (0..50).map(|n| format!("model-{n}:latest")).collect();
        let all: Vec<_> = (0..20).map(|n| workstation(&format!("station-{n}"), Presence::Online, snapshot(&names))).collect();
        let (speeds, rounds) = (Speeds::default(), 100);
        let begun = Instant::now();
        for _ in 0..rounds {
            assert_eq!(local(all.clone(), &HashMap::new(), &speeds).len(), 50 + 1_000);
        }
        let each = begun.elapsed() / rounds;
        println!("20 workstations with 50 models each: {each:?}");
        assert!(each < Duration::from_millis(100), "{each:?}");
    }
}
