//! What this host is to AWS: the metadata service, the role's credentials, whose they are, and the clock.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::report::{Finding, State};
use crate::aws::caller::{Answered, caller};
use crate::aws::credentials::{CredentialCache, Keys, NoCredentials};
use crate::aws::imds::{self, Metadata, NoMetadata};
use crate::aws::ssm::Sessions;
use crate::cli::token::Nobody;
use crate::config::Config;

/// How long the credentials may take: the SDK asks the metadata service four times.
const LOADED_WITHIN: Duration = Duration::from_secs(7);

/// How long STS may take.
const CALLER_WITHIN: Duration = Duration::from_secs(4);

/// The metadata service has new credentials five minutes before the old ones end, at the latest (EC2 User Guide, "Retrieve security credentials
/// from instance metadata").
const RENEWED_BEFORE: Duration = Duration::from_secs(300);

/// AWS refuses requests whose time is so far from its own (IAM User Guide, "Signature Version 4").
const SKEW_MOST: Duration = Duration::from_secs(300);

/// A clock that is looked after isn't off by so much.
const SKEW_ODD: Duration = Duration::from_secs(60);

/// How credentials are had, once it is known.
pub(super) struct Account {
    pub(super) findings: Vec<Finding>,
    pub(super) credentials: CredentialCache,
    /// What can be signed with, if AWS takes it.
    pub(super) keys: Result<Arc<Keys>, String>,
    /// Whose credentials these are, as far as it is known.
    pub(super) arn: Option<String>,
}

/// Credentials that are kept fresh, for a process that has none yet.
pub(super) fn credentials() -> CredentialCache {
    let (credentials, keep_fresh) = CredentialCache::new(Arc::new(Nobody));
    tokio::spawn(keep_fresh);
    credentials
}

/// All of it, with these `credentials` and the STS of `region`.
pub(super) async fn check(config: &Config, mut credentials: CredentialCache, region: &str) -> Account {
    let began = Instant::now();
    let (metadata, _) = tokio::join!(imds::look(), timeout(LOADED_WITHIN, credentials.loaded()));
    let seen = SystemTime::now();
    let keys = credentials.keys(seen);
    let imds = metadata_service(&metadata, keys.is_ok()).since(began);
    let role = role(&metadata, &keys, imds.is_in_the_way());
    let usable = match (keys, role.is_in_the_way()) {
        (Ok(keys), None) => Ok(keys),
        (_, prerequisite) => Err(prerequisite.unwrap_or_else(|| "role".to_owned())),
    };
    let began = Instant::now();
    let answered = match &usable {
        Ok(keys) => match timeout(CALLER_WITHIN, caller(keys, region)).await {
            Ok(answered) => Some(answered),
            Err(_) => Some(Err(format!("no answer within {} s", CALLER_WITHIN.as_secs()))),
        },
        Err(_) => None,
    };
    let by_sts = answered
        .as_ref()
        .and_then(|answered| answered.as_ref().ok()?.date);
    let dates = by_sts
        .map(|date| ("STS", date, SystemTime::now()))
        .or_else(|| Some(("the metadata service", metadata.ok()?.date?, seen)));
    let clock = clock(dates);
    let (caller, whose) = whose(config, region, &usable, answered, clock.is_in_the_way());
    let caller = caller.since(began);
    // Logins don't need STS; what it refuses, RDS refuses as well.
    let void = caller.is_in_the_way().filter(|_| matches!(whose, Whose::Nobodys));
    let keys = usable.and_then(|keys| clock.is_in_the_way().or(void).map_or(Ok(keys), Err));
    Account {
        findings: vec![imds, role, clock, caller],
        credentials,
        keys,
        arn: match whose {
            Whose::Of(arn) => Some(arn),
            Whose::Nobodys | Whose::Unknown => None,
        },
    }
}

