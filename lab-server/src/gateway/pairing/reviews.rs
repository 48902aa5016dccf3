//! Reviews that people are looking at: what a workstation says of itself, and a ticket that is good for one decision of whoever saw it.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use wire::{SessionId, UserId};

use super::{Pairing, read_code};
use crate::{
    account::api_key::Kid,
    random::random_bytes,
    store::{NewPairing, StoreError},
};

/// Each has a ticket.
pub(super) struct Reviews {
    lifetime: Duration,
    open: Mutex<HashMap<[u8; 32], (Reviewed, Instant)>>,
}

/// What the ticket's holder has seen.
pub(super) struct Reviewed {
    pub(super) code: String,
    pub(super) by: Approver,
    pub(super) owner: UserId,
    pub(super) hostname: String,
}

/// By what right somebody decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Approver {
    /// With a key, on the page.
    Key(Kid),
    /// Signed in with a browser.
    Session(SessionId),
}

/// Why a review or a decision does not happen.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// That is no code.
    #[error("not a code")]
    Form,
    /// Nothing waits under this code, or this ticket (any more).
    #[error("nothing waits")]
    Nothing,
    /// Too many wrong codes from this address.
    #[error("too many wrong codes")]
    LockedOut(Duration),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Pairing {
    /// What waits under a code, for somebody who is signed in, and the ticket to decide on it.
    ///
    /// # Errors
    /// [`ReviewError`] says why there is nothing to see.
    pub async fn review(
        &self,
        owner: UserId,
        session: SessionId,
        from: IpAddr,
        code: &str,
    ) -> Result<(NewPairing, String), ReviewError> {
        let pairing = &*self.0;
        let code = read_code(code).ok_or(ReviewError::Form)?;
        pairing.wrong_codes.try_once(from, Instant::now()).map_err(ReviewError::LockedOut)?;
        let found = pairing.store.pending_pairing(&code).await;
        if !matches!(found, Ok(None)) {
            pairing.wrong_codes.forgive(from);
        }
        let request = found?.ok_or(ReviewError::Nothing)?.request;
        let hostname = request.hostname.clone();
        let ticket = pairing.reviews.open(Reviewed { code, by: Approver::Session(session), owner, hostname });
        Ok((request, ticket))
    }

    /// Answers a pairing that this session has seen. `true` makes the workstation its person's.
    ///
    /// # Errors
    /// [`ReviewError::Nothing`] when the ticket is not this session's, or was used, or the pairing is over.
    pub async fn decide(&self, session: SessionId, ticket: &str, approve: bool) -> Result<(), ReviewError> {
        let pairing = &*self.0;
        let reviewed = pairing.reviews.take(ticket).filter(|seen| seen.by == Approver::Session(session));
        let reviewed = reviewed.ok_or(ReviewError::Nothing)?;
        let answered = if approve {
            pairing.store.approve_pairing(&reviewed.code, reviewed.owner, pairing.terms.ends_at()).await
        } else {
            pairing.store.deny_pairing(&reviewed.code).await
        };
        answered.map_err(|error| if matches!(error, StoreError::Missing(_)) { ReviewError::Nothing } else { error.into() })
    }
}

impl Reviews {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, open: Mutex::default() }
    }

    /// Only those who have an account here and know a living code come here, so that the map stays small.
    pub(super) fn open(&self, reviewed: Reviewed) -> String {
        let ticket = data_encoding::HEXLOWER.encode(&random_bytes::<32>());
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, (_, since)| since.elapsed() < self.lifetime);
        open.insert(Sha256::digest(ticket.as_bytes()).into(), (reviewed, Instant::now()));
        ticket
    }

    pub(super) fn take(&self, ticket: &str) -> Option<Reviewed> {
        // Looked up by its hash, so that the time of the search says nothing of the ticket.
        let found = self.open.lock().unwrap_or_else(PoisonError::into_inner).remove::<[u8; 32]>(&Sha256::digest(ticket).into());
        found.filter(|(_, since)| since.elapsed() < self.lifetime).map(|(reviewed, _)| reviewed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_a_while() {
        let reviewed = || Reviewed {
            code: "BCDFGHJK".into(),
            by: Approver::Session(SessionId::random()),
            owner: UserId::random(),
            hostname: "box".into(),
        };
        let reviews = Reviews::new(Duration::from_secs(600));
        let ticket = reviews.open(reviewed());
        assert!(reviews.take("").is_none());
        assert_eq!(reviews.take(&ticket).map(|seen| seen.code).as_deref(), Some("BCDFGHJK"));
        assert!(reviews.take(&ticket).is_none());
        let short = Reviews::new(Duration::ZERO);
        let ticket = short.open(reviewed());
        assert!(short.take(&ticket).is_none());
    }
}
