//! Puts the Lab together. Everything below takes what it needs as values; only this file knows all of it.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api_proxy::{Proxy, Record, Tuning, Upstream};
use axum::Router;
use futures_util::FutureExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    account::{
        farewell::{self, FarewellError},
        revocation::Revocations,
        sign_in::{SignInError, SignIns},
    },
    api::{self, Api},
    backup,
    config::{Config, Origin},
    edge::{
        self, Limits,
        certificate::{self, CertificateError},
    },
    gateway::{Gateway, pairing::Pairing},
    lab::{
        agent::{self, AgentParts, Approvals, Prompts},
        assistant::{self, Assistant},
        files::{FileError, Files},
        models::{self, Models, Speeds},
        operations::{HeadsError, Keeper, Log},
        runs::{RunError, Runs},
        search::Search,
        tools::reach::{HostPort, Reach, Unreachable},
    },
    meter::{DefaultRates, JournalError, Meter},
    metrics::{Metrics, Observed},
    news::News,
    operator::{Operator, Parts},
    providers::{self, ProviderError},
    router,
    store::{ReadOnly, Store, StoreError},
};

/// The folder, below that of the data, where what requests cost stands until it is in the database.
const JOURNAL: &str = "journal";

/// How often a Lab that stops looks whether something still runs.
const LOOK_EVERY: Duration = Duration::from_millis(20);

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
    /// What was done in people's projects.
    pub log: Log,
    /// The way to models.
    pub models: Models,
    /// Where the operator's listener is, if there is one.
    pub admin_addr: Option<SocketAddr>,
    heads: Keeper,
    runs: Runs,
    gateway: Arc<Gateway>,
    sign_ins: SignIns,
    upstream: Arc<Upstream>,
    operator: Option<(Operator, Parts)>,
    draining: Arc<AtomicBool>,
    tls: Arc<rustls::ServerConfig>,
    limits: Limits,
    config: Config,
    router: Router,
}

