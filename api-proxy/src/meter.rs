//! What the proxy can tell anyone: is this key good, and one metadata record per request.
//!
//! The proxy is handed a [`Meter`] and has no other way out of the process. A [`Record`] is made of ids, numbers and names of
//! models, so nothing of a prompt or an answer fits into it.

use std::{
    fmt,
    future::Future,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use wire::{DeviceId, ModelName, ProjectId, RequestId, UserId};

use crate::{Model, Name, Snapshot, Surface};

/// Knows the keys, the limits and the money, and keeps the records.
pub trait Meter: Send + Sync + 'static {
    /// Whose key this is, and whether it may ask just now. Asked once for each request, before its body is read. From here on the
    /// request counts as one that runs, until it is settled.
    ///
    /// # Errors
    /// Why the request is not let in. A revoked or expired key is [`NotAdmitted::Unknown`], so that the answer tells nothing.
    fn admit(&self, key: PresentedKey<'_>, surface: Surface) -> impl Future<Output = Result<Admitted, NotAdmitted>> + Send;

    /// Sets aside what the request can cost and use at most. Asked at most once for each admitted request, before anybody else is
    /// contacted; what was set aside comes back with [`Meter::settle`], and outlives this process's sudden end.
    ///
    /// # Errors
    /// Why the request may not go on; nothing is set aside then.
    fn reserve(&self, caller: &Caller, ask: Ask<'_>) -> impl Future<Output = Result<Reservation, NotReserved>> + Send;

    /// Takes the record of a request that was admitted: exactly one for each, however it ended, with what was set aside for it. When
    /// it returns the record outlives this process's sudden end.
    ///
    /// It is called from `Drop` and must never wait or panic.
    fn settle(&self, record: Record, reservation: Option<Reservation>);
}

/// A request that was let in.
#[derive(Debug, Clone)]
pub struct Admitted {
    /// Who asks.
    pub caller: Caller,
    /// Whether the project wants OpenAI's streams to be asked for their usage, at the price of some bytes of the request.
    pub exact_usage: bool,
    /// Cancelled when the key is revoked: whatever runs under it ends.
    pub leash: Leash,
    /// What the limits leave, where there are any.
    pub allowance: Option<Allowance>,
}

/// Says when a running request has lost its right to run.
pub type Leash = tokio_util::sync::CancellationToken;

/// What is left of the limits, as the answer's headers tell it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Of requests.
    pub requests: Option<Quota>,
    /// Of tokens.
    pub tokens: Option<Quota>,
}

/// One limit's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// How much there is at most.
    pub limit: u64,
    /// How much is left now.
    pub remaining: u64,
    /// When all of it will be there again.
    pub reset: Duration,
}

/// What a request is about to do.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The request.
    pub request: RequestId,
    /// When it arrived.
    pub time: SystemTime,
    /// What is asked.
    pub surface: Surface,
    /// Which model is asked for.
    pub model: AskedModel<'a>,
    /// The most that it can cost, in nano-credits; 0 for what is free.
    pub most_nano: i64,
    /// Tokens of prompt and answer that it can use at most; 0 where nobody counts them.
    pub most_tokens: u64,
    /// Whether a stream was asked for.
    pub stream: bool,
}

/// A model as it was read: never a caller's free text.
#[derive(Debug, Clone, Copy)]
pub enum AskedModel<'a> {
    /// On a workstation of the caller's own.
    Local(&'a ModelName),
    /// One of the catalogue.
    Cloud(&'a Model),
}

/// What was set aside for a request, to be handed back with its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Nano-credits.
    pub nano: i64,
    /// Tokens of the token limits.
    pub tokens: u64,
    /// It is one of the free requests of a new account: it costs nothing, and if it comes to nothing it was not one.
    pub free: bool,
    /// What the limits leave, where there are any.
    pub allowance: Option<Allowance>,
}

/// Why a request may not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReserved {
    /// The key may not ask for this model.
    ModelNotAllowed,
    /// The account has not enough credits.
    InsufficientCredits,
    /// The key has spent what it may in this window.
    KeySpendLimit,
    /// The free requests are used up, and the account has no credits.
    TrialExhausted,
    /// There is enough, but running requests have set it aside.
    InFlight {
        /// When it is worth trying again, in seconds.
        retry_after_s: u32,
    },
    /// Too many tokens in too short a time.
    RateLimited {
        /// When it is worth trying again.
        retry_after: Duration,
        /// What the limits leave.
        allowance: Allowance,
    },
    /// Money and limits cannot be looked at just now.
    Unavailable,
}

