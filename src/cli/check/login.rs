//! One trial login for each user of an endpoint, and what is asked on it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;

use super::report::{Finding, State};
use super::room;
use super::server::{Facts, question};
use super::why::{self, Known};
use crate::config::{Endpoint, Target, region_of};
use crate::discovery::Described;
use crate::gateway::{Failing, Readiness};
use crate::ids::{DbUser, PoolKey};
use crate::upstream::Services;
use crate::upstream::error::{OpenError, Phase};
use crate::upstream::trial::Trial;

/// How long the logins of an endpoint may take together, the budget's slow start included.
const LOGINS_WITHIN: Duration = Duration::from_secs(9);

/// How long the answer to what is asked then may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// An endpoint and the targets that have it.
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    /// Those that are looked at.
    pub(super) targets: Vec<Arc<Target>>,
    /// All, whose pools count.
    pub(super) all: Vec<Arc<Target>>,
}

/// What is known before the logins.
pub(super) struct Before<'a> {
    pub(super) services: &'a Services,
    /// Of each of the server's targets, what stands in the way of a login.
    pub(super) in_the_way: Vec<Option<String>>,
    pub(super) database: Option<&'a Described>,
    pub(super) arn: Option<&'a str>,
    pub(super) gateways: usize,
}

/// A login that was tried.
struct Tried {
    target: Arc<Target>,
    user: DbUser,
    outcome: Result<Vec<(Phase, Duration)>, OpenError>,
    took: Duration,
}

impl Tried {
    fn subject(&self) -> String {
        format!("{}@{}", self.user, self.target.name)
    }
}

/// Whether tokens can be signed for a target; the first user's stands for all.
pub(super) fn token(target: &Target, services: &Services, in_the_way: Option<&str>) -> Finding {
    if let Some(prerequisite) = in_the_way {
        return Finding::skipped("token", &target.name, prerequisite);
    }
    let finding = |detail: String| Finding::ok("token", &target.name, detail);
    if let Some(region) = region_of(&target.endpoint.host).filter(|region| *region != target.region) {
        return finding(format!("signed for {}", target.region)).but(
            State::Failed,
            format!(
                "the endpoint is of {region}, where a token that is signed for {} is void",
                target.region
            ),
            format!("region = \"{region}\" in the target, or leave it out"),
        );
    }
    let Some(user) = target.users.first() else {
        return Finding::unneeded("token", &target.name, "no users");
    };
    let now = SystemTime::now();
    match services.tokens.get_now(target, user, now) {
        Ok(token) => {
            let left = token
                .times()
                .usable_until()
                .duration_since(now)
                .unwrap_or_default();
            let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
            finding(format!(
                "signed for {} by {}, good for {left}",
                target.region,
                token.access_key_id()
            ))
        }
        Err(error) => {
            let remedy = error.hint(user.as_str());
            finding(error.to_string()).but(State::Failed, "no token can be signed", remedy)
        }
    }
}

