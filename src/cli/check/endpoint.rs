//! The way to an endpoint, and what RDS says of it: no login yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::report::{Finding, State};
use super::why;
use crate::aws::credentials::Keys;
use crate::aws::rds::{NotDescribed, describe};
use crate::config::{Target, region_of};
use crate::discovery::{Described, enabling_iam};
use crate::upstream::error::{OpenError, Phase};
use crate::upstream::trial::{reach, resolve};

/// How long each step may take, if the target's own limit isn't shorter.
const STEP_WITHIN: Duration = Duration::from_secs(4);

/// How long RDS may take.
const DESCRIBED_WITHIN: Duration = Duration::from_secs(4);

/// States in which a database can't be reached, by their beginnings; in others, such as `backing-up` and `modifying`, it serves (RDS User Guide,
/// "Viewing Amazon RDS DB instance status").
const DOWN: [&str; 13] = [
    "creating",
    "deleting",
    "failed",
    "failing-over",
    "inaccessible-encryption-credentials",
    "incompatible-",
    "insufficient-capacity",
    "rebooting",
    "restore-error",
    "starting",
    "stopped",
    "stopping",
    "storage-full",
];

/// DNS, TCP and TLS.
pub(super) async fn way(target: &Target) -> Vec<Finding> {
    let began = Instant::now();
    let dns = match (step(Phase::Connect, resolve(target)).await, target.dial_address) {
        (_, Some(address)) => Finding::ok(
            "dns",
            &target.name,
            format!("not asked: dial_address is {address}"),
        ),
        (Ok(addresses), None) => {
            let shown: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            Finding::ok("dns", &target.name, shown.join(", "))
        }
        (Err(error), None) => failed("dns", target, &error),
    };
    let dns = dns.since(began);
    let skipped = |check, prerequisite: &str| Finding::skipped(check, &target.name, prerequisite);
    if let Some(prerequisite) = dns.is_in_the_way() {
        return vec![dns, skipped("tcp", &prerequisite), skipped("tls", &prerequisite)];
    }
    let began = Instant::now();
    let (tcp, reached) = match step(Phase::Connect, reach(target)).await {
        Ok(reached) => {
            let address = reached.address().map(|address| address.to_string());
            let tcp = Finding::ok("tcp", &target.name, address.unwrap_or_default());
            (tcp, reached)
        }
        Err(error) => {
            let tcp = failed("tcp", target, &error).since(began);
            let prerequisite = tcp.is_in_the_way().unwrap_or_default();
            return vec![dns, tcp, skipped("tls", &prerequisite)];
        }
    };
    let tcp = tcp.since(began);
    let began = Instant::now();
    let tls = match step(Phase::Tls, reached.encrypt(target)).await {
        Ok(()) => {
            let detail = format!("chain and name {} verified", target.endpoint.host);
            Finding::ok("tls", &target.name, detail)
        }
        Err(error) => failed("tls", target, &error),
    };
    vec![dns, tcp, tls.since(began)]
}

fn failed(check: &'static str, target: &Target, error: &OpenError) -> Finding {
    let (cause, remedy) = why::of_the_way(error, target);
    Finding::ok(check, &target.name, error.to_string()).but(State::Failed, cause, remedy)
}

async fn step<T>(phase: Phase, doing: impl Future<Output = Result<T, OpenError>>) -> Result<T, OpenError> {
    let limit = STEP_WITHIN;
    timeout(limit, doing)
        .await
        .unwrap_or(Err(OpenError::Timeout { phase, limit }))
}

/// What RDS says of the endpoint of `target`: `rds` and `iam_auth`.
pub(super) async fn described(
    target: &Target,
    keys: &Result<Arc<Keys>, String>,
) -> (Vec<Finding>, Option<Described>) {
    let skipped = |check, prerequisite: &str| Finding::skipped(check, &target.name, prerequisite);
    let keys = match keys {
        Ok(keys) => keys,
        Err(prerequisite) => {
            return (
                vec![skipped("rds", prerequisite), skipped("iam_auth", prerequisite)],
                None,
            );
        }
    };
    let began = Instant::now();
    let region = region_of(&target.endpoint.host).unwrap_or(&target.region);
    let described = timeout(DESCRIBED_WITHIN, describe(keys, region, &target.endpoint.host))
        .await
        .unwrap_or_else(|_| Err(NotDescribed::Unavailable("no answer in time".to_owned())));
    match described {
        Ok(database) => {
            let iam_auth = iam_auth(target, region, &database);
            (
                vec![rds(target, &database).since(began), iam_auth],
                Some(database),
            )
        }
        Err(error) => {
            let rds = not_described(target, &error).since(began);
            let iam_auth = skipped("iam_auth", &format!("rds ({})", target.name));
            (vec![rds, iam_auth], None)
        }
    }
}

fn rds(target: &Target, database: &Described) -> Finding {
    let Described {
        kind,
        identifier,
        resource_id,
        engine,
        status,
        ..
    } = database;
    let detail = format!("{kind} {identifier} ({resource_id}), {engine}, {status}");
    let finding = Finding::ok("rds", &target.name, detail);
    if !database.is_postgres() {
        return finding.but(
            State::Failed,
            format!("its engine is {engine}, which doesn't speak PostgreSQL's protocol"),
            "name the endpoint of a PostgreSQL database in the target",
        );
    }
    if let Some(port) = database.port.filter(|port| *port != target.endpoint.port) {
        return finding.but(
            State::Failed,
            format!("its port is {port}, and the target's is {}", target.endpoint.port),
            format!("endpoint = \"{}:{port}\" in the target", target.endpoint.host),
        );
    }
    if DOWN.iter().any(|down| status.starts_with(down)) {
        return finding.but(
            State::Warning,
            format!("while it is {status} it may refuse connections"),
            "wait until it is available, or start it; events are in the RDS console",
        );
    }
    finding
}

fn iam_auth(target: &Target, region: &str, database: &Described) -> Finding {
    if database.has_iam {
        return Finding::ok("iam_auth", &target.name, "on");
    }
    Finding::ok("iam_auth", &target.name, "off").but(
        State::Failed,
        "IAM database authentication is off, so the database takes no tokens",
        enabling_iam(database.kind, &database.identifier, region),
    )
}

fn not_described(target: &Target, error: &NotDescribed) -> Finding {
    let detail = error.to_string();
    let (cause, remedy) = match error {
        NotDescribed::OtherName(_) => return Finding::unneeded("rds", &target.name, detail),
        NotDescribed::NotFound(_) => (
            "the endpoint is misspelt, gone, or of another account or region",
            "take the endpoint from the RDS console, as it is written there".to_owned(),
        ),
        NotDescribed::Denied { .. } => (
            "this host's role may not ask RDS; the gateway needs it not, and this check tells less without it",
            format!("add to the role's policy: {}", why::DESCRIBE_STATEMENT),
        ),
        NotDescribed::Unavailable(_) => (
            "there is no way from this host to RDS's API, or it fails; the gateway needs it not, and this check tells less without it",
            "give the VPC a NAT gateway, or an interface endpoint com.amazonaws.REGION.rds".to_owned(),
        ),
    };
    Finding::ok("rds", &target.name, detail).but(State::Warning, cause, remedy)
}
