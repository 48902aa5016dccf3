//! That something of a person's has changed, for whoever looks at it in a browser and would else have to ask again and again.
//!
//! News say about what, and nothing of it: a listener asks the API for what it shows. They are therefore never late, queued or lost;
//! any number of changes between two looks is one. Nobody's news cost anything while nobody listens.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;
use wire::UserId;

/// What something is news about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Workstations: whether they are there, what they do, and their models.
    Devices,
    /// Runs: one was begun, or is over.
    Runs,
    /// Approvals: one was asked, answered or taken back.
    Approvals,
}

impl About {
    const ALL: [Self; 3] = [Self::Devices, Self::Runs, Self::Approvals];
}

/// The news of everybody; clones share them.
#[derive(Clone, Default)]
pub struct News(Arc<Mutex<HashMap<UserId, watch::Sender<Changes>>>>);

/// How often something has changed, in the order of [`About::ALL`].
type Changes = [u64; About::ALL.len()];

impl News {
    /// Something of theirs has changed.
    pub fn tell(&self, person: UserId, about: About) {
        if let Some(changes) = self.listened().get(&person) {
            changes.send_modify(|changes| changes[about as usize] += 1);
        }
    }

    /// Hears of what changes from now on.
    #[must_use]
    pub fn listen(&self, person: UserId) -> Listener {
        let changes = self.listened().entry(person).or_default().subscribe();
        let heard = *changes.borrow();
        Listener { news: self.clone(), person, changes, heard }
    }

    fn listened(&self) -> MutexGuard<'_, HashMap<UserId, watch::Sender<Changes>>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who hears one person's news.
pub struct Listener {
    news: News,
    person: UserId,
    changes: watch::Receiver<Changes>,
    heard: Changes,
}

impl Listener {
    /// What has changed since it was last told, as soon as something has. Safe to drop and to ask again.
    pub async fn next(&mut self) -> Vec<About> {
        let heard = self.heard;
        // The sender is in the map for as long as there is a listener.
        if let Ok(changes) = self.changes.wait_for(|changes| *changes != heard).await {
            self.heard = *changes;
        }
        let changed = |about: &About| self.heard[*about as usize] != heard[*about as usize];
        About::ALL.into_iter().filter(changed).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut listened = self.news.listened();
        // This one still counts.
        if listened.get(&self.person).is_some_and(|changes| changes.receiver_count() == 1) {
            listened.remove(&self.person);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn many_changes_are_one_piece_of_news() {
        let (news, ada, bob) = (News::default(), UserId::random(), UserId::random());
        news.tell(ada, About::Runs);
        let mut listener = news.listen(ada);
        assert_eq!(listener.next().now_or_never(), None, "it was before");
        for _ in 0..100 {
            news.tell(ada, About::Devices);
        }
        news.tell(ada, About::Approvals);
        news.tell(bob, About::Runs);
        assert_eq!(listener.next().now_or_never(), Some(vec![About::Devices, About::Approvals]));
        assert_eq!(listener.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_whom_nobody_hears() {
        let (news, ada) = (News::default(), UserId::random());
        let (first, mut second) = (news.listen(ada), news.listen(ada));
        drop(first);
        news.tell(ada, About::Runs);
        assert_eq!(second.next().now_or_never(), Some(vec![About::Runs]));
        drop(second);
        assert!(news.listened().is_empty());
    }
}
