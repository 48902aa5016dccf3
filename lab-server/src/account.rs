//! Who may do what: keys that programs show, and how their end is made known everywhere.

pub mod api_key;
pub mod farewell;
pub mod revocation;
pub mod session;
pub mod sign_in;

use std::time::Duration;

use api_key::{Kid, NewKey, PresentedKey};
use wire::{ProjectId, UserId};

use crate::store::{ApiKeyRecord, KeyOwner, KeyTerms, Store, StoreError, ValidKey, now_ms};

/// Makes a key for a project. What is returned is the only chance to read it.
///
/// # Errors
/// When the database fails, or there is no such project.
pub async fn create_key(
    store: &Store,
    project: ProjectId,
    name: &str,
    terms: KeyTerms,
) -> Result<(NewKey, ApiKeyRecord), StoreError> {
    let key = NewKey::generate(terms.environment);
    let record = ApiKeyRecord {
        kid: key.kid(),
        project,
        name: name.to_owned(),
        last4: key.last4().to_owned(),
        created_at: now_ms(),
        revoked_at: None,
        replaced_by: None,
        terms,
    };
    store.add_key(&record, &key.secret()).await?;
    Ok((key, record))
}

/// Makes a key that takes the place of a person's key, which ends after `overlap`, at once where that is nothing. What is returned
/// is the only chance to read the new one; the number is the security epoch.
///
/// # Errors
/// [`StoreError::Missing`] when the person has no such key, or it was revoked, has expired or was replaced before.
pub async fn rotate_key(
    store: &Store,
    owner: UserId,
    kid: Kid,
    overlap: Duration,
) -> Result<(NewKey, ApiKeyRecord, u64), StoreError> {
    let old = store.key(owner, kid).await?.ok_or(StoreError::Missing("key that can be replaced"))?;
    let new = NewKey::generate(old.terms.environment);
    let (record, epoch) = store.replace_key(owner, kid, &new, overlap).await?;
    Ok((new, record, epoch))
}

/// Whom a key speaks for; `None` when it is unknown, revoked or wrong. An unknown key costs as much time as a wrong one.
///
/// # Errors
/// When the database fails.
pub async fn authenticate(store: &Store, key: &PresentedKey) -> Result<Option<KeyOwner>, StoreError> {
    Ok(recognise(store, key).await?.map(|valid| valid.owner))
}

/// Like [`authenticate`], with everything that limits the key.
///
/// # Errors
/// When the database fails.
pub async fn recognise(store: &Store, key: &PresentedKey) -> Result<Option<ValidKey>, StoreError> {
    let found = store.valid_key(key.kid()).await?;
    let matches = key.matches(found.as_ref().map_or(&api_key::NOBODYS, |valid| &valid.secret));
    Ok(found.filter(|_| matches))
}

#[cfg(test)]
mod tests {
    use super::{api_key::Environment, *};
    use crate::store::scratch::Scratch;

    #[tokio::test]
    async fn a_key_speaks_for_its_owner_until_it_is_revoked() {
        let scratch = Scratch::new().await;
        let store = &scratch.store;
        let user = store.add_user("ada").await.unwrap().id;
        let project = store.add_project(user, "default").await.unwrap().id;
        let (new, record) = create_key(store, project, "test", KeyTerms::default()).await.unwrap();
        let other = NewKey::generate(Environment::Live);
        let parse = |text: &str| text.parse::<PresentedKey>().unwrap();
        let key = parse(new.reveal());
        let owner = KeyOwner { key: new.kid(), project, user };
        assert_eq!(authenticate(store, &key).await.unwrap(), Some(owner));
        assert_eq!(authenticate(store, &parse(other.reveal())).await.unwrap(), None);
        // The right id with another key's secret, checksum and all.
        let forged = api_key::splice(new.kid(), &other);
        assert_eq!(authenticate(store, &forged).await.unwrap(), None);

        let epoch = store.security_epoch().await.unwrap();
        assert_eq!(store.revoke_key(new.kid()).await.unwrap(), epoch + 1);
        assert_eq!(store.revoke_key(new.kid()).await.unwrap(), epoch + 1);
        assert_eq!(authenticate(store, &key).await.unwrap(), None);
        assert!(matches!(store.revoke_key(other.kid()).await, Err(StoreError::Missing("key"))));
        let listed = store.keys(project).await.unwrap();
        assert!(listed[0].revoked_at.is_some());
        assert_eq!(listed, [ApiKeyRecord { revoked_at: listed[0].revoked_at, ..record }]);
    }
}
