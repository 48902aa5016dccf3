//! `1k4-lab admin keys`.

use std::io::Write;

use serde::Serialize;

use super::{
    AdminError, Printer, day,
    terms::{Span, Terms},
    the_project, the_user, users_meant, valid_name,
};
use crate::{
    account::{
        api_key::{Environment, Kid},
        create_key, rotate_key,
    },
    api::KeyView,
    credits::Credits,
    store::{ApiKeyRecord, KeyTerms, Rates, Spending, Store, StoreError, User},
};

/// What can be done with API keys.
#[derive(Debug, clap::Subcommand)]
pub enum KeysVerb {
    /// Make a key and print it. It is shown this once and cannot be shown again.
    Create {
        /// What to call it.
        #[arg(long, default_value = "key")]
        name: String,
        /// Whose; may be left out when there is one user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// For which project; may be left out when the user has one.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
        /// For trying things out: its text begins with 1k4_test_.
        #[arg(long)]
        test: bool,
        /// What it may do.
        #[command(flatten)]
        terms: Box<Terms>,
    },
    /// Change a key's name or terms; what is left out stays.
    Update {
        /// The key's id, the part between the second and the third underscore.
        kid: String,
        /// What to call it.
        #[arg(long)]
        name: Option<String>,
        /// What it may do.
        #[command(flatten)]
        terms: Box<Terms>,
    },
    /// Put a new key in a key's place and print it, with the same name and terms. Both share its limits.
    Rotate {
        /// The key's id, the part between the second and the third underscore.
        kid: String,
        /// For how long the old key is taken beside the new one, such as 1h; else it ends at once.
        #[arg(long, value_name = "TIME", default_value = "0")]
        overlap: Span,
    },
    /// Show keys and their terms; never their secrets.
    List {
        /// Whose; everybody's when left out.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Of which project; all when left out.
        #[arg(long, value_name = "NAME")]
        project: Option<String>,
    },
    /// End a key for good.
    Revoke {
        /// The key's id, the part between the second and the third underscore.
        kid: String,
    },
}

/// A new key with the text that is shown once.
#[derive(Serialize)]
struct Created<'a> {
    key: &'a str,
    #[serde(flatten)]
    record: KeyView,
}

pub(super) async fn run(store: &Store, verb: KeysVerb, printer: &mut Printer<'_, impl Write>) -> Result<(), AdminError> {
    match verb {
        KeysVerb::Create { name, user, project, test, terms } => {
            let owner = the_user(store, user.as_deref()).await?;
            let project = the_project(store, &owner, project.as_deref()).await?;
            let environment = if test { Environment::Test } else { Environment::Live };
            let mut new = KeyTerms { environment, ..KeyTerms::default() };
            terms.lay_over(&mut new)?;
            let (key, record) = create_key(store, project.id, valid_name(&name)?, new).await?;
            // The key alone, so that it can be piped; what it is for is known to whoever asked.
            printer.say(&Created { key: key.reveal(), record: record.into() }, key.reveal())
        }
        KeysVerb::Update { kid, name, terms } => {
            let (owner, record) = the_key(store, &kid).await?;
            let mut new = record.terms;
            terms.lay_over(&mut new)?;
            let new_name = name.as_deref().map(valid_name).transpose()?.map_or(record.name, str::to_owned);
            let change = |name: &mut String, terms: &mut KeyTerms| (*name, *terms) = (new_name, new);
            let (record, _) = store.update_key(owner.id, record.kid, change).await.map_err(|error| gone(error, &kid))?;
            let sentence = format!("changed {}: {}", record.kid, described(&record));
            printer.say(&KeyView::from(record), &sentence)
        }
        KeysVerb::Rotate { kid, overlap: Span(overlap) } => {
            let (owner, record) = the_key(store, &kid).await?;
            let (key, record, _) = rotate_key(store, owner.id, record.kid, overlap).await.map_err(|error| gone(error, &kid))?;
            printer.say(&Created { key: key.reveal(), record: record.into() }, key.reveal())
        }
        KeysVerb::List { user, project } => {
            let mut keys = Vec::new();
            for user in users_meant(store, user.as_deref()).await? {
                let projects = match &project {
                    Some(_) => vec![the_project(store, &user, project.as_deref()).await?],
                    None => store.projects(user.id).await?,
                };
                for project in projects {
                    keys.extend(store.keys(project.id).await?);
                }
            }
            if printer.json {
                let keys: Vec<KeyView> = keys.into_iter().map(KeyView::from).collect();
                return printer.say(&keys, "");
            }
            printer.list(&keys, ["KEY", "NAME", "ENDS IN", "PROJECT", "SINCE", "REVOKED", "TERMS"], |key| {
                [
                    key.kid.to_string(),
                    key.name.clone(),
                    key.last4.clone(),
                    key.project.to_string(),
                    day(Some(key.created_at)),
                    day(key.revoked_at),
                    described(key),
                ]
            })
        }
        KeysVerb::Revoke { kid } => {
            let kid: Kid = kid.parse()?;
            store.revoke_key(kid).await.map_err(|error| match error {
                StoreError::Missing(_) => AdminError::UnknownKey(kid.to_string()),
                error => error.into(),
            })?;
            printer.say(&serde_json::json!({ "kid": kid, "revoked": true }), &format!("revoked {kid}"))
        }
    }
}

/// The key of this id, and whose it is.
async fn the_key(store: &Store, named: &str) -> Result<(User, ApiKeyRecord), AdminError> {
    let kid: Kid = named.parse()?;
    for user in store.users().await? {
        if let Some(record) = store.key(user.id, kid).await? {
            return Ok((user, record));
        }
    }
    Err(AdminError::UnknownKey(kid.to_string()))
}

/// A key that is there and has ended.
fn gone(error: StoreError, kid: &str) -> AdminError {
    match error {
        StoreError::Missing(_) => AdminError::EndedKey(kid.to_owned()),
        error => error.into(),
    }
}

/// A key's terms in a few words.
fn described(key: &ApiKeyRecord) -> String {
    let KeyTerms { environment, scopes, spending, rates, models, expires_at } = &key.terms;
    let mut words = vec![environment.as_str().to_owned(), scopes.to_string()];
    let Spending { day: a_day, month, total } = spending;
    for (limit, window) in [(a_day, "a day"), (month, "a month"), (total, "in all")] {
        words.extend(limit.map(|nano| format!("{} credits {window}", Credits::of_nano(nano))));
    }
    let Rates { requests_per_minute, tokens_per_minute, concurrent } = rates;
    for (limit, what) in [(requests_per_minute, "requests/min"), (tokens_per_minute, "tokens/min"), (concurrent, "at once")] {
        words.extend(limit.map(|limit| format!("{limit} {what}")));
    }
    if let Some(models) = models {
        let models: Vec<&str> = models.iter().map(|pattern| pattern.as_str()).collect();
        words.push(format!("models {}", models.join(" ")));
    }
    words.extend(expires_at.map(|end| format!("until {}", day(Some(end)))));
    words.extend(key.replaced_by.map(|kid| format!("replaced by {kid}")));
    words.join(", ")
}