/// What a gateway's pools have come to, instead of logins of its own: of each user's pools the first that can't open connections is told.
pub(super) fn of_pools(server: &Server, before: &Before<'_>, readiness: &Readiness) -> Vec<Finding> {
    let Readiness { settled, failing, .. } = readiness;
    let mut findings = Vec::new();
    let mut told = Vec::new();
    let has_failed = |target: &Target, user: &DbUser| {
        let is_its = |of: &Failing| (&of.pool.target, &of.pool.user) == (&target.name, user);
        failing.iter().any(is_its)
    };
    let is_ahead = |target: &Target, user: &DbUser| {
        let mut pools = target.pools();
        pools.any(|(_, of, pool)| of == user && pool.min_idle > 0)
    };
    let works = |target: &Arc<Target>| {
        let mut users = target.users.iter();
        users.any(|user| is_ahead(target, user) && !has_failed(target, user))
    };
    let role_is_right = server.targets.iter().any(works);
    for (target, in_the_way) in server.targets.iter().zip(&before.in_the_way) {
        for user in &target.users {
            let subject = format!("{user}@{}", target.name);
            let is_its = |of: &&Failing| (&of.pool.target, &of.pool.user) == (&target.name, user);
            findings.push(match (failing.iter().find(is_its), in_the_way) {
                (known, Some(prerequisite)) if known.is_some() || !settled => {
                    Finding::skipped("login", &subject, prerequisite)
                }
                (Some(Failing { pool, error }), _) => {
                    let known = Known {
                        target,
                        user,
                        first_database: pool.database.as_str(),
                        database: before.database,
                        arn: before.arn,
                        role_is_right,
                    };
                    let why = why::of_login(error, &known);
                    match told.iter().find(|(known, _)| *known == why) {
                        Some((_, of)) => {
                            Finding::unneeded("login", &subject, format!("the same as login ({of})"))
                        }
                        None => {
                            told.push((why.clone(), subject.clone()));
                            Finding::ok("login", &subject, error.to_string()).but(State::Failed, why.0, why.1)
                        }
                    }
                }
                (None, _) if is_ahead(target, user) && !settled => {
                    Finding::unneeded("login", &subject, "its pools' connections are still being opened")
                }
                (None, _) if is_ahead(target, user) => {
                    Finding::ok("login", &subject, "its pools have connections")
                }
                (None, _) => Finding::unneeded("login", &subject, "not tried: no pool has min_idle"),
            });
        }
    }
    findings
}

/// Logs in as each user once, all at a time, and asks.
pub(super) async fn check(server: &Server, before: Before<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut trials = JoinSet::new();
    let mut seen: Vec<&DbUser> = Vec::new();
    let question: Arc<str> = question(&server.targets).into();
    for (target, in_the_way) in server.targets.iter().zip(&before.in_the_way) {
        for user in &target.users {
            if seen.contains(&user) {
                continue;
            }
            if let Some(prerequisite) = in_the_way {
                let subject = format!("{user}@{}", target.name);
                findings.push(Finding::skipped("login", &subject, prerequisite));
                findings.push(Finding::skipped("rds_iam", &subject, prerequisite));
            } else {
                seen.push(user);
                let (target, user) = (target.clone(), user.clone());
                let (services, question) = (before.services.clone(), question.clone());
                trials.spawn_local(async move { trial(target, user, &services, &question).await });
            }
        }
    }
    let mut tried = Vec::new();
    let mut answers = Vec::new();
    while let Some(ended) = trials.join_next().await {
        // An error would be a panic, which has told of itself.
        let Ok((trial, answer)) = ended else { continue };
        answers.extend(answer);
        tried.push(trial);
    }
    tried.sort_by_key(Tried::subject);
    let facts = answers.iter().find_map(|answer| answer.as_ref().ok());
    let silent = answers.iter().find_map(|answer| {
        let reason = answer.as_ref().err().filter(|_| facts.is_none())?;
        Some(Finding::ok("server", &server.endpoint, reason).but(
            State::Failed,
            "the server lets users in, and doesn't tell of roles and databases what everybody may read (pg_roles, pg_auth_members, pg_database, pg_settings)",
            "look into its log, and whether somebody has revoked SELECT on these from PUBLIC",
        ))
    });
    let unasked = silent
        .as_ref()
        .and_then(Finding::is_in_the_way)
        .or_else(|| Some(format!("login ({})", tried.first()?.subject())))
        .or_else(|| before.in_the_way.iter().flatten().next().cloned())
        .unwrap_or_default();
    let mut told = Vec::new();
    for trial in &tried {
        findings.extend(login(trial, facts, &before, &unasked, &mut told));
    }
    findings.extend(silent);
    findings.extend(of_the_server(server, facts, &unasked, before.gateways));
    findings
}

