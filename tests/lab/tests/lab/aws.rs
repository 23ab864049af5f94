//! The real AWS SDK against the lab, and what the lab refuses it.
//!
//! The SDK reads the environment, which must not be changed in a process with threads: so the test runs itself again
//! as a child with the lab's environment.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sdk_rds::auth_token::{AuthTokenGenerator, Config as TokenConfig};
use aws_sdk_rds::error::ProvideErrorMetadata as _;
use aws_sdk_rds::types::Filter;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use postern_lab::{AwsFault, INSTANCE_ID, Lab, LabConfig, ROLE, SsmSession};
use serde_json::{Value, json};

use crate::client::{Login, Tls};

const CHILD: &str = "POSTERN_LAB_TEST";

#[test]
fn the_sdk_takes_the_lab_for_aws() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let facts = json!({
        "address": lab.dial_address(), "ca": lab.ca_file(),
        "access_key_id": lab.imds().current_key().unwrap().access_key_id,
    });
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "aws::as_the_sdk_sees_it", "--ignored", "--nocapture"]);
    child.env_clear().envs(lab.env()).env(CHILD, facts.to_string());
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");

    let requests = lab.aws_requests();
    assert_eq!(requests["GetCallerIdentity"], 2);
    assert!(
        requests["PUT /latest/api/token"] >= 1 && requests["GET /latest/meta-data/placement/region"] >= 1
    );
}

#[test]
#[ignore = "the_sdk_takes_the_lab_for_aws runs it with the lab's environment"]
fn as_the_sdk_sees_it() {
    let Ok(facts) = std::env::var(CHILD) else { return };
    let facts: Value = serde_json::from_str(&facts).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let token = runtime.block_on(async {
        let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
        credentials_come_from_the_metadata_service(&config, &facts).await;
        sts_knows_who_asks(&config).await;
        rds_describes_the_cluster(&config).await;
        sdk_token(&config).await
    });
    let login = Login {
        address: facts["address"].as_str().unwrap().parse().unwrap(),
        ca: PathBuf::from(facts["ca"].as_str().unwrap()),
        name: ENDPOINT.to_owned(),
        user: "app_ro".to_owned(),
        database: "orders".to_owned(),
        password: token,
        tls: Tls::Requested,
        minor: 0,
    };
    assert_eq!(
        login.go().unwrap().query("SELECT current_user").unwrap(),
        ["app_ro"]
    );
}

async fn credentials_come_from_the_metadata_service(config: &SdkConfig, facts: &Value) {
    assert_eq!(config.region(), Some(&Region::new("us-east-1")));
    let credentials = config
        .credentials_provider()
        .unwrap()
        .provide_credentials()
        .await
        .unwrap();
    assert_eq!(facts["access_key_id"], credentials.access_key_id());
    let left = credentials
        .expiry()
        .unwrap()
        .duration_since(SystemTime::now())
        .unwrap();
    assert!((21_000..=21_600).contains(&left.as_secs()), "{left:?}");
}

async fn sts_knows_who_asks(config: &SdkConfig) {
    let identity = aws_sdk_sts::Client::new(config)
        .get_caller_identity()
        .send()
        .await
        .unwrap();
    let arn = format!("arn:aws:sts::123456789012:assumed-role/{ROLE}/{INSTANCE_ID}");
    assert_eq!(
        (identity.arn(), identity.account()),
        (Some(arn.as_str()), Some("123456789012"))
    );

    let credentials = config
        .credentials_provider()
        .unwrap()
        .provide_credentials()
        .await
        .unwrap();
    let token = credentials.session_token().map(str::to_owned);
    let forged = Credentials::new(credentials.access_key_id(), "guess", token, None, "test");
    let config = aws_sdk_sts::config::Builder::from(config)
        .credentials_provider(forged)
        .build();
    let refused = aws_sdk_sts::Client::from_conf(config)
        .get_caller_identity()
        .send()
        .await
        .unwrap_err();
    assert_eq!(refused.into_service_error().code(), Some("SignatureDoesNotMatch"));
}

