//! RDS DescribeDBInstances and DescribeDBClusters, from a model that tests can change.
//!
//! Every name in the model leads to the lab's one server; a failover here changes only what the API says.

use std::collections::BTreeMap;

use hyper::StatusCode;

use super::Answer;
use super::xml::{element, query_answer, query_error};
use crate::keys::ACCOUNT;

/// What the API knows.
#[derive(Debug, Clone, Default)]
pub struct RdsModel {
    /// Aurora clusters.
    pub clusters: Vec<Cluster>,
    /// Instances, those of clusters included.
    pub instances: Vec<Instance>,
}

/// One Aurora cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// `DBClusterIdentifier`.
    pub identifier: String,
    /// `DbClusterResourceId`.
    pub resource_id: String,
    /// The writer endpoint; none while it is made if this is empty.
    pub endpoint: String,
    /// The reader endpoint.
    pub reader_endpoint: String,
    /// The port of both.
    pub port: u16,
    /// `available`, `failing-over`, …
    pub status: String,
    /// `Engine`.
    pub engine: String,
    /// `IAMDatabaseAuthenticationEnabled`.
    pub iam_enabled: bool,
    /// Identifier of the member that writes.
    pub writer: String,
    /// `TagList`.
    pub tags: Vec<(String, String)>,
}

/// One instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// `DBInstanceIdentifier`.
    pub identifier: String,
    /// `DbiResourceId`.
    pub resource_id: String,
    /// The cluster it is a member of.
    pub cluster: Option<String>,
    /// Its endpoint's address.
    pub endpoint: String,
    /// Its endpoint's port.
    pub port: u16,
    /// `available`, `rebooting`, …
    pub status: String,
    /// `Engine`.
    pub engine: String,
    /// `IAMDatabaseAuthenticationEnabled`.
    pub iam_enabled: bool,
    /// `CACertificateIdentifier`.
    pub ca: String,
    /// `TagList`.
    pub tags: Vec<(String, String)>,
}

impl RdsModel {
    /// The model that fits an endpoint's name: a cluster of two instances for `NAME.cluster-ID.…`, else one instance.
    #[must_use]
    pub fn for_endpoint(endpoint: &str, port: u16) -> Self {
        let tags = vec![("postern".to_owned(), "yes".to_owned())];
        let (name, rest) = endpoint.split_once('.').unwrap_or((endpoint, ""));
        let instance = |identifier: &str, number: usize, cluster: Option<&str>, endpoint: String| Instance {
            identifier: identifier.to_owned(),
            resource_id: format!("db-POSTERNLAB{number:013}"),
            cluster: cluster.map(str::to_owned),
            endpoint,
            port,
            status: "available".to_owned(),
            engine: cluster.map_or("postgres", |_| AURORA).to_owned(),
            iam_enabled: true,
            ca: "rds-ca-rsa2048-g1".to_owned(),
            tags: tags.clone(),
        };
        let Some(rest) = rest.strip_prefix("cluster-") else {
            return Self {
                clusters: Vec::new(),
                instances: vec![instance(name, 1, None, endpoint.to_owned())],
            };
        };
        let members = [1, 2].map(|number| {
            let identifier = format!("{name}-{number}");
            instance(&identifier, number, Some(name), format!("{identifier}.{rest}"))
        });
        let cluster = Cluster {
            identifier: name.to_owned(),
            resource_id: "cluster-POSTERNLAB0000000000001".to_owned(),
            endpoint: endpoint.to_owned(),
            reader_endpoint: format!("{name}.cluster-ro-{rest}"),
            port,
            status: "available".to_owned(),
            engine: AURORA.to_owned(),
            iam_enabled: true,
            writer: format!("{name}-1"),
            tags,
        };
        Self {
            clusters: vec![cluster],
            instances: members.into(),
        }
    }

