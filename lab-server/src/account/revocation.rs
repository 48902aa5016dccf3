//! How the end of a key or a device becomes known: one number, the security epoch, that grows with every revocation, and with every
//! change of what limits keys.
//!
//! Whoever revokes or changes raises it in the same transaction, the `admin` command in another process too. A task reads it four times a second
//! and publishes it; what was decided under an older epoch is decided again, and links check whether their device still exists. What
//! this process revokes itself is published at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::{DeviceId, IdentityId, ProjectId, SessionId, UserId};

use crate::{
    account::{
        api_key::{Kid, NewKey},
        rotate_key,
    },
    store::{ApiKeyRecord, KeyTerms, Project, ProjectSettings, Store, StoreError},
};

/// How often the epoch is read: SECURITY 4.3's heartbeat. With the p99 of one read it is how late another process's revocation is seen.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Without a successful read for this long nothing remembered may be relied on (SECURITY 4.3's lease).
const LEASE: Duration = Duration::from_secs(1);

/// The security epoch as this process knows it. The task that follows it ends with the last clone.
#[derive(Debug, Clone)]
pub struct Revocations {
    store: Store,
    epoch: Arc<watch::Sender<u64>>,
    /// When the database was last read, in milliseconds since `started`.
    read_at: Arc<AtomicU64>,
    started: Instant,
    _task: Arc<DropGuard>,
}

impl Revocations {
    /// Reads the epoch and follows it from then on.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn follow(store: Store) -> Result<Self, StoreError> {
        let (epoch, _) = watch::channel(store.security_epoch().await?);
        let cancelled = CancellationToken::new();
        let revocations = Self {
            store: store.clone(),
            epoch: Arc::new(epoch),
            read_at: Arc::default(),
            started: Instant::now(),
            _task: Arc::new(cancelled.clone().drop_guard()),
        };
        tokio::spawn(heartbeat(store, revocations.epoch.clone(), revocations.read_at.clone(), revocations.started, cancelled));
        Ok(revocations)
    }

    /// Changes with every revocation. Mark it seen before deciding, and decide again when it has changed.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.epoch.subscribe()
    }

    /// The epoch now, or `None` when the database has not been read lately: then nothing remembered may be relied on.
    #[must_use]
    pub fn current(&self) -> Option<u64> {
        let read_at = Duration::from_millis(self.read_at.load(Ordering::Acquire));
        (self.started.elapsed().saturating_sub(read_at) < LEASE).then(|| *self.epoch.borrow())
    }

    /// The newest epoch that this process has heard of, be it long ago: to notice that it has changed meanwhile.
    #[must_use]
    pub fn newest(&self) -> u64 {
        *self.epoch.borrow()
    }

    /// Ends a key, here at once and everywhere within a heartbeat.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such key.
    pub async fn revoke_key(&self, kid: Kid) -> Result<(), StoreError> {
        publish(&self.epoch, self.store.revoke_key(kid).await?);
        Ok(())
    }

    /// Ends a key of this person's, here at once and everywhere within a heartbeat.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the person has no such key.
    pub async fn revoke_key_of(&self, owner: UserId, kid: Kid) -> Result<(), StoreError> {
        publish(&self.epoch, self.store.revoke_key_of(owner, kid).await?);
        Ok(())
    }

    /// Puts a new key in a key's place: see [`rotate_key`].
    ///
    /// # Errors
    /// Like [`rotate_key`].
    pub async fn rotate_key(&self, owner: UserId, kid: Kid, overlap: Duration) -> Result<(NewKey, ApiKeyRecord), StoreError> {
        let (key, record, epoch) = rotate_key(&self.store, owner, kid, overlap).await?;
        publish(&self.epoch, epoch);
        Ok((key, record))
    }

    /// Changes a key's name and terms: see [`Store::update_key`].
    ///
    /// # Errors
    /// Like [`Store::update_key`].
    pub async fn update_key(
        &self,
        owner: UserId,
        kid: Kid,
        change: impl FnOnce(&mut String, &mut KeyTerms) + Send,
    ) -> Result<ApiKeyRecord, StoreError> {
        let (record, epoch) = self.store.update_key(owner, kid, change).await?;
        publish(&self.epoch, epoch);
        Ok(record)
    }

    /// Changes a project's name and settings: see [`Store::update_project`].
    ///
    /// # Errors
    /// Like [`Store::update_project`].
    pub async fn update_project(
        &self,
        owner: UserId,
        project: ProjectId,
        change: impl FnOnce(&mut String, &mut ProjectSettings) + Send,
    ) -> Result<Project, StoreError> {
        let (project, epoch) = self.store.update_project(owner, project, change).await?;
        publish(&self.epoch, epoch);
        Ok(project)
    }

    /// Deletes a project and ends its keys: see [`Store::delete_project`].
    ///
    /// # Errors
    /// Like [`Store::delete_project`].
    pub async fn delete_project(&self, owner: UserId, project: ProjectId) -> Result<(), StoreError> {
        publish(&self.epoch, self.store.delete_project(owner, project).await?);
        Ok(())
    }

    /// Ends one of a person's sessions, here at once and for what runs elsewhere within a heartbeat.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the person has no such session.
    pub async fn end_session(&self, user: UserId, session: SessionId) -> Result<(), StoreError> {
        publish(&self.epoch, self.store.end_session(user, session).await?);
        Ok(())
    }

    /// Ends all of a person's sessions but one, if one is to stay.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn end_sessions(&self, user: UserId, but: Option<SessionId>) -> Result<(), StoreError> {
        publish(&self.epoch, self.store.end_sessions(user, but).await?);
        Ok(())
    }

    /// Takes a way of signing in away from a person, with the sessions that came in by it but for `current`: see
    /// [`Store::remove_identity`].
    ///
    /// # Errors
    /// Like [`Store::remove_identity`].
    pub async fn remove_identity(&self, user: UserId, identity: IdentityId, current: SessionId) -> Result<(), StoreError> {
        publish(&self.epoch, self.store.remove_identity(user, identity, current).await?);
        Ok(())
    }

    /// Ends all keys, devices and sessions of a person, here at once and everywhere within a heartbeat.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is no such person.
    pub async fn revoke_user(&self, user: UserId) -> Result<(), StoreError> {
        publish(&self.epoch, self.store.revoke_user(user).await?);
        Ok(())
    }

    /// Ends a device, here at once and everywhere within a heartbeat.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the owner has no such device.
    pub async fn revoke_device(&self, owner: UserId, device: DeviceId) -> Result<(), StoreError> {
        publish(&self.epoch, self.store.revoke_device(owner, device).await?);
        Ok(())
    }
}

