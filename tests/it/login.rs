//! Logging in: what a client is told, and who is let in.

use postern::identity::Verifier;
use postern::wire::startup::{ProtocolVersion, ssl_request, startup_message};
use postern_lab::{Lab, LabConfig};

use crate::gateway::{Gateway, Options, stderr, stdout};
use crate::raw::{Raw, frame};

fn lab() -> Lab {
    Lab::start(LabConfig::default()).unwrap()
}

#[test]
fn plain_psql_needs_neither_password_nor_token() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &Options::default());
    for connection in [
        "user=app_ro",
        "user=app_ro sslmode=require",
        "user=app_ro sslmode=disable host=::1",
    ] {
        assert_eq!(
            stdout(&gateway.psql(connection, "select current_user")),
            "app_ro",
            "{connection}"
        );
    }
    assert!(lab.logins().iter().all(|login| !login.in_clear));
}

#[test]
fn the_servers_parameters_and_the_clients_settings_are_reported() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &Options::default());
    let parameters = [
        ("user", "app_ro"),
        ("database", "orders"),
        ("application_name", "a b"),
        ("TimeZone", "Europe/Berlin"),
        ("options", "-c work_mem=5MB"),
    ];
    for round in ["attached before the greeting", "greeted from memory"] {
        let mut raw = Raw::connect(&gateway);
        raw.send(&startup_message(ProtocolVersion::V3_0, &parameters));
        let reported: Vec<Vec<u8>> = raw
            .until('Z')
            .into_iter()
            .filter(|message| message.tag == 'S')
            .map(|message| message.body)
            .collect();
        for expected in [
            &b"application_name\0a b\0"[..],
            b"TimeZone\0Europe/Berlin\0",
            b"server_encoding\0UTF8\0",
        ] {
            assert!(
                reported.iter().any(|body| body == expected),
                "{round}: {reported:?}"
            );
        }
        let rows = raw.query("select current_setting('work_mem') || current_setting('timezone')");
        assert!(
            rows.iter()
                .any(|row| row.tag == 'D' && row.body.ends_with(b"5MBEurope/Berlin")),
            "{round}: {rows:?}"
        );
        raw.message('X', b"");
    }
}

#[test]
fn a_wrong_setting_fails_the_login_in_the_servers_words() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &Options::default());
    let mut raw = Raw::connect(&gateway);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders"), ("work_mem", "much")],
    ));
    let error = raw.last_error();
    assert_eq!(
        error.field(b'M').unwrap(),
        "invalid value for parameter \"work_mem\": \"much\""
    );
    assert_eq!(gateway.metric("postern_client_errors_total", &["setting"]), 1.0);
}

#[test]
fn who_is_not_admitted_is_told_what_was_asked_for() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &Options::default());
    for (user, database) in [
        ("app_ro", "postgres"),
        ("postgres", "orders"),
        ("app_ro", "nowhere/orders"),
    ] {
        let mut raw = Raw::connect(&gateway);
        raw.send(&startup_message(
            ProtocolVersion::V3_0,
            &[("user", user), ("database", database)],
        ));
        let error = raw.last_error();
        assert_eq!(error.field(b'C').unwrap(), "28000");
        assert!(
            error.field(b'D').unwrap().contains(&format!("user \"{user}\"")),
            "{error:?}"
        );
        assert!(error.field(b'H').unwrap().contains("rule"), "{error:?}");
    }
    assert_eq!(
        gateway.metric("postern_client_errors_total", &["not_admitted"]),
        3.0
    );
}

#[test]
fn replication_and_duplicates_are_refused() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &Options::default());
    for (extra, state) in [
        (("replication", "database"), "0A000"),
        (("user", "app_rw"), "08P01"),
        (("options", "-e"), "0A000"),
    ] {
        let mut raw = Raw::connect(&gateway);
        raw.send(&startup_message(
            ProtocolVersion::V3_0,
            &[("user", "app_ro"), ("database", "orders"), extra],
        ));
        assert_eq!(raw.last_error().field(b'C').unwrap(), state, "{extra:?}");
    }
}

#[test]
fn bytes_before_the_answer_to_a_tls_request_are_refused() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &Options::default());
    let mut raw = Raw::connect(&gateway);
    let startup = startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    );
    raw.send(&[ssl_request(), startup].concat());
    assert_eq!(raw.last_error().field(b'C').unwrap(), "08P01");
}

#[test]
fn newer_protocols_are_negotiated_down() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &Options::default());
    for (minor, answer, key_len) in [(0, None, 8), (2, None, 36), (1, Some(0), 8), (9, Some(2), 36)] {
        let mut raw = Raw::connect(&gateway);
        let version = ProtocolVersion { major: 3, minor };
        raw.send(&startup_message(
            version,
            &[("user", "app_ro"), ("database", "orders")],
        ));
        let messages = raw.until('Z');
        let negotiated = messages
            .iter()
            .find(|message| message.tag == 'v')
            .map(|message| message.body[3]);
        assert_eq!(negotiated, answer, "3.{minor}");
        let key = messages.iter().find(|message| message.tag == 'K').unwrap();
        assert_eq!(key.body.len(), key_len, "3.{minor}");
    }
    let mut raw = Raw::connect(&gateway);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders"), ("_pq_.odd", "1")],
    ));
    let messages = raw.until('Z');
    assert!(
        messages[0].tag == 'v' && messages[0].body.ends_with(b"_pq_.odd\0"),
        "{messages:?}"
    );
}

