//! Makes from the code what packages have besides the program.
//!
//! ```text
//! postern-package             prints deploy/CONFIGURATION.md
//! postern-package DIRECTORY   writes man pages, completions, the schema of the configuration, and others' notices there
//! ```

mod manual;
mod markdown;
mod notices;
mod reference;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;
use clap_complete::Shell;

use reference::Reference;

/// Make from the code what packages have besides the program.
#[derive(Debug, Parser)]
struct Arguments {
    /// Write man pages, completions, the schema and others' notices there; without it, print the reference of the configuration
    directory: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let reference = Reference::of_the_code()?;
    match Arguments::parse().directory {
        Some(directory) => write(&directory, &reference),
        None => Ok(std::io::stdout().write_all(markdown::page(&reference).as_bytes())?),
    }
}

fn write(directory: &Path, reference: &Reference) -> anyhow::Result<()> {
    let place = |name: &str| {
        let place = directory.join(name);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        anyhow::Ok(place)
    };
    manual::commands(&postern::cli::command(), &place("man")?)?;
    fs::write(
        place("man")?.join("postern.toml.5"),
        manual::configuration(reference),
    )?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(
            shell,
            &mut postern::cli::command(),
            "postern",
            place("completions")?,
        )?;
    }
    fs::write(directory.join("postern.schema.json"), reference.schema())?;
    fs::write(directory.join("third-party.notices"), notices::page()?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_what_the_code_says() -> anyhow::Result<()> {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../CONFIGURATION.md");
        let page = markdown::page(&Reference::of_the_code()?);
        assert!(
            fs::read_to_string(kept)? == page,
            "deploy/CONFIGURATION.md isn't: cargo run -p postern-package >deploy/CONFIGURATION.md"
        );
        Ok(())
    }

    #[test]
    fn every_command_has_a_page_and_every_shell_its_completions() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let directory = directory.path();
        write(directory, &Reference::of_the_code()?)?;
        let pages = fs::read_dir(directory.join("man"))?.count();
        assert_eq!(pages, count(&postern::cli::command()) + 1, "and the file's");
        for file in ["postern.bash", "_postern", "postern.fish"] {
            let text = fs::read_to_string(directory.join("completions").join(file))?;
            assert!(text.contains("attribute"), "{file}");
        }
        Ok(())
    }

    fn count(command: &clap::Command) -> usize {
        let shown = command.get_subcommands().filter(|below| !below.is_hide_set());
        shown.map(count).sum::<usize>() + 1
    }
}
