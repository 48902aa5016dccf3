//! Pairing a workstation: the device flow of RFC 8628 as [`wire::pairing`] speaks it.
//!
//! A bridge asks for a code and polls; a person types the code on [`page`] or approves it with `1k4-lab admin devices approve`. The
//! device is written down when the bridge comes for it with a signature of its key, not before: a yes alone pairs nothing. Nothing
//! that is stored here or sent is a credential.

pub(crate) mod page;
mod reviews;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use ed25519_dalek::VerifyingKey;
use http::{StatusCode, header};
use sha2::{Digest, Sha256};
use wire::pairing::{CODE_ALPHABET, CODE_LEN, DeviceGrant, DeviceRequest, Paired, TokenError, TokenErrorCode, TokenRequest};

use crate::{
    config::Origin,
    edge::{
        attempts::{Budget, Lockout},
        peer::Peer,
    },
    error::ApiError,
    random::random_bytes,
    store::{NewPairing, PairingState, Store, StoreError, now_ms},
};

/// Largest body that pairing takes, in bytes; a request has a few hundred.
pub(crate) const MAX_BODY: usize = 64 * 1024;
/// The page on which a person types the code.
pub(crate) const PAGE_PATH: &str = "/pair";

/// Times and counts of the flow (SECURITY 4.6 and 4.9). Constants of the program; a test may have shorter ones.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long a code lives, and how long the bridge may take to come once it is approved.
    pub lifetime: Duration,
    /// Seconds between polls, to begin with.
    pub interval_s: u32,
    /// Codes that one address may ask for in an hour.
    pub codes_per_hour: usize,
    /// Wrong codes from one address before it is locked out.
    pub wrong_codes: usize,
    /// For how long.
    pub lockout: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(600),
            interval_s: 5,
            codes_per_hour: 10,
            wrong_codes: 5,
            lockout: Duration::from_secs(900),
        }
    }
}

impl Terms {
    /// When something that begins now is over, in milliseconds since 1970.
    #[must_use]
    pub fn ends_at(&self) -> i64 {
        now_ms().saturating_add(i64::try_from(self.lifetime.as_millis()).unwrap_or(i64::MAX))
    }
}

/// What polling too fast adds to the interval, in seconds (RFC 8628 §3.5).
const SLOW_DOWN_S: u32 = 5;
/// A poll may be this much early: the network delays one and not the next.
const POLL_SLACK_MS: i64 = 500;

pub use reviews::ReviewError;

/// The parts that pairing's handlers share.
#[derive(Clone)]
pub struct Pairing(Arc<Inner>);

struct Inner {
    store: Store,
    origin: Origin,
    terms: Terms,
    codes: Budget,
    wrong_codes: Lockout,
    reviews: reviews::Reviews,
}

impl Pairing {
    /// For the Lab at `origin`.
    #[must_use]
    pub fn new(store: Store, origin: Origin, terms: Terms) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self(Arc::new(Inner {
            store,
            origin,
            terms,
            codes: Budget::new(terms.codes_per_hour, HOUR),
            wrong_codes: Lockout::new(terms.wrong_codes, terms.lockout),
            reviews: reviews::Reviews::new(terms.lifetime),
        }))
    }
}

