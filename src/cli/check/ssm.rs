//! Session Manager: the helper that says which session a connection came through, the agent's directory, and the documents.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser as _;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::timeout;

use super::super::{Cli, Command, attribute::Attribute};
use super::report::{Finding, State};
use crate::config::Ssm;
use crate::identity::ssm::Unattributed;
use crate::peer::Connection;
use crate::peer::client::Helper;
use crate::policy::Glob;

/// How long the helper may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What documents may be called (SSM API Reference, CreateDocument).
const NAME_LENGTHS: std::ops::RangeInclusive<usize> = 3..=128;

/// Documents of AWS's own that give more than a port of this host, by their beginnings.
const NOT_A_PORT: [&str; 6] = [
    "SSM-SessionManagerRunShell",
    "AWS-StartSSHSession",
    "AWS-StartInteractiveCommand",
    "AWS-StartNonInteractiveCommand",
    "AWS-StartPortForwardingSessionToRemoteHost",
    "AWS-StartPortForwardingSessionToSocket",
];

/// All of it.
pub(super) async fn check(ssm: &Ssm) -> Vec<Finding> {
    let (helper, running) = helper(&ssm.socket).await;
    let agent = match (&running, helper.is_in_the_way()) {
        (_, Some(prerequisite)) => Finding::skipped("ssm.agent", "amazon-ssm-agent", &prerequisite),
        (Some(attribute), None) => agent(attribute),
        (None, None) => Finding::ok(
            "ssm.agent",
            "amazon-ssm-agent",
            "the helper's command line isn't to be seen",
        ),
    };
    let documents = ssm.documents.iter().map(document);
    [helper, agent].into_iter().chain(documents).collect()
}

/// Whether the helper listens at `socket`, is root's and answers; and what it was started with.
async fn helper(socket: &Path) -> (Finding, Option<Attribute>) {
    let began = Instant::now();
    let finding = |detail: String| Finding::ok("ssm.helper", socket.display(), detail).since(began);
    let failed = |detail: String, cause: &str| {
        let remedy = "start it as root: postern attribute --uid \"$(id -u postern)\" --socket ".to_owned()
            + &socket.display().to_string();
        (finding(detail).but(State::Failed, cause, remedy), None)
    };
    let about = match fs::symlink_metadata(socket) {
        Ok(about) if about.file_type().is_socket() => about,
        Ok(_) => {
            return failed(
                "no socket".to_owned(),
                "something else has taken the helper's place",
            );
        }
        Err(error) => {
            return failed(
                error.to_string(),
                "`postern attribute`, which looks up sessions, doesn't run, or listens elsewhere than at identity.ssm.socket",
            );
        }
    };
    // Whom it answers is who may connect. What can't give its socket away leaves it to its group (`postern attribute`).
    let (whom, answered, own) = if about.mode() & 0o020 == 0 {
        ("user", about.uid(), rustix::process::geteuid().as_raw())
    } else {
        ("group", about.gid(), rustix::process::getegid().as_raw())
    };
    if answered != own {
        let remedy = if whom == "user" {
            format!("setpriv --reuid {answered} --clear-groups postern check")
        } else {
            "runuser -u postern -- postern check".to_owned()
        };
        let finding = finding("not asked".to_owned()).but(
            State::Warning,
            format!("it answers {whom} {answered} alone, and this is {whom} {own}"),
            format!("run this as the gateway's user: {remedy}"),
        );
        return (finding, None);
    }
    let peer = match timeout(PATIENCE, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => stream.peer_cred(),
        Ok(Err(error)) => return failed(error.to_string(), "nobody listens there any more"),
        Err(_) => return failed("no answer".to_owned(), "it doesn't accept connections"),
    };
    let pid = match peer {
        Ok(peer) if peer.uid() != 0 => {
            return failed(
                format!("user {} listens there", peer.uid()),
                "who listens there isn't root, and could let in anybody: the gateway doesn't ask it",
            );
        }
        Ok(peer) => peer.pid(),
        Err(error) => return failed(error.to_string(), "who listens there can't be told"),
    };
    match timeout(PATIENCE, ask(socket)).await {
        Ok(Ok(Err(Unattributed::NoHelper { reason }))) => failed(reason, "it doesn't answer questions"),
        Ok(Err(reason)) => failed(reason.to_string(), "this host can't dial itself"),
        Err(_) => failed("no answer".to_owned(), "it doesn't answer questions"),
        Ok(Ok(_)) => {
            let shown = pid.map_or_else(String::new, |pid| format!(", process {pid}"));
            (
                finding(format!("root's, and answers{shown}")),
                pid.and_then(started_with),
            )
        }
    }
}