    /// Switches IAM database authentication of all of it on or off.
    pub fn set_iam(&mut self, is_enabled: bool) {
        for cluster in &mut self.clusters {
            cluster.iam_enabled = is_enabled;
        }
        for instance in &mut self.instances {
            instance.iam_enabled = is_enabled;
        }
    }

    /// Whether the lab's one server takes tokens: as its cluster has it, or, where there is none, its instance.
    pub(crate) fn takes_tokens(&self) -> bool {
        let of_instance = || self.instances.first().is_none_or(|instance| instance.iam_enabled);
        self.clusters
            .first()
            .map_or_else(of_instance, |cluster| cluster.iam_enabled)
    }

    /// All endpoint names in it.
    pub(crate) fn names(&self) -> Vec<String> {
        let clusters = self
            .clusters
            .iter()
            .flat_map(|c| [c.endpoint.clone(), c.reader_endpoint.clone()]);
        clusters
            .chain(self.instances.iter().map(|instance| instance.endpoint.clone()))
            .collect()
    }
}

pub(super) fn describe_instances(model: &RdsModel, region: &str, form: &BTreeMap<String, String>) -> Answer {
    let wanted = form.get("DBInstanceIdentifier");
    let by_identifier = filter(form, "db-instance-id");
    let by_cluster = filter(form, "db-cluster-id");
    let fits = |instance: &&Instance| {
        let cluster = instance.cluster.as_deref();
        wanted.is_none_or(|wanted| *wanted == instance.identifier)
            && (by_identifier.is_empty() || by_identifier.contains(&instance.identifier.as_str()))
            && (by_cluster.is_empty() || cluster.is_some_and(|cluster| by_cluster.contains(&cluster)))
    };
    let found: Vec<_> = model
        .instances
        .iter()
        .filter(fits)
        .map(|instance| instance_xml(region, instance))
        .collect();
    if found.is_empty()
        && let Some(wanted) = wanted
    {
        let text = format!("DBInstance {wanted} not found.");
        return query_error(StatusCode::NOT_FOUND, "DBInstanceNotFound", &text);
    }
    let (page, marker) = page(&found, form);
    let list = format!("{marker}<DBInstances>{}</DBInstances>", page.concat());
    query_answer(NAMESPACE, "DescribeDBInstances", &list)
}

pub(super) fn describe_clusters(model: &RdsModel, region: &str, form: &BTreeMap<String, String>) -> Answer {
    let wanted = form.get("DBClusterIdentifier");
    let by_identifier = filter(form, "db-cluster-id");
    let fits = |cluster: &&Cluster| {
        wanted.is_none_or(|wanted| {
            *wanted == cluster.identifier || wanted.ends_with(&format!(":{}", cluster.identifier))
        }) && (by_identifier.is_empty() || by_identifier.contains(&cluster.identifier.as_str()))
    };
    let found: Vec<_> = model
        .clusters
        .iter()
        .filter(fits)
        .map(|cluster| cluster_xml(model, region, cluster))
        .collect();
    if found.is_empty()
        && let Some(wanted) = wanted
    {
        let text = format!("DBCluster {wanted} not found.");
        return query_error(StatusCode::NOT_FOUND, "DBClusterNotFoundFault", &text);
    }
    let (page, marker) = page(&found, form);
    let list = format!("{marker}<DBClusters>{}</DBClusters>", page.concat());
    query_answer(NAMESPACE, "DescribeDBClusters", &list)
}

/// The part of `all` that is asked for, with the element that leads to the next (RDS API Reference, `MaxRecords`: 100 unless it is said).
fn page<'a>(all: &'a [String], form: &BTreeMap<String, String>) -> (&'a [String], String) {
    let number = |key: &str| form.get(key).and_then(|text| text.parse::<usize>().ok());
    let from = number("Marker").unwrap_or(0).min(all.len());
    let to = (from + number("MaxRecords").unwrap_or(100)).min(all.len());
    let marker = match to < all.len() {
        true => element("Marker", &to.to_string()),
        false => String::new(),
    };
    (all.get(from..to).unwrap_or_default(), marker)
}