async fn rds_describes_the_cluster(config: &SdkConfig) {
    let client = aws_sdk_rds::Client::new(config);
    let clusters = client
        .describe_db_clusters()
        .db_cluster_identifier("orders")
        .send()
        .await
        .unwrap();
    let [cluster] = clusters.db_clusters() else {
        panic!("{clusters:?}")
    };
    assert_eq!((cluster.endpoint(), cluster.port()), (Some(ENDPOINT), Some(5432)));
    assert_eq!(cluster.iam_database_authentication_enabled(), Some(true));
    let writers: Vec<_> = cluster
        .db_cluster_members()
        .iter()
        .map(|m| m.is_cluster_writer().unwrap())
        .collect();
    assert_eq!(writers, [true, false]);
    assert_eq!(cluster.tag_list()[0].key(), Some("postern"));

    let members = Filter::builder().name("db-cluster-id").values("orders").build();
    let instances = client
        .describe_db_instances()
        .filters(members)
        .send()
        .await
        .unwrap();
    let [one, two] = instances.db_instances() else {
        panic!("{instances:?}")
    };
    assert_ne!(one.dbi_resource_id(), two.dbi_resource_id());
    assert_eq!(one.db_cluster_identifier(), Some("orders"));
    assert_eq!(one.ca_certificate_identifier(), Some("rds-ca-rsa2048-g1"));
    assert_eq!(
        one.endpoint().unwrap().address(),
        Some("orders-1.abc123.us-east-1.rds.amazonaws.com")
    );
    let missing = client
        .describe_db_instances()
        .db_instance_identifier("nowhere")
        .send()
        .await
        .unwrap_err();
    assert!(missing.into_service_error().is_db_instance_not_found_fault());
}

/// A token by the SDK's own generator.
async fn sdk_token(config: &SdkConfig) -> String {
    let token = TokenConfig::builder()
        .hostname(ENDPOINT)
        .port(5432)
        .username("app_ro")
        .build()
        .unwrap();
    AuthTokenGenerator::new(token)
        .auth_token(config)
        .await
        .unwrap()
        .as_str()
        .to_owned()
}

