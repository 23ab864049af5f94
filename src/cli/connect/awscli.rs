//! The person's own `aws`: that it and its plugin are there, and what it is asked. No shell is between; each value is one argument.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use anyhow::ensure;
use serde_json::json;

/// The AWS CLI.
const CLI: &str = "aws";

/// What the AWS CLI runs for a session (awscli/customizations/sessionmanager.py); it looks for it in PATH.
const PLUGIN: &str = "session-manager-plugin";

/// Running instances, that which was started last first. `LaunchTime` is in one form and zone, so its order as text is that in time.
const NEWEST_FIRST: &str = "reverse(sort_by(Reservations[].Instances[], &LaunchTime))[].InstanceId";

/// An `aws` that can be run.
#[derive(Debug)]
pub(super) struct Aws {
    profile: Option<String>,
    region: Option<String>,
}

impl Aws {
    /// Looks for it and for its plugin, so that nothing begins that can't go on.
    pub(super) fn find(profile: Option<&str>, region: Option<&str>) -> anyhow::Result<Self> {
        ensure!(
            is_in_path(OsStr::new(CLI)),
            "the AWS CLI (aws) isn't in PATH. Get it from \
             https://docs.aws.amazon.com/cli/latest/userguide/getting-started-install.html"
        );
        ensure!(
            is_in_path(OsStr::new(PLUGIN)),
            "the AWS CLI's plugin for sessions ({PLUGIN}) isn't in PATH. Get it from \
             https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html"
        );
        Ok(Self {
            profile: profile.map(str::to_owned),
            region: region.map(str::to_owned),
        })
    }

    /// The profile that counts, for people: `--profile`, or what `aws` itself reads. That isn't handed on: as an option it would win over keys in
    /// the environment, as a variable it doesn't.
    pub(super) fn profile(&self) -> Option<String> {
        let from_environment = || std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
        self.profile.clone().or_else(from_environment)
    }

    /// The command that lists running instances with that tag.
    pub(super) fn instances(&self, key: &str, value: &str) -> Vec<OsString> {
        // As JSON, since in the short form a comma would begin another value (AWS CLI User Guide, "shorthand syntax").
        let filters = json!([
            {"Name": format!("tag:{key}"), "Values": [value]},
            {"Name": "instance-state-name", "Values": ["running"]},
        ]);
        self.command(&[
            "ec2",
            "describe-instances",
            "--filters",
            &filters.to_string(),
            "--query",
            NEWEST_FIRST,
            "--output",
            "json",
        ])
    }

    /// The command that forwards `local` to `remote`, or to the port that the document has, on that instance.
    pub(super) fn forward(
        &self,
        instance: &str,
        document: &str,
        remote: Option<u16>,
        local: u16,
    ) -> Vec<OsString> {
        let mut parameters = json!({"localPortNumber": [local.to_string()]});
        if let (Some(remote), Some(parameters)) = (remote, parameters.as_object_mut()) {
            parameters.insert("portNumber".to_owned(), json!([remote.to_string()]));
        }
        self.command(&[
            "ssm",
            "start-session",
            "--target",
            instance,
            "--document-name",
            document,
            "--parameters",
            &parameters.to_string(),
        ])
    }

    fn command(&self, words: &[&str]) -> Vec<OsString> {
        let mut command = vec![OsString::from(CLI)];
        for (option, value) in [("--profile", &self.profile), ("--region", &self.region)] {
            if let Some(value) = value {
                command.extend([option.into(), value.into()]);
            }
        }
        command.extend(words.iter().map(OsString::from));
        command
    }
}

/// Whether a program can be found, as execvp(3) looks for it.
pub(super) fn is_in_path(program: &OsStr) -> bool {
    if Path::new(program).components().count() > 1 {
        return is_executable(Path::new(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| is_executable(&directory.join(program)))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}
