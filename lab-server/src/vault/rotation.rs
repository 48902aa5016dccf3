//! Either key gets a successor while the Lab runs: a new master key wraps every scope's key anew, a new generation of a scope's key seals
//! whatever is sealed from then on. What was sealed before is not touched.

use serde::Serialize;
use wire::UserId;

use super::{Added, Scope, Vault, VaultError, random_key, rewrap, unwrap};

/// A master key and what is wrapped under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Its name, which tells nothing of it.
    pub master: String,
    /// Whether it is among those at hand.
    pub at_hand: bool,
    /// Whether it wraps what is new.
    pub wraps: bool,
    /// How many keys are wrapped under it.
    pub keys: i64,
}

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rotated {
    /// How many keys were wrapped anew, or got a successor.
    pub keys: usize,
}

impl Vault {
    /// Every master key that is at hand or needed, and what is wrapped under it.
    ///
    /// # Errors
    /// When the keystore fails.
    pub async fn status(&self) -> Result<Vec<Held>, VaultError> {
        let (master, wraps) = (self.0.master.keys(), self.0.keystore.wraps().await?);
        let mut held: Vec<Held> = Vec::new();
        for name in master.names() {
            held.push(Held { master: name.to_owned(), at_hand: true, wraps: name == wraps, keys: 0 });
        }
        for (name, keys) in self.0.keystore.wrapped().await? {
            match held.iter_mut().find(|held| held.master == name) {
                Some(held) => held.keys = keys,
                None => held.push(Held { wraps: name == wraps, master: name, at_hand: false, keys }),
            }
        }
        Ok(held)
    }

    /// Wraps every key under the first of the master keys at hand. Servers go on meanwhile: they look again where the master keys lie
    /// when they meet one that they do not know. Interrupted, it goes on where it was when it is called again.
    ///
    /// # Errors
    /// When a master key that something is wrapped under is missing, or the keystore fails.
    pub async fn rotate_master(&self) -> Result<Rotated, VaultError> {
        let master = self.0.master.fetch_again().await?;
        // From here on no process wraps anything under another one.
        self.0.keystore.begin(&master).await?;
        let (kek, mut keys) = (master.first(), 0);
        loop {
            let old = self.0.keystore.not_under(kek).await?;
            if old.is_empty() {
                break;
            }
            let mut new = Vec::with_capacity(old.len());
            for (scope, row) in old {
                let both = unwrap(&master, scope, &row)?;
                new.push((scope, rewrap(master.named(kek)?, kek, scope, row.generation, &both)));
            }
            self.0.keystore.rewrap(&new).await?;
            keys += new.len();
        }
        self.0.keystore.wipe().await?;
        Ok(Rotated { keys })
    }

    /// Gives every scope of one person, or of everybody and the Lab, a new generation of its key. It seals after a moment, when every
    /// server has heard of it; what older ones sealed still opens.
    ///
    /// # Errors
    /// When the keystore fails or a master key is missing.
    pub async fn rotate_keys(&self, user: Option<UserId>) -> Result<Rotated, VaultError> {
        let (owner, mut after, mut keys) = (user.map(|user| user.to_string()), String::new(), 0);
        let mut master = self.0.master.keys();
        loop {
            let newest = self.0.keystore.newest(owner.clone(), &after).await?;
            let Some((last, _)) = newest.last() else { break };
            let last = last.to_string();
            let kek = self.0.keystore.wraps().await?;
            if master.named(&kek).is_err() || newest.iter().any(|(_, row)| master.named(&row.kek).is_err()) {
                master = self.0.master.fetch_again().await?;
            }
            let mut new: Vec<(Scope, _)> = Vec::with_capacity(newest.len());
            for (scope, row) in newest {
                let mut both = unwrap(&master, scope, &row)?;
                // The look-up key stays: what it found is looked for under it.
                both[..32].copy_from_slice(&random_key()[..]);
                new.push((scope, rewrap(master.named(&kek)?, &kek, scope, row.generation + 1, &both)));
            }
            // A rotation of the master key may come between: then these are made once more.
            if self.0.keystore.add_generations(&new).await? == Added::Yes {
                keys += new.len();
                after = last;
            }
        }
        self.refresh().await?;
        Ok(Rotated { keys })
    }
}
