//! The audit log: who came, who didn't get in, who went; and what becomes of it when it can't be written.

mod statements;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use postern::wire::startup::{ProtocolVersion, cancel_request, startup_message};
use postern_lab::{Lab, LabConfig};
use serde_json::Value;
use tempfile::TempDir;

use crate::cancel::cancel_key;
use crate::gateway::{Gateway, Options, stderr, stdout};
use crate::raw::{Message, Raw};

/// A gateway that records to `file`, with more in `[audit]`.
fn recording(lab: &Lab, file: &Path, more: &str) -> Gateway {
    recording_with(lab, file, more, Vec::new())
}

/// The same, with more in its environment.
fn recording_with(lab: &Lab, file: &Path, more: &str, environment: Vec<(String, String)>) -> Gateway {
    let rules = format!(
        "[[rules]]\nprincipals = [\"trust:\"]\ntargets = [\"orders\"]\nusers = [\"app_ro\"]\n[audit]\nfile = {file:?}\n{more}"
    );
    let options = Options {
        pool: "mode = \"auto\"\nmin_idle = 1",
        rules: rules.leak(),
        environment,
        ..Options::default()
    };
    Gateway::start(lab, &options)
}

fn log_in(gateway: &Gateway, user: &str) -> (Raw, Vec<Message>) {
    let mut raw = Raw::connect(gateway);
    raw.send(&startup_message(
        ProtocolVersion::V3_0,
        &[("user", user), ("database", "orders")],
    ));
    let answers = raw.until('Z');
    (raw, answers)
}

/// The lines, once there are so many.
fn lines(file: &Path, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<Value> = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < deadline, "{count} lines in\n{text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn verify(files: &[&Path]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["audit", "verify"])
        .args(files)
        .output()
        .unwrap()
}

fn file() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit.jsonl");
    (directory, file)
}

