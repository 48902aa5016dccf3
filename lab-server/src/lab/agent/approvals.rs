//! Asking the owner, and waiting for the answer.
//!
//! The question is in the store before anybody is told of it, and the answer before the run goes on, so that whoever opens the run
//! again finds both as they were. The answer comes over HTTP, from whichever device; the run that waits for it is here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::json;
use tokio::sync::oneshot;
use wire::{ApprovalId, RunId, UserId};

use crate::{
    lab::{
        operations::{Action, Log, Operation},
        tools::policy::{Asked, Rule, Targets, Verdict},
    },
    news::{About, News},
    store::{Approval, ApprovalState, Question, Store, StoreError},
};

/// Questions that wait for their owners; clones share them.
#[derive(Clone)]
pub struct Approvals(Arc<Inner>);

struct Inner {
    store: Store,
    log: Log,
    news: News,
    waiting: Mutex<HashMap<ApprovalId, oneshot::Sender<Answer>>>,
}

/// An owner's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it may.
    pub allowed: bool,
    /// What they say about it, for the model; empty for nothing.
    pub words: String,
    /// What answers the same question for the rest of the run.
    pub for_run: Option<Rule>,
}

/// How far an answer reaches beyond its question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remember {
    /// For how long.
    pub scope: Remembered,
    /// About which targets.
    pub targets: Targets,
}

/// For how long an answer is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// As long as the run.
    Run,
    /// Until its owner removes the rule that it becomes.
    Project,
}

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Somebody answered already, or the run is over.
    #[error("this was answered already, or its run is over")]
    Decided,
    /// What shall be remembered is not about what was asked.
    #[error("what shall be remembered does not cover what was asked")]
    Unfitting,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A question that was asked. Dropping it leaves the question to lapse with its run.
pub(super) struct Pending {
    pub(super) id: ApprovalId,
    answer: oneshot::Receiver<Answer>,
    waiting: Approvals,
}

impl Approvals {
    /// Nobody waits yet.
    #[must_use]
    pub fn new(store: Store, log: Log, news: News) -> Self {
        Self(Arc::new(Inner { store, log, news, waiting: Mutex::default() }))
    }

    /// Answers a question. What was remembered is in the store, and the answer in the operation log, before the run goes on.
    ///
    /// # Errors
    /// [`AnswerError`] says why it was not taken; nothing is remembered then.
    pub async fn answer(
        &self,
        owner: UserId,
        approval: ApprovalId,
        allowed: bool,
        words: String,
        remember: Option<Remember>,
    ) -> Result<Approval, AnswerError> {
        let Inner { store, log, .. } = &*self.0;
        let asked = store.approval(owner, approval).await?;
        if asked.state != ApprovalState::Pending {
            return Err(AnswerError::Decided);
        }
        let scope = remember.as_ref().map(|remember| remember.scope);
        let rule = remember.map(|remember| rule_of(&asked.question, allowed, remember.targets)).transpose()?;
        // Before the answer, for a project may have as many rules as it can have; taken back if somebody else was first.
        let kept = match (&rule, scope) {
            (Some(rule), Some(Remembered::Project)) => Some(store.add_rule(owner, asked.project, rule.clone()).await?),
            _ => None,
        };
        if !store.answer_approval(owner, approval, allowed).await? {
            if let Some(kept) = kept {
                store.delete_rule(owner, asked.project, kept.id).await?;
            }
            return Err(AnswerError::Decided);
        }
        self.0.news.tell(owner, About::Approvals);
        let remembered = match scope {
            None => "once",
            Some(Remembered::Run) => "run",
            Some(Remembered::Project) => "project",
        };
        let arguments = json!({ "run": asked.run, "allowed": allowed, "for": remembered, "words": words });
        log.record(owner, asked.project, Operation::by_person(Action::ApprovalAnswered, Some(approval.to_string()), arguments))
            .await?;
        if let Some(kept) = kept {
            let arguments = json!({ "rule": kept.rule });
            log.record(owner, asked.project, Operation::by_person(Action::RuleAdded, Some(kept.id.to_string()), arguments)).await?;
        }
        let waiting = self.waiting().remove(&approval);
        if let Some(waiting) = waiting {
            // Whoever asked may have been stopped in this moment.
            let _ = waiting.send(Answer { allowed, words, for_run: rule.filter(|_| scope == Some(Remembered::Run)) });
        }
        Ok(store.approval(owner, approval).await?)
    }

    /// Takes back what a run still asks.
    pub(super) async fn lapse(&self, owner: UserId, run: RunId) -> Result<(), StoreError> {
        self.0.store.lapse_approvals(run).await?;
        self.0.news.tell(owner, About::Approvals);
        Ok(())
    }

    /// Asks. Whoever is told of the question can answer it at once.
    pub(super) async fn ask(&self, owner: UserId, run: RunId, question: &Question) -> Result<Pending, StoreError> {
        let approval = self.0.store.add_approval(owner, run, question).await?;
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(approval.id, sender);
        self.0.news.tell(owner, About::Approvals);
        Ok(Pending { id: approval.id, answer, waiting: self.clone() })
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<ApprovalId, oneshot::Sender<Answer>>> {
        // No code that can panic runs under the lock.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// Waits for the answer.
    pub(super) async fn answered(mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.waiting.waiting().remove(&self.id);
    }
}

/// What answers the same question from now on.
fn rule_of(question: &Question, allowed: bool, targets: Targets) -> Result<Rule, AnswerError> {
    let Question::Call { tool, target, definition, .. } = question else { return Err(AnswerError::Unfitting) };
    let verdict = if allowed { Verdict::Allow } else { Verdict::Deny };
    let rule = Rule { tool: tool.clone(), targets, verdict, definition: definition.clone() };
    let asked = Asked { tool, target, definition: definition.as_deref(), default: Verdict::Ask };
    if rule.is_valid() && rule.fits(&asked) { Ok(rule) } else { Err(AnswerError::Unfitting) }
}

impl std::fmt::Debug for Approvals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Approvals")
    }
}