/// The values of `Filters.Filter.N` with this name.
fn filter<'a>(form: &'a BTreeMap<String, String>, name: &str) -> Vec<&'a str> {
    let named = form
        .iter()
        .filter(|(key, value)| key.ends_with(".Name") && *value == name);
    let prefixes: Vec<_> = named.filter_map(|(key, _)| key.strip_suffix("Name")).collect();
    let belongs = |key: &String| {
        prefixes
            .iter()
            .any(|prefix| key.starts_with(&format!("{prefix}Values.")))
    };
    form.iter()
        .filter(|(key, _)| belongs(key))
        .map(|(_, value)| value.as_str())
        .collect()
}

fn instance_xml(region: &str, instance: &Instance) -> String {
    let address = format!(
        "{}{}",
        element("Address", &instance.endpoint),
        element("Port", &instance.port.to_string())
    );
    let cluster = instance
        .cluster
        .as_deref()
        .map(|cluster| element("DBClusterIdentifier", cluster));
    let arn = format!("arn:aws:rds:{region}:{ACCOUNT}:db:{}", instance.identifier);
    let fields = [
        element("DBInstanceIdentifier", &instance.identifier),
        element("DBInstanceStatus", &instance.status),
        element("DbiResourceId", &instance.resource_id),
        element("DBInstanceArn", &arn),
        element("Engine", &instance.engine),
        format!("<Endpoint>{address}</Endpoint>"),
        cluster.unwrap_or_default(),
        element(
            "IAMDatabaseAuthenticationEnabled",
            &instance.iam_enabled.to_string(),
        ),
        element("CACertificateIdentifier", &instance.ca),
        tags_xml(&instance.tags),
    ];
    format!("<DBInstance>{}</DBInstance>", fields.concat())
}

fn cluster_xml(model: &RdsModel, region: &str, cluster: &Cluster) -> String {
    let members = model
        .instances
        .iter()
        .filter(|member| member.cluster.as_ref() == Some(&cluster.identifier));
    let members = members.map(|member| {
        let writes = member.identifier == cluster.writer;
        let fields = [
            element("DBInstanceIdentifier", &member.identifier),
            element("IsClusterWriter", &writes.to_string()),
            element("DBClusterParameterGroupStatus", "in-sync"),
            element("PromotionTier", "1"),
        ];
        format!("<DBClusterMember>{}</DBClusterMember>", fields.concat())
    });
    let arn = format!("arn:aws:rds:{region}:{ACCOUNT}:cluster:{}", cluster.identifier);
    let fields = [
        element("DBClusterIdentifier", &cluster.identifier),
        element("Status", &cluster.status),
        element("DbClusterResourceId", &cluster.resource_id),
        element("DBClusterArn", &arn),
        element("Engine", &cluster.engine),
        unless_empty("Endpoint", &cluster.endpoint),
        unless_empty("ReaderEndpoint", &cluster.reader_endpoint),
        element("Port", &cluster.port.to_string()),
        element(
            "IAMDatabaseAuthenticationEnabled",
            &cluster.iam_enabled.to_string(),
        ),
        format!(
            "<DBClusterMembers>{}</DBClusterMembers>",
            members.collect::<String>()
        ),
        tags_xml(&cluster.tags),
    ];
    format!("<DBCluster>{}</DBCluster>", fields.concat())
}

fn unless_empty(name: &str, text: &str) -> String {
    match text {
        "" => String::new(),
        text => element(name, text),
    }
}

fn tags_xml(tags: &[(String, String)]) -> String {
    let tags = tags
        .iter()
        .map(|(key, value)| format!("<Tag>{}{}</Tag>", element("Key", key), element("Value", value)));
    format!("<TagList>{}</TagList>", tags.collect::<String>())
}

const AURORA: &str = "aurora-postgresql";

const NAMESPACE: &str = "http://rds.amazonaws.com/doc/2014-10-31/";
