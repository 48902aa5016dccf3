//! Turns: how much one person may have done at once, so that nobody's haste is at everybody's cost.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::UserId;

/// From this many people on, those who have nothing done are forgotten.
const TIDY_AT: usize = 1024;

/// So many turns for each person.
#[derive(Debug)]
pub struct Turns {
    each: usize,
    people: Mutex<HashMap<UserId, Arc<Semaphore>>>,
}

impl Turns {
    /// So many for each.
    #[must_use]
    pub fn new(each: usize) -> Self {
        Self { each, people: Mutex::default() }
    }

    /// Waits for a turn, first come, first served. It ends when what is given is dropped.
    pub async fn take(&self, person: UserId) -> Option<OwnedSemaphorePermit> {
        // Nobody closes it.
        self.of(person).acquire_owned().await.ok()
    }

    /// A turn, if one is free now.
    pub fn try_take(&self, person: UserId) -> Option<OwnedSemaphorePermit> {
        self.of(person).try_acquire_owned().ok()
    }

    fn of(&self, person: UserId) -> Arc<Semaphore> {
        // No code that can panic runs under the lock.
        let mut people = self.people.lock().unwrap_or_else(PoisonError::into_inner);
        if people.len() >= TIDY_AT {
            people.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        Arc::clone(people.entry(person).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
    }
}
