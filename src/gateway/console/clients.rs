//! Who is in: as clients, as sessions of Session Manager, by which rule.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use super::table::{Column, Table, int, text};
use crate::gateway::clients::Client;
use crate::gateway::offers::Offers;
use crate::gateway::presence::{Activity, Presence};
use crate::gateway::shard::Shard;
use crate::pin::Reason;
use crate::policy::Rule;
use crate::wire::reply::Value;

pub(super) const TARGETS: &[Column] = &[text("name"), text("users"), text("endpoint")];

/// PgBouncer's columns and then ours.
pub(super) const CLIENTS: &[Column] = &[
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
    text("principal"),
    text("person"),
    text("ssm_session"),
    text("document"),
    int("rule"),
];

pub(super) const PINS: &[Column] = &[
    text("id"),
    text("database"),
    text("user"),
    text("principal"),
    text("person"),
    text("reasons"),
    text("link"),
];

pub(super) const SESSIONS: &[Column] = &[
    text("ssm_session"),
    text("principal"),
    text("person"),
    text("document"),
    int("clients"),
    text("since"),
];

pub(super) const RULES: &[Column] = &[
    int("rule"),
    text("principals"),
    text("accounts"),
    text("permission_sets"),
    text("documents"),
    text("targets"),
    text("databases"),
    text("users"),
    text("hours"),
    text("console"),
    text("terms"),
    int("clients"),
];

/// As much of a name is shown as PostgreSQL keeps of one (`NAMEDATALEN`, `pg_config_manual.h`).
const MAX_NAME_CHARS: usize = 63;

/// A time as PgBouncer writes it.
pub(super) fn clock(time: SystemTime) -> Value {
    let time = humantime::format_rfc3339_seconds(time).to_string();
    time.replace('T', " ").replace('Z', " UTC").into()
}

/// What the visitor may use by the rules that count now.
pub(super) fn targets(shard: &Shard, client: &Client, table: &mut Table) {
    let Some(presence) = client.presence() else { return };
    let document = presence.session.as_ref().map(|session| &*session.document);
    let rules = shard.in_force().rules;
    let offers = Offers::for_principal(&presence.principal, document, &rules, &shard.targets());
    let note = |rule| {
        if rules.terms_of(rule).read_only {
            " (read-only)"
        } else {
            ""
        }
    };
    for offer in offers.offers {
        let endpoint = offer.target.endpoint.to_string();
        table.add([offer.name().into(), offer.users(note).into(), endpoint.into()]);
    }
}

pub(super) fn clients(shard: &Shard, table: &mut Table) {
    let now = Instant::now();
    shard.clients.each(|id, presence| {
        let session = presence.session.as_ref();
        let waited = match presence.activity.get() {
            Activity::Waiting(since) => now.saturating_duration_since(since),
            Activity::Idle | Activity::Active(_) => std::time::Duration::ZERO,
        };
        table.add([
            "C".into(),
            presence.pool.user.as_str().into(),
            database(presence),
            "none".into(),
            state(presence).into(),
            presence.address.map(|address| address.ip().to_string()).into(),
            presence.address.map(|address| address.port()).into(),
            Value::Null,
            Value::Null,
            clock(presence.since),
            Value::Null,
            waited.as_secs().into(),
            waited.subsec_micros().into(),
            i64::from(presence.ending().is_some()).into(),
            Value::Null,
            link(presence),
            Value::Null,
            if presence.is_encrypted.get() { "TLS" } else { "" }.into(),
            application_name(presence),
            Value::Null,
            id.to_string().into(),
            presence.principal.to_string().into(),
            presence.principal.person().into(),
            session.map(|session| session.id.to_string()).into(),
            session.map(|session| session.document.to_string()).into(),
            presence.admission.borrow().rule.into(),
        ]);
    });
}

/// The pool's name as SHOW DATABASES has it; the console's own.
fn database(presence: &Presence) -> Value {
    match presence.console {
        Some(_) => presence.pool.database.as_str().into(),
        None => super::pools::name(&presence.pool).into(),
    }
}

fn state(presence: &Presence) -> &'static str {
    match presence.activity.get() {
        Activity::Idle => "idle",
        Activity::Waiting(_) => "waiting",
        Activity::Active(_) => "active",
    }
}

/// The number of its server connection, as SHOW SERVERS has it.
fn link(presence: &Presence) -> Value {
    match presence.activity.get() {
        Activity::Active(server) => server.to_string().into(),
        Activity::Idle | Activity::Waiting(_) => Value::Null,
    }
}

fn application_name(presence: &Presence) -> Value {
    let settings = presence.settings.get();
    let mut named = settings.into_iter().flat_map(|settings| settings.iter());
    let found = named.find(|(name, _)| name == "application_name");
    let cut = |value: &str| value.chars().take(MAX_NAME_CHARS).collect::<String>();
    found.map(|(_, value)| cut(value)).into()
}

pub(super) fn pins(shard: &Shard, table: &mut Table) {
    shard.clients.each(|id, presence| {
        let reasons: Vec<_> = presence.pins.get().reasons().map(Reason::label).collect();
        if !reasons.is_empty() {
            table.add([
                id.to_string().into(),
                database(presence),
                presence.pool.user.as_str().into(),
                presence.principal.to_string().into(),
                presence.principal.person().into(),
                reasons.join(", ").into(),
                link(presence),
            ]);
        }
    });
}

pub(super) fn sessions(shard: &Shard, table: &mut Table) {
    struct Known {
        principal: String,
        person: Option<String>,
        document: String,
        clients: u64,
        since: SystemTime,
    }
    let mut sessions = BTreeMap::new();
    shard.clients.each(|_, presence| {
        let Some(session) = &presence.session else { return };
        let known = sessions.entry(session.id.to_string()).or_insert_with(|| Known {
            principal: presence.principal.to_string(),
            person: presence.principal.person().map(str::to_owned),
            document: session.document.to_string(),
            clients: 0,
            since: presence.since,
        });
        known.clients += 1;
        known.since = known.since.min(presence.since);
    });
    for (id, known) in sessions {
        table.add([
            id.into(),
            known.principal.into(),
            known.person.into(),
            known.document.into(),
            known.clients.into(),
            clock(known.since),
        ]);
    }
}

pub(super) fn rules(shard: &Shard, table: &mut Table) {
    let in_force = shard.in_force();
    let mut clients = vec![0_u64; in_force.rules.len()];
    shard.clients.each(|_, presence| {
        if let Some(count) = clients.get_mut(presence.admission.borrow().rule) {
            *count += 1;
        }
    });
    let list = |globs: &[crate::policy::Glob]| {
        let globs: Vec<_> = globs.iter().map(ToString::to_string).collect();
        globs.join(", ")
    };
    for ((number, rule), clients) in in_force.rules.iter().enumerate().zip(clients) {
        let Rule {
            principals,
            accounts,
            permission_sets,
            documents,
            targets,
            databases,
            users,
            hours,
            console,
            terms,
        } = rule;
        table.add([
            number.into(),
            list(principals).into(),
            accounts.as_deref().map(list).into(),
            permission_sets.as_deref().map(list).into(),
            documents.as_deref().map(list).into(),
            list(targets).into(),
            list(databases).into(),
            list(users).into(),
            hours.as_ref().map(ToString::to_string).into(),
            console
                .map(|console| format!("{console:?}").to_lowercase())
                .into(),
            terms.to_string().into(),
            clients.into(),
        ]);
    }
}
