//! The caller's workstations, as the proxy sees them: which there are, and how to ask one.
//!
//! The gateway of the Lab implements [`Bridges`]. What it must keep: an answer's bytes arrive in order, once, whatever happens to
//! the link underneath, and an answer ends with exactly one [`Part::End`].

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll},
};

use http::HeaderValue;
use tokio::sync::mpsc;
use wire::{
    Content, DeviceId, RelayId, RequestId, UserId,
    relay::{Ending, Failure, Operation, Outcome, Refusal, Snapshot},
};

/// The workstations and the way to them.
pub trait Bridges: Send + Sync + 'static {
    /// Every workstation that is paired to `owner`, also those that are away.
    fn workstations(&self, owner: UserId) -> Vec<Workstation>;

    /// Asks one workstation; ready when the head of the answer is there.
    ///
    /// Two things mean that the caller has hung up, and both must cancel the relay at once: this future is dropped before it is
    /// ready, or the [`AnswerBody`] that it gave is dropped (see [`AnswerSender::closed`]).
    ///
    /// # Errors
    /// Why there is no answer.
    fn relay(&self, device: DeviceId, order: Order) -> impl Future<Output = Result<Answer, NotRelayed>> + Send;
}

/// One paired workstation.
#[derive(Debug, Clone)]
pub struct Workstation {
    /// Its identity.
    pub device: DeviceId,
    /// The name its owner knows it by.
    pub name: String,
    /// Whether it is there.
    pub presence: Presence,
    /// What its bridge last told of it.
    pub snapshot: Arc<Snapshot>,
    /// Relays of this Lab that run on it now.
    pub active: u32,
}

/// Whether a workstation is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Presence {
    /// Its link is up.
    Online,
    /// Its link was lost less than [`wire::relay::RESUME_WINDOW`] ago; it may come back with everything it had.
    Away,
    /// It has no link.
    Offline,
}

/// What a workstation is asked to do.
pub struct Order {
    /// The request that it is for.
    pub request: RequestId,
    /// Which operation.
    pub operation: Operation,
    /// The caller's body, byte for byte.
    pub body: Content,
    /// Whether the answer will be a stream.
    pub streamed: bool,
}

/// The head of a workstation's answer, and its body to come.
pub struct Answer {
    /// The relay, for following it in a log.
    pub relay: RelayId,
    /// Ollama's status.
    pub status: u16,
    /// Ollama's content type.
    pub content_type: HeaderValue,
    /// Ollama's bytes.
    pub body: AnswerBody,
}

/// Why a workstation gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotRelayed {
    /// Its bridge said no; nothing was started.
    Refused(Refusal),
    /// It has no link and did not get one in time; nothing was started.
    Offline,
    /// Its link broke and did not come back in time; something may have been started.
    LinkLost,
}

/// A piece of an answer.
pub enum Part {
    /// The next bytes.
    Bytes(Content),
    /// The end. Nothing follows.
    End(Ending),
}

/// The body of an answer: a bounded channel, so that a caller who does not read slows the workstation down and nothing else.
pub struct AnswerBody(mpsc::Receiver<Part>);

/// The end of the channel where the answer is put in. Dropping it without a [`Part::End`] means [`Failure::LinkLost`].
pub struct AnswerSender(mpsc::Sender<Part>);

/// The caller no longer listens: cancel the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller hung up")]
pub struct HungUp;

impl AnswerBody {
    /// A channel that holds at most `depth` parts that nobody has read yet.
    ///
    /// # Panics
    /// When `depth` is 0.
    #[must_use]
    pub fn channel(depth: usize) -> (AnswerSender, Self) {
        let (sender, receiver) = mpsc::channel(depth);
        (AnswerSender(sender), Self(receiver))
    }

    /// The next part; not to be asked again after [`Part::End`].
    pub(crate) fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Part> {
        self.0.poll_recv(cx).map(|part| part.unwrap_or(Part::End(LINK_LOST)))
    }

    /// The next part, likewise.
    pub async fn part(&mut self) -> Part {
        self.0.recv().await.unwrap_or(Part::End(LINK_LOST))
    }

    /// The end, when it is all that is still to be read.
    pub(crate) fn end_in_hand(&mut self) -> Option<Ending> {
        match self.0.try_recv() {
            Ok(Part::End(ending)) => Some(ending),
            Ok(Part::Bytes(_)) | Err(_) => None,
        }
    }
}

impl AnswerSender {
    /// Waits until there is room for the part.
    ///
    /// # Errors
    /// When the caller has hung up.
    pub async fn send(&self, part: Part) -> Result<(), HungUp> {
        self.0.send(part).await.map_err(|_| HungUp)
    }

    /// Waits until there is room for a part, and keeps it free. Giving up meanwhile loses nothing.
    ///
    /// # Errors
    /// When the caller has hung up.
    pub async fn room(&self) -> Result<mpsc::Permit<'_, Part>, HungUp> {
        self.0.reserve().await.map_err(|_| HungUp)
    }

    /// Ready when the caller has hung up.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

const LINK_LOST: Ending = Ending { outcome: Outcome::Failed(Failure::LinkLost), usage: None };
