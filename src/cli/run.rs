//! `postern run`.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Args;

use super::{ConfigFile, check};
use crate::config::{Config, ConfigError, file};
use crate::policy::Recorded;
use crate::{app, telemetry};

/// Run the gateway: from a configuration file, or for one target from the command line alone.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    file: ConfigFile,
    /// Serve this endpoint without a configuration file, with everything else at its default
    #[arg(long, value_name = "HOST[:PORT]", requires_all = ["database", "user", "identity"], conflicts_with = "config")]
    target: Option<String>,
    /// Database that clients may ask for; may be repeated
    #[arg(long, value_name = "NAME", requires = "target")]
    database: Vec<String>,
    /// Database user that clients may ask for; may be repeated
    #[arg(long, value_name = "NAME", requires = "target")]
    user: Vec<String>,
    /// How clients prove who they are; "trust" lets in whoever reaches the port
    #[arg(long, value_name = "SOURCE", requires = "target", value_parser = ["trust"])]
    identity: Option<String>,
    /// Address to listen on; may be repeated
    #[arg(long, value_name = "ADDRESS:PORT", requires = "target")]
    listen: Vec<SocketAddr>,
}

impl Run {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let (origin, config) = match &self.target {
            Some(endpoint) => (None, self.without_file(endpoint)?),
            None => {
                let (origin, config) = self.file.open()?;
                (Some(origin), config)
            }
        };
        // Before there is another thread: each has capabilities of its own.
        app::drop_capabilities(&config).context("cannot give up capabilities")?;
        let _guard = telemetry::start(&config.log).map_err(anyhow::Error::msg)?;
        app::run(config, origin, check::at_start)
    }

    fn without_file(&self, endpoint: &str) -> Result<Config, ConfigError> {
        let name = endpoint.split(['.', ':']).next().unwrap_or_default().to_owned();
        let mut listen = file::Listen::default();
        if !self.listen.is_empty() {
            listen.addresses.clone_from(&self.listen);
        }
        Config::from_file(&file::File {
            listen,
            admin: file::Admin::default(),
            tls: None,
            identity: file::Identity {
                sources: self.identity.iter().cloned().collect(),
                scram: file::Scram::default(),
                ssm: file::Ssm::default(),
                sts: file::Sts::default(),
            },
            rules: vec![file::Rule {
                principals: vec!["trust:".to_owned()],
                accounts: None,
                permission_sets: None,
                documents: None,
                targets: vec![name.clone()],
                databases: vec!["*".to_owned()],
                users: vec!["*".to_owned()],
                console: None,
                hours: None,
                timezone: None,
                max_clients: None,
                max_clients_per_session: None,
                max_duration: None,
                read_only: false,
                mode: None,
                statements: Recorded::No,
            }],
            targets: vec![file::Target {
                name,
                endpoint: Some(endpoint.to_owned()),
                discover: None,
                listen: Vec::new(),
                dial_address: None,
                region: None,
                tls_ca_file: None,
                databases: self.database.clone(),
                users: self.user.clone(),
                pool: file::Pool::default(),
                pools: Vec::new(),
                iam: file::Iam::default(),
                timeouts: file::Timeouts::default(),
            }],
            log: file::Log::default(),
            audit: None,
        })
    }
}
