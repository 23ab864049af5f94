//! The worker processes of Session Manager's agent and the sockets that they have, from `/proc`.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::{fs, io};

use procfs::process::{Process, all_processes};
use procfs::{ProcError, ProcResult};
use rustix::io::Errno;

use crate::identity::ssm::{Unattributed, is_session_id};
use crate::policy::Glob;

/// What the agent calls a session's worker (`constants_unix.go` of amazon-ssm-agent).
const NAME: &str = "ssm-session-worker";

/// What the kernel appends to the path of an executable that was replaced: the agent's, while a session goes on.
const DELETED: &str = " (deleted)";

/// Who may write to a file that root has: group and others.
const WRITABLE: u32 = 0o022;

/// A process that calls itself a session worker.
#[derive(Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its process id.
    pub pid: u32,
    /// When it began, in the kernel's ticks: with the id, no other process has the same.
    pub began: u64,
    /// Its command line behind the name.
    arguments: Vec<String>,
}

/// One of a worker's open files that is a socket.
#[derive(Clone, Debug)]
pub struct OpenSocket {
    /// Whose it is.
    pub worker: Rc<Worker>,
    /// The link to it in `/proc`.
    link: PathBuf,
}

/// The processes that call themselves session workers, and the sockets that they have.
#[derive(Debug, Default)]
pub struct Workers {
    by_inode: HashMap<u32, OpenSocket>,
}

impl Workers {
    /// Looks through the processes. One that ends meanwhile isn't there; if files can't be opened for another reason than that,
    /// nobody knows what is.
    pub fn look() -> io::Result<Self> {
        let mut found = Self::default();
        for process in all_processes().map_err(io::Error::other)? {
            let worker = match process.and_then(|process| Worker::of(&process)) {
                Ok(Some(worker)) => Rc::new(worker),
                Ok(None) => continue,
                Err(error) => {
                    has_ended(&error)?;
                    continue;
                }
            };
            let files = match fs::read_dir(worker.file("fd")) {
                Ok(files) => files,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for link in files.filter_map(|file| Some(file.ok()?.path())) {
                if let Some(inode) = inode(&link) {
                    let worker = worker.clone();
                    found.by_inode.insert(inode, OpenSocket { worker, link });
                }
            }
        }
        Ok(found)
    }

    /// The socket with this inode, if a worker has it.
    pub fn socket(&self, inode: u32) -> Option<&OpenSocket> {
        self.by_inode.get(&inode)
    }
}

impl OpenSocket {
    /// Whether it still is the same socket of the same process.
    pub fn is_still(&self, its_inode: u32) -> bool {
        let began = i32::try_from(self.worker.pid)
            .ok()
            .and_then(|pid| Process::new(pid).ok()?.stat().ok())
            .map(|stat| stat.starttime);
        inode(&self.link) == Some(its_inode) && began == Some(self.worker.began)
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

/// The inode of the socket that a link in `/proc/PID/fd` leads to.
fn inode(link: &Path) -> Option<u32> {
    let target = fs::read_link(link).ok()?;
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

impl Worker {
    /// The process, if it is root's in every respect and calls itself a worker. Of what others run nothing more is read: it may be
    /// made to take long.
    fn of(process: &Process) -> ProcResult<Option<Self>> {
        let status = process.status()?;
        if [status.ruid, status.euid, status.suid, status.fuid] != [0; 4] {
            return Ok(None);
        }
        let mut arguments = process.cmdline()?;
        if arguments.is_empty() || arguments.remove(0).rsplit('/').next() != Some(NAME) {
            return Ok(None);
        }
        Ok(Some(Self {
            pid: process.pid().unsigned_abs(),
            began: process.stat()?.starttime,
            arguments,
        }))
    }

    /// The session that it serves, if it is the agent's: its executable is one of `executables`, belongs to root, and only root may
    /// write to it.
    pub fn session(&self, executables: &[Glob]) -> Result<&str, Unattributed> {
        let link = self.file("exe");
        let path = fs::read_link(&link).map_err(|_| Unattributed::Gone)?;
        let shown = path.to_string_lossy();
        let path = shown.strip_suffix(DELETED).unwrap_or(&shown);
        let is_deleted = path.len() < shown.len();
        // Of the file that runs, also if another has its path by now.
        let file = fs::metadata(&link).map_err(|_| Unattributed::Gone)?;
        // A process may see other files by the same names.
        let is_here = is_deleted
            || fs::metadata(path).is_ok_and(|here| (here.dev(), here.ino()) == (file.dev(), file.ino()));
        let is_agents = executables.iter().any(|glob| glob.matches(path))
            && is_here
            && file.uid() == 0
            && file.mode() & WRITABLE == 0;
        if !is_agents {
            return Err(Unattributed::Executable {
                path: path.to_owned(),
            });
        }
        match self.arguments.as_slice() {
            [session] if is_session_id(session) => Ok(session),
            _ => Err(Unattributed::SessionId),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}
