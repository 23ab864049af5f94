//! A run of `aws` in a session of its own, below `postern hold`, and what it says.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, getpid, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::hold::GRACE;
use super::print::HOST;

/// What is kept of each stream: the end.
const KEPT_BYTES: usize = 256 * 1024;

/// Where the plugin listens (its variable; older ones know none and take `localhost`).
const LISTENS: &str = "SSM_PLUGIN_LOCAL_HOST";

/// One that runs until it is asked to end, or by itself.
#[derive(Debug)]
pub(super) struct Session {
    holder: Child,
    group: Option<Pid>,
    /// Kept open: the holder ends when it is closed.
    pipe: Option<ChildStdin>,
    out: Stream,
    error: Stream,
}

impl Session {
    pub(super) fn start(postern: &Path, command: &[OsString]) -> io::Result<Self> {
        let mut holder = Command::new(postern)
            .args(["hold", "session", "--"])
            .args(command)
            .env(LISTENS, HOST)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(Self {
            group: holder
                .id()
                .and_then(|id| i32::try_from(id).ok())
                .and_then(Pid::from_raw),
            pipe: holder.stdin.take(),
            out: Stream::keep(holder.stdout.take()),
            error: Stream::keep(holder.stderr.take()),
            holder,
        })
    }

    /// Waits until it has ended: what it has said on standard output, and the errors.
    pub(super) async fn ended(&mut self) -> (String, String) {
        let _ = self.holder.wait().await;
        if let Some(group) = self.group.take() {
            // Nobody is left in it, unless somebody has killed the holder.
            let _ = kill_process_group(group, Signal::KILL);
        }
        (self.out.end().await, self.error.end().await)
    }

    /// What it has said until now.
    pub(super) fn said(&self) -> String {
        format!("{}\n{}", self.out.text(), self.error.text())
    }

    /// Ends it, in order if that doesn't take too long.
    pub(super) async fn end(&mut self) {
        self.pipe = None;
        if timeout(GRACE * 2, self.holder.wait()).await.is_err()
            && let Some(group) = self.group
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.ended().await;
    }
}

/// A command in the terminal's foreground that ends with this process.
pub(super) fn in_foreground(postern: &Path, command: &[OsString]) -> Command {
    let mut shim = Command::new(postern);
    shim.args(["hold", "foreground", "--parent"])
        .arg(getpid().as_raw_nonzero().to_string())
        .arg("--")
        .args(command);
    shim
}

/// What comes through a pipe.
#[derive(Debug)]
struct Stream {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn keep(pipe: Option<impl AsyncRead + Unpin + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let reader = pipe.map(|pipe| tokio::spawn(read(pipe, Arc::clone(&text))));
        Self { text, reader }
    }

    fn text(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// All of it: the pipe is closed by whoever writes last.
    async fn end(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = timeout(GRACE, reader).await;
        }
        self.text()
    }
}

async fn read(mut pipe: impl AsyncRead + Unpin, text: Arc<Mutex<Vec<u8>>>) {
    let mut part = [0; 1024];
    while let Ok(length @ 1..) = pipe.read(&mut part).await {
        let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
        text.extend_from_slice(part.get(..length).unwrap_or_default());
        let too_many = text.len().saturating_sub(KEPT_BYTES);
        text.drain(..too_many);
    }
}
