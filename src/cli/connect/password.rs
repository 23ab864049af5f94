//! `postern connect --print-password`: a proof of who somebody is, for gateways that take `sts`.

use std::io::Write as _;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};

use crate::aws::credentials::load;
use crate::aws::sts::prove;
use crate::config::is_region;
use crate::identity::sts::nonce;

/// Prints the password for the gateway of this name.
pub(super) fn print(gateway: &str, region: &str) -> anyhow::Result<()> {
    let is_graphic = gateway.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(
        is_graphic && (1..=128).contains(&gateway.len()),
        "\"{gateway}\" is no name of a gateway: those are up to 128 printable ASCII characters without spaces"
    );
    ensure!(
        is_region(region),
        "\"{region}\" is not a region; expected one such as \"eu-west-1\""
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let keys = runtime.block_on(load()).map_err(anyhow::Error::msg).context(
        "no AWS credentials could be loaded; if the AWS CLI has some, try: \
             eval \"$(aws configure export-credentials --format env)\"",
    )?;
    let nonce = nonce().context("this host has no random numbers")?;
    let password = prove(&keys, gateway, region, &nonce, SystemTime::now())?;
    writeln!(std::io::stdout(), "{}", *password).context("cannot write to standard output")
}
