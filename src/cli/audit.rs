//! `postern audit`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use crate::audit::chain::{self, Broken, Head};

/// Faults that are told one by one.
const MAX_SHOWN: usize = 20;

/// Look at audit logs.
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// Say whether lines were removed, changed or moved
    ///
    /// The files of one gateway in the order in which they were written, the oldest first. What was taken from the end of the last shows
    /// only if its last hash is known from elsewhere.
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Files that audit.file named
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Audit {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let Self::Verify(verify) = self;
        std::io::stdout()
            .write_all(verify.text()?.as_bytes())
            .context("cannot write to standard output")
    }
}

impl Verify {
    /// What is good of them; an error names all that isn't.
    fn text(&self) -> anyhow::Result<String> {
        let mut head: Option<Head> = None;
        let mut first = 0;
        let mut faults = Vec::new();
        for path in &self.files {
            let shown = path.display();
            let file = File::open(path).with_context(|| format!("cannot read {shown}"))?;
            for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
                let line = line.with_context(|| format!("cannot read {shown}"))?;
                let followed = match (str::from_utf8(&line), &mut head) {
                    (Err(_), _) => Err(Broken::Form),
                    (Ok(line), Some(head)) => head.follow(line),
                    (Ok(line), None) => chain::read(line).map(|(_, begins)| {
                        first = begins.n;
                        head = Some(begins);
                    }),
                };
                if let Err(broken) = followed {
                    faults.push(format!("{shown}, line {}: {broken}", number + 1));
                }
            }
        }
        if !faults.is_empty() {
            let more = faults.len().saturating_sub(MAX_SHOWN);
            faults.truncate(MAX_SHOWN);
            if more > 0 {
                faults.push(format!("and {more} more"));
            }
            bail!(faults.join("\n"));
        }
        let Some(head) = head else {
            return Ok("good; no lines\n".to_owned());
        };
        Ok(format!(
            "good; lines {first} to {}, the last hash is {}\n",
            head.n, head.hash
        ))
    }
}