#[test]
fn who_comes_and_goes_is_recorded_in_a_chain() {
    let (_directory, file) = file();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut gateway = recording(&lab, &file, "");
    let (mut one, answers) = log_in(&gateway, "app_ro");
    let mut cancel = Raw::connect(&gateway);
    cancel.send(&cancel_request(&cancel_key(&answers)));
    assert!(cancel.is_closed());
    log_in(&gateway, "app_rw");
    one.query("select 1");
    one.message('X', b"");
    drop(one);
    let events = lines(&file, 5);
    let of = |event: &str| events.iter().find(|line| line["event"] == event).unwrap();
    let login = of("login");
    for (name, value) in [
        ("principal", "trust:"),
        ("source", "trust"),
        ("target", "orders"),
        ("database", "orders"),
        ("user", "app_ro"),
    ] {
        assert_eq!(login[name], value, "{login}");
    }
    assert_eq!(login["rule"], 0);
    assert_eq!(of("disconnect")["session"], login["session"]);
    assert!(of("disconnect")["sent"].as_u64().unwrap() > 0);
    let refusal = of("refusal");
    assert_eq!(refusal["state"], "28000");
    assert!(
        refusal["detail"].as_str().unwrap().contains("user \"app_rw\""),
        "{refusal}"
    );
    assert_eq!(of("cancel")["outcome"], "idle");

    gateway.restart();
    log_in(&gateway, "app_ro");
    let events = lines(&file, 8);
    let numbers: Vec<_> = events.iter().map(|line| line["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers[..8], [1, 2, 3, 4, 5, 6, 7, 8], "it goes on where it was");
    drop(gateway);
    let good = verify(&[&file]);
    assert!(
        stdout(&good).starts_with("good; lines 1 to "),
        "{}",
        stderr(&good)
    );

    let text = std::fs::read_to_string(&file).unwrap();
    let whole: Vec<&str> = text.lines().collect();
    let changed = whole[1].replace("trust:", "trust;");
    for (lines, why) in [
        (
            [&whole[..2], &whole[3..]].concat(),
            "line 3: it follows another line",
        ),
        (
            [&whole[..1], &[whole[2], whole[1]], &whole[3..]].concat(),
            "line 2: it follows another line",
        ),
        (
            [&whole[..1], &[&*changed], &whole[2..]].concat(),
            "line 2: it was changed",
        ),
        (
            [&whole[..1], &["{}"], &whole[2..]].concat(),
            "line 2: it isn't a line",
        ),
    ] {
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let bad = verify(&[&file]);
        assert!(
            !bad.status.success() && stderr(&bad).contains(why),
            "{why}: {}",
            stderr(&bad)
        );
    }
}

#[test]
fn a_file_that_is_moved_away_is_followed_by_another() {
    let (directory, file) = file();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = recording(&lab, &file, "");
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    drop(log_in(&gateway, "app_ro"));
    lines(&file, 3);
    std::fs::rename(&file, &first).unwrap();
    gateway.signal("HUP");
    drop(log_in(&gateway, "app_ro"));
    lines(&file, 2);
    // Whoever moves it needn't say so.
    std::fs::rename(&file, &second).unwrap();
    drop(log_in(&gateway, "app_ro"));
    lines(&file, 2);
    let good = verify(&[&first, &second, &file]);
    assert!(
        stdout(&good).starts_with("good; lines 1 to "),
        "{}",
        stderr(&good)
    );
    let bad = verify(&[&first, &file]);
    assert!(
        stderr(&bad).contains("line 1: it follows another line"),
        "{}",
        stderr(&bad)
    );
}

#[test]
fn the_chain_goes_on_in_a_new_file_before_anything_happens() {
    let (directory, file) = file();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut gateway = recording(&lab, &file, "");
    let first = directory.path().join("first");
    lines(&file, 1);
    std::fs::rename(&file, &first).unwrap();
    gateway.signal("HUP");
    assert_eq!(lines(&file, 1)[0]["event"], "reopened");
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    assert_eq!(lines(&file, 2)[1]["event"], "stop");
    gateway.restart();
    let again = lines(&file, 3);
    assert_eq!(again[2]["event"], "start");
    assert_eq!(again[2]["clean"], true);
    let good = verify(&[&first, &file]);
    assert!(good.status.success(), "{}", stderr(&good));
}

#[test]
fn a_line_that_was_not_written_to_its_end_is_taken_back() {
    let (_directory, file) = file();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut gateway = recording(&lab, &file, "");
    drop(log_in(&gateway, "app_ro"));
    lines(&file, 3);
    // The power fails.
    gateway.signal("KILL");
    gateway.wait();
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, &text[..text.len() - 20]).unwrap();
    gateway.restart();
    let events = lines(&file, 3);
    assert_eq!(events[2]["event"], "start");
    assert_eq!(events[2]["clean"], false, "something may be missing");
    assert_eq!(events[2]["n"], 3);
    drop(gateway);
    let good = verify(&[&file]);
    assert!(good.status.success(), "{}", stderr(&good));
}

#[test]
fn all_faults_are_told() {
    let (_directory, file) = file();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = recording(&lab, &file, "");
    for _ in 0..3 {
        drop(log_in(&gateway, "app_ro"));
    }
    lines(&file, 7);
    drop(gateway);
    let text = std::fs::read(&file).unwrap();
    let mut lines: Vec<Vec<u8>> = text
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    lines.remove(1);
    lines[4][10] = 0xff;
    std::fs::write(&file, lines.concat()).unwrap();
    let bad = stderr(&verify(&[&file]));
    for fault in [
        "line 2: it follows another line",
        "line 5: it isn't a line",
        "line 6: it follows another line",
    ] {
        assert!(bad.contains(fault), "{fault}: {bad}");
    }
    assert_eq!(bad.matches("line ").count(), 6, "{bad}");
}

const CONFIG: &str = "[listen]\naddresses = [\"127.0.0.1:1\"]\n[admin]\nhttp = false\n[identity]\nsources = [\"trust\"]\n[[targets]]\nname = \"a\"\n\
                      endpoint = \"a.invalid\"\nregion = \"eu-west-1\"\ndatabases = [\"a\"]\nusers = [\"a\"]\n";

fn run(file: &Path, more: &str) -> Output {
    let path = file.with_file_name("postern.toml");
    std::fs::write(&path, format!("{CONFIG}[audit]\nfile = {file:?}\n{more}")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_postern"))
        .arg("run")
        .arg("--config")
        .arg(&path)
        .output()
        .unwrap()
}

#[test]
fn a_file_that_is_no_audit_log_is_left_alone() {
    let (_directory, file) = file();
    std::fs::write(&file, "notes\n").unwrap();
    let run = run(&file, "");
    assert!(!run.status.success());
    assert!(stderr(&run).contains("it isn't an audit log"), "{}", stderr(&run));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "notes\n");
}

#[test]
fn two_gateways_do_not_write_to_one_file() {
    let (_directory, file) = file();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = recording(&lab, &file, "");
    lines(&file, 1);
    let run = run(&file, "on_full = \"drop\"");
    assert!(!run.status.success());
    assert!(
        stderr(&run).contains("another gateway writes to it"),
        "{}",
        stderr(&run)
    );
    drop(log_in(&gateway, "app_ro"));
    assert_eq!(lines(&file, 3).len(), 3);
    assert!(verify(&[&file]).status.success());
}

#[test]
fn who_only_knocks_fills_no_disk() {
    let (_directory, file) = file();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = recording(&lab, &file, "");
    let began = Instant::now();
    for _ in 0..1_000 {
        log_in(&gateway, "app_rw");
    }
    let seconds = began.elapsed().as_secs() + 2;
    let most = 100 * seconds + 20 + seconds;
    drop(log_in(&gateway, "app_ro"));
    let counted = |events: &[Value]| {
        let listed = events.iter().filter(|event| event["event"] == "refusal").count() as u64;
        let unlisted = events
            .iter()
            .filter_map(|event| event["count"].as_u64())
            .sum::<u64>();
        (listed, unlisted)
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let events = lines(&file, 3);
        let (listed, unlisted) = counted(&events);
        assert!(listed <= most, "{listed}");
        if listed + unlisted == 1_000 {
            break;
        }
        assert!(Instant::now() < deadline, "{listed} and {unlisted}");
        drop(log_in(&gateway, "app_ro"));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Connects until somebody isn't let in, or so often; who that was.
fn until_refused(gateway: &Gateway, times: usize) -> Option<Message> {
    let refused = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..times / 4 {
                    let (mut raw, mut answers) = log_in(gateway, "app_ro");
                    let last = answers.pop().unwrap();
                    if last.tag == 'E' {
                        *refused.lock().unwrap() = Some(last);
                    }
                    if refused.lock().unwrap().is_some() {
                        return;
                    }
                    raw.message('X', b"");
                }
            });
        }
    });
    refused.into_inner().unwrap()
}

