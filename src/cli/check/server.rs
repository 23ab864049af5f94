//! What a server says of roles and databases, on a connection that is logged in.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::report::{Finding, State};
use crate::config::Target;
use crate::ids::{DatabaseName, DbUser};
use crate::wire::request::quoted;

/// What a server said.
#[derive(Debug, Default)]
pub(super) struct Facts {
    settings: HashMap<String, i64>,
    users: HashMap<String, Role>,
    /// Databases, with their limits.
    databases: HashMap<String, Database>,
    /// Roles with `rds_superuser` that nobody can log in as by password any more.
    masters: Vec<String>,
}

#[derive(Debug, Default)]
struct Role {
    can_log_in: bool,
    is_superuser: bool,
    limit: i64,
    /// A member of `rds_iam`: by itself, or through the role of that name.
    iam: Option<Membership>,
    inherits: Vec<String>,
}

#[derive(Debug)]
enum Membership {
    Direct,
    Through(String),
}

#[derive(Debug)]
struct Database {
    allows_connections: bool,
    limit: i64,
    /// Users that may not connect.
    denied: Vec<String>,
}

/// Asks about the users and databases of these targets. All three columns are text, and none is null.
///
/// Membership is followed as `pg_hba.conf` does for `+rds_iam`: through all roles, whether they are inherited or not, and superusers
/// aren't members of everything (`is_member_of_role_nosuper`, PostgreSQL's `acl.c`), as `pg_has_role` has them.
pub(super) fn question(targets: &[Arc<Target>]) -> String {
    let users = list(
        targets
            .iter()
            .flat_map(|target| target.users.iter().map(DbUser::as_str)),
    );
    let databases = list(
        targets
            .iter()
            .flat_map(|target| target.databases.iter().map(DatabaseName::as_str)),
    );
    format!(
        "WITH RECURSIVE users AS (SELECT oid, rolname, rolcanlogin, rolsuper, rolconnlimit FROM pg_roles WHERE rolname::text = ANY({users})),
        reach(start, role) AS (
            SELECT oid, oid FROM users
            UNION SELECT roleid, roleid FROM pg_auth_members JOIN users ON users.oid = member
            UNION SELECT start, roleid FROM reach JOIN pg_auth_members ON member = role),
        down(role) AS (
            SELECT oid FROM pg_roles WHERE rolname = 'rds_iam'
            UNION SELECT member FROM down JOIN pg_auth_members ON roleid = role),
        masters(role) AS (
            SELECT oid FROM pg_roles WHERE rolname = 'rds_superuser'
            UNION SELECT member FROM masters JOIN pg_auth_members ON roleid = role)
        SELECT 'setting'::text, name::text, setting::text FROM pg_settings WHERE name IN ('max_connections',
            'superuser_reserved_connections', 'reserved_connections', 'rds.rds_superuser_reserved_connections')
        UNION ALL SELECT 'user', rolname::text, concat_ws('/', rolcanlogin, rolsuper, rolconnlimit) FROM users
        UNION ALL SELECT 'iam', u.rolname::text, CASE
            WHEN EXISTS (SELECT FROM pg_auth_members m WHERE m.member = u.oid AND m.roleid = i.oid) THEN ''
            ELSE (SELECT min(p.rolname::text) FROM pg_auth_members m JOIN pg_roles p ON p.oid = m.roleid
                JOIN reach ON reach.start = p.oid AND reach.role = i.oid WHERE m.member = u.oid) END
            FROM users u JOIN pg_roles i ON i.rolname = 'rds_iam' JOIN reach ON reach.start = u.oid AND reach.role = i.oid
        UNION ALL SELECT 'inherits', u.rolname::text, r.rolname::text FROM users u
            JOIN reach ON reach.start = u.oid AND reach.role <> u.oid JOIN pg_roles r ON r.oid = reach.role
        UNION ALL SELECT 'database', datname::text, concat_ws('/', datallowconn, datconnlimit) FROM pg_database
            WHERE datname::text = ANY({databases})
        UNION ALL SELECT 'denied', d.datname::text, u.rolname::text FROM pg_database d CROSS JOIN users u
            WHERE d.datname::text = ANY({databases}) AND NOT has_database_privilege(u.oid, d.oid, 'CONNECT')
        UNION ALL SELECT 'master', rolname::text, '' FROM pg_roles WHERE rolcanlogin
            AND oid IN (SELECT role FROM down) AND oid IN (SELECT role FROM masters) AND oid NOT IN (SELECT oid FROM users)
        ORDER BY 1, 2, 3"
    )
}

/// An array of texts, whatever `standard_conforming_strings` is.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut text = "ARRAY[".to_owned();
    for (number, name) in names.enumerate() {
        let escaped = name.replace('\\', "\\\\").replace('\'', "''");
        let _ = write!(text, "{}E'{escaped}'", if number > 0 { "," } else { "" });
    }
    text + "]::text[]"
}

