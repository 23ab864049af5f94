//! What can be looked at, and that PgBouncer's columns are all there.

use postern_lab::{Lab, LabConfig};
use tokio_postgres::NoTls;

use super::{error, rule, started};
use crate::raw::{Raw, columns, rows};

/// PgBouncer's SHOW commands with its columns (its documentation, "Show commands", 1.25, and `stats.c` where that doesn't name them).
const PGBOUNCERS: [(&str, &str); 18] = [
    (
        "stats",
        "database total_server_assignment_count total_xact_count total_query_count total_received total_sent total_xact_time \
         total_query_time total_wait_time total_client_parse_count total_server_parse_count total_bind_count total_client_login_count \
         total_server_closed_count total_server_lifetime avg_server_assignment_count avg_xact_count avg_query_count avg_recv avg_sent \
         avg_xact_time avg_query_time avg_wait_time avg_client_parse_count avg_server_parse_count avg_bind_count \
         avg_server_closed_count avg_server_lifetime",
    ),
    ("stats_totals", PART),
    ("stats_averages", PART),
    ("totals", "name value"),
    (
        "servers",
        "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us close_needed ptr \
         link remote_pid tls application_name prepared_statements id",
    ),
    (
        "clients",
        "type user database replication state addr port local_addr local_port connect_time request_time wait wait_us close_needed ptr \
         link remote_pid tls application_name prepared_statements id",
    ),
    (
        "pools",
        "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled \
         sv_idle sv_used sv_tested sv_login maxwait maxwait_us pool_mode load_balance_hosts",
    ),
    (
        "peer_pools",
        "database cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login",
    ),
    ("peers", "peer_id host port pool_size"),
    ("lists", "list items"),
    (
        "users",
        "name pool_size reserve_pool_size pool_mode max_user_connections current_connections max_user_client_connections \
         current_client_connections",
    ),
    (
        "databases",
        "name host port database force_user pool_size min_pool_size reserve_pool_size server_lifetime pool_mode load_balance_hosts \
         max_connections current_connections max_client_connections current_client_connections paused disabled",
    ),
    ("config", "key value default changeable"),
    ("mem", "name size used free memtotal"),
    ("dns_hosts", "hostname ttl addrs"),
    ("dns_zones", "zonename serial count"),
    ("version", "version"),
    ("state", "key value"),
];

const PART: &str = "database server_assignment_count xact_count query_count bytes_received bytes_sent xact_time query_time wait_time \
                    client_parse_count server_parse_count bind_count";

#[test]
fn every_column_of_pgbouncers_is_there() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("stats"), None);
    let mut console = Raw::visit(&gateway);
    for (show, expected) in PGBOUNCERS {
        let answers = console.query(&format!("SHOW {show};"));
        let names = columns(&answers[0]);
        for name in expected.split_whitespace() {
            assert!(
                names.iter().any(|known| known == name),
                "{show}: {name} of {names:?}"
            );
        }
    }
    for command in ["show fds", "show sockets", "show active_sockets"] {
        assert_eq!(error(&console.query(command)), "0A000", "{command}");
    }
}

#[test]
fn what_goes_through_is_shown() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("stats"), None);
    let (mut client, _) = Raw::login(&gateway, "app_ro");
    for _ in 0..3 {
        client.query("select 1");
    }
    client.query("begin");
    client.query("select 2");
    let mut console = Raw::visit(&gateway);
    let mut shows = |what: &str, column: &str, value: &str| {
        let mut looks = 0..500;
        let found = looks.find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let found = rows(&console.query(&format!("show {what}")));
            found.into_iter().find(|row| row[column] == value)
        });
        found.unwrap_or_else(|| panic!("{what}: no {column} {value}"))
    };
    let me = shows("clients", "user", "app_ro");
    assert_eq!((me["state"].as_str(), me["tls"].as_str()), ("active", ""));
    let server = shows("servers", "link", &me["id"]);
    assert_eq!(
        (server["id"].as_str(), server["state"].as_str()),
        (me["link"].as_str(), "active")
    );
    let pid = lab.superuser_sql(
        "select pid from pg_stat_activity where usename = 'app_ro' and state = 'idle in transaction'",
    );
    assert_eq!(server["remote_pid"], pid.unwrap().trim());
    let pool = shows("pools", "user", "app_ro");
    let counts = ["cl_active", "cl_waiting", "sv_active", "pool_mode"].map(|name| pool[name].as_str());
    assert_eq!(counts, ["1", "0", "1", "auto"]);

    client.query("commit");
    let stats = shows("stats", "database", "orders/orders");
    let count = |name: &str| stats[name].parse::<u64>().unwrap();
    // The catalogs' reader has some assignments of its own.
    assert_eq!((count("total_xact_count"), count("total_query_count")), (4, 6));
    assert!(count("total_server_assignment_count") >= 4 && count("total_client_login_count") == 1);
    assert!(count("total_received") > 60 && count("total_sent") > count("total_received"));
    assert!(count("total_xact_time") > 0);
    assert_eq!(stats["total_query_time"], "NULL", "which isn't measured");

    client.query("listen news");
    let pin = shows("pins", "user", "app_ro");
    assert!(
        pin["reasons"].contains("listen") && pin["id"] == me["id"],
        "{pin:?}"
    );
    client.query("unlisten *");
    let database = shows("databases", "name", "orders/orders");
    let facts =
        ["database", "pool_size", "current_client_connections", "paused"].map(|name| database[name].as_str());
    assert_eq!(facts, ["orders", "20", "1", "0"]);
    assert_eq!(shows("lists", "list", "used_clients")["items"], "2");
    let token = shows("tokens", "user", "app_ro");
    assert_eq!(token["state"], "usable");
    assert!(token["usable_for_seconds"].parse::<u64>().unwrap() > 600);
    let budget = shows("budget", "logins_per_second", "200");
    assert!(budget["spent"].parse::<u64>().unwrap() >= 1);
    assert_eq!(shows("rules", "rule", "0")["clients"], "1");
    assert_eq!(shows("rules", "console", "stats")["clients"], "1");
    assert_eq!(shows("config", "key", "max_client_conn")["value"], "10000");
    assert_eq!(
        shows("users", "name", "app_ro")["current_client_connections"],
        "1"
    );
}

