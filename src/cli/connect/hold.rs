//! Processes that end with `postern connect`, whatever it ends by. Internal: `postern hold` is started by it and by nobody else.
//!
//! A session of Session Manager is `aws` and, below it, the plugin. The holder gives them a session (in the sense of setsid(2)) of their own, without a terminal, so a Ctrl-C that
//! is meant for psql isn't theirs. Its standard input is a pipe whose other end only `postern connect` has: once that is closed, be it by `kill -9`, the
//! holder ends them.
//!
//! They are asked by SIGINT: at that the plugin tells Session Manager to terminate the session, at SIGTERM it doesn't, and the session
//! would stay on the bastion until it is idle for too long (session-manager-plugin, `ControlSignals` and `handleControlSignals`). `aws` ignores SIGINT meanwhile and ends after the plugin
//! (awscli, `ignore_user_entered_signals`). Before the plugin tells it prints, and a Go program that prints to a pipe without a reader dies (os/signal, "SIGPIPE"): so what they print
//! goes to the holder, who hands it on as long as there is somebody.

use std::ffi::OsString;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use clap::Subcommand;
use rustix::process::{Pid, Signal, getppid, kill_current_process_group, setsid};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// How long the plugin may take to tell Session Manager; it is one message.
pub(super) const GRACE: Duration = Duration::from_secs(3);

/// How long what was printed last may take to come through.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Run something that ends with the process that has started it.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Hold {
    /// In a session of its own, until standard input is closed
    Session {
        /// What to run
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// In the terminal's foreground
    Foreground {
        /// The process that has started this one
        #[arg(long)]
        parent: i32,
        /// What to run
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

impl Hold {
    pub(in crate::cli) fn execute(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Session { command } => session(&command),
            Self::Foreground { parent, command } => foreground(parent, &command),
        }
    }
}

fn session(command: &[OsString]) -> anyhow::Result<ExitCode> {
    let (program, arguments) = command.split_first().context("nothing to run")?;
    setsid().context("cannot begin a session")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let parent = pipe::Receiver::from_owned_fd(std::io::stdin().as_fd().try_clone_to_owned()?)
            .context("standard input is no pipe")?;
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let relays = [
            tokio::spawn(relay(
                child.stdout.take(),
                std::io::stdout().as_fd().try_clone_to_owned()?,
            )),
            tokio::spawn(relay(
                child.stderr.take(),
                std::io::stderr().as_fd().try_clone_to_owned()?,
            )),
        ];
        tokio::select! {
            _ = child.wait() => {}
            () = closed(parent) => ask(&mut child).await,
            _ = terminate.recv() => ask(&mut child).await,
            _ = interrupt.recv() => ask(&mut child).await,
        }
        for relay in relays {
            // Somebody else may have the pipe: whoever outlives `aws`, and is killed now.
            let _ = tokio::time::timeout(LAST_WORDS, relay).await;
        }
        // Whatever is left of the group, this process with it.
        kill_current_process_group(Signal::KILL)?;
        anyhow::Ok(ExitCode::SUCCESS)
    })
}

/// Hands on what comes, and takes it still when nobody wants it any more.
async fn relay(from: Option<impl AsyncRead + Unpin>, to: OwnedFd) {
    let (Some(mut from), Ok(to)) = (from, pipe::Sender::from_owned_fd(to)) else {
        return;
    };
    let mut to = Some(to);
    let mut part = [0; 1024];
    while let Ok(length @ 1..) = from.read(&mut part).await {
        if let Some(pipe) = &mut to
            && pipe
                .write_all(part.get(..length).unwrap_or_default())
                .await
                .is_err()
        {
            to = None;
        }
    }
}

async fn closed(mut pipe: pipe::Receiver) {
    let mut nothing = [0; 16];
    while let Ok(1..) = pipe.read(&mut nothing).await {}
}

async fn ask(child: &mut Child) {
    let _ = kill_current_process_group(Signal::INT);
    let _ = tokio::time::timeout(GRACE, child.wait()).await;
}

/// Becomes the command. Where there is such a thing, the kernel ends it with its parent (prctl(2), PR_SET_PDEATHSIG, which stays through execve(2)).
fn foreground(parent: i32, command: &[OsString]) -> anyhow::Result<ExitCode> {
    let (program, arguments) = command.split_first().context("nothing to run")?;
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    if getppid() != Pid::from_raw(parent) {
        return Ok(ExitCode::FAILURE);
    }
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}
