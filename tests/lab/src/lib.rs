//! A stand-in for RDS with IAM logins and for the AWS APIs, that Postern's tests and demo run against.
//!
//! [`Lab::start`] gives a running one: a real PostgreSQL, a login front before it that checks tokens as RDS does, and an
//! HTTP server with the instance metadata service, STS, RDS and SSM. What is wrong is refused; what may go wrong can be
//! commanded ([`Lab::faults`], [`Lab::imds`]); every login attempt is recorded ([`Lab::logins`]). All of it is gone when
//! the [`Lab`] is dropped.
//!
//! It shares no code with the gateway. [`agent`] stands in for Session Manager's agent, [`laptop`] for the AWS
//! CLI and its plugin. IAM policies it doesn't know: every key of its account may log in as every user.
//!
//! Reading path: `front.rs` → `front/login.rs` → `token.rs` → `sigv4.rs`; `aws.rs` for the other half.

pub mod agent;
mod aws;
mod clock;
mod config;
mod faults;
mod front;
mod keys;
pub mod laptop;
mod logins;
mod pam;
mod postgres;
mod sigv4;
mod tls;
mod token;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::runtime::{Builder, Runtime};

pub use aws::{AwsFault, Cluster, ImageModel, Imds, Instance, RdsModel, SsmSession};
pub use config::{Database, LabConfig, User};
pub use faults::{FaultSet, Faults, Latency, LoginFault, Throttle};
pub use keys::{ACCOUNT, INSTANCE_ID, Key, ROLE};
pub use logins::{LoginAttempt, Outcome, TokenFacts, count, max_logins_in_any_second};
pub use postgres::{Postgres, SUPERUSER};
pub use sigv4::uri_encode;
pub use tls::{Certificate, KeyType};
pub use token::{Refusal, TokenParams};

use aws::{AwsState, lock};
use clock::Clock;
use keys::KeyRing;
use logins::{Gauge, LoginLog};
use tls::Tls;
use token::Endpoint;

/// A running stand-in. Dropping it ends everything that belongs to it.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    database: String,
    front: SocketAddr,
    aws: SocketAddr,
    files: PathBuf,
    runtime: Option<Runtime>,
}

/// What the tasks of a lab have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    clock: Clock,
    keys: KeyRing,
    endpoint: Endpoint,
    faults: Faults,
    logins: LoginLog,
    postgres: Arc<Postgres>,
    tls: Tls,
    aws: AwsState,
    /// Connections to the front, in whatever state.
    sockets: Gauge,
    /// Those of them that are logged in.
    relays: Gauge,
    cancels: AtomicUsize,
    front: SocketAddr,
    authentication_timeout: Duration,
}

impl Shared {
    fn count_cancel(&self) {
        self.cancels.fetch_add(1, Ordering::Relaxed);
    }

    fn token_params(&self, user: &str) -> anyhow::Result<TokenParams> {
        let key = self.keys.current()?;
        Ok(TokenParams {
            host: self.endpoint.names.first().cloned().unwrap_or_default(),
            port: self.endpoint.port,
            user: user.to_owned(),
            region: self.endpoint.region.clone(),
            service: "rds-db".to_owned(),
            access_key_id: key.access_key_id,
            secret: key.secret,
            session_token: key.session_token,
            signed_at: self.clock.now(),
            expires: 900,
            tamper: None,
        })
    }
}

impl Lab {
    /// Starts a lab and waits until all of it works. Blocks for less than a second, the first time for some.
    ///
    /// # Errors
    /// When there is no PostgreSQL to be found (set `PGBIN`), or a port is taken.
    pub fn start(config: LabConfig) -> anyhow::Result<Self> {
        let (front, front_address) = listen(config.front)?;
        let (aws, aws_address) = listen(config.aws)?;
        let postgres = Postgres::start(&config.postgres())?;
        config.populate(&postgres)?;
        let rds = RdsModel::for_endpoint(&config.endpoint, config.endpoint_port);
        let mut names = vec![config.endpoint.to_ascii_lowercase()];
        names.extend(rds.names().into_iter().filter(|name| *name != config.endpoint));
        let clock = Clock::default();
        let shared = Arc::new(Shared {
            keys: KeyRing::new(clock.now(), config.credentials_lifetime)?,
            clock,
            tls: Tls::new(&names, config.key_type)?,
            endpoint: Endpoint {
                names,
                port: config.endpoint_port,
                region: config.region,
            },
            faults: Faults::new(config.faults, config.seed),
            logins: LoginLog::default(),
            postgres: Arc::new(postgres),
            aws: AwsState::new(rds),
            sockets: Gauge::default(),
            relays: Gauge::default(),
            cancels: AtomicUsize::new(0),
            front: front_address,
            authentication_timeout: config.authentication_timeout,
        });
        let files = shared.postgres.files();
        fs::write(files.join("ca.pem"), &shared.tls.ca_pem)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(config.threads)
            .thread_name("postern-lab")
            .enable_all()
            .build()?;
        {
            let _entered = runtime.enter();
            runtime.spawn(front::run(
                tokio::net::TcpListener::from_std(front)?,
                Arc::clone(&shared),
            ));
            runtime.spawn(aws::run(
                tokio::net::TcpListener::from_std(aws)?,
                Arc::clone(&shared),
            ));
        }
        let database = config
            .databases
            .first()
            .map_or_else(|| "postgres".to_owned(), |database| database.name.clone());
        Ok(Self {
            shared,
            database,
            front: front_address,
            aws: aws_address,
            files,
            runtime: Some(runtime),
        })
    }

