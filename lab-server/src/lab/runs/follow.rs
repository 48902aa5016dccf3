//! Who watches a run: asks for what comes next, from memory or from the database. Nobody keeps anything for a watcher, so that a slow
//! one costs nobody anything, and one who comes again goes on where they were.

use std::sync::Arc;

use tokio::sync::watch;
use wire::UserId;

use super::log::{Horizon, Log};
use crate::{
    lab::event::{Event, Numbered},
    store::{Run, Store, StoreError},
};

/// A watcher's place in a run.
pub struct Follow {
    store: Store,
    owner: UserId,
    run: Run,
    /// The last event that they have.
    after: u64,
    /// `None` for a run that was over when they came.
    live: Option<(Arc<Log>, watch::Receiver<Horizon>)>,
    ended: bool,
}

impl Follow {
    pub(super) fn live(store: Store, log: Arc<Log>, after: u64) -> Self {
        let horizon = log.watch();
        Self { store, owner: log.owner, run: log.run(), after, live: Some((log, horizon)), ended: false }
    }

    pub(super) fn over(store: Store, owner: UserId, run: Run, after: u64) -> Self {
        Self { store, owner, run, after, live: None, ended: false }
    }

    /// What comes next, as soon as there is anything: one event or some, without gaps. `None` behind the end. Whoever stops waiting
    /// has lost nothing.
    ///
    /// # Errors
    /// When the database fails; the next call tries again.
    pub async fn next(&mut self) -> Result<Option<Vec<Arc<Numbered>>>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let events = match &mut self.live {
            None => self.written().await?,
            Some((log, horizon)) => {
                let after = self.after;
                // The log is held here, and with it the sender.
                let seen = horizon.wait_for(|horizon| horizon.shown > after || horizon.over).await.map(|seen| *seen);
                let over = seen.is_ok_and(|seen| seen.over);
                match log.shown(after) {
                    Some(events) if events.is_empty() && !over => self.written().await?,
                    Some(events) => events,
                    None => self.written().await?,
                }
            }
        };
        let Some(last) = events.last() else {
            self.ended = true;
            return Ok(None);
        };
        self.after = last.seq;
        self.ended = matches!(last.event, Event::Ended { .. });
        Ok(Some(events))
    }

    async fn written(&self) -> Result<Vec<Arc<Numbered>>, StoreError> {
        let events = self.store.run_events(self.owner, &self.run, self.after).await?;
        Ok(events.into_iter().map(Arc::new).collect())
    }
}