/// A pipe that nobody reads is a disk that doesn't take anything.
fn pipe(file: &Path) -> std::fs::File {
    let made = Command::new("mkfifo").arg(file).status().unwrap();
    assert!(made.success());
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(file)
        .unwrap()
}

#[test]
fn while_nothing_can_be_recorded_nobody_is_let_in_and_who_is_in_goes_on() {
    let (directory, file) = file();
    let mut pipe = pipe(&file);
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = recording(&lab, &file, "");
    let (mut inside, _) = log_in(&gateway, "app_ro");
    let refused = until_refused(&gateway, 8_000).expect("everybody is let in");
    assert_eq!(refused.field(b'C').unwrap(), "58030");
    assert!(refused.field(b'H').unwrap().contains("audit.file"));
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
    // Once it is taken, all of it is there.
    let written = std::thread::spawn(move || {
        let (mut text, mut buffer) = (Vec::new(), [0; 65536]);
        while !text.ends_with(b"the end\n") {
            let length = pipe.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..length]);
        }
        text.truncate(text.len() - b"the end\n".len());
        text
    });
    let is_in = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        log_in(&gateway, "app_ro").1.last().unwrap().tag == 'Z'
    });
    assert!(is_in, "nobody is let in again");
    assert!((gateway.metric("postern_audit_lost_total", &[])).abs() < f64::EPSILON);
    std::thread::sleep(Duration::from_secs(1));
    drop(gateway);
    std::fs::OpenOptions::new()
        .append(true)
        .open(&file)
        .unwrap()
        .write_all(b"the end\n")
        .unwrap();
    let copy = directory.path().join("copy");
    std::fs::write(&copy, written.join().unwrap()).unwrap();
    let good = verify(&[&copy]);
    assert!(
        stdout(&good).starts_with("good; lines 1 to "),
        "{}",
        stderr(&good)
    );
}

