//! The cloud providers as this Lab reaches them: secrets fetched from where they lie, connections that trust whom the system trusts.
//!
//! [`crate::config::providers`] says what the owner wrote; here it becomes [`api_proxy::Upstream`] and [`api_proxy::Catalogue`].

pub mod policy;

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use api_proxy::{Catalogue, CatalogueError, Channel, ChannelHealth, ModelOverride, ModelPrices, Name, Price, Tuning, Upstream};
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use tokio_util::sync::CancellationToken;

use crate::{
    config::{
        assistant::Assistant,
        providers::{PlannedChannel, Providers},
    },
    secret::{self, SecretError},
};

/// How often the channels are looked at for the log. A breaker that opens for less than this was not worth a line.
const WATCH_EVERY: Duration = Duration::from_secs(3);

/// Why the providers cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// A channel's secret cannot be had.
    #[error("the channel {channel} has no secret: {cause}")]
    Secret {
        /// Which.
        channel: Name,
        /// Why.
        cause: SecretError,
    },
    /// The prices are not usable.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The extra CA file is not there or not PEM.
    #[error("the CA file {} cannot be read as PEM certificates; check ca_file under [upstream]", .0.display())]
    CaFile(PathBuf),
    /// The system has no certificates to trust.
    #[error(
        "this system's certificates cannot be read; install ca-certificates, or name a file of them as ca_file under [upstream]"
    )]
    NoTrust,
}

/// The catalogue, with what the owner lays over it.
///
/// # Errors
/// When an entry cannot be used; reading the configuration says so before.
pub fn catalogue(providers: &Providers) -> Result<Catalogue, CatalogueError> {
    Catalogue::embedded()?.with_overrides(&providers.models)
}

/// Fetches every secret. The first that cannot be had ends it: a Lab that is asked for a provider it cannot open would only find out
/// at a caller's cost.
///
/// # Errors
/// [`ProviderError::Secret`] names the channel and what to do.
pub async fn open(providers: &Providers) -> Result<Vec<Channel>, ProviderError> {
    let mut channels = Vec::with_capacity(providers.channels.len());
    for planned in &providers.channels {
        let channel = with_secret(planned).await;
        channels.push(channel.map_err(|cause| ProviderError::Secret { channel: planned.channel.name.clone(), cause })?);
    }
    Ok(channels)
}

/// One channel, ready to be asked.
///
/// # Errors
/// [`SecretError`] says where the secret was looked for.
pub async fn with_secret(planned: &PlannedChannel) -> Result<Channel, SecretError> {
    let secret = match &planned.secret {
        Some(source) => Some(secret::fetch(source).await?),
        None => None,
    };
    Ok(Channel { secret, ..planned.channel.clone() })
}

/// What the assistant is made of: one channel of its own, apart from people's, and a catalogue in which its model costs nothing, so
/// that nothing is set aside for it.
///
/// # Errors
/// When its secret cannot be had, or nobody can be trusted.
pub async fn assistant(planned: &Assistant, providers: &Providers) -> Result<(Upstream, Catalogue), ProviderError> {
    let list = Catalogue::embedded()?;
    // The catalogue may know it by another name, too.
    let id = list.find(&planned.model).map_or_else(|| planned.model.clone(), |model| (*model.id).to_owned());
    let name = Name::from_str("assistant").map_err(|_| ProviderError::NoTrust)?;
    let channel = Channel {
        name: name.clone(),
        provider: name.clone(),
        kind: planned.kind,
        base: planned.base.clone(),
        secret: None,
        priority: 0,
        weight: 1,
        models: None,
        deployments: [(id.clone(), planned.model.clone())].into(),
        api_version: None,
    };
    let planned = PlannedChannel { channel, secret: planned.secret.clone() };
    let channel = with_secret(&planned).await.map_err(|cause| ProviderError::Secret { channel: name.clone(), cause })?;
    let nothing = Price::per_million_tokens("0").ok();
    let prices = nothing.map(|input| ModelPrices {
        input,
        output: nothing,
        cached: nothing,
        cache_write_short: nothing,
        cache_write_long: nothing,
        input_audio: nothing,
        input_image: nothing,
        output_audio: nothing,
        output_image: nothing,
        search: nothing,
    });
    let model =
        ModelOverride { id, provider: name, aliases: Vec::new(), max_input: Some(200_000), max_output: Some(8_192), prices };
    Ok((upstream(vec![channel], providers, Tuning::default())?, list.with_overrides(&[model])?))
}

