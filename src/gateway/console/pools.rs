//! Databases, their pools and server connections, and what logins cost.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use super::clients::clock;
use super::table::{Column, Table, int, text};
use crate::config::Target;
use crate::gateway::presence::Activity;
use crate::gateway::shard::Shard;
use crate::ids::PoolKey;
use crate::upstream::pool::ServerPool;
use crate::wire::reply::Value;

pub(super) const POOLS: &[Column] = &[
    text("database"),
    text("user"),
    int("cl_active"),
    int("cl_waiting"),
    int("cl_active_cancel_req"),
    int("cl_waiting_cancel_req"),
    int("sv_active"),
    int("sv_active_cancel"),
    int("sv_being_canceled"),
    int("sv_idle"),
    int("sv_used"),
    int("sv_tested"),
    int("sv_login"),
    int("maxwait"),
    int("maxwait_us"),
    text("pool_mode"),
    text("load_balance_hosts"),
];

pub(super) const SERVERS: &[Column] = &[
    text("type"),
    text("user"),
    text("database"),
    text("replication"),
    text("state"),
    text("addr"),
    int("port"),
    text("local_addr"),
    int("local_port"),
    text("connect_time"),
    text("request_time"),
    int("wait"),
    int("wait_us"),
    int("close_needed"),
    text("ptr"),
    text("link"),
    int("remote_pid"),
    text("tls"),
    text("application_name"),
    int("prepared_statements"),
    text("id"),
];

pub(super) const DATABASES: &[Column] = &[
    text("name"),
    text("host"),
    int("port"),
    text("database"),
    text("force_user"),
    int("pool_size"),
    int("min_pool_size"),
    int("reserve_pool_size"),
    int("server_lifetime"),
    text("pool_mode"),
    text("load_balance_hosts"),
    int("max_connections"),
    int("current_connections"),
    int("max_client_connections"),
    int("current_client_connections"),
    int("paused"),
    int("disabled"),
];

pub(super) const USERS: &[Column] = &[
    text("name"),
    int("pool_size"),
    int("reserve_pool_size"),
    text("pool_mode"),
    int("max_user_connections"),
    int("current_connections"),
    int("max_user_client_connections"),
    int("current_client_connections"),
];

pub(super) const LISTS: &[Column] = &[text("list"), int("items")];

pub(super) const CONFIG: &[Column] = &[text("key"), text("value"), text("default"), text("changeable")];

pub(super) const TOKENS: &[Column] = &[
    text("endpoint"),
    text("user"),
    text("state"),
    int("age_seconds"),
    int("usable_for_seconds"),
];

pub(super) const BUDGET: &[Column] = &[
    text("endpoint"),
    int("logins_per_second"),
    int("burst"),
    int("logins_in_flight_most"),
    int("available"),
    int("in_flight"),
    int("queued"),
    int("spent"),
];

/// What a pool's database is called: what a client can connect to.
pub(super) fn name(pool: &PoolKey) -> String {
    format!("{}/{}", pool.target, pool.database)
}

/// Clients of a pool.
#[derive(Clone, Copy, Default)]
struct Clients {
    active: u64,
    waiting: u64,
    longest: Duration,
}

fn clients(shard: &Shard) -> HashMap<PoolKey, Clients> {
    let now = Instant::now();
    let mut of_pools: HashMap<PoolKey, Clients> = HashMap::new();
    shard.clients.each(|_, presence| {
        if presence.console.is_some() {
            return;
        }
        let clients = of_pools.entry(presence.pool.clone()).or_default();
        if let Activity::Waiting(since) = presence.activity.get() {
            clients.waiting += 1;
            clients.longest = clients.longest.max(now.saturating_duration_since(since));
        } else {
            clients.active += 1;
        }
    });
    of_pools
}

pub(super) fn pools(shard: &Shard, table: &mut Table) {
    let clients = clients(shard);
    for pool in shard.pools() {
        let Clients {
            active,
            waiting,
            longest,
        } = clients.get(pool.key()).copied().unwrap_or_default();
        let census = pool.census();
        table.add([
            name(pool.key()).into(),
            pool.key().user.as_str().into(),
            active.into(),
            waiting.into(),
            0.into(),
            0.into(),
            census.leased.into(),
            0.into(),
            0.into(),
            census.idle.into(),
            0.into(),
            0.into(),
            census.opening.into(),
            longest.as_secs().into(),
            longest.subsec_micros().into(),
            pool.target().pool.mode.name().into(),
            Value::Null,
        ]);
    }
}

pub(super) fn servers(shard: &Shard, table: &mut Table) {
    for pool in shard.pools().into_iter().chain(shard.leaving()) {
        pool.each_entry(|entry, is_retired| {
            table.add([
                "S".into(),
                pool.key().user.as_str().into(),
                name(pool.key()).into(),
                "none".into(),
                if entry.lent().is_some() { "active" } else { "idle" }.into(),
                entry.remote.map(|address| address.ip().to_string()).into(),
                entry.remote.map(|address| address.port()).into(),
                entry.local.map(|address| address.ip().to_string()).into(),
                entry.local.map(|address| address.port()).into(),
                clock(entry.since),
                Value::Null,
                0.into(),
                0.into(),
                i64::from(is_retired).into(),
                Value::Null,
                entry.client().map(|client| client.to_string()).into(),
                entry.pid.into(),
                "TLS".into(),
                Value::Null,
                Value::Null,
                entry.id.to_string().into(),
            ]);
        });
    }
}

