//! What a pool has to know of its database's catalogs: the routines, and what can run one without naming it.
//!
//! It is asked once a pool has a connection, whenever a client has changed catalogs through it, and when a look at what
//! the catalogs were last written by ([`FINGERPRINT`]) shows that somebody else has. Until it is answered, every text
//! counts as one that may leave anything behind.

use crate::pin::{Catalogs, Routine, Routines};
use crate::sql::Effects;

/// One row whose last column changes whenever a catalog does that says what a text may run.
pub(super) const FINGERPRINT: &str = "SELECT 'c', '', pg_catalog.string_agg(c, ',') FROM (\
     SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.max(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_proc UNION ALL \
     SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.max(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_trigger UNION ALL \
     SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.max(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_rewrite UNION ALL \
     SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.max(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_attrdef UNION ALL \
     SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.max(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_policy UNION ALL \
     SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.max(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_constraint UNION ALL \
     SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.max(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_operator UNION ALL \
     SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.max(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_cast UNION ALL \
     SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.max(xmin::pg_catalog.text::pg_catalog.int8)) FROM pg_catalog.pg_index) AS counts(c)";

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
