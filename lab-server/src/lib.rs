//! The Lab: accounts, gateway, store and the edge in front of the model API.
//!
//! `1k4-lab` is a thin program around this library; [`Lab`] is the same for tests and for programs that embed it.

pub mod account;
pub mod admin;
pub mod api;
pub mod app;
pub mod audit;
pub mod backup;
mod calendar;
pub mod check;
pub mod clock;
pub mod config;
mod credits;
pub mod edge;
pub mod error;
pub mod gateway;
pub mod lab;
pub mod meter;
pub mod metrics;
pub mod news;
mod operator;
pub mod providers;
mod random;
pub mod router;
pub mod secret;
pub mod store;
pub mod vault;
pub mod vault_command;
mod web;

use std::net::SocketAddr;

use anyhow::Context;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use config::{Config, Origin};

use account::revocation::Revocations;
use app::App;
use clock::Clock;
use lab::{models::Models, operations::Log};
use store::{Store, StoreError};

/// A Lab that runs inside this process, until [`Lab::shutdown`] or until it is dropped.
#[derive(Debug)]
pub struct Lab {
    /// Where it listens.
    pub addr: SocketAddr,
    /// The address that clients use and bridges sign over.
    pub origin: Origin,
    /// The test CA that clients must trust; `None` when the certificate comes from files.
    pub ca_pem: Option<String>,
    /// Where the operator's listener is, if there is one.
    pub admin_addr: Option<SocketAddr>,
    /// What it remembers.
    pub store: Store,
    /// How keys and devices end.
    pub revocations: Revocations,
    /// What time it is for sessions.
    pub clock: Clock,
    /// What was done in people's projects.
    pub log: Log,
    /// The way to models; `None` once it was shut down.
    pub models: Option<Models>,
    stop: CancellationToken,
    running: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Lab {
    /// Binds, builds and serves.
    ///
    /// # Errors
    /// When the address is taken, or the data folder or the certificate cannot be used.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen).await.with_context(|| format!("cannot listen on {}", config.listen))?;
        let addr = listener.local_addr()?;
        let app = App::build(&config, addr).await?;
        let clock = config.clock.clone();
        let stop = CancellationToken::new();
        let (store, revocations, log) = (app.store.clone(), app.revocations.clone(), app.log.clone());
        let (origin, ca_pem, admin_addr) = (app.origin.clone(), app.ca_pem.clone(), app.admin_addr);
        let models = Some(app.models.clone());
        let running = Some(tokio::spawn(app::serve(app, listener, stop.clone().cancelled_owned())));
        Ok(Self { addr, origin, ca_pem, admin_addr, store, revocations, clock, log, models, stop, running })
    }

    /// Stops accepting, drains and closes the store.
    ///
    /// # Errors
    /// When the store cannot be closed in order, or a part of the Lab panicked.
    pub async fn shutdown(&mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        // What it holds ends with its last holder.
        self.models = None;
        match self.running.take() {
            Some(running) => Ok(running.await??),
            None => Ok(()),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