#[test]
fn scram_lets_in_who_knows_the_password_and_tells_nothing_to_others() {
    let lab = lab();
    let verifier = Verifier::from_password("pass word", b"0123456789abcdef", 4096).to_string();
    let identity = format!("sources = [\"scram\"]\n[identity.scram.verifiers]\napp_ro = \"{verifier}\"");
    let gateway = Gateway::start(
        &lab,
        &Options {
            identity,
            ..Options::default()
        },
    );
    for mode in ["sslmode=disable", "sslmode=require channel_binding=require"] {
        let good = gateway.psql(
            &format!("user=app_ro password='pass word' {mode}"),
            "select current_user",
        );
        assert_eq!(stdout(&good), "app_ro", "{mode}");
    }
    let refused = |user: &str, password: &str| {
        stderr(&gateway.psql(
            &format!("user={user} password={password} sslmode=disable"),
            "select 1",
        ))
        .replace(user, "USER")
    };
    let wrong = refused("app_ro", "wrong");
    assert!(
        wrong.contains("password authentication failed for user \"USER\""),
        "{wrong}"
    );
    assert_eq!(
        refused("app_rw", "wrong"),
        wrong,
        "an unknown user looks the same"
    );
    assert_eq!(
        gateway.metric("postern_client_errors_total", &["authentication"]),
        2.0
    );
    assert!(!gateway.log().contains("pass word"));
}

#[test]
fn a_client_beyond_the_limit_is_told_so_and_can_still_cancel() {
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            listen: "max_clients = 2",
            ..Options::default()
        },
    );
    let (_first, _) = Raw::login(&gateway, "app_ro");
    let (_second, _) = Raw::login(&gateway, "app_ro");
    let mut third = Raw::connect(&gateway);
    third.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    ));
    assert_eq!(third.last_error().field(b'C').unwrap(), "53300");
}

#[test]
fn a_login_has_one_deadline_and_silence_another() {
    let listen = "login_timeout = \"300ms\"\nsilent_timeout = \"1h\"";
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            listen,
            ..Options::default()
        },
    );
    let mut silent = Raw::connect(&gateway);
    let mut slow = Raw::connect(&gateway);
    slow.send(&[0]);
    let error = slow.last_error();
    assert_eq!(
        error.field(b'C').as_deref(),
        Some("08006"),
        "a login that has begun must end"
    );
    assert!(error.field(b'H').unwrap().contains("listen.login_timeout"));
    silent.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    ));
    assert_eq!(
        silent.until('Z').last().unwrap().tag,
        'Z',
        "who was silent may still log in"
    );
}

#[test]
fn what_is_sent_with_the_login_is_answered_after_it() {
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            pool: "min_idle = 1",
            ..Options::default()
        },
    );
    let logins = lab.logins().len();
    for name in ["known", "known", "new"] {
        let mut raw = Raw::connect(&gateway);
        let startup = [
            ("user", "app_ro"),
            ("database", "orders"),
            ("application_name", name),
        ];
        let query = frame('Q', b"select 'early'\0");
        raw.send(&[startup_message(ProtocolVersion::V3_0, &startup), query].concat());
        assert_eq!(raw.until('Z').last().unwrap().tag, 'Z');
        let answer = raw.until('Z');
        assert!(
            answer
                .iter()
                .any(|row| row.tag == 'D' && row.body.ends_with(b"early")),
            "{answer:?}"
        );
    }
    assert!(
        lab.logins().len() <= logins + 2,
        "no server connection was thrown away"
    );
}

#[test]
fn silent_connections_make_room_for_those_who_speak() {
    let lab = lab();
    let gateway = Gateway::start(
        &lab,
        &Options {
            listen: "max_clients = 3",
            ..Options::default()
        },
    );
    let silent: Vec<Raw> = (0..60).map(|_| Raw::connect(&gateway)).collect();
    let (mut raw, _) = Raw::login(&gateway, "app_ro");
    assert_eq!(raw.query("select 1").last().unwrap().tag, 'Z');
    drop(silent);
}

#[test]
fn long_names_of_strangers_do_not_fill_the_log() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &Options::default());
    let before = gateway.log().len();
    let mut raw = Raw::connect(&gateway);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", &"ü".repeat(4_900))],
    ));
    let error = raw.last_error();
    assert!(error.body.len() < 2_000, "{error:?}");
    assert!(error.field(b'D').unwrap().contains("user \"ü"), "{error:?}");
    gateway.wait_for_metric("postern_client_connections", &[], 0.0);
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(gateway.log().len() - before < 3_000, "{}", gateway.log());
}

#[test]
fn a_goodbye_in_tls_ends_the_session_although_the_socket_stays_open() {
    let lab = lab();
    let gateway = Gateway::start(&lab, &Options::default());
    let script = "import socket, ssl, struct, sys\n\
        tcp = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
        tcp.sendall(struct.pack('!ii', 8, 80877103))\n\
        assert tcp.recv(1) == b'S'\n\
        context = ssl.create_default_context()\n\
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE\n\
        kept = tcp.dup()\n\
        tls = context.wrap_socket(tcp)\n\
        body = b'\\0\\x03\\0\\0user\\0app_ro\\0database\\0orders\\0\\0'\n\
        tls.sendall(struct.pack('!i', len(body) + 4) + body)\n\
        assert tls.recv(1) == b'R'\n\
        print('in', flush=True)\n\
        sys.stdin.readline()\n\
        tls.setblocking(False)\n\
        try: tls.unwrap()\n\
        except ssl.SSLError: pass\n\
        sys.stdin.read()\n";
    let mut client = std::process::Command::new("python3")
        .args(["-c", script, &gateway.port.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = std::io::BufReader::new(client.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "in\n");
    gateway.wait_for_metric("postern_client_connections", &[], 1.0);
    let mut stdin = client.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"\n").unwrap();
    gateway.wait_for_metric("postern_client_connections", &[], 0.0);
    drop(stdin);
    client.wait().unwrap();
}