impl Facts {
    /// What the rows of [`question`] mean.
    pub(super) fn read(rows: Vec<[String; 3]>) -> Self {
        let mut facts = Self::default();
        for [kind, name, text] in rows {
            let mut parts = text.split('/');
            let mut is_true = || parts.next() == Some("t");
            match kind.as_str() {
                "setting" => {
                    facts.settings.insert(name, number(&text));
                }
                "user" => {
                    let role = facts.users.entry(name).or_default();
                    (role.can_log_in, role.is_superuser) = (is_true(), is_true());
                    role.limit = parts.next().map_or(-1, number);
                }
                "iam" => {
                    let through = !text.is_empty();
                    let membership = if through {
                        Membership::Through(text)
                    } else {
                        Membership::Direct
                    };
                    facts.users.entry(name).or_default().iam = Some(membership);
                }
                "inherits" => facts.users.entry(name).or_default().inherits.push(text),
                "database" => {
                    let allows_connections = is_true();
                    let limit = parts.next().map_or(-1, number);
                    let denied = Vec::new();
                    facts.databases.insert(
                        name,
                        Database {
                            allows_connections,
                            limit,
                            denied,
                        },
                    );
                }
                "denied" => {
                    if let Some(database) = facts.databases.get_mut(&name) {
                        database.denied.push(text);
                    }
                }
                "master" => facts.masters.push(name),
                _ => {}
            }
        }
        facts
    }

    /// Whether `user` is as he must be for logins by token.
    pub(super) fn rds_iam(&self, user: &DbUser, subject: String) -> Finding {
        let role = quoted(user.as_str());
        let finding = |detail: String| Finding::ok("rds_iam", &subject, detail);
        let Some(known) = self.users.get(user.as_str()) else {
            return finding("there is no such role".to_owned()).but(
                State::Failed,
                format!("the server has no role {role}"),
                format!("CREATE USER {role}; GRANT rds_iam TO {role};"),
            );
        };
        if !known.can_log_in {
            return finding("no LOGIN".to_owned()).but(
                State::Failed,
                format!("the role {role} has no LOGIN"),
                format!("ALTER ROLE {role} LOGIN;"),
            );
        }
        let others: Vec<&str> = known
            .inherits
            .iter()
            .map(String::as_str)
            .filter(|name| *name != "rds_iam")
            .collect();
        let member_of = if others.is_empty() {
            "of nothing else".to_owned()
        } else {
            format!("also of {}", others.join(", "))
        };
        let Some(membership) = &known.iam else {
            return finding(format!("no member of rds_iam; {member_of}")).but(
                State::Failed,
                format!("{role} isn't a member of rds_iam, so the server wants a password from it"),
                format!("GRANT rds_iam TO {role};"),
            );
        };
        if known.is_superuser || others.contains(&"rds_superuser") {
            return finding(format!("member of rds_iam, {member_of}")).but(
                State::Warning,
                format!("{role} is a master user: everybody whom a rule lets in as it may do everything, and as a member of rds_iam it has no password any more"),
                format!("give the target a user that may do less; REVOKE rds_iam FROM {role};"),
            );
        }
        match membership {
            Membership::Direct => finding(format!("member of rds_iam, {member_of}")),
            Membership::Through(through) => finding(format!("member of rds_iam through {through}, {member_of}")).but(
                State::Warning,
                format!(
                    "{role} has rds_iam only from {}: whoever gets that role loses his password, and who loses it can't log in by token",
                    quoted(through)
                ),
                format!("GRANT rds_iam TO {role}; REVOKE rds_iam FROM {};", quoted(through)),
            ),
        }
    }

    /// Master users that can't log in by password any more, if there are any.
    pub(super) fn masters(&self, subject: impl ToString) -> Option<Finding> {
        let first = self.masters.first()?;
        let shown = self.masters.join(", ");
        let finding = Finding::ok("master", subject, format!("{shown}: member of rds_iam")).but(
            State::Warning,
            "a master user is a member of rds_iam, by itself or through a role that it was granted (as who creates roles is, from PostgreSQL 16 on); \
             then its password doesn't count any more",
            format!("REVOKE from {} the role through which it is a member; \\drg in psql shows which", quoted(first)),
        );
        Some(finding)
    }

    /// Whether users may connect to a database.
    pub(super) fn database(&self, name: &DatabaseName, users: &[DbUser], subject: String) -> Finding {
        let shown = quoted(name.as_str());
        let finding = |detail: String| Finding::ok("database", &subject, detail);
        let Some(database) = self.databases.get(name.as_str()) else {
            return finding("there is no such database".to_owned()).but(
                State::Failed,
                format!("the server has no database {shown}"),
                format!("correct databases of the target, or: CREATE DATABASE {shown};"),
            );
        };
        if !database.allows_connections {
            return finding("no connections".to_owned()).but(
                State::Failed,
                format!("{shown} lets nobody in, as a template or while it is restored"),
                format!("ALTER DATABASE {shown} ALLOW_CONNECTIONS true;"),
            );
        }
        let denied: Vec<String> = users
            .iter()
            .map(DbUser::as_str)
            .filter(|user| database.denied.iter().any(|denied| denied == user))
            .map(quoted)
            .collect();
        if !denied.is_empty() {
            let denied = denied.join(", ");
            return finding(format!("not for {denied}")).but(
                State::Failed,
                format!("{denied} may not connect to {shown}"),
                format!("GRANT CONNECT ON DATABASE {shown} TO {denied};"),
            );
        }
        finding("all users may connect".to_owned())
    }

    /// A setting that is a number; 0 if the server doesn't have it.
    pub(super) fn setting(&self, name: &str) -> i64 {
        self.settings.get(name).copied().unwrap_or_default()
    }

    /// How many connections a role may have, if that is limited.
    pub(super) fn limit_of_role(&self, name: &str) -> Option<i64> {
        let limit = self.users.get(name)?.limit;
        (limit >= 0).then_some(limit)
    }

    /// The same of a database.
    pub(super) fn limit_of_database(&self, name: &str) -> Option<i64> {
        let limit = self.databases.get(name)?.limit;
        (limit >= 0).then_some(limit)
    }
}

fn number(text: &str) -> i64 {
    text.parse().unwrap_or(-1)
}
