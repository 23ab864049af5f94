//! `postern config`.

use std::io::Write as _;

use anyhow::Context as _;
use clap::Subcommand;

use super::ConfigFile;
use super::explain::Explain;
use crate::config::file::File;
use crate::config::{effective, environment};

/// Look at the configuration.
#[derive(Debug, Subcommand)]
pub(super) enum Config {
    /// Say whether the configuration can be used; if not, what is wrong and where
    Check(ConfigFile),
    /// Print the configuration with every default and override in place; secrets are hidden
    Show(ConfigFile),
    /// Say which rule decides about somebody, and why
    Explain(Explain),
    /// Print the JSON schema of the configuration file
    Schema,
}

impl Config {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let text = match self {
            Self::Check(file) => {
                let config = file.load()?;
                format!(
                    "{}: good; {} target(s), {} rule(s)\n",
                    file.config.display(),
                    config.targets.len() + config.discoveries.len(),
                    config.rules.len()
                )
            }
            Self::Show(file) => show(&file)?,
            Self::Explain(explain) => explain.text()?,
            Self::Schema => {
                let mut schema = serde_json::to_string_pretty(&schemars::schema_for!(File))?;
                schema.push('\n');
                schema
            }
        };
        std::io::stdout()
            .write_all(text.as_bytes())
            .context("cannot write to standard output")
    }
}

fn show(file: &ConfigFile) -> anyhow::Result<String> {
    file.load()?;
    let text = std::fs::read_to_string(&file.config)?;
    let mut shown = effective(&text, environment())?;
    for verifier in shown.identity.scram.verifiers.values_mut() {
        "(hidden)".clone_into(verifier);
    }
    Ok(toml::to_string(&shown)?)
}
