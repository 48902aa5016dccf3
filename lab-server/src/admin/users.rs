//! `1k4-lab admin users`.

use std::io::Write;

use super::{AdminError, Printer, day, valid_name};
use crate::store::Store;

/// What can be done with users.
#[derive(Debug, clap::Subcommand)]
pub enum UsersVerb {
    /// Open an account.
    Add {
        /// As people call them; unique on this Lab.
        name: String,
    },
    /// Show everybody.
    List,
}

pub(super) async fn run(store: &Store, verb: UsersVerb, printer: &mut Printer<'_, impl Write>) -> Result<(), AdminError> {
    match verb {
        UsersVerb::Add { name } => {
            let user = store.add_user(valid_name(&name)?).await?;
            printer.say(&user, &format!("added {} ({})", user.name, user.id))
        }
        UsersVerb::List => printer.list(&store.users().await?, ["NAME", "ID", "SINCE"], |user| {
            [user.name.clone(), user.id.to_string(), day(Some(user.created_at))]
        }),
    }
}
