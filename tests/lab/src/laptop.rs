//! A stand-in for what a person has on a laptop, the AWS CLI and its session-manager-plugin, and for EC2 and Session Manager behind them.
//!
//! The executables are this program under their names ([`is_one_of`]). [`Service`] is what they call: it lives in a test's own process, knows instances and
//! documents, has the [`Agent`] start a worker for each session, and can cut sessions or have a call fail.
//!
//! Written from awscli/customizations/sessionmanager.py and from session-manager-plugin (`portsession/muxportforwarding.go`, `sessionutil/*_unix.go`): `aws` starts the
//! session and then the plugin, whose end it waits for, deaf to SIGINT. The plugin listens, prints, and tells Session Manager at SIGINT that the session is over; at
//! SIGTERM it dies without a word.

#![expect(clippy::indexing_slicing, reason = "what isn't in a JSON value reads as null")]

mod cli;
mod http;
mod plugin;

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::agent::{Agent, Session, SessionOptions};

/// Names of the executables.
const NAMES: [&str; 2] = ["aws", "session-manager-plugin"];

/// Where the service is, for both.
pub const SERVICE: &str = "LAB_SESSION_MANAGER";

/// Who starts the sessions.
const OWNER: &str =
    "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_0123456789abcdef/alice@example.com";

/// An instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// When it was started, as EC2 writes it.
    pub launched: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// `running`, `stopped` and so on.
    pub state: String,
    /// Whether Session Manager has a connection with it.
    pub is_connected: bool,
}

impl Instance {
    /// One that runs and has the tag `postern=bastion`.
    pub fn new(id: &str, launched: &str) -> Self {
        Self {
            id: id.to_owned(),
            launched: launched.to_owned(),
            tags: BTreeMap::from([("postern".to_owned(), "bastion".to_owned())]),
            state: "running".to_owned(),
            is_connected: true,
        }
    }
}

/// EC2 and Session Manager.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    agent: Agent,
    instances: Vec<Instance>,
    /// The port that the document `pinned` has.
    pinned: u16,
    fault: Option<(String, String)>,
    sessions: Vec<(Session, Option<TcpStream>, String)>,
    started: usize,
    log: Vec<String>,
}

impl Service {
    /// Listens; sessions are this agent's, and the document `pinned` leads to that port.
    pub fn start(agent: Agent, pinned: u16, instances: Vec<Instance>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let service = Self {
            address: listener.local_addr()?,
            state: Arc::new(Mutex::new(State {
                agent,
                instances,
                pinned,
                fault: None,
                sessions: Vec::new(),
                started: 0,
                log: Vec::new(),
            })),
        };
        let state = Arc::clone(&service.state);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Ok(service)
    }

    /// Puts the executables into a directory.
    pub fn install(directory: &Path, program: &Path) -> anyhow::Result<()> {
        for name in NAMES {
            symlink(program, directory.join(name))?;
        }
        Ok(())
    }

    /// Where it is: the value of [`SERVICE`].
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Has calls of one operation fail with this text, or none.
    pub fn set_fault(&self, fault: Option<(&str, &str)>) {
        self.state().fault = fault.map(|(operation, text)| (operation.to_owned(), text.to_owned()));
    }

    /// Has other instances.
    pub fn set_instances(&self, instances: Vec<Instance>) {
        self.state().instances = instances;
    }

    /// Ends all sessions, as the idle timeout does.
    pub fn cut(&self) {
        let mut state = self.state();
        for (mut session, channel, id) in std::mem::take(&mut state.sessions) {
            session.end();
            if let Some(channel) = channel {
                let _ = channel.shutdown(Shutdown::Both);
            }
            state.log.push(format!("cut {id}"));
        }
    }

    /// How many sessions have a plugin at their other end. One that never gets one, since `aws` was ended before that, goes by itself after some time.
    pub fn open(&self) -> usize {
        let state = self.state();
        let has_plugin = |session: &&(Session, Option<TcpStream>, String)| session.1.is_some();
        state.sessions.iter().filter(has_plugin).count()
    }

    /// What was called, and what became of sessions: `DescribeInstances`, `StartSession i-…`, `terminated …`, `lost …`, `cut …`.
    pub fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.cut();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers one line, and stays if that was a data channel.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    if line.starts_with("POST ") {
        // Whoever asked sees that there is no answer.
        let _ = http::serve(&mut reader, &mut stream, state);
        return;
    }
    let mut lines = reader.lines();
    let request: Value = serde_json::from_str(&line).unwrap_or_default();
    let operation = request["Operation"].as_str().unwrap_or_default().to_owned();
    let answer = answer(&operation, &request, &stream, state)
        .unwrap_or_else(|error| json!({"Error": error.to_string()}));
    if writeln!(stream, "{answer}").is_err() || operation != "OpenDataChannel" {
        return;
    }
    let how = match lines.next() {
        Some(Ok(line)) if line == "TerminateSession" => "terminated",
        _ => "lost",
    };
    let id = request["TokenValue"].as_str().unwrap_or_default();
    let mut state = lock(state);
    if let Some(place) = state.sessions.iter().position(|(_, _, known)| known == id) {
        state.sessions.remove(place);
        state.log.push(format!("{how} {id}"));
    }
}

