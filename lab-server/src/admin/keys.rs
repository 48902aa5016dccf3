//! `1k4-lab admin keys`.

use std::io::Write;

use serde::Serialize;

use super::{AdminError, Printer, day, the_project, the_user, users_meant, valid_name};
use crate::{
    account::{
        api_key::{Environment, Kid},
        create_key,
    },
    store::{ApiKeyRecord, Store, StoreError},
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
    },
    /// Show keys; never their secrets.
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
    record: ApiKeyRecord,
}

pub(super) async fn run(store: &Store, verb: KeysVerb, printer: &mut Printer<'_, impl Write>) -> Result<(), AdminError> {
    match verb {
        KeysVerb::Create { name, user, project } => {
            let owner = the_user(store, user.as_deref()).await?;
            let project = the_project(store, &owner, project.as_deref()).await?;
            let (key, record) = create_key(store, project.id, valid_name(&name)?, Environment::Live).await?;
            // The key alone, so that it can be piped; what it is for is known to whoever asked.
            printer.say(&Created { key: key.reveal(), record }, key.reveal())
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
            printer.list(&keys, ["KEY", "NAME", "ENDS IN", "PROJECT", "SINCE", "REVOKED"], |key| {
                [
                    key.kid.to_string(),
                    key.name.clone(),
                    key.last4.clone(),
                    key.project.to_string(),
                    day(Some(key.created_at)),
                    day(key.revoked_at),
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
