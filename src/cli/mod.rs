//! The command line.

mod attribute;
mod audit;
mod check;
mod config;
mod connect;
mod explain;
mod run;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

/// Exit status of a configuration that can't be used (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// Where the configuration is if nothing else is said.
const DEFAULT_CONFIG: &str = "/etc/postern/postern.toml";

/// PostgreSQL gateway for bastion hosts: pooled connections to RDS and Aurora with IAM tokens that it mints itself.
///
/// People and programs connect to it with any PostgreSQL client, without a password for the database and without a
/// token; it logs in for them with the IAM role of this host and keeps the connections.
#[derive(Debug, Parser)]
#[command(name = "postern", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway in the foreground
    Run(run::Run),
    /// Say for the gateway which session of Session Manager connections come through
    ///
    /// A process of its own, since it takes the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, which the gateway must not
    /// have. It gives up all others at its start.
    Attribute(attribute::Attribute),
    /// Look at audit logs
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Look at everything between this host and a query, and say what is wrong, why, and what to do about it
    ///
    /// Logs in to each endpoint once as each user, and changes nothing. Exit status 0 if nothing has failed, 1 if something has, 78 if the
    /// configuration can't be used.
    Check(check::Check),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Config),
    /// Connect from your own computer: start the port forward, wait until it is through, and run psql or another program
    ///
    /// Takes your own AWS CLI with its session-manager-plugin. The forward is begun again when it is cut, and ends with the program.
    ///
    /// With --print-password, prove to a gateway who you are, by your AWS credentials: for gateways that take "sts", reached by another way than
    /// Session Manager. The password is good for one connection that begins within a minute:
    ///   PGPASSWORD="$(postern connect --print-password --gateway NAME --region REGION)" psql "host=… user=… dbname=…"
    #[command(verbatim_doc_comment)]
    Connect(Box<connect::Connect>),
    #[command(subcommand, hide = true)]
    Hold(connect::hold::Hold),
    /// Mint an IAM token with this host's credentials and print it, for debugging
    ///
    /// The token is a password, good for 15 minutes. Try it with:
    ///   PGPASSWORD="$(postern token --target NAME --user USER)" psql "host=ENDPOINT user=USER dbname=… sslmode=verify-full"
    #[command(verbatim_doc_comment)]
    Token(token::Token),
}

/// Which configuration.
#[derive(Clone, Debug, Args)]
struct ConfigFile {
    /// Configuration file. Any key can be overridden by a variable POSTERN_SECTION__KEY
    #[arg(long, short, value_name = "FILE", env = "POSTERN_CONFIG", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// The command line as it is described, of which manual pages and completions are made.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(run) => run.execute().map(|()| ExitCode::SUCCESS),
        Command::Attribute(attribute) => attribute.execute().map(|()| ExitCode::SUCCESS),
        Command::Audit(audit) => audit.execute().map(|()| ExitCode::SUCCESS),
        Command::Check(check) => check.execute().map(|()| ExitCode::SUCCESS),
        Command::Config(config) => config.execute().map(|()| ExitCode::SUCCESS),
        Command::Connect(connect) => connect.execute(),
        Command::Hold(hold) => hold.execute(),
        Command::Token(token) => token.execute().map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            let wrong_config = error.downcast_ref::<crate::config::ConfigError>().is_some();
            if wrong_config {
                ExitCode::from(EXIT_CONFIG)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the last words of a command go to its terminal"
)]
fn report(error: &anyhow::Error) {
    eprintln!("postern: {error:#}");
}

impl ConfigFile {
    fn open(&self) -> anyhow::Result<(crate::config::Origin, crate::config::Config)> {
        Ok(crate::config::Origin::open(&self.config)?)
    }

    fn load(&self) -> anyhow::Result<crate::config::Config> {
        Ok(self.open()?.1)
    }
}
