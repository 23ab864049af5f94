//! The worker processes of Session Manager's agent and the sockets that they have, from `/proc`.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::rc::Rc;
use std::{fs, io};

use procfs::process::{Process, all_processes};
use procfs::{ProcError, ProcResult};
use rustix::fs::readlinkat;
use rustix::io::Errno;
use rustix::path::DecInt;
use tracing::debug;

use crate::identity::ssm::{Record, Unattributed, is_session_id};
use crate::policy::Glob;

/// What the agent calls a session's worker (`constants_unix.go` of amazon-ssm-agent).
const NAME: &str = "ssm-session-worker";

/// What the kernel keeps of that as the name of its process (`TASK_COMM_LEN`, `linux/sched.h`).
const COMMAND: &[u8] = b"ssm-session-wor\n";

/// What the kernel appends to the path of an executable that was replaced: the agent's, while a session goes on.
const DELETED: &str = " (deleted)";

/// As much of a path is shown.
const MAX_SHOWN: usize = 256;

/// Who may write to a file that root has: group and others.
const WRITABLE: u32 = 0o022;

/// A process that calls itself a session worker.
#[derive(Debug)]
pub struct Worker {
    /// Leads to the same process for as long as it is there, and then to none, whoever has its id.
    process: Process,
    /// The directory of its open files, which does so too.
    files: File,
    /// Its command line behind the name.
    arguments: Vec<String>,
    /// Its session and what the agent's file says of that, once both are known: neither changes.
    known: OnceCell<(String, Record)>,
}

/// One of a worker's open files that is a socket.
#[derive(Clone, Debug)]
pub struct OpenSocket {
    /// Whose it is.
    pub worker: Rc<Worker>,
    /// Its number there.
    file: i32,
}

/// The processes that call themselves session workers, and the sockets that they have.
#[derive(Debug, Default)]
pub struct Workers {
    known: HashMap<i32, Known>,
    /// As far as they were seen; [`OpenSocket::is_still`] tells whether it is still so.
    by_inode: HashMap<u32, OpenSocket>,
    /// Sockets that were looked for and that others have.
    of_others: HashSet<u32>,
}

/// A worker and its open files.
#[derive(Debug)]
struct Known {
    worker: Rc<Worker>,
    /// Their numbers.
    files: HashSet<i32>,
    /// The lowest that isn't among them, or less: the next that it opens has that (open(2)).
    free: i32,
}

impl Workers {
    /// Looks for these sockets: among the files that workers have opened since the last look, as far as that shows quickly, then among all
    /// of theirs, and then among those of all processes. One that ends meanwhile isn't there; if files can't be opened for another reason than that, nobody
    /// knows what is.
    pub fn look(&mut self, inodes: &[u32]) -> io::Result<()> {
        self.of_others.clear();
        self.look_for_new();
        if self.have(inodes) {
            return Ok(());
        }
        self.look_at_known()?;
        if self.have(inodes) {
            return Ok(());
        }
        for process in all_processes().map_err(io::Error::other)? {
            let worker = process.and_then(|process| {
                let is_known = self.known.contains_key(&process.pid());
                if is_known { Ok(None) } else { Worker::of(process) }
            });
            match worker {
                Ok(Some(worker)) => {
                    let mut known = Known {
                        worker: Rc::new(worker),
                        files: HashSet::new(),
                        free: 0,
                    };
                    if self.look_at(&mut known)? {
                        self.known.insert(known.worker.process.pid(), known);
                    }
                }
                Ok(None) => {}
                Err(error) => has_ended(&error)?,
            }
        }
        let missing: Vec<_> = inodes
            .iter()
            .copied()
            .filter(|inode| !self.by_inode.contains_key(inode))
            .collect();
        if !missing.is_empty() {
            self.look_at_others(&missing)?;
        }
        Ok(())
    }

