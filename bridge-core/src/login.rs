//! Pairing this workstation with a Lab, and ending the pairing.

use std::time::Duration;

use ed25519_dalek::SigningKey;
use wire::{
    fingerprint::Fingerprint,
    pairing::{AUTHORIZE_PATH, DeviceGrant, DeviceRequest, Paired, TOKEN_PATH, TokenError, TokenErrorCode, TokenRequest},
};

use crate::{
    config::{Config, ConfigError, Origin, Pairing},
    credentials::{self, Credentials},
    dial::{DialError, Dialer},
};

/// What RFC 8628 §3.5 adds to the interval on `slow_down`.
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// A pairing that waits for somebody to approve its code.
pub struct PendingLogin {
    /// What to show: the code and where to type it.
    pub grant: DeviceGrant,
    /// What to compare: the key in words.
    pub fingerprint: Fingerprint,
    key: SigningKey,
    lab: Origin,
    config: Config,
    dialer: Dialer,
}

/// Why there is no pairing.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The Lab cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The key cannot be kept.
    #[error(transparent)]
    Credential(#[from] credentials::Error),
    /// The pairing cannot be kept.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The Lab does not give out a code.
    #[error("the Lab gave no pairing code; wait a minute and try again")]
    NotGranted,
    /// Somebody said no.
    #[error("the pairing was declined at the Lab")]
    Denied,
    /// Nobody said anything in time.
    #[error("the code has expired before anyone approved it; run `1k4-bridge login` again")]
    Expired,
}

/// Makes a key, puts it where the configuration says, and asks the Lab for a code. The keyring is tried before a person is
/// bothered: a code that cannot be used afterwards would be a waste of their time.
///
/// # Errors
/// When the key cannot be kept or the Lab gives no code.
pub async fn begin(config: &Config, lab: &Origin) -> Result<PendingLogin, LoginError> {
    let dialer = Dialer::new(config.ca_file.as_deref())?;
    begin_with(config, lab, dialer).await
}

/// As [`begin`], with a dialer of one's own.
///
/// # Errors
/// When the key cannot be kept or the Lab gives no code.
pub async fn begin_with(config: &Config, lab: &Origin, dialer: Dialer) -> Result<PendingLogin, LoginError> {
    let credentials = Credentials::open(config.credential_store.clone(), lab)?;
    let key = match credentials.load().await {
        Ok(key) => key,
        Err(credentials::Error::NoEntry) => {
            let key = credentials::new_key()?;
            credentials.save(&key).await?;
            key
        }
        Err(error) => return Err(error.into()),
    };
    let public = key.verifying_key();
    let request = DeviceRequest {
        public_key: data_encoding::HEXLOWER.encode(public.as_bytes()),
        hostname: config.device_name.clone(),
        os: sysinfo::System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let grant = dialer.post_json::<DeviceGrant, serde::de::IgnoredAny>(lab, AUTHORIZE_PATH, &request).await?;
    let grant = grant.map_err(|_| LoginError::NotGranted)?;
    let fingerprint = Fingerprint::of(&public);
    Ok(PendingLogin { grant, fingerprint, key, lab: lab.clone(), config: config.clone(), dialer })
}

impl PendingLogin {
    /// Waits until somebody decides, and keeps the pairing.
    ///
    /// # Errors
    /// When it is declined or expires, or the pairing cannot be kept. A network that fails in between is waited for.
    pub async fn wait(self) -> Result<Paired, LoginError> {
        // The Lab's numbers, within reason.
        let mut interval = Duration::from_secs(self.grant.interval.clamp(1, 60));
        let deadline = tokio::time::Instant::now() + Duration::from_secs(self.grant.expires_in.min(3600));
        loop {
            tokio::time::sleep(interval).await;
            if tokio::time::Instant::now() > deadline {
                return Err(LoginError::Expired);
            }
            let request = TokenRequest::sign(&self.key, self.lab.as_str(), self.grant.device_code.clone());
            match self.dialer.post_json::<Paired, TokenError>(&self.lab, TOKEN_PATH, &request).await {
                Ok(Ok(paired)) => {
                    let (owner, told) = (paired.owner.clone(), self.config.told.clone());
                    let pairing = Pairing { lab: self.lab, device: paired.device, owner, told };
                    pairing.save(&self.config.paths)?;
                    return Ok(paired);
                }
                Ok(Err(TokenError { error })) => match error {
                    TokenErrorCode::AuthorizationPending => {}
                    TokenErrorCode::SlowDown => interval += SLOW_DOWN,
                    TokenErrorCode::AccessDenied => return Err(LoginError::Denied),
                    TokenErrorCode::ExpiredToken | TokenErrorCode::InvalidGrant => return Err(LoginError::Expired),
                },
                Err(error) => tracing::debug!(code = error.code(), "the Lab could not be asked whether the code is approved"),
            }
        }
    }
}

/// Ends the pairing at this end: the key and the device id are removed. The Lab's owner sees the device until they revoke it.
///
/// # Errors
/// When the key or the pairing cannot be removed. Returns the pairing that was, or `None` when there was none.
pub async fn logout(config: &Config) -> Result<Option<Pairing>, LoginError> {
    let Some(pairing) = Pairing::load(&config.paths)? else { return Ok(None) };
    Credentials::open(config.credential_store.clone(), &pairing.lab)?.delete().await?;
    Pairing::remove(&config.paths)?;
    Ok(Some(pairing))
}
