//! The owner's limit on how many relays run at once, and how many may wait for their turn, first come first served.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets so many in, and so many wait.
pub(crate) struct Turnstile {
    slots: Arc<Semaphore>,
    size: Mutex<u32>,
    queued: Arc<AtomicU32>,
}

/// Somebody who was let in or may wait.
pub(crate) enum Entry {
    /// It is their turn.
    Turn(Turn),
    /// They wait.
    Wait(Ticket),
}

/// A place at work; dropping it lets the next one in.
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

/// A place in the queue; dropping it leaves the queue.
pub(crate) struct Ticket {
    slots: Arc<Semaphore>,
    queued: Arc<AtomicU32>,
}

impl Turnstile {
    pub(crate) fn new(size: u32) -> Self {
        Self { slots: Arc::new(Semaphore::new(size as usize)), size: Mutex::new(size), queued: Arc::default() }
    }

    /// Changes how many may run at once. When it shrinks, those who run finish in peace.
    pub(crate) fn resize(&self, size: u32) {
        let mut current = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if size > *current {
            self.slots.add_permits((size - *current) as usize);
        } else if size < *current {
            let surplus = *current - size;
            let missing = surplus as usize - self.slots.forget_permits(surplus as usize);
            if missing > 0 {
                let slots = Arc::clone(&self.slots);
                let missing = u32::try_from(missing).unwrap_or(u32::MAX);
                tokio::spawn(async move {
                    // The semaphore is never closed.
                    if let Ok(permits) = slots.acquire_many_owned(missing).await {
                        permits.forget();
                    }
                });
            }
        }
        *current = size;
    }

    /// In at once, or into the queue, or `None` when the queue is full.
    pub(crate) fn enter(&self, max_queued: u32) -> Option<Entry> {
        if let Ok(permit) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(Entry::Turn(Turn(Some(permit))));
        }
        self.queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| (queued < max_queued).then_some(queued + 1))
            .ok()?;
        Some(Entry::Wait(Ticket { slots: Arc::clone(&self.slots), queued: Arc::clone(&self.queued) }))
    }

    /// How many wait.
    pub(crate) fn queued(&self) -> u32 {
        self.queued.load(Ordering::Relaxed)
    }
}

impl Ticket {
    /// Waits for its turn.
    pub(crate) async fn turn(self) -> Turn {
        // The semaphore is never closed, so there is always a permit in the end.
        Turn(Arc::clone(&self.slots).acquire_owned().await.ok())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn so_many_run_so_many_wait_and_the_rest_is_turned_away() {
        let turnstile = Turnstile::new(1);
        let Some(Entry::Turn(first)) = turnstile.enter(1) else { panic!("the first has its turn") };
        let Some(Entry::Wait(second)) = turnstile.enter(1) else { panic!("the second waits") };
        assert!(turnstile.enter(1).is_none());
        assert_eq!(turnstile.queued(), 1);
        drop(first);
        let turn = second.turn().await;
        assert_eq!(turnstile.queued(), 0);
        drop(turn);
        assert!(matches!(turnstile.enter(0), Some(Entry::Turn(_))));
    }

    #[tokio::test]
    async fn the_owner_can_widen_and_narrow_it_while_it_turns() {
        let turnstile = Turnstile::new(2);
        let (Some(Entry::Turn(first)), Some(Entry::Turn(second))) = (turnstile.enter(0), turnstile.enter(0)) else {
            panic!("both have their turn")
        };
        turnstile.resize(1);
        drop(first);
        tokio::task::yield_now().await;
        assert!(turnstile.enter(0).is_none(), "one still runs and one is the limit");
        drop(second);
        assert!(matches!(turnstile.enter(0), Some(Entry::Turn(_))));
        turnstile.resize(3);
        let turns: Vec<_> = (0..4).filter_map(|_| turnstile.enter(0)).collect();
        assert_eq!(turns.len(), 3);
    }
}
