//! Which workstation does it: a pure choice from what the bridges have told.

use std::{collections::HashMap, sync::Mutex};

use wire::{
    DeviceId, LocalModel, ModelName,
    relay::{OllamaState, Operation},
};

use crate::{KeyId, Presence, Protocol, Workstation, error::ProxyError};

/// What a caller asked for by the name of a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// A model on a workstation of the caller's own.
    Local(LocalModel),
    /// One of the catalogue, if it has it.
    Named(&'a str),
}

/// Reads the name of a model.
///
/// `local/<model>` and `local@<workstation>/<model>` are read everywhere. A bare name means the caller's own model where Ollama's
/// clients ask, and a provider's elsewhere.
pub(crate) fn wanted(protocol: Protocol, text: Option<&str>) -> Result<Wanted<'_>, ProxyError> {
    let text = text.ok_or(ProxyError::ModelMissing)?;
    if let Some(local) = LocalModel::parse(text) {
        return Ok(Wanted::Local(local?));
    }
    match protocol {
        Protocol::Ollama => Ok(Wanted::Local(LocalModel { device: None, model: text.parse()? })),
        Protocol::Openai | Protocol::Anthropic | Protocol::Gemini => Ok(Wanted::Named(text)),
    }
}

/// The workstation for a request, given the one that the same key used last for the same model (`last`).
///
/// Ready ones before those that will surely refuse, then the least busy; the last one is kept as long as it is busier by no more
/// than one, because its Ollama still has the conversation's beginning in memory. One whose link was just lost is taken only when
/// no other has the model.
pub(crate) fn choose(
    wanted: &LocalModel,
    operation: Operation,
    workstations: &[Workstation],
    last: Option<DeviceId>,
) -> Result<DeviceId, ProxyError> {
    let named: Vec<_> = match &wanted.device {
        Some(device) => vec![addressed(device, workstations)?],
        None if workstations.is_empty() => return Err(ProxyError::NoWorkstation),
        None => workstations.iter().collect(),
    };
    let holders: Vec<_> = named.iter().copied().filter(|w| w.snapshot.models.iter().any(|m| m.name == wanted.model)).collect();
    let with = |presence| holders.iter().copied().filter(move |w| w.presence == presence);
    let takes_work = |w: &&Workstation| !w.snapshot.policy.paused;

    if let Some(best) = least_busy(with(Presence::Online).filter(takes_work), operation, last) {
        return Ok(best);
    }
    // The bridge of one that is away may have been paused meanwhile; it will say so itself.
    if let Some(best) = least_busy(with(Presence::Away), operation, last) {
        return Ok(best);
    }
    Err(if with(Presence::Online).next().is_some() {
        ProxyError::Paused
    } else if !holders.is_empty() {
        ProxyError::BridgeOffline
    } else if named.iter().all(|w| w.presence == Presence::Offline) {
        ProxyError::NoneConnected
    } else if named.iter().any(|w| w.presence != Presence::Offline && !ollama_runs(w)) {
        ProxyError::OllamaUnavailable
    } else {
        ProxyError::ModelNotFound(wanted.model.clone())
    })
}

/// The workstation that a caller means by its id or its name; names are compared without regard to case, as host names are.
pub(crate) fn addressed<'a>(device: &str, workstations: &'a [Workstation]) -> Result<&'a Workstation, ProxyError> {
    if let Ok(id) = device.parse::<DeviceId>() {
        return workstations.iter().find(|w| w.device == id).ok_or(ProxyError::DeviceNotFound);
    }
    let mut named = workstations.iter().filter(|w| w.name.eq_ignore_ascii_case(device));
    match (named.next(), named.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(ProxyError::DeviceNotFound),
        (Some(_), Some(_)) => Err(ProxyError::DeviceAmbiguous),
    }
}

/// What a caller can write behind `local@` for a workstation: its name where that means it and nothing else, or its id.
pub(crate) fn address(workstation: &Workstation, workstations: &[Workstation]) -> String {
    let means_it = addressed(&workstation.name, workstations).is_ok_and(|w| w.device == workstation.device);
    if means_it && !workstation.name.is_empty() && !workstation.name.contains('/') {
        workstation.name.clone()
    } else {
        workstation.device.to_string()
    }
}

fn least_busy<'a>(
    workstations: impl Iterator<Item = &'a Workstation> + Clone,
    operation: Operation,
    last: Option<DeviceId>,
) -> Option<DeviceId> {
    let rank = |w: &Workstation| {
        let refuses = !ollama_runs(w) || !w.snapshot.policy.operations.contains(&operation);
        (refuses, w.active.saturating_add(w.snapshot.queued))
    };
    let best = workstations.clone().min_by_key(|w| (rank(w), w.device))?;
    let (refuses, busy) = rank(best);
    let kept = workstations.into_iter().find(|w| {
        let (last_refuses, last_busy) = rank(w);
        Some(w.device) == last && last_refuses == refuses && last_busy <= busy.saturating_add(1)
    });
    Some(kept.unwrap_or(best).device)
}

