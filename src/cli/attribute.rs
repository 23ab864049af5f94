//! `postern attribute`.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail};
use clap::Args;
use rustix::fs::{AtFlags, CWD, Mode, Uid, chmod, chownat};
use rustix::io::Errno;
use rustix::process::umask;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Log, file};
use crate::peer::helper::{self, Agent};
use crate::policy::Glob;
use crate::telemetry;

/// Say which session of Session Manager connections come through.
#[derive(Debug, Args)]
pub(super) struct Attribute {
    /// Where to listen: identity.ssm.socket of the gateway's configuration
    #[arg(long, value_name = "PATH", default_value = "/run/postern/attribute.sock")]
    socket: PathBuf,
    /// The user that the gateway runs as, by number or by a name of /etc/passwd; nobody else is answered
    #[arg(long, value_name = "USER", value_parser = uid_of)]
    uid: u32,
    /// Executable of the agent's session workers; may be given more than once, `*` and `?` as in rules
    #[arg(long, value_name = "PATH", default_values = [
        "/usr/bin/ssm-session-worker",
        "/snap/amazon-ssm-agent/*/ssm-session-worker",
    ])]
    worker: Vec<String>,
    /// The agent's directory
    #[arg(long, value_name = "PATH", default_value = "/var/lib/amazon/ssm")]
    state: PathBuf,
    /// `error`, `warn`, `info` or `debug`
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: String,
}

impl Attribute {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let listener = self.listen()?;
        // Before there is another thread: each has capabilities of its own.
        helper::drop_privileges().context("cannot give up what this process needs not do")?;
        let log = Log {
            format: file::LogFormat::Text,
            level: self.log.clone(),
        };
        let _guard = telemetry::start(&log).map_err(anyhow::Error::msg)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())?;
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            let agent = Agent {
                executables: self.worker.iter().map(|text| Glob::new(text)).collect(),
                directory: self.state,
            };
            tracing::info!(socket = %self.socket.display(), uid = self.uid, "listening");
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                ended = helper::serve(listener, self.uid, agent) => ended.context("cannot ask the kernel about sockets"),
                _ = terminate.recv() => Ok(()),
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        })
    }

    /// Where the agent's workers are looked for.
    pub(super) fn workers(&self) -> impl Iterator<Item = &str> {
        self.worker.iter().map(String::as_str)
    }

    /// The agent's directory.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Takes the place of a socket that an earlier process has left, and lets only the gateway's user connect.
    fn listen(&self) -> anyhow::Result<UnixListener> {
        let shown = self.socket.display();
        let directory = self.socket.parent().unwrap_or_else(|| Path::new("/"));
        let about = fs::metadata(directory).with_context(|| {
            format!(
                "cannot look at {}; make it first, root's, mode 0755",
                directory.display()
            )
        })?;
        if about.uid() != 0 || about.mode() & 0o022 != 0 {
            bail!(
                "others than root may put files into {}, and so take the place of {shown}: give it to root, mode 0755",
                directory.display()
            );
        }
        match fs::symlink_metadata(&self.socket) {
            Ok(found) if !found.file_type().is_socket() => bail!("{shown} is there already and is no socket"),
            Ok(_) => fs::remove_file(&self.socket).with_context(|| format!("cannot replace {shown}"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot look at {shown}")),
        }
        umask(Mode::from_raw_mode(0o177));
        let listener =
            UnixListener::bind(&self.socket).with_context(|| format!("cannot listen on {shown}"))?;
        listener.set_nonblocking(true)?;
        let uid = Some(Uid::from_raw(self.uid));
        match chownat(CWD, &self.socket, uid, None, AtFlags::SYMLINK_NOFOLLOW) {
            // Without CAP_CHOWN, the group that it is run with has to do: others of that may connect, and are turned away.
            Err(Errno::PERM) => chmod(&self.socket, Mode::from_raw_mode(0o660)),
            given => given,
        }
        .with_context(|| format!("cannot give {shown} to user {}", self.uid))?;
        Ok(listener)
    }
}

/// The number of a user who is given by number or by name. Users of services are in this file; whatever else knows users would have
/// code of others run here.
fn uid_of(user: &str) -> Result<u32, String> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    let users = fs::read_to_string(PASSWD).map_err(|error| format!("cannot read {PASSWD}: {error}"))?;
    uid_in(&users, user).ok_or_else(|| format!("there is no such user in {PASSWD}"))
}

fn uid_in(users: &str, name: &str) -> Option<u32> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name))
            .then(|| fields.nth(1))
            .flatten()?
            .parse()
            .ok()
    })
}

/// Where users are.
const PASSWD: &str = "/etc/passwd";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_number_or_a_name() {
        let users = "root:x:0:0:root:/root:/bin/sh\n#postern:x:7:\npostern:x:987:986::/:/bin/false\nbad:x:\n";
        assert_eq!(uid_in(users, "postern"), Some(987));
        assert_eq!(uid_in(users, "root"), Some(0));
        for nobody in ["poster", "post", "bad", "x", ""] {
            assert_eq!(uid_in(users, nobody), None, "{nobody}");
        }
        assert_eq!(uid_of("12"), Ok(12));
        assert_eq!(uid_of("root"), Ok(0));
        assert!(uid_of("-1").is_err());
    }
}
