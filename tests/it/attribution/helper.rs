//! `postern attribute`: what it may do, whom it answers, where it listens, and that others go on without it.

use super::*;

fn capabilities(pid: u32) -> Vec<(String, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = status.lines().filter_map(|line| line.split_once(":\t"));
    lines
        .filter(|(name, _)| ["CapInh", "CapPrm", "CapEff", "CapAmb"].contains(name))
        .map(|(name, bits)| (name.to_owned(), u64::from_str_radix(bits, 16).unwrap()))
        .collect()
}

#[test]
fn without_the_helper_others_go_on() {
    let verifier = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0c2FsdA==$rs9eWHpnB8aSTMvC/0iEeWNKKWtAXVrPQGDGa4FuKzo=:mCD0x0RiOHpyT0HtoVTKSuKmjWhiJ7mVfrhVWdmLQlY=";
    let mut host = Host::with(&format!(
        "sources = [\"ssm\", \"scram\"]\nscram.verifiers.app_ro = \"{verifier}\""
    ));
    let alices = host.session(ALICES, ALICE);
    let (mut inside, answers) = log_in(alices.address, "app_ro");
    assert!(is_in(&answers));
    host.helper.kill().unwrap();
    host.helper.wait().unwrap();
    assert_eq!(
        inside.query("select 1").last().unwrap().tag,
        'Z',
        "who is in doesn't notice"
    );
    // Who comes now is asked for a password.
    let mut raw = Raw::dial(alices.address);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", "app_ro"), ("database", "orders")],
    ));
    assert_eq!(raw.next().unwrap().tag, 'R');
    assert!(host.found("no_helper") >= 1.0);
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');

    let mut alone = Host::new();
    alone.helper.kill().unwrap();
    alone.helper.wait().unwrap();
    let session = alone.session(ALICES, ALICE);
    alone.refuses(&session, "no_helper", "doesn't answer");
}

#[test]
fn the_helper_has_two_capabilities_and_answers_one_user() {
    let host = Host::new();
    // CAP_DAC_READ_SEARCH is 2 and CAP_SYS_PTRACE 19 (capability.h).
    let kept = 1 << 2 | 1 << 19;
    let none = ["CapInh", "CapAmb"];
    let threads = std::fs::read_dir(format!("/proc/{}/task", host.helper.id())).unwrap();
    for thread in threads {
        let thread = thread
            .unwrap()
            .file_name()
            .into_string()
            .unwrap()
            .parse()
            .unwrap();
        for (name, bits) in capabilities(thread) {
            let expected = if none.contains(&name.as_str()) { 0 } else { kept };
            assert_eq!(bits, expected, "{name}");
        }
    }
    for (name, bits) in capabilities(host.gateway.pid()) {
        assert_eq!(bits, 0, "{name} of the gateway");
    }
    // Another user doesn't even get to ask.
    let socket = host.directory.path().join("others.sock");
    let mut others = helper(&host.agent, &socket, NOBODY);
    let question = "{\"dialler\":\"127.0.0.1:1\",\"listener\":\"127.0.0.1:2\"}\n";
    let mut stream = UnixStream::connect(&socket).unwrap();
    let _ = std::io::Write::write_all(&mut stream, question.as_bytes());
    let mut answer = String::new();
    let _ = std::io::Read::read_to_string(&mut stream, &mut answer);
    assert_eq!(answer, "");
    others.kill().unwrap();
    others.wait().unwrap();
}

#[test]
fn the_helper_listens_only_where_root_alone_may_put_files() {
    let directory = tempfile::tempdir().unwrap();
    let run = |mode: u32, file: Option<&str>| {
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let socket = directory.path().join("attribute.sock");
        if let Some(text) = file {
            std::fs::write(&socket, text).unwrap();
        }
        let output = Command::new(env!("CARGO_BIN_EXE_postern"))
            .args(["attribute", "--uid", "0", "--socket"])
            .arg(socket)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    assert!(run(0o777, None).contains("give it to root"));
    assert!(run(0o755, Some("somebody's")).contains("is no socket"));
    let kept = std::fs::read_to_string(directory.path().join("attribute.sock")).unwrap();
    assert_eq!(kept, "somebody's");
}