fn ollama_runs(workstation: &Workstation) -> bool {
    matches!(workstation.snapshot.ollama, OllamaState::Running { .. } | OllamaState::Unknown)
}

/// Which workstation a key used last for a model.
///
/// Bounded by two generations: when the younger is full it becomes the older, and what was only in the older is forgotten.
#[derive(Default)]
pub(crate) struct Affinity(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    younger: HashMap<(KeyId, ModelName), DeviceId>,
    older: HashMap<(KeyId, ModelName), DeviceId>,
}

/// Entries of one generation: at about 150 bytes each, both stay under 1.5 MiB.
const GENERATION: usize = 4096;

impl Affinity {
    pub(crate) fn last(&self, key: KeyId, model: &ModelName) -> Option<DeviceId> {
        let generations = self.lock();
        let entry = (key, model.clone());
        generations.younger.get(&entry).or_else(|| generations.older.get(&entry)).copied()
    }

    pub(crate) fn remember(&self, key: KeyId, model: &ModelName, device: DeviceId) {
        let mut generations = self.lock();
        if generations.younger.len() >= GENERATION {
            generations.older = std::mem::take(&mut generations.younger);
        }
        generations.younger.insert((key, model.clone()), device);
    }

    /// A panic elsewhere leaves at worst a missing preference behind.
    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wire::relay::{Model, PolicySummary, Snapshot};

    use super::*;

    fn station(name: &str, models: &[&str], presence: Presence, active: u32) -> Workstation {
        let models = models
            .iter()
            .map(|m| Model {
                name: m.parse().unwrap(),
                modified_at: String::new(),
                size: 0,
                digest: String::new(),
                details: serde_json::Value::Null,
                capabilities: Vec::new(),
            })
            .collect();
        let policy = PolicySummary { operations: Operation::ALL.to_vec(), ..PolicySummary::default() };
        let ollama = OllamaState::Running { version: "0.32.15".into() };
        let snapshot = Arc::new(Snapshot { name: name.into(), models, policy, ollama, ..Snapshot::default() });
        Workstation { device: DeviceId::random(), name: name.into(), presence, snapshot, active }
    }

    fn with(mut workstation: Workstation, change: impl FnOnce(&mut Snapshot)) -> Workstation {
        change(Arc::make_mut(&mut workstation.snapshot));
        workstation
    }

    fn check(model: &str, workstations: &[Workstation], last: Option<&Workstation>, expected: Result<&Workstation, ProxyError>) {
        let Ok(Wanted::Local(wanted)) = wanted(Protocol::Openai, Some(model)) else { panic!("{model}") };
        let chosen = choose(&wanted, Operation::OpenaiChat, workstations, last.map(|w| w.device));
        let name = |device| workstations.iter().find(|w| w.device == device).map(|w| w.name.clone());
        assert_eq!(chosen.map(name), expected.map(|w| Some(w.name.clone())), "{model}");
    }

    #[test]
    fn names_are_read_by_protocol() {
        let local = |device: Option<&str>, model: &str| {
            Ok(Wanted::Local(LocalModel { device: device.map(str::to_owned), model: model.parse().unwrap() }))
        };
        for protocol in [Protocol::Ollama, Protocol::Openai, Protocol::Anthropic, Protocol::Gemini] {
            assert_eq!(wanted(protocol, Some("local/a")), local(None, "a:latest"));
            assert_eq!(wanted(protocol, Some("local@box/a:1")), local(Some("box"), "a:1"));
            assert_eq!(wanted(protocol, None), Err(ProxyError::ModelMissing));
            let space = ProxyError::ModelInvalid(wire::model::InvalidModelName::Character);
            assert_eq!(wanted(protocol, Some("local/a b")), Err(space));
        }
        assert_eq!(wanted(Protocol::Ollama, Some("a")), local(None, "a:latest"));
        assert_eq!(wanted(Protocol::Openai, Some("a b")), Ok(Wanted::Named("a b")));
    }

