//! Rules as they are written become the policy.

use jiff::tz::TimeZone;

use super::check::{at_least_one, positive};
use super::error::ConfigError;
use super::file;
use crate::policy::{Glob, Hours, Recorded, Rule, Rules, Span, Terms};

/// The rules that are written.
pub(super) fn rules(typed: &[file::Rule]) -> Result<Rules, ConfigError> {
    let globs = |number: usize, name: &str, list: &[String]| {
        if list.is_empty() {
            let message = "is empty and so matches nothing; expected at least one pattern, \"*\" for any";
            return Err(ConfigError::value(format!("rules[{number}].{name}"), message));
        }
        Ok(list.iter().map(|text| Glob::new(text)).collect())
    };
    let rules = typed.iter().enumerate().map(|(number, rule)| {
        let kinds = |pattern: &&String| !pattern.contains([':', '*', '?']);
        if let Some(pattern) = rule.principals.iter().find(kinds) {
            let message =
                format!("\"{pattern}\" matches no principal; they are written \"arn:…\", \"scram:NAME\" and \"trust:\"");
            return Err(ConfigError::value(format!("rules[{number}].principals"), message));
        }
        if let Some(message) = rule.principals.iter().find_map(|pattern| never_matches(pattern)) {
            return Err(ConfigError::value(format!("rules[{number}].principals"), message));
        }
        let optional = |name: &str, list: &Option<Vec<String>>| list.as_ref().map(|list| globs(number, name, list)).transpose();
        let of_targets = |name: &str, list: &[String]| match rule.console {
            Some(_) => Ok(Vec::new()),
            None => globs(number, name, list),
        };
        if rule.console.is_some() {
            only_console(number, rule)?;
        }
        Ok(Rule {
            principals: globs(number, "principals", &rule.principals)?,
            accounts: optional("accounts", &rule.accounts)?,
            permission_sets: optional("permission_sets", &rule.permission_sets)?,
            documents: optional("documents", &rule.documents)?,
            targets: of_targets("targets", &rule.targets)?,
            databases: of_targets("databases", &rule.databases)?,
            users: of_targets("users", &rule.users)?,
            hours: hours(number, rule)?,
            console: rule.console,
            terms: terms(number, rule)?,
        })
    });
    rules.collect::<Result<_, _>>().map(Rules::new)
}

/// What is only said of targets a rule for the console doesn't say.
fn only_console(number: usize, rule: &file::Rule) -> Result<(), ConfigError> {
    let said = [
        ("targets", !rule.targets.is_empty()),
        ("users", !rule.users.is_empty()),
        ("max_clients", rule.max_clients.is_some()),
        ("max_clients_per_session", rule.max_clients_per_session.is_some()),
        ("read_only", rule.read_only),
        ("mode", rule.mode.is_some()),
        ("statements", rule.statements != Recorded::No),
    ];
    match said.iter().find(|(_, is_said)| *is_said) {
        Some((name, _)) => Err(ConfigError::value(
            format!("rules[{number}].{name}"),
            "is for databases, and a rule with console is for the console alone; write two",
        )),
        None => Ok(()),
    }
}

/// On which terms a rule lets somebody in.
fn terms(number: usize, rule: &file::Rule) -> Result<Terms, ConfigError> {
    let count = |name: &str, count: Option<usize>| {
        let key = format!("rules[{number}].{name}");
        count.map(|count| at_least_one(&key, count)).transpose()
    };
    Ok(Terms {
        max_clients: count("max_clients", rule.max_clients)?,
        max_clients_per_session: count("max_clients_per_session", rule.max_clients_per_session)?,
        max_duration: rule
            .max_duration
            .map(|duration| positive(&format!("rules[{number}].max_duration"), duration))
            .transpose()?,
        read_only: rule.read_only,
        mode: rule.mode,
        statements: rule.statements,
    })
}

/// When a rule holds.
fn hours(number: usize, rule: &file::Rule) -> Result<Option<Hours>, ConfigError> {
    let wrong = |name: &str, message: String| ConfigError::value(format!("rules[{number}].{name}"), message);
    let Some(spans) = &rule.hours else {
        return match &rule.timezone {
            Some(_) => Err(wrong("timezone", "says nothing without hours".to_owned())),
            None => Ok(None),
        };
    };
    if spans.is_empty() {
        let message = "is empty, so that the rule would never hold; expected such as \"Mon-Fri 07:00-19:00\"";
        return Err(wrong("hours", message.to_owned()));
    }
    let spans = spans.iter().map(|text| text.parse::<Span>());
    let spans = spans
        .collect::<Result<_, _>>()
        .map_err(|error| wrong("hours", error.to_string()))?;
    let zone = rule.timezone.as_deref().unwrap_or("UTC");
    let zone = TimeZone::get(zone).map_err(|_| {
        wrong(
            "timezone",
            format!("\"{zone}\" is no time zone; expected such as \"Europe/Berlin\""),
        )
    })?;
    Ok(Some(Hours::new(spans, zone)))
}

/// Why a pattern for principals that looks right matches nobody.
fn never_matches(pattern: &str) -> Option<String> {
    let (service, resource) = pattern.strip_prefix("arn:")?.rsplit_once(':')?;
    if let Some(role) = resource.strip_prefix("role/") {
        let role = role.rsplit('/').next().unwrap_or_default();
        let account = service.rsplit(':').next().unwrap_or_default();
        return Some(format!(
            "\"{pattern}\" matches nobody: who calls is a session of a role; write \"arn:aws:sts::{account}:assumed-role/{role}/*\""
        ));
    }
    let federated = resource.strip_prefix("federated-user/");
    if let Some(name) = federated.filter(|name| !["", "*"].contains(name)) {
        return Some(format!(
            "\"{pattern}\" matches nobody: whoever asks for a federated user chooses its name, {name} too; write \"…:federated-user/*\""
        ));
    }
    let rest = resource.strip_prefix("assumed-role/")?;
    let Some((role, session)) = rest.split_once('/') else {
        let is_open = rest.ends_with('*');
        return (!is_open)
            .then(|| format!("\"{pattern}\" matches nobody; write \"…:assumed-role/{rest}/*\""));
    };
    let is_vouched_for = role.starts_with("AWSReservedSSO_") || Glob::new(role).is_open();
    (!["", "*"].contains(&session) && !is_vouched_for).then(|| {
        format!(
            "\"{pattern}\" matches nobody: whoever assumes a role chooses the name of the session, so no rule can go by it; \
             write \"…:assumed-role/{role}/*\""
        )
    })
}
