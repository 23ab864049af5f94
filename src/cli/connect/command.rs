//! What is run while the forward is up, and which signal is whose.
//!
//! | signal | while a command runs | else |
//! |---|---|---|
//! | SIGINT, SIGQUIT | the command's: the terminal sends it to both, and psql cancels its query | ends all |
//! | SIGTERM, SIGHUP | handed on to the command, then all ends | ends all |

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::timeout;

use super::eprint;
use super::forward::Forward;
use super::print::{MISLEADING, Place};
use super::session::in_foreground;

/// How long a command may take to end once it is told to.
const GRACE: Duration = Duration::from_secs(5);

/// Brings the forward up, and runs the command, or prints the lines and stays. The exit status is the command's, or 128 and the signal that has ended it, or this.
pub(super) async fn run(
    mut forward: Forward,
    place: &Place,
    command: Option<&[OsString]>,
) -> anyhow::Result<u8> {
    let mut signals = Signals::new()?;
    let up = tokio::select! {
        up = forward.up() => up.map_err(anyhow::Error::from).map(|()| None),
        signal = signals.next() => Ok(Some(signal)),
    };
    let code = match (up, command) {
        (Err(error), _) => Err(error),
        (Ok(Some(signal)), _) => Ok(code_of(signal)),
        (Ok(None), None) => print(&mut forward, place, &mut signals).await,
        (Ok(None), Some(command)) => follow(&mut forward, place, command, &mut signals).await,
    };
    forward.end().await;
    code
}

async fn print(forward: &mut Forward, place: &Place, signals: &mut Signals) -> anyhow::Result<u8> {
    std::io::stdout()
        .write_all(place.lines().as_bytes())
        .context("cannot write to standard output")?;
    eprint(&format!(
        "the forward is at {} until Ctrl-C; it is begun again when it is cut",
        place.address()
    ));
    let signal = tokio::select! {
        never = forward.keep() => match never {},
        signal = signals.next() => signal,
    };
    // Ctrl-C is the way to end this, not a failure.
    Ok(if signal == Signal::INT { 0 } else { code_of(signal) })
}

async fn follow(
    forward: &mut Forward,
    place: &Place,
    command: &[OsString],
    signals: &mut Signals,
) -> anyhow::Result<u8> {
    let mut run = in_foreground(forward.postern(), command);
    for name in MISLEADING {
        run.env_remove(name);
    }
    let mut child = run
        .envs(place.variables())
        .spawn()
        .context("cannot start the command")?;
    let signal = {
        let mut keep = std::pin::pin!(forward.keep());
        loop {
            tokio::select! {
                status = child.wait() => return Ok(code(status?)),
                never = &mut keep => match never {},
                signal = signals.next() => if !matches!(signal, Signal::INT | Signal::QUIT) { break signal },
            }
        }
    };
    hand_on(&mut child, signal).await?;
    Ok(code_of(signal))
}

/// Ends the command, by this signal if it listens to it.
async fn hand_on(child: &mut Child, signal: Signal) -> anyhow::Result<()> {
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
    if timeout(GRACE, child.wait()).await.is_err() {
        child.kill().await?;
    }
    Ok(())
}

/// As a shell has it: 128 and the number of the signal that has ended it.
fn code(status: ExitStatus) -> u8 {
    let by_signal = || status.signal().map(|signal| 128 + signal);
    let code = status.code().or_else(by_signal);
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)
}

/// Those that end things.
struct Signals {
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}
