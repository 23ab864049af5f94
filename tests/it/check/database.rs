//! Faults of roles, permissions, databases and room for connections.

use std::time::{Duration, Instant};

use postern_lab::{LoginFault, max_logins_in_any_second};

use super::{STATEMENT_FOR_APP_RW, Setup};

#[test]
fn fault_the_role_may_not_connect_as_a_user() {
    let setup = Setup::new();
    setup.lab.faults().every_login(LoginFault::RefuseToken);
    setup
        .lab
        .faults()
        .change(|faults| faults.login_user = Some("app_rw".to_owned()));
    let found = setup.check(&[]);
    found.only(
        "failed",
        "login",
        "lacks rds-db:connect as \"app_rw\"",
        STATEMENT_FOR_APP_RW,
    );
    found.has(
        "failed",
        "login",
        "assumed-role/postern-gateway/",
        "add to the role's policy",
    );
    let login = found
        .findings
        .iter()
        .find(|finding| finding["state"] == "failed")
        .unwrap();
    let told = format!("{}{}", login["cause"], login["remedy"]);
    assert!(
        !told.contains("rds_iam") && !told.contains("authentication is off"),
        "another user's login has told that these are right: {told}"
    );
    assert_eq!(found.of_check("login", "app_ro@orders").0, "ok");
}

#[test]
fn fault_the_role_may_not_connect_at_all() {
    let mut setup = Setup::new();
    setup.users = &["app_rw"];
    setup.lab.faults().every_login(LoginFault::RefuseToken);
    let found = setup.check(&[]);
    found.only(
        "failed",
        "login",
        "lacks rds-db:connect as \"app_rw\"",
        STATEMENT_FOR_APP_RW,
    );
    found.has(
        "failed",
        "login",
        "2. \"app_rw\" isn't a member of rds_iam",
        "GRANT rds_iam TO \"app_rw\";",
    );
    found.skips("rds_iam", "app_rw@orders", "login (app_rw@orders)");
    found.skips("connections", &setup.endpoint, "login (app_rw@orders)");
}

#[test]
fn fault_a_user_is_no_member_of_rds_iam() {
    let setup = Setup::new();
    setup.lab.superuser_sql("revoke rds_iam from app_rw").unwrap();
    let found = setup.check(&[]);
    found.only(
        "failed",
        "rds_iam",
        "isn't a member of rds_iam",
        "GRANT rds_iam TO \"app_rw\";",
    );
    found.skips("login", "app_rw@orders", "rds_iam (app_rw@orders)");
}

#[test]
fn fault_the_only_user_is_no_member_of_rds_iam() {
    let mut setup = Setup::new();
    setup.users = &["app_rw"];
    setup.lab.superuser_sql("revoke rds_iam from app_rw").unwrap();
    let found = setup.check(&[]);
    found.only(
        "failed",
        "login",
        "wants a password from \"app_rw\"",
        "GRANT rds_iam TO \"app_rw\";",
    );
}

#[test]
fn fault_there_is_no_such_user() {
    let mut setup = Setup::new();
    setup.users = &["app_ro", "it's\\nobody\"s"];
    let found = setup.check(&[]);
    found.only(
        "failed",
        "rds_iam",
        "has no role \"it's\\nobody\"\"s\"",
        "CREATE USER \"it's\\nobody\"\"s\";",
    );
}

#[test]
fn fault_a_user_has_no_login() {
    let setup = Setup::new();
    setup.lab.superuser_sql("alter role app_rw nologin").unwrap();
    let found = setup.check(&[]);
    found.only(
        "failed",
        "rds_iam",
        "\"app_rw\" has no LOGIN",
        "ALTER ROLE \"app_rw\" LOGIN;",
    );
    let mut alone = Setup::new();
    alone.users = &["app_rw"];
    alone.lab.superuser_sql("alter role app_rw nologin").unwrap();
    let found = alone.check(&[]);
    found.only(
        "failed",
        "login",
        "\"app_rw\" has no LOGIN",
        "ALTER ROLE \"app_rw\" LOGIN;",
    );
}

