//! Links in mails. Whoever asks is told the same at the same time, whether the address has an account or not: what is done for it is
//! done after the answer.
//!
//! The token stands behind the `#` of the address, which no scanner sends anywhere, and only a POST uses it up: by the browser that
//! asked, or by another one whose person types the code that the first one shows.

use std::{net::IpAddr, time::Duration};

use lettre::Address;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

use super::{Current, Outcome, PERSONAL, Purpose, Refusal, SignIns, hash, open_account, post::Letter, same, token};
use crate::{
    account::session::Browser,
    clock::millis,
    config::{Origin, sign_in::Registration},
    random::random_bytes,
    store::{MAIL, NewLink, Store, StoreError, Subject, User},
};

/// How long a link is good.
pub(crate) const GOOD_FOR: Duration = Duration::from_secs(900);
/// How long an invitation is good.
const INVITED_FOR: Duration = Duration::from_secs(86_400);
/// Letters that cannot be taken for one another or spell a word, as those of pairing's codes.
const ALPHABET: [u8; 20] = *wire::pairing::CODE_ALPHABET;
/// Of those so many are a code: 34 bits, and five tries.
const CODE_LEN: usize = 8;

/// What whoever asked for a link keeps.
pub struct Asked {
    /// What another browser must be told.
    pub code: String,
    /// The cookie's value.
    pub browser: String,
}

/// What is kept with a link.
#[derive(Serialize, Deserialize)]
struct Kept {
    address: String,
    purpose: Purpose,
}

/// An address, in the one spelling that it is known by; never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct NormalAddress(String);

impl NormalAddress {
    /// `None` for what is no address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let normal: String = text.trim().nfkc().flat_map(char::to_lowercase).collect();
        let fits = normal.len() <= 254 && normal.parse::<Address>().is_ok();
        fits.then_some(Self(normal))
    }

    pub(crate) fn subject(&self) -> Subject {
        Subject { provider: MAIL.to_owned(), subject: self.0.clone(), email: Some(self.0.clone()) }
    }
}

impl SignIns {
    /// Somebody asks for a link to this address. What is given does not depend on the address.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub async fn ask_for_link(
        &self,
        address: &str,
        purpose: Purpose,
        current: Option<Current>,
        from: IpAddr,
    ) -> Result<Option<Asked>, Refusal> {
        let inner = &*self.0;
        let Some(address) = NormalAddress::parse(address) else { return Ok(None) };
        let session = inner.inside(purpose, current)?;
        inner.letters.spend(from, std::time::Instant::now()).map_err(Refusal::TooMany)?;
        let asked = Asked { code: code(), browser: token() };
        let (code, browser_hash, sign_ins) = (asked.code.clone(), hash(&asked.browser), self.clone());
        // Off the way of the answer, which must not tell by its time what is done.
        tokio::spawn(async move {
            if let Err(error) = sign_ins.send(address, purpose, session, browser_hash, code).await {
                tracing::error!(%error, "a link to sign in with cannot be sent");
            }
        });
        Ok(Some(asked))
    }

    async fn send(
        &self,
        address: NormalAddress,
        purpose: Purpose,
        session: Option<wire::SessionId>,
        browser_hash: [u8; 32],
        code: String,
    ) -> Result<(), super::post::PostError> {
        let inner = &*self.0;
        let known = inner.store.identity_of(&address.subject()).await?.is_some();
        let is_for_somebody = match purpose {
            Purpose::SignIn => known || inner.registration == Registration::Open,
            Purpose::StepUp => known,
            Purpose::Link => true,
        };
        if !is_for_somebody {
            return Ok(());
        }
        let (token, now) = (token(), inner.clock.now_ms());
        let kept = Kept { address: address.0.clone(), purpose };
        let link = NewLink {
            token_hash: &hash(&token),
            address: &address.0,
            detail: &serde_json::to_vec(&kept).unwrap_or_default(),
            browser_hash: Some(&browser_hash),
            code: &code,
            session,
            created_at: now,
            expires_at: now.saturating_add(millis(GOOD_FOR)),
        };
        if inner.store.add_link(&link).await? {
            inner.post.send(Letter::with_link(&address.0, &inner.origin, &address_of(&inner.origin, &token))).await?;
        }
        Ok(())
    }

    /// Somebody shows a link's token.
    ///
    /// # Errors
    /// [`Refusal`] says why they are not let in.
    pub async fn use_link(
        &self,
        token: &str,
        code: Option<&str>,
        shown: Option<&str>,
        current: Option<Current>,
        browser: &Browser,
        from: IpAddr,
    ) -> Result<Outcome, Refusal> {
        let inner = &*self.0;
        inner.wrong_codes.try_once(from, std::time::Instant::now()).map_err(Refusal::TooMany)?;
        let used = self.try_link(token, code, shown, current, browser).await;
        if !matches!(used, Err(Refusal::WrongCode)) {
            inner.wrong_codes.forgive(from);
        }
        used
    }

    async fn try_link(
        &self,
        token: &str,
        code: Option<&str>,
        shown: Option<&str>,
        current: Option<Current>,
        browser: &Browser,
    ) -> Result<Outcome, Refusal> {
        let inner = &*self.0;
        let (token_hash, now) = (hash(token), inner.clock.now_ms());
        let link = inner.store.link(&token_hash, now).await?.ok_or(Refusal::Over)?;
        let same_browser = match &link.browser_hash {
            Some(expected) => shown.is_some_and(|shown| same(&hash(shown), expected)),
            // Nobody asked for an invitation.
            None => true,
        };
        if !same_browser {
            let code = code.ok_or(Refusal::CodeNeeded)?;
            if !inner.store.try_code(&token_hash, &read_code(code), now).await? {
                return Err(Refusal::WrongCode);
            }
        }
        let kept: Kept = serde_json::from_slice(&link.detail).map_err(|_| Refusal::Over)?;
        if !inner.store.use_link(&token_hash, now).await? {
            return Err(Refusal::Over);
        }
        let subject = Subject { provider: MAIL.to_owned(), subject: kept.address.clone(), email: Some(kept.address) };
        self.settle(&subject, kept.purpose, link.session, current, browser).await
    }
}

