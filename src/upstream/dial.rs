//! DNS and TCP: a fresh look-up for every attempt, and all addresses tried, IPv6 and IPv4 by turns (RFC 8305).
//!
//! Nothing is cached: a failover of RDS or Aurora moves a name to another host, with a TTL of 5 s.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::error::{OpenError, Phase};
use crate::config::Target;
use crate::net::options::{self, Liveness};

/// Head start of one address before the next is tried beside it (RFC 8305 §8).
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection to `target`, as an ordinary TCP stream.
pub(super) async fn dial(target: &Target) -> Result<TcpStream, OpenError> {
    let limit = target.timeouts.connect;
    let deadline = Instant::now() + limit;
    timeout_at(deadline, resolve_and_connect(target))
        .await
        .unwrap_or(Err(OpenError::Timeout {
            phase: Phase::Connect,
            limit,
        }))
}

async fn resolve_and_connect(target: &Target) -> Result<TcpStream, OpenError> {
    let mut addresses = by_turns(resolve(target).await?).into_iter();
    let first = addresses
        .next()
        .ok_or_else(|| unresolved(target, "it has no address"))?;
    let stream = race(first, addresses).await?;
    options::apply(&stream, Liveness::SERVER).map_err(|error| OpenError::Connect {
        address: first,
        reason: error.to_string(),
    })?;
    Ok(stream)
}

/// The addresses of `target`, in the order of the resolver.
pub(super) async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, OpenError> {
    match target.dial_address {
        Some(address) => Ok(vec![address]),
        None => Ok(
            tokio::net::lookup_host((target.endpoint.host.as_str(), target.endpoint.port))
                .await
                .map_err(|error| unresolved(target, &error.to_string()))?
                .collect(),
        ),
    }
}

fn unresolved(target: &Target, reason: &str) -> OpenError {
    OpenError::Resolve {
        host: target.endpoint.host.clone(),
        reason: reason.to_owned(),
    }
}

/// Starts the next attempt when the last has failed or has had its head start; the first to connect wins.
async fn race(first: SocketAddr, mut rest: impl Iterator<Item = SocketAddr>) -> Result<TcpStream, OpenError> {
    let mut attempts: JoinSet<(SocketAddr, io::Result<TcpStream>)> = JoinSet::new();
    let start = |attempts: &mut JoinSet<_>, address| {
        attempts.spawn(async move { (address, TcpStream::connect(address).await) });
    };
    start(&mut attempts, first);
    let mut last = OpenError::Connect {
        address: first,
        reason: "no attempt was finished".to_owned(),
    };
    loop {
        let ended = timeout_at(Instant::now() + HEAD_START, attempts.join_next()).await;
        match ended {
            Ok(Some(Ok((_, Ok(stream))))) => return Ok(stream),
            // Whoever refuses a connection doesn't reset it: this one was let in, and closed at once.
            Ok(Some(Ok((_, Err(error))))) if error.kind() == io::ErrorKind::ConnectionReset => {
                last = OpenError::Closed {
                    phase: Phase::Connect,
                    reason: error.to_string(),
                };
            }
            Ok(Some(Ok((address, Err(error))))) => {
                last = OpenError::Connect {
                    address,
                    reason: error.to_string(),
                };
            }
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
        match rest.next() {
            Some(address) => start(&mut attempts, address),
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
    }
}

/// The order of the resolver, with the families by turns.
fn by_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut these, mut those): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    these.reverse();
    those.reverse();
    let mut order = Vec::with_capacity(these.len() + those.len());
    while !these.is_empty() || !those.is_empty() {
        order.extend(these.pop());
        order.extend(those.pop());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |list: &[&str]| {
            list.iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<SocketAddr>>()
        };
        let resolved = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.0.0.1:1"]);
        assert_eq!(
            by_turns(resolved),
            parse(&["[::1]:1", "1.0.0.1:1", "[::2]:1", "[::3]:1"])
        );
        assert_eq!(by_turns(vec![]), vec![]);
    }

    #[tokio::test]
    async fn a_dead_address_does_not_stop_the_living() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let living = listener.local_addr().unwrap();
        let dead: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let stream = race(dead, [living].into_iter()).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), living);
        assert!(matches!(
            race(dead, [dead].into_iter()).await,
            Err(OpenError::Connect { .. })
        ));
    }
}
