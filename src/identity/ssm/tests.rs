use super::*;

const ID: &str = "alice-07a16060613c408b5";
const OWNER: &str = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst_0123456789abcdef/alice";

fn file(change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut value = serde_json::json!({
        "DocumentInformation": {
            "DocumentID": ID, "DocumentName": "AWS-StartPortForwardingSession", "SessionOwner": OWNER,
            "ProcInfo": {"Pid": 1234, "StartTime": "2026-11-26T00:00:00Z"}, "RunAsUser": "", "Unheard": [1, {"of": null}],
        },
        "DocumentType": "StartSession",
        "InstancePluginsInformation": [
            {"Configuration": {"PluginName": "Other", "Properties": {"portNumber": "1"}}},
            {"Configuration": {"PluginName": "Port", "Properties": {"portNumber": "5432", "type": "LocalPortForwarding", "host": ""}}},
        ],
    });
    change(&mut value);
    value.to_string().into_bytes()
}

fn attribute(file: &[u8]) -> Result<SsmSession, Unattributed> {
    let facts = Facts {
        session: ID.to_owned(),
        pid: 1234,
        record: Record::parse(file),
    };
    facts.attribute(5432, |name| name.starts_with("AWS-"))
}

#[test]
fn the_agents_file_names_who_it_is() {
    let session = attribute(&file(|_| {})).unwrap();
    assert_eq!(&*session.id, ID);
    assert_eq!(&*session.document, "AWS-StartPortForwardingSession");
    assert_eq!(session.owner.arn(), OWNER);
}

#[test]
fn whatever_is_missing_or_otherwise_refuses() {
    let with = |path: &str, value: serde_json::Value| {
        let label = |error: Unattributed| error.label();
        attribute(&file(|file| *file.pointer_mut(path).unwrap() = value)).map_err(label)
    };
    let rows = [
        (
            "/DocumentInformation/DocumentID",
            "bob-07a16060613c408b5",
            "other_session",
        ),
        ("/DocumentInformation/DocumentID", "", "other_session"),
        (
            "/DocumentInformation/DocumentName",
            "SSM-SessionManagerRunShell",
            "document",
        ),
        ("/DocumentInformation/SessionOwner", "", "owner"),
        ("/DocumentInformation/SessionOwner", "alice", "owner"),
        (
            "/DocumentInformation/SessionOwner",
            "arn:aws:iam::123456789012:root",
            "owner",
        ),
        (
            "/InstancePluginsInformation/1/Configuration/PluginName",
            "Standard",
            "other_port",
        ),
        (
            "/InstancePluginsInformation/1/Configuration/Properties/portNumber",
            "5433",
            "other_port",
        ),
        (
            "/InstancePluginsInformation/1/Configuration/Properties/portNumber",
            "",
            "other_port",
        ),
    ];
    for (path, value, label) in rows {
        assert_eq!(with(path, value.into()), Err(label), "{path} {value}");
    }
    assert_eq!(
        with("/DocumentInformation/ProcInfo/Pid", 1235.into()),
        Err("other_session")
    );
    assert_eq!(
        with("/DocumentInformation", serde_json::json!({})),
        Err("other_session")
    );
    for garbled in [&b""[..], b"{", b"1", b"\xff", br#"{"DocumentInformation": 1}"#] {
        assert_eq!(
            attribute(garbled).unwrap_err().label(),
            "bad_record",
            "{garbled:?}"
        );
    }
}

#[test]
fn a_session_id_is_the_name_of_a_file() {
    for id in [ID, "john.doe@example.com-07a16060613c408b5"] {
        assert!(is_session_id(id), "{id}");
    }
    let long = format!("{}-07a16060613c408b5", "a".repeat(96));
    for id in ["", "alice", "../alice-1", "a/b-1", "a-1\n", ".a-1", &long] {
        assert!(!is_session_id(id), "{id}");
    }
}

#[test]
fn every_reason_has_a_label() {
    let reasons = [
        Unattributed::Gone,
        Unattributed::NotRoot { uid: 1 },
        Unattributed::NoRecord,
    ];
    for reason in reasons {
        assert!(Unattributed::LABELS.contains(&reason.label()));
    }
}
