//! `rockpool serve`: start and stop, top to bottom.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::{EXIT_FAILURE, assemble, process_name};
use crate::api::{self, AppState, Certificate};
use crate::catalog::Catalog;
use crate::config::{Config, Log, LogFormat};
use crate::identity::{Identity, Policy};
use crate::store::{self, Store};
use crate::telemetry::Telemetry;
use crate::worker;

/// Longest wait for what still runs after everything was told to stop: calls into a cluster that does
/// not answer cannot be interrupted.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the files of the certificate are looked at.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(5);
/// Exit code after a second signal.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs the gateway until it is told to stop.
pub(super) fn serve(config: Config) -> ! {
    start_log(&config.log);
    store::limit_memory_arenas();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => store::exit(fail(&format!("no runtime: {error}"))),
    };
    let code = match runtime.block_on(run(config)) {
        Ok(code) => code,
        Err(problem) => fail(&problem),
    };
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    store::exit(code)
}

fn fail(problem: &str) -> u8 {
    tracing::error!("{problem}");
    EXIT_FAILURE
}

fn start_log(log: &Log) {
    // Postgres' notices are for people at a prompt; whoever wants them can still name the target.
    let filter =
        EnvFilter::try_new(format!("tokio_postgres=warn,{}", log.level)).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

async fn run(config: Config) -> Result<u8, String> {
    // Signals from the first moment on: whoever stops a gateway that is starting means it.
    let mut signals = Signals::new()?;
    let hangup = listen(SignalKind::hangup())?;
    let started = tokio::select! {
        started = start(&config) => started?,
        () = signals.next() => return Ok(0),
    };
    let Gateway { listener, metrics_listener, state, stop_serving, stop_working } = started;
    let (services, draining) = (Arc::clone(&state.services), state.draining.clone());
    let poll_interval = Duration::from_secs(config.jobs.poll_interval_s);
    let gather_interval = config.metrics.enabled.then(|| Duration::from_secs(config.metrics.gather_interval_s));
    let work = worker::run(Arc::clone(&services), poll_interval, gather_interval, stop_working.clone());
    let working = tokio::spawn(work);
    tokio::spawn(follow_policy(Arc::clone(&config.policy), hangup, stop_working.clone()));
    if let Some(certificate) = &config.certificate {
        let hangup = listen(SignalKind::hangup())?;
        tokio::spawn(follow_certificate(Arc::clone(certificate), hangup, stop_serving.clone()));
    }
    if let Some(listener) = metrics_listener {
        tokio::spawn(api::serve_metrics(listener, state.clone(), stop_serving.clone()));
    }
    let serving = tokio::spawn(api::serve(listener, state, stop_serving.clone()));

    signals.next().await;
    tracing::info!(
        transfers = services.transfers().running(),
        "stopping: new requests are refused, running ones are finished"
    );
    let limit = Duration::from_secs(config.server.drain_timeout_s);
    draining.cancel();
    stop_working.cancel();
    let drain = async {
        services.finished().await;
        stop_serving.cancel();
        let connections = serving.await.map_err(|panic| format!("the server panicked: {panic}"))?;
        connections.wait().await;
        working.await.map_err(|panic| format!("the worker panicked: {panic}"))
    };
    tokio::select! {
        drained = tokio::time::timeout(limit, drain) => match drained {
            Ok(result) => {
                result?;
                tracing::info!("stopped");
            }
            Err(_) => tracing::warn!(drain_timeout_s = limit.as_secs(), "stopped with transfers still running; other gateways clean up behind them"),
        },
        () = signals.next() => {
            tracing::warn!("stopped at once by a second signal");
            return Ok(EXIT_INTERRUPTED);
        }
    }
    Ok(0)
}

/// Puts changed policy files in force, within a few seconds, or at once after SIGHUP.
async fn follow_policy(policy: Arc<Policy>, mut hangup: Signal, stop: CancellationToken) {
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(policy.reload_interval()) => false,
            _ = hangup.recv() => true,
        };
        let policy = Arc::clone(&policy);
        // Files may be on a file system that has stopped to answer.
        let read = tokio::task::spawn_blocking(move || policy.reload(asked)).await;
        if let Err(panic) = read {
            tracing::error!("the policy could not be read again: {panic}");
        }
    }
}

