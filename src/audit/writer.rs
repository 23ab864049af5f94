//! Who writes the record: a thread that may wait for a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use tracing::{error, info, warn};

use super::chain::Head;
use super::{Audit, Entry, Event, MAX_WAITING_AT_LOGIN, State};
use crate::config;
use crate::metrics::Metrics;

/// The name that stands for standard output, from where journald takes what a service says. The chain begins anew there with each start.
const STDOUT: &str = "-";

/// How every line begins.
const FIRST: &str = "{\"v\":1,\"n\":";

/// Lines that are written at once.
const MAX_AT_ONCE: usize = 1_000;

/// As much of a file's end as is looked at for its last line.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// What comes within this time of a write goes to the disk with what comes next: a thousand logins at once cost a few waits for
/// the disk, and the data threads don't wake this one for each event.
const GATHERED_WITHIN: Duration = Duration::from_millis(10);

/// Between two attempts, and two looks at whether the file is to be opened anew.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the end waits for what isn't written.
const PATIENCE: Duration = Duration::from_secs(5);

/// The thread.
#[derive(Debug)]
pub struct Writer {
    reopen: Arc<AtomicBool>,
    done: Receiver<()>,
}

struct Writing {
    path: PathBuf,
    file: Option<File>,
    head: Head,
    /// The lines up to `head` that aren't known to be on the disk.
    rest: Vec<u8>,
    /// Of them, so many bytes are in the file.
    begun: usize,
    began: Instant,
    reopen: Arc<AtomicBool>,
    state: Arc<State>,
    metrics: Arc<Metrics>,
    /// Attempts that have failed since the last that didn't.
    failed: u32,
}

/// Begins to record as `config` says, for as many as `max_clients`. The chain goes on where the file's ends.
pub fn start(
    config: &config::Audit,
    max_clients: usize,
    metrics: Arc<Metrics>,
) -> anyhow::Result<(Audit, Writer)> {
    let shown = config.file.display();
    let (file, head, clean) =
        open(&config.file).with_context(|| format!("cannot write {shown} (audit.file)"))?;
    // A disconnect of each.
    let (entries, waiting) = mpsc::sync_channel(MAX_WAITING_AT_LOGIN as usize + max_clients.max(10_000));
    let state = Arc::<State>::default();
    let began = Instant::now();
    let reopen = Arc::new(AtomicBool::new(false));
    let writing = Writing {
        path: config.file.clone(),
        file: Some(file),
        head,
        rest: Vec::new(),
        begun: 0,
        began,
        reopen: reopen.clone(),
        state: state.clone(),
        metrics: metrics.clone(),
        failed: 0,
    };
    let (ended, done) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("postern-audit".to_owned())
        .spawn(move || writing.run(&waiting, &ended))
        .context("cannot start the thread that writes the audit log")?;
    let audit = Audit {
        entries: Some(entries),
        state,
        on_full: config.on_full,
        began,
        metrics,
    };
    audit.record(|| Event::Start {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        clean,
    });
    Ok((audit, Writer { reopen, done }))
}

impl Writer {
    /// Set when the file was moved away: then another is written, by the same name.
    pub fn reopening(&self) -> Arc<AtomicBool> {
        self.reopen.clone()
    }

    /// Waits, for a while, until all is written that was recorded; whoever records must be gone.
    pub fn finish(self) {
        if self.done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            error!("what isn't written of the audit log after {PATIENCE:?} is lost");
        }
    }
}

impl Writing {
    fn run(mut self, waiting: &Receiver<Entry>, ended: &SyncSender<()>) {
        let mut is_over = false;
        while !is_over || !self.rest.is_empty() {
            if self.rest.is_empty() {
                match waiting.recv_timeout(PAUSE) {
                    Ok(first) => self.take(first, waiting),
                    Err(RecvTimeoutError::Timeout) => self.add_missing(),
                    Err(RecvTimeoutError::Disconnected) => {
                        is_over = true;
                        self.add_missing();
                        self.add(Event::Stop);
                    }
                }
            }
            let is_told = self.reopen.swap(false, Ordering::Relaxed) && self.path != Path::new(STDOUT);
            if is_told || self.is_moved() {
                self.leave_file();
            }
            let had_lines = !self.rest.is_empty();
            if !self.flush() {
                thread::sleep(PAUSE);
            } else if had_lines && !is_over {
                thread::sleep(GATHERED_WITHIN);
            }
        }
        let _ = ended.send(());
    }

