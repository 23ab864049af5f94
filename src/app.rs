//! Everything wired together: a configuration becomes threads, and they run until they are drained.
//!
//! One data thread serves clients. The control thread, which is the one that calls [`run`], has the AWS credentials, the
//! login governors, HTTP and the signals; a data thread waits for it only when it opens a server connection.

pub mod discovery;
mod reload;
mod start;

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs,
};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admin::http::{self, Health, Pages};
use crate::audit::writer::Writer;
use crate::audit::{Audit, writer};
use crate::aws::credentials::{CredentialCache, Load, Observer};
use crate::aws::ssm::Sessions;
use crate::aws::sts::{NotVouched, Sts};
use crate::config::{Config, Origin};
use crate::discovery::{Found, Search};
use crate::gateway::{Asked, Asker, Current, ErrorKind, Failing, Readiness, Shard, Shared, Shutdown};
use crate::identity;
use crate::identity::ssm::Unattributed;
use crate::identity::sts::BadProof;
use crate::metrics::Metrics;
use crate::upstream::Services;
use crate::upstream::gate::Gates;
use crate::upstream::tokens::Tokens;
use discovery::{Explorer, FIRST_LOOK_WITHIN, searches, tell_discovered};
use reload::{Reloader, Running};

pub use start::{Checked, StartCheck, Started};

/// File descriptors for listeners, runtimes, logs, AWS calls and cancel requests.
const OTHER_FILES: usize = 256;

/// Runs the gateway until a signal ends it and its clients are gone. `origin`: where the configuration can be read again; `check`: what looks
/// at everything once, after the start.
pub fn run(config: Config, origin: Option<Origin>, check: StartCheck) -> anyhow::Result<()> {
    let control = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .context("cannot start the control thread")?;
    control.block_on(supervise(config, origin, check))
}

async fn supervise(written: Config, origin: Option<Origin>, check: StartCheck) -> anyhow::Result<()> {
    no_core_dumps();
    if written.identity.sources.contains(&identity::Source::Trust) {
        warn!(
            "identity.sources contains \"trust\": whoever reaches a listening port is let in without being asked who they are"
        );
    }
    let metrics = Arc::new(Metrics::new().context("cannot register the metrics")?);
    let (credentials, keep_fresh) = CredentialCache::new(Arc::new(CredentialObserver(metrics.clone())));
    tokio::spawn(keep_fresh);
    let (wanted, mut found) = explore(&written, &credentials, &metrics).await;
    let (mut config, remarks) = written.with_found(&found.borrow_and_update());
    for remark in &remarks {
        warn!("{remark}");
    }
    tell_discovered(&[], &written, &config);
    raise_file_limit(&mut config);
    begin_at_zero(&metrics, &config);
    let gates = Arc::new(Gates::new());
    gates.watch_over(config.targets.iter());
    let asked = asked(&config, &credentials).context("AWS can't be asked who somebody is")?;
    let tokens = Arc::new(Tokens::new(credentials.clone(), metrics.clone()));
    let services = Services {
        tokens: tokens.clone(),
        gates: gates.clone(),
        metrics: metrics.clone(),
    };
    let (audit, writer) = match &config.audit {
        Some(audit) => {
            let (audit, writer) = writer::start(audit, config.limits.max_clients, metrics.clone())?;
            (audit, Some(writer))
        }
        None => (Audit::off(metrics.clone()), None),
    };
    let (current, changes) = watch::channel(Current::of(&config));
    let (reloads, asked_to_reload) = mpsc::channel(1);
    let reloader = Reloader {
        origin: origin.map(Arc::new),
        metrics: metrics.clone(),
        running: Running::of(&config),
        written,
        wanted,
        found,
        remarks,
        current,
        gates: gates.clone(),
        reopen: writer.as_ref().map(Writer::reopening),
    };
    let (ends, asked_to_end) = mpsc::channel(2);
    let hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(reloader.run(hangup, asked_to_reload));

    let (shutdown, told) = watch::channel(Shutdown::No);
    let (readiness, ready) = watch::channel(Readiness::default());
    let admin = match config.admin {
        Some(address) => Some(
            TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address} (admin.http)"))?,
        ),
        None => None,
    };
    let limits = changes.clone();
    let started = Started {
        config: config.clone(),
        services: services.clone(),
        credentials,
        readiness: ready.clone(),
    };
    let (bound, listening) = tokio::sync::oneshot::channel();
    let data = Data {
        config,
        metrics: metrics.clone(),
        services,
        audit,
        asked,
        changes,
        reloads,
        ends,
        told: told.clone(),
        readiness,
    };
    let data = thread::Builder::new()
        .name("postern-data".to_owned())
        .spawn(move || data.run(bound))
        .context("cannot start the data thread")?;
    listening
        .await
        .context("the data thread ended before it listened")??;
    let checked = Arc::new(OnceLock::new());
    spawn_local(start::look(check, started, metrics.clone(), checked.clone()));
    if let Some(listener) = admin {
        let health = Box::new(move || health(&ready.borrow(), *told.borrow(), checked.get()));
        tokio::spawn(http::serve(
            listener,
            Arc::new(Pages {
                metrics,
                gates,
                tokens,
                health,
            }),
        ));
    }
    tell_systemd(NotifyState::Ready);
    info!("listening");

    let (ended, end) = tokio::sync::oneshot::channel();
    let joined = thread::spawn(move || {
        let result = data.join();
        let _ = ended.send(());
        result
    });
    tokio::select! {
        result = wait_for_end(&shutdown, asked_to_end, limits) => result?,
        _ = end => {}
    }
    let ended = tokio::task::spawn_blocking(move || joined.join()).await?;
    if let Some(writer) = writer {
        tokio::task::spawn_blocking(move || writer.finish()).await?;
    }
    ended
        .and_then(|data| data)
        .map_err(|_| anyhow::anyhow!("the data thread panicked"))?;
    info!("ended");
    Ok(())
}

