//! What a pool has to know of its database's catalogs: the routines, and what can run one without naming it.
//!
//! It is asked once a pool has a connection, whenever a client has changed catalogs through it, and when a look at what
//! the catalogs were last written by ([`fingerprint`]) shows that somebody else has. Texts that are run in the meantime
//! are judged when it is answered, before their connection may serve anybody else.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::debug;

use super::connection::{Broken, Connection, RawRow};
use super::texts::KnownTexts;
use crate::pin::{Catalogs, Routine, Routines};
use crate::sql::Effects;

/// Between two looks at whether the catalogs have changed.
const INTERVAL: Duration = Duration::from_secs(2);

/// The same if it is known that they have.
const INTERVAL_IN_DOUBT: Duration = Duration::from_millis(200);

/// How long reading them may take: 0.15 s for 400 tables, each with two triggers and a view (measured, PostgreSQL 15, 25 Nov 2026).
const PATIENCE: Duration = Duration::from_secs(60);

/// The catalogs that say what a text may run.
const TABLES: [&str; 16] = [
    "pg_proc",
    "pg_aggregate",
    "pg_trigger",
    "pg_rewrite",
    "pg_attrdef",
    "pg_policy",
    "pg_constraint",
    "pg_operator",
    "pg_cast",
    "pg_index",
    "pg_class",
    "pg_inherits",
    "pg_type",
    "pg_event_trigger",
    "pg_amproc",
    "pg_statistic_ext",
];

/// A query for one row whose last column changes whenever one of these does.
fn fingerprint() -> String {
    let sums = TABLES
        .map(|table| format!("SELECT sum(hashtextextended(concat(xmin, ctid), 0)) FROM pg_catalog.{table}"));
    alone(&format!(
        "SELECT 'c', '', string_agg(coalesce(c, 0)::text, ',') FROM ({}) AS sums(c)",
        sums.join(" UNION ALL ")
    ))
}

/// What the catalogs say of routines and of what runs them, as rows of kind, name and text:
///
/// * `r`: a routine and its `language/volatility/ambient/body`;
/// * `l`: using the name may run, read or write what the text names;
/// * `d`: DDL runs the routine;
/// * `m`: maintenance (ANALYZE, REINDEX …) runs the routine, or what checks the type, in an expression of an index or of statistics;
/// * `t`: a type, whose values are read by routines or checked by them;
/// * `x`: using the name may run a function of PostgreSQL's own whose effects outlive a
///   transaction, and which kind of those. Dependencies on these aren't recorded (documentation, "pg_depend"), so they are
///   looked for in the stored expressions; so is `pg_settings`, since updating it sets;
/// * `a`: such a function stands behind an operator or a cast.
const CATALOGS: &str = include_str!("catalog.sql");

/// `query` as a transaction of its own that means the same whatever the session has set. Without statistics of a new
/// database's catalogs the planner takes them for small, and nested loops then take 30 times as long (measured, as above).
fn alone(query: &str) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY, NOT DEFERRABLE; SET LOCAL search_path = pg_catalog; \
         SET LOCAL client_encoding = 'UTF8'; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '2s'; SET LOCAL jit = off; \
         SET LOCAL enable_nestloop = off; {query}; COMMIT"
    )
}

/// How far what a pool knows of the catalogs is behind them.
#[derive(Debug, Default)]
pub(super) struct Watch {
    fingerprint: RefCell<Vec<u8>>,
    looked_at: Cell<Option<Instant>>,
    /// How many readings have begun, and which of these was the last one to succeed.
    begun: Cell<u64>,
    done: Cell<u64>,
    is_reading: Cell<bool>,
    has_read: Notify,
}

impl Watch {
    /// Whether nobody has looked at them yet.
    pub(super) fn is_new(&self) -> bool {
        self.looked_at.get().is_none()
    }

    /// Whether it is time to look at them, and nobody does.
    pub(super) fn is_due(&self, texts: &KnownTexts) -> bool {
        let interval = if texts.is_behind(texts.doubt().changes()) {
            INTERVAL_IN_DOUBT
        } else {
            INTERVAL
        };
        let is_over = |last: Instant| last.elapsed() >= interval;
        !self.is_reading.get() && self.looked_at.get().is_none_or(is_over)
    }

