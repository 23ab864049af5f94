//! What rules allow only so much of.

use std::process::Command;
use std::time::Duration;

use postern::wire::startup::{ProtocolVersion, startup_message};
use postern_lab::{Lab, LabConfig};

use crate::gateway::{Gateway, Options, stderr};
use crate::raw::{Message, Raw};

/// A gateway with this pool, with `bounds` in a rule of each of two users.
fn bounded(pool: &'static str, bounds: &str) -> (Lab, Gateway) {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let rule = |user: &str| {
        format!(
            "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"orders\"]\nusers = [\"{user}\"]\n{bounds}\n"
        )
    };
    let rules = [rule("app_ro"), rule("app_rw")].concat();
    let options = Options {
        pool,
        rules: rules.leak(),
        ..Options::default()
    };
    let gateway = Gateway::start(&lab, &options);
    (lab, gateway)
}

fn log_in(gateway: &Gateway, user: &str) -> (Raw, Message) {
    let mut raw = Raw::connect(gateway);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", user), ("database", "orders")],
    ));
    let last = raw.until('Z').pop().unwrap();
    (raw, last)
}

#[test]
fn a_principal_has_no_more_connections_than_a_rule_allows() {
    let (_lab, gateway) = bounded("mode = \"auto\"", "max_clients = 2");
    let (one, answer) = log_in(&gateway, "app_ro");
    assert_eq!(answer.tag, 'Z');
    let (_two, answer) = log_in(&gateway, "app_ro");
    assert_eq!(answer.tag, 'Z');
    let (_three, refused) = log_in(&gateway, "app_ro");
    assert_eq!(refused.field(b'C').unwrap(), "53300");
    assert_eq!(
        refused.field(b'D').unwrap(),
        "Principal \"trust:\" has 2 client connections already, as many as rules[0].max_clients allows."
    );
    let (_four, answer) = log_in(&gateway, "app_rw");
    assert_eq!(answer.tag, 'Z', "by another rule");
    drop(one);
    let again = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        log_in(&gateway, "app_ro").1.tag == 'Z'
    });
    assert!(again, "once one is gone");
}

#[test]
fn a_session_lasts_no_longer_than_a_rule_allows() {
    for pool in ["mode = \"auto\"", "mode = \"session\""] {
        let (lab, gateway) = bounded(pool, "max_duration = \"2s\"");
        let (mut idle, _) = log_in(&gateway, "app_ro");
        let (mut asks, _) = log_in(&gateway, "app_ro");
        asks.query("select 1");
        let (mut busy, _) = log_in(&gateway, "app_ro");
        busy.message('Q', b"select pg_sleep(60)\0");
        for (raw, what) in [(&mut idle, "idle"), (&mut asks, "asks"), (&mut busy, "busy")] {
            let end = raw.until('E').pop().unwrap();
            assert_eq!(end.field(b'C').unwrap(), "57P01", "{pool}, {what}");
            assert!(
                end.field(b'D').unwrap().contains("max_duration"),
                "{pool}, {what}"
            );
        }
        let asleep = "select count(*) from pg_stat_activity where state = 'active' and query like '%pg_sleep(60)%' \
                      and pid <> pg_backend_pid()";
        let ends = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(100));
            lab.superuser_sql(asleep).unwrap().trim() == "0"
        });
        assert!(ends, "{pool}: what was asked goes on");
    }
}

#[test]
fn a_session_that_waits_for_a_server_ends_as_well() {
    for pool in ["mode = \"auto\"\nsize = 1", "mode = \"session\"\nsize = 1"] {
        let (lab, gateway) = bounded(pool, "max_duration = \"4s\"");
        let (mut waits, _) = log_in(&gateway, "app_rw");
        std::thread::sleep(Duration::from_secs(3));
        let (mut holds, _) = log_in(&gateway, "app_rw");
        holds.query("begin");
        waits.message('Q', b"create table late (a int)\0");
        let end = waits.until('E').pop().unwrap();
        assert_eq!(end.field(b'C').unwrap(), "57P01", "{pool}");
        // It didn't wait until the connection came free.
        assert_eq!(holds.query("commit").last().unwrap().tag, 'Z', "{pool}");
        std::thread::sleep(Duration::from_millis(500));
        let made = lab
            .superuser_sql("select count(*) from pg_tables where tablename = 'late'")
            .unwrap();
        assert_eq!(made.trim(), "0", "{pool}: it is done after the end");
    }
}

