//! This host: open files, and the ports that the gateway listens on.

use std::io;
use std::net::SocketAddr;

use procfs::process::{FDTarget, all_processes};
use rustix::process::{Resource, getrlimit};

use super::report::{Finding, State};
use crate::app::files_beside_clients;
use crate::config::Config;
use crate::net::listener;

/// The name that the kernel has for a process of this program.
const COMMAND: &str = "postern";

/// The limit of open files, by which the gateway lowers `listen.max_clients` at its start.
pub(super) fn files(config: &Config) -> Finding {
    let needed = config
        .limits
        .max_clients
        .saturating_add(files_beside_clients(config));
    let limit = getrlimit(Resource::Nofile)
        .maximum
        .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let Some(limit) = limit else {
        return Finding::ok("files", "RLIMIT_NOFILE", format!("no limit; {needed} needed"));
    };
    let finding = Finding::ok(
        "files",
        "RLIMIT_NOFILE",
        format!("{limit} allowed, {needed} needed"),
    );
    if limit >= needed {
        return finding;
    }
    finding.but(
        State::Warning,
        format!(
            "listen.max_clients ({}), all pools and what else there is need more files than a process may have open here, so the gateway would let \
             in fewer clients",
            config.limits.max_clients
        ),
        format!("LimitNOFILE={needed} in the gateway's unit (or a higher ulimit -Hn for this check), or a lower listen.max_clients"),
    )
}

/// The addresses that clients and scrapers connect to.
pub(super) fn ports(config: &Config) -> Vec<Finding> {
    let clients = config.listen.iter().map(|address| (*address, "listen.addresses"));
    let scrapers = config.admin.iter().map(|address| (*address, "admin.http"));
    clients
        .chain(scrapers)
        .map(|(address, key)| port(address, key))
        .collect()
}

fn port(address: SocketAddr, key: &str) -> Finding {
    let finding = |detail: String| Finding::ok("listen", address, detail);
    let error = match listener::bind(address) {
        Ok(_) => return finding("free".to_owned()),
        Err(error) => error,
    };
    match error.kind() {
        io::ErrorKind::AddrInUse => match listens(address) {
            Some((pid, name)) if name == COMMAND => finding(format!("served by postern, process {pid}")),
            Some((pid, name)) => finding("taken".to_owned()).but(
                State::Failed,
                format!("process {pid}, \"{name}\", listens there already"),
                format!("end it, or give {key} another port"),
            ),
            None => finding("taken".to_owned()).but(
                State::Warning,
                "another process listens there, which this user can't look at; it may be the gateway itself",
                format!("run this as root to see which; if it isn't the gateway: end it, or give {key} another port"),
            ),
        },
        io::ErrorKind::PermissionDenied => finding(error.to_string()).but(
            State::Failed,
            "ports below 1024 take a capability (ip(7), ip_unprivileged_port_start)",
            format!("give {key} a port from 1024 on, or the unit AmbientCapabilities=CAP_NET_BIND_SERVICE"),
        ),
        io::ErrorKind::AddrNotAvailable => finding(error.to_string()).but(
            State::Failed,
            "the address isn't one of this host's, or its family is switched off",
            format!("take it out of {key}, or give it to an interface"),
        ),
        _ => finding(error.to_string()).but(
            State::Failed,
            "the kernel doesn't let this process listen there",
            format!("look at {key}"),
        ),
    }
}

/// Which process listens at `address`, as far as this one may look at it.
fn listens(address: SocketAddr) -> Option<(i32, String)> {
    let sockets = [procfs::net::tcp(), procfs::net::tcp6()];
    let inodes: Vec<u64> = sockets
        .into_iter()
        .flatten()
        .flatten()
        .filter(|socket| {
            let local = socket.local_address;
            socket.state == procfs::net::TcpState::Listen
                && local.port() == address.port()
                && (local.ip() == address.ip()
                    || local.ip().is_unspecified()
                    || address.ip().is_unspecified())
        })
        .map(|socket| socket.inode)
        .collect();
    all_processes().ok()?.flatten().find_map(|process| {
        let has = process.fd().ok()?.flatten().any(|file| match file.target {
            FDTarget::Socket(inode) => inodes.contains(&inode),
            _ => false,
        });
        has.then_some((process.pid(), process.stat().ok()?.comm))
    })
}
