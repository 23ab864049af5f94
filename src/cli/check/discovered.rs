//! Targets that RDS is asked for: whether it knows them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::report::{Finding, State};
use super::why;
use crate::app::discovery::look_once;
use crate::aws::credentials::Keys;
use crate::aws::rds::{self, NotDescribed};
use crate::config::{Config, Discovery, Remark};
use crate::discovery::{Found, Selector};

/// How long the metadata service may take to say which region this is.
const REGION_WITHIN: Duration = Duration::from_secs(2);

/// Where STS is asked if nothing says which region this is: there is one everywhere that knows all.
const ANY_REGION: &str = "us-east-1";

/// This host's region, as far as it can be known.
pub(super) async fn own_region() -> String {
    let region = timeout(REGION_WITHIN, rds::own_region()).await;
    region.ok().flatten().unwrap_or_else(|| ANY_REGION.to_owned())
}

/// The configuration with what RDS knows of it, and what was found out.
pub(super) async fn look(config: &Config, keys: &Result<Arc<Keys>, String>) -> (Config, Vec<Finding>) {
    let keys = match keys {
        Ok(keys) => keys,
        Err(prerequisite) => {
            let names = config.discoveries.iter().map(Discovery::name);
            let skipped = names.map(|name| Finding::skipped("discovery", name, prerequisite));
            return (config.clone(), skipped.collect());
        }
    };
    let began = Instant::now();
    let (found, refused) = look_once(config, keys).await;
    let (with_found, remarks) = config.with_found(&found);
    let of_each = config.discoveries.iter().map(|discovery| {
        let refused = refused.iter().find(|(search, _)| *search == discovery.search);
        let absent = with_found
            .absent
            .iter()
            .find(|absent| absent.name == *discovery.name());
        let finding = match absent {
            Some(absent) if found.databases(&discovery.search).next().is_some() => {
                Finding::ok("discovery", discovery.name(), &*absent.reason).but(
                    State::Failed,
                    "RDS has it, and not as the target wants it",
                    "give the target what fits: discover.endpoint = \"writer\", a name and a place of its own, the iam of the other target that is there",
                )
            }
            Some(absent) => absent_one(discovery, &absent.reason, refused.map(|(_, error)| error)),
            None => Finding::ok("discovery", discovery.name(), known(discovery, &found)),
        };
        finding.since(began)
    });
    let mut findings: Vec<Finding> = of_each.collect();
    findings.extend(remarks.into_iter().filter_map(|remark| match remark {
        Remark::Unfit(reason) => Some(Finding::ok("discovery", "names", &reason).but(
            State::Warning,
            "each target needs a name and a place of its own",
            "give the target another name, such as \"*-ro\", or what isn't meant other tags",
        )),
        // The way there and RDS say so too.
        Remark::Absent(_) | Remark::Amiss(_) => None,
    }));
    (with_found, findings)
}

/// Of a gateway that has just started: what it couldn't find.
pub(super) fn absent_at_start(config: &Config) -> Vec<Finding> {
    let absent = config.absent.iter().map(|absent| {
        Finding::ok("discovery", &absent.name, &*absent.reason).but(
            State::Failed,
            "RDS doesn't know it, or can't be asked; the gateway goes on asking",
            "postern check: it asks too, and says what to do",
        )
    });
    absent.collect()
}

fn known(discovery: &Discovery, found: &Found) -> String {
    let search = &discovery.search;
    let databases = found
        .databases(search)
        .map(|database| format!("{} {} in {}", database.kind, database.identifier, database.region));
    let known: Vec<String> = databases
        .chain(found.trouble(search).map(str::to_owned))
        .collect();
    known.join(", ")
}

fn absent_one(discovery: &Discovery, reason: &str, refused: Option<&NotDescribed>) -> Finding {
    let finding = Finding::ok("discovery", discovery.name(), reason);
    let region = discovery.search.region.as_deref();
    let region = region
        .map(|region| format!(" --region {region}"))
        .unwrap_or_default();
    let (cause, remedy) = match (refused, &discovery.search.selector) {
        (Some(NotDescribed::Denied { .. }), _) => (
            "this host's role may not ask RDS where its databases are, and discover wants it asked",
            format!("add to the role's policy: {}", why::DESCRIBE_STATEMENT),
        ),
        (Some(_), _) => (
            "there is no way from this host to RDS's API, or it fails, and discover wants it asked",
            "give the VPC a NAT gateway, or an interface endpoint com.amazonaws.REGION.rds".to_owned(),
        ),
        (None, Selector::Tags(_)) => (
            "nothing that speaks PostgreSQL's protocol in this account and region has all these tags, or what has them is only being made",
            format!(
                "aws rds add-tags-to-resource{region} --resource-name ARN --tags Key=…,Value=…, on the cluster, or on an instance that isn't of one"
            ),
        ),
        (None, Selector::Cluster(_)) => (
            "it is misspelt, gone, of another kind, or of another account or region",
            format!(
                "take one of: aws rds describe-db-clusters{region} --query \"DBClusters[].DBClusterIdentifier\""
            ),
        ),
        (None, Selector::Instance(_)) => (
            "it is misspelt, gone, of another kind, or of another account or region",
            format!(
                "take one of: aws rds describe-db-instances{region} --query \"DBInstances[].DBInstanceIdentifier\""
            ),
        ),
    };
    finding.but(State::Failed, cause, remedy)
}