#[test]
fn a_rule_holds_in_its_hours() {
    // 1 January 1970 was a Thursday.
    let days = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let day = |later: u64| days[((since.as_secs() / 86_400 + later) % 7) as usize];
    let others = format!("hours = [\"{}-{} 00:00-24:00\"]", day(2), day(5));
    let (_lab, gateway) = bounded("mode = \"auto\"", &others);
    let (_, refused) = log_in(&gateway, "app_ro");
    assert_eq!(refused.field(b'C').unwrap(), "28000");
    let (_lab, gateway) = bounded(
        "mode = \"auto\"",
        "hours = [\"00:00-24:00\"]\ntimezone = \"Asia/Tokyo\"",
    );
    assert_eq!(log_in(&gateway, "app_ro").1.tag, 'Z');
}

fn explained(rule: &str, at: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("postern.toml");
    let config = format!(
        "[identity]\nsources = [\"trust\"]\n[[targets]]\nname = \"a\"\nendpoint = \"a.invalid\"\nregion = \"eu-west-1\"\n\
         databases = [\"a\"]\nusers = [\"a\"]\n[[rules]]\nprincipals = [\"*\"]\ntargets = [\"*\"]\nusers = [\"*\"]\n{rule}\n"
    );
    std::fs::write(&file, config).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["config", "explain", "--config"])
        .arg(&file)
        .args([
            "--principal",
            "trust:",
            "--target",
            "a",
            "--user",
            "a",
            "--at",
            at,
        ])
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output)
}

#[test]
fn the_hours_of_rules_are_explained() {
    let office = "hours = [\"Mon-Fri 07:00-19:00\"]\ntimezone = \"Europe/Berlin\"";
    let told = explained(office, "2026-11-26T17:00:00Z");
    assert!(
        told.contains("admitted by rules[0], each for 1h, Mon,Tue,Wed,Thu,Fri 07:00-19:00 Europe/Berlin"),
        "{told}"
    );
    let told = explained(office, "2026-11-26T18:00:00Z");
    assert!(told.contains("rules[0]: not this time"), "{told}");
    for (rule, why) in [
        ("hours = [\"9-5\"]", "are no hours; expected such as"),
        ("hours = []", "would never hold"),
        ("timezone = \"UTC\"", "says nothing without hours"),
        (
            "hours = [\"07:00-19:00\"]\ntimezone = \"Mars\"",
            "is no time zone",
        ),
    ] {
        let told = explained(rule, "2026-11-26T18:00:00Z");
        assert!(told.contains("rules[0].") && told.contains(why), "{told}");
    }
}

/// Writes other rules into the gateway's configuration and has them read; returns once the log says so.
pub(crate) fn reload(gateway: &Gateway, change: impl Fn(&str) -> String, says: &str) {
    let path = gateway.config();
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, change(&text)).unwrap();
    let before = gateway.log().matches(says).count();
    gateway.signal("HUP");
    let is_said = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        gateway.log().matches(says).count() > before
    });
    assert!(is_said, "{says}: {}", gateway.log());
}

