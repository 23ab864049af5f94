//! `postern config explain`.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use clap::Args;

use super::ConfigFile;
use crate::identity::Principal;
use crate::identity::iam::IamPrincipal;
use crate::ids::{DatabaseName, DbUser, TargetName};
use crate::policy::{Decision, Recorded, Request, Terms};

/// Say which rule decides about somebody, and why no other does.
#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    file: ConfigFile,
    /// Who: an ARN as AWS gives it, `scram:NAME` or `trust:`
    #[arg(long, value_name = "PRINCIPAL")]
    principal: String,
    /// Target of the configuration
    #[arg(long, value_name = "NAME")]
    target: String,
    /// Database user
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Database; the user's name if it isn't given, as with PostgreSQL
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Document of the session of Session Manager that it would come through
    #[arg(long, value_name = "NAME")]
    document: Option<String>,
    /// When, as 2026-11-26T19:30:00Z; now, if it isn't given
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339_weak)]
    at: Option<SystemTime>,
}

impl Explain {
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let config = self.file.load()?;
        let principal = self.principal()?;
        let target = TargetName::from(self.target.as_str());
        let user = DbUser::from(self.user.as_str());
        let database = DatabaseName::from(self.database.as_deref().unwrap_or(&self.user));
        let at = self.at.unwrap_or_else(SystemTime::now);
        let request = Request {
            principal: &principal,
            document: self.document.as_deref(),
            target: &target,
            database: &database,
            user: &user,
            at,
        };
        let mut text = format!(
            "principal {principal}, target {target}, database {database}, user {user}{}\n",
            self.document
                .as_ref()
                .map(|name| format!(", document {name}"))
                .unwrap_or_default()
        );
        for (rule, missing) in config.rules.explain(&request).into_iter().enumerate() {
            match missing {
                None => writeln!(text, "rules[{rule}]: matches")?,
                Some(missing) => writeln!(text, "rules[{rule}]: not this {}", missing.what())?,
            }
        }
        let known = config.targets.iter().find(|known| known.name == target);
        let known = known.map(|known| (&known.databases, &known.users));
        // Wherever it is.
        let mut absent = config
            .absent
            .iter()
            .filter(|absent| absent.is_called(target.as_str()));
        let known = known.or_else(|| absent.next().map(|absent| (&absent.databases, &absent.users)));
        match (known, config.rules.decide(&request)) {
            (None, _) => writeln!(text, "refused: there is no target {target}")?,
            (Some((databases, _)), _) if !databases.contains(&database) => {
                writeln!(
                    text,
                    "refused: targets.{target}.databases doesn't have {database}"
                )?;
            }
            (Some((_, users)), _) if !users.contains(&user) => {
                writeln!(text, "refused: targets.{target}.users doesn't have {user}")?;
            }
            (_, Decision::Allow { rule }) => {
                write!(text, "admitted by rules[{rule}]")?;
                let Terms {
                    max_clients,
                    max_clients_per_session,
                    max_duration,
                    read_only,
                    mode,
                    statements,
                } = config.rules.terms(rule, at);
                if read_only {
                    text.push_str(", only to read");
                }
                if let Some(most) = max_clients {
                    write!(text, ", {most} connections at a time")?;
                }
                if let Some(most) = max_clients_per_session {
                    write!(text, ", {most} for each session of Session Manager")?;
                }
                if let Some(mode) = mode {
                    write!(text, ", pool mode {}", mode.name())?;
                }
                match statements {
                    Recorded::No => {}
                    Recorded::Masked => text.push_str(", statements recorded without constants"),
                    Recorded::Full => text.push_str(", statements recorded"),
                }
                if let Some(longest) = max_duration {
                    // The time of day has fractions of a second.
                    let longest = Duration::from_secs(longest.as_secs());
                    write!(text, ", each for {}", humantime::format_duration(longest))?;
                }
                if let Some(hours) = config.rules.hours(rule) {
                    write!(text, ", {hours}")?;
                }
                writeln!(text)?;
            }
            (_, Decision::Refuse(refusal)) => writeln!(text, "refused: {refusal}")?,
        }
        Ok(text)
    }

    fn principal(&self) -> anyhow::Result<Principal> {
        let text = self.principal.as_str();
        if text == "trust:" {
            return Ok(Principal::Trust);
        }
        if let Some(name) = text.strip_prefix("scram:") {
            return Ok(Principal::Scram(name.into()));
        }
        if !text.starts_with("arn:") {
            bail!("--principal: expected an ARN, \"scram:NAME\" or \"trust:\"");
        }
        let principal = IamPrincipal::parse(text).with_context(|| format!("--principal {text}"))?;
        Ok(Principal::Iam(principal))
    }
}
