//! What a client does may take so long and no longer, in whichever mode its pool is.

use postern_lab::{Lab, LabConfig};

use crate::gateway::{Gateway, Options};
use crate::raw::{Raw, frame};
use crate::short::clients;

/// A lab, and a gateway with this pool and these timeouts.
fn with_timeouts(pool: &'static str, timeouts: &'static str) -> (Lab, Gateway) {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let options = Options {
        pool,
        timeouts,
        ..Options::default()
    };
    let gateway = Gateway::start(&lab, &options);
    (lab, gateway)
}

const MODES: [&str; 2] = ["mode = \"session\"\nsize = 2", "mode = \"auto\"\nsize = 2"];

fn client(gateway: &Gateway) -> Raw {
    Raw::login(gateway, "app_rw").0
}

/// What the server or the gateway says to `sql`: tags of results, states of errors.
fn said(raw: &mut Raw, sql: &str) -> Vec<String> {
    let answers = raw.query(sql);
    let told = answers.iter().filter_map(|message| match message.tag {
        'C' => Some(
            String::from_utf8_lossy(&message.body)
                .trim_end_matches('\0')
                .to_owned(),
        ),
        'E' => message.field(b'C'),
        _ => None,
    });
    told.collect()
}

fn ends_with(raw: &mut Raw, state: &str) {
    let error = raw.last_error();
    assert_eq!(error.field(b'C').as_deref(), Some(state), "{error:?}");
    assert_eq!(error.field(b'S').as_deref(), Some("FATAL"));
    assert!(error.field(b'D').unwrap().contains("timeouts."), "{error:?}");
}

#[test]
fn a_query_that_takes_too_long_is_cancelled_and_its_session_goes_on() {
    for pool in MODES {
        let (_lab, gateway) = with_timeouts(pool, "query = \"300ms\"");
        let mut one = client(&gateway);
        for _ in 0..2 {
            assert_eq!(said(&mut one, "select pg_sleep(60)"), ["57014"], "{pool}");
            assert_eq!(said(&mut one, "select 1"), ["SELECT 1"]);
        }
        // Many that are short are none that is long.
        assert_eq!(said(&mut one, "begin"), ["BEGIN"]);
        for _ in 0..10 {
            assert_eq!(said(&mut one, "select pg_sleep(0.05)"), ["SELECT 1"]);
        }
        assert_eq!(said(&mut one, "select pg_sleep(60)"), ["57014"]);
        assert_eq!(said(&mut one, "rollback"), ["ROLLBACK"]);
        let cancelled = gateway.metric("postern_pool_query_timeouts_total", &["app_rw"]);
        assert_eq!(cancelled, 3.0);
    }
}

#[test]
fn a_pause_in_a_transaction_ends_it() {
    for pool in MODES {
        let (lab, gateway) = with_timeouts(pool, "idle_in_transaction = \"300ms\"");
        lab.superuser_sql("create table paused (a int); grant all on paused to app_rw")
            .unwrap();
        let mut one = client(&gateway);
        assert_eq!(
            said(&mut one, "begin; insert into paused values (1)"),
            ["BEGIN", "INSERT 0 1"]
        );
        ends_with(&mut one, "25P03");
        let mut two = client(&gateway);
        assert_eq!(said(&mut two, "lock table paused nowait"), ["25P01"]);
        assert_eq!(said(&mut two, "select from paused"), ["SELECT 0"], "{pool}");
        // Data that comes slowly is no pause, and neither is one outside of a transaction.
        two.message('Q', b"copy paused from stdin\0");
        two.until('G');
        std::thread::sleep(std::time::Duration::from_millis(600));
        two.message('d', b"7\n");
        two.message('c', b"");
        assert!(two.until('Z').iter().any(|message| message.body == b"COPY 1\0"));
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert_eq!(said(&mut two, "select 1"), ["SELECT 1"]);
        gateway.wait_for_metric("postern_client_errors_total", &["\"late\""], 1.0);
    }
}

#[test]
fn a_transaction_ends_that_takes_too_long_whatever_is_done_in_it() {
    for pool in MODES {
        let (_lab, gateway) = with_timeouts(pool, "transaction = \"500ms\"");
        let mut one = client(&gateway);
        for _ in 0..20 {
            assert_eq!(said(&mut one, "select pg_sleep(0.05)"), ["SELECT 1"]);
        }
        assert_eq!(said(&mut one, "begin"), ["BEGIN"]);
        let last = (0..1_000)
            .map(|_| said(&mut one, "select pg_sleep(0.05)"))
            .find(|said| *said != ["SELECT 1"]);
        assert_eq!(last, Some(vec!["25P04".to_owned()]), "{pool}");
        let mut two = client(&gateway);
        two.message('Q', b"select pg_sleep(60)\0");
        ends_with(&mut two, "25P04");
    }
}

#[test]
fn an_idle_client_ends() {
    for pool in MODES {
        let (_lab, gateway) = with_timeouts(pool, "client_idle = \"300ms\"");
        let (mut silent, mut one) = (client(&gateway), client(&gateway));
        assert_eq!(
            said(&mut one, "select pg_sleep(0.6)"),
            ["SELECT 1"],
            "it isn't idle"
        );
        ends_with(&mut silent, "57P05");
        ends_with(&mut one, "57P05");
        let mut tied = client(&gateway);
        assert_eq!(said(&mut tied, "listen mail"), ["LISTEN"]);
        assert_eq!(
            said(&mut tied, "begin; select pg_sleep(0.6)"),
            ["BEGIN", "SELECT 1"]
        );
        std::thread::sleep(std::time::Duration::from_millis(600));
        assert_eq!(
            said(&mut tied, "commit"),
            ["COMMIT"],
            "a pause in a transaction is another thing"
        );
        ends_with(&mut tied, "57P05");
    }
}

