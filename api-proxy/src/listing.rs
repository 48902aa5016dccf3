//! What the caller can ask for, in the words of each protocol: their workstations' models, then the catalogue's.
//!
//! Listed is what can be asked for: the shared models of every workstation that is there or was there a moment ago, so that a
//! short loss of the network does not empty a menu. The order is the workstations' names, then Ollama's own order.

use std::{cmp::Ordering, collections::HashSet, sync::Arc};

use serde_json::{Value, json};
use wire::{
    LocalModel,
    relay::{LoadedModel, Model, OllamaState},
};

use crate::{Endpoint, Model as CloudModel, Presence, ProviderKind, Workstation, calendar, error::ProxyError, route};

/// A model under the name by which it is asked for.
struct Listed<'a> {
    id: String,
    model: &'a Model,
    owner: &'a Workstation,
}

/// A model of the catalogue's that can be asked for.
pub(crate) struct Offered<'a> {
    /// By this name.
    pub(crate) name: &'a str,
    pub(crate) model: &'a CloudModel,
    /// Where.
    pub(crate) endpoints: Vec<Endpoint>,
}

/// A cloud model that can be asked for, for whoever asks from inside the house.
#[derive(Debug, Clone)]
pub struct Offer {
    /// By this name.
    pub name: Arc<str>,
    /// What the catalogue knows of it.
    pub model: Arc<CloudModel>,
    /// Whose manners its provider has.
    pub kind: ProviderKind,
    /// Where it can be asked.
    pub endpoints: Vec<Endpoint>,
}

impl Offered<'_> {
    fn speaks_anthropic(&self) -> bool {
        self.endpoints.contains(&Endpoint::AnthropicMessages)
    }

    fn speaks_gemini(&self) -> bool {
        self.endpoints.contains(&Endpoint::GeminiGenerate)
    }
}