/// Bridges: `POST` [`wire::pairing::AUTHORIZE_PATH`].
pub(crate) async fn authorize(
    State(Pairing(pairing)): State<Pairing>,
    Extension(Peer(peer)): Extension<Peer>,
    body: Result<Json<DeviceRequest>, JsonRejection>,
) -> Result<Response, ApiError> {
    if let Err(wait) = pairing.codes.spend(peer.ip(), Instant::now()) {
        return Err(ApiError::TooManyRequests { retry_after_s: wait.as_secs() + 1 });
    }
    let Json(request) = body?;
    let public_key = public_key(&request.public_key).ok_or(ApiError::InvalidBody)?;
    let device_code = data_encoding::HEXLOWER.encode(&random_bytes::<32>());
    let mut new = NewPairing {
        device_code_hash: hash(&device_code),
        user_code: String::new(),
        public_key,
        hostname: shown(&request.hostname, 255),
        os: shown(&request.os, 128),
        version: shown(&request.version, 64),
        address: peer.ip().to_canonical(),
        interval_s: pairing.terms.interval_s,
        expires_at: pairing.terms.ends_at(),
    };
    if new.hostname.is_empty() {
        return Err(ApiError::InvalidBody);
    }
    // Two equal codes within an hour are as likely as one in 10¹⁰ for each that lives; three draws settle it.
    let mut draws = 0;
    loop {
        new.user_code = draw_code();
        draws += 1;
        match pairing.store.open_pairing(&new).await {
            Ok(()) => break,
            Err(StoreError::Taken(_)) if draws < 3 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(unstored(Json(DeviceGrant {
        device_code,
        user_code: display_code(&new.user_code),
        verification_uri: format!("{}{PAGE_PATH}", pairing.origin),
        expires_in: pairing.terms.lifetime.as_secs(),
        interval: u64::from(pairing.terms.interval_s),
    })))
}

/// Bridges: `POST` [`wire::pairing::TOKEN_PATH`].
pub(crate) async fn token(
    State(Pairing(pairing)): State<Pairing>,
    body: Result<Json<TokenRequest>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(request) = body?;
    Ok(match outcome(&pairing, &request).await? {
        Ok(paired) => unstored(Json(paired)),
        Err(error) => unstored((StatusCode::BAD_REQUEST, Json(TokenError { error }))),
    })
}

/// What the bridge is told; the outer error is the Lab's own.
async fn outcome(pairing: &Inner, request: &TokenRequest) -> Result<Result<Paired, TokenErrorCode>, StoreError> {
    let code = hash(&request.device_code);
    let Some(found) = pairing.store.pairing(&code).await? else { return Ok(Err(TokenErrorCode::InvalidGrant)) };
    let key = VerifyingKey::from_bytes(&found.request.public_key).map_err(|_| StoreError::Corrupt("pairing"))?;
    if request.verify(&key, pairing.origin.as_str()).is_err() {
        return Ok(Err(TokenErrorCode::InvalidGrant));
    }
    let now = now_ms();
    if found.request.expires_at <= now {
        return Ok(Err(TokenErrorCode::ExpiredToken));
    }
    match found.state {
        PairingState::Denied => Ok(Err(TokenErrorCode::AccessDenied)),
        PairingState::Approved { .. } | PairingState::Redeemed { .. } => {
            let Some(device) = pairing.store.redeem_pairing(&code).await? else { return Ok(Err(TokenErrorCode::InvalidGrant)) };
            let owner = pairing.store.user(device.user).await?.ok_or(StoreError::Corrupt("device"))?;
            Ok(Ok(Paired { device: device.id, owner: owner.name }))
        }
        PairingState::Pending => {
            let (error, interval_s) = poll(found.polled_at, found.request.interval_s, now);
            pairing.store.note_poll(&code, now, interval_s).await?;
            Ok(Err(error))
        }
    }
}

/// What a poll gets while nobody has answered, and the interval from now on.
fn poll(polled_at: Option<i64>, interval_s: u32, now: i64) -> (TokenErrorCode, u32) {
    let due = polled_at.map_or(now, |at| at + i64::from(interval_s) * 1000 - POLL_SLACK_MS);
    if now < due {
        (TokenErrorCode::SlowDown, interval_s.saturating_add(SLOW_DOWN_S))
    } else {
        (TokenErrorCode::AuthorizationPending, interval_s)
    }
}

/// A code as it was typed, in whatever case, with or without dash or spaces; `None` when it cannot be one.
#[must_use]
pub fn read_code(typed: &str) -> Option<String> {
    let letters = typed.chars().filter(|c| !c.is_whitespace() && *c != '-');
    let code: String = letters.take(CODE_LEN + 1).map(|c| c.to_ascii_uppercase()).collect();
    (code.len() == CODE_LEN && code.bytes().all(|byte| CODE_ALPHABET.contains(&byte))).then_some(code)
}

/// A code as it is shown: with a dash in the middle.
#[must_use]
pub fn display_code(code: &str) -> String {
    let (left, right) = code.split_at_checked(CODE_LEN / 2).unwrap_or((code, ""));
    format!("{left}-{right}")
}

/// Each letter equally likely: bytes above the largest multiple of 20 are drawn again.
fn draw_code() -> String {
    const FAIR: u8 = (256 / CODE_ALPHABET.len() * CODE_ALPHABET.len()) as u8;
    let mut code = String::with_capacity(CODE_LEN);
    while code.len() < CODE_LEN {
        let fair = random_bytes::<16>().into_iter().filter(|byte| *byte < FAIR);
        let letters = fair.map(|byte| char::from(CODE_ALPHABET[usize::from(byte) % CODE_ALPHABET.len()]));
        code.extend(letters.take(CODE_LEN - code.len()));
    }
    code
}

fn hash(device_code: &str) -> [u8; 32] {
    Sha256::new_with_prefix(b"1k4-device-code-v1\0").chain_update(device_code.as_bytes()).finalize().into()
}

fn public_key(hex: &str) -> Option<[u8; 32]> {
    let bytes: [u8; 32] = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?.try_into().ok()?;
    // A weak key would accept signatures that nobody made.
    VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak()).map(|_| bytes)
}

/// What a workstation says of itself, as it may be shown to the person who decides: cut, and without characters that could hide or
/// reorder the rest of the line.
fn shown(text: &str, max: usize) -> String {
    let deceptive = |c: char| {
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.trim().chars().take(max).map(|c| if deceptive(c) { '\u{fffd}' } else { c }).collect()
}

fn unstored(response: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], response).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        for typed in ["BCDF-GHJK", "bcdfghjk", " bcdf - ghjk ", "BcDf ghJK"] {
            assert_eq!(read_code(typed).as_deref(), Some("BCDFGHJK"), "{typed}");
        }
        for typed in ["", "BCDF-GHJ", "BCDF-GHJKL", "ACDF-GHJK", "BCDF-GHJ1", "BCDFGHJ\u{4b0}"] {
            assert_eq!(read_code(typed), None, "{typed}");
        }
        let code = draw_code();
        assert_eq!(read_code(&display_code(&code)), Some(code));
    }

    #[test]
    fn polling_too_fast_slows_down() {
        assert_eq!(poll(None, 5, 1_000), (TokenErrorCode::AuthorizationPending, 5));
        assert_eq!(poll(Some(1_000), 5, 5_499), (TokenErrorCode::SlowDown, 10));
        assert_eq!(poll(Some(1_000), 5, 5_500), (TokenErrorCode::AuthorizationPending, 5));
        assert_eq!(poll(Some(1_000), 10, 6_000), (TokenErrorCode::SlowDown, 15));
    }

    #[test]
    fn what_is_shown_cannot_deceive() {
        assert_eq!(shown(" gpu\u{202e}xob\n ", 255), "gpu\u{fffd}xob");
        assert_eq!(shown(&"x".repeat(300), 255).len(), 255);
        assert_eq!(public_key(&"00".repeat(32)), None);
        assert_eq!(public_key("zz"), None);
    }
}