async fn trial(
    target: Arc<Target>,
    user: DbUser,
    services: &Services,
    question: &str,
) -> (Tried, Option<Result<Facts, String>>) {
    let began = Instant::now();
    let database = target.databases.first().cloned();
    let key = PoolKey {
        target: target.name.clone(),
        database: database.unwrap_or_else(|| user.as_str().into()),
        user: user.clone(),
    };
    let opened = Trial::log_in(&target, &key, services, LOGINS_WITHIN).await;
    let took = began.elapsed();
    let (outcome, answer) = match opened {
        Ok(trial) => {
            let phases = trial.phases().to_vec();
            let answer = trial.ask(question, ANSWERED_WITHIN).await;
            let answer = answer.map(Facts::read).map_err(|error| error.to_string());
            (Ok(phases), Some(answer))
        }
        Err(error) => (Err(error), None),
    };
    let tried = Tried {
        target,
        user,
        outcome,
        took,
    };
    (tried, answer)
}

/// `unasked`: why nobody could ask about roles, if so; `told`: what was told of others' logins, and is then to be told once.
fn login(
    trial: &Tried,
    facts: Option<&Facts>,
    before: &Before<'_>,
    unasked: &str,
    told: &mut Vec<((String, String), String)>,
) -> [Finding; 2] {
    let subject = trial.subject();
    let rds_iam = match facts {
        Some(facts) => facts.rds_iam(&trial.user, subject.clone()),
        None if trial.outcome.is_ok() => Finding::skipped("rds_iam", &subject, unasked),
        None => Finding::skipped("rds_iam", &subject, &format!("login ({subject})")),
    };
    let finding = |detail: String| Finding::ok("login", &subject, detail).took(trial.took);
    let error = match &trial.outcome {
        Ok(phases) => {
            let shown: Vec<String> = phases
                .iter()
                .map(|(phase, took)| format!("{} {} ms", phase.label(), took.as_millis()))
                .collect();
            return [finding(shown.join(", ")), rds_iam];
        }
        Err(error) => error,
    };
    // What the server itself says of it is told there.
    let is_known = match error {
        _ if rds_iam.state == State::Failed => Some(format!("rds_iam ({subject})")),
        OpenError::Refused { state, .. } if state == "42501" && facts.is_some() => {
            let database = trial.target.databases.first().map_or("", |name| name.as_str());
            Some(format!("database ({database}@{})", trial.target.name))
        }
        _ => None,
    };
    if let Some(prerequisite) = is_known {
        return [Finding::skipped("login", &subject, &prerequisite), rds_iam];
    }
    let why = why::of_login(
        error,
        &Known {
            target: &trial.target,
            user: &trial.user,
            first_database: trial.target.databases.first().map_or("", |name| name.as_str()),
            database: before.database,
            arn: before.arn,
            role_is_right: facts.is_some(),
        },
    );
    if let Some((_, of)) = told.iter().find(|(known, _)| *known == why) {
        let same = Finding::unneeded("login", &subject, format!("the same as login ({of})"));
        return [same.took(trial.took), rds_iam];
    }
    told.push((why.clone(), subject.clone()));
    let (cause, remedy) = why;
    [
        finding(error.to_string()).but(State::Failed, cause, remedy),
        rds_iam,
    ]
}

/// What isn't about one user.
fn of_the_server(server: &Server, facts: Option<&Facts>, unasked: &str, gateways: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    for target in &server.targets {
        for name in &target.databases {
            let subject = format!("{name}@{}", target.name);
            findings.push(match facts {
                Some(facts) => facts.database(name, &target.users, subject),
                None => Finding::skipped("database", subject, unasked),
            });
        }
    }
    match facts {
        Some(facts) => {
            findings.extend(facts.masters(&server.endpoint));
            findings.extend(room::check(facts, &server.endpoint, &server.all, gateways));
        }
        None => findings.push(Finding::skipped("connections", &server.endpoint, unasked)),
    }
    findings
}
