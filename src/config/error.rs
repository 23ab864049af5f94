//! What can be wrong with a configuration.

use std::path::{Path, PathBuf};

/// A configuration that can't be used. Its text is for the person who wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It isn't TOML, a key is unknown, or a value is of the wrong type.
    #[error("{place}{message}")]
    Syntax {
        /// `file:line:column: `, as far as it is known.
        place: String,
        /// What is wrong.
        message: String,
    },
    /// A value can't be used.
    #[error("{key}: {message}")]
    Value {
        /// The key, with its path.
        key: String,
        /// What is wrong with its value, and what was expected.
        message: String,
    },
}

impl ConfigError {
    pub(super) fn value(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value {
            key: key.into(),
            message: message.into(),
        }
    }

    pub(super) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Syntax { place, message } => Self::Syntax {
                place: format!("{}:{place}", path.display()),
                message,
            },
            Self::Value { key, message } => Self::Value {
                key: format!("{}: {key}", path.display()),
                message,
            },
            error @ Self::Unreadable { .. } => error,
        }
    }
}
