//! Sessions: what a browser shows, how long it is worth something, and when it is changed (SECURITY 4.4).
//!
//! A session is a family of tokens. One token is used for a day and then replaced by the next; for some seconds both hold, because a
//! browser sends several requests at once. Whoever shows a replaced token later is not the browser that was given the next one, or
//! that browser's token was taken from it: nobody can tell which, so the whole family ends.

use std::{fmt, time::Duration};

use http::HeaderValue;
use sha2::{Digest, Sha256};
use wire::{IdentityId, SessionId, UserId};

use super::revocation::Revocations;
use crate::{
    clock::millis,
    random::random_bytes,
    store::{SessionRecord, Store, StoreError, TokenRecord},
};

/// The cookie. The prefix makes browsers insist on `Secure`, `Path=/` and no `Domain`.
pub const COOKIE: &str = "__Host-1k4s";
/// A token that is used is replaced after a day.
const ROTATE_AFTER: Duration = Duration::from_secs(86_400);
/// For so long the one before it is taken, too.
const GRACE: Duration = Duration::from_secs(10);
/// A token is worth nothing after a week, and so is a session that nobody used in it. The cookie lives as long.
pub(crate) const IDLE: Duration = Duration::from_secs(7 * 86_400);
/// Whatever is done with it, a session ends after thirty days.
pub(crate) const ABSOLUTE: Duration = Duration::from_secs(30 * 86_400);
/// For so long after signing in a person may do what cannot be undone.
pub(crate) const FRESH: Duration = Duration::from_secs(600);
/// The use of a session is written down this often; its idle end may come this much early.
const NOTED_EVERY: Duration = Duration::from_secs(60);

/// What the browser keeps: 256 random bits. Never written down, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

/// A session that was just begun or got its next token.
#[derive(Debug)]
pub struct NewSession {
    id: SessionId,
    token: SessionToken,
}

/// A person who is signed in, as their cookie tells.
#[derive(Debug)]
pub struct Recognised {
    /// The session.
    pub session: SessionRecord,
    /// The token that the browser is to keep from now on, where the one that it showed was replaced.
    pub next: Option<SessionToken>,
    /// Whether another request was given the token after the one that was shown. It is taken for a moment; what a thief could do with
    /// it that cannot be undone must wait for the newest.
    pub is_replaced: bool,
}

/// What a person recognises a browser by: its kind and its system, nothing that tells two of a kind apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Browser(String);

/// Signs a person in.
///
/// # Errors
/// When the database fails, or there is no such person.
pub async fn open(
    store: &Store,
    user: UserId,
    identity: IdentityId,
    browser: &Browser,
    now: i64,
) -> Result<NewSession, StoreError> {
    let token = SessionToken::random();
    let session = SessionRecord { id: SessionId::random(), user, identity, began_at: now, authenticated_at: now, used_at: now };
    store.add_session(&session, &browser.0, &token.hash()).await?;
    Ok(NewSession { id: session.id, token })
}

