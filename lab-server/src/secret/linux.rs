//! The Secret Service: GNOME Keyring, KWallet, KeePassXC, over D-Bus.

use std::collections::HashMap;

use keyring_core::{Entry, Result, api::CredentialStoreApi};
use zbus_secret_service_keyring_store::Store;

/// Connects to the service of this session and names the entry in it.
pub(super) fn entry(service: &str, user: &str) -> Result<Entry> {
    // A target pins the collection: without it an item of the same names in another collection makes the search ambiguous.
    let modifiers = HashMap::from([("target", "default"), ("label", "1K4 Lab: a secret of its owner's")]);
    Store::new()?.build(service, user, Some(&modifiers))
}
