//! The AWS CLI, as far as `postern connect` needs it. What the real one wouldn't take it doesn't take either.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, ExitCode};
use std::{env, io};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::call;

/// Ids of instances, those started last first. No other query is understood.
const NEWEST_FIRST: &str = "reverse(sort_by(Reservations[].Instances[], &LaunchTime))[].InstanceId";

/// Exit statuses (AWS CLI User Guide, "return codes").
const USAGE: u8 = 252;
const CONFIGURATION: u8 = 253;
const SERVICE: u8 = 254;
const GENERAL: u8 = 255;

/// A profile that there is.
const PROFILE: &str = "work";

pub(super) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let (words, options) = match parse(arguments) {
        Ok(parsed) => parsed,
        Err(error) => return fail(USAGE, &format!("aws: error: {error}")),
    };
    if let Some(name) = options.get("--profile").filter(|name| *name != PROFILE) {
        return fail(
            GENERAL,
            &format!("The config profile ({name}) could not be found"),
        );
    }
    if !options.contains_key("--region") && env::var_os("AWS_REGION").is_none() {
        let text =
            "You must specify a region. You can also configure your region by running \"aws configure\".";
        return fail(CONFIGURATION, text);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["ec2", "describe-instances"] => describe(&options),
        ["ssm", "start-session"] => start(&options),
        _ => return fail(USAGE, "aws: error: argument command: Invalid choice"),
    };
    done.or_else(|error| {
        let text = error.to_string();
        let is_of_service = text.starts_with("An error occurred");
        fail(if is_of_service { SERVICE } else { GENERAL }, &text)
    })
}

/// Words, and options with one value each; those of `--filters` are joined by spaces.
fn parse(arguments: &[String]) -> anyhow::Result<(Vec<String>, BTreeMap<String, String>)> {
    let (mut words, mut options) = (Vec::new(), BTreeMap::<String, String>::new());
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        if !argument.starts_with("--") {
            words.push(argument.clone());
            continue;
        }
        let known = match words.last().map(String::as_str) {
            Some("describe-instances") => ["--filters"].as_slice(),
            Some("start-session") => &["--target", "--document-name", "--parameters"],
            _ => &[],
        };
        let globals = ["--profile", "--region", "--query", "--output"];
        if !globals.contains(&argument.as_str()) && !known.contains(&argument.as_str()) {
            bail!("Unknown options: {argument}");
        }
        let value = rest.next().filter(|value| !value.starts_with('-'));
        let mut value = value
            .with_context(|| format!("argument {argument}: expected one argument"))?
            .clone();
        while argument == "--filters"
            && let Some(next) = rest.next_if(|next| !next.starts_with('-'))
        {
            value = format!("{value} {next}");
        }
        if options.insert(argument.clone(), value).is_some() {
            bail!("{argument} was given twice");
        }
    }
    Ok((words, options))
}

fn describe(options: &BTreeMap<String, String>) -> anyhow::Result<ExitCode> {
    let filters = filters(options.get("--filters").map_or("", String::as_str))?;
    let query = options.get("--query").map(String::as_str);
    if query != Some(NEWEST_FIRST) {
        bail!("this stand-in knows one query, and not {query:?}");
    }
    let (answer, _) = call(&json!({"Operation": "DescribeInstances", "Filters": filters}))?;
    let ids = &answer["Ids"];
    let text = match options.get("--output").map(String::as_str) {
        Some("text") => ids
            .as_array()
            .map(|ids| {
                ids.iter()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join("\t")
            })
            .context("no ids")?,
        Some("json") => serde_json::to_string_pretty(ids)?,
        output => bail!("Invalid choice: --output {output:?}"),
    };
    writeln!(io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

/// In JSON, or in the short form.
fn filters(text: &str) -> anyhow::Result<Value> {
    if text.starts_with('[') {
        let filters: Value = serde_json::from_str(text).context("Error parsing parameter '--filters'")?;
        return Ok(filters);
    }
    let mut filters = Vec::new();
    for filter in text.split_whitespace() {
        let parts = filter
            .strip_prefix("Name=")
            .and_then(|rest| rest.split_once(",Values="));
        let (name, values) = parts.context("Error parsing parameter '--filters'")?;
        filters.push(json!({"Name": name, "Values": values.split(',').collect::<Vec<_>>()}));
    }
    Ok(json!(filters))
}

fn start(options: &BTreeMap<String, String>) -> anyhow::Result<ExitCode> {
    let option = |name: &str| {
        options
            .get(name)
            .with_context(|| format!("the following arguments are required: {name}"))
    };
    let (target, document) = (option("--target")?, option("--document-name")?);
    let parameters: BTreeMap<String, [String; 1]> = serde_json::from_str(option("--parameters")?)
        .context("Parameter validation failed: expected a map of lists")?;
    for (name, [value]) in &parameters {
        if !["portNumber", "localPortNumber"].contains(&name.as_str()) || value.parse::<u16>().is_err() {
            bail!(
                "An error occurred (InvalidParameters) when calling the StartSession operation: {name}={value}"
            );
        }
    }
    let request = json!({"Target": target, "DocumentName": document, "Parameters": parameters});
    let mut ask = request.clone();
    ask["Operation"] = json!("StartSession");
    let (session, _) = call(&ask)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let _entered = runtime.enter();
    // Deaf to these while the plugin runs.
    let _deaf = [signal(SignalKind::interrupt())?, signal(SignalKind::quit())?];
    let region = options
        .get("--region")
        .cloned()
        .or_else(|| env::var("AWS_REGION").ok());
    // Which decides how it is told of the session.
    let version = Command::new("session-manager-plugin").arg("--version").output();
    let plugin = Command::new("session-manager-plugin")
        .arg("AWS_SSM_START_SESSION_RESPONSE")
        .args([region.unwrap_or_default(), "StartSession".to_owned()])
        .arg(options.get("--profile").map_or("", String::as_str))
        .args([request.to_string(), "https://ssm".to_owned()])
        .env("AWS_SSM_START_SESSION_RESPONSE", session.to_string())
        .status();
    match version.and(plugin) {
        Ok(status) if status.success() => Ok(ExitCode::SUCCESS),
        Ok(status) => bail!("Command '['session-manager-plugin', …]' returned {status}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            call(&json!({"Operation": "TerminateSession", "SessionId": session["SessionId"]}))?;
            bail!("SessionManagerPlugin is not found. Please refer to SessionManager Documentation here: …")
        }
        Err(error) => Err(error.into()),
    }
}

fn fail(code: u8, text: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "\n{text}")?;
    Ok(ExitCode::from(code))
}