    fn have(&self, inodes: &[u32]) -> bool {
        let is_still = |inode: &u32| {
            self.by_inode
                .get(inode)
                .is_some_and(|socket| socket.is_still(*inode))
        };
        inodes.iter().all(is_still)
    }

    /// Looks whether workers that are known have opened files. It may miss some: then nothing is found, and all are looked at.
    fn look_for_new(&mut self) {
        for Known { worker, files, free } in self.known.values_mut() {
            loop {
                while files.contains(free) {
                    *free += 1;
                }
                let Ok(socket) = worker.socket_at(*free) else {
                    break;
                };
                files.insert(*free);
                if let Some(inode) = socket {
                    let (worker, file) = (worker.clone(), *free);
                    self.by_inode.insert(inode, OpenSocket { worker, file });
                }
            }
        }
    }

    /// Looks at all files of the workers that are known; those that have ended are forgotten.
    fn look_at_known(&mut self) -> io::Result<()> {
        self.by_inode.clear();
        for (pid, mut known) in std::mem::take(&mut self.known) {
            if self.look_at(&mut known)? {
                self.known.insert(pid, known);
            }
        }
        Ok(())
    }

    /// Looks who else has these: only who is seen to be another is no worker. Whom one may not look at may be anybody.
    fn look_at_others(&mut self, inodes: &[u32]) -> io::Result<()> {
        for process in all_processes().map_err(io::Error::other)? {
            let Ok(process) = process else { continue };
            if calls_itself_worker(&process).unwrap_or(true) {
                continue;
            }
            let seen = each_file(process.pid(), |_, link| {
                let inode = inode(link)?.filter(|inode| inodes.contains(inode));
                self.of_others.extend(inode);
                Ok(())
            });
            if let Err(error) = seen {
                debug!(pid = process.pid(), %error, "a process can't be looked at");
            }
        }
        Ok(())
    }

    /// Looks at the files of a worker; whether it is still there.
    fn look_at(&mut self, known: &mut Known) -> io::Result<bool> {
        let Known { worker, files, free } = known;
        // Its id may be another's by now, and what that has is none of ours.
        if !calls_itself_worker(&worker.process).unwrap_or(false) {
            return Ok(false);
        }
        files.clear();
        *free = 0;
        each_file(worker.process.pid(), |file, link| {
            files.insert(file);
            if let Some(inode) = inode(link)? {
                let worker = worker.clone();
                self.by_inode.insert(inode, OpenSocket { worker, file });
            }
            Ok(())
        })
    }

    /// Whether a process that doesn't call itself a worker has the socket.
    pub fn others_have(&self, inode: u32) -> bool {
        self.of_others.contains(&inode)
    }

    /// The socket with this inode, if a worker has it.
    pub fn socket(&self, inode: u32) -> Option<&OpenSocket> {
        self.by_inode.get(&inode)
    }
}

impl OpenSocket {
    /// Whether it still is the same socket of the same process.
    pub fn is_still(&self, its_inode: u32) -> bool {
        self.worker
            .socket_at(self.file)
            .is_ok_and(|inode| inode == Some(its_inode))
    }
}

/// Whether this is said of a process that has ended, and not of us.
fn has_ended(error: &ProcError) -> io::Result<()> {
    match error {
        ProcError::NotFound(_) => Ok(()),
        // `ESRCH`: it ends while it is read.
        ProcError::Io(error, _) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
        error => Err(io::Error::other(error.to_string())),
    }
}

/// Whether the process is still there, by the name of a worker.
fn calls_itself_worker(process: &Process) -> ProcResult<bool> {
    let mut command = Vec::new();
    process.open_relative("comm")?.read_to_end(&mut command)?;
    Ok(command == COMMAND)
}

