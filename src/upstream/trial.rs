//! One connection step by step, for `postern check`: the same steps as a pool's, each told by itself, and one login on which
//! questions can be asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Services;
use super::connection::{Broken, Connection};
use super::dial::{self, dial};
use super::error::{OpenError, Phase};
use super::login;
use crate::config::Target;
use crate::ids::PoolKey;
use crate::metrics::Metrics;
use crate::net::stream::Stream;

/// A connection to a server on which nothing was said yet.
#[derive(Debug)]
pub struct Reached(Stream);

/// A login, and how long its phases took.
#[derive(Debug)]
pub struct Trial {
    connection: Connection,
    phases: Vec<(Phase, Duration)>,
}

/// The addresses of `target`'s endpoint.
pub async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, OpenError> {
    let limit = target.timeouts.connect;
    timeout(limit, dial::resolve(target))
        .await
        .unwrap_or(Err(OpenError::Timeout {
            phase: Phase::Connect,
            limit,
        }))
}

/// Connects to one of these addresses by TCP.
pub async fn reach(target: &Target) -> Result<Reached, OpenError> {
    Ok(Reached(Stream::plain(dial(target).await?)))
}

impl Reached {
    /// Where it leads.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.tcp().peer_addr().ok()
    }

    /// Goes over to TLS, with the chain and the name verified, and ends the connection. This is no login.
    pub async fn encrypt(self, target: &Target) -> Result<(), OpenError> {
        let limit = target.timeouts.tls;
        let encrypted = timeout(limit, login::encrypt(self.0, target)).await;
        let mut stream = encrypted.unwrap_or(Err(OpenError::Timeout {
            phase: Phase::Tls,
            limit,
        }))?;
        // Whether the server takes the goodbye makes no difference any more.
        let _ = stream.close().await;
        Ok(())
    }
}

impl Trial {
    /// Logs in for `key`, which belongs to `target`, within `limit`: one login of the budget, by what the pools use but for the metrics.
    pub async fn log_in(
        target: &Arc<Target>,
        key: &PoolKey,
        services: &Services,
        limit: Duration,
    ) -> Result<Self, OpenError> {
        let metrics = Metrics::new().map_err(|error| OpenError::Protocol(error.to_string()))?;
        let services = Services {
            metrics: Arc::new(metrics),
            ..services.clone()
        };
        let opened = timeout(limit, Box::pin(login::open(target, key, &services))).await;
        // Nobody else has used these, so that a phase's sum is its time.
        let metrics = services.metrics.login.of(&target.name);
        let phases = [Phase::Connect, Phase::Tls, Phase::Budget, Phase::Login];
        let seen = phases.map(|phase| (phase, metrics.phase(phase.label())));
        let unfinished = || {
            let first = seen.iter().find(|(_, times)| times.get_sample_count() == 0);
            OpenError::Timeout {
                phase: first.map_or(Phase::Login, |(phase, _)| *phase),
                limit,
            }
        };
        let connection = opened.unwrap_or_else(|_| Err(unfinished()))?;
        let phases = seen.map(|(phase, times)| (phase, Duration::from_secs_f64(times.get_sample_sum())));
        Ok(Self {
            connection,
            phases: phases.into(),
        })
    }

    /// How long each phase took.
    pub fn phases(&self) -> &[(Phase, Duration)] {
        &self.phases
    }

    /// The rows of a query with three columns of text, and ends the connection.
    pub async fn ask(mut self, query: &str, limit: Duration) -> Result<Vec<[String; 3]>, Broken> {
        let rows = self.connection.rows(query, limit).await;
        let terminate = [b'X', 0, 0, 0, 4];
        let _ = self.connection.stream.send(&terminate).await;
        let _ = self.connection.stream.close().await;
        let text = |cell: Vec<u8>| String::from_utf8_lossy(&cell).into_owned();
        Ok(rows?.into_iter().map(|row| row.map(text)).collect())
    }
}