/// Begins to look for targets, and waits for the first look for a while. Where to say what is wanted, and what was found.
async fn explore(
    config: &Config,
    credentials: &CredentialCache,
    metrics: &Arc<Metrics>,
) -> (watch::Sender<Vec<Search>>, watch::Receiver<Found>) {
    let searches = searches(config);
    let (wanted, to_look_for) = watch::channel(searches.clone());
    let (finds, mut found) = watch::channel(Found::default());
    let explorer = Explorer {
        credentials: credentials.clone(),
        metrics: metrics.clone(),
        wanted: to_look_for,
        found: finds,
    };
    tokio::spawn(explorer.run());
    let is_done = |found: &Found| searches.iter().all(|search| found.is_asked(search));
    // Whoever comes before it is done is told so.
    let _ = timeout(FIRST_LOOK_WITHIN, found.wait_for(is_done)).await;
    (wanted, found)
}

/// What of AWS is asked who somebody is.
fn asked(config: &Config, credentials: &CredentialCache) -> io::Result<Asked> {
    let sts = config.identity.sts.as_ref();
    let region = config.identity.ssm.region.as_ref();
    let sessions = region.map(|region| Sessions::new(region.clone(), credentials.clone()));
    Ok(Asked {
        sts: sts.map(Sts::new).transpose()?.map(Arc::new),
        sessions: sessions.transpose()?.map(Arc::new),
    })
}

/// Returns when the process is to end without further patience, told by a signal or at the console.
async fn wait_for_end(
    shutdown: &watch::Sender<Shutdown>,
    mut asked: mpsc::Receiver<Shutdown>,
    limits: watch::Receiver<Current>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let how = tokio::select! {
        _ = terminate.recv() => Shutdown::Drain,
        _ = interrupt.recv() => Shutdown::Drain,
        Some(how) = asked.recv() => how,
    };
    tell_systemd(NotifyState::Stopping);
    if how == Shutdown::Drain {
        let drain_timeout = limits.borrow().limits.drain_timeout;
        info!(timeout = ?drain_timeout, "draining: new clients are refused, transactions may end; a second signal ends them");
        shutdown.send_replace(Shutdown::Drain);
        let at_once = async { while asked.recv().await.is_some_and(|how| how != Shutdown::Now) {} };
        tokio::select! {
            _ = terminate.recv() => {},
            _ = interrupt.recv() => {},
            () = at_once => {},
            () = tokio::time::sleep(drain_timeout) => {},
            () = shutdown.closed() => return Ok(()),
        }
    }
    info!("ending the clients that are left");
    shutdown.send_replace(Shutdown::Now);
    Ok(())
}

/// What the data thread takes with it.
struct Data {
    config: Config,
    metrics: Arc<Metrics>,
    services: Services,
    audit: Audit,
    asked: Asked,
    changes: watch::Receiver<Current>,
    reloads: mpsc::Sender<Asker>,
    ends: mpsc::Sender<Shutdown>,
    told: watch::Receiver<Shutdown>,
    readiness: watch::Sender<Readiness>,
}

