//! Where clients connect, in the forms that they take: variables, a connection string, a section of `pg_service.conf`, a URL.
//!
//! A target goes before the database, `TARGET/DATABASE`: each client has a field for that, while `options` and PGOPTIONS are libpq's own (pgjdbc reads
//! no variables, asyncpg and others not this one) and may hold what the person has put there.

use std::fmt::Write as _;

/// Where the forward begins: the address that the plugin listens on.
pub(super) const HOST: &str = "127.0.0.1";

/// Variables that would lead libpq elsewhere, whatever PGHOST and PGPORT say (libpq, "Environment Variables").
pub(super) const MISLEADING: &[&str] = &["PGHOSTADDR", "PGSERVICE"];

/// Where clients connect, and as whom.
#[derive(Debug)]
pub(super) struct Place {
    port: u16,
    database: Option<String>,
    user: Option<String>,
    service: String,
}

impl Place {
    pub(super) fn new(port: u16, target: Option<&str>, database: Option<&str>, user: Option<&str>) -> Self {
        let database = match target {
            // With nothing behind the slash, the gateway takes the user's name, as PostgreSQL does.
            Some(target) => Some(format!("{target}/{}", database.unwrap_or_default())),
            None => database.map(str::to_owned),
        };
        Self {
            port,
            database,
            user: user.map(str::to_owned),
            service: target.unwrap_or("postern").to_owned(),
        }
    }

    /// For people: where that is.
    pub(super) fn address(&self) -> String {
        format!("{HOST}:{}", self.port)
    }

    /// The variables that libpq and most drivers read.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![("PGHOST", HOST.to_owned()), ("PGPORT", self.port.to_string())];
        variables.extend(self.user.clone().map(|user| ("PGUSER", user)));
        variables.extend(self.database.clone().map(|database| ("PGDATABASE", database)));
        variables
    }

    /// What `--print` prints: lines for a shell, and a section for `pg_service.conf`, in which lines with `#` are comments as well.
    pub(super) fn lines(&self) -> String {
        let keys: Vec<(&str, String)> = self
            .variables()
            .into_iter()
            .map(|(name, value)| (key_of(name), value))
            .collect();
        let mut text = "# In another terminal, while this command runs:\n".to_owned();
        let words: Vec<String> = keys
            .iter()
            .map(|(key, value)| format!("{key}={}", conninfo(value)))
            .collect();
        let _ = writeln!(text, "psql {}", shell(&words.join(" ")));
        let exports: Vec<String> = self
            .variables()
            .iter()
            .map(|(name, value)| format!("{name}={}", shell(value)))
            .collect();
        let _ = writeln!(
            text,
            "\n# The same for any program that reads these variables:\nexport {}",
            exports.join(" ")
        );
        let _ = writeln!(
            text,
            "\n# For programs that have a URL:\n# {}",
            url(self.port, &self.database, &self.user)
        );
        let _ = writeln!(
            text,
            "\n# For ~/.pg_service.conf, where it stays right with --local-port {}; then: psql service={}\n[{}]",
            self.port, self.service, self.service
        );
        for (key, value) in &keys {
            let _ = writeln!(text, "{key}={value}");
        }
        text
    }
}

/// libpq's name of what a variable sets.
fn key_of(variable: &str) -> &'static str {
    match variable {
        "PGHOST" => "host",
        "PGPORT" => "port",
        "PGUSER" => "user",
        _ => "dbname",
    }
}

/// A value of a connection string (libpq, "Keyword/Value Connection Strings").
fn conninfo(value: &str) -> String {
    let is_plain = !value.is_empty() && !value.contains([' ', '\'', '\\']);
    if is_plain {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A word for a shell, as it is.
fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn url(port: u16, database: &Option<String>, user: &Option<String>) -> String {
    let database = database.as_deref().map(encoded).unwrap_or_default();
    let mut text = format!("jdbc:postgresql://{HOST}:{port}/{database}");
    if let Some(user) = user {
        let _ = write!(text, "?user={}", encoded(user));
    }
    text
}

/// With `%` before what isn't unreserved (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_stands_before_the_database() {
        let database = |target, database| Place::new(1, target, database, Some("u")).database;
        assert_eq!(
            database(Some("orders"), Some("app")).as_deref(),
            Some("orders/app")
        );
        assert_eq!(database(Some("orders"), None).as_deref(), Some("orders/"));
        assert_eq!(database(None, Some("app")).as_deref(), Some("app"));
        assert_eq!(database(None, None), None);
    }

    #[test]
    fn only_what_is_known_is_set() {
        let names = |place: &Place| -> Vec<_> { place.variables().iter().map(|(name, _)| *name).collect() };
        assert_eq!(names(&Place::new(1, None, None, None)), ["PGHOST", "PGPORT"]);
        assert_eq!(
            names(&Place::new(1, None, Some("d"), Some("u"))),
            ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE"]
        );
    }

    #[test]
    fn values_are_quoted_for_whom_they_are_for() {
        let rows = [
            ("app_ro", "app_ro", "app_ro", "app_ro"),
            ("orders/app", "orders/app", "orders/app", "orders%2Fapp"),
            ("odd user", "'odd user'", "'odd user'", "odd%20user"),
            (r"o'b\c", r"'o\'b\\c'", r"'o'\''b\c'", "o%27b%5Cc"),
            ("$x`y`", "$x`y`", "'$x`y`'", "%24x%60y%60"),
            ("", "''", "''", ""),
        ];
        for (value, in_conninfo, in_shell, in_url) in rows {
            assert_eq!(
                (conninfo(value), shell(value), encoded(value)),
                (in_conninfo.to_owned(), in_shell.to_owned(), in_url.to_owned())
            );
        }
    }
}
