//! What RDS says of databases: DescribeDBInstances and DescribeDBClusters.

use std::time::Duration;

use aws_config::default_provider::region::DefaultRegionChain;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_rds::Client;
use aws_sdk_rds::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_rds::types::{DbCluster, DbInstance, Filter, Tag};

use super::credentials::{Keys, chain_of};
use crate::discovery::{Described, Kind, Selector, region_of};

/// How long one call may take.
const CALL_WITHIN: Duration = Duration::from_secs(3);

/// RDS says nothing of the database.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotDescribed {
    /// The endpoint isn't named as RDS names endpoints of instances and clusters.
    #[error("{0} isn't the name of an instance's or a cluster's endpoint")]
    OtherName(String),
    /// There is nothing of that name in this account and region.
    #[error("RDS knows no {0} in this account and region")]
    NotFound(String),
    /// This host's role may not ask.
    #[error("RDS refuses {call}: {reason}")]
    Denied {
        /// Which call.
        call: &'static str,
        /// What it says.
        reason: String,
    },
    /// RDS can't be asked.
    #[error("{0}")]
    Unavailable(String),
}

/// An endpoint's name by what it belongs to (RDS User Guide and Aurora User Guide, "endpoint"): `NAME.cluster-ID.REGION…` and
/// `NAME.cluster-ro-ID…` of a cluster, `NAME.cluster-custom-ID…` with a name of its own, `NAME.ID.REGION…` of an instance.
#[derive(Debug, PartialEq, Eq)]
enum Named<'a> {
    Cluster(&'a str),
    Custom,
    Instance(&'a str),
}

fn named(host: &str) -> Option<Named<'_>> {
    let is_rds = region_of(host).is_some();
    let mut labels = host.split('.');
    let (name, id) = (labels.next()?, labels.next()?);
    if !is_rds || id.starts_with("proxy-") || labels.clone().count() < 4 {
        return None;
    }
    Some(if id.starts_with("cluster-custom-") {
        Named::Custom
    } else if id.starts_with("cluster-") {
        Named::Cluster(name)
    } else {
        Named::Instance(name)
    })
}

/// Asks the RDS of `region` what is behind the endpoint `host`.
pub async fn describe(keys: &Keys, region: &str, host: &str) -> Result<Described, NotDescribed> {
    let named = named(host).ok_or_else(|| NotDescribed::OtherName(host.to_owned()))?;
    let client = client(keys, region).await;
    match named {
        Named::Cluster(name) => cluster(&client, name).await,
        Named::Custom => custom(&client, host).await,
        Named::Instance(name) => {
            let asked = client.describe_db_instances().db_instance_identifier(name);
            let answer = asked
                .send()
                .await
                .map_err(|error| not_described("rds:DescribeDBInstances", name, &error))?;
            let instance = answer
                .db_instances
                .and_then(|found| found.into_iter().next())
                .ok_or_else(|| NotDescribed::NotFound(name.to_owned()))?;
            match &instance.db_cluster_identifier {
                Some(of) => cluster(&client, of).await,
                None => of_instance(instance),
            }
        }
    }
}

/// The region of this host: from the environment, a profile, or the metadata service.
pub async fn own_region() -> Option<String> {
    let region = DefaultRegionChain::builder().build().region().await;
    region.map(|region| region.to_string())
}

/// Asks the RDS of `region` for all that `selectors` may select: everything if one goes by tags, else what is called so and the members of
/// such clusters. At most three calls, or one for each hundred clusters and instances.
pub async fn list(
    keys: &Keys,
    region: &str,
    selectors: &[&Selector],
) -> Result<Vec<Described>, NotDescribed> {
    let client = client(keys, region).await;
    let (mut clusters, mut instances) = (Vec::new(), Vec::new());
    for selector in selectors {
        match selector {
            Selector::Tags(_) => return listed(&client, Wanted::All, Wanted::All).await,
            Selector::Cluster(name) => clusters.push(name.clone()),
            Selector::Instance(name) => instances.push(name.clone()),
        }
    }
    let members = filter("db-cluster-id", &clusters);
    let mut all = listed(&client, filter("db-cluster-id", &clusters), members).await?;
    let of_name = filter("db-instance-id", &instances);
    all.extend(listed(&client, Wanted::Nothing, of_name).await?);
    Ok(all)
}

/// What of a list is asked for.
enum Wanted {
    All,
    Nothing,
    Only(Filter),
}

fn filter(name: &str, values: &[String]) -> Wanted {
    match values {
        [] => Wanted::Nothing,
        _ => Wanted::Only(
            Filter::builder()
                .name(name)
                .set_values(Some(values.to_vec()))
                .build(),
        ),
    }
}

async fn listed(
    client: &Client,
    clusters: Wanted,
    instances: Wanted,
) -> Result<Vec<Described>, NotDescribed> {
    let mut all = Vec::new();
    if let Some(filters) = clusters.filters() {
        let asked = client.describe_db_clusters().set_filters(filters);
        let found: Result<Vec<_>, _> = asked.into_paginator().items().send().collect().await;
        let found = found.map_err(|error| not_described("rds:DescribeDBClusters", "cluster", &error))?;
        all.extend(found.into_iter().filter_map(|cluster| of_cluster(cluster).ok()));
    }
    if let Some(filters) = instances.filters() {
        let asked = client.describe_db_instances().set_filters(filters);
        let found: Result<Vec<_>, _> = asked.into_paginator().items().send().collect().await;
        let found = found.map_err(|error| not_described("rds:DescribeDBInstances", "instance", &error))?;
        all.extend(
            found
                .into_iter()
                .filter_map(|instance| of_instance(instance).ok()),
        );
    }
    Ok(all)
}

