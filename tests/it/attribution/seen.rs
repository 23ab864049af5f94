//! Who is gone early, can't be seen, or speaks late.

use super::*;

/// Whoever comes through Session Manager in a way that isn't allowed must not be somebody else by being gone early.
#[test]
fn who_hangs_up_early_is_nobody_else_instead() {
    let rules = "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"orders\"]\nusers = [\"*\"]";
    let host = Host::with_rules("sources = [\"ssm\", \"trust\"]", "mode = \"auto\"", rules);
    let foreign = host.start(&SessionOptions {
        document: "SSM-SessionManagerRunShell".to_owned(),
        ..SessionOptions::new(ALICES, ALICE)
    });
    let startup = startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_rw"), ("database", "orders")],
    );
    for round in 0..600_u64 {
        let mut raw = Raw::dial(foreign.address);
        raw.send(&startup);
        raw.message('Q', b"select lo_create(0)\0");
        std::thread::sleep(Duration::from_micros(round % 60 * 50));
    }
    let (mut inside, answers) = log_in(host.gateway.address(), "app_rw");
    assert!(is_in(&answers), "who doesn't come through a session is `trust:`");
    assert_eq!(
        first_value(&inside.query("select count(*) from pg_largeobject_metadata")),
        "0"
    );
    // Once its own is written, all others are.
    let logins = (0..100).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let log = std::fs::read_to_string(host.audit()).unwrap();
        Some(log.matches("\"event\":\"login\"").count()).filter(|count| *count > 0)
    });
    assert_eq!(logins, Some(1));
}

#[test]
fn whoever_cannot_be_seen_is_not_known_to_come_another_way() {
    let mut host = Host::with("sources = [\"ssm\", \"trust\"]");
    let socket = host.directory.path().join("attribute.sock");
    host.helper.kill().unwrap();
    host.helper.wait().unwrap();
    let mut apart = Command::new("unshare");
    apart
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(env!("CARGO_BIN_EXE_postern"));
    host.helper = helper_by(&mut apart, &host.agent, &socket, rustix_uid());
    let alices = host.session(ALICES, ALICE);
    host.refuses(&alices, "no_helper", "`postern attribute` doesn't answer");
    let reason = "no process that can be seen has the connection";
    assert_eq!(host.logged(reason, 1).len(), 1);
}

#[test]
fn who_speaks_late_is_looked_for_again() {
    let mut host = Host::new();
    let alices = host.session(ALICES, ALICE);
    host.helper.kill().unwrap();
    host.helper.wait().unwrap();
    let mut early = Raw::dial(alices.address);
    std::thread::sleep(Duration::from_secs(6));
    let socket = host.directory.path().join("attribute.sock");
    std::fs::remove_file(&socket).unwrap();
    host.helper = helper(&host.agent, &socket, rustix_uid());
    early.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    ));
    assert!(is_in(&early.until('Z')));
}