    /// The file was moved away; what follows goes to another, in which the chain goes on at once. A line that was begun is
    /// written anew there.
    fn leave_file(&mut self) {
        let begun = self.rest.get(..self.begun).unwrap_or_default();
        let whole = begun
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |last| last + 1);
        if let Some(file) = self.file.take() {
            if let Err(error) = take_back(&file, (self.begun - whole) as u64) {
                warn!(%error, "a line that was begun stays in the audit log that was moved away");
            }
            if let Err(error) = file.sync_data() {
                warn!(%error, "the last lines of the audit log that was moved away may not be on the disk");
            }
        }
        self.count(whole);
        self.rest.drain(..whole);
        self.begun = 0;
        if self.rest.is_empty() {
            self.add(Event::Reopened);
        }
    }

    /// Adds a line about the record itself.
    fn add(&mut self, event: Event) {
        let mut line = String::new();
        let entry = Entry {
            at: SystemTime::now(),
            event: Box::new(event),
        };
        self.line(&entry, &mut line);
        self.rest.extend_from_slice(line.as_bytes());
    }

    /// Whether another file has its name by now, or none.
    fn is_moved(&self) -> bool {
        if self.path == Path::new(STDOUT) {
            return false;
        }
        let Some(Ok(ours)) = self.file.as_ref().map(File::metadata) else {
            return false;
        };
        let there = fs::metadata(&self.path);
        there.is_ok_and(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino()))
            || fs::exists(&self.path).is_ok_and(|exists| !exists)
    }

    /// Makes lines of what waits.
    fn take(&mut self, first: Entry, waiting: &Receiver<Entry>) {
        let mut lines = String::new();
        let mut taken = 0;
        for entry in std::iter::once(first).chain(waiting.try_iter().take(MAX_AT_ONCE)) {
            taken += 1;
            let bytes = entry.event.statement_bytes();
            self.state.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.line(&entry, &mut lines);
        }
        self.rest = lines.into_bytes();
        if self.state.waiting.fetch_sub(taken, Ordering::Relaxed) == taken {
            // What is missing was later than all that has waited.
            self.add_missing();
        }
    }

    /// Adds how many events aren't there one by one.
    fn add_missing(&mut self) {
        let missing = |count: &AtomicU64| Some(count.swap(0, Ordering::Relaxed)).filter(|count| *count > 0);
        if let Some(count) = missing(&self.state.unlisted) {
            self.add(Event::Unlisted { count });
        }
        if let Some(count) = missing(&self.state.lost) {
            self.add(Event::Lost { count });
        }
    }

    fn line(&mut self, entry: &Entry, lines: &mut String) {
        if let Err(error) = self.head.append(entry, lines) {
            error!(%error, "an event can't be recorded");
            self.metrics.audit.lost.inc();
        }
    }

    /// Writes what isn't written; whether all is.
    fn flush(&mut self) -> bool {
        if self.rest.is_empty() {
            return true;
        }
        let state = self.state.clone();
        let since = &state.unwritten_since;
        if since.load(Ordering::Relaxed) == 0 {
            since.store(state.now(self.began), Ordering::Relaxed);
        }
        let outcome = self.write();
        match &outcome {
            Ok(()) if self.failed > 0 => info!("the audit log is written again"),
            Err(error) if self.failed == 0 => {
                warn!(file = %self.path.display(), %error, "the audit log can't be written");
            }
            _ => {}
        }
        if outcome.is_ok() {
            self.failed = 0;
            self.rest.clear();
            self.begun = 0;
            since.store(0, Ordering::Relaxed);
        } else {
            self.failed = self.failed.saturating_add(1);
        }
        self.metrics.audit.failing.set(i64::from(self.failed > 0));
        outcome.is_ok()
    }

    /// Counts the lines that so many bytes of those that aren't written are.
    fn count(&self, bytes: usize) {
        let lines = self.rest.iter().take(bytes).filter(|byte| **byte == b'\n');
        self.metrics.audit.written.inc_by(lines.count() as u64);
    }

    fn write(&mut self) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => create(&self.path)?,
        };
        let written = self.write_to(&mut file);
        self.file = Some(file);
        written
    }

    fn write_to(&mut self, file: &mut File) -> io::Result<()> {
        while self.begun < self.rest.len() {
            match file.write(self.rest.get(self.begun..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                // Of a line that was begun, the rest follows where it is.
                Ok(written) => self.begun += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match file.sync_data() {
            Ok(()) => {}
            // A pipe or a terminal has nothing to wait for.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => {
                // What the kernel couldn't write it may have dropped, and would say next time that all is well.
                take_back(file, self.begun as u64)?;
                self.begun = 0;
                return Err(error);
            }
        }
        self.count(self.rest.len());
        Ok(())
    }
}

/// The file, which nobody else writes to from now on.
fn create(path: &Path) -> io::Result<File> {
    if path == Path::new(STDOUT) {
        return Ok(File::from(io::stdout().as_fd().try_clone_to_owned()?));
    }
    let file = OpenOptions::new()
        .append(true)
        .read(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(file);
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(io::Error::other("another gateway writes to it")),
        locked => Ok(locked.map(|()| file)?),
    }
}

/// Takes the last `begun` bytes of the file back, which are no whole line.
fn take_back(file: &File, begun: u64) -> io::Result<()> {
    let metadata = file.metadata()?;
    if begun > 0 && metadata.is_file() {
        file.set_len(metadata.len().saturating_sub(begun))?;
    }
    Ok(())
}

/// The file, where its chain ends, and whether that is where a gateway has stopped; if nothing is in it, nobody knows. What isn't a whole
/// line at its end was never acknowledged, and is taken back.
fn open(path: &Path) -> anyhow::Result<(File, Head, Option<bool>)> {
    let mut file = create(path)?;
    let length = file.metadata()?.len();
    if length == 0 || path == Path::new(STDOUT) {
        return Ok((file, Head::default(), None));
    }
    let from = length.saturating_sub(MAX_LINE_BYTES);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    (&file).take(MAX_LINE_BYTES).read_to_end(&mut end)?;
    let whole = end
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |last| last + 1);
    let begun = end.split_off(whole);
    if whole == 0 && from == 0 && begun.starts_with(FIRST.as_bytes()) {
        // The first line that there ever was isn't whole.
        take_back(&file, length)?;
        return Ok((file, Head::default(), Some(false)));
    }
    let begun = begun.len();
    let text = String::from_utf8_lossy(&end);
    let last = text.lines().rev().find_map(|line| Head::last(line).ok());
    let (head, clean) =
        last.context("it isn't an audit log: its last lines aren't in the form of one; move it away")?;
    take_back(&file, begun as u64)?;
    Ok((file, head, Some(clean && begun == 0)))
}
