//! The looking: everything at once, nothing for longer than its limit, nothing changed.

use std::{env, path::PathBuf, time::Duration};

use bridge_core::{
    config::{self, Config},
    control::{Client, ClientError},
    credentials::Credentials,
    dial::{DialError, Dialer},
    ollama::{Inventory, Ollama, OllamaHost, Runs, debug_body_logging},
    status::now_ms,
};

use super::diagnose::{BridgeSeen, Models, OllamaSeen, Pairing, Seen};
use crate::clock;

/// How long Ollama may take to list its models.
const MODELS_LIMIT: Duration = Duration::from_secs(6);

/// Looks at everything.
pub(super) async fn look(config: &Config) -> Seen {
    let (pairing, ollama, bridge) = tokio::join!(pairing(config), ollama(config), bridge(config));
    Seen { config_file: config.paths.config_file.clone(), pairing, ollama, bridge }
}

async fn pairing(config: &Config) -> Pairing {
    let pairing = match config::Pairing::load(&config.paths) {
        Ok(Some(pairing)) => pairing,
        Ok(None) => return Pairing::None,
        Err(error) => return Pairing::Unreadable(error),
    };
    let key = async {
        let key = Credentials::open(config.credential_store.clone(), &pairing.lab)?.load().await?;
        drop(key);
        Ok(())
    };
    let (key, reached) = tokio::join!(key, reach(config, &pairing.lab));
    Pairing::With { lab: pairing.lab.to_string(), owner: pairing.owner, store: config.credential_store.clone(), key, reached }
}

/// Goes to the Lab and looks at its clock.
async fn reach(config: &Config, lab: &config::Origin) -> Result<Option<i64>, DialError> {
    let date = Dialer::new(config.ca_file.as_deref())?.look(lab).await?;
    let there = date.as_deref().and_then(clock::http_date).and_then(|seconds| i64::try_from(seconds).ok());
    let here = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
    Ok(there.map(|there| there.saturating_sub(here)))
}

async fn ollama(config: &Config) -> OllamaSeen {
    let ollama = Ollama::new(config.ollama.clone());
    let default = OllamaHost::default();
    let elsewhere = async { if config.ollama == default { None } else { Ollama::new(default.clone()).version().await.ok() } };
    let (answer, at_default) = tokio::join!(ollama.version(), elsewhere);
    let models = if answer.is_ok() { models(config, ollama).await } else { None };
    OllamaSeen {
        url: config.ollama.as_str().to_owned(),
        is_loopback: config.ollama.is_loopback(),
        at_default: if answer.is_ok() { None } else { at_default },
        answer,
        program: program("ollama"),
        models,
        stranger: stranger(&config.ollama),
        body_logging: debug_body_logging(),
    }
}

/// The user whose program listens at Ollama's port, where that is neither root, nor `ollama`, nor this user.
#[cfg(target_os = "linux")]
fn stranger(host: &OllamaHost) -> Option<u32> {
    use bridge_core::ollama::listener::{self, Listener};

    match listener::find(host.loopback()?) {
        Ok(Listener::Stranger { uid }) => Some(uid),
        // A system that does not tell cannot be judged.
        Ok(_) | Err(_) => None,
    }
}

/// Only Linux tells.
#[cfg(not(target_os = "linux"))]
fn stranger(_: &OllamaHost) -> Option<u32> {
    None
}

async fn models(config: &Config, ollama: Ollama) -> Option<Models> {
    let mut inventory = bridge_core::ollama::watch(ollama);
    let inventory: Inventory = tokio::time::timeout(MODELS_LIMIT, async {
        inventory.changed().await.ok()?;
        Some(Inventory::clone(&inventory.borrow_and_update()))
    })
    .await
    .ok()??;
    let here = || inventory.models.iter().filter(|installed| installed.runs == Runs::Here);
    Some(Models {
        local: here().count(),
        elsewhere: inventory.models.len() - here().count(),
        shared: here().filter(|installed| config.policy.shares(&installed.model.name)).count(),
    })
}

async fn bridge(config: &Config) -> BridgeSeen {
    match Client::new(&config.paths).status().await {
        Ok(status) => BridgeSeen::Running(status.link),
        Err(ClientError::NotRunning) => BridgeSeen::NotRunning,
        Err(error) => BridgeSeen::Broken(error.to_string()),
    }
}

/// A program on the PATH.
fn program(name: &str) -> Option<PathBuf> {
    let name = format!("{name}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?).map(|directory| directory.join(&name)).find(|path| path.is_file())
}
