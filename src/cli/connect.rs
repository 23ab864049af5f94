//! `postern connect`.

use std::io::Write as _;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use clap::Args;

use crate::aws::credentials::load;
use crate::aws::sts::prove;
use crate::config::is_region;
use crate::identity::sts::nonce;

/// Prove who you are.
#[derive(Debug, Args)]
pub(super) struct Connect {
    /// Print the password, for PGPASSWORD
    #[arg(long, required = true)]
    print_password: bool,
    /// Name of the gateway, as its configuration has it (identity.sts.gateway)
    #[arg(long, value_name = "NAME")]
    gateway: String,
    /// Region whose STS the gateway is to ask
    #[arg(long, value_name = "REGION", env = "AWS_REGION")]
    region: String,
}

impl Connect {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let is_graphic = self.gateway.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(
            is_graphic && (1..=128).contains(&self.gateway.len()),
            "\"{}\" is no name of a gateway: those are up to 128 printable ASCII characters without spaces",
            self.gateway
        );
        ensure!(
            is_region(&self.region),
            "\"{}\" is not a region; expected one such as \"eu-west-1\"",
            self.region
        );
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let keys = runtime.block_on(load()).map_err(anyhow::Error::msg).context(
            "no AWS credentials could be loaded; if the AWS CLI has some, try: \
                 eval \"$(aws configure export-credentials --format env)\"",
        )?;
        let nonce = nonce().context("this host has no random numbers")?;
        let password = prove(&keys, &self.gateway, &self.region, &nonce, SystemTime::now())?;
        writeln!(std::io::stdout(), "{}", *password).context("cannot write to standard output")
    }
}
