//! Signing in: at a provider, or by a link in a mail (SECURITY 4.5). There is no password.
//!
//! Whatever way somebody comes, it ends as a [`Subject`]: a provider and what that provider calls them for ever. What then happens is
//! decided in one place, [`SignIns::settle`]. An address never finds or joins an account: who has two ways of signing in has added the
//! second while signed in with the first.

mod fetch;
mod github;
mod links;
mod oidc;
mod post;

use std::{net::IpAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Mutex;
use wire::{IdentityId, SessionId, UserId};
use zeroize::Zeroizing;

use super::{
    revocation::Revocations,
    session::{self, ABSOLUTE, Browser, FRESH, IDLE, NewSession},
};
use crate::{
    clock::{Clock, millis},
    config::{
        Config, Origin,
        sign_in::{PlannedProvider, ProviderKind, Registration},
    },
    edge::attempts::{Budget, Lockout},
    providers::ProviderError,
    random::random_bytes,
    secret::{self, SecretError},
    store::{NewAttempt, SessionRecord, Store, StoreError, Subject},
};
use fetch::Fetch;
use github::Github;
use oidc::Oidc;
use post::Post;

pub use links::{Asked, add, invite};

/// How long somebody may be away at a provider.
const AWAY: Duration = Duration::from_secs(600);
/// How often what is over is forgotten. R29 allows twice as much.
const SWEEP_EVERY: Duration = Duration::from_secs(300);
/// Journeys to providers, and links, that one address may begin in an hour.
const JOURNEYS_PER_HOUR: usize = 200;
const LINKS_PER_HOUR: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);
/// Wrong codes from one address before it is locked out, and for how long (SECURITY 4.9).
const WRONG_CODES: usize = 5;
const LOCKOUT: Duration = Duration::from_secs(900);

/// Lets people in; clones are one.
#[derive(Clone)]
pub struct SignIns(Arc<Inner>);

struct Inner {
    store: Store,
    revocations: Revocations,
    clock: Clock,
    origin: Origin,
    registration: Registration,
    providers: Vec<Provider>,
    post: Post,
    journeys: Budget,
    letters: Budget,
    wrong_codes: Lockout,
    /// Held while an account is made, so that somebody who comes twice at once gets one.
    registering: Mutex<()>,
}

struct Provider {
    name: String,
    way: Way,
}

enum Way {
    Oidc(Box<Oidc>),
    Github(Box<Github>),
}

/// What signing in is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To be signed in.
    #[default]
    SignIn,
    /// To prove once more who is signed in.
    StepUp,
    /// To add a way of signing in to the account that is signed in.
    Link,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// Somebody is signed in, or proved once more who they are: the browser gets a token.
    Session(NewSession),
    /// The account has one more way of signing in.
    Linked,
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such provider.
    #[error("no such provider")]
    NoProvider,
    /// They said no at the provider.
    #[error("denied")]
    Denied,
    /// The provider failed, or said what it must not say.
    #[error("the provider failed")]
    ProviderFailed,
    /// What they came with is over, was used, or never was; or another browser has it.
    #[error("over")]
    Over,
    /// The provider does not vouch for an address.
    #[error("no verified address")]
    EmailUnverified,
    /// They have no account, and none are made.
    #[error("registration is closed")]
    Closed,
    /// It is another account's, or another person's than who is signed in.
    #[error("another account's")]
    AnotherAccount,
    /// Adding needs a fresh session.
    #[error("not fresh")]
    NotFresh,
    /// This provider cannot say that somebody has just proved who they are.
    #[error("cannot step up there")]
    CannotStepUp,
    /// It must happen inside the session in which it was begun.
    #[error("signed out")]
    SignedOut,
    /// Another browser asked for the link: the code is needed that it shows.
    #[error("code needed")]
    CodeNeeded,
    /// That is not the code.
    #[error("wrong code")]
    WrongCode,
    /// Too many tries from this address.
    #[error("too many tries")]
    TooMany(Duration),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nobody could sign in as configured.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// A secret cannot be had.
    #[error("the way of signing in {whose} has no secret: {cause}")]
    Secret {
        /// Whose.
        whose: String,
        /// Why.
        cause: SecretError,
    },
    /// Nobody can be trusted.
    #[error(transparent)]
    Trust(#[from] ProviderError),
    /// The way to a provider or the mail server cannot be made.
    #[error("cannot make the way to {whose}; check its address under [sign_in] or [mail]")]
    Way {
        /// Whose.
        whose: String,
    },
}

