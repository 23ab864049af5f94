//! What is asked of a server about a session in which no transaction is open, and what the answer means.
//!
//! Everything is qualified, operators too: the session may have any `search_path`. Views are PostgreSQL's
//! (documentation, "System Views"), and ordinary users may read all of them.

use std::fmt::Write as _;

use super::Found;

/// The question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question<'a> {
    /// The values of these settings.
    Settings(&'a [String]),
    /// Everything that a session can have.
    Everything {
        /// Settings that no view lists: those with a prefix that no library has claimed.
        custom: &'a [String],
        /// Who has logged in.
        user: &'a str,
    },
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Settings, their names in lower case, and their values, in the session's own encoding.
    pub settings: Vec<(String, String)>,
    /// What else there is.
    pub found: Found,
    /// How many prepared statements of Postern's there are.
    pub prepared: Option<usize>,
}

/// A row of the answer.
pub type Row = [String; 3];

impl Question<'_> {
    /// The query to ask: each row has three columns of text. `prefix` begins the names of Postern's own prepared statements.
    pub fn sql(&self, prefix: &str) -> String {
        match self {
            Self::Settings(names) => named(names),
            Self::Everything { custom, user } => {
                let mut sql = named(custom);
                // The settings of a transaction are always there and mean nothing outside of it.
                sql.push_str(
                    " UNION ALL SELECT 's', pg_catalog.lower(s.name), pg_catalog.current_setting(s.name) FROM pg_catalog.pg_settings s \
                     WHERE s.source OPERATOR(pg_catalog.=) 'session' \
                     AND NOT pg_catalog.starts_with(s.name, 'transaction_') \
                     UNION ALL SELECT 's', 'role', r FROM pg_catalog.current_setting('role') r \
                     WHERE r OPERATOR(pg_catalog.<>) 'none'",
                );
                let _ = write!(
                    sql,
                    " UNION ALL SELECT 'p', '', pg_catalog.count(*)::pg_catalog.text \
                     FROM pg_catalog.pg_prepared_statements WHERE NOT from_sql AND pg_catalog.starts_with(name, {})",
                    literal(prefix)
                );
                let found = [
                    (
                        "user",
                        format!("session_user OPERATOR(pg_catalog.<>) {}", literal(user)),
                    ),
                    (
                        "privileged",
                        exists(
                            "pg_catalog.pg_settings s WHERE s.source OPERATOR(pg_catalog.=) 'session' \
                             AND s.context OPERATOR(pg_catalog.=) 'superuser'",
                        ),
                    ),
                    ("listens", exists("pg_catalog.pg_listening_channels()")),
                    (
                        "temporary",
                        exists(
                            "pg_catalog.pg_depend d WHERE d.refclassid OPERATOR(pg_catalog.=) \
                             'pg_catalog.pg_namespace'::pg_catalog.regclass \
                             AND d.refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()",
                        ),
                    ),
                    ("cursors", exists("pg_catalog.pg_cursors c WHERE c.is_holdable")),
                    (
                        "advisory",
                        exists(
                            "pg_catalog.pg_locks l WHERE l.locktype OPERATOR(pg_catalog.=) 'advisory' \
                             AND l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()",
                        ),
                    ),
                    (
                        "prepared",
                        exists(&format!(
                            "pg_catalog.pg_prepared_statements p WHERE p.from_sql OR NOT pg_catalog.starts_with(p.name, {})",
                            literal(prefix)
                        )),
                    ),
                ];
                for (name, condition) in found {
                    let _ = write!(sql, " UNION ALL SELECT 'f', '{name}', '' WHERE {condition}");
                }
                sql
            }
        }
    }

    /// What `rows` mean; `None` if they are no answer to this.
    pub fn read(&self, rows: Vec<Row>) -> Option<Told> {
        let mut told = Told::default();
        for [kind, name, value] in rows {
            match (kind.as_str(), name.as_str()) {
                ("s", _) => told.settings.push((name, value)),
                ("p", _) => told.prepared = Some(value.parse().ok()?),
                ("f", "user") => told.found.is_other_user = true,
                ("f", "privileged") => told.found.has_privileged = true,
                ("f", "listens") => told.found.listens = true,
                ("f", "temporary") => told.found.has_temporary = true,
                ("f", "cursors") => told.found.has_cursors = true,
                ("f", "advisory") => told.found.has_advisory_locks = true,
                ("f", "prepared") => told.found.has_prepared = true,
                _ => return None,
            }
        }
        let is_whole = match self {
            Self::Settings(_) => told.prepared.is_none(),
            Self::Everything { .. } => told.prepared.is_some(),
        };
        is_whole.then_some(told)
    }
}

fn named(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    format!(
        "SELECT 's', n, v FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[]) n, \
         pg_catalog.current_setting(n, true) v WHERE v IS NOT NULL",
        names.join(",")
    )
}

fn exists(from: &str) -> String {
    format!("EXISTS (SELECT FROM {from})")
}

/// A string constant that means the same whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_answer_is_none() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let everything = Question::Everything {
            custom: &[],
            user: "app",
        };
        assert_eq!(everything.read(vec![]), None);
        assert_eq!(everything.read(vec![row(["f", "else", ""])]), None);
        assert_eq!(everything.read(vec![row(["p", "", "many"])]), None);
        let told = everything
            .read(vec![
                row(["s", "work_mem", "1MB"]),
                row(["p", "", "3"]),
                row(["f", "listens", ""]),
            ])
            .unwrap();
        assert_eq!(told.settings, [("work_mem".to_owned(), "1MB".to_owned())]);
        assert!(told.found.listens && told.prepared == Some(3));
        assert_eq!(literal(r"it's \ "), r"E'it''s \\ '");
    }
}
