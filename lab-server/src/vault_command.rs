//! `1k4-lab vault`: which keys there are, and either kind's successor. Works while the Lab runs.

use std::io::Write;

use serde::Serialize;

use crate::{
    admin::{AdminError, Printer, the_user},
    config::Config,
    store::{Store, StoreError},
    vault::{self, Held, MasterError, MasterSource, NewMaster, Rotated, VaultError},
};

/// `1k4-lab vault …`.
#[derive(Debug, clap::Args)]
pub struct VaultCommand {
    /// Print JSON, one line.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: VaultVerb,
}

/// What can be done with the vault.
#[derive(Debug, clap::Subcommand)]
pub enum VaultVerb {
    /// Show the master keys by name, and how many keys are wrapped under each.
    Status,
    /// Make a master key and put it in front of those that are there; `rotate-master` then wraps every key under it.
    NewMaster,
    /// Wrap every key under the first master key. The others can be taken away afterwards.
    RotateMaster,
    /// Give every key a successor that seals from now on; what older ones sealed still opens.
    RotateKeys {
        /// Whose; everybody's and the Lab's own when left out.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
}

/// Where a new master key is.
#[derive(Serialize)]
struct NewKey<'a> {
    /// Its name, where it was put in its place.
    name: Option<&'a str>,
    /// The key itself, where whoever called has to do that.
    master_key: Option<&'a str>,
}

/// Does what was asked.
///
/// # Errors
/// [`AdminError`] says what is wrong and what to do.
pub async fn run(config: &Config, command: VaultCommand, out: &mut impl Write) -> Result<(), AdminError> {
    let mut printer = Printer { json: command.json, out };
    // It may be the first one of all: without it nothing opens.
    if matches!(command.verb, VaultVerb::NewMaster) {
        return new_master(&config.master, &mut printer).await;
    }
    let store = Store::of(config).await?;
    let done = on_store(&store, command.verb, &mut printer).await;
    store.close().await?;
    done
}

/// What a Lab's owner should know of where the master key lies; `None` when all is well.
#[must_use]
pub fn remark(source: &MasterSource) -> Option<String> {
    match source {
        MasterSource::Own(path) => Some(format!(
            "the master key lies beside the data, in {}: whoever takes the disk has both, and no backup holds it; keep a copy elsewhere, \
             or name another place with master = … under [vault]",
            path.display()
        )),
        _ => None,
    }
}

async fn new_master(source: &MasterSource, printer: &mut Printer<'_, impl Write>) -> Result<(), AdminError> {
    match vault::renew(source).await.map_err(failed)? {
        NewMaster::Kept(name) => {
            let sentence = format!("made {name}; now run `1k4-lab vault rotate-master`, and keep a copy of it where no backup is");
            printer.say(&NewKey { name: Some(&name), master_key: None }, &sentence)
        }
        // The key alone, so that it can be piped; what it is for is known to whoever asked.
        NewMaster::Told(line) => printer.say(&NewKey { name: None, master_key: Some(line.trim()) }, line.trim()),
    }
}

async fn on_store(store: &Store, verb: VaultVerb, printer: &mut Printer<'_, impl Write>) -> Result<(), AdminError> {
    let vault = store.vault();
    match verb {
        VaultVerb::Status | VaultVerb::NewMaster => printer.list(
            &vault.status().await.map_err(StoreError::from)?,
            ["MASTER KEY", "AT HAND", "WRAPS", "KEYS"],
            |held: &Held| {
                let yes = |yes| if yes { "yes" } else { "no" }.to_owned();
                [held.master.clone(), yes(held.at_hand), yes(held.wraps), held.keys.to_string()]
            },
        ),
        VaultVerb::RotateMaster => {
            let Rotated { keys } = vault.rotate_master().await.map_err(StoreError::from)?;
            printer
                .say(&Rotated { keys }, &format!("wrapped {keys} keys under the first master key; the others are needed no more"))
        }
        VaultVerb::RotateKeys { user } => {
            let user = match user {
                Some(name) => Some(the_user(store, Some(&name)).await?.id),
                None => None,
            };
            let Rotated { keys } = vault.rotate_keys(user).await.map_err(StoreError::from)?;
            // Servers then read again what they have open.
            store.raise_security_epoch().await?;
            printer.say(&Rotated { keys }, &format!("{keys} keys have a successor, which seals from now on"))
        }
    }
}

fn failed(error: MasterError) -> AdminError {
    StoreError::from(VaultError::from(error)).into()
}
