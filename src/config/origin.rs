//! A configuration file that may be read again.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::ConfigError;
use super::{Config, check, environment as layer};

/// Sections that count, at least in part, when they are read again.
const RELOADED: [&str; 4] = ["rules", "targets", "tls", "listen"];

/// Where a configuration comes from.
#[derive(Debug)]
pub struct Origin {
    path: PathBuf,
    /// What was read first, section by section.
    written: Value,
}

impl Origin {
    /// Reads the file at `path`, with the environment's variables laid over it.
    pub fn open(path: &Path) -> Result<(Self, Config), ConfigError> {
        let (written, config) = read(path)?;
        let origin = Self {
            path: path.to_owned(),
            written,
        };
        Ok((origin, config))
    }

    /// Reads the file again. With what it says comes which of the sections are others than they were at first that count only after
    /// a restart, whatever they say.
    pub fn read_again(&self) -> Result<(Config, Vec<String>), ConfigError> {
        let (written, config) = read(&self.path)?;
        let sections = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let (before, now) = (sections(&self.written), sections(&written));
        let names = before
            .keys()
            .chain(now.keys().filter(|name| !before.contains_key(*name)));
        let is_fixed = |name: &&String| !RELOADED.contains(&name.as_str());
        let changed = names.filter(|name| is_fixed(name) && before.get(*name) != now.get(*name));
        Ok((config, changed.cloned().collect()))
    }
}

fn read(path: &Path) -> Result<(Value, Config), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let read = || {
        let file = layer::read(&text, super::environment())?;
        let config = check::config(&file)?;
        let written = serde_json::to_value(&file)
            .map_err(|error| ConfigError::value("configuration", error.to_string()))?;
        Ok((written, config))
    };
    read().map_err(|error: ConfigError| error.in_file(path))
}
