//! `1k4-lab admin credits`.

use std::io::Write;

use serde::Serialize;
use wire::UserId;

use super::{AdminError, Printer, day, the_user, users_meant};
use crate::{
    api::EntryView,
    credits::Credits,
    store::{Store, StoreError},
};

/// What can be done with credits.
#[derive(Debug, clap::Subcommand)]
pub enum CreditsVerb {
    /// Give credits.
    Grant {
        /// How many, such as 5 or 0.01.
        amount: Credits,
        /// To whom; may be left out when there is one user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Give them once for this text, however often it is asked, such as an invoice's number.
        #[arg(long, value_name = "TEXT")]
        once: Option<String>,
    },
    /// Set a balance right: add credits, or take them with a minus sign.
    Adjust {
        /// How many, such as 0.5 or -0.5.
        #[arg(allow_negative_numbers = true)]
        amount: Credits,
        /// Whose; may be left out when there is one user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Do it once for this text, however often it is asked.
        #[arg(long, value_name = "TEXT")]
        once: Option<String>,
    },
    /// Show what people have.
    Show {
        /// Who; everybody when left out.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
    },
    /// Show every change of somebody's credits, newest first.
    Ledger {
        /// Whose; may be left out when there is one user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// How many at most.
        #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
        limit: u64,
    },
}

/// What somebody has.
#[derive(Serialize)]
struct Holding {
    user: UserId,
    name: String,
    balance: Credits,
    balance_nano: i64,
    free_requests_left: i32,
}

pub(super) async fn run(store: &Store, verb: CreditsVerb, printer: &mut Printer<'_, impl Write>) -> Result<(), AdminError> {
    match verb {
        CreditsVerb::Grant { amount, user, once } => {
            let owner = the_user(store, user.as_deref()).await?;
            let credited = store.grant(owner.id, amount.nano, &key(once)).await.map_err(used)?;
            let what = if credited.repeated { "had been given before to" } else { "given to" };
            let balance = Credits::of_nano(credited.balance_nano);
            let sentence = format!("{amount} credits {what} {}, who has {balance} now", owner.name);
            let json = serde_json::json!({ "user": owner.id, "amount": amount, "balance": balance, "repeated": credited.repeated });
            printer.say(&json, &sentence)
        }
        CreditsVerb::Adjust { amount, user, once } => {
            let owner = the_user(store, user.as_deref()).await?;
            let credited = store.adjust(owner.id, amount.nano, &key(once)).await.map_err(used)?;
            let balance = Credits::of_nano(credited.balance_nano);
            let sentence = format!("{} has {balance} credits now", owner.name);
            let json = serde_json::json!({ "user": owner.id, "amount": amount, "balance": balance, "repeated": credited.repeated });
            printer.say(&json, &sentence)
        }
        CreditsVerb::Show { user } => {
            let mut holdings = Vec::new();
            for user in users_meant(store, user.as_deref()).await? {
                let Some(balance) = store.balance(user.id).await? else { continue };
                holdings.push(Holding {
                    user: user.id,
                    name: user.name,
                    balance: Credits::of_nano(balance.balance_nano),
                    balance_nano: balance.balance_nano,
                    free_requests_left: balance.free_requests_left,
                });
            }
            printer.list(&holdings, ["NAME", "CREDITS", "FREE REQUESTS"], |holding| {
                [holding.name.clone(), holding.balance.to_string(), holding.free_requests_left.to_string()]
            })
        }
        CreditsVerb::Ledger { user, limit } => {
            let owner = the_user(store, user.as_deref()).await?;
            let entries = store.ledger(owner.id, None, limit).await?;
            if printer.json {
                let entries: Vec<EntryView> = entries.into_iter().map(EntryView::from).collect();
                return printer.say(&entries, "");
            }
            printer.list(&entries, ["SEQ", "DAY", "KIND", "CREDITS", "FOR"], |entry| {
                [
                    entry.seq.to_string(),
                    day(Some(entry.time)),
                    entry.kind.as_str().to_owned(),
                    Credits::of_nano(entry.amount_nano).to_string(),
                    entry.idempotency_key.clone(),
                ]
            })
        }
    }
}

/// Marked as an operator's, so that no request's id is ever taken.
fn key(once: Option<String>) -> String {
    once.map_or_else(|| format!("admin:{}", wire::RequestId::random()), |once| format!("admin:once:{once}"))
}

fn used(error: StoreError) -> AdminError {
    match error {
        StoreError::Taken(_) => AdminError::UsedOnce,
        error => error.into(),
    }
}
