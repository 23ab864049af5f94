//! `postern token`.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::time::timeout;

use super::ConfigFile;
use crate::app::discovery::look_once;
use crate::aws::credentials::{CredentialCache, Load, Observer};
use crate::config::{Config, Target};
use crate::ids::DbUser;
use crate::metrics::Metrics;
use crate::upstream::tokens::Tokens;

/// How long the credentials may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Mint an IAM token.
#[derive(Debug, Args)]
pub(super) struct Token {
    #[command(flatten)]
    file: ConfigFile,
    /// Target of the configuration; may be left out if there is only one
    #[arg(long, value_name = "NAME")]
    target: Option<String>,
    /// Database user to mint it for
    #[arg(long, value_name = "NAME")]
    user: String,
}

impl Token {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let config = self.file.load()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let token = runtime.block_on(async {
            let (mut credentials, keep_fresh) = CredentialCache::new(Arc::new(Nobody));
            tokio::spawn(keep_fresh);
            let mut config = config;
            if !config.discoveries.is_empty() {
                timeout(PATIENCE, credentials.loaded()).await?;
                let (found, _) = look_once(&config, &credentials.keys(SystemTime::now())?).await;
                (config, _) = config.with_found(&found);
            }
            let target = self.target(&config)?;
            let tokens = Tokens::new(credentials, Arc::new(Metrics::new()?));
            anyhow::Ok(
                tokens
                    .get(target, &DbUser::from(self.user.as_str()), PATIENCE)
                    .await?,
            )
        })?;
        writeln!(std::io::stdout(), "{}", token.secret()).context("cannot write to standard output")
    }
}

impl Token {
    fn target<'a>(&self, config: &'a Config) -> anyhow::Result<&'a Arc<Target>> {
        let names: Vec<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
        match (&self.target, config.targets.as_slice(), &*config.absent) {
            (Some(name), targets, absent) => {
                let there = targets.iter().find(|target| target.name.as_str() == name);
                there.with_context(|| match absent.iter().find(|absent| absent.is_called(name)) {
                    Some(absent) => format!("it isn't known where target \"{name}\" is: {}", absent.reason),
                    None => format!("there is no target \"{name}\"; there are: {}", names.join(", ")),
                })
            }
            (None, [only], []) => Ok(only),
            (None, [], [absent]) => bail!(
                "it isn't known where target \"{}\" is: {}",
                absent.name,
                absent.reason
            ),
            (None, ..) => bail!(
                "there is more than one target; choose one with --target: {}",
                names.join(", ")
            ),
        }
    }
}

/// Counts nothing.
pub(super) struct Nobody;

impl Observer for Nobody {
    fn loaded(&self, _: Load, _: Option<SystemTime>) {}
}