async fn heartbeat(
    store: Store,
    epoch: Arc<watch::Sender<u64>>,
    read_at: Arc<AtomicU64>,
    started: Instant,
    cancelled: CancellationToken,
) {
    let mut beats = tokio::time::interval(HEARTBEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut failing, mut refreshed) = (false, *epoch.borrow());
    loop {
        tokio::select! {
            () = cancelled.cancelled() => return,
            _ = beats.tick() => {}
        }
        // The lease counts from before the read: what was true then.
        let asked_at = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match store.security_epoch().await {
            Ok(now) => {
                // What another process deleted is gone from here too before anybody hears of it.
                if now != refreshed {
                    match store.vault().refresh().await {
                        Ok(()) => refreshed = now,
                        Err(error) => tracing::error!(%error, "cannot read the open keys again; it is tried at the next heartbeat"),
                    }
                }
                publish(&epoch, now);
                read_at.store(asked_at, Ordering::Release);
                failing = false;
            }
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "cannot read the security epoch; every key is looked up until it can be read again");
                }
                failing = true;
            }
        }
    }
}

/// Never backwards: a slow read may arrive after a revocation of this process.
fn publish(epoch: &watch::Sender<u64>, now: u64) {
    epoch.send_if_modified(|known| {
        let newer = now > *known;
        if newer {
            *known = now;
        }
        newer
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Enrolment, scratch::Scratch};

    #[tokio::test]
    async fn a_revocation_by_another_process_is_seen() {
        let scratch = Scratch::new().await;
        let owner = scratch.store.add_user("ada").await.unwrap().id;
        let enrolment = Enrolment { owner, public_key: &[1; 32], hostname: "box", os: "Linux", version: "1" };
        let device = scratch.store.enrol_device(&enrolment).await.unwrap().id;
        let revocations = Revocations::follow(scratch.store.clone()).await.unwrap();
        let mut epoch = revocations.watch();
        let before = *epoch.borrow_and_update();
        assert_eq!(revocations.current(), Some(before));

        // A connection of its own, as another process would have.
        let elsewhere = Scratch::open(&scratch.dir).await;
        elsewhere.revoke_device(owner, device).await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), epoch.changed()).await.unwrap().unwrap();
        assert_eq!(*epoch.borrow_and_update(), before + 1);
        assert_eq!(revocations.current(), Some(before + 1));
        assert!(scratch.store.device(device).await.unwrap().is_some_and(|device| device.revoked_at.is_some()));
    }

    #[tokio::test]
    async fn a_revocation_by_this_process_is_seen_at_once() {
        let scratch = Scratch::new().await;
        let owner = scratch.store.add_user("ada").await.unwrap().id;
        let enrolment = Enrolment { owner, public_key: &[1; 32], hostname: "box", os: "Linux", version: "1" };
        let device = scratch.store.enrol_device(&enrolment).await.unwrap().id;
        let revocations = Revocations::follow(scratch.store.clone()).await.unwrap();
        let before = *revocations.watch().borrow();
        revocations.revoke_device(owner, device).await.unwrap();
        assert_eq!(*revocations.watch().borrow(), before + 1);
    }
}
