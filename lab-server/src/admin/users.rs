//! `1k4-lab admin users`.

use std::io::Write;

use super::{AdminError, Printer, day, terms::Rates, the_user, valid_name};
use crate::{
    account::{
        farewell::{FarewellError, farewell},
        sign_in,
    },
    config::Config,
    lab::operations::Log,
    store::Store,
};

/// What can be done with users.
#[derive(Debug, clap::Subcommand)]
pub enum UsersVerb {
    /// Open an account.
    Add {
        /// As people call them; unique on this Lab.
        name: String,
        /// The address that may ask for links to sign in with.
        #[arg(long, value_name = "ADDRESS")]
        email: Option<String>,
    },
    /// Print a link that signs somebody in, once and within a day, and opens an account for the address if it has none.
    Invite {
        /// Their e-mail address. Nothing is sent there.
        #[arg(long, value_name = "ADDRESS")]
        email: String,
    },
    /// Show everybody.
    List,
    /// Say how fast somebody may ask with all their keys together; what is left out stays, `none` leaves it to the configuration.
    Limits {
        /// Their name or id.
        name: String,
        /// How fast.
        #[command(flatten)]
        rates: Rates,
    },
    /// Delete somebody's account with everything in it, for good. Their keys, devices and sessions end at once.
    Delete {
        /// Their name or id.
        name: String,
        /// Their name once more.
        #[arg(long, value_name = "NAME")]
        confirm: String,
    },
}

pub(super) async fn run(
    store: &Store,
    verb: UsersVerb,
    config: &Config,
    printer: &mut Printer<'_, impl Write>,
) -> Result<(), AdminError> {
    match verb {
        UsersVerb::Add { name, email } => {
            let user = sign_in::add(store, valid_name(&name)?, email.as_deref(), config.clock.now_ms()).await?;
            printer.say(&user, &format!("added {} ({})", user.name, user.id))
        }
        UsersVerb::Invite { email } => {
            let link = sign_in::invite(store, &config.origin(config.listen), &email, config.clock.now_ms()).await?;
            printer.say(&serde_json::json!({ "link": link }), &link)
        }
        UsersVerb::List => printer.list(&store.users().await?, ["NAME", "ID", "SINCE"], |user| {
            [user.name.clone(), user.id.to_string(), day(Some(user.created_at))]
        }),
        UsersVerb::Limits { name, rates } => {
            let mut user = the_user(store, Some(&name)).await?;
            rates.lay_over(&mut user.rates);
            store.set_user_rates(user.id, user.rates).await?;
            printer.say(&user, &format!("changed the limits of {}", user.name))
        }
        UsersVerb::Delete { name, confirm } => {
            let user = the_user(store, Some(&name)).await?;
            if confirm != user.name {
                return Err(AdminError::NotConfirmed);
            }
            let log = Log::new(store.clone());
            log.open_heads(&config.audit_heads).await.map_err(FarewellError::from)?;
            store.revoke_user(user.id).await?;
            farewell(store, &log, &config.blobs, user.id).await?;
            printer.say(&user, &format!("deleted {} ({}) and everything of theirs", user.name, user.id))
        }
    }
}
