//! Which target a client comes to, and what it is told if it isn't clear or not allowed.

use std::process::{Command, Output};

use postern::wire::startup::{ProtocolVersion, startup_message};
use postern_lab::{Lab, LabConfig};

use crate::gateway::{Gateway, Options, free_port, stderr, stdout};
use crate::raw::{Message, Raw};

const READER: &str = "orders.cluster-ro-abc123.us-east-1.rds.amazonaws.com";

/// What whoever is let in may use.
const OFFERS: &str = "You may use orders/orders as app_ro; reports/orders as app_ro.";

/// Two targets behind one port, the second with one of its own as well, and a third for nobody.
struct Two {
    gateway: Gateway,
    own: u16,
    lab: Lab,
}

impl Two {
    fn start(more_rules: &str) -> Self {
        let lab = Lab::start(LabConfig::default()).unwrap();
        let own = free_port();
        let target = |name: &str, host: &str, listen: &str| {
            format!(
                "[[targets]]\nname = \"{name}\"\nendpoint = \"{host}\"\ndial_address = \"{}\"\ntls_ca_file = {:?}\n\
                 databases = [\"orders\"]\nusers = [\"app_ro\", \"app_rw\"]\npool.min_idle = 0\n{listen}\n",
                lab.dial_address(),
                lab.ca_file(),
            )
        };
        let rules = format!(
            "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"orders\", \"rep*\"]\nusers = [\"app_ro\"]\n{more_rules}\n{}{}",
            target(
                "reports",
                READER,
                &format!("listen = [\"127.0.0.1:{own}\", \"[::1]:{own}\"]")
            ),
            target(
                "secret",
                "orders-instance-1.abc123.us-east-1.rds.amazonaws.com",
                ""
            ),
        );
        let options = Options {
            rules: rules.leak(),
            log: "info",
            ..Options::default()
        };
        let gateway = Gateway::start(&lab, &options);
        Self { gateway, own, lab }
    }

    fn psql(&self, connection: &str) -> Output {
        Command::new("psql")
            .arg(format!("user=app_ro {connection}"))
            .args(["-X", "-A", "-t", "-c", "select 42"])
            .output()
            .unwrap()
    }

    /// Whoever connects like that has come to a target of this name.
    fn leads_to(&self, target: &str, connection: &str) {
        let came = |log: &str| log.matches(&format!("pool={target}/orders/app_ro")).count();
        let before = came(&self.gateway.log());
        assert_eq!(stdout(&self.psql(connection)), "42", "{connection}");
        assert_eq!(
            came(&self.gateway.log()),
            before + 1,
            "{connection}: {}",
            self.gateway.log()
        );
    }

    fn refused(&self, database: &str, user: &str) -> Message {
        let mut raw = Raw::connect(&self.gateway);
        raw.send(&startup_message(
            ProtocolVersion::V3_0,
            &[("user", user), ("database", database)],
        ));
        raw.last_error()
    }
}

#[test]
fn two_targets_are_reached_behind_one_port() {
    let two = Two::start("");
    let (port, own) = (two.gateway.port, two.own);
    // The line that needs no wrapper and no change of the endpoint's name.
    let writer = two.lab.endpoint_host();
    two.leads_to(
        "orders",
        &format!("host={writer} hostaddr=127.0.0.1 port={port} sslmode=prefer dbname=orders"),
    );
    two.leads_to(
        "reports",
        &format!("host={READER} hostaddr=127.0.0.1 port={port} sslmode=prefer dbname=orders"),
    );
    two.leads_to(
        "reports",
        &format!("host=127.0.0.1 port={port} dbname=orders options=-cpostern.target=reports"),
    );
    two.leads_to(
        "orders",
        &format!("host=127.0.0.1 port={port} dbname=orders/orders"),
    );
    two.leads_to(
        "reports",
        &format!("host=127.0.0.1 port={port} dbname=reports/orders"),
    );
    for host in ["127.0.0.1", "::1"] {
        two.leads_to("reports", &format!("host={host} port={own} dbname=orders"));
    }
    // Who comes to a target's own address goes nowhere else, whatever it says.
    two.leads_to(
        "reports",
        &format!("host=127.0.0.1 port={own} dbname=orders options=-cpostern.target=orders"),
    );
    two.leads_to(
        "reports",
        &format!("host={writer} hostaddr=127.0.0.1 port={own} dbname=orders"),
    );
    let refused = two.psql(&format!("host=127.0.0.1 port={own} dbname=orders/orders"));
    assert!(stderr(&refused).contains("target \"reports\", database \"orders/orders\""));
}

#[test]
fn who_may_not_go_there_is_told_where_else() {
    let two = Two::start("");
    for (database, user) in [
        ("secret/orders", "app_ro"),
        ("nowhere/orders", "app_ro"),
        ("orders/postgres", "app_ro"),
        ("reports/orders", "app_rw"),
    ] {
        let error = two.refused(database, user);
        assert_eq!(error.field(b'C').unwrap(), "28000", "{database}");
        let hint = error.field(b'H').unwrap();
        assert!(hint.ends_with(OFFERS), "{database}: {hint}");
    }
    let error = two.refused("orders", "app_ro");
    assert_eq!(error.field(b'C').unwrap(), "3D000");
    assert!(error.field(b'H').unwrap().ends_with(OFFERS), "{error:?}");
}

#[test]
fn psql_lists_what_one_may_use() {
    let two = Two::start(
        "read_only = true\n[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"orders\"]\nusers = [\"app_rw\"]",
    );
    let port = two.gateway.port;
    let listed = Command::new("psql")
        .arg(format!("host=127.0.0.1 port={port} user=app_ro dbname=postern"))
        .args(["-X", "-A", "-t", "-l"])
        .output()
        .unwrap();
    let writer = two.lab.endpoint_host();
    assert_eq!(
        stdout(&listed),
        format!(
            "orders/orders|app_ro (read-only), app_rw|{writer}:5432\nreports/orders|app_ro (read-only)|{READER}:5432"
        )
    );
}
