//! `postern connect`: what a person runs on a laptop. It starts the port forward through the person's own `aws` and its
//! session-manager-plugin, waits until the gateway answers, runs psql or whatever else, and keeps the forward up meanwhile.
//!
//! No key and no token is seen here: `aws` has them. Nothing of this needs Linux, but for the death signal in [`hold`].
//!
//! Who runs below it: [`hold`] keeps `aws` and the plugin in a session of their own, where the terminal's Ctrl-C doesn't reach them, and ends
//! them whatever becomes of this process; the person's command stays in the terminal's foreground, so Ctrl-C is its own.

mod awscli;
mod bastion;
mod command;
mod forward;
pub(super) mod hold;
mod password;
mod print;
mod probe;
mod session;
mod trouble;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::Args;

use awscli::Aws;
use bastion::Bastion;
use forward::{Forward, Plan};
use print::Place;

/// The document of AWS's own that forwards to any port.
const DOCUMENT: &str = "AWS-StartPortForwardingSession";

/// Where the gateway listens, if nothing else is said.
const REMOTE_PORT: u16 = 5_432;

/// Exit status if the command isn't there (POSIX, "Shell & Utilities", 2.8.2).
const NOT_FOUND: u8 = 127;

/// Connect through Session Manager, or prove who you are.
#[derive(Debug, Args)]
pub(super) struct Connect {
    /// Target of the gateway; may be left out if it has only one
    #[arg(value_name = "TARGET", env = "POSTERN_CONNECT_TARGET")]
    target: Option<String>,
    /// Database user
    #[arg(long, value_name = "NAME", env = "PGUSER")]
    user: Option<String>,
    /// Database; the user's name if it isn't given
    #[arg(long, value_name = "NAME", env = "PGDATABASE")]
    database: Option<String>,
    /// Profile of the AWS CLI
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// Region of the bastion, or whose STS the gateway is to ask
    #[arg(long, value_name = "REGION", env = "AWS_REGION")]
    region: Option<String>,
    /// Instance that the gateway runs on
    #[arg(
        long,
        value_name = "ID",
        env = "POSTERN_CONNECT_BASTION",
        conflicts_with = "tag"
    )]
    bastion: Option<String>,
    /// Tag by which a running instance is found; of several, the one that was started last and is known to Session Manager
    #[arg(
        long,
        value_name = "KEY=VALUE",
        env = "POSTERN_CONNECT_TAG",
        default_value = "postern=bastion"
    )]
    tag: String,
    /// Session document
    #[arg(long, value_name = "NAME", env = "POSTERN_CONNECT_DOCUMENT", default_value = DOCUMENT)]
    document: String,
    /// The gateway's port on its host; 5432 with AWS's own document, with another only if given, since that may pin one
    #[arg(long, value_name = "PORT", env = "POSTERN_CONNECT_REMOTE_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    remote_port: Option<u16>,
    /// Port on this computer; a free one if it isn't given
    #[arg(long, value_name = "PORT", env = "POSTERN_CONNECT_LOCAL_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    local_port: Option<u16>,
    /// How long to wait until the gateway answers
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    wait: Duration,
    /// Run nothing: print the lines to run and a section for pg_service.conf, and stay until Ctrl-C
    #[arg(long, conflicts_with_all = ["exec", "print_password"])]
    print: bool,
    /// Run this instead of psql, with PGHOST, PGPORT, PGUSER and PGDATABASE set; takes the rest of the line
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true, conflicts_with = "print_password")]
    exec: Vec<OsString>,
    /// Print a password that proves who you are, for PGPASSWORD, and nothing else
    #[arg(long, requires = "gateway", requires = "region")]
    print_password: bool,
    /// Name of the gateway, as its configuration has it (identity.sts.gateway)
    #[arg(long, value_name = "NAME", requires = "print_password")]
    gateway: Option<String>,
}

impl Connect {
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        if let (true, Some(gateway), Some(region)) = (self.print_password, &self.gateway, &self.region) {
            password::print(gateway, region)?;
            return Ok(ExitCode::SUCCESS);
        }
        let command = match (self.print, self.exec.is_empty()) {
            (true, _) => None,
            (false, true) => Some(vec![OsString::from("psql")]),
            (false, false) => Some(without_dashes(&self.exec)),
        };
        let plan = self.plan()?;
        if let Some(program) = command.as_ref().and_then(|command| command.first())
            && !awscli::is_in_path(program)
        {
            eprint(&format!(
                "{} isn't there to be run; install it, or use --print (or --exec with another program)",
                program.display()
            ));
            return Ok(ExitCode::from(NOT_FOUND));
        }
        let place = self.place(plan.local_port)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let code = runtime.block_on(command::run(Forward::new(plan)?, &place, command.as_deref()))?;
        Ok(ExitCode::from(code))
    }

    /// How the forward is to be, once all that can be known without asking AWS is right.
    fn plan(&self) -> anyhow::Result<Plan> {
        let aws = Aws::find(self.profile.as_deref(), self.region.as_deref())?;
        let bastion = match &self.bastion {
            Some(id) => Bastion::named(id)?,
            None => Bastion::tagged(&self.tag)?,
        };
        let by_document = || (self.document == DOCUMENT).then_some(REMOTE_PORT);
        Ok(Plan {
            aws,
            bastion,
            document: self.document.clone(),
            remote_port: self.remote_port.or_else(by_document),
            local_port: forward::local_port(self.local_port)?,
            wait: self.wait,
        })
    }

    /// Where clients connect, and as whom.
    fn place(&self, port: u16) -> anyhow::Result<Place> {
        for (what, text) in [
            ("a target", &self.target),
            ("a database", &self.database),
            ("a user", &self.user),
        ] {
            let text = text.as_deref().unwrap_or("-");
            if text.is_empty() || text.chars().any(char::is_control) {
                bail!("{text:?} can't be the name of {what}");
            }
        }
        let target = self.target.as_deref();
        ensure!(
            target.is_none_or(|name| name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))),
            "{target:?} can't be the name of a target: those have letters, digits, '-', '_' and '.'"
        );
        Ok(Place::new(
            port,
            target,
            self.database.as_deref(),
            self.user.as_deref(),
        ))
    }
}

/// The command after `--exec`, or after `--exec --`.
fn without_dashes(words: &[OsString]) -> Vec<OsString> {
    match words {
        [dashes, command @ ..] if dashes == "--" && !command.is_empty() => command.to_vec(),
        _ => words.to_vec(),
    }
}

/// Says something to whoever sits at the terminal, if it is still there.
fn eprint(text: &str) {
    let _ = writeln!(std::io::stderr(), "postern: {text}");
}