/// The text of a key as a caller sent it. Has no `Debug` and no `Display`, so that it cannot be logged.
pub struct PresentedKey<'a>(&'a str);

impl<'a> PresentedKey<'a> {
    /// Wraps what stood in a header.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// The text, for checking it.
    #[must_use]
    pub fn expose(&self) -> &'a str {
        self.0
    }
}

/// Who asks, once their key was found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The person.
    pub user: UserId,
    /// The project that the key belongs to.
    pub project: ProjectId,
    /// The public part of the key.
    pub key: KeyId,
}

/// The public part of an API key: 12 letters and digits. It may be shown and logged; it opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; Self::LEN]);

/// A text that is no [`KeyId`]. The text is not repeated: it may be a whole key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key id: it has {} letters and digits", KeyId::LEN)]
pub struct InvalidKeyId;

impl KeyId {
    /// Characters in a key id.
    pub const LEN: usize = 12;
    /// What stands in a record in a key's place where the house itself asked for somebody, as in a conversation of theirs. It has the
    /// form of a key's id and is none's: those are drawn from 62¹².
    pub const HOUSE: Self = Self(*b"TheLabItself");

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for KeyId {
    type Err = InvalidKeyId;

    fn from_str(text: &str) -> Result<Self, InvalidKeyId> {
        let bytes: [u8; Self::LEN] = text.as_bytes().try_into().map_err(|_| InvalidKeyId)?;
        if bytes.iter().all(u8::is_ascii_alphanumeric) { Ok(Self(bytes)) } else { Err(InvalidKeyId) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a request was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAdmitted {
    /// No header held a key.
    Missing,
    /// What was sent cannot be a key: wrong shape or checksum.
    Malformed,
    /// No such key; also one that was revoked or has expired.
    Unknown,
    /// Two headers held two different keys.
    Ambiguous,
    /// The key is good, but not for this.
    Scope,
    /// Too many requests in too short a time, or at once.
    RateLimited {
        /// When it is worth trying again.
        retry_after: Duration,
        /// What the limits leave.
        allowance: Allowance,
    },
    /// The keys cannot be read just now.
    Unavailable,
}

/// Everything that is kept of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The request, as the caller saw it in `x-1k4-request-id`.
    pub request: RequestId,
    /// When it arrived.
    pub time: SystemTime,
    /// The model that was asked for, as a workstation or the catalogue calls it; `None` when the request named none that is one.
    pub model: Option<Arc<str>>,
    /// What was asked: see [`Surface::as_str`].
    pub operation: Surface,
    /// The workstation that answered, or was to.
    pub device: Option<DeviceId>,
    /// The provider that answered, or was to.
    pub provider: Option<Name>,
    /// Tokens of the prompt; `None` when nobody counted.
    pub input_tokens: Option<u64>,
    /// Tokens of the answer; `None` when nobody counted.
    pub output_tokens: Option<u64>,
    /// Whether the tokens were estimated and not counted by the model's host.
    pub estimated: bool,
    /// Price in nano-credits; 0 for a model on one's own workstation. Whoever settles may lower it, never raise it.
    pub cost_nano: i64,
    /// The price list that it was made from; `None` where nothing has a price.
    pub prices: Option<Snapshot>,
    /// Who asked.
    pub user: UserId,
    /// For which project.
    pub project: ProjectId,
    /// With which key; [`KeyId::HOUSE`] where the house itself asked for them.
    pub key: KeyId,
    /// Milliseconds from arrival to end.
    pub latency_ms: u64,
    /// Milliseconds from arrival to the first byte of the answer; `None` when none came.
    pub first_byte_ms: Option<u64>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The HTTP status that the caller got; 499 when they hung up before there was one.
    pub status: u16,
    /// How it ended.
    pub outcome: RecordOutcome,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordOutcome {
    /// The whole answer went out.
    Complete,
    /// The caller hung up, or the owner stopped it at the workstation.
    Cancelled,
    /// It was refused or it broke; the code is the one in the caller's error, or `panic`.
    Failed(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_id_is_twelve_letters_and_digits() {
        assert_eq!("abcDEF123456".parse::<KeyId>().map(|k| k.to_string()), Ok("abcDEF123456".to_owned()));
        for text in ["", "abcDEF12345", "abcDEF1234567", "abcDEF12345_", "ábcDEF12345"] {
            assert_eq!(text.parse::<KeyId>(), Err(InvalidKeyId), "{text}");
        }
    }
}