/// Whether Session Manager can be asked about sessions, if the gateway is to do so.
pub(super) async fn sessions(config: &Config, account: &Account) -> Option<Finding> {
    let region = config.identity.ssm.region.as_ref()?;
    let subject = format!("Session Manager in {region}");
    if let Err(prerequisite) = &account.keys {
        return Some(Finding::skipped("ssm.sessions", subject, prerequisite));
    }
    let began = Instant::now();
    let asked = async {
        let sessions = Sessions::new(region.clone(), account.credentials.clone());
        sessions.map_err(|error| error.to_string())?.may_be_asked().await
    };
    let reason = match timeout(CALLER_WITHIN, asked).await {
        Ok(Ok(())) => return Some(Finding::ok("ssm.sessions", subject, "may be asked").since(began)),
        Ok(Err(reason)) => reason,
        Err(_) => format!("no answer within {} s", CALLER_WITHIN.as_secs()),
    };
    let (cause, remedy) = if reason.contains("AccessDenied") {
        (
            "this host's role may not ask whose a session is, and identity.ssm.source wants it asked"
                .to_owned(),
            r#"add to the role's policy: {"Effect": "Allow", "Action": "ssm:DescribeSessions", "Resource": "*"}"#,
        )
    } else {
        (
            format!(
                "there is no way from this host to ssm.{region}.amazonaws.com, or it fails, and identity.ssm.source wants it asked"
            ),
            "give the VPC a NAT gateway, or an interface endpoint com.amazonaws.REGION.ssm",
        )
    };
    Some(
        Finding::ok("ssm.sessions", subject, reason)
            .but(State::Failed, cause, remedy)
            .since(began),
    )
}

fn metadata_service(metadata: &Result<Metadata, NoMetadata>, has_keys: bool) -> Finding {
    let address = imds::address();
    let reason = match metadata {
        Ok(metadata) => return Finding::ok("imds", address, format!("version 2; {}", metadata.instance)),
        Err(reason) => reason,
    };
    if has_keys {
        let detail = format!("{reason}; not needed, there are credentials from elsewhere");
        return Finding::unneeded("imds", address, detail);
    }
    let finding = Finding::ok("imds", address, reason.to_string());
    match reason {
        NoMetadata::Disabled => finding.but(
            State::Failed,
            "the environment switches the metadata service off, and there are no other credentials",
            "unset AWS_EC2_METADATA_DISABLED",
        ),
        NoMetadata::Unreachable(_) => {
            let cause = if is_container() {
                "this is a container, and the likeliest reason is hop limit 1, with which the metadata service's answers end at the instance"
            } else {
                "a firewall keeps this user from it, it is switched off, this is no EC2 instance, or there is a container or another hop in between: with hop limit 1 its answers end at the instance"
            };
            finding.but(
                State::Failed,
                cause,
                "aws ec2 modify-instance-metadata-options --instance-id i-… --http-endpoint enabled --http-put-response-hop-limit 2 \
                 (1 is enough, and safer, for a gateway on the instance itself: let its user through the firewall to 169.254.169.254)",
            )
        }
        NoMetadata::Refused { .. } => finding.but(
            State::Failed,
            "the metadata service is switched off for this instance (403), or fails",
            "aws ec2 modify-instance-metadata-options --instance-id i-… --http-endpoint enabled",
        ),
    }
}

