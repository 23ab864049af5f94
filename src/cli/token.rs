//! `postern token`.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;

use super::ConfigFile;
use crate::aws::credentials::{CredentialCache, Load, Observer};
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
        let names: Vec<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
        let target = match (&self.target, config.targets.as_slice()) {
            (Some(name), targets) => targets
                .iter()
                .find(|target| target.name.as_str() == name)
                .with_context(|| format!("there is no target \"{name}\"; there are: {}", names.join(", ")))?,
            (None, [only]) => only,
            (None, _) => bail!(
                "there is more than one target; choose one with --target: {}",
                names.join(", ")
            ),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let token = runtime.block_on(async {
            let (credentials, keep_fresh) = CredentialCache::new(Arc::new(Nobody));
            tokio::spawn(keep_fresh);
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

/// Counts nothing.
pub(super) struct Nobody;

impl Observer for Nobody {
    fn loaded(&self, _: Load, _: Option<SystemTime>) {}
}