#[test]
fn the_metadata_service_wants_a_token_and_renews_credentials() {
    let lab = Lab::start(LabConfig {
        credentials_lifetime: Duration::from_secs(600),
        ..LabConfig::default()
    })
    .unwrap();
    let credentials = format!("GET /latest/meta-data/iam/security-credentials/{ROLE}");
    let token = |ttl: &str| {
        http(
            &lab,
            "PUT /latest/api/token",
            &[("x-aws-ec2-metadata-token-ttl-seconds", ttl)],
            "",
        )
    };
    let ask = |token: &str| http(&lab, &credentials, &[("x-aws-ec2-metadata-token", token)], "");
    assert_eq!(http(&lab, "PUT /latest/api/token", &[], "").0, 400);
    assert_eq!(token("21601").0, 400);
    assert_eq!(http(&lab, &credentials, &[], "").0, 401);
    assert_eq!(ask("made-up").0, 401);
    let (status, good) = token("60");
    assert_eq!(status, 200);
    let key = |answer: (u16, String)| {
        assert_eq!(answer.0, 200, "{}", answer.1);
        serde_json::from_str::<Value>(&answer.1).unwrap()["AccessKeyId"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = key(ask(&good));
    assert_eq!(key(ask(&good)), first);
    lab.set_clock_offset(61);
    assert_eq!(ask(&good).0, 401, "the token's life is over");

    let (_, good) = token("21600");
    lab.set_clock_offset(500);
    let second = key(ask(&good));
    assert_ne!(second, first, "renewed before it expires");
    lab.imds().set_renews(false);
    lab.set_clock_offset(5_000);
    assert_eq!(key(ask(&good)), second, "expired, and served all the same");
    let third = lab.imds().rotate().unwrap().access_key_id;
    assert_eq!(key(ask(&good)), third);
    lab.imds().expire_tokens();
    assert_eq!(ask(&good).0, 401);

    for (fault, status) in [
        (AwsFault::Status(500), 500),
        (AwsFault::Unauthorized, 401),
        (AwsFault::Down, 0),
    ] {
        let (_, good) = token("60");
        lab.imds().set_fault(fault);
        assert_eq!(ask(&good).0, status, "{fault:?}");
        lab.imds().set_fault(AwsFault::None);
    }
}

#[test]
fn an_instance_may_have_no_role() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let life = [("x-aws-ec2-metadata-token-ttl-seconds", "60")];
    let (_, token) = http(&lab, "PUT /latest/api/token", &life, "");
    let ask = |path: &str| {
        let request = format!("GET /latest/meta-data/{path}");
        http(&lab, &request, &[("x-aws-ec2-metadata-token", &token)], "").0
    };
    let roles = "iam/security-credentials/";
    let role = format!("{roles}{ROLE}");
    for (has_role, status) in [(true, 200), (false, 404), (true, 200)] {
        http(
            &lab,
            "POST /lab/imds",
            &[],
            &json!({ "role": has_role }).to_string(),
        );
        assert_eq!((ask(roles), ask(&role)), (status, status));
        assert_eq!(ask("instance-id"), 200);
    }
}

#[test]
fn answers_bear_the_labs_own_time() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    // 1 January 2100 began on a Friday.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    lab.set_clock_offset(4_102_444_800 + 60 - i64::try_from(now).unwrap());
    let mut tcp = TcpStream::connect(lab.aws_address()).unwrap();
    write!(
        tcp,
        "PUT /latest/api/token HTTP/1.1\r\nhost: imds\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    let dates: Vec<_> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("date: "))
        .collect();
    assert!(
        matches!(dates.as_slice(), [one] if one.starts_with("Fri, 01 Jan 2100 00:01:0")),
        "{answer}"
    );
}

#[test]
fn ssm_describes_sessions_to_those_who_sign() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let session = |number: usize| SsmSession {
        session_id: format!("alice-{number:017}"),
        target: INSTANCE_ID.to_owned(),
        status: "Connected".to_owned(),
        start_date: 1_790_000_000.0,
        document_name: "AWS-StartPortForwardingSession".to_owned(),
        owner: "arn:aws:iam::123456789012:user/alice".to_owned(),
    };
    lab.set_ssm_sessions((0..3).map(session).collect());
    let one = json!({"State": "Active", "Filters": [{"key": "SessionId", "value": session(1).session_id}]});
    let (status, answer) = describe_sessions(&lab, &one, "ssm", |_| ());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["Sessions"], json!([session(1)]));
    let (_, page) = describe_sessions(&lab, &json!({"State": "Active", "MaxResults": 2}), "ssm", |_| ());
    assert_eq!(
        (page["Sessions"].as_array().unwrap().len(), &page["NextToken"]),
        (2, &json!("2"))
    );
    let (_, none) = describe_sessions(&lab, &json!({"State": "History"}), "ssm", |_| ());
    assert_eq!(none, json!({"Sessions": []}));

    assert_eq!(
        describe_sessions(&lab, &one, "ssm", |body| body.push(' ')).0,
        403,
        "the body is signed"
    );
    assert_eq!(
        describe_sessions(&lab, &one, "rds", |_| ()).0,
        400,
        "signed for another service"
    );
    lab.set_clock_offset(1_000);
    assert_eq!(describe_sessions(&lab, &one, "ssm", |_| ()).0, 403, "too old");
    lab.set_clock_offset(0);
    lab.set_api_fault(AwsFault::Throttled);
    let (status, answer) = describe_sessions(&lab, &one, "ssm", |_| ());
    assert_eq!((status, &answer["__type"]), (400, &json!("ThrottlingException")));
}