/// Who shows this token; `None` when it is nobody's (any more).
///
/// # Errors
/// When the database fails.
pub async fn recognise(revocations: &Revocations, store: &Store, token: &str, now: i64) -> Result<Option<Recognised>, StoreError> {
    let hash = hash(token);
    let Some((session, found)) = store.session_of(&hash).await? else { return Ok(None) };
    let mut is_replaced = found.replaced_at.is_some();
    let next = match judge(&session, found, now) {
        Verdict::Over => return Ok(None),
        Verdict::Stolen => {
            tracing::warn!(session = %session.id, "a session's replaced token was shown again; the session is ended");
            match revocations.end_session(session.user, session.id).await {
                // Two requests may have shown it.
                Ok(()) | Err(StoreError::Missing(_)) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Verdict::Good => None,
        Verdict::Due => {
            let next = SessionToken::random();
            // Another request of the same browser may have been first; that one's answer brings the next token.
            let is_ours = store.replace_token(session.id, &hash, &next.hash(), now).await?;
            is_replaced = !is_ours;
            is_ours.then_some(next)
        }
    };
    if now.saturating_sub(session.used_at) >= millis(NOTED_EVERY) {
        store.note_session_used(session.id, now).await?;
    }
    Ok(Some(Recognised { session, next, is_replaced }))
}

/// How a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is good.
    Good,
    /// It is good, and it is time for the next.
    Due,
    /// It or its session is too old.
    Over,
    /// Another one took its place, and it is shown all the same.
    Stolen,
}

fn judge(session: &SessionRecord, token: TokenRecord, now: i64) -> Verdict {
    let age = |since: i64| now.saturating_sub(since);
    if age(session.began_at) >= millis(ABSOLUTE) || age(session.used_at) >= millis(IDLE) {
        return Verdict::Over;
    }
    match token.replaced_at {
        Some(at) if age(at) > millis(GRACE) => Verdict::Stolen,
        _ if age(token.issued_at) >= millis(IDLE) => Verdict::Over,
        Some(_) => Verdict::Good,
        None if age(token.issued_at) >= millis(ROTATE_AFTER) => Verdict::Due,
        None => Verdict::Good,
    }
}

/// Somebody has proved once more who they are: their session gets another token in the place of the one before it.
/// `None` when the session is over.
///
/// # Errors
/// When the database fails.
pub async fn confirm(store: &Store, session: SessionId, now: i64) -> Result<Option<NewSession>, StoreError> {
    let token = SessionToken::random();
    let confirmed = store.confirm_session(session, &token.hash(), now).await?;
    Ok(confirmed.then_some(NewSession { id: session, token }))
}

impl NewSession {
    /// Which.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The header that gives it to the browser.
    #[must_use]
    pub fn cookie(&self) -> HeaderValue {
        self.token.cookie()
    }
}

impl SessionToken {
    fn random() -> Self {
        Self(data_encoding::BASE64URL_NOPAD.encode(&random_bytes::<32>()))
    }

    fn hash(&self) -> [u8; 32] {
        hash(&self.0)
    }

    /// The header that gives it to the browser.
    #[must_use]
    pub fn cookie(&self) -> HeaderValue {
        let text = format!("{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={}", self.0, IDLE.as_secs());
        // Its characters are those of base64url.
        let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        value.set_sensitive(true);
        value
    }
}

/// The header with which a browser forgets its session.
#[must_use]
pub fn forgotten() -> HeaderValue {
    HeaderValue::from_static("__Host-1k4s=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// What stands for a token in the database.
fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(****)")
    }
}

impl Browser {
    /// Out of what a browser says of itself.
    #[must_use]
    pub fn of(user_agent: Option<&HeaderValue>) -> Self {
        let text = user_agent.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let named = |names: &[(&str, &'static str)]| names.iter().find(|(mark, _)| text.contains(mark)).map(|(_, name)| *name);
        // Most call themselves by others' names, too: the particular ones come first.
        let browser = named(&[
            ("Edg/", "Edge"),
            ("OPR/", "Opera"),
            ("Firefox/", "Firefox"),
            ("FxiOS/", "Firefox"),
            ("CriOS/", "Chrome"),
            ("Chrome/", "Chrome"),
            ("Safari/", "Safari"),
        ]);
        let system = named(&[
            ("Android", "Android"),
            ("iPhone", "iPhone"),
            ("iPad", "iPad"),
            ("Windows", "Windows"),
            ("Mac OS X", "macOS"),
            ("CrOS", "ChromeOS"),
            ("Linux", "Linux"),
        ]);
        Self(match (browser, system) {
            (Some(browser), Some(system)) => format!("{browser} on {system}"),
            (Some(name), None) | (None, Some(name)) => name.to_owned(),
            (None, None) => "Unknown browser".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    #[test]
    fn a_token_is_worth_as_much_as_its_age_allows() {
        let session = |began_at, used_at| SessionRecord {
            id: SessionId::random(),
            user: UserId::random(),
            identity: IdentityId::random(),
            began_at,
            authenticated_at: began_at,
            used_at,
        };
        let token = |issued_at, replaced_at| TokenRecord { issued_at, replaced_at };
        for (session, token, now, verdict) in [
            (session(0, 0), token(0, None), DAY - 1, Verdict::Good),
            (session(0, 0), token(0, None), DAY, Verdict::Due),
            (session(0, 0), token(0, None), 7 * DAY - 1, Verdict::Due),
            (session(0, 0), token(0, None), 7 * DAY, Verdict::Over),
            // Used an hour before its first day was over, and then not for a week.
            (session(0, DAY - 3_600_000), token(0, None), 7 * DAY, Verdict::Over),
            (session(0, DAY), token(0, Some(DAY)), DAY + 10_000, Verdict::Good),
            (session(0, DAY), token(0, Some(DAY)), DAY + 10_001, Verdict::Stolen),
            (session(0, 29 * DAY), token(29 * DAY, None), 30 * DAY - 1, Verdict::Good),
            (session(0, 29 * DAY), token(29 * DAY, None), 30 * DAY, Verdict::Over),
        ] {
            assert_eq!(judge(&session, token, now), verdict, "{session:?} {token:?} {now}");
        }
    }

    #[test]
    fn a_browser_is_known_by_its_kind_only() {
        let of = |text: &'static str| Browser::of(Some(&HeaderValue::from_static(text))).0;
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36";
        assert_eq!(of(chrome), "Chrome on Linux");
        assert_eq!(of("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0"), "Firefox on Windows");
        assert_eq!(
            of("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile/15E148 Safari/604.1"),
            "Safari on iPhone"
        );
        assert_eq!(of("curl/8 CANARY"), "Unknown browser");
        assert_eq!(Browser::of(None).0, "Unknown browser");
    }
}
