//! A provider that speaks OpenID Connect. What it says of itself is asked for once in ten minutes; what it says of a person is
//! believed only under its signature, for this client, this journey and this minute.

use std::time::{Duration, Instant};

use openidconnect::{
    AdditionalProviderMetadata, AuthorizationCode, ClaimsVerificationError, ClientId, ClientSecret, CsrfToken, DiscoveryError,
    IssuerUrl, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl, Scope,
    SignatureVerificationError, TokenResponse,
    core::{
        CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod,
        CoreGrantType, CoreIdToken, CoreIdTokenClaims, CoreIdTokenVerifier, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm,
        CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
        CoreUserInfoClaims,
    },
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::{AskedOf, Refusal, fetch::Fetch, token};
use crate::clock::millis;

/// How long what a provider says of itself is believed.
const KNOWN_FOR: Duration = Duration::from_secs(600);
/// How much a provider's clock may be behind this Lab's.
const CLOCKS_DIFFER: Duration = Duration::from_secs(30);
/// Signatures that anybody can check and only the provider can make. Never `none`, and never one made with the client's secret.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// What providers say beyond the crate's own list.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Extra {
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Extra {}

type Metadata = ProviderMetadata<
    Extra,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

pub(super) struct Oidc {
    issuer: IssuerUrl,
    id: ClientId,
    secret: ClientSecret,
    redirect: RedirectUrl,
    fetch: Fetch,
    known: Mutex<Option<(Metadata, Instant)>>,
}

impl Oidc {
    /// `None` when an address is none.
    pub(super) fn new(issuer: &str, id: &str, secret: &str, redirect: &str, fetch: Fetch) -> Option<Self> {
        Some(Self {
            issuer: IssuerUrl::new(issuer.to_owned()).ok()?,
            id: ClientId::new(id.to_owned()),
            secret: ClientSecret::new(secret.to_owned()),
            redirect: RedirectUrl::new(redirect.to_owned()).ok()?,
            fetch,
            known: Mutex::default(),
        })
    }

    /// Where somebody is to go; to be asked there who they are even if the provider knows, where they are to prove it anew.
    pub(super) async fn ask(&self, anew: bool) -> Result<AskedOf, Refusal> {
        let client = CoreClient::from_provider_metadata(self.metadata().await?, self.id.clone(), Some(self.secret.clone()))
            .set_redirect_uri(self.redirect.clone());
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let mut request = client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, || CsrfToken::new(token()), || Nonce::new(token()))
            .add_scope(Scope::new("email".to_owned()))
            .set_pkce_challenge(challenge);
        if anew {
            request = request.add_prompt(CoreAuthPrompt::Login).set_max_age(Duration::ZERO);
        }
        let (to, state, nonce) = request.url();
        Ok(AskedOf { to: to.into(), state: state.into_secret(), nonce: nonce.secret().clone(), verifier: verifier.into_secret() })
    }

    /// Whether an answer that names its sender, or does not, is from here.
    pub(super) async fn has_sent(&self, iss: Option<&str>) -> Result<bool, Refusal> {
        Ok(match iss {
            Some(iss) => iss == self.issuer.as_str(),
            None => !self.metadata().await?.additional_metadata().authorization_response_iss_parameter_supported,
        })
    }

    /// Whom the provider calls what, and the address that it vouches for. Where somebody is to prove anew who they are, the provider
    /// must say that they did so since `proved_since`, in milliseconds since 1970: the wish for it was in the browser's hands.
    pub(super) async fn redeem(
        &self,
        code: String,
        verifier: String,
        nonce: String,
        proved_since: Option<i64>,
    ) -> Result<(String, String), Refusal> {
        let metadata = self.metadata().await?;
        let client = CoreClient::from_provider_metadata(metadata.clone(), self.id.clone(), Some(self.secret.clone()))
            .set_redirect_uri(self.redirect.clone());
        let answer = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|_| Refusal::ProviderFailed)?
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .request_async(&self.fetch)
            .await
            .map_err(|_| Refusal::ProviderFailed)?;
        let id_token = answer.id_token().ok_or(Refusal::ProviderFailed)?;
        let nonce = Nonce::new(nonce);
        let claims = match self.verified(id_token, &metadata, &nonce) {
            // It may have a new key since it was last asked.
            Err(ClaimsVerificationError::SignatureVerification(SignatureVerificationError::NoMatchingKey)) => {
                self.verified(id_token, &self.ask_for_metadata().await?, &nonce)
            }
            verified => verified,
        };
        let claims = claims.map_err(|_| Refusal::ProviderFailed)?;
        if let Some(since) = proved_since {
            let at = claims.auth_time().ok_or(Refusal::CannotStepUp)?.timestamp_millis();
            if at < since.saturating_sub(millis(CLOCKS_DIFFER)) {
                return Err(Refusal::NotFresh);
            }
        }
        let subject = claims.subject().clone();
        let said = (claims.email().cloned(), claims.email_verified());
        let said = match said {
            // Not every provider puts it into the token itself.
            (None, _) => match client.user_info(answer.access_token().clone(), Some(subject.clone())) {
                Ok(question) => {
                    let info: CoreUserInfoClaims =
                        question.request_async(&self.fetch).await.map_err(|_| Refusal::ProviderFailed)?;
                    (info.email().cloned(), info.email_verified())
                }
                Err(_) => said,
            },
            said => said,
        };
        match said {
            (Some(email), Some(true)) => Ok((subject.to_string(), email.to_string())),
            _ => Err(Refusal::EmailUnverified),
        }
    }

    /// What a token says of a person, if all of it holds: who made it, for whom, when, and for which journey.
    fn verified(
        &self,
        id_token: &CoreIdToken,
        metadata: &Metadata,
        nonce: &Nonce,
    ) -> Result<CoreIdTokenClaims, ClaimsVerificationError> {
        // Made from the issuer that was configured, not from the one that answers.
        let verifier = CoreIdTokenVerifier::new_public_client(self.id.clone(), self.issuer.clone(), metadata.jwks().clone());
        id_token.claims(&verifier.set_allowed_algs(ALGORITHMS), nonce).cloned()
    }

    async fn metadata(&self) -> Result<Metadata, Refusal> {
        if let Some((metadata, since)) = &*self.known.lock().await
            && since.elapsed() < KNOWN_FOR
        {
            return Ok(metadata.clone());
        }
        self.ask_for_metadata().await
    }

    async fn ask_for_metadata(&self) -> Result<Metadata, Refusal> {
        // It must name the very issuer that was configured, which the crate checks.
        let metadata = Metadata::discover_async(self.issuer.clone(), &self.fetch).await.map_err(|error| {
            let kind = match error {
                DiscoveryError::Request(_) => "it does not answer",
                DiscoveryError::Validation(_) => "it names another issuer",
                _ => "its answer cannot be read",
            };
            tracing::warn!(issuer = self.issuer.as_str(), kind, "a sign-in provider's description cannot be had");
            Refusal::ProviderFailed
        })?;
        *self.known.lock().await = Some((metadata.clone(), Instant::now()));
        Ok(metadata)
    }
}