/// Calls DescribeSessions, signed by AWS's own signer, with the body changed after signing.
fn describe_sessions(
    lab: &Lab,
    request: &Value,
    service: &str,
    change: impl FnOnce(&mut String),
) -> (u16, Value) {
    let key = lab.imds().current_key().unwrap();
    let identity = Credentials::new(key.access_key_id, key.secret, key.session_token, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name(service)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .unwrap();
    let mut body = request.to_string();
    let headers = [
        ("x-amz-target", "AmazonSSM.DescribeSessions"),
        ("content-type", "application/x-amz-json-1.1"),
    ];
    let url = format!("http://{}/", lab.aws_address());
    let signable = SignableRequest::new(
        "POST",
        &url,
        headers.into_iter(),
        SignableBody::Bytes(body.as_bytes()),
    )
    .unwrap();
    let (signed, _) = sign(signable, &params.into()).unwrap().into_parts();
    change(&mut body);
    let headers: Vec<_> = headers.into_iter().chain(signed.headers()).collect();
    let (status, answer) = http(lab, "POST /", &headers, &body);
    (status, serde_json::from_str(&answer).unwrap())
}

#[test]
fn sts_takes_a_request_that_somebody_else_signed() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let alice = lab.add_key("arn:aws:iam::123456789012:user/alice", None).unwrap();
    let identity = Credentials::new(alice.access_key_id, alice.secret, None, None, "test").into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(60));
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("sts")
        .time(SystemTime::now())
        .settings(settings)
        .build()
        .unwrap();
    let query = "Action=GetCallerIdentity&Version=2011-06-15";
    let url = format!("https://sts.us-east-1.amazonaws.com/?{query}");
    let extra = [("x-postern-target", "gateway")];
    let signable = SignableRequest::new("GET", &url, extra.into_iter(), SignableBody::empty()).unwrap();
    let (signed, _) = sign(signable, &params.into()).unwrap().into_parts();
    let signature: String = signed
        .params()
        .iter()
        .map(|(name, value)| format!("&{name}={}", postern_lab::uri_encode(value)))
        .collect();
    let replay = |target: &str| {
        let headers = [
            ("host", "sts.us-east-1.amazonaws.com"),
            ("x-postern-target", target),
        ];
        http(&lab, &format!("GET /?{query}{signature}"), &headers, "")
    };
    let (status, answer) = replay("gateway");
    assert_eq!(status, 200, "{answer}");
    assert!(
        answer.contains("<Arn>arn:aws:iam::123456789012:user/alice</Arn>"),
        "{answer}"
    );
    assert_eq!(replay("another-gateway").0, 403);
    lab.set_clock_offset(61);
    assert_eq!(replay("gateway").0, 403);
}

#[test]
fn the_control_interface_commands_what_the_library_does() {
    let lab = Lab::start(LabConfig::default()).unwrap();
    let ask = |request: &str, body: &str| {
        let (status, answer) = http(&lab, request, &[], body);
        assert_eq!(status, 200, "{request} {body}: {answer}");
        serde_json::from_str::<Value>(&answer).unwrap()
    };
    ask(
        "POST /lab/faults",
        r#"{"login": "starting_up", "login_times": 1}"#,
    );
    ask(
        "POST /lab/faults",
        r#"{"latency": {"fixed_ms": 1}, "reset_connections": true}"#,
    );
    assert_eq!(Login::good(&lab, "app_ro").go().unwrap_err().sqlstate(), "57P03");
    Login::good(&lab, "app_ro").go().unwrap();
    let logins = ask("GET /lab/logins", "");
    assert_eq!(logins[0]["outcome"], json!({"fault": "starting_up"}));
    assert_eq!(
        (&logins[1]["outcome"], &logins[1]["user"]),
        (&json!("accepted"), &json!("app_ro"))
    );
    assert_eq!(ask("POST /lab/faults", r#"{"clear": true}"#)["latency"], "none");
    let before = lab.imds().current_key().unwrap().access_key_id;
    assert_ne!(
        ask(
            "POST /lab/imds",
            r#"{"rotate": true, "credentials_lifetime_s": 60}"#
        )["access_key_id"],
        before
    );
    ask("POST /lab/imds", r#"{"fault": {"status": 500}}"#);
    ask("POST /lab/aws", r#"{"fault": {"slow_ms": 1}}"#);
    ask("POST /lab/clock", r#"{"offset_s": 901}"#);
    ask("POST /lab/sessions", "[]");
    let status = ask("GET /lab/status", "");
    assert_eq!(
        (&status["clock_offset_s"], &status["logins"]),
        (&json!(901), &json!(2))
    );
    assert_eq!(status["dial_address"], json!(lab.dial_address()));
    assert_eq!(http(&lab, "POST /lab/faults", &[], r#"{"lgoin": 1}"#).0, 400);
    assert_eq!(http(&lab, "GET /lab/nothing", &[], "").0, 404);
}

/// One HTTP request. Status 0 when the connection was closed without an answer.
fn http(lab: &Lab, request: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(lab.aws_address()).unwrap();
    let own_host = lab.aws_address().to_string();
    let host = headers
        .iter()
        .find(|(name, _)| *name == "host")
        .map_or(own_host.as_str(), |(_, value)| *value);
    let others = headers.iter().filter(|(name, _)| *name != "host");
    let headers: String = others
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    write!(tcp, "{request} HTTP/1.1\r\nhost: {host}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}")
        .unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        return (0, answer);
    };
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

const ENDPOINT: &str = "orders.cluster-abc123.us-east-1.rds.amazonaws.com";