/// Why a Lab cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files of projects.
    #[error("cannot use the folder of people's files: {0}")]
    Files(#[from] FileError),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The signed heads of operation logs.
    #[error(transparent)]
    Heads(#[from] HeadsError),
    /// An account that a Lab before this one was deleting.
    #[error(transparent)]
    Farewell(#[from] FarewellError),
    /// The journal of what requests cost.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The cloud providers.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// What runs left behind.
    #[error(transparent)]
    Runs(#[from] RunError),
    /// The way to other servers.
    #[error(transparent)]
    Reach(#[from] Unreachable),
    /// Signing in.
    #[error(transparent)]
    SignIn(#[from] SignInError),
    /// The operator's listener.
    #[error("cannot listen on {address} for [admin]: {source}; is another program there?")]
    Admin {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
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
        let store = Store::of(config).await?;
        let log = Log::new(store.clone());
        let heads = log.keep_heads(&config.audit_heads).await?;
        farewell::finish(&store, &log, &config.blobs).await?;
        store.finish_departures().await?;
        let revocations = Revocations::follow(store.clone()).await?;
        let catalogue = Arc::new(providers::catalogue(&config.providers).map_err(ProviderError::from)?);
        let assistant = match &config.assistant {
            None => None,
            Some(planned) => {
                let (upstream, own) = providers::assistant(planned, &config.providers).await?;
                let (model, prices) = (planned.model.clone(), Arc::clone(&catalogue));
                Some(Assistant::new(assistant::Parts {
                    upstream,
                    catalogue: own,
                    model,
                    store: ReadOnly::of(store.clone()),
                    prices,
                }))
            }
        };
        let channels = providers::open(&config.providers).await?;
        let upstream = Arc::new(providers::upstream(channels, &config.providers, Tuning::default())?);
        let pairing = Pairing::new(store.clone(), origin.clone(), config.pairing);
        let news = News::default();
        let gateway = Gateway::new(store.clone(), origin.clone(), config.resume_window, news.clone());
        let metrics = Metrics::new(Arc::clone(&upstream), Arc::clone(&gateway));
        let (counted, speeds) = (Arc::clone(&metrics), Arc::new(Speeds::default()));
        let timed = Arc::clone(&speeds);
        let (journal, rates) = (config.data_dir.join(JOURNAL), DefaultRates { user: config.rates });
        let on_record = move |record: &Record| {
            counted.observe(record);
            timed.observe(record);
        };
        let meter = Meter::start(store.clone(), revocations.clone(), &journal, rates, on_record).await?;
        let observed = Arc::new(Observed::new(meter.clone(), Arc::clone(&metrics)));
        let proxy = Arc::new(Proxy::new(Arc::clone(&observed), Arc::clone(&gateway), Arc::clone(&upstream), catalogue));
        let parts = models::Parts { proxy: Arc::clone(&proxy), door: observed, gateway: Arc::clone(&gateway), speeds };
        let models = Models::new(parts);
        let files = Files::open(store.clone(), config.blobs.clone()).await?;
        let approvals = Approvals::new(store.clone(), log.clone(), news.clone());
        log.recover().await?;
        // As it is known outside, and as it is bound here.
        let own =
            [Some(HostPort::of_url(origin.as_str())?), Some(bound.into()), config.admin.map(HostPort::from)].into_iter().flatten();
        let reach = Reach::new(config.agents.allow_private.iter().cloned(), own)?;
        let agents = AgentParts {
            store: store.clone(),
            files: files.clone(),
            models: models.clone(),
            log: log.clone(),
            approvals: approvals.clone(),
            reach: reach.clone(),
            prompts: Prompts::default(),
            web_fetch: config.agents.web_fetch,
        };
        let runner = move |writer, order| agent::run(agents.clone(), writer, order).boxed();
        let runs = Runs::open(store.clone(), &config.tails, news.clone(), Box::new(runner)).await?;
        // What the runs asked that a Lab before this one left unfinished is asked no more.
        store.lapse_orphaned_approvals().await?;
        let sign_ins = SignIns::open(config, origin.clone(), store.clone(), revocations.clone()).await?;
        let api = Api::new(api::Parts {
            store: store.clone(),
            revocations: revocations.clone(),
            meter: meter.clone(),
            origin: origin.clone(),
            clock: config.clock.clone(),
            log: log.clone(),
            runs: runs.clone(),
            search: Search::new(store.clone(), files.clone()),
            files,
            blobs: config.blobs.clone(),
            approvals,
            reach,
            models: models.clone(),
            assistant,
            sign_ins: sign_ins.clone(),
            pairing: pairing.clone(),
            gateway: Arc::clone(&gateway),
            news,
        });
        let router = router::routes(origin.clone(), pairing, &gateway, api, proxy);
        let (ca_pem, tls) = (identity.ca_pem, identity.tls);
        let draining = Arc::new(AtomicBool::new(false));
        let operator = match config.admin {
            None => None,
            Some(address) => {
                let bound = Operator::bind(address, Arc::clone(&tls), config.limits).await;
                let operator = bound.map_err(|source| BuildError::Admin { address, source })?;
                let parts = Parts {
                    store: store.clone(),
                    meter: meter.clone(),
                    upstream: Arc::clone(&upstream),
                    gateway: Arc::clone(&gateway),
                    metrics,
                    draining: Arc::clone(&draining),
                };
                Some((operator, parts))
            }
        };
        let admin_addr = operator.as_ref().map(|(operator, _)| operator.addr);
        let limits = config.limits;
        Ok(Self {
            store,
            revocations,
            origin,
            ca_pem,
            meter,
            log,
            models,
            admin_addr,
            heads,
            runs,
            gateway,
            sign_ins,
            upstream,
            operator,
            draining,
            tls,
            limits,
            config: config.clone(),
            router,
        })
    }
}

/// Serves until `shutdown`: stop accepting, let what runs finish, end the links, write the last records, close the store. The
/// operator's listener goes last, so that whoever watches sees all of it.
///
/// # Errors
/// When the store cannot be closed in order.
pub async fn serve(app: App, listener: TcpListener, shutdown: impl Future<Output = ()>) -> Result<(), StoreError> {
    let App {
        store,
        revocations,
        meter,
        heads,
        runs,
        gateway,
        sign_ins,
        upstream,
        operator,
        draining,
        tls,
        limits,
        config,
        router,
        ..
    } = app;
    let ended = CancellationToken::new();
    let following = tokio::spawn(Arc::clone(&gateway).follow_revocations(revocations.watch()));
    let stopping_deleted = tokio::spawn(runs.clone().follow_deletions(revocations.watch()));
    let watching = tokio::spawn(providers::watch(upstream, ended.clone()));
    let copying = tokio::spawn(backup::follow(config, store.clone(), ended.clone()));
    let sweeping = tokio::spawn(sign_ins.sweep(ended.clone()));
    let operating = operator.map(|(operator, parts)| tokio::spawn(operator.serve(parts, ended.clone())));
    let stop_runs = CancellationToken::new();
    let ending = tokio::spawn({
        let (runs, stop) = (runs, stop_runs.clone());
        async move {
            stop.cancelled().await;
            // Half of it is left for telling the watchers.
            runs.shutdown(limits.drain / 2).await;
        }
    });
    let stopping = async {
        shutdown.await;
        draining.store(true, Ordering::Relaxed);
        gateway.drain();
        stop_runs.cancel();
    };
    edge::serve(listener, tls, router, limits, stopping).await;
    // Answers and agents still ask workstations, and tell their watchers how they end.
    let _ = ending.await;
    gateway.close();
    following.abort();
    stopping_deleted.abort();
    // Answers that are paid for are read on after their callers have gone. One that takes longer is in the journal, and is written
    // when the Lab starts again.
    let _ = tokio::time::timeout(limits.drain, all_settled(&meter)).await;
    meter.flush().await;
    heads.finish().await;
    ended.cancel();
    // A part that panicked was reported by the hook, and keeps nobody from closing the store.
    let _ = watching.await;
    let _ = copying.await;
    let _ = sweeping.await;
    if let Some(operating) = operating {
        let _ = operating.await;
    }
    drop((meter, revocations));
    store.close().await
}

/// Waits until no request runs. Nobody is told when one ends: it happens once, and looking costs nothing.
async fn all_settled(meter: &Meter) {
    while meter.load().running > 0 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
