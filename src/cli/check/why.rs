//! Why a step didn't work, and what to do about it.

use crate::config::{Target, region_of};
use crate::discovery::Described;
use crate::ids::DbUser;
use crate::tls::Failure;
use crate::upstream::error::{OpenError, Phase};
use crate::wire::request::quoted;

/// What this check asks RDS.
pub(super) const DESCRIBE_STATEMENT: &str = r#"{"Effect": "Allow", "Action": ["rds:DescribeDBInstances", "rds:DescribeDBClusters"], "Resource": "*"}"#;

/// Why there is no connection to `target`, before any login.
pub(super) fn of_the_way(error: &OpenError, target: &Target) -> (String, String) {
    let host = &target.endpoint.host;
    let cause = match error {
        OpenError::Resolve { .. } => format!("this host's resolver has no address for {host}: it is misspelt, gone, or the VPC's DNS isn't asked"),
        OpenError::Connect { .. } => "nobody listens there: the database is stopped, or the port is wrong".to_owned(),
        OpenError::Timeout { phase: Phase::Connect, .. } => {
            "the packets are dropped: the database's security group doesn't admit this host on this port, or there is no route".to_owned()
        }
        OpenError::TlsRefused => "who answers has TLS switched off, and so isn't RDS".to_owned(),
        OpenError::Tls(Failure::UnknownIssuer) => {
            "the server's certificate comes from an authority that isn't trusted here: an RDS Proxy, a newer region, or somebody in between".to_owned()
        }
        OpenError::Tls(Failure::WrongName { .. }) => {
            format!("the server's certificate isn't {host}'s: endpoint is an alias, or dial_address leads elsewhere")
        }
        OpenError::Tls(Failure::Expired) => "the server's certificate is over, or this host's clock is wrong".to_owned(),
        OpenError::Closed { .. } | OpenError::Timeout { .. } => {
            "who answers ends the connection, or doesn't go on: the database is starting, failing over, or overloaded".to_owned()
        }
        _ => "who answers there doesn't speak as RDS does".to_owned(),
    };
    (cause, error.hint(""))
}

/// The statement that lets this host's role log in as `user`, with what isn't known left open.
pub(super) fn connect_statement(
    target: &Target,
    user: &DbUser,
    database: Option<&Described>,
    arn: Option<&str>,
) -> String {
    let region = region_of(&target.endpoint.host).unwrap_or(&target.region);
    let of = |arn: &str, part: usize| arn.split(':').nth(part).map(str::to_owned);
    let known = database.map(|database| database.arn.as_str()).or(arn);
    let partition = known
        .and_then(|arn| of(arn, 1))
        .unwrap_or_else(|| "aws".to_owned());
    let account = known
        .and_then(|arn| of(arn, 4))
        .unwrap_or_else(|| "ACCOUNT".to_owned());
    let resource = database.map_or("RESOURCE_ID", |database| database.resource_id.as_str());
    let resource = format!("arn:{partition}:rds-db:{region}:{account}:dbuser:{resource}/{user}");
    let resource = serde_json::Value::from(resource);
    format!(r#"{{"Effect": "Allow", "Action": "rds-db:connect", "Resource": {resource}}}"#)
}

/// What is known when a login has failed.
pub(super) struct Known<'a> {
    pub(super) target: &'a Target,
    pub(super) user: &'a DbUser,
    pub(super) first_database: &'a str,
    pub(super) database: Option<&'a Described>,
    pub(super) arn: Option<&'a str>,
    /// Whether another user's login told that the server has this one right.
    pub(super) role_is_right: bool,
}