#[test]
fn what_is_lost_is_counted() {
    let (_directory, file) = file();
    let mut pipe = pipe(&file);
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = recording(&lab, &file, "on_full = \"drop\"");
    assert!(until_refused(&gateway, 12_000).is_none(), "nobody is refused");
    // The last of them has gone, and that was lost as well.
    gateway.wait_for_metric("postern_client_connections", &[], 0.0);
    let lost = gateway.metric("postern_audit_lost_total", &[]);
    assert!(lost > 0.0);
    let mut text = String::new();
    let mut buffer = [0; 65536];
    while !text.contains("\"event\":\"lost\"") || !text.ends_with('\n') {
        let length = pipe.read(&mut buffer).unwrap();
        text.push_str(str::from_utf8(&buffer[..length]).unwrap());
    }
    let line = text
        .lines()
        .find(|line| line.contains("\"event\":\"lost\""))
        .unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["count"].as_f64(), Some(lost));
}

/// After a while of failures nobody is let in.
fn refuses_in_time(gateway: &Gateway) {
    let refused = (0..300).find_map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let last = log_in(gateway, "app_ro").1.pop().unwrap();
        (last.tag == 'E').then_some(last)
    });
    let refused = refused.expect("they are let in for ever, though nothing is written");
    assert_eq!(refused.field(b'C').unwrap(), "58030");
}

#[test]
fn a_full_disk_is_told_of() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = recording(&lab, Path::new("/dev/full"), "");
    let (mut inside, answers) = log_in(&gateway, "app_ro");
    assert_eq!(answers.last().unwrap().tag, 'Z');
    gateway.wait_for_metric("postern_audit_failing", &[], 1.0);
    assert!(
        gateway.log().contains("the audit log can't be written"),
        "{}",
        gateway.log()
    );
    refuses_in_time(&gateway);
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
}

#[test]
fn a_directory_that_is_gone_is_told_of() {
    let (directory, file) = file();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = recording(&lab, &file, "");
    let (mut inside, _) = log_in(&gateway, "app_ro");
    lines(&file, 2);
    drop(directory);
    refuses_in_time(&gateway);
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    gateway.wait_for_metric("postern_audit_failing", &[], 0.0);
    assert_eq!(log_in(&gateway, "app_ro").1.last().unwrap().tag, 'Z');
    assert!(gateway.metric("postern_audit_lost_total", &[]).abs() < f64::EPSILON);
    let is_recorded = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("\"event\":\"disconnect\"")
    });
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    assert!(is_recorded);
}

