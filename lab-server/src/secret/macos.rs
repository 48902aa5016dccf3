//! The login keychain of macOS.

use apple_native_keyring_store::keychain::Store;
use keyring_core::{Entry, Result, api::CredentialStoreApi};

/// Names the entry in the keychain.
pub(super) fn entry(service: &str, user: &str) -> Result<Entry> {
    Store::new()?.build(service, user, None)
}