/// Who is signed in where something happens.
#[derive(Debug, Clone, Copy)]
pub struct Current {
    /// Who.
    pub user: UserId,
    /// In which session.
    pub session: SessionId,
    /// Milliseconds since 1970 when they last proved it.
    pub authenticated_at: i64,
}

/// What a provider's answer holds.
#[derive(Debug, Deserialize)]
pub struct Callback {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// What is kept while somebody is away.
#[derive(Serialize, Deserialize)]
struct Kept {
    verifier: String,
    nonce: String,
    purpose: Purpose,
    return_to: String,
    /// Milliseconds since 1970.
    began_at: i64,
}

/// Where somebody goes, and what their browser keeps meanwhile.
pub struct Journey {
    /// The provider's address.
    pub to: String,
    /// The cookie's value.
    pub browser: String,
}

impl SignIns {
    /// The ways in that the configuration names.
    ///
    /// # Errors
    /// When a secret or a certificate cannot be had.
    pub async fn open(config: &Config, origin: Origin, store: Store, revocations: Revocations) -> Result<Self, SignInError> {
        let mut providers = Vec::with_capacity(config.sign_in.providers.len());
        for planned in &config.sign_in.providers {
            let whose = || planned.name.clone();
            let secret = secret_of(planned).await?;
            let fetch = Fetch::new(config.sign_in.ca_file.as_ref())?;
            let redirect = format!("{origin}/api/sign-in/callback/{}", planned.name);
            let (id, secret) = (planned.client_id.as_str(), secret.as_str());
            let way = match &planned.kind {
                ProviderKind::Oidc { issuer } => Oidc::new(issuer, id, secret, &redirect, fetch).map(Box::new).map(Way::Oidc),
                ProviderKind::Github { base_url } => {
                    Github::new(base_url, id, secret, &redirect, fetch).map(Box::new).map(Way::Github)
                }
            };
            providers.push(Provider { name: whose(), way: way.ok_or_else(|| SignInError::Way { whose: whose() })? });
        }
        Ok(Self(Arc::new(Inner {
            post: Post::open(&config.mail).await?,
            clock: config.clock.clone(),
            registration: config.sign_in.registration,
            store,
            revocations,
            origin,
            providers,
            journeys: Budget::new(JOURNEYS_PER_HOUR, HOUR),
            letters: Budget::new(LINKS_PER_HOUR, HOUR),
            wrong_codes: Lockout::new(WRONG_CODES, LOCKOUT),
            registering: Mutex::default(),
        })))
    }

    /// The providers' names.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.0.providers.iter().map(|provider| provider.name.as_str())
    }

    /// Whether people who have no account get one.
    #[must_use]
    pub fn registration(&self) -> Registration {
        self.0.registration
    }

