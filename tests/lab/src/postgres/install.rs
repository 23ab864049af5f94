//! Which PostgreSQL programs are used, as which operating system user, and the initialised data directory that
//! every server starts from.
//!
//! `initdb` takes seconds, a copy of its result takes milliseconds; so its result is kept in the temporary
//! directory, once per user and version. Delete `postern-lab-template-*` there to have it made again.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::sigv4::sha256_hex;

/// The superuser of the lab's servers, named as on RDS.
pub const SUPERUSER: &str = "rdsadmin";

/// PostgreSQL's programs, and whom they run as.
#[derive(Debug, Clone)]
pub(crate) struct Install {
    bin: PathBuf,
    version: String,
    /// Set when we are root, whom PostgreSQL refuses to serve.
    run_as: Option<(u32, u32)>,
}

impl Install {
    /// `PGBIN`, or else the newest of Debian's.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let bin = match std::env::var_os("PGBIN") {
            Some(bin) => PathBuf::from(bin),
            None => newest("/usr/lib/postgresql".as_ref()).context("no PostgreSQL here; set PGBIN")?,
        };
        let mut install = Self {
            bin,
            version: String::new(),
            run_as: server_user()?,
        };
        let output = install.command("postgres").arg("--version").output();
        let output = output.with_context(|| format!("can't run {}/postgres", install.bin.display()))?;
        ensure!(
            output.status.success(),
            "{}/postgres: {}",
            install.bin.display(),
            lossy(&output.stderr)
        );
        let text = lossy(&output.stdout);
        let version = text
            .split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        version
            .with_context(|| format!("no version in {text:?}"))?
            .clone_into(&mut install.version);
        Ok(install)
    }

    /// `17.11`
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// A command that runs one of PostgreSQL's programs as the right user.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.as_server_user(Command::new(self.program(program)))
    }

    pub(crate) fn as_server_user(&self, mut command: Command) -> Command {
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid).gid(gid);
        }
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Gives a directory to the server's user.
    pub(crate) fn own(&self, directory: &Path, mode: u32) -> anyhow::Result<()> {
        fs::set_permissions(directory, fs::Permissions::from_mode(mode))?;
        if let Some((uid, gid)) = self.run_as {
            std::os::unix::fs::chown(directory, Some(uid), Some(gid))?;
        }
        Ok(())
    }

    /// Copies the initialised data directory to `target`, which must not exist.
    pub(crate) fn copy_template(&self, target: &Path) -> anyhow::Result<()> {
        let template = self.template()?;
        let mut copy = self.as_server_user(Command::new("cp"));
        run(copy
            .args(["-R", "-p", "--reflink=auto", "--no-target-directory"])
            .arg(template)
            .arg(target))
    }

    fn template(&self) -> anyhow::Result<PathBuf> {
        let uid = self
            .run_as
            .map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid);
        let build = sha256_hex(format!("{} {INIT_SQL}", self.bin.display()).as_bytes());
        let build = build.get(..8).unwrap_or_default();
        let name = format!("postern-lab-template-{uid}-{}-{build}", self.version);
        let template = std::env::temp_dir().join(name);
        if !template.exists() {
            self.make_template(&template)?;
        }
        let owner = fs::symlink_metadata(&template)?;
        ensure!(
            owner.is_dir() && owner.uid() == uid,
            "{} isn't ours",
            template.display()
        );
        Ok(template)
    }

    /// Makes it under another name and renames it, so that nobody sees half of it.
    fn make_template(&self, template: &Path) -> anyhow::Result<()> {
        let parent = tempfile::Builder::new().prefix("postern-lab-initdb-").tempdir()?;
        self.own(parent.path(), 0o700)?;
        let data = parent.path().join("data");
        run(self
            .command("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--username",
                SUPERUSER,
                "--pgdata",
            ])
            .arg(&data))?;
        let mut single = self.command("postgres");
        single
            .args(["--single", "-j", "-O", "-c", "fsync=off", "-D"])
            .arg(&data)
            .arg("template1");
        let mut child = single
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("no pipe")?
            .write_all(INIT_SQL.as_bytes())?;
        let output = child.wait_with_output()?;
        let complaint = lossy(&output.stderr);
        ensure!(
            output.status.success() && !complaint.contains("ERROR"),
            "postgres --single: {complaint}"
        );
        match fs::rename(&data, template) {
            Err(_) if template.exists() => Ok(()),
            result => result.with_context(|| format!("can't rename to {}", template.display())),
        }
    }
}

/// The user PostgreSQL has to run as, when we are root: `postgres`, or else `nobody`.
pub(crate) fn server_user() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd")?;
    for wanted in ["postgres", "nobody"] {
        let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        for field in fields {
            if let [name, _, uid, gid, ..] = field.as_slice()
                && *name == wanted
            {
                return Ok(Some((uid.parse()?, gid.parse()?)));
            }
        }
    }
    bail!("PostgreSQL doesn't run as root, and there is neither a user postgres nor nobody")
}

fn newest(directory: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(directory).ok()?.filter_map(|entry| {
        let entry = entry.ok()?;
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let bin = entry.path().join("bin");
        bin.join("initdb").exists().then_some((version, bin))
    });
    versions.max().map(|(_, bin)| bin)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .output()
        .with_context(|| format!("can't run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        lossy(&output.stdout),
        lossy(&output.stderr)
    );
    Ok(())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Lets a session say that it is on a standby, which the fault "standby" needs: `pg_is_in_recovery()` is true where
/// the setting `postern_lab.standby` is on.
const INIT_SQL: &str = "\
ALTER FUNCTION pg_catalog.pg_is_in_recovery() RENAME TO pg_is_really_in_recovery;

CREATE FUNCTION pg_catalog.pg_is_in_recovery() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
    RETURN coalesce(current_setting('postern_lab.standby', true), '') = 'on' OR pg_is_really_in_recovery();

";