#[test]
fn fault_rds_iam_comes_from_another_role() {
    let setup = Setup::new();
    let grants = "create role team; create role other; grant rds_iam to team; grant team, other to app_rw; revoke rds_iam from app_rw";
    setup.lab.superuser_sql(grants).unwrap();
    let found = setup.check(&[]);
    found.only(
        "warning",
        "rds_iam",
        "only from \"team\"",
        "REVOKE rds_iam FROM \"team\";",
    );
    let detail = found.of_check("rds_iam", "app_rw@orders").1;
    assert_eq!(detail, "member of rds_iam through team, also of other, team");
}

#[test]
fn fault_a_user_is_a_superuser() {
    let setup = Setup::new();
    setup.lab.superuser_sql("alter role app_rw superuser").unwrap();
    setup.check(&[]).only(
        "warning",
        "rds_iam",
        "is a master user",
        "REVOKE rds_iam FROM \"app_rw\";",
    );
    let setup = Setup::new();
    setup
        .lab
        .superuser_sql("create role rds_superuser; grant rds_superuser to app_rw")
        .unwrap();
    setup.check(&[]).only(
        "warning",
        "rds_iam",
        "is a master user",
        "REVOKE rds_iam FROM \"app_rw\";",
    );
}

#[test]
fn fault_a_master_user_has_lost_its_password() {
    let setup = Setup::new();
    let grants = "create role rds_superuser; create role chief login; grant rds_superuser, app_ro to chief";
    setup.lab.superuser_sql(grants).unwrap();
    setup.check(&[]).only(
        "warning",
        "master",
        "its password doesn't count any more",
        "REVOKE from \"chief\"",
    );
}

#[test]
fn fault_a_master_user_is_a_member_of_the_roles_that_it_creates() {
    let setup = Setup::new();
    let grants = "create role rds_superuser; create role chief login createrole in role rds_superuser; \
        set role chief; create role app_new login; reset role; grant rds_iam to app_new";
    setup.lab.superuser_sql(grants).unwrap();
    let version = setup.lab.superuser_sql("show server_version_num").unwrap();
    let found = setup.check(&[]);
    if version.trim().parse::<u32>().unwrap() < 160_000 {
        assert_eq!(found.wrong(), [""; 0]);
    } else {
        found.only(
            "warning",
            "master",
            "from PostgreSQL 16 on",
            "REVOKE from \"chief\"",
        );
    }
}

#[test]
fn fault_there_is_no_such_database() {
    let mut setup = Setup::new();
    setup.databases = &["ordres"];
    let found = setup.check(&[]);
    found.only(
        "failed",
        "login",
        "has no database \"ordres\"",
        "correct databases of target orders",
    );
    found.is_like(
        "login",
        "app_rw@orders",
        "skipped",
        "the same as login (app_ro@orders)",
    );
    let mut setup = Setup::new();
    setup.databases = &["orders", "stock"];
    let found = setup.check(&[]);
    found.only(
        "failed",
        "database",
        "has no database \"stock\"",
        "CREATE DATABASE \"stock\";",
    );
    assert_eq!(found.of_check("database", "orders@orders").0, "ok");
}

#[test]
fn fault_a_user_may_not_connect_to_a_database() {
    let setup = Setup::new();
    setup
        .lab
        .superuser_sql("revoke connect on database orders from public")
        .unwrap();
    let found = setup.check(&[]);
    found.only(
        "failed",
        "database",
        "\"app_ro\" may not connect",
        "GRANT CONNECT ON DATABASE \"orders\" TO \"app_ro\";",
    );
    found.skips("login", "app_ro@orders", "database (orders@orders)");
}

#[test]
fn fault_a_database_lets_nobody_in() {
    let mut setup = Setup::new();
    setup.databases = &["orders", "template0"];
    setup.check(&[]).only(
        "failed",
        "database",
        "lets nobody in",
        "ALTER DATABASE \"template0\" ALLOW_CONNECTIONS true;",
    );
}

