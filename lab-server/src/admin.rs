//! `1k4-lab admin`: what the Lab's owner does at the server itself.
//!
//! The verbs work on the store directly, also while `1k4-lab serve` runs: what they revoke the server sees within a heartbeat of
//! [`crate::account::revocation`]. Where there is one user or one project only, it need not be named.

mod credits;
mod devices;
mod keys;
mod projects;
mod terms;
mod usage;
mod users;

use std::io::Write;

use serde::Serialize;
use wire::UserId;

pub use credits::CreditsVerb;
pub use devices::DevicesVerb;
pub use keys::KeysVerb;
pub use projects::{ProjectsVerb, Switch};
pub use terms::{InvalidTerm, Span};
pub use usage::{By, Usage};
pub use users::UsersVerb;

use crate::{
    account::{api_key::InvalidKid, farewell::FarewellError},
    calendar,
    config::Config,
    store::{InvalidDeviceName, Project, Store, StoreError, User},
};

/// `1k4-lab admin …`.
#[derive(Debug, clap::Args)]
pub struct Admin {
    /// Print JSON, one line.
    #[arg(long, global = true)]
    pub json: bool,
    /// On what.
    #[command(subcommand)]
    pub noun: Noun,
}

/// What the verbs are about.
#[derive(Debug, clap::Subcommand)]
pub enum Noun {
    /// People with an account.
    #[command(subcommand)]
    Users(UsersVerb),
    /// Their projects.
    #[command(subcommand)]
    Projects(ProjectsVerb),
    /// API keys.
    #[command(subcommand)]
    Keys(KeysVerb),
    /// What people have, and every change of it.
    #[command(subcommand)]
    Credits(CreditsVerb),
    /// What requests come to.
    Usage(Usage),
    /// Paired workstations.
    #[command(subcommand)]
    Devices(DevicesVerb),
}