impl Data {
    fn run(self, bound: tokio::sync::oneshot::Sender<io::Result<()>>) {
        let runtime = match Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
        {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = bound.send(Err(error));
                return;
            }
        };
        runtime.block_on(async move {
            let Self {
                metrics,
                audit,
                asked,
                reloads,
                ends,
                ..
            } = self;
            let shared = Shared::new(metrics, audit, asked, reloads, ends);
            let shared = Arc::new(shared);
            let listeners = match Shard::listen(&self.config.listen) {
                Ok(listeners) => listeners,
                Err(error) => {
                    let _ = bound.send(Err(error));
                    return;
                }
            };
            let _ = bound.send(Ok(()));
            Shard::new(shared, self.config.identity, self.changes, self.services)
                .run(listeners, self.told, self.readiness)
                .await;
        });
        runtime.shutdown_timeout(Duration::from_millis(100));
    }
}

fn health(readiness: &Readiness, shutdown: Shutdown, checked: Option<&Checked>) -> Health {
    let reason = match (shutdown, readiness.settled, readiness.usable) {
        (Shutdown::Drain | Shutdown::Now, ..) => "going down".to_owned(),
        (_, false, _) => "the first server connections are still being opened".to_owned(),
        (_, true, true) => String::new(),
        (_, true, false) => match &*readiness.failing {
            [] => "a target can't be reached, or isn't known where it is; see the log".to_owned(),
            [Failing { pool, error }, more @ ..] => format!("{pool}: {error}{}", others(more.len())),
        },
    };
    Health {
        started: checked.is_some(),
        ready: reason.is_empty(),
        reason,
        report: checked
            .map_or("the checks are not done yet", |checked| &checked.report)
            .to_owned(),
    }
}

fn others(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!("; and {more} more; see the log"),
    }
}

/// Series that exist from the start can be alerted on.
fn begin_at_zero(metrics: &Metrics, config: &Config) {
    metrics.client.limit.set(config.limits.max_clients as i64);
    metrics.discovery.absent.set(config.absent.len() as i64);
    for kind in ErrorKind::ALL {
        metrics.client.errors.with_label_values(&[kind.label()]);
    }
    for source in &config.identity.sources {
        metrics.client.logins.with_label_values(&[source.name()]);
    }
    if config.identity.sources.contains(&identity::Source::Ssm) {
        for outcome in Unattributed::LABELS.iter().chain(&["ok"]) {
            metrics.client.attributions.with_label_values(&[outcome]);
        }
    }
    if config.identity.sources.contains(&identity::Source::Sts) {
        for outcome in BadProof::LABELS.iter().chain(&NotVouched::LABELS).chain(&["ok"]) {
            metrics.client.proofs.with_label_values(&[outcome]);
        }
    }
    for load in Load::ALL {
        metrics.iam.credential_loads.with_label_values(&[load.label()]);
    }
}

/// Gives up all capabilities of the thread that calls this, and of those that it will start: whoever reads what clients send must
/// not have them. What listens on a port that only root may have keeps what that takes (capabilities(7), `CAP_NET_BIND_SERVICE`).
pub fn drop_capabilities(config: &Config) -> io::Result<()> {
    let addresses = config.listen.iter().chain(&config.admin);
    let is_privileged = addresses
        .into_iter()
        .any(|address| (1..1_024).contains(&address.port()));
    let kept = if is_privileged {
        capabilities(None)?.permitted & CapabilitySet::NET_BIND_SERVICE
    } else {
        CapabilitySet::empty()
    };
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, sets)?)
}

/// A core would hold tokens and keys.
fn no_core_dumps() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        warn!(%error, "core dumps could not be switched off; one would hold tokens");
    }
}

/// Raises the soft limit of open files to the hard one. If that isn't enough, fewer clients are let in: without a
/// file descriptor left, credentials couldn't be renewed either.
fn raise_file_limit(config: &mut Config) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let others = files_beside_clients(config);
    let Some(room) = current.map(|current| {
        usize::try_from(current)
            .unwrap_or(usize::MAX)
            .saturating_sub(others)
    }) else {
        return;
    };
    let wanted = config.limits.max_clients;
    if room < wanted {
        config.limits.max_clients = room.max(1);
        warn!(
            limit = current,
            needed = wanted.saturating_add(others),
            max_clients = config.limits.max_clients,
            "the limit of open files is too low for listen.max_clients and the pools, so fewer clients are let in: raise LimitNOFILE of the service"
        );
    }
}

/// File descriptors that are wanted for all else than clients.
pub fn files_beside_clients(config: &Config) -> usize {
    let pools = config.targets.iter().flat_map(|target| target.pools());
    let servers = pools.fold(0usize, |sum, (_, _, pool)| sum.saturating_add(pool.size));
    servers.saturating_add(OTHER_FILES)
}

fn tell_systemd(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(%error, "systemd could not be told");
    }
}

struct CredentialObserver(Arc<Metrics>);

impl Observer for CredentialObserver {
    fn loaded(&self, load: Load, expires_at: Option<SystemTime>) {
        self.0.iam.loaded(load, expires_at);
    }
}
