//! The credential manager of Windows.

use keyring_core::{Entry, Result, api::CredentialStoreApi};
use windows_native_keyring_store::Store;

/// Names the entry in the credential manager.
pub(super) fn entry(service: &str, user: &str) -> Result<Entry> {
    Store::new()?.build(service, user, None)
}