/// Why a verb was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A backup.
    #[error(transparent)]
    Backup(#[from] crate::backup::BackupError),
    /// There is nobody yet.
    #[error("there is no user yet; add one with `1k4-lab admin users add NAME`")]
    NoUser,
    /// Nobody of that name.
    #[error("there is no user {0}; `1k4-lab admin users list` shows them")]
    UnknownUser(String),
    /// Which of them?
    #[error("there are several users; say which with --user NAME")]
    WhichUser,
    /// The user has no project yet.
    #[error("{0} has no project yet; add one with `1k4-lab admin projects add NAME`")]
    NoProject(String),
    /// None of that name.
    #[error("{user} has no project {project}; `1k4-lab admin projects list` shows them")]
    UnknownProject {
        /// Whose.
        user: String,
        /// As it was named.
        project: String,
    },
    /// Which of them?
    #[error("{0} has several projects; say which with --project NAME")]
    WhichProject(String),
    /// No device of that name or id is in use.
    #[error("there is no device {0} in use; `1k4-lab admin devices list` shows them")]
    UnknownDevice(String),
    /// Which of them?
    #[error("several users have a device {0}; say whose with --user NAME, or give its id")]
    WhichDevice(String),
    /// No key of that id.
    #[error("there is no key {0}; `1k4-lab admin keys list` shows them")]
    UnknownKey(String),
    /// A name that nobody could read.
    #[error("a name has 1 to 100 characters, none of them a control character")]
    InvalidName,
    /// A device's name.
    #[error(transparent)]
    InvalidDeviceName(#[from] InvalidDeviceName),
    /// A key's id. A whole key is not repeated.
    #[error("{0}, the part between the second and the third underscore; `1k4-lab admin keys list` shows them")]
    InvalidKid(#[from] InvalidKid),
    /// The key is there, and cannot be changed any more.
    #[error("the key {0} was revoked, has expired or was replaced; make a new one with `1k4-lab admin keys create`")]
    EndedKey(String),
    /// A key's terms.
    #[error("a limit {0}")]
    InvalidTerm(#[from] InvalidTerm),
    /// An idempotency text that stands for something else.
    #[error("something else was done once for this text; give another one with --once")]
    UsedOnce,
    /// Not a day.
    #[error("{0} must be a UTC day such as 2026-11-20")]
    InvalidDay(&'static str),
    /// A pairing code.
    #[error("a code has eight letters, without vowels and digits, such as BCDF-GHJK; copy it from the workstation")]
    InvalidCode,
    /// Nothing waits under the code.
    #[error("no workstation waits under this code; codes live for ten minutes, start again at the workstation for a new one")]
    UnknownCode,
    /// An account that is to be deleted.
    #[error(transparent)]
    Farewell(#[from] FarewellError),
    /// What was typed is not what is to be deleted.
    #[error("--confirm must repeat the user's name: all that is theirs is deleted for good")]
    NotConfirmed,
    /// Nobody reads what is printed.
    #[error("cannot print the result: {0}")]
    Output(#[from] std::io::Error),
}

/// Does what was asked and prints the result to `out`.
///
/// # Errors
/// [`AdminError`] is a sentence with the cause and the next step.
pub async fn run(store: &Store, admin: Admin, config: &Config, out: &mut (impl Write + Send)) -> Result<(), AdminError> {
    let mut printer = Printer { json: admin.json, out };
    match admin.noun {
        Noun::Users(verb) => users::run(store, verb, config, &mut printer).await,
        Noun::Projects(verb) => projects::run(store, verb, &mut printer).await,
        Noun::Keys(verb) => keys::run(store, verb, &mut printer).await,
        Noun::Credits(verb) => credits::run(store, verb, &mut printer).await,
        Noun::Usage(usage) => usage::run(store, usage, &mut printer).await,
        Noun::Devices(verb) => devices::run(store, verb, config.pairing, &mut printer).await,
    }
}

/// The user of this name or id, or the only one.
///
/// # Errors
/// When there is none, or it is not clear which.
pub async fn the_user(store: &Store, named: Option<&str>) -> Result<User, AdminError> {
    if let Some(named) = named {
        let user = match named.parse::<UserId>() {
            Ok(id) => store.user(id).await?,
            Err(_) => store.user_named(named).await?,
        };
        return user.ok_or_else(|| AdminError::UnknownUser(named.to_owned()));
    }
    let mut users = store.users().await?;
    match (users.pop(), users.is_empty()) {
        (None, _) => Err(AdminError::NoUser),
        (Some(user), true) => Ok(user),
        (Some(_), false) => Err(AdminError::WhichUser),
    }
}

/// The user's project of this name or id, or the only one.
///
/// # Errors
/// When there is none, or it is not clear which.
pub async fn the_project(store: &Store, user: &User, named: Option<&str>) -> Result<Project, AdminError> {
    let mut projects = store.projects(user.id).await?;
    if let Some(named) = named {
        let project = projects.into_iter().find(|project| project.name == named || project.id.to_string() == named);
        return project.ok_or_else(|| AdminError::UnknownProject { user: user.name.clone(), project: named.to_owned() });
    }
    match (projects.pop(), projects.is_empty()) {
        (None, _) => Err(AdminError::NoProject(user.name.clone())),
        (Some(project), true) => Ok(project),
        (Some(_), false) => Err(AdminError::WhichProject(user.name.clone())),
    }
}

/// The one user, or all of them when none is named.
async fn users_meant(store: &Store, named: Option<&str>) -> Result<Vec<User>, AdminError> {
    match named {
        Some(_) => Ok(vec![the_user(store, named).await?]),
        None => Ok(store.users().await?),
    }
}

fn valid_name(name: &str) -> Result<&str, AdminError> {
    let name = name.trim();
    let fits = (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if fits { Ok(name) } else { Err(AdminError::InvalidName) }
}

/// Prints a result in the form that was asked for.
pub(crate) struct Printer<'a, W> {
    pub(crate) json: bool,
    pub(crate) out: &'a mut W,
}

impl<W: Write> Printer<'_, W> {
    /// One thing: its JSON, or a sentence.
    pub(crate) fn say(&mut self, value: &impl Serialize, sentence: &str) -> Result<(), AdminError> {
        if self.json {
            serde_json::to_writer(&mut *self.out, value).map_err(std::io::Error::from)?;
            writeln!(self.out)?;
        } else {
            writeln!(self.out, "{sentence}")?;
        }
        Ok(())
    }

    /// Several things: their JSON array, or a table.
    pub(crate) fn list<T: Serialize, const N: usize>(
        &mut self,
        values: &[T],
        header: [&str; N],
        row: impl Fn(&T) -> [String; N],
    ) -> Result<(), AdminError> {
        if self.json {
            return self.say(&values, "");
        }
        let mut rows = vec![header.map(str::to_owned)];
        rows.extend(values.iter().map(row));
        let widths: [usize; N] =
            std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
        for row in rows {
            let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            writeln!(self.out, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// The day of a time in milliseconds since 1970, or a dash.
fn day(time: Option<i64>) -> String {
    let Some(time) = time.and_then(|time| u64::try_from(time).ok()) else { return "-".to_owned() };
    let (year, month, day) = calendar::date(time / 86_400_000);
    format!("{year:04}-{month:02}-{day:02}")
}