impl Wanted {
    fn filters(self) -> Option<Option<Vec<Filter>>> {
        match self {
            Self::Nothing => None,
            Self::All => Some(None),
            Self::Only(filter) => Some(Some(vec![filter])),
        }
    }
}

async fn client(keys: &Keys, region: &str) -> Client {
    let timeouts = TimeoutConfig::builder().operation_timeout(CALL_WITHIN).build();
    let config = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region.to_owned()))
        .credentials_provider(keys.credentials.clone())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(2))
        .load()
        .await;
    Client::new(&config)
}

async fn cluster(client: &Client, name: &str) -> Result<Described, NotDescribed> {
    let asked = client.describe_db_clusters().db_cluster_identifier(name);
    let answer = asked
        .send()
        .await
        .map_err(|error| not_described("rds:DescribeDBClusters", name, &error))?;
    let found = answer.db_clusters.and_then(|found| found.into_iter().next());
    of_cluster(found.ok_or_else(|| NotDescribed::NotFound(name.to_owned()))?)
}

/// The cluster that has a custom endpoint of this name, among the first hundred.
async fn custom(client: &Client, host: &str) -> Result<Described, NotDescribed> {
    let answer = client
        .describe_db_clusters()
        .send()
        .await
        .map_err(|error| not_described("rds:DescribeDBClusters", host, &error))?;
    let has = |cluster: &DbCluster| cluster.custom_endpoints().iter().any(|name| name == host);
    let found = answer.db_clusters.unwrap_or_default().into_iter().find(has);
    of_cluster(found.ok_or_else(|| NotDescribed::NotFound(host.to_owned()))?)
}

fn of_instance(instance: DbInstance) -> Result<Described, NotDescribed> {
    let (host, port) = match instance.endpoint {
        Some(endpoint) => (endpoint.address, endpoint.port),
        None => (None, None),
    };
    Ok(Described {
        kind: Kind::Instance,
        identifier: told(instance.db_instance_identifier)?,
        resource_id: told(instance.dbi_resource_id)?,
        arn: told(instance.db_instance_arn)?,
        cluster: instance.db_cluster_identifier,
        has_iam: instance.iam_database_authentication_enabled.unwrap_or(false),
        engine: told(instance.engine)?,
        status: told(instance.db_instance_status)?,
        host,
        reader: None,
        port: port.and_then(|port| port.try_into().ok()),
        authority: instance.ca_certificate_identifier,
        tags: tags(instance.tag_list),
    })
}

fn of_cluster(cluster: DbCluster) -> Result<Described, NotDescribed> {
    Ok(Described {
        kind: Kind::Cluster,
        identifier: told(cluster.db_cluster_identifier)?,
        resource_id: told(cluster.db_cluster_resource_id)?,
        arn: told(cluster.db_cluster_arn)?,
        cluster: None,
        has_iam: cluster.iam_database_authentication_enabled.unwrap_or(false),
        engine: told(cluster.engine)?,
        status: told(cluster.status)?,
        host: cluster.endpoint,
        reader: cluster.reader_endpoint,
        port: cluster.port.and_then(|port| port.try_into().ok()),
        authority: cluster.certificate_details.and_then(|of| of.ca_identifier),
        tags: tags(cluster.tag_list),
    })
}

fn tags(list: Option<Vec<Tag>>) -> Vec<(String, String)> {
    let tags = list.unwrap_or_default().into_iter();
    tags.filter_map(|tag| Some((tag.key?, tag.value.unwrap_or_default())))
        .collect()
}

fn told(value: Option<String>) -> Result<String, NotDescribed> {
    value.ok_or_else(|| NotDescribed::Unavailable("its answer isn't whole".to_owned()))
}

fn not_described<E, R>(call: &'static str, name: &str, error: &SdkError<E, R>) -> NotDescribed
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let message = error.message().unwrap_or("no reason").to_owned();
    match error.code() {
        Some("DBInstanceNotFound" | "DBClusterNotFoundFault") => NotDescribed::NotFound(name.to_owned()),
        Some(code) if code.starts_with("AccessDenied") => NotDescribed::Denied {
            call,
            reason: message,
        },
        Some(code) => NotDescribed::Unavailable(format!("it answers {code}: {message}")),
        None => NotDescribed::Unavailable(chain_of(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_told_by_their_names() {
        for (host, expected) in [
            (
                "a.cluster-x1.eu-west-1.rds.amazonaws.com",
                Some(Named::Cluster("a")),
            ),
            (
                "a.cluster-ro-x1.eu-west-1.rds.amazonaws.com",
                Some(Named::Cluster("a")),
            ),
            (
                "a.cluster-custom-x1.eu-west-1.rds.amazonaws.com",
                Some(Named::Custom),
            ),
            ("a.x1.eu-west-1.rds.amazonaws.com", Some(Named::Instance("a"))),
            ("a.x1.cn-north-1.rds.amazonaws.com.cn", Some(Named::Instance("a"))),
            ("a.x1.rds.cn-north-1.amazonaws.com.cn", Some(Named::Instance("a"))),
            (
                "a.cluster-x1.rds.cn-northwest-1.amazonaws.com.cn",
                Some(Named::Cluster("a")),
            ),
            ("a.x1.cn-north-1.amazonaws.com.cn", None),
            ("a.proxy-x1.eu-west-1.rds.amazonaws.com", None),
            ("db.example.com", None),
            ("eu-west-1.rds.amazonaws.com", None),
        ] {
            assert_eq!(named(host), expected, "{host}");
        }
    }
}