/// The way to `channels`.
///
/// # Errors
/// When nobody can be trusted: no CA file where one is named, or a system without certificates.
pub fn upstream(channels: Vec<Channel>, providers: &Providers, tuning: Tuning) -> Result<Upstream, ProviderError> {
    let tls = if channels.is_empty() { trusting_nobody()? } else { tls(providers.ca_file.as_ref())? };
    Ok(Upstream::new(channels, &Arc::new(tls), tuning))
}

/// The system's certificates, and those of `ca_file`.
pub(crate) fn tls(ca_file: Option<&PathBuf>) -> Result<ClientConfig, ProviderError> {
    let extra = match ca_file {
        Some(file) => certificates(file).ok_or_else(|| ProviderError::CaFile(file.clone()))?,
        None => Vec::new(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).map_err(|_| ProviderError::NoTrust)?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|_| ProviderError::NoTrust)?.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

/// A Lab without providers needs no certificates, and must start on a system that has none.
fn trusting_nobody() -> Result<ClientConfig, ProviderError> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider())).with_safe_default_protocol_versions();
    let config = config.map_err(|_| ProviderError::NoTrust)?;
    Ok(config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
}

/// `None` when there is none in the file.
fn certificates(file: &PathBuf) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).ok()?.collect();
    certificates.ok().filter(|certificates| !certificates.is_empty())
}

/// Says once in the log when a channel's state changes. Runs as long as the Lab.
pub async fn watch(upstream: Arc<Upstream>, stop: CancellationToken) {
    let mut known = upstream.health();
    let mut turns = tokio::time::interval(WATCH_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        let now = upstream.health();
        for ChannelHealth { channel, provider, state } in changed(&known, &now) {
            match state {
                api_proxy::ChannelState::Ready => tracing::info!(%channel, %provider, "the channel answers again"),
                api_proxy::ChannelState::Resting => {
                    tracing::info!(%channel, %provider, "the channel has too many requests and rests")
                }
                api_proxy::ChannelState::Failing => {
                    tracing::warn!(%channel, %provider, "the channel fails and is left alone for a while")
                }
                api_proxy::ChannelState::KeyRefused => {
                    tracing::error!(%channel, %provider, "the provider refuses the channel's secret; change it and start again");
                }
            }
        }
        known = now;
    }
}

/// What is now and was not so before.
fn changed<'a>(before: &'a [ChannelHealth], now: &'a [ChannelHealth]) -> impl Iterator<Item = &'a ChannelHealth> {
    now.iter().filter(|channel| !before.contains(channel))
}

#[cfg(test)]
mod tests {
    use api_proxy::ChannelState;

    use super::*;

    #[test]
    fn a_change_is_told_once() {
        let health =
            |name: &str, state| ChannelHealth { channel: name.parse().unwrap(), provider: "openai".parse().unwrap(), state };
        let well = [health("a", ChannelState::Ready), health("b", ChannelState::Ready)];
        let ill = [health("a", ChannelState::Ready), health("b", ChannelState::Failing)];
        assert_eq!(changed(&well, &ill).collect::<Vec<_>>(), [&ill[1]]);
        assert_eq!(changed(&ill, &ill).count(), 0);
        assert_eq!(changed(&ill, &well).collect::<Vec<_>>(), [&well[1]]);
    }

    #[tokio::test]
    async fn a_channel_without_its_secret_stops_the_start_and_is_named() {
        let channel = Channel {
            name: "openai-1".parse().unwrap(),
            provider: "openai".parse().unwrap(),
            kind: api_proxy::ProviderKind::Openai,
            base: "https://api.example.com".parse().unwrap(),
            secret: None,
            priority: 0,
            weight: 1,
            models: None,
            deployments: std::collections::HashMap::new(),
            api_version: None,
        };
        let secret = Some(crate::config::providers::SecretSource::Env("ONEK4_NOBODY_SETS_THIS".into()));
        let providers = Providers { channels: vec![PlannedChannel { channel, secret }], ..Providers::default() };
        let error = open(&providers).await.unwrap_err().to_string();
        assert!(
            error.starts_with("the channel openai-1 has no secret: the environment variable ONEK4_NOBODY_SETS_THIS"),
            "{error}"
        );
        let missing = Providers { ca_file: Some("/nowhere/ca.pem".into()), ..Providers::default() };
        assert!(matches!(tls(missing.ca_file.as_ref()), Err(ProviderError::CaFile(_))));
        // Nobody is asked, so nobody needs to be trusted.
        assert!(upstream(Vec::new(), &missing, Tuning::default()).is_ok());
    }
}