/// `GET /v1/models` as OpenAI writes it: one's own models first.
pub(crate) fn openai_models(workstations: &[Workstation], models: &[Offered<'_>]) -> Value {
    let local = listed(workstations);
    let data: Vec<_> = local.iter().map(openai_model).chain(models.iter().map(openai_cloud)).collect();
    json!({ "object": "list", "data": data })
}

/// `GET /v1/models` as Anthropic writes it: what can be asked for at `/v1/messages`, which a workstation's models can.
pub(crate) fn anthropic_models(workstations: &[Workstation], models: &[Offered<'_>]) -> Value {
    let local = listed(workstations);
    let cloud = models.iter().filter(|offered| offered.speaks_anthropic());
    let data: Vec<_> = local.iter().map(anthropic_model).chain(cloud.map(anthropic_cloud)).collect();
    let id = |model: Option<&Value>| model.map(|model| model["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    json!({ "data": data, "has_more": false, "first_id": first, "last_id": last })
}

/// `GET /v1beta/models` as Gemini writes it. A workstation's models do not speak its protocol.
pub(crate) fn gemini_models(models: &[Offered<'_>]) -> Value {
    json!({ "models": models.iter().filter(|offered| offered.speaks_gemini()).map(gemini_model).collect::<Vec<_>>() })
}

/// `GET /v1beta/models/{id}` as Gemini writes it.
pub(crate) fn gemini_one(offered: Option<Offered<'_>>) -> Result<Value, ProxyError> {
    let found = offered.filter(Offered::speaks_gemini);
    found.map(|offered| gemini_model(&offered)).ok_or(ProxyError::NotInCatalogue)
}

/// `GET /v1/models/{id}` as OpenAI writes it, given what the catalogue has by that id.
pub(crate) fn openai_one(id: &str, workstations: &[Workstation], offered: Option<Offered<'_>>) -> Result<Value, ProxyError> {
    match offered {
        Some(offered) => Ok(openai_cloud(&offered)),
        None => one(id, workstations).map(|listed| openai_model(&listed)),
    }
}

/// `GET /v1/models/{id}` as Anthropic writes it, likewise.
pub(crate) fn anthropic_one(id: &str, workstations: &[Workstation], offered: Option<Offered<'_>>) -> Result<Value, ProxyError> {
    match offered.filter(Offered::speaks_anthropic) {
        Some(offered) => Ok(anthropic_cloud(&offered)),
        None => one(id, workstations).map(|listed| anthropic_model(&listed)),
    }
}

/// `GET /api/tags`.
pub(crate) fn tags(workstations: &[Workstation]) -> Value {
    let mut seen = HashSet::new();
    let models: Vec<_> = reachable(workstations)
        .into_iter()
        .flat_map(|w| &w.snapshot.models)
        .filter(|m| seen.insert(&m.name))
        .map(|m| {
            let mut tag = json!({
                "name": m.name,
                "model": m.name,
                "modified_at": m.modified_at,
                "size": m.size,
                "digest": m.digest,
                "details": m.details,
            });
            if !m.capabilities.is_empty() {
                tag["capabilities"] = json!(m.capabilities);
            }
            tag
        })
        .collect();
    json!({ "models": models })
}

/// `GET /api/ps`. A model that two workstations have in memory is there twice: it takes memory twice.
pub(crate) fn running(workstations: &[Workstation]) -> Value {
    let models: Vec<_> =
        reachable(workstations).into_iter().flat_map(|w| w.snapshot.loaded.iter().map(|l| running_model(w, l))).collect();
    json!({ "models": models })
}

/// `GET /api/version`: the oldest Ollama's, since a client may then use what all of them have.
pub(crate) fn version(workstations: &[Workstation]) -> Result<Value, ProxyError> {
    let reachable = reachable(workstations);
    let versions = reachable.iter().filter_map(|w| match &w.snapshot.ollama {
        OllamaState::Running { version } => Some(version),
        OllamaState::TooOld { .. } | OllamaState::Unreachable { .. } | OllamaState::Unknown => None,
    });
    match versions.min_by(|a, b| compare_versions(a, b)) {
        Some(version) => Ok(json!({ "version": version })),
        None if workstations.is_empty() => Err(ProxyError::NoWorkstation),
        None if reachable.is_empty() => Err(ProxyError::NoneConnected),
        None => Err(ProxyError::OllamaUnavailable),
    }
}

fn reachable(workstations: &[Workstation]) -> Vec<&Workstation> {
    let mut reachable: Vec<_> = workstations.iter().filter(|w| w.presence != Presence::Offline).collect();
    reachable.sort_by(|a, b| (&a.name, a.device).cmp(&(&b.name, b.device)));
    reachable
}

/// What an owner can write before the name of a model to mean this workstation and no other: `local@den/`.
#[must_use]
pub fn local_prefix(workstation: &Workstation, workstations: &[Workstation]) -> String {
    format!("local@{}/", route::address(workstation, workstations))
}

/// First every model once, as `local/…`, then, where there is a choice, each workstation's as `local@…/…`.
fn listed(workstations: &[Workstation]) -> Vec<Listed<'_>> {
    let reachable = reachable(workstations);
    let all = || reachable.iter().flat_map(|owner| owner.snapshot.models.iter().map(move |model| (*owner, model)));
    let mut seen = HashSet::new();
    let anywhere = all()
        .filter(|(_, model)| seen.insert(&model.name))
        .map(|(owner, model)| Listed { id: format!("local/{}", model.name), model, owner })
        .collect::<Vec<_>>();
    let addressed = all()
        .filter(|_| workstations.len() > 1)
        .map(|(owner, model)| (format!("{}{}", local_prefix(owner, workstations), model.name), model, owner))
        .map(|(id, model, owner)| Listed { id, model, owner });
    anywhere.into_iter().chain(addressed).collect()
}

/// The one model of this id, however its tag and its workstation were spelled.
fn one<'a>(id: &str, workstations: &'a [Workstation]) -> Result<Listed<'a>, ProxyError> {
    let Some(asked) = LocalModel::parse(id) else {
        return Err(ProxyError::NotInCatalogue);
    };
    let asked = asked?;
    let owner = asked.device.as_deref().map(|device| route::addressed(device, workstations)).transpose()?;
    let prefix = match owner {
        Some(owner) => local_prefix(owner, workstations),
        None => "local/".to_owned(),
    };
    reachable(workstations)
        .into_iter()
        .filter(|w| owner.is_none_or(|owner| owner.device == w.device))
        .find_map(|w| w.snapshot.models.iter().find(|m| m.name == asked.model).map(|model| (w, model)))
        .map(|(owner, model)| Listed { id: format!("{prefix}{}", model.name), model, owner })
        .ok_or(ProxyError::ModelNotFound(asked.model))
}

fn openai_model(listed: &Listed<'_>) -> Value {
    json!({
        "id": listed.id,
        "object": "model",
        "created": unix_seconds(&listed.model.modified_at).unwrap_or(0),
        "owned_by": listed.owner.name,
    })
}

fn anthropic_model(listed: &Listed<'_>) -> Value {
    let modified = &listed.model.modified_at;
    json!({
        "type": "model",
        "id": listed.id,
        "display_name": format!("{} · {}", listed.model.name, listed.owner.name),
        "created_at": if unix_seconds(modified).is_some() { modified } else { "1970-01-01T00:00:00Z" },
    })
}

/// Where the catalogue does not know when a model came out, a list says the first second of all: its clients want a number.
fn openai_cloud(offered: &Offered<'_>) -> Value {
    let model = offered.model;
    json!({ "id": offered.name, "object": "model", "created": model.created.unwrap_or(0), "owned_by": model.provider.as_str() })
}

fn anthropic_cloud(offered: &Offered<'_>) -> Value {
    let (year, month, day) = calendar::date(offered.model.created.unwrap_or(0));
    let created = format!("{year:04}-{month:02}-{day:02}T00:00:00Z");
    json!({ "type": "model", "id": offered.name, "display_name": offered.name, "created_at": created })
}

fn gemini_model(offered: &Offered<'_>) -> Value {
    let model = offered.model;
    // Google has no model that answers with both. The catalogue knows one that answers with numbers by its having no tokens.
    let methods: &[&str] = match model.max_output {
        0 => &["embedContent", "batchEmbedContents", "countTokens"],
        _ => &["generateContent", "streamGenerateContent", "countTokens"],
    };
    json!({
        "name": format!("models/{}", offered.name),
        "displayName": offered.name,
        "inputTokenLimit": model.max_input,
        "outputTokenLimit": model.max_output,
        "supportedGenerationMethods": methods,
    })
}

fn running_model(workstation: &Workstation, loaded: &LoadedModel) -> Value {
    let model = workstation.snapshot.models.iter().find(|m| m.name == loaded.name);
    json!({
        "name": loaded.name,
        "model": loaded.name,
        "size": loaded.size,
        "digest": model.map_or("", |m| &m.digest),
        "details": model.map_or(&Value::Null, |m| &m.details),
        "expires_at": loaded.expires_at,
        "size_vram": loaded.size_vram,
        "context_length": loaded.context_length,
    })
}

/// Number by number; what is no number counts as 0, so `0.32.15-rc1` stands with `0.32.15`.
fn compare_versions(a: &str, b: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        let release = text.split(['-', '+']).next().unwrap_or_default();
        release.split('.').map(|part| part.parse().unwrap_or(0)).collect()
    };
    numbers(a).cmp(&numbers(b))
}

/// Seconds since 1970 of an RFC 3339 time, such as `2025-11-20T19:43:00.123+01:00`.
fn unix_seconds(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| -> Option<i64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 5;
            let seconds = number(at, at + 2)? * 3600 + number(at + 3, at + 5)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    Some(calendar::day(year, month, day) * calendar::DAY + hour * 3600 + minute * 60 + second - offset)
}

#[cfg(test)]
mod tests {
    use wire::{DeviceId, relay::Snapshot};

    use super::*;

    fn station(name: &str, presence: Presence, version: &str, models: &[&str]) -> Workstation {
        let model = |name: &&str| Model {
            name: name.parse().unwrap(),
            modified_at: "2025-11-20T19:43:00.5+01:00".into(),
            size: 7,
            digest: "d1".into(),
            details: json!({ "family": "llama" }),
            capabilities: vec!["completion".into()],
        };
        let loaded = models.iter().take(1).map(|name| LoadedModel {
            name: name.parse().unwrap(),
            size: 9,
            size_vram: 8,
            context_length: 4096,
            expires_at: "2025-11-20T20:00:00Z".into(),
        });
        let snapshot = Snapshot {
            ollama: OllamaState::Running { version: version.into() },
            models: models.iter().map(model).collect(),
            loaded: loaded.collect(),
            ..Snapshot::default()
        };
        Workstation { device: DeviceId::random(), name: name.into(), presence, snapshot: Arc::new(snapshot), active: 0 }
    }

    #[test]
    fn one_workstation_lists_each_model_once() {
        let box1 = [station("box", Presence::Online, "0.32.15", &["b", "a:1"])];
        assert_eq!(
            openai_models(&box1, &[]).to_string(),
            concat!(
                r#"{"object":"list","data":["#,
                r#"{"id":"local/b:latest","object":"model","created":1763664180,"owned_by":"box"},"#,
                r#"{"id":"local/a:1","object":"model","created":1763664180,"owned_by":"box"}]}"#
            )
        );
        assert_eq!(
            anthropic_models(&box1, &[]).to_string(),
            concat!(
                r#"{"data":["#,
                r#"{"type":"model","id":"local/b:latest","display_name":"b:latest · box","created_at":"2025-11-20T19:43:00.5+01:00"},"#,
                r#"{"type":"model","id":"local/a:1","display_name":"a:1 · box","created_at":"2025-11-20T19:43:00.5+01:00"}],"#,
                r#""has_more":false,"first_id":"local/b:latest","last_id":"local/a:1"}"#
            )
        );
        assert_eq!(
            tags(&box1)["models"][0].to_string(),
            concat!(
                r#"{"name":"b:latest","model":"b:latest","modified_at":"2025-11-20T19:43:00.5+01:00","size":7,"digest":"d1","#,
                r#""details":{"family":"llama"},"capabilities":["completion"]}"#
            )
        );
        assert_eq!(
            running(&box1).to_string(),
            concat!(
                r#"{"models":[{"name":"b:latest","model":"b:latest","size":9,"digest":"d1","details":{"family":"llama"},"#,
                r#""expires_at":"2025-11-20T20:00:00Z","size_vram":8,"context_length":4096}]}"#
            )
        );
    }

    #[test]
    fn several_workstations_are_merged_and_can_be_told_apart() {
        let all = [
            station("zeus", Presence::Online, "0.32.15", &["a", "b"]),
            station("apollo", Presence::Away, "0.9.1", &["a"]),
            station("hades", Presence::Offline, "0.1.0", &["c"]),
        ];
        let ids = |list: Value| -> Vec<String> {
            list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            ids(openai_models(&all, &[])),
            ["local/a:latest", "local/b:latest", "local@apollo/a:latest", "local@zeus/a:latest", "local@zeus/b:latest"]
        );
        assert_eq!(ids(openai_models(&all, &[])), ids(anthropic_models(&all, &[])));
        assert_eq!(tags(&all)["models"].as_array().unwrap().len(), 2);
        assert_eq!(running(&all)["models"].as_array().unwrap().len(), 2);
        assert_eq!(version(&all), Ok(json!({ "version": "0.9.1" })));
        assert_eq!(openai_one("local@ZEUS/a", &all, None).unwrap()["id"], "local@zeus/a:latest");
        assert_eq!(openai_one("local/b", &all, None).unwrap()["owned_by"], "zeus");
        assert_eq!(openai_one("local@apollo/b", &all, None), Err(ProxyError::ModelNotFound("b".parse().unwrap())));
        assert_eq!(anthropic_one("gpt-5", &all, None), Err(ProxyError::NotInCatalogue));
    }

    #[test]
    fn nothing_is_a_list_too() {
        assert_eq!(openai_models(&[], &[]).to_string(), r#"{"object":"list","data":[]}"#);
        assert_eq!(anthropic_models(&[], &[]).to_string(), r#"{"data":[],"has_more":false,"first_id":null,"last_id":null}"#);
        assert_eq!(tags(&[]).to_string(), r#"{"models":[]}"#);
        assert_eq!(version(&[]), Err(ProxyError::NoWorkstation));
        assert_eq!(version(&[station("a", Presence::Offline, "1", &[])]), Err(ProxyError::NoneConnected));
    }

    #[test]
    fn a_cloud_model_is_listed_where_it_can_be_asked_for() {
        let catalogue = crate::Catalogue::embedded().unwrap();
        let offered = |name, endpoints: &[Endpoint]| {
            let model = catalogue.models().find(|model| model.is_called(name)).unwrap();
            Offered { name, model, endpoints: endpoints.to_vec() }
        };
        let gemini = [Endpoint::OpenaiChat, Endpoint::GeminiGenerate, Endpoint::GeminiEmbed];
        let all = || {
            [
                offered("claude-haiku-4-5-20251001", &[Endpoint::OpenaiChat, Endpoint::AnthropicMessages]),
                offered("gpt-5.5", &[Endpoint::OpenaiChat]),
                offered("gemini-2.5-flash", &gemini),
                offered("gemini-embedding-001", &gemini),
            ]
        };
        let openai = openai_models(&[], &all());
        // 2025-10-01 is the day in its name.
        let haiku =
            json!({ "id": "claude-haiku-4-5-20251001", "object": "model", "created": 1_759_276_800, "owned_by": "anthropic" });
        assert_eq!((openai["data"].as_array().unwrap().len(), &openai["data"][0]), (4, &haiku));
        let anthropic = anthropic_models(&[], &all());
        let id = "claude-haiku-4-5-20251001";
        let haiku = json!({ "type": "model", "id": id, "display_name": id, "created_at": "2025-10-01T00:00:00Z" });
        assert_eq!(anthropic["data"], json!([haiku]));
        let gemini = gemini_models(&all());
        let methods: Vec<_> =
            gemini["models"].as_array().unwrap().iter().map(|m| (&m["name"], &m["supportedGenerationMethods"])).collect();
        assert_eq!(
            methods,
            [
                (&json!("models/gemini-2.5-flash"), &json!(["generateContent", "streamGenerateContent", "countTokens"])),
                (&json!("models/gemini-embedding-001"), &json!(["embedContent", "batchEmbedContents", "countTokens"])),
            ]
        );
        let [haiku, gpt, ..] = all();
        assert_eq!(anthropic_one(id, &[], Some(haiku)).unwrap()["id"], id);
        assert_eq!(anthropic_one("gpt-5.5", &[], Some(gpt)), Err(ProxyError::NotInCatalogue));
        let [_, gpt, gemini, _] = all();
        assert_eq!(gemini_one(Some(gpt)), Err(ProxyError::NotInCatalogue));
        assert_eq!(gemini_one(Some(gemini)).unwrap()["name"], "models/gemini-2.5-flash");
    }

    #[test]
    fn versions_and_times_are_read() {
        assert_eq!(compare_versions("0.9.1", "0.17.1"), Ordering::Less);
        assert_eq!(compare_versions("0.17.1-rc2", "0.17.1"), Ordering::Equal);
        assert_eq!(unix_seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(unix_seconds("2000-03-01T00:00:00-01:30"), Some(951_874_200));
        assert_eq!(unix_seconds("2024-02-29T12:00:00.123456789Z"), Some(1_709_208_000));
        for text in ["", "2024", "2024-02-29T12:00:00", "2024-02-29T12:00:00+0100", "2024-02-2éT12:00:00Z"] {
            assert_eq!(unix_seconds(text), None, "{text}");
        }
    }
}