#[test]
fn fault_the_pools_are_more_than_the_server_takes() {
    let mut setup = Setup::new();
    // 200 less 3 for superusers, and 40 for each gateway.
    let found = setup.check(&["--gateways", "4"]);
    assert_eq!(found.wrong(), [""; 0]);
    let found = setup.check(&["--gateways", "5"]);
    found.only("warning", "connections", "full pools are more", "lower pool.size");
    let room = found.of_check("connections", &setup.endpoint).1;
    assert_eq!(
        room,
        "pools 200 of 5 gateway(s), 197 allowed (200 less 3 reserved)"
    );
    setup.pool = "size = 120\nmin_idle = 100";
    setup.check(&[]).only(
        "failed",
        "connections",
        "min_idle alone is 200",
        "lower pool.size",
    );
}

#[test]
fn fault_a_role_or_a_database_has_a_lower_limit() {
    let setup = Setup::new();
    setup
        .lab
        .superuser_sql("alter role app_rw connection limit 19")
        .unwrap();
    setup.check(&[]).only(
        "warning",
        "connections",
        "the role \"app_rw\" has CONNECTION LIMIT 19",
        "ALTER ROLE \"app_rw\" CONNECTION LIMIT 20",
    );
    let setup = Setup::new();
    setup
        .lab
        .superuser_sql("alter database orders connection limit 39")
        .unwrap();
    setup.check(&[]).only(
        "warning",
        "connections",
        "the database \"orders\" has CONNECTION LIMIT 39",
        "ALTER DATABASE \"orders\" CONNECTION LIMIT 40",
    );
}

#[test]
fn fault_the_server_does_not_tell_of_roles() {
    let mut setup = Setup::new();
    // app_ro may read all there is, and is asked if he is there.
    setup.users = &["app_rw"];
    let revoked = "revoke select on pg_catalog.pg_auth_members from public";
    setup.lab.superuser_sql(revoked).unwrap();
    let found = setup.check(&[]);
    found.only("failed", "server", "what everybody may read", "revoked SELECT");
    let server = format!("server ({})", setup.endpoint);
    found.skips("rds_iam", "app_rw@orders", &server);
    found.skips("connections", &setup.endpoint, &server);
    assert_eq!(found.of_check("login", "app_rw@orders").0, "ok");
}

#[test]
fn fault_the_server_is_full() {
    let setup = Setup::new();
    setup.lab.faults().every_login(LoginFault::TooManyConnections);
    let found = setup.check(&[]);
    found.only("failed", "login", "no connection left", "raise max_connections");
    found.is_like(
        "login",
        "app_rw@orders",
        "skipped",
        "the same as login (app_ro@orders)",
    );
}

#[test]
fn fault_the_server_starts() {
    let setup = Setup::new();
    setup.lab.faults().every_login(LoginFault::StartingUp);
    setup.check(&[]).only(
        "failed",
        "login",
        "starting, stopping or failing over",
        "wait until it is available",
    );
}

#[test]
fn fault_the_budget_is_too_small_for_the_users() {
    let mut setup = Setup::new();
    // One at the start, and the next only as the rate grows.
    setup.pool = "size = 1\n[targets.iam]\nlogins_per_second = 1";
    setup.users = &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    for user in setup.users {
        let create = format!("create role {user} login in role rds_iam");
        setup.lab.superuser_sql(&create).unwrap();
    }
    let found = setup.check(&[]);
    found.only(
        "failed",
        "login",
        "login budget allows no login",
        "logins_per_second",
    );
    assert!(
        max_logins_in_any_second(&setup.lab.logins()) <= 1,
        "it keeps to the budget"
    );
}

#[test]
fn fault_logins_hang() {
    let setup = Setup::new();
    setup.lab.faults().every_login(LoginFault::StallAtPassword);
    let began = Instant::now();
    let found = setup.check(&[]);
    assert!(began.elapsed() < Duration::from_secs(30));
    found.only("failed", "login", "doesn't go on", "overloaded");
}
