//! What a lab is made of, with defaults that suit most tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::faults::FaultSet;
use crate::postgres::{Postgres, PostgresConfig, identifier, literal};
use crate::tls::KeyType;

/// How to set a lab up. Start from `LabConfig::default()`.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// The name that tokens are signed for and the certificate carries. With `NAME.cluster-ID.…` there is an Aurora
    /// cluster of two instances, and the names of its reader endpoint and its instances are good too.
    pub endpoint: String,
    /// The port that tokens are signed for.
    pub endpoint_port: u16,
    /// The region of everything.
    pub region: String,
    /// Users in the database.
    pub users: Vec<User>,
    /// Databases, besides those that every server has.
    pub databases: Vec<Database>,
    /// How long the role's credentials are valid.
    pub credentials_lifetime: Duration,
    /// The server's `max_connections`.
    pub max_connections: u32,
    /// How long a login may take before it ends with 57014.
    pub authentication_timeout: Duration,
    /// Where the login front listens.
    pub front: SocketAddr,
    /// Where the AWS side and the control interface listen.
    pub aws: SocketAddr,
    /// The kind of key in the server's certificate.
    pub key_type: KeyType,
    /// What goes wrong from the start.
    pub faults: FaultSet,
    /// Further settings of the server.
    pub postgres_settings: Vec<(String, String)>,
    /// Lines that come first in the server's `pg_hba.conf`.
    pub postgres_hba: Vec<String>,
    /// Threads of the front and the AWS side.
    pub threads: usize,
    /// Fixes the sequence of random latencies.
    pub seed: u64,
}

impl Default for LabConfig {
    fn default() -> Self {
        Self {
            endpoint: "orders.cluster-abc123.us-east-1.rds.amazonaws.com".to_owned(),
            endpoint_port: 5432,
            region: "us-east-1".to_owned(),
            users: vec![
                User::iam("app_ro"),
                User::iam("app_rw"),
                User::iam("odd user+x"),
                User::password("app_password", "secret"),
            ],
            databases: vec![Database::new("orders", "app_rw")],
            credentials_lifetime: Duration::from_secs(6 * 3_600),
            max_connections: 200,
            authentication_timeout: Duration::from_secs(60),
            front: (Ipv4Addr::LOCALHOST, 0).into(),
            aws: (Ipv4Addr::LOCALHOST, 0).into(),
            key_type: KeyType::default(),
            faults: FaultSet::default(),
            postgres_settings: Vec::new(),
            postgres_hba: Vec::new(),
            threads: 2,
            seed: 1,
        }
    }
}

impl LabConfig {
    pub(crate) fn postgres(&self) -> PostgresConfig {
        PostgresConfig {
            max_connections: self.max_connections,
            settings: self.postgres_settings.clone(),
            hba: self.postgres_hba.clone(),
        }
    }

    /// The databases and users, in a server that has neither yet. `app_ro` may read what others make.
    pub(crate) fn populate(&self, postgres: &Postgres) -> anyhow::Result<()> {
        let roles: Vec<_> = self.users.iter().map(User::sql).collect();
        postgres.sql(
            "postgres",
            &format!("CREATE ROLE rds_iam NOLOGIN; {}", roles.concat()),
        )?;
        for Database { name, owner } in &self.databases {
            let create = format!("CREATE DATABASE {} OWNER {}", identifier(name), identifier(owner));
            postgres.sql("postgres", &create)?;
        }
        Ok(())
    }
}

/// A user of the database.
#[derive(Debug, Clone)]
pub struct User {
    /// The role's name.
    pub name: String,
    /// Its password; without one it is a member of `rds_iam`.
    pub password: Option<String>,
}

impl User {
    /// A member of `rds_iam`, who logs in by token.
    #[must_use]
    pub fn iam(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            password: None,
        }
    }

    /// A user who logs in by password.
    #[must_use]
    pub fn password(name: &str, password: &str) -> Self {
        Self {
            name: name.to_owned(),
            password: Some(password.to_owned()),
        }
    }

    fn sql(&self) -> String {
        let name = identifier(&self.name);
        let credential = match &self.password {
            Some(password) => format!("PASSWORD {}", literal(password)),
            None => "IN ROLE rds_iam".to_owned(),
        };
        let reads_all = if self.name == "app_ro" {
            "GRANT pg_read_all_data TO app_ro;"
        } else {
            ""
        };
        format!("CREATE ROLE {name} LOGIN {credential}; {reads_all}")
    }
}

/// A database.
#[derive(Debug, Clone)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// The user it belongs to, who may create in its schema `public`.
    pub owner: String,
}

impl Database {
    /// A database that belongs to `owner`.
    #[must_use]
    pub fn new(name: &str, owner: &str) -> Self {
        Self {
            name: name.to_owned(),
            owner: owner.to_owned(),
        }
    }
}