    /// Sees to it that all changes which are known of by now were read; and while some are being made, that they were read
    /// anew, so that whatever has run before may have met no others.
    pub(super) async fn catch_up(
        &self,
        connection: &mut Connection,
        texts: &KnownTexts,
    ) -> Result<(), Broken> {
        let changes = texts.doubt().changes();
        let enough = if texts.doubt().is_changing() {
            self.begun.get() + 1
        } else {
            0
        };
        while texts.is_behind(changes) || self.done.get() < enough {
            if self.is_reading.get() {
                self.has_read.notified().await;
            } else {
                self.read(connection, texts).await?;
            }
        }
        Ok(())
    }

    /// Reads them, unless they are as they were.
    pub(super) async fn read(&self, connection: &mut Connection, texts: &KnownTexts) -> Result<(), Broken> {
        let _reading = OneReads::begin(self);
        let begun = self.begun.get() + 1;
        self.begun.set(begun);
        let changes = texts.doubt().changes();
        let quiet = (!texts.doubt().is_changing()).then(|| texts.doubt().epoch());
        let rows = told(connection, &fingerprint()).await?;
        let fingerprint: Vec<u8> = rows.into_iter().flatten().flatten().collect();
        if !texts.has_routines() || *self.fingerprint.borrow() != fingerprint {
            let rows = told(connection, &alone(CATALOGS)).await?;
            let text = |cell: Vec<u8>| String::from_utf8_lossy(&cell).into_owned();
            let routines = read(rows.into_iter().map(|row| row.map(text))).ok_or(Broken::Lost)?;
            debug!(ambient = ?routines.ambient(), "the database's routines are known");
            texts.set_routines(routines);
            *self.fingerprint.borrow_mut() = fingerprint;
        }
        texts.confirm(changes);
        if let Some(epoch) = quiet {
            texts.doubt().were_read(epoch);
        }
        self.done.set(begun);
        Ok(())
    }
}

/// The rows of a query that is a transaction of its own; if the server refuses it, that has ended all the same.
async fn told(connection: &mut Connection, query: &str) -> Result<Vec<RawRow>, Broken> {
    let told = connection.rows(query, PATIENCE).await;
    if let Err(Broken::NotTold { .. }) = told {
        connection.rows("ROLLBACK", PATIENCE).await?;
    }
    told
}

/// One reads; others wait for that.
struct OneReads<'a>(&'a Watch);

impl<'a> OneReads<'a> {
    fn begin(watch: &'a Watch) -> Self {
        watch.is_reading.set(true);
        Self(watch)
    }
}

impl Drop for OneReads<'_> {
    fn drop(&mut self) {
        self.0.looked_at.set(Some(Instant::now()));
        self.0.is_reading.set(false);
        self.0.has_read.notify_waiters();
    }
}

/// What the rows of [`CATALOGS`] mean; `None` if they aren't such rows.
fn read(rows: impl Iterator<Item = [String; 3]>) -> Option<Routines> {
    let mut catalogs = Catalogs::default();
    for [kind, name, text] in rows {
        match kind.as_str() {
            "r" => {
                let mut parts = text.splitn(4, '/');
                catalogs.routines.push(Routine {
                    name,
                    language: parts.next()?.to_owned(),
                    is_volatile: parts.next()? == "v",
                    is_ambient: parts.next()? == "t",
                    body: parts.next()?.to_owned(),
                });
            }
            "d" => catalogs.on_ddl.push(name),
            "m" => catalogs.on_maintenance.push(name),
            "t" => catalogs.types.push(name),
            "l" => catalogs.leads.push((name, text)),
            "a" => catalogs.ambient |= of_kind(&text)?,
            "x" => catalogs.effects.push((name, of_kind(&text)?)),
            _ => return None,
        }
    }
    Some(Routines::of(&catalogs))
}

fn of_kind(kind: &str) -> Option<Effects> {
    Some(match kind {
        "SETTING" => Effects::SETTING | Effects::DYNAMIC_SETTING,
        "SEED" => Effects::SEED,
        "ADVISORY" => Effects::ADVISORY,
        "WRITE" => Effects::SEQUENCE_WRITE,
        "READ" => Effects::SEQUENCE_READ,
        "LASTING" => Effects::LASTING,
        "DYNAMIC" => Effects::DYNAMIC,
        "DECIDES" => Effects::DECIDES,
        _ => return None,
    })
}
