//! What a pool has to know of its database's catalogs: the routines, and what can run one without naming it.
//!
//! It is asked once a pool has a connection, whenever a client has changed catalogs through it, and when a look at what
//! the catalogs were last written by ([`fingerprint`]) shows that somebody else has. Until it is answered, every text
//! counts as one that may leave anything behind.

use crate::pin::{Catalogs, Routine, Routines};
use crate::sql::Effects;

/// The catalogs that say what a text may run.
const TABLES: [&str; 14] = [
    "pg_proc",
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
];

/// A query for one row whose last column changes whenever one of these does.
pub(super) fn fingerprint() -> String {
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
/// * `x`: using the name may run a function of PostgreSQL's own whose effects outlive a
///   transaction, and which kind of those. Dependencies on these aren't recorded (documentation, "pg_depend"), so they are
///   looked for in the stored expressions.
pub(super) const CATALOGS: &str = include_str!("catalog.sql");

/// `query` with PostgreSQL's own operators, whatever the role's `search_path` is.
pub(super) fn alone(query: &str) -> String {
    format!("BEGIN READ ONLY; SET LOCAL search_path = pg_catalog; {query}; COMMIT")
}

/// What the rows of [`CATALOGS`] mean; `None` if they aren't such rows.
pub(super) fn read(rows: Vec<[String; 3]>) -> Option<Routines> {
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
            "l" => catalogs.leads.push((name, text)),
            "x" => {
                let effects = match text.as_str() {
                    "SETTING" => Effects::SETTING | Effects::DYNAMIC_SETTING,
                    "SEED" => Effects::SEED,
                    "ADVISORY" => Effects::ADVISORY,
                    "WRITE" => Effects::SEQUENCE_WRITE,
                    "READ" => Effects::SEQUENCE_READ,
                    "DYNAMIC" => Effects::DYNAMIC,
                    _ => return None,
                };
                catalogs.effects.push((name, effects));
            }
            _ => return None,
        }
    }
    Some(Routines::of(&catalogs))
}