/// Whether this process is in a container, as far as the usual kinds say so.
fn is_container() -> bool {
    let marks = ["/.dockerenv", "/run/.containerenv"];
    marks.iter().any(|path| Path::new(path).exists()) || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

fn role(
    metadata: &Result<Metadata, NoMetadata>,
    keys: &Result<Arc<Keys>, NoCredentials>,
    imds_in_the_way: Option<String>,
) -> Finding {
    let now = metadata
        .as_ref()
        .ok()
        .and_then(|metadata| metadata.date)
        .unwrap_or_else(SystemTime::now);
    let profile = metadata.as_ref().ok().and_then(|metadata| metadata.role.as_ref());
    let name = profile.map_or("credentials", |role| role.name.as_str());
    let keys = match keys {
        Ok(keys) => keys,
        Err(reason) => {
            return match (imds_in_the_way, metadata) {
                (Some(prerequisite), _) => Finding::skipped("role", name, &prerequisite),
                (None, Ok(Metadata { role: None, instance, .. })) => {
                    Finding::ok("role", name, "none").but(
                        State::Failed,
                        "the instance has no instance profile, and there are no credentials from elsewhere",
                        format!("aws ec2 associate-iam-instance-profile --instance-id {instance} --iam-instance-profile Name=…"),
                    )
                }
                _ => Finding::ok("role", name, reason.to_string()).but(
                    State::Failed,
                    "the metadata service has no credentials for the role: it is deleted, or its trust policy doesn't name ec2.amazonaws.com",
                    "look at the role's trust policy, and attach the instance profile anew",
                ),
            };
        }
    };
    let used = profile.filter(|role| role.access_key_id.as_deref() == Some(keys.access_key_id()));
    let name = used.map_or("credentials", |role| role.name.as_str());
    let end = used.map_or_else(|| keys.expires_at(), |role| role.expires_at);
    let key = format!("access key {}", keys.access_key_id());
    let Some(end) = end else {
        return Finding::ok("role", name, format!("{key}, without an end"));
    };
    let cause = "the metadata service has nothing newer: the role is deleted, or its trust policy doesn't name ec2.amazonaws.com any more";
    let remedy = "look at the role's trust policy, and attach the instance profile anew";
    match end.duration_since(now) {
        Ok(Duration::ZERO) | Err(_) => {
            Finding::ok("role", name, format!("{key}, expired")).but(State::Failed, cause, remedy)
        }
        Ok(left) => {
            let shown = humantime::format_duration(Duration::from_secs(left.as_secs()));
            let finding = Finding::ok("role", name, format!("{key}, expires in {shown}"));
            if left < RENEWED_BEFORE {
                finding.but(State::Warning, cause, remedy)
            } else {
                finding
            }
        }
    }
}

/// `date`: who says what time it is, what he says, and what it was here.
fn clock(date: Option<(&str, SystemTime, SystemTime)>) -> Finding {
    let Some((by, theirs, ours)) = date else {
        return Finding::unneeded(
            "clock",
            "this host",
            "neither STS nor the metadata service says what time it is",
        );
    };
    let (skew, direction) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    let detail = format!("{} s {direction} {by}", skew.as_secs());
    let finding = Finding::ok("clock", "this host", detail);
    if skew <= SKEW_ODD {
        return finding;
    }
    let remedy = "sync it with chrony to Amazon's time: \"server 169.254.169.123 prefer iburst\" in /etc/chrony/chrony.conf, then chronyc makestep";
    if skew <= SKEW_MOST {
        return finding.but(State::Warning, "this host's clock isn't looked after", remedy);
    }
    finding.but(
        State::Failed,
        "this host's clock is wrong: tokens and requests bear its time, and AWS refuses those that are more than five minutes off",
        remedy,
    )
}

/// Whose credentials they are.
enum Whose {
    Of(String),
    /// STS refuses them.
    Nobodys,
    /// STS wasn't asked, or doesn't answer.
    Unknown,
}

/// Who AWS takes this host for.
fn whose(
    config: &Config,
    region: &str,
    usable: &Result<Arc<Keys>, String>,
    answered: Option<Result<Answered, String>>,
    clock_in_the_way: Option<String>,
) -> (Finding, Whose) {
    let subject = format!("STS in {region}");
    let answered = match (usable, answered) {
        (Ok(_), Some(answered)) => answered,
        (Err(prerequisite), _) => return (Finding::skipped("caller", subject, prerequisite), Whose::Unknown),
        (Ok(_), None) => return (Finding::skipped("caller", subject, "role"), Whose::Unknown),
    };
    let arn = match answered {
        Ok(Answered { arn: Ok(arn), .. }) => arn,
        Ok(Answered { arn: Err(_), .. }) if clock_in_the_way.is_some() => {
            let prerequisite = clock_in_the_way.unwrap_or_default();
            return (Finding::skipped("caller", subject, &prerequisite), Whose::Unknown);
        }
        Ok(Answered { arn: Err(code), .. }) => {
            let finding = Finding::ok("caller", subject, format!("STS refuses the credentials: {code}")).but(
                State::Failed,
                "the credentials are void: the role's sessions were revoked, or the key deleted",
                "look at the role in IAM; if its sessions were revoked, what the metadata service hands out from then on is good again",
            );
            return (finding, Whose::Nobodys);
        }
        Err(reason) => {
            let (state, need) = match config.identity.sts {
                Some(_) => (State::Failed, "identity.sources has \"sts\", which needs it"),
                None => (
                    State::Warning,
                    "the gateway doesn't need it; this check tells less without it",
                ),
            };
            let finding = Finding::ok("caller", subject, reason).but(
                state,
                format!("there is no way from this host to sts.{region}.amazonaws.com, or it fails; {need}"),
                "give the VPC a NAT gateway, or an interface endpoint com.amazonaws.REGION.sts that this host may reach on port 443",
            );
            return (finding, Whose::Unknown);
        }
    };
    let finding = Finding::ok("caller", subject, &arn);
    let finding = if arn.ends_with(":root") || arn.contains(":user/") {
        finding.but(
            State::Warning,
            "these are the long-lived keys of a user, not the credentials of a role",
            "give the instance a role by an instance profile, and delete the keys",
        )
    } else {
        finding
    };
    (finding, Whose::Of(arn))
}
