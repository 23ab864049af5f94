//! What can be looked at: PgBouncer's SHOW commands with its columns (PgBouncer's documentation, "Show commands", of 1.25), and ours.
//! What doesn't apply is NULL; the README says why.

use super::command::Level;
use super::table::{Column, Table, int, text};
use super::{clients, pools, stats};
use crate::gateway::clients::Client;
use crate::gateway::shard::Shard;
use crate::wire::reply::Value;

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Help,
    Version,
    Targets,
    Clients,
    Servers,
    Pools,
    Databases,
    Users,
    Lists,
    Stats,
    StatsTotals,
    StatsAverages,
    Totals,
    Config,
    Mem,
    State,
    DnsHosts,
    DnsZones,
    Peers,
    PeerPools,
    Tokens,
    Budget,
    Pins,
    Sessions,
    Rules,
}

/// Each with its name.
const SHOWS: [(Show, &str); 25] = [
    (Show::Help, "help"),
    (Show::Version, "version"),
    (Show::Targets, "targets"),
    (Show::Clients, "clients"),
    (Show::Servers, "servers"),
    (Show::Pools, "pools"),
    (Show::Databases, "databases"),
    (Show::Users, "users"),
    (Show::Lists, "lists"),
    (Show::Stats, "stats"),
    (Show::StatsTotals, "stats_totals"),
    (Show::StatsAverages, "stats_averages"),
    (Show::Totals, "totals"),
    (Show::Config, "config"),
    (Show::Mem, "mem"),
    (Show::State, "state"),
    (Show::DnsHosts, "dns_hosts"),
    (Show::DnsZones, "dns_zones"),
    (Show::Peers, "peers"),
    (Show::PeerPools, "peer_pools"),
    (Show::Tokens, "tokens"),
    (Show::Budget, "budget"),
    (Show::Pins, "pins"),
    (Show::Sessions, "sessions"),
    (Show::Rules, "rules"),
];

const VERSION: &[Column] = &[text("version")];
const STATE: &[Column] = &[text("key"), text("value")];
const MEM: &[Column] = &[
    text("name"),
    int("size"),
    int("used"),
    int("free"),
    int("memtotal"),
];
const DNS_HOSTS: &[Column] = &[text("hostname"), int("ttl"), text("addrs")];
const DNS_ZONES: &[Column] = &[text("zonename"), int("serial"), int("count")];
const PEERS: &[Column] = &[int("peer_id"), text("host"), int("port"), int("pool_size")];
const PEER_POOLS: &[Column] = &[
    int("database"),
    int("cl_active_cancel_req"),
    int("cl_waiting_cancel_req"),
    int("sv_active_cancel"),
    int("sv_login"),
];

impl Show {
    pub(super) fn of(name: &str) -> Option<Self> {
        SHOWS
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(show, _)| *show)
    }

    /// For whom it is.
    pub(super) fn needs(self) -> Level {
        match self {
            Self::Help | Self::Version | Self::Targets => Level::Own,
            _ => Level::Stats,
        }
    }

    /// Nothing if it tells and shows no rows.
    pub(super) fn columns(self) -> Option<&'static [Column]> {
        Some(match self {
            Self::Help => return None,
            Self::Version => VERSION,
            Self::Targets => clients::TARGETS,
            Self::Clients => clients::CLIENTS,
            Self::Servers => pools::SERVERS,
            Self::Pools => pools::POOLS,
            Self::Databases => pools::DATABASES,
            Self::Users => pools::USERS,
            Self::Lists => pools::LISTS,
            Self::Stats => stats::STATS,
            Self::StatsTotals | Self::StatsAverages => stats::PART,
            Self::Totals => stats::TOTALS,
            Self::Config => pools::CONFIG,
            Self::Mem => MEM,
            Self::State => STATE,
            Self::DnsHosts => DNS_HOSTS,
            Self::DnsZones => DNS_ZONES,
            Self::Peers => PEERS,
            Self::PeerPools => PEER_POOLS,
            Self::Tokens => pools::TOKENS,
            Self::Budget => pools::BUDGET,
            Self::Pins => clients::PINS,
            Self::Sessions => clients::SESSIONS,
            Self::Rules => clients::RULES,
        })
    }

    pub(super) fn table(self, shard: &Shard, client: &Client) -> Option<Table> {
        let mut table = Table::new(self.columns()?);
        match self {
            Self::Version => table.add([concat!("Postern ", env!("CARGO_PKG_VERSION")).into()]),
            Self::Targets => clients::targets(shard, client, &mut table),
            Self::Clients => clients::clients(shard, &mut table),
            Self::Servers => pools::servers(shard, &mut table),
            Self::Pools => pools::pools(shard, &mut table),
            Self::Databases => pools::databases(shard, &mut table),
            Self::Users => pools::users(shard, &mut table),
            Self::Lists => pools::lists(shard, &mut table),
            Self::Stats => stats::stats(shard, &mut table),
            Self::StatsTotals => stats::totals(shard, &mut table),
            Self::StatsAverages => stats::averages(shard, &mut table),
            Self::Totals => stats::all(shard, &mut table),
            Self::Config => pools::config(shard, &mut table),
            Self::Mem => {
                if let Some(bytes) = resident_bytes() {
                    let used = Value::from(bytes);
                    table.add(["process".into(), 1.into(), used.clone(), 0.into(), used]);
                }
            }
            Self::State => {
                let all = shard.pools();
                let is_paused = !all.is_empty() && all.iter().all(|pool| pool.is_paused());
                let yes_or_no = |yes| Value::from(if yes { "yes" } else { "no" });
                table.add(["active".into(), yes_or_no(!is_paused)]);
                table.add(["paused".into(), yes_or_no(is_paused)]);
                table.add(["suspended".into(), yes_or_no(false)]);
            }
            // Names are looked up when a connection is opened and not kept, and gateways have no peers.
            Self::Help | Self::DnsHosts | Self::DnsZones | Self::Peers | Self::PeerPools => {}
            Self::Tokens => pools::tokens(shard, &mut table),
            Self::Budget => pools::budget(shard, &mut table),
            Self::Pins => clients::pins(shard, &mut table),
            Self::Sessions => clients::sessions(shard, &mut table),
            Self::Rules => clients::rules(shard, &mut table),
        }
        Some(table)
    }
}

/// All names, for HELP.
pub(super) fn names() -> String {
    let names: Vec<_> = SHOWS.iter().map(|(_, name)| name.to_ascii_uppercase()).collect();
    names.join(" | ")
}

/// What the process has in memory (proc_pid_statm(5), `resident`).
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