/// The pools of each database.
pub(super) fn by_database(shard: &Shard) -> BTreeMap<String, Vec<Rc<ServerPool>>> {
    let mut databases: BTreeMap<String, Vec<Rc<ServerPool>>> = BTreeMap::new();
    for pool in shard.pools() {
        databases.entry(name(pool.key())).or_default().push(pool);
    }
    databases
}

fn connections<'a>(pools: impl IntoIterator<Item = &'a Rc<ServerPool>>) -> usize {
    let census = pools.into_iter().map(|pool| pool.census());
    census
        .map(|census| census.idle + census.leased + census.opening)
        .sum()
}

/// How many of the `clients` are these pools'.
fn count(clients: &HashMap<PoolKey, Clients>, pools: &[Rc<ServerPool>]) -> u64 {
    let of = pools.iter().filter_map(|pool| clients.get(pool.key()));
    of.map(|clients| clients.active + clients.waiting).sum()
}

pub(super) fn databases(shard: &Shard, table: &mut Table) {
    let clients = clients(shard);
    for (name, pools) in by_database(shard) {
        let Some(first) = pools.first() else { continue };
        let Target { endpoint, pool, .. } = &*first.target();
        let all = |is: fn(&ServerPool) -> bool| i64::from(pools.iter().all(|pool| is(pool)));
        let most = |size: fn(&ServerPool) -> usize| pools.iter().map(|pool| size(pool)).max().unwrap_or(0);
        table.add([
            name.into(),
            endpoint.host.as_str().into(),
            endpoint.port.into(),
            first.key().database.as_str().into(),
            Value::Null,
            most(|pool| pool.target().pool.size).into(),
            most(|pool| pool.target().pool.min_idle).into(),
            0.into(),
            pool.lifetime.as_secs().into(),
            pool.mode.name().into(),
            Value::Null,
            0.into(),
            connections(&pools).into(),
            0.into(),
            count(&clients, &pools).into(),
            all(ServerPool::is_paused).into(),
            all(ServerPool::is_disabled).into(),
        ]);
    }
}

pub(super) fn users(shard: &Shard, table: &mut Table) {
    let clients = clients(shard);
    let mut users: BTreeMap<String, Vec<Rc<ServerPool>>> = BTreeMap::new();
    for pool in shard.pools() {
        users.entry(pool.key().user.to_string()).or_default().push(pool);
    }
    for (user, pools) in users {
        table.add([
            user.into(),
            Value::Null,
            Value::Null,
            Value::Null,
            0.into(),
            connections(&pools).into(),
            0.into(),
            count(&clients, &pools).into(),
        ]);
    }
}

pub(super) fn lists(shard: &Shard, table: &mut Table) {
    let pools = shard.pools();
    let mut users: Vec<_> = pools.iter().map(|pool| &pool.key().user).collect();
    users.sort_unstable();
    users.dedup();
    let metrics = &shard.shared.metrics.client;
    let mut is_in = 0_usize;
    shard.clients.each(|_, _| is_in += 1);
    let mut add = |list: &str, items: usize| table.add([list.into(), items.into()]);
    add("databases", by_database(shard).len());
    add("users", users.len());
    add("pools", pools.len());
    add("free_clients", 0);
    add("used_clients", is_in);
    add(
        "login_clients",
        usize::try_from(metrics.logging_in.get()).unwrap_or(0),
    );
    add("free_servers", 0);
    add("used_servers", connections(&pools));
    for list in ["dns_names", "dns_zones", "dns_queries", "dns_pending"] {
        add(list, 0);
    }
}

pub(super) fn config(shard: &Shard, table: &mut Table) {
    let limits = shard.limits();
    let seconds = |duration: Duration| humantime::format_duration(duration).to_string();
    let rules = shard.in_force().rules.len().to_string();
    let all = shard.targets();
    let targets: Vec<_> = all.iter().map(|target| target.name.as_str()).collect();
    let mut add = |key: &str, value: String, default: Option<&str>| {
        table.add([key.into(), value.into(), default.into(), "yes".into()]);
    };
    // By PgBouncer's name, for who looks for that.
    add("max_client_conn", limits.max_clients.to_string(), Some("10000"));
    add(
        "listen.max_clients",
        limits.max_clients.to_string(),
        Some("10000"),
    );
    add("listen.login_timeout", seconds(limits.login_timeout), Some("1m"));
    add(
        "listen.silent_timeout",
        seconds(limits.silent_timeout),
        Some("20m"),
    );
    add("listen.drain_timeout", seconds(limits.drain_timeout), Some("30s"));
    add("targets", targets.join(", "), None);
    add("rules", rules, None);
}

/// Never the tokens themselves.
pub(super) fn tokens(shard: &Shard, table: &mut Table) {
    let now = SystemTime::now();
    for held in shard.services().tokens.held() {
        let left = held.usable_until.duration_since(now).unwrap_or_default();
        table.add([
            held.endpoint.into(),
            held.user.as_str().into(),
            if left.is_zero() { "expired" } else { "usable" }.into(),
            now.duration_since(held.signed_at)
                .unwrap_or_default()
                .as_secs()
                .into(),
            left.as_secs().into(),
        ]);
    }
}

pub(super) fn budget(shard: &Shard, table: &mut Table) {
    for (endpoint, usage) in shard.services().gates.usage(Instant::now()) {
        table.add([
            endpoint.to_string().into(),
            usage.budget.logins_per_second().into(),
            usage.budget.burst().into(),
            usage.budget.logins_in_flight().into(),
            usage.available.into(),
            usage.in_flight.into(),
            usage.queued.into(),
            usage.spent.into(),
        ]);
    }
}