/// Parse, Bind and Execute of the unnamed kind, and what follows.
fn extended(sql: &str, then: char) -> Vec<u8> {
    let parse = frame('P', &[b"\0", sql.as_bytes(), &[0; 3]].concat());
    [parse, frame('B', &[0; 8]), frame('E', &[0; 5]), frame(then, b"")].concat()
}

#[test]
fn what_the_server_is_at_is_no_pause() {
    for pool in MODES {
        let (lab, gateway) = with_timeouts(pool, "idle_in_transaction = \"300ms\"");
        lab.superuser_sql("create table slow (a int); grant all on slow to app_rw")
            .unwrap();
        let mut one = client(&gateway);
        one.send(&extended("copy slow from stdin", 'S'));
        one.until('G');
        std::thread::sleep(std::time::Duration::from_millis(700));
        one.send(&[frame('d', b"7\n"), frame('c', b""), frame('S', b"")].concat());
        assert!(
            one.until('Z').iter().any(|message| message.body == b"COPY 1\0"),
            "{pool}"
        );
        // A query without its Sync, and a pause before that.
        assert_eq!(said(&mut one, "begin"), ["BEGIN"]);
        one.send(&extended("select pg_sleep(0.7)", 'H'));
        one.until('C');
        std::thread::sleep(std::time::Duration::from_millis(700));
        one.send(&frame('S', b""));
        one.until('Z');
        assert_eq!(said(&mut one, "commit"), ["COMMIT"]);
        // A message that takes its time, outside of a transaction.
        let text = format!("select 1 /* {} */\0", " ".repeat(20_000));
        for piece in extended(text.trim_end_matches('\0'), 'S').chunks(1_000) {
            one.send(piece);
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        one.until('C');
        one.until('Z');
        assert_eq!(said(&mut one, "select 1"), ["SELECT 1"]);
    }
}

#[test]
fn a_query_counts_from_when_the_server_has_it_to_when_it_is_done() {
    for pool in MODES {
        let (lab, gateway) = with_timeouts(pool, "query = \"300ms\"");
        lab.superuser_sql("create table slow (a int); grant all on slow to app_rw")
            .unwrap();
        let mut one = client(&gateway);
        assert_eq!(said(&mut one, "listen mail"), ["LISTEN"]);
        let text = format!("select 1 /* {} */\0", " ".repeat(20_000));
        for piece in frame('Q', text.as_bytes()).chunks(1_000) {
            one.send(piece);
            std::thread::sleep(std::time::Duration::from_millis(30));
        }
        one.until('C');
        one.until('Z');
        assert_eq!(
            gateway.metric("postern_pool_query_timeouts_total", &["app_rw"]),
            0.0
        );
        one.send(&extended("copy slow from stdin", 'S'));
        let error = one.until('E').pop().unwrap();
        assert_eq!(error.field(b'C').as_deref(), Some("57014"), "{pool}");
        // (Which Sync the server answers after a COPY that fails can't be known, so a shared connection ends.)
        let mut one = client(&gateway);
        assert_eq!(said(&mut one, "listen mail"), ["LISTEN"]);
        // A cancel that comes too late for one query doesn't hit the next.
        for round in 0..12 {
            let first = said(
                &mut one,
                &format!("select pg_sleep({})", 0.296 + 0.0005 * f64::from(round)),
            );
            assert!(first == ["SELECT 1"] || first == ["57014"], "{first:?}");
            assert_eq!(said(&mut one, "select pg_sleep(0.05)"), ["SELECT 1"], "{pool}");
        }
    }
    let (_lab, gateway) = with_timeouts(MODES[1], "query = \"300ms\"");
    let mut one = client(&gateway);
    one.send(&extended("select pg_sleep(60)", 'H'));
    let error = one.until('E').pop().unwrap();
    assert_eq!(error.field(b'C').as_deref(), Some("57014"));
    one.send(&frame('S', b""));
    one.until('Z');
}

#[test]
fn many_transactions_are_none_that_is_long() {
    for pool in MODES {
        let (_lab, gateway) = with_timeouts(pool, "transaction = \"500ms\"");
        let mut one = client(&gateway);
        one.send(&frame('Q', b"select pg_sleep(0.05)\0").repeat(20));
        for _ in 0..20 {
            assert!(
                one.until('Z').iter().any(|message| message.body == b"SELECT 1\0"),
                "{pool}"
            );
        }
        let begun = std::time::Instant::now();
        while begun.elapsed() < std::time::Duration::from_millis(900) {
            assert_eq!(said(&mut one, "listen mail"), ["LISTEN"]);
        }
    }
}

#[test]
fn what_is_carried_out_after_a_goodbye_has_an_end() {
    let (_lab, gateway) = with_timeouts("mode = \"auto\"\nsize = 1", "reset = \"500ms\"");
    let [mut one, mut two] = clients(&gateway);
    let run = [
        frame('B', b"\0s\0\0\0\0\0\0\0"),
        frame('E', &[0; 5]),
        frame('S', b""),
    ]
    .concat();
    let parse = frame('P', b"s\0select from pg_sleep(1e9)\0\0\0");
    one.0.send(&[parse, run.clone(), run, frame('X', b"")].concat());
    drop(one);
    assert_eq!(two.say(&["Q select 1"]), "(1) SELECT 1 I");
}