/// What prometheus-community's `pgbouncer_exporter` asks (its `collector.go`), and reads out of that; by the simple protocol, as its driver does.
#[test]
fn pgbouncers_exporter_finds_what_it_looks_for() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("stats"), None);
    let mut console = Raw::visit(&gateway);
    assert_eq!(console.query("SHOW STATS").last().unwrap().tag, 'Z');
    let version = rows(&console.query("SHOW VERSION;"));
    assert!(version[0]["version"].starts_with("Postern "));
    assert_eq!(columns(&console.query("SHOW LISTS;")[0]).len(), 2);
    assert_eq!(columns(&console.query("SHOW CONFIG;")[0]).len(), 4);
    for (show, numbers) in [
        (
            "databases",
            "pool_size max_connections current_connections paused disabled",
        ),
        (
            "stats_totals",
            "query_count bytes_received bytes_sent wait_time xact_count xact_time server_parse_count bind_count",
        ),
        (
            "pools",
            "cl_active cl_active_cancel_req cl_waiting cl_waiting_cancel_req sv_active sv_active_cancel sv_being_canceled sv_idle sv_used \
             sv_tested sv_login maxwait",
        ),
    ] {
        let all = rows(&console.query(&format!("SHOW {show};")));
        assert!(!all.is_empty());
        for (row, name) in all
            .iter()
            .flat_map(|row| numbers.split_whitespace().map(move |name| (row, name)))
        {
            assert!(row[name].parse::<f64>().is_ok(), "{show}.{name}: {}", row[name]);
        }
    }
}

#[tokio::test]
async fn drivers_that_speak_only_the_extended_protocol_are_answered() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &rule("admin"), None);
    let mut config = gateway.client("somebody");
    let (client, connection) = config.dbname("postern").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    // Prepared, described, bound with binary results.
    let pools = client.query("show pools", &[]).await.unwrap();
    assert_eq!(pools[0].get::<_, &str>("database"), "orders/orders");
    assert_eq!(pools[0].get::<_, i64>("cl_waiting"), 0);
    assert_eq!(pools[0].get::<_, Option<&str>>("load_balance_hosts"), None);
    let statement = client.prepare("show lists").await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.query(&statement, &[]).await.unwrap().len(), 12);
    }
    drop(statement);
    assert_eq!(client.execute("reconnect", &[]).await.unwrap(), 0);
    client.batch_execute("set extra_float_digits = 3").await.unwrap();
    let refused = client.query("show nothing", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "42601");
    let refused = client.query("kill nowhere", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "3D000");
    assert!(client.query("show version", &[]).await.is_ok());
}

#[test]
fn a_rule_is_shown_whole() {
    let narrow = "[[rules]]\nprincipals = [\"*\"]\naccounts = [\"123456789012\"]\npermission_sets = [\"Analyst\", \"On*\"]\n\
                  documents = [\"postern-connect\"]\ntargets = [\"orders\"]\nusers = [\"app_ro\"]\n";
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = started(&lab, &format!("{narrow}{}", rule("admin")), None);
    let shown = rows(&Raw::visit(&gateway).query("show rules"));
    let of_narrow = ["accounts", "permission_sets", "documents"].map(|column| shown[1][column].as_str());
    assert_eq!(of_narrow, ["123456789012", "Analyst, On*", "postern-connect"]);
    assert_eq!(shown[0]["permission_sets"], "NULL");
}
