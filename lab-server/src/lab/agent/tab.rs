//! What a run has asked for and not yet paid for in its message.
//!
//! An answer that is dropped in the middle - its run is stopped, its budget is gone - was asked for all the same, and what it took is
//! known once its model has stopped. So each question is noted when it is asked and crossed out when what it took is told; what is
//! left at the end is looked up, so that a message tells what the account's records tell.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use wire::RequestId;

use crate::lab::{
    content::Use,
    models::{Answer, Models},
    prompt::{ModelError, Payer},
};

/// How long what questions took is waited for, all together. Most models stop when nobody listens; of one that does not, the run of
/// somebody who stopped it is not held open.
const WITHIN: Duration = Duration::from_millis(1_500);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The open questions of a run; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Tab(Arc<Mutex<Vec<(RequestId, String)>>>);

impl Tab {
    /// Notes a question.
    pub(super) fn open(&self, answer: &Answer, model: &str) {
        self.questions().push((answer.request(), model.to_owned()));
    }

    /// What it took is told.
    pub(super) fn close(&self, request: RequestId) {
        self.questions().retain(|(open, _)| *open != request);
    }

    /// A question that failed. One that was never let in took nothing.
    pub(super) fn failed(&self, answer: &Answer, error: &ModelError) {
        if error.request.is_none() {
            self.close(answer.request());
        }
    }

    /// Looks up what the open questions took; whoever tells it closes them. Their answers are over, or dropped.
    pub(super) async fn settle(&self, models: &Models, payer: Payer) -> Vec<Use> {
        let open = self.questions().clone();
        let deadline = tokio::time::Instant::now() + WITHIN;
        let mut found = Vec::new();
        for (request, model) in open {
            let look = async {
                loop {
                    match models.used(payer, request, &model).await {
                        Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
                        Ok(Some(usage)) => return Some(usage),
                        Err(error) => {
                            tracing::error!(%error, %request, "cannot read the record of a request");
                            return None;
                        }
                    }
                }
            };
            match tokio::time::timeout_at(deadline, look).await {
                Ok(Some(usage)) => found.push(usage),
                Ok(None) => self.close(request),
                Err(_) => {
                    tracing::info!(%request, "a message is without what one of its questions took: there is no record of it yet")
                }
            }
        }
        found
    }

    fn questions(&self) -> MutexGuard<'_, Vec<(RequestId, String)>> {
        // No code that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
