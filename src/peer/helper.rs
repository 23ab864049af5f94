//! `postern attribute`: answers, for one user, which session of Session Manager a connection came through. It has the two
//! capabilities that this takes and no other, reads nothing that a client has sent, and has no network.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::Duration;
use tracing::{debug, warn};

use super::record;
use super::socket::Kernel;
use super::worker::Workers;
use super::{Answer, Connection, MAX_LINE_BYTES};
use crate::identity::ssm::{Facts, Record, Unattributed};
use crate::policy::Glob;

/// Questions that one look answers. More have to wait for the next: the first aren't answered before the last.
const MAX_WAITING: usize = 64;

/// Connections at a time: one for each data thread of the gateway, and of one that takes its place. More wait to be accepted.
const MAX_CONNECTIONS: usize = 1_024;

/// After an accept that failed for lack of something.
const PAUSE: Duration = Duration::from_millis(100);

/// Where Session Manager's agent has what.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its workers' executables.
    pub executables: Vec<Glob>,
    /// The directory in which it keeps its state.
    pub directory: PathBuf,
}

/// A question and where its answer is awaited.
type Asked = (Connection, oneshot::Sender<Answer>);

/// Gives up everything that the process may do but to look at other processes (`CAP_SYS_PTRACE`) and to read
/// files (`CAP_DAC_READ_SEARCH`).
pub fn drop_privileges() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    let files = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: files,
        maximum: files,
    };
    setrlimit(Resource::Nofile, raised)?;
    let kept = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// Answers on `listener` for as long as it is polled, and only to user `uid`.
pub async fn serve(listener: UnixListener, uid: u32, agent: Agent) -> io::Result<()> {
    let kernel = Kernel::open()?;
    let (questions, asked) = mpsc::channel(MAX_WAITING);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    spawn_local(look_up(kernel, Rc::new(agent), asked));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return Ok(());
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a question");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == uid => {
                let questions = questions.clone();
                spawn_local(async move {
                    let _place = place;
                    if let Err(error) = answer(stream, questions).await {
                        debug!(%error, "a connection of the gateway's has ended");
                    }
                });
            }
            Ok(peer) => warn!(uid = peer.uid(), "a process of another user was turned away"),
            Err(error) => warn!(%error, "a process of nobody knows whom was turned away"),
        }
    }
}

/// Answers in the order of the questions, until there are no more.
async fn answer(stream: UnixStream, questions: mpsc::Sender<Asked>) -> io::Result<()> {
    let (lines, mut answers) = stream.into_split();
    let (waits, mut awaited) = mpsc::channel(MAX_WAITING);
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let hears = async {
        let mut lines = BufReader::new(lines);
        let mut line = Vec::new();
        loop {
            line.clear();
            let most = MAX_LINE_BYTES as u64;
            if (&mut lines).take(most).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let connection = serde_json::from_slice(&line)?;
            let (answer, answered) = oneshot::channel();
            questions.send((connection, answer)).await.map_err(|_| gone())?;
            waits.send(answered).await.map_err(|_| gone())?;
        }
    };
    let answers = async {
        let mut lines = Vec::new();
        while let Some(mut answered) = awaited.recv().await {
            let answer = match answered.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Closed) => return Err(gone()),
                Err(TryRecvError::Empty) => {
                    answers.write_all(&lines).await?;
                    lines.clear();
                    answered.await.map_err(|_| gone())?
                }
            };
            serde_json::to_writer(&mut lines, &answer)?;
            lines.push(b'\n');
            if awaited.is_empty() {
                answers.write_all(&lines).await?;
                lines.clear();
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = hears => ended,
        ended = answers => ended,
    }
}

/// Looks up what is asked. All questions that have come by the time that it looks are answered by one look at the processes.
async fn look_up(mut kernel: Kernel, agent: Rc<Agent>, mut asked: mpsc::Receiver<Asked>) {
    let (mut workers, mut batch) = (Workers::default(), Vec::new());
    while asked.recv_many(&mut batch, MAX_WAITING).await > 0 {
        let connections: Vec<_> = batch.iter().map(|(connection, _)| *connection).collect();
        let owners: Vec<_> = connections
            .iter()
            .map(|connection| kernel.dialler_of(*connection))
            .collect();
        let of_root = owners.iter().filter_map(|owner| match owner {
            Ok(Some(owner)) if owner.uid == 0 => Some(owner.inode),
            _ => None,
        });
        let of_root: Vec<_> = of_root.collect();
        // Whoever isn't root can't have processes looked through.
        let looked = if of_root.is_empty() {
            Ok(())
        } else {
            workers.look(&of_root)
        };
        let mut known = Known::default();
        let found: Vec<Answer> = owners
            .iter()
            .map(|owner| match (owner, &looked) {
                (Ok(Some(owner)), _) if owner.uid != 0 => Err(Unattributed::NotRoot { uid: owner.uid }),
                (Ok(Some(owner)), Ok(())) => known.of(&workers, owner.inode, &agent),
                (Ok(Some(_)), Err(error)) => Err(no_helper("the processes can't be looked through", error)),
                (Ok(None), _) => Err(Unattributed::Gone),
                (Err(error), _) => Err(no_helper("the kernel doesn't say whose the connection is", error)),
            })
            .collect();
        // Who has a socket of that number now has had it when the kernel was asked: numbers count up, and come again after 2^32
        // (`get_next_ino` in Linux's `fs/inode.c`). But who is no worker now may have been one.
        for (((connection, answer), found), owner) in batch.drain(..).zip(found).zip(owners) {
            let found = found.map_err(|why| match (owner, kernel.dialler_of(connection)) {
                (Ok(Some(owner)), Ok(Some(still))) if owner == still => why,
                (Ok(Some(_)), _) => Unattributed::Gone,
                _ => why,
            });
            match &found {
                Ok(facts) => debug!(session = facts.session, pid = facts.pid, ?connection, "found"),
                Err(reason) => debug!(%reason, ?connection, "not found"),
            }
            let _ = answer.send(found);
        }
    }
}

fn no_helper(what: &str, error: &io::Error) -> Unattributed {
    Unattributed::NoHelper {
        reason: format!("{what}: {error}"),
    }
}

/// What was found out about workers by one look.
#[derive(Debug, Default)]
struct Known(HashMap<u32, (String, Result<Record, Unattributed>)>);

impl Known {
    fn of(&mut self, workers: &Workers, inode: u32, agent: &Agent) -> Answer {
        let Some(socket) = workers.socket(inode) else {
            return Err(if workers.others_have(inode) {
                Unattributed::NotAWorker
            } else {
                Unattributed::NoHelper {
                    reason: "no process that can be seen has the connection; it must see all of the host's"
                        .to_owned(),
                }
            });
        };
        let worker = &socket.worker;
        let (session, record) = match self.0.get(&worker.pid()) {
            Some(known) => known.clone(),
            None => {
                let read = |session: &str| record::read(&agent.directory, session);
                let known = worker.session_and_record(&agent.executables, read)?;
                self.0.insert(worker.pid(), known.clone());
                known
            }
        };
        if !socket.is_still(inode) {
            return Err(Unattributed::Gone);
        }
        Ok(Facts {
            session,
            pid: worker.pid(),
            record,
        })
    }
}