    #[test]
    fn the_least_busy_that_has_it() {
        let a = station("a", &["m"], Presence::Online, 2);
        let b = station("b", &["m"], Presence::Online, 1);
        let c = station("c", &["other"], Presence::Online, 0);
        let all = [a.clone(), b.clone(), c.clone()];
        check("local/m", &all, None, Ok(&b));
        check("local@a/m", &all, None, Ok(&a));
        check("local@A/m", &all, None, Ok(&a));
        check(&format!("local@{}/m", a.device), &all, None, Ok(&a));
        check("local@c/m", &all, None, Err(ProxyError::ModelNotFound("m".parse().unwrap())));
        check("local/n", &all, None, Err(ProxyError::ModelNotFound("n".parse().unwrap())));
        check("local@d/m", &all, None, Err(ProxyError::DeviceNotFound));
        let queueing = with(b, |s| s.queued = 2);
        check("local/m", &[a.clone(), queueing], None, Ok(&a));
    }

    #[test]
    fn the_last_one_is_kept_until_it_is_clearly_busier() {
        let a = station("a", &["m"], Presence::Online, 1);
        let b = station("b", &["m"], Presence::Online, 0);
        check("local/m", &[a.clone(), b.clone()], None, Ok(&b));
        check("local/m", &[a.clone(), b.clone()], Some(&a), Ok(&a));
        let busier = Workstation { active: 2, ..a.clone() };
        check("local/m", &[busier.clone(), b.clone()], Some(&busier), Ok(&b));
        let gone = Workstation { presence: Presence::Away, ..a };
        check("local/m", &[gone.clone(), b.clone()], Some(&gone), Ok(&b));
    }

    #[test]
    fn those_that_would_refuse_come_last() {
        let a = station("a", &["m"], Presence::Online, 5);
        let stopped = with(station("b", &["m"], Presence::Online, 0), |s| {
            s.ollama = OllamaState::Unreachable { cause: "no".into() };
        });
        let closed = with(station("c", &["m"], Presence::Online, 0), |s| s.policy.operations = vec![Operation::OllamaChat]);
        let paused = with(station("d", &["m"], Presence::Online, 0), |s| s.policy.paused = true);
        let away = station("e", &["m"], Presence::Away, 0);
        let all = [a.clone(), stopped.clone(), closed, paused.clone(), away.clone()];
        check("local/m", &all, None, Ok(&a));
        check("local/m", &all, Some(&stopped), Ok(&a));
        check("local/m", std::slice::from_ref(&stopped), None, Ok(&stopped));
        check("local/m", &[paused.clone(), away.clone()], None, Ok(&away));
        check("local/m", std::slice::from_ref(&paused), None, Err(ProxyError::Paused));
    }

    #[test]
    fn absence_is_told_apart_from_ignorance() {
        let offline = station("a", &["m"], Presence::Offline, 0);
        let other = station("b", &["n"], Presence::Online, 0);
        let not_found = || Err(ProxyError::ModelNotFound("x".parse().unwrap()));
        check("local/m", &[], None, Err(ProxyError::NoWorkstation));
        check("local/m", std::slice::from_ref(&offline), None, Err(ProxyError::BridgeOffline));
        check("local/x", std::slice::from_ref(&offline), None, Err(ProxyError::NoneConnected));
        check("local/m", &[offline.clone(), other.clone()], None, Err(ProxyError::BridgeOffline));
        check("local/x", &[offline.clone(), other.clone()], None, not_found());
        let silent = with(station("c", &[], Presence::Online, 0), |s| s.ollama = OllamaState::Unreachable { cause: "no".into() });
        check("local/x", &[offline, other, silent], None, Err(ProxyError::OllamaUnavailable));
    }

    #[test]
    fn an_ambiguous_name_is_no_address() {
        let (a, b) = (station("box", &["m"], Presence::Online, 0), station("Box", &["m"], Presence::Online, 0));
        let c = station("a/b", &["m"], Presence::Online, 0);
        let d = station("fine", &["m"], Presence::Online, 0);
        let all = [a.clone(), b, c.clone(), d.clone()];
        check("local@box/m", &all, None, Err(ProxyError::DeviceAmbiguous));
        assert_eq!(address(&a, &all), a.device.to_string());
        assert_eq!(address(&c, &all), c.device.to_string());
        assert_eq!(address(&d, &all), "fine");
    }

    #[test]
    fn affinity_is_bounded_and_keeps_what_is_used() {
        let affinity = Affinity::default();
        let key: KeyId = "000000000000".parse().unwrap();
        let name = |n: usize| format!("m{n}").parse::<ModelName>().unwrap();
        let device = DeviceId::random();
        for n in 0..2 * GENERATION + 1 {
            affinity.remember(key, &name(n), device);
        }
        assert_eq!(affinity.last(key, &name(0)), None);
        assert_eq!(affinity.last(key, &name(GENERATION)), Some(device));
        assert_eq!(affinity.last(key, &name(2 * GENERATION)), Some(device));
        assert_eq!(affinity.last("000000000001".parse().unwrap(), &name(2 * GENERATION)), None);
    }
}