/// Opens an account for an address, or takes up the one that it has, and gives a link that signs its owner in, for a day and once.
///
/// # Errors
/// When the database fails, or the address is none.
pub async fn invite(store: &Store, origin: &Origin, address: &str, now: i64) -> Result<String, StoreError> {
    let address = NormalAddress::parse(address).ok_or(NO_ADDRESS)?;
    if store.identity_of(&address.subject()).await?.is_none() {
        let user = open_account(store, &address.0).await?;
        store.add_identity(user, &address.subject(), now).await?;
    }
    let token = token();
    let kept = Kept { address: address.0.clone(), purpose: Purpose::SignIn };
    let link = NewLink {
        token_hash: &hash(&token),
        address: &address.0,
        detail: &serde_json::to_vec(&kept).unwrap_or_default(),
        browser_hash: None,
        code: &code(),
        session: None,
        created_at: now,
        expires_at: now.saturating_add(millis(INVITED_FOR)),
    };
    if store.add_link(&link).await? {
        Ok(address_of(origin, &token))
    } else {
        Err(StoreError::Refused("this address had too many links lately; wait an hour"))
    }
}

/// Opens an account, and lets an address sign in to it where one is given.
///
/// # Errors
/// [`StoreError::Taken`] when the name or the address is another person's, [`StoreError::Refused`] when the address is none.
pub async fn add(store: &Store, name: &str, address: Option<&str>, now: i64) -> Result<User, StoreError> {
    let address = address.map(|address| NormalAddress::parse(address).ok_or(NO_ADDRESS)).transpose()?;
    // Before the account is there: it could not be given another address otherwise.
    if let Some(address) = &address
        && store.identity_of(&address.subject()).await?.is_some()
    {
        return Err(StoreError::Taken("an account of that address"));
    }
    let user = store.add_user(name).await?;
    if let Some(address) = address {
        store.add_project(user.id, PERSONAL).await?;
        store.add_identity(user.id, &address.subject(), now).await?;
    }
    Ok(user)
}

const NO_ADDRESS: StoreError = StoreError::Refused("that is no e-mail address; write one such as ada@example.com");

/// What is mailed: the token stands where browsers keep it to themselves.
fn address_of(origin: &Origin, token: &str) -> String {
    format!("{origin}/sign-in#link={token}")
}

fn code() -> String {
    let letters = random_bytes::<CODE_LEN>().map(letter);
    letters.iter().collect()
}

/// The letter that a random byte stands for. Of 256 values 240 are twelve times the alphabet; the others are drawn again.
fn letter(mut byte: u8) -> char {
    while usize::from(byte) >= ALPHABET.len() * 12 {
        [byte] = random_bytes::<1>();
    }
    ALPHABET[usize::from(byte) % ALPHABET.len()] as char
}

/// A code as it was typed: in small letters, with a dash or spaces.
fn read_code(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_alphanumeric()).take(CODE_LEN + 1).map(|c| c.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_spelling() {
        let normal = |text: &str| NormalAddress::parse(text).map(|address| address.0);
        for text in ["ada@example.com", " Ada@Example.COM ", "ａｄａ@example.com"] {
            assert_eq!(normal(text).as_deref(), Some("ada@example.com"), "{text}");
        }
        for text in ["", "ada", "@example.com", "ada@", "a b@example.com", "ada@example.com\nbcc: x@example.com"] {
            assert_eq!(normal(text), None, "{text}");
        }
    }

    #[test]
    fn codes_are_of_their_alphabet_and_read_leniently() {
        for _ in 0..100 {
            let code = code();
            assert!(code.len() == CODE_LEN && code.bytes().all(|byte| ALPHABET.contains(&byte)), "{code}");
        }
        assert_eq!(read_code(" bcdf-ghjk "), "BCDFGHJK");
    }
}
