//! GitHub, and servers like it: OAuth without an ID token. Who somebody is and which address is theirs is asked of its API.

use http::{HeaderValue, Request, header};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointNotSet, EndpointSet, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, Scope, TokenResponse, TokenUrl, basic::BasicClient,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{AskedOf, Refusal, fetch::Fetch, token};

type Client = BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// Where GitHub itself has its API. A server of one's own has it below its own address.
const HOSTED: (&str, &str) = ("https://github.com", "https://api.github.com");

pub(super) struct Github {
    client: Client,
    issuer: String,
    api: String,
    fetch: Fetch,
}

#[derive(Deserialize)]
struct Account {
    id: u64,
}

#[derive(Deserialize)]
struct Address {
    email: String,
    primary: bool,
    verified: bool,
}

impl Github {
    /// `None` when an address is none.
    pub(super) fn new(base_url: &str, id: &str, secret: &str, redirect: &str, fetch: Fetch) -> Option<Self> {
        let client = BasicClient::new(ClientId::new(id.to_owned()))
            .set_client_secret(ClientSecret::new(secret.to_owned()))
            .set_auth_uri(AuthUrl::new(format!("{base_url}/login/oauth/authorize")).ok()?)
            .set_token_uri(TokenUrl::new(format!("{base_url}/login/oauth/access_token")).ok()?)
            .set_redirect_uri(RedirectUrl::new(redirect.to_owned()).ok()?)
            // GitHub takes the secret in the body.
            .set_auth_type(oauth2::AuthType::RequestBody);
        let api = if base_url == HOSTED.0 { HOSTED.1.to_owned() } else { format!("{base_url}/api/v3") };
        Some(Self { client, issuer: format!("{base_url}/login/oauth"), api, fetch })
    }

    /// Where somebody is to go.
    pub(super) fn ask(&self) -> AskedOf {
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let (to, state) = self
            .client
            .authorize_url(|| CsrfToken::new(token()))
            .add_scope(Scope::new("user:email".to_owned()))
            .set_pkce_challenge(challenge)
            .url();
        AskedOf { to: to.into(), state: state.into_secret(), nonce: String::new(), verifier: verifier.into_secret() }
    }

    /// Whether an answer that names its sender is from here.
    pub(super) fn has_sent(&self, iss: Option<&str>) -> bool {
        iss.is_none_or(|iss| iss == self.issuer)
    }

    /// Whom GitHub calls what, and their primary address if it is verified.
    pub(super) async fn redeem(&self, code: String, verifier: String) -> Result<(String, String), Refusal> {
        let answer = self
            .client
            .exchange_code(AuthorizationCode::new(code))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier))
            .request_async(&self.fetch)
            .await
            .map_err(|_| Refusal::ProviderFailed)?;
        let bearer = answer.access_token().secret();
        let account: Account = self.read("/user", bearer).await?;
        let addresses: Vec<Address> = self.read("/user/emails", bearer).await?;
        let primary = addresses.into_iter().find(|address| address.primary && address.verified);
        // Names can be given to another person, the number cannot.
        Ok((account.id.to_string(), primary.ok_or(Refusal::EmailUnverified)?.email))
    }

    async fn read<T: DeserializeOwned>(&self, path: &str, bearer: &str) -> Result<T, Refusal> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {bearer}")).map_err(|_| Refusal::ProviderFailed)?;
        bearer.set_sensitive(true);
        let request = Request::get(format!("{}{path}", self.api))
            .header(header::AUTHORIZATION, bearer)
            .header(header::ACCEPT, "application/vnd.github+json")
            .header("x-github-api-version", "2022-11-28")
            .body(Vec::new())
            .map_err(|_| Refusal::ProviderFailed)?;
        let answer = self.fetch.ask(request).await.map_err(|_| Refusal::ProviderFailed)?;
        if !answer.status().is_success() {
            return Err(Refusal::ProviderFailed);
        }
        serde_json::from_slice(answer.body()).map_err(|_| Refusal::ProviderFailed)
    }
}
