//! `1k4-lab admin devices`.

use std::{io::Write, net::IpAddr};

use ed25519_dalek::VerifyingKey;
use serde::Serialize;
use wire::fingerprint::Fingerprint;

use super::{AdminError, Printer, day, the_user, users_meant};
use crate::{
    gateway::pairing::{Terms, display_code, read_code},
    store::{Device, DeviceName, Pairing, Store, StoreError},
};

/// What can be done with workstations.
#[derive(Debug, clap::Subcommand)]
pub enum DevicesVerb {
    /// Show workstations.
    List {
        /// Whose; everybody's when left out.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Show workstations that wait to be paired.
    Pending,
    /// Pair the workstation that shows this code. Compare the four words first: `devices pending` shows them, and so does it.
    Approve {
        /// As the workstation shows it.
        code: String,
        /// Whose it becomes; may be left out when there is one user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Turn the workstation that shows this code away.
    Deny {
        /// As the workstation shows it.
        code: String,
    },
    /// Give a workstation another name.
    Rename {
        /// Its name or id.
        device: String,
        /// The new name.
        name: String,
        /// Whose; only needed when several users have one of that name.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// End a workstation's link for good.
    Revoke {
        /// Its name or id.
        device: String,
        /// Whose; only needed when several users have one of that name.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
}

/// A workstation that waits to be paired.
#[derive(Serialize)]
struct Waiting {
    code: String,
    words: String,
    hostname: String,
    os: String,
    version: String,
    address: IpAddr,
    expires_at: i64,
}

impl From<Pairing> for Waiting {
    fn from(pairing: Pairing) -> Self {
        let request = pairing.request;
        let words = VerifyingKey::from_bytes(&request.public_key).map(|key| Fingerprint::of(&key).to_string());
        Self {
            code: display_code(&request.user_code),
            words: words.unwrap_or_default(),
            hostname: request.hostname,
            os: request.os,
            version: request.version,
            address: request.address,
            expires_at: request.expires_at,
        }
    }
}

pub(super) async fn run(
    store: &Store,
    verb: DevicesVerb,
    terms: Terms,
    printer: &mut Printer<'_, impl Write>,
) -> Result<(), AdminError> {
    match verb {
        DevicesVerb::List { user } => {
            let mut devices = Vec::new();
            for user in users_meant(store, user.as_deref()).await? {
                devices.extend(store.devices(user.id).await?);
            }
            printer.list(&devices, ["NAME", "ID", "USER", "SYSTEM", "SINCE", "REVOKED"], |device| {
                [
                    device.name.clone(),
                    device.id.to_string(),
                    device.user.to_string(),
                    device.os.clone(),
                    day(Some(device.created_at)),
                    day(device.revoked_at),
                ]
            })
        }
        DevicesVerb::Pending => {
            let waiting: Vec<Waiting> = store.pending_pairings().await?.into_iter().map(Waiting::from).collect();
            printer.list(&waiting, ["CODE", "WORDS", "NAME", "SYSTEM", "ADDRESS"], |waiting| {
                [
                    waiting.code.clone(),
                    waiting.words.clone(),
                    waiting.hostname.clone(),
                    waiting.os.clone(),
                    waiting.address.to_string(),
                ]
            })
        }
        DevicesVerb::Approve { code, user } => {
            let owner = the_user(store, user.as_deref()).await?;
            let waiting = waiting(store, &code).await?;
            let code = read_code(&code).ok_or(AdminError::InvalidCode)?;
            store.approve_pairing(&code, owner.id, terms.ends_at()).await.map_err(unknown_code)?;
            let sentence = format!("approved {} for {}; its bridge links within seconds", waiting.hostname, owner.name);
            printer.say(&serde_json::json!({ "approved": waiting, "user": owner.id }), &sentence)
        }
        DevicesVerb::Deny { code } => {
            let waiting = waiting(store, &code).await?;
            let code = read_code(&code).ok_or(AdminError::InvalidCode)?;
            store.deny_pairing(&code).await.map_err(unknown_code)?;
            let sentence = format!("denied {}", waiting.hostname);
            printer.say(&serde_json::json!({ "denied": waiting }), &sentence)
        }
        DevicesVerb::Rename { device, name, user } => {
            let device = the_device(store, &device, user.as_deref()).await?;
            let name = DeviceName::parse(&name)?;
            store.rename_device(device.user, device.id, &name).await?;
            let sentence = format!("renamed {} to {name}", device.name);
            printer.say(&serde_json::json!({ "id": device.id, "name": name.to_string() }), &sentence)
        }
        DevicesVerb::Revoke { device, user } => {
            let device = the_device(store, &device, user.as_deref()).await?;
            store.revoke_device(device.user, device.id).await?;
            let sentence = format!("revoked {}; its link is closed within a second", device.name);
            printer.say(&serde_json::json!({ "id": device.id, "revoked": true }), &sentence)
        }
    }
}

async fn waiting(store: &Store, code: &str) -> Result<Waiting, AdminError> {
    let code = read_code(code).ok_or(AdminError::InvalidCode)?;
    store.pending_pairing(&code).await?.map(Waiting::from).ok_or(AdminError::UnknownCode)
}

fn unknown_code(error: StoreError) -> AdminError {
    match error {
        StoreError::Missing(_) => AdminError::UnknownCode,
        error => error.into(),
    }
}

/// The device in use that has this name or id.
async fn the_device(store: &Store, named: &str, user: Option<&str>) -> Result<Device, AdminError> {
    let mut found = Vec::new();
    for user in users_meant(store, user).await? {
        let devices = store.devices(user.id).await?.into_iter().filter(|device| device.revoked_at.is_none());
        found.extend(devices.filter(|device| device.id.to_string() == named || device.name.eq_ignore_ascii_case(named)));
    }
    match (found.pop(), found.is_empty()) {
        (None, _) => Err(AdminError::UnknownDevice(named.to_owned())),
        (Some(device), true) => Ok(device),
        (Some(_), false) => Err(AdminError::WhichDevice(named.to_owned())),
    }
}