/// Takes up a changed certificate, within a few seconds, or at once after SIGHUP.
async fn follow_certificate(certificate: Arc<Certificate>, mut hangup: Signal, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(CERTIFICATE_INTERVAL) => {}
            _ = hangup.recv() => {}
        }
        let certificate = Arc::clone(&certificate);
        // Files may be on a file system that has stopped to answer.
        if let Err(panic) = tokio::task::spawn_blocking(move || certificate.reload()).await {
            tracing::error!("the certificate could not be read again: {panic}");
        }
    }
}

/// A gateway that is ready to serve.
struct Gateway {
    listener: TcpListener,
    /// For `/metrics`, if it has an address of its own.
    metrics_listener: Option<TcpListener>,
    state: AppState,
    stop_serving: CancellationToken,
    stop_working: CancellationToken,
}

async fn start(config: &Config) -> Result<Gateway, String> {
    // 1. The catalog, and its schema.
    let catalog = Catalog::new(&config.catalog).map_err(|e| e.to_string())?;
    let applied = catalog.migrate().await.map_err(|e| format!("{e}. Is Postgres running, and does catalog.url name an existing database and a user who may create tables in it?"))?;
    if !applied.is_empty() {
        tracing::info!(?applied, "the schema was brought up to date");
    }
    // 2. The stores: reachable, and with the rights that uploads need. One that is not does not keep the others from
    //    being served.
    let telemetry = Telemetry::new()?;
    let stores: Vec<Arc<dyn Store>> =
        config.stores.values().map(|store| store.build(&config.fetch, &telemetry)).collect();
    let checked = join_all(stores.iter().map(|store| store.check())).await;
    let problems: Vec<String> = checked.into_iter().filter_map(Result::err).collect();
    if problems.len() == stores.iter().filter(|store| store.common().kind != store::Kind::Http).count() {
        return Err(problems.join("; "));
    }
    problems.iter().for_each(|problem| tracing::error!("{problem}; the other stores are served"));
    // 3. The addresses.
    let listen = config.server.listen;
    let listener = bind("server.listen", listen).await?;
    let metrics_listener = match config.metrics.listen.filter(|_| config.metrics.enabled) {
        Some(address) => Some(bind("metrics.listen", address).await?),
        None => None,
    };
    // 4. Everything together.
    let gateway = process_name();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %listen, gateway, stores = ?config.stores.keys().collect::<Vec<_>>(), "serving");
    // Keystone may be started later than its clients, after a power failure for instance.
    if let Identity::Keystone(_) = &*config.identity {
        let identity = Arc::clone(&config.identity);
        tokio::spawn(async move {
            if let Identity::Keystone(keystone) = &*identity
                && let Err(problem) = keystone.probe().await
            {
                tracing::warn!("{problem}; until that changes tokens cannot be validated");
            }
        });
    }
    let policy = Arc::clone(&config.policy);
    policy.warnings().iter().for_each(|warning| tracing::warn!("policy: {warning}"));
    let services = assemble(config, catalog, stores, Arc::clone(&telemetry), gateway);
    let state = AppState {
        services,
        identity: Arc::clone(&config.identity),
        policy,
        settings: Arc::new(config.api()),
        draining: CancellationToken::new(),
        telemetry,
        flood: Arc::new(config.flood()),
    };
    Ok(Gateway {
        listener,
        metrics_listener,
        state,
        stop_serving: CancellationToken::new(),
        stop_working: CancellationToken::new(),
    })
}

async fn bind(option: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|e| format!("{option} {address} cannot be used: {e}"))
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

fn listen(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|e| format!("signals cannot be received: {e}"))
}

impl Signals {
    fn new() -> Result<Self, String> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
