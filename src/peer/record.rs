//! The file that Session Manager's agent keeps about a session while it lives.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::identity::ssm::{Record, Unattributed};

/// From the directory of an instance to the files of its sessions (`docmanager.go` of amazon-ssm-agent).
const CURRENT: &str = "document/state/current";

/// The largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads what is kept about `session`, which is the name of a file, under the agent's `directory` (`/var/lib/amazon/ssm`), which has
/// one of its own for each instance id that the host has had.
pub fn read(directory: &Path, session: &str) -> Result<Record, Unattributed> {
    let instances =
        fs::read_dir(directory).map_err(|error| bad(format!("{}: {error}", directory.display())))?;
    for instance in instances.filter_map(Result::ok) {
        let path = instance.path().join(CURRENT).join(session);
        match open(&path) {
            Ok(file) => return Record::parse(&checked(file)?),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(bad(format!("{}: {error}", path.display()))),
        }
    }
    Err(Unattributed::NoRecord)
}

/// Not through a symbolic link, and without waiting for whoever may be at the other end of a pipe.
fn open(path: &PathBuf) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// The text of a file that root alone may have written.
fn checked(file: File) -> Result<Vec<u8>, Unattributed> {
    let about = file.metadata().map_err(|error| bad(error.to_string()))?;
    if !about.is_file() || about.uid() != 0 || about.mode() & 0o022 != 0 {
        return Err(bad("somebody else than root may have written it".to_owned()));
    }
    let mut text = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut text)
        .map_err(|error| bad(error.to_string()))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(bad("it is larger than 1 MiB".to_owned()));
    }
    Ok(text)
}

fn bad(reason: String) -> Unattributed {
    Unattributed::BadRecord { reason }
}