/// Calls `look` with the number of each open file of a process, and the link that leads to it; whether the process is there.
fn each_file(pid: i32, mut look: impl FnMut(i32, &Path) -> io::Result<()>) -> io::Result<bool> {
    let files = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Ok(files) => files,
        Err(error) if is_gone(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    for link in files {
        let link = match link {
            Ok(link) => link.path(),
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Some(file) = link.file_name().and_then(|name| name.to_str()?.parse().ok()) {
            look(file, &link)?;
        }
    }
    Ok(true)
}

/// Whether this is said of a process or a file that isn't there any more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The inode of the socket that a link in `/proc/PID/fd` leads to, if it leads to one.
fn inode(link: &Path) -> io::Result<Option<u32>> {
    match fs::read_link(link) {
        Ok(target) => Ok(inode_of(&target.to_string_lossy())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same of where it leads.
fn inode_of(target: &str) -> Option<u32> {
    let number = target.strip_prefix("socket:[")?;
    number.strip_suffix(']')?.parse().ok()
}

impl Worker {
    /// The process, if it is root's in every respect and calls itself a worker. Of what others run nothing more is read: it may be
    /// made to take long.
    fn of(process: Process) -> ProcResult<Option<Self>> {
        if !calls_itself_worker(&process)? {
            return Ok(None);
        }
        let status = process.status()?;
        if [status.ruid, status.euid, status.suid, status.fuid] != [0; 4] {
            return Ok(None);
        }
        let mut arguments = process.cmdline()?;
        if arguments.is_empty() || arguments.remove(0).rsplit('/').next() != Some(NAME) {
            return Ok(None);
        }
        Ok(Some(Self {
            files: process.open_relative("fd")?,
            process,
            arguments,
            known: OnceCell::new(),
        }))
    }

    /// The inode of the socket that it has open by this number, if that is one.
    fn socket_at(&self, file: i32) -> io::Result<Option<u32>> {
        let target = readlinkat(&self.files, DecInt::new(file), Vec::new())?;
        Ok(inode_of(&target.to_string_lossy()))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid().unsigned_abs()
    }

    /// Its session, and what the agent's file says of that, which `read` reads.
    pub fn session_and_record(
        &self,
        executables: &[Glob],
        read: impl FnOnce(&str) -> Result<Record, Unattributed>,
    ) -> Result<(String, Result<Record, Unattributed>), Unattributed> {
        if let Some((session, record)) = self.known.get() {
            return Ok((session.clone(), Ok(record.clone())));
        }
        let session = self.session(executables)?;
        let record = read(session);
        if let Ok(record) = &record
            && record.session == session
            && record.pid == self.pid()
            && !record.owner.is_empty()
        {
            let _ = self.known.set((session.to_owned(), record.clone()));
        }
        Ok((session.to_owned(), record))
    }

    /// The session that it serves, if it is the agent's: its executable is one of `executables`, belongs to root, and only root may
    /// write to it.
    fn session(&self, executables: &[Glob]) -> Result<&str, Unattributed> {
        let path = self.process.exe().map_err(|_| Unattributed::Gone)?;
        let shown = path.to_string_lossy();
        let path = shown.strip_suffix(DELETED).unwrap_or(&shown);
        let is_deleted = path.len() < shown.len();
        // Of the file that runs, also if another has its path by now.
        let file = self
            .process
            .open_relative("exe")
            .map_err(|_| Unattributed::Gone)?;
        let file = file.metadata().map_err(|_| Unattributed::Gone)?;
        // A process may see other files by the same names.
        let is_here = is_deleted
            || fs::metadata(path).is_ok_and(|here| (here.dev(), here.ino()) == (file.dev(), file.ino()));
        let is_agents = executables.iter().any(|glob| glob.matches(path))
            && is_here
            && file.uid() == 0
            && file.mode() & WRITABLE == 0;
        if !is_agents {
            return Err(Unattributed::Executable {
                path: path.chars().take(MAX_SHOWN).collect(),
            });
        }
        match self.arguments.as_slice() {
            [session] if is_session_id(session) => Ok(session),
            _ => Err(Unattributed::SessionId),
        }
    }
}