fn answer(
    operation: &str,
    request: &Value,
    stream: &TcpStream,
    state: &Mutex<State>,
) -> anyhow::Result<Value> {
    let mut state = lock(state);
    let text = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
    if let Some((which, error)) = &state.fault
        && which == operation
    {
        bail!("{error}");
    }
    match operation {
        "DescribeInstances" => {
            state.log.push(operation.to_owned());
            Ok(state.described(&request["Filters"]))
        }
        "StartSession" => {
            state.log.push(format!("{operation} {}", text("Target")));
            state.start(&text("Target"), &text("DocumentName"), &request["Parameters"])
        }
        "OpenDataChannel" => {
            let id = text("TokenValue");
            let session = state.sessions.iter_mut().find(|(_, _, known)| *known == id);
            let (session, channel, _) = session.context("no such session")?;
            *channel = Some(stream.try_clone()?);
            Ok(json!({"Worker": session.address.to_string()}))
        }
        "TerminateSession" => {
            let id = text("SessionId");
            state.sessions.retain(|(_, _, known)| *known != id);
            state.log.push(format!("terminated {id}"));
            Ok(json!({}))
        }
        _ => bail!("no operation {operation}"),
    }
}

impl State {
    /// Ids of the instances that pass all filters, the one that was started last first.
    fn described(&self, filters: &Value) -> Value {
        let passes = |instance: &Instance| {
            filters.as_array().is_some_and(|filters| {
                filters.iter().all(|filter| {
                    let name = filter["Name"].as_str().unwrap_or_default();
                    let value = match name.strip_prefix("tag:") {
                        Some(key) => instance.tags.get(key),
                        None if name == "instance-state-name" => Some(&instance.state),
                        None => None,
                    };
                    let values = filter["Values"].as_array();
                    value.is_some_and(|value| {
                        values.is_some_and(|values| values.iter().any(|one| one == value.as_str()))
                    })
                })
            })
        };
        let mut found: Vec<_> = self
            .instances
            .iter()
            .filter(|instance| passes(instance))
            .collect();
        found.sort_by_key(|instance| std::cmp::Reverse(&instance.launched));
        json!({"Ids": found.iter().map(|instance| &instance.id).collect::<Vec<_>>()})
    }

    fn start(&mut self, target: &str, document: &str, parameters: &Value) -> anyhow::Result<Value> {
        let failed = |code: &str, text: &str| {
            anyhow::anyhow!("An error occurred ({code}) when calling the StartSession operation: {text}")
        };
        if !self
            .instances
            .iter()
            .any(|known| known.id == target && known.state == "running" && known.is_connected)
        {
            return Err(failed(
                "TargetNotConnected",
                &format!("{target} is not connected."),
            ));
        }
        let port = parameters["portNumber"][0].as_str();
        let port = match (document, port) {
            ("AWS-StartPortForwardingSession", Some(port)) => port.parse()?,
            ("AWS-StartPortForwardingSession", None) => 80,
            ("pinned", None) => self.pinned,
            ("pinned", Some(_)) => {
                return Err(failed(
                    "InvalidParameters",
                    "Parameter portNumber is not defined in document pinned.",
                ));
            }
            _ => {
                return Err(failed(
                    "InvalidDocument",
                    &format!("Document with name {document} does not exist."),
                ));
            }
        };
        self.started += 1;
        let id = format!("alice@example.com-{:017x}", self.started);
        let mut options = SessionOptions::new(&id, OWNER);
        options.document = document.to_owned();
        let session = self.agent.start(port, &options)?;
        self.sessions.push((session, None, id.clone()));
        Ok(json!({"SessionId": id, "TokenValue": id, "StreamUrl": "wss://ssmmessages"}))
    }
}

/// Asks the service; the stream stays open for a data channel.
fn call(request: &Value) -> anyhow::Result<(Value, BufReader<TcpStream>)> {
    let address = env::var(SERVICE).with_context(|| format!("{SERVICE} isn't set"))?;
    let mut stream = TcpStream::connect(address)?;
    writeln!(stream, "{request}")?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let answer: Value = serde_json::from_str(&line)?;
    if let Some(error) = answer["Error"].as_str() {
        bail!("{error}");
    }
    Ok((answer, reader))
}

/// Whether this process is to be one of these executables.
pub fn is_one_of() -> bool {
    NAMES.contains(&name().as_str())
}

/// Is that executable.
pub fn run() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if name() == "aws" {
        cli::run(&arguments)
    } else {
        plugin::run(&arguments)
    }
}

fn name() -> String {
    let name = env::args_os().next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