    /// Sends somebody to a provider.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub async fn begin(
        &self,
        provider: &str,
        purpose: Purpose,
        return_to: String,
        current: Option<Current>,
        from: IpAddr,
    ) -> Result<Journey, Refusal> {
        let inner = &*self.0;
        inner.journeys.spend(from, std::time::Instant::now()).map_err(Refusal::TooMany)?;
        let provider = inner.provider(provider).ok_or(Refusal::NoProvider)?;
        let session = inner.inside(purpose, current)?;
        let asked = match &provider.way {
            Way::Oidc(oidc) => oidc.ask(purpose != Purpose::SignIn).await?,
            // Whoever sits at the browser passes there without a question, and nothing tells.
            Way::Github(_) if purpose == Purpose::StepUp => return Err(Refusal::CannotStepUp),
            Way::Github(github) => github.ask(),
        };
        let browser = token();
        let began_at = inner.clock.now_ms();
        let kept = Kept { verifier: asked.verifier, nonce: asked.nonce, purpose, return_to, began_at };
        let attempt = NewAttempt {
            state_hash: &hash(&asked.state),
            browser_hash: &hash(&browser),
            provider: &provider.name,
            detail: &serde_json::to_vec(&kept).map_err(|_| Refusal::ProviderFailed)?,
            session,
            expires_at: began_at.saturating_add(millis(AWAY)),
        };
        inner.store.add_attempt(&attempt).await?;
        Ok(Journey { to: asked.to, browser })
    }

    /// Somebody comes back from a provider. Gives also where in the Lab they want to go.
    ///
    /// # Errors
    /// [`Refusal`] says why they are not let in.
    pub async fn finish(
        &self,
        provider: &str,
        callback: Callback,
        shown: Option<&str>,
        current: Option<Current>,
        browser: &Browser,
    ) -> Result<(Outcome, String), Refusal> {
        let inner = &*self.0;
        let provider = inner.provider(provider).ok_or(Refusal::NoProvider)?;
        let state = callback.state.ok_or(Refusal::Over)?;
        let attempt = inner.store.take_attempt(&hash(&state), inner.clock.now_ms()).await?.ok_or(Refusal::Over)?;
        // It is over now, whoever came with it.
        let same_browser = shown.is_some_and(|shown| same(&hash(shown), &attempt.browser_hash));
        if !same_browser || attempt.provider != provider.name {
            return Err(Refusal::Over);
        }
        let kept: Kept = serde_json::from_slice(&attempt.detail).map_err(|_| Refusal::Over)?;
        provider.must_have_sent(callback.iss.as_deref()).await?;
        if let Some(error) = callback.error {
            return Err(if error == "access_denied" { Refusal::Denied } else { Refusal::ProviderFailed });
        }
        let code = callback.code.ok_or(Refusal::ProviderFailed)?;
        let (subject, email) = match &provider.way {
            Way::Oidc(oidc) => {
                let proved_since = (kept.purpose != Purpose::SignIn).then_some(kept.began_at);
                oidc.redeem(code, kept.verifier, kept.nonce, proved_since).await?
            }
            Way::Github(github) => github.redeem(code, kept.verifier).await?,
        };
        if subject.is_empty() {
            // Everybody whom it calls nothing would be one person.
            return Err(Refusal::ProviderFailed);
        }
        let subject = Subject { provider: provider.name.clone(), subject, email: Some(email) };
        let outcome = self.settle(&subject, kept.purpose, attempt.session, current, browser).await?;
        Ok((outcome, kept.return_to))
    }

    /// What becomes of somebody who has proved to be this subject.
    async fn settle(
        &self,
        subject: &Subject,
        purpose: Purpose,
        inside: Option<SessionId>,
        current: Option<Current>,
        browser: &Browser,
    ) -> Result<Outcome, Refusal> {
        let inner = &*self.0;
        let now = inner.clock.now_ms();
        let mine = || match (current, inside) {
            (Some(current), Some(inside)) if current.session == inside => Ok(current),
            _ => Err(Refusal::SignedOut),
        };
        match purpose {
            Purpose::SignIn => {
                let (identity, user) = self.account(subject, now).await?;
                let new = session::open(&inner.store, user, identity, browser, now).await?;
                inner.store.note_identity_used(identity, now).await?;
                if let Some(old) = current {
                    // This browser has another one now. It may have ended by itself meanwhile.
                    match inner.revocations.end_session(old.user, old.session).await {
                        Ok(()) | Err(StoreError::Missing(_)) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                tracing::info!(%user, session = %new.id(), provider = %subject.provider, "signed in");
                Ok(Outcome::Session(new))
            }
            Purpose::StepUp => {
                let current = mine()?;
                let (identity, user) = inner.store.identity_of(subject).await?.ok_or(Refusal::AnotherAccount)?;
                if user != current.user {
                    return Err(Refusal::AnotherAccount);
                }
                let new = session::confirm(&inner.store, current.session, now).await?.ok_or(Refusal::SignedOut)?;
                inner.store.note_identity_used(identity, now).await?;
                Ok(Outcome::Session(new))
            }
            Purpose::Link => {
                let current = mine()?;
                inner.must_be_fresh(current)?;
                match inner.store.identity_of(subject).await? {
                    Some((_, user)) if user == current.user => {}
                    Some(_) => return Err(Refusal::AnotherAccount),
                    None => match inner.store.add_identity(current.user, subject, now).await {
                        Ok(_) => {
                            tracing::info!(user = %current.user, provider = %subject.provider, "a way of signing in was added")
                        }
                        Err(StoreError::Taken(_)) => return Err(Refusal::AnotherAccount),
                        Err(error) => return Err(error.into()),
                    },
                }
                Ok(Outcome::Linked)
            }
        }
    }

    /// The account of a subject; a new one, where such are made.
    async fn account(&self, subject: &Subject, now: i64) -> Result<(IdentityId, UserId), Refusal> {
        let inner = &*self.0;
        if let Some(known) = inner.store.identity_of(subject).await? {
            return Ok(known);
        }
        if inner.registration == Registration::Closed {
            return Err(Refusal::Closed);
        }
        let _alone = inner.registering.lock().await;
        if let Some(known) = inner.store.identity_of(subject).await? {
            return Ok(known);
        }
        let user = open_account(&inner.store, subject.email.as_deref().unwrap_or_default()).await?;
        let identity = inner.store.add_identity(user, subject, now).await?;
        Ok((identity.id, user))
    }

    /// Forgets what is over, until it is dropped.
    pub async fn sweep(self, stop: tokio_util::sync::CancellationToken) {
        let inner = &*self.0;
        let mut turns = tokio::time::interval(SWEEP_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = turns.tick() => {}
            }
            if let Err(error) = purge(&inner.store, inner.clock.now_ms()).await {
                tracing::error!(%error, "cannot purge sessions that are over; the next try is in five minutes");
            }
            inner.post.tidy().await;
        }
    }
}

