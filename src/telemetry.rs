//! Log lines, written by a thread of their own: a log that is stuck loses lines and never stalls a query.

use std::io::IsTerminal as _;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::Log;
use crate::config::file::LogFormat;

/// Lines that may wait to be written, of a KiB or so each; what comes after that is dropped.
const BUFFERED_LINES: usize = 4_096;

/// Starts logging to standard error. What was logged is written out when the guard is dropped.
pub fn start(log: &Log) -> Result<WorkerGuard, String> {
    let filter = EnvFilter::try_new(&log.level)
        .map_err(|error| format!("log.level: \"{}\" is not a level or a filter: {error}", log.level))?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(BUFFERED_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    let started = match log.format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(lines.with_ansi(std::io::stderr().is_terminal()).finish())
        }
        LogFormat::Json => tracing::subscriber::set_global_default(lines.json().flatten_event(true).finish()),
    };
    started.map_err(|error| error.to_string())?;
    Ok(guard)
}
