//! The end of an account: within a second nothing of it is taken any more and nothing of it can be read; then its rows and files go.
//!
//! Deleting the person's keys is what counts. From then on no copy of the database, however old, can be opened with this keystore, so
//! that whatever fails afterwards fails to tidy up only; a Lab that starts ends what another one left.

use std::path::Path;

use wire::UserId;

use crate::{
    lab::operations::{HeadsError, Log},
    store::{Store, StoreError},
    vault::Scope,
};

/// Why an account is not gone.
#[derive(Debug, thiserror::Error)]
pub enum FarewellError {
    /// The database or the keystore.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The signed heads of operation logs.
    #[error(transparent)]
    Heads(#[from] HeadsError),
}

/// Deletes all that is somebody's. Their keys, devices and sessions must have ended before ([`Store::revoke_user`]), and their runs
/// been stopped. `blobs` is the folder of all files' contents.
///
/// # Errors
/// When the keystore fails nothing is deleted yet. What fails later is ended when the Lab starts again.
pub async fn farewell(store: &Store, log: &Log, blobs: &Path, user: UserId) -> Result<(), FarewellError> {
    store.vault().shred(Scope::User(user)).await.map_err(StoreError::from)?;
    // Other processes hold keys open until they hear of it, and runs that use them.
    store.raise_security_epoch().await?;
    let projects = store.projects_ever(user).await?;
    for project in &projects {
        // Before the rows: a log that is not there any more must have been ended by somebody who had the right to.
        log.end(*project).await?;
    }
    store.erase_user(user).await?;
    let folders: Vec<_> = projects.iter().map(|project| blobs.join(project.to_string())).collect();
    let removed = tokio::task::spawn_blocking(move || folders.iter().try_for_each(|folder| gone(std::fs::remove_dir_all(folder))));
    if let Ok(Err(error)) = removed.await {
        // No row knows them and no key opens them any more: they go when the Lab starts.
        tracing::warn!(%error, %user, "cannot remove contents of files of an account that was deleted");
    }
    Ok(())
}

/// Ends what a Lab before this one was stopped in the middle of.
///
/// # Errors
/// When the database, the keystore or the file of heads fails.
pub async fn finish(store: &Store, log: &Log, blobs: &Path) -> Result<(), FarewellError> {
    for user in store.half_gone().await? {
        farewell(store, log, blobs, user).await?;
    }
    Ok(())
}

/// What is not there is removed.
fn gone(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