/// All that keeps people from signing in as configured, where [`SignIns::open`] ends at the first. Nobody outside is asked.
pub async fn problems(config: &Config) -> Vec<SignInError> {
    let mut problems = Vec::new();
    for planned in &config.sign_in.providers {
        problems.extend(secret_of(planned).await.err());
    }
    if !config.sign_in.providers.is_empty() {
        problems.extend(Fetch::new(config.sign_in.ca_file.as_ref()).err().map(SignInError::from));
    }
    problems.extend(Post::open(&config.mail).await.err());
    problems
}

async fn secret_of(planned: &PlannedProvider) -> Result<Zeroizing<String>, SignInError> {
    let secret = secret::fetch_text(&planned.client_secret).await;
    secret.map_err(|cause| SignInError::Secret { whose: planned.name.clone(), cause })
}

/// Forgets sessions, attempts, links and pairings that are over, and gives how many sessions went.
///
/// # Errors
/// When the database fails.
pub async fn purge(store: &Store, now: i64) -> Result<u64, StoreError> {
    store.purge_pairings(now).await?;
    store.purge_sign_in(now, now.saturating_sub(millis(ABSOLUTE)), now.saturating_sub(millis(IDLE))).await
}

/// An account with a project to begin in, called as the address is before its `@` and some letters more: people's names are unique
/// here, and whoever was called plainly would learn that nobody else is.
async fn open_account(store: &Store, email: &str) -> Result<UserId, StoreError> {
    let local = email.split('@').next().unwrap_or_default();
    let name: String = local.chars().filter(|c| !c.is_control()).take(60).collect();
    let name = if name.trim().is_empty() { "user" } else { name.trim() };
    // 40 bits: nobody meets a name that is taken.
    let more = data_encoding::BASE32_NOPAD.encode(&random_bytes::<5>()).to_ascii_lowercase();
    let user = store.add_user(&format!("{name}-{more}")).await?.id;
    store.add_project(user, PERSONAL).await?;
    Ok(user)
}

/// The project that everybody has.
const PERSONAL: &str = "Personal";

impl Inner {
    fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.name == name)
    }

    /// The session that this must happen inside of.
    fn inside(&self, purpose: Purpose, current: Option<Current>) -> Result<Option<SessionId>, Refusal> {
        if purpose == Purpose::SignIn {
            return Ok(None);
        }
        let current = current.ok_or(Refusal::SignedOut)?;
        if purpose == Purpose::Link {
            self.must_be_fresh(current)?;
        }
        Ok(Some(current.session))
    }

    fn must_be_fresh(&self, current: Current) -> Result<(), Refusal> {
        let age = self.clock.now_ms().saturating_sub(current.authenticated_at);
        if age <= millis(FRESH) { Ok(()) } else { Err(Refusal::NotFresh) }
    }
}

impl Provider {
    /// Whether an answer that says who it is from is from this provider (RFC 9207): another one's could be passed on here.
    async fn must_have_sent(&self, iss: Option<&str>) -> Result<(), Refusal> {
        let sent = match &self.way {
            Way::Oidc(oidc) => oidc.has_sent(iss).await?,
            Way::Github(github) => github.has_sent(iss),
        };
        if sent { Ok(()) } else { Err(Refusal::ProviderFailed) }
    }
}

/// Where somebody is sent, and what must be known when they come back.
struct AskedOf {
    to: String,
    state: String,
    nonce: String,
    verifier: String,
}

impl Current {
    /// Out of a session.
    #[must_use]
    pub fn of(session: &SessionRecord) -> Self {
        Self { user: session.user, session: session.id, authenticated_at: session.authenticated_at }
    }
}

/// 256 random bits as a text.
fn token() -> String {
    data_encoding::BASE64URL_NOPAD.encode(&random_bytes::<32>())
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a[..].ct_eq(&b[..]).into()
}

/// Not the secrets inside.
impl std::fmt::Debug for SignIns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIns").finish_non_exhaustive()
    }
}