#[test]
fn rules_that_are_changed_count_at_once() {
    for pool in ["mode = \"auto\"", "mode = \"session\""] {
        let (_lab, gateway) = bounded(pool, "max_clients = 3");
        let (mut reads, _) = log_in(&gateway, "app_ro");
        let (mut idle, _) = log_in(&gateway, "app_rw");
        let (mut busy, _) = log_in(&gateway, "app_rw");
        busy.message('Q', b"select pg_sleep(60)\0");
        std::thread::sleep(Duration::from_millis(300));
        // Somebody else is first now, and app_rw nobody's.
        let first =
            "[[rules]]\nprincipals = [\"scram:nobody\"]\ntargets = [\"*\"]\nusers = [\"*\"]\n[[rules]]";
        reload(
            &gateway,
            |text| {
                text.replacen("[[rules]]", first, 1)
                    .replace("users = [\"app_rw\"]\nmax", "users = [\"none\"]\nmax")
            },
            "these clients have to go ended=2",
        );
        for (raw, what) in [(&mut idle, "idle"), (&mut busy, "busy")] {
            let end = raw.until('E').pop().unwrap();
            assert_eq!(end.field(b'C').unwrap(), "57P01", "{pool}, {what}");
            assert!(
                end.field(b'M').unwrap().contains("no rule admits it"),
                "{pool}, {what}"
            );
            assert!(
                end.field(b'D').unwrap().contains("user \"app_rw\""),
                "{pool}, {what}"
            );
        }
        assert_eq!(reads.query("select 1").last().unwrap().tag, 'Z', "{pool}");
        let (_, refused) = log_in(&gateway, "app_rw");
        assert_eq!(refused.field(b'C').unwrap(), "28000", "{pool}");
        // Who was in counts by the rule that admits him now.
        let (_two, answer) = log_in(&gateway, "app_ro");
        assert_eq!(answer.tag, 'Z', "{pool}");
        let (_three, answer) = log_in(&gateway, "app_ro");
        assert_eq!(answer.tag, 'Z', "{pool}");
        let (_, refused) = log_in(&gateway, "app_ro");
        assert_eq!(refused.field(b'C').unwrap(), "53300", "{pool}");
    }
}

#[test]
fn who_is_in_on_other_terms_ends_after_his_transaction() {
    let (_lab, gateway) = bounded("mode = \"auto\"", "");
    let (mut within, _) = log_in(&gateway, "app_ro");
    let (mut other, _) = log_in(&gateway, "app_rw");
    within.query("begin");
    let reads = |text: &str| {
        text.replacen(
            "users = [\"app_ro\"]",
            "users = [\"app_ro\"]\nread_only = true",
            1,
        )
    };
    reload(&gateway, reads, "these clients have to go ended=1");
    assert_eq!(within.query("select 1").last().unwrap().tag, 'Z');
    within.message('Q', b"commit\0");
    let end = within.until('\0').pop().unwrap();
    assert_eq!(end.field(b'C').unwrap(), "57P01");
    assert!(end.field(b'M').unwrap().contains("was changed"), "{end:?}");
    assert_eq!(other.query("select 1").last().unwrap().tag, 'Z');
}

#[test]
fn what_cannot_be_read_changes_nothing() {
    let (_lab, gateway) = bounded("mode = \"session\"", "");
    let (mut inside, _) = log_in(&gateway, "app_ro");
    let path = gateway.config();
    let good = std::fs::read_to_string(&path).unwrap();
    reload(
        &gateway,
        |text| format!("{text}\nnonsense = 1"),
        "the configuration of before goes on",
    );
    let log = gateway.log();
    assert!(log.contains("postern.toml") && log.contains("nonsense"), "{log}");
    let audit = "[audit]\nfile = \"/tmp/never-written\"";
    reload(
        &gateway,
        |_| {
            format!(
                "{}\n{audit}",
                good.replace(
                    "users = [\"app_ro\"]",
                    "users = [\"app_ro\"]\nstatements = \"full\""
                )
            )
        },
        "not reloaded",
    );
    assert_eq!(gateway.log().matches("not reloaded").count(), 2);
    gateway.wait_for_metric("postern_config_reloads_total", &["outcome=\"refused\""], 2.0);
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
    // What only counts from the next start is said to.
    let more = |_: &str| format!("log.format = \"json\"\n{good}");
    reload(&gateway, more, "changes of log need a restart");
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
}

#[test]
fn rules_count_while_the_gateway_goes_down() {
    let (_lab, gateway) = bounded("mode = \"auto\"", "");
    let (mut within, _) = log_in(&gateway, "app_rw");
    within.query("begin");
    gateway.signal("TERM");
    std::thread::sleep(Duration::from_millis(500));
    let nobody = |text: &str| text.replace("users = [\"app_rw\"]", "users = [\"none\"]");
    let path = gateway.config();
    std::fs::write(&path, nobody(&std::fs::read_to_string(&path).unwrap())).unwrap();
    gateway.signal("HUP");
    let end = within.until('\0').pop().unwrap();
    assert!(
        end.field(b'M').unwrap().contains("no rule admits it any more"),
        "{end:?}"
    );
}