/// Why a login has failed.
pub(super) fn of_login(error: &OpenError, known: &Known<'_>) -> (String, String) {
    let Known {
        user, first_database, ..
    } = known;
    let role = quoted(user.as_str());
    match error {
        OpenError::Refused { message, .. } if message.contains("not permitted to log in") => (
            format!("the role {role} has no LOGIN"),
            format!("ALTER ROLE {role} LOGIN;"),
        ),
        OpenError::Refused { message, .. } if message.contains("pg_hba.conf") => (
            "the server admits no login from this host, or by this user, at all".to_owned(),
            "look at the server's pg_hba.conf; RDS has none that says so, so look whether the endpoint is RDS".to_owned(),
        ),
        OpenError::Refused { state, .. } if state == "3D000" => (
            format!("the server has no database {}", quoted(first_database)),
            format!(
                "correct databases of target {}, or: CREATE DATABASE {};",
                known.target.name,
                quoted(first_database)
            ),
        ),
        OpenError::Refused { state, .. } if state == "42501" => (
            format!("{role} may not connect to the database {}", quoted(first_database)),
            format!("GRANT CONNECT ON DATABASE {} TO {role};", quoted(first_database)),
        ),
        OpenError::Refused { state, message, .. } if state == "53300" => (
            format!("the server has no connection left for this login: {message}"),
            "close what isn't used, lower pool.size, or raise max_connections (or the CONNECTION LIMIT of the role or database)".to_owned(),
        ),
        OpenError::Refused { state, .. } if state == "28000" => refused_token(known),
        OpenError::Refused { state, .. } if state == "28P01" => not_iam(known),
        OpenError::NotIam(_) => not_iam(known),
        OpenError::Refused { state, .. } if state.starts_with("57") => (
            "the server is starting, stopping or failing over".to_owned(),
            "wait until it is available, and check again".to_owned(),
        ),
        OpenError::Budget(_) | OpenError::Timeout { phase: Phase::Budget, .. } => (
            "the login budget allows no login in the time that a check has, or the server is overloaded and doesn't even ask for a token".to_owned(),
            "raise targets[].iam.logins_per_second, or check fewer users with --target".to_owned(),
        ),
        OpenError::NotAsked => (
            "the server lets everybody in, and so isn't RDS".to_owned(),
            error.hint(user.as_str()),
        ),
        error => of_the_way(error, known.target),
    }
}

/// "PAM authentication failed" (28000) is all that RDS says, whatever is wrong with a token: what is left, the likeliest first.
fn refused_token(known: &Known<'_>) -> (String, String) {
    let Known {
        target,
        user,
        database,
        arn,
        role_is_right,
        ..
    } = known;
    let role = quoted(user.as_str());
    let statement = connect_statement(target, user, *database, *arn);
    let mut causes = vec![format!(
        "the policy of {} lacks rds-db:connect as {role} on this database, or a permissions boundary or an SCP takes it away",
        arn.unwrap_or("this host's role")
    )];
    let mut remedy = format!("add to the role's policy: {statement}");
    if !role_is_right {
        causes.push(format!("{role} isn't a member of rds_iam"));
        remedy.push_str(&format!("\nif it has that: GRANT rds_iam TO {role};"));
    }
    if database.is_none() {
        causes.push("IAM database authentication is off (RDS couldn't be asked)".to_owned());
        remedy.push_str("\nand look whether IAM database authentication is on");
    }
    causes.push(
        "RDS throttles IAM logins or its IAM service fails (CloudWatch, IamDbAuthConnectionFailure*)"
            .to_owned(),
    );
    // STS has taken the credentials and the time if it has named the role; TLS has told the endpoint's name.
    let right = arn.map_or(
        "region and endpoint",
        |_| "region, endpoint, credentials and clock",
    );
    let mut told = format!("the server refuses the token, although {right} are right; in this order: ");
    let numbered: Vec<String> = causes
        .iter()
        .enumerate()
        .map(|(number, cause)| format!("{}. {cause}", number + 1))
        .collect();
    told.push_str(&numbered.join("; "));
    (told, remedy)
}

/// The server doesn't ask for a token.
fn not_iam(known: &Known<'_>) -> (String, String) {
    let role = quoted(known.user.as_str());
    let (off, look) = match known.database {
        Some(_) => ("", ""),
        None => (
            ", or IAM database authentication is off (RDS couldn't be asked)",
            "\nif it is a member: switch on IAM database authentication",
        ),
    };
    (
        format!(
            "the server wants a password from {role}: there is no such role, or it isn't a member of rds_iam{off}"
        ),
        format!("CREATE USER {role}; if it isn't there, then: GRANT rds_iam TO {role};{look}"),
    )
}
