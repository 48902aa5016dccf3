//! `1k4-lab backup`.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use super::{BackupError, Copy, Part, create, identities, list, restore, verify};
use crate::{
    admin::{AdminError, Printer},
    config::Config,
    store::Store,
};

/// `1k4-lab backup …`.
#[derive(Debug, clap::Args)]
pub struct BackupCommand {
    /// Print JSON, one line.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: BackupVerb,
}

/// What can be done with backups.
#[derive(Debug, clap::Subcommand)]
pub enum BackupVerb {
    /// Copy the Lab, encrypted, to every destination; works while the Lab runs.
    Create,
    /// Show the copies at every destination.
    List,
    /// Read copies to their end: whether they open and are whole.
    Verify {
        /// The file with the age identity, readable by its owner alone.
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// A copy, or a folder of them; every destination when left out.
        #[arg(long, value_name = "PATH")]
        from: Option<PathBuf>,
    },
    /// Put a copy into a new data folder. What was deleted since stays deleted. The master key is not in it.
    Restore {
        /// A copy of the data (….data.age), or a folder whose newest is taken.
        #[arg(long, value_name = "PATH")]
        from: PathBuf,
        /// The file with the age identity, readable by its owner alone.
        #[arg(long, value_name = "FILE")]
        identity: PathBuf,
        /// The new data folder.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
    },
}

/// Does what was asked.
///
/// # Errors
/// [`AdminError`] says what is wrong and what to do.
pub async fn run(config: &Config, command: BackupCommand, out: &mut impl Write) -> Result<(), AdminError> {
    let mut printer = Printer { json: command.json, out };
    let destinations = || config.backup.as_ref().map(|backup| &backup.destinations[..]).ok_or(BackupError::NotConfigured);
    match command.verb {
        BackupVerb::Create => {
            destinations()?;
            let store = Store::of(config).await?;
            let created = create(config, &store).await;
            store.close().await?;
            show(&mut printer, &created?)
        }
        BackupVerb::List => {
            let mut copies = Vec::new();
            for folder in destinations()? {
                copies.extend(list(folder)?);
            }
            show(&mut printer, &copies)
        }
        BackupVerb::Verify { identity, from } => {
            let identities = identities(&identity)?;
            let mut copies = Vec::new();
            match from {
                Some(path) if path.is_dir() => copies = list(&path)?,
                Some(path) => {
                    copies.extend(list(path.parent().unwrap_or(Path::new("")))?.into_iter().filter(|copy| copy.path == path))
                }
                None => {
                    for folder in destinations()? {
                        copies.extend(list(folder)?);
                    }
                }
            }
            for copy in &copies {
                verify(copy, &identities)?;
            }
            let sentence = format!("{} files open and are whole", copies.len());
            printer.say(&serde_json::json!({ "whole": copies.len() }), &sentence)
        }
        BackupVerb::Restore { from, identity, to } => {
            let lists = config.backup.as_ref().map(|backup| backup.destinations.clone()).unwrap_or_default();
            let restored = restore(&from, identities(&identity)?, &to, &lists).await?;
            let sentence = format!(
                "restored {} into {}; {} deletions made since hold; put the master key in its place before you start the lab",
                restored.data.display(),
                to.display(),
                restored.deleted
            );
            printer.say(&restored, &sentence)
        }
    }
}

fn show(printer: &mut Printer<'_, impl Write>, copies: &[Copy]) -> Result<(), AdminError> {
    printer.list(copies, ["FILE", "HOLDS", "BYTES"], |copy| {
        let part = match copy.part {
            Part::Data => "data",
            Part::Keys => "keys",
        };
        [copy.path.display().to_string(), part.to_owned(), copy.size.to_string()]
    })
}