/// Asks the helper whose a connection of this process with itself is. That isn't a session's: any answer will do.
async fn ask(socket: &Path) -> std::io::Result<crate::peer::Answer> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let dialled = TcpStream::connect(listener.local_addr()?).await?;
    let connection = Connection {
        dialler: dialled.local_addr()?,
        listener: dialled.peer_addr()?,
    };
    Ok(Helper::at(socket.to_owned()).ask(connection, false).await)
}

/// The command line of that process, if it is `postern attribute`.
fn started_with(pid: i32) -> Option<Attribute> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = line.strip_suffix(b"\0")?.split(|byte| *byte == 0);
    let words = words.map(|word| String::from_utf8_lossy(word).into_owned());
    match Cli::try_parse_from(words).ok()?.command {
        Command::Attribute(attribute) => Some(attribute),
        _ => None,
    }
}

/// Whether the agent is where the helper looks for it.
fn agent(attribute: &Attribute) -> Finding {
    let state = attribute.state();
    let finding = |detail: String| Finding::ok("ssm.agent", state.display(), detail);
    let is_instance = |name: &str| name.starts_with("i-") || name.starts_with("mi-");
    let instance = match fs::read_dir(state) {
        Ok(entries) => entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .find(|name| is_instance(name)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return finding("there; only root may look into it".to_owned());
        }
        Err(error) => {
            return finding(error.to_string()).but(
                State::Failed,
                "the agent of Session Manager isn't installed, or keeps its files elsewhere (a snap does)",
                "install and start amazon-ssm-agent, or give `postern attribute` its directory with --state",
            );
        }
    };
    let Some(instance) = instance else {
        return finding("empty".to_owned()).but(
            State::Failed,
            "the agent has never registered this host: it isn't running, or the role lacks ssm:UpdateInstanceInformation and ssmmessages:*",
            "systemctl status amazon-ssm-agent; give the role the statements BeManaged and CarrySessions of deploy/terraform/policies/bastion.json.tftpl \
             (the policy AmazonSSMManagedInstanceCore has them, and ssm:GetParameter of everything besides)",
        );
    };
    if !attribute.workers().any(exists) {
        let shown: Vec<&str> = attribute.workers().collect();
        return finding(format!("of {instance}")).but(
            State::Failed,
            format!("there is no session worker at {}", shown.join(", ")),
            "give `postern attribute` the path of the agent's ssm-session-worker with --worker",
        );
    }
    finding(format!("of {instance}"))
}

/// Whether there is a file that `path` fits, in which one directory may be open.
fn exists(path: &str) -> bool {
    let Some((before, _)) = path.split_once(['*', '?']) else {
        return Path::new(path).exists();
    };
    let glob = Glob::new(path);
    let directory = before.rsplit_once('/').map_or("/", |(directory, _)| directory);
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| [entry.path(), entry.path().join(name)])
        .any(|path| path.exists() && glob.matches(&path.to_string_lossy()))
}

/// Whether a session's document can be meant.
fn document(document: &Glob) -> Finding {
    let name = document.to_string();
    let finding = |detail: &str| Finding::ok("ssm.document", &name, detail);
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.:/*?".contains(c);
    if !NAME_LENGTHS.contains(&name.len()) && !document.is_open() || !name.chars().all(is_name) {
        return finding("no document can have this name").but(
            State::Failed,
            "names of documents are 3 to 128 letters, digits, '_', '-' and '.' (CreateDocument), so no session fits it",
            "write the name in identity.ssm.documents as `aws ssm list-documents --filters Key=DocumentType,Values=Session` has it",
        );
    }
    if let Some(wide) = NOT_A_PORT.iter().find(|wide| document.matches(wide)) {
        return finding(&format!("admits {wide}")).but(
            State::Warning,
            format!("{wide} is for more than a port of this host: a shell, a command, or another host"),
            "name the port documents alone in identity.ssm.documents, best one of your own that pins the port",
        );
    }
    finding("could be a port document")
}