    /// Environment variables that lead the AWS SDK's default chain here, and away from files of the machine's user.
    /// The region comes from the metadata service, so `AWS_REGION` isn't among them.
    #[must_use]
    pub fn env(&self) -> Vec<(String, String)> {
        let url = format!("http://{}", self.aws);
        let absent = |name: &str| self.files.join(name).display().to_string();
        [
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.clone()),
            ("AWS_ENDPOINT_URL_RDS", url.clone()),
            ("AWS_ENDPOINT_URL_STS", url.clone()),
            ("AWS_ENDPOINT_URL_SSM", url),
            ("AWS_CONFIG_FILE", absent("no-aws-config")),
            ("AWS_SHARED_CREDENTIALS_FILE", absent("no-aws-credentials")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// PEM file with the authority that the front's certificate comes from.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.files.join("ca.pem")
    }

    /// A directory of the lab's, for files of a test; removed with the lab.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.files
    }

    /// The name that tokens are signed for.
    #[must_use]
    pub fn endpoint_host(&self) -> &str {
        self.shared.endpoint.names.first().map_or("", String::as_str)
    }

    /// The port that tokens are signed for.
    #[must_use]
    pub fn endpoint_port(&self) -> u16 {
        self.shared.endpoint.port
    }

    /// The region of everything.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.shared.endpoint.region
    }

    /// Where the endpoint is to be reached.
    #[must_use]
    pub const fn dial_address(&self) -> SocketAddr {
        self.front
    }

    /// Where the AWS side and the control interface are to be reached.
    #[must_use]
    pub const fn aws_address(&self) -> SocketAddr {
        self.aws
    }

    /// The server behind the front.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.shared.postgres
    }

    /// Runs SQL as superuser in the first of the configured databases. See [`Postgres::sql`].
    ///
    /// # Errors
    /// What the server answered, as `SQLSTATE: message`.
    pub fn superuser_sql(&self, sql: &str) -> anyhow::Result<String> {
        self.shared.postgres.sql(&self.database, sql)
    }

    /// Commands what goes wrong at logins and in connections.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Commands the metadata service and the role's credentials.
    #[must_use]
    pub fn imds(&self) -> Imds<'_> {
        Imds { shared: &self.shared }
    }

    /// What STS, RDS and SSM do from now on instead of answering.
    pub fn set_api_fault(&self, fault: AwsFault) {
        *lock(&self.shared.aws.fault) = fault;
    }

    /// Changes what the RDS API says.
    pub fn change_rds(&self, change: impl FnOnce(&mut RdsModel)) {
        change(&mut lock(&self.shared.aws.rds));
    }

    /// The sessions that DescribeSessions knows from now on.
    pub fn set_ssm_sessions(&self, sessions: Vec<SsmSession>) {
        *lock(&self.shared.aws.sessions) = sessions;
    }

    /// How often each AWS call came, by its action, or for the metadata service by method and path.
    #[must_use]
    pub fn aws_requests(&self) -> BTreeMap<String, u64> {
        self.shared.aws.requests()
    }

    /// Every login attempt until now, in the order in which their startup messages arrived.
    #[must_use]
    pub fn logins(&self) -> Vec<LoginAttempt> {
        self.shared.logins.all()
    }

    /// How many connections are open at the front, logged in or not.
    #[must_use]
    pub fn open_sockets(&self) -> usize {
        self.shared.sockets.now()
    }

    /// How many logged-in connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.relays.now()
    }

    /// The most logged-in connections that were open at a time.
    #[must_use]
    pub fn peak_connections(&self) -> usize {
        self.shared.relays.peak()
    }

    /// How many CancelRequests came.
    #[must_use]
    pub fn cancel_requests(&self) -> usize {
        self.shared.cancels.load(Ordering::Relaxed)
    }

    /// The time that tokens and credentials are judged by.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.shared.clock.now()
    }

    /// Moves the lab's clock away from the machine's, by seconds that may be negative.
    pub fn set_clock_offset(&self, seconds: i64) {
        self.shared.clock.set_offset(seconds);
    }

    /// Adds a key of another principal: a temporary one, or with no lifetime a permanent one.
    ///
    /// # Errors
    /// When there is no randomness for it.
    pub fn add_key(&self, arn: &str, lifetime: Option<Duration>) -> anyhow::Result<Key> {
        let key = Key::generate(arn, lifetime.map(|lifetime| (self.now(), lifetime)))?;
        self.shared.keys.insert(key.clone());
        Ok(key)
    }

    /// All that makes a good token for this user now. Change what is to be wrong, then mint.
    ///
    /// # Errors
    /// Never while the lab works.
    pub fn token_params(&self, user: &str) -> anyhow::Result<TokenParams> {
        self.shared.token_params(user)
    }

    /// The token that these make. The same as [`TokenParams::mint`].
    #[must_use]
    pub fn mint_token(&self, params: &TokenParams) -> String {
        params.mint()
    }

    /// Checks tokens for a PAM module that asks at this unix socket: `USER NUL TOKEN NUL`, answered by `1` or `0`.
    /// Everybody may connect to it. The attempts are in the login log.
    ///
    /// # Errors
    /// When the socket can't be made.
    pub fn serve_pam(&self, socket: &Path) -> anyhow::Result<()> {
        let runtime = self.runtime.as_ref().context("the lab has ended")?;
        let _entered = runtime.enter();
        runtime.spawn(pam::run(pam::listen(socket)?, Arc::clone(&self.shared)));
        Ok(())
    }

    /// User and group that PostgreSQL runs as, if not as this process's.
    ///
    /// # Errors
    /// When this process is root and there is no user for PostgreSQL.
    pub fn server_user() -> anyhow::Result<Option<(u32, u32)>> {
        postgres::server_user()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        self.shared.postgres.stop();
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).with_context(|| format!("can't listen on {address}"))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}