#[test]
fn lines_go_to_standard_output_as_well() {
    let (_directory, file) = file();
    let config = format!("{CONFIG}[audit]\nfile = \"-\"\n");
    let path = file.with_file_name("postern.toml");
    std::fs::write(&path, config.replace("127.0.0.1:1\"", "127.0.0.1:0\"")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_postern"))
        .arg("run")
        .arg("--config")
        .arg(&path)
        .stdout(std::fs::File::create(&file).unwrap())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let begun = lines(&file, 1);
    // Until it listens to signals.
    std::thread::sleep(Duration::from_secs(1));
    let ended = Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(ended.success() && child.wait().unwrap().success());
    assert_eq!((&begun[0]["event"], &begun[0]["n"]), (&"start".into(), &1.into()));
    assert_eq!(lines(&file, 2)[1]["event"], "stop");
    assert!(verify(&[&file]).status.success());
    let twice = std::fs::read_to_string(&file).unwrap().repeat(2);
    std::fs::write(&file, twice).unwrap();
    assert!(stderr(&verify(&[&file])).contains("line 3: another chain begins"));
}

#[test]
fn a_disk_that_hangs_is_one_that_cannot_be_written() {
    let (_directory, file) = file();
    // Never read, and nearly full: of 64 KiB (pipe(7)).
    let mut pipe = pipe(&file);
    pipe.write_all(&[b'x'; 65_000]).unwrap();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let gateway = recording(&lab, &file, "");
    let (mut inside, answers) = log_in(&gateway, "app_ro");
    assert_eq!(answers.last().unwrap().tag, 'Z');
    refuses_in_time(&gateway);
    gateway.wait_for_metric("postern_audit_failing", &[], 1.0);
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
}

/// A library whose `fdatasync` fails as long as there is a file of this name, and then drops what was written, as the kernel may.
fn failing_sync(directory: &Path, failing: &Path) -> PathBuf {
    let (source, library) = (directory.join("sync.c"), directory.join("sync.so"));
    let text = format!(
        r#"
        #include <errno.h>
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        #include <sys/stat.h>
        #include <sys/syscall.h>
        static off_t good;
        int fdatasync(int file) {{
            struct stat about;
            fstat(file, &about);
            if (access({failing:?}, F_OK) == 0) {{
                char path[64];
                snprintf(path, sizeof path, "/proc/self/fd/%d", file);
                int other = open(path, O_WRONLY);
                for (off_t at = good; at < about.st_size; at++)
                    pwrite(other, "", 1, at);
                close(other);
                errno = EIO;
                return -1;
            }}
            good = about.st_size;
            return syscall(SYS_fdatasync, file);
        }}
        "#
    );
    std::fs::write(&source, text).unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .unwrap();
    assert!(compiled.success());
    library
}

#[test]
fn what_a_disk_does_not_acknowledge_is_not_written() {
    let (directory, file) = file();
    let failing = directory.path().join("failing");
    let library = failing_sync(directory.path(), &failing);
    let lab = Lab::start(LabConfig::default()).unwrap();
    let preload = ("LD_PRELOAD".to_owned(), library.to_str().unwrap().to_owned());
    let mut gateway = recording_with(&lab, &file, "", vec![preload]);
    lines(&file, 1);
    std::fs::write(&failing, "").unwrap();
    let (mut inside, answers) = log_in(&gateway, "app_ro");
    assert_eq!(answers.last().unwrap().tag, 'Z');
    refuses_in_time(&gateway);
    assert!((gateway.metric("postern_audit_failing", &[]) - 1.0).abs() < f64::EPSILON);
    assert_eq!(inside.query("select 1").last().unwrap().tag, 'Z');
    std::fs::remove_file(&failing).unwrap();
    gateway.wait_for_metric("postern_audit_failing", &[], 0.0);
    assert_eq!(log_in(&gateway, "app_ro").1.last().unwrap().tag, 'Z');
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    // Once each, in their order.
    assert!(verify(&[&file]).status.success());
    let lines = lines(&file, 5);
    let count = lines.iter().filter(|line| line["event"] == "login").count();
    assert!(count >= 2, "{lines:?}");
}

#[test]
fn what_is_not_listed_is_counted_before_the_end() {
    let (_directory, file) = file();
    let lab = Lab::start(LabConfig::default()).unwrap();
    let mut gateway = recording(&lab, &file, "");
    for _ in 0..250 {
        log_in(&gateway, "app_rw");
    }
    gateway.signal("TERM");
    assert!(gateway.wait().success());
    let lines = lines(&file, 3);
    let listed = lines.iter().filter(|line| line["event"] == "refusal").count() as u64;
    let unlisted = lines.iter().filter(|line| line["event"] == "unlisted");
    let unlisted: u64 = unlisted.map(|line| line["count"].as_u64().unwrap()).sum();
    assert_eq!(listed + unlisted, 250);
    assert_eq!(lines.last().unwrap()["event"], "stop");
}
