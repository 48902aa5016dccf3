//! Puts the Lab together. Everything below takes what it needs as values; only this file knows all of it.

use std::{future::Future, net::SocketAddr, sync::Arc};

use api_proxy::Proxy;
use axum::Router;
use tokio::net::TcpListener;

use crate::{
    account::revocation::Revocations,
    config::{Config, Origin},
    edge::{
        self, Limits,
        certificate::{self, CertificateError},
    },
    gateway::{Gateway, pairing::Pairing},
    meter::Meter,
    router,
    store::{Store, StoreError},
};

/// A Lab that is ready to serve.
pub struct App {
    /// What it remembers.
    pub store: Store,
    /// How the end of keys and devices becomes known.
    pub revocations: Revocations,
    /// The address that bridges sign over.
    pub origin: Origin,
    /// The test CA that clients must be given; `None` when the certificate comes from files.
    pub ca_pem: Option<String>,
    /// Who may use the model API, and where its records go.
    pub meter: Meter,
    gateway: Arc<Gateway>,
    tls: Arc<rustls::ServerConfig>,
    limits: Limits,
    router: Router,
}

/// Why a Lab cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl App {
    /// Opens and migrates the store, reads or makes the certificate, and joins the parts. `bound` is where the caller listens: a
    /// Lab without a public address is known by its port.
    ///
    /// # Errors
    /// [`BuildError`] says what is missing and what to do.
    pub async fn build(config: &Config, bound: SocketAddr) -> Result<Self, BuildError> {
        let origin = config.origin(bound);
        let identity = certificate::load(&config.tls, &config.data_dir, origin.host())?;
        let store = Store::open(&config.database).await?;
        store.migrate().await?;
        let revocations = Revocations::follow(store.clone()).await?;
        let meter = Meter::start(store.clone(), revocations.clone());
        let pairing = Pairing::new(store.clone(), origin.clone(), config.pairing);
        let gateway = Gateway::new(store.clone(), origin.clone(), config.resume_window);
        let proxy = Arc::new(Proxy::new(Arc::new(meter.clone()), Arc::clone(&gateway)));
        let router = router::routes(origin.clone(), pairing, &gateway, proxy);
        let (ca_pem, tls) = (identity.ca_pem, identity.tls);
        Ok(Self { store, revocations, origin, ca_pem, meter, gateway, tls, limits: config.limits, router })
    }
}

/// Serves until `shutdown`: stop accepting, let what runs finish, end the links, write the last records, close the store.
///
/// # Errors
/// When the store cannot be closed in order.
pub async fn serve(app: App, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), StoreError> {
    let App { store, revocations, meter, gateway, tls, limits, router, .. } = app;
    let following = tokio::spawn(Arc::clone(&gateway).follow_revocations(revocations.watch()));
    let stopping = async {
        shutdown.await;
        gateway.drain();
    };
    edge::serve(listener, tls, router, limits, stopping).await;
    gateway.close();
    following.abort();
    meter.flush().await;
    drop((meter, revocations));
    store.close().await
}
