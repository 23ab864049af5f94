//! Whether a server has room for what the pools of all gateways may open.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::report::{Finding, State};
use super::server::Facts;
use crate::config::{Endpoint, Target};
use crate::wire::request::quoted;

/// Slots that aren't for everybody (PostgreSQL documentation, "Connections and Authentication"; the second from version 16 on, the third RDS's own).
const RESERVED: [&str; 3] = [
    "superuser_reserved_connections",
    "reserved_connections",
    "rds.rds_superuser_reserved_connections",
];

/// What the pools of all gateways at one endpoint may come to.
#[derive(Default)]
struct Pools<'a> {
    most: i64,
    /// Kept open all the time.
    least: i64,
    by_role: BTreeMap<&'a str, i64>,
    by_database: BTreeMap<&'a str, i64>,
}

impl<'a> Pools<'a> {
    fn of(targets: &'a [Arc<Target>], gateways: usize) -> Self {
        let times = |count: usize| i64::try_from(count.saturating_mul(gateways)).unwrap_or(i64::MAX);
        let mut pools = Self::default();
        for (database, user, pool) in targets.iter().flat_map(|target| target.pools()) {
            let size = times(pool.size);
            for sum in [
                &mut pools.most,
                pools.by_role.entry(user.as_str()).or_default(),
                pools.by_database.entry(database.as_str()).or_default(),
            ] {
                *sum = sum.saturating_add(size);
            }
            pools.least = pools.least.saturating_add(times(pool.min_idle));
        }
        pools
    }
}

/// The server's own limit, and then those of roles and databases that are too low.
pub(super) fn check(
    facts: &Facts,
    endpoint: &Endpoint,
    targets: &[Arc<Target>],
    gateways: usize,
) -> Vec<Finding> {
    let pools = Pools::of(targets, gateways);
    let mut findings = vec![of_server(facts, endpoint, &pools, gateways)];
    for (name, most) in &pools.by_role {
        let subject = format!("{name}@{}", endpoint.host);
        findings.extend(too_low("role", name, &subject, facts.limit_of_role(name), *most));
    }
    for (name, most) in &pools.by_database {
        let subject = format!("{name} at {}", endpoint.host);
        findings.extend(too_low(
            "database",
            name,
            &subject,
            facts.limit_of_database(name),
            *most,
        ));
    }
    findings
}

fn of_server(facts: &Facts, endpoint: &Endpoint, pools: &Pools<'_>, gateways: usize) -> Finding {
    let Pools { most, least, .. } = pools;
    let all = facts.setting("max_connections");
    let reserved: i64 = RESERVED.iter().map(|name| facts.setting(name)).sum();
    let free = all - reserved;
    let detail =
        format!("pools {most} of {gateways} gateway(s), {free} allowed ({all} less {reserved} reserved)");
    let finding = Finding::ok("connections", endpoint, detail);
    let remedy = "lower pool.size (or users, databases, gateways), or raise max_connections by a larger class or in the parameter group";
    if *least > free {
        let cause = format!(
            "the pools' min_idle alone is {least}, more than max_connections leaves: logins will fail with 53300 for good"
        );
        finding.but(State::Failed, cause, remedy)
    } else if *most > free {
        let cause = "full pools are more than max_connections leaves: when many clients work, logins fail with 53300, other programs' as well";
        finding.but(State::Warning, cause, remedy)
    } else {
        finding
    }
}

/// `kind`: `role` or `database`.
fn too_low(kind: &str, name: &str, subject: &str, limit: Option<i64>, most: i64) -> Option<Finding> {
    let limit = limit.filter(|limit| most > *limit)?;
    let name = quoted(name);
    let finding = Finding::ok("connections", subject, format!("pools {most}, {limit} allowed"));
    Some(finding.but(
        State::Warning,
        format!("the {kind} {name} has CONNECTION LIMIT {limit}, less than its pools: when they are full, logins fail with 53300"),
        format!("ALTER {} {name} CONNECTION LIMIT {most}; or a lower pool.size", kind.to_uppercase()),
    ))
}
