//! How providers are asked: no redirects, no proxy of the environment's, only TLS, ten seconds, a megabyte.

use std::{future::Future, path::PathBuf, pin::Pin, time::Duration};

use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use reqwest::{Client, redirect::Policy};

use crate::providers::{self, ProviderError};

/// How long one question may take, with everything.
const LIMIT: Duration = Duration::from_secs(10);
/// The longest answer.
const MOST: usize = 1024 * 1024;

/// A client for one provider.
#[derive(Clone)]
pub(super) struct Fetch(Client);

/// Why there is no answer. Nothing of addresses or contents.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// It does not answer.
    #[error("no answer in time")]
    NoAnswer,
    /// It says too much.
    #[error("an answer of more than a megabyte")]
    TooLarge,
}

impl Fetch {
    pub(super) fn new(ca_file: Option<&PathBuf>) -> Result<Self, ProviderError> {
        let client = Client::builder()
            .tls_backend_preconfigured(providers::tls(ca_file)?)
            .https_only(true)
            .redirect(Policy::none())
            .no_proxy()
            .timeout(LIMIT)
            .connect_timeout(LIMIT)
            .user_agent("1k4-lab");
        Ok(Self(client.build().map_err(|_| ProviderError::NoTrust)?))
    }

    /// Asks once.
    pub(super) async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, FetchError> {
        let request = request.try_into().map_err(|_| FetchError::NoAnswer)?;
        let mut answer = self.0.execute(request).await.map_err(|_| FetchError::NoAnswer)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| FetchError::NoAnswer)? {
            if body.len() + chunk.len() > MOST {
                return Err(FetchError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = HttpResponse::new(body);
        *response.status_mut() = answer.status();
        *response.headers_mut() = answer.headers().clone();
        Ok(response)
    }
}

/// For the crates that speak the protocols.
impl<'c> AsyncHttpClient<'c> for Fetch {
    type Error = FetchError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, FetchError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.ask(request))
    }
}
