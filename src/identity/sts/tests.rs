use super::*;

const NONCE: &str = "0123456789abcdef";
const HOST: &str = "sts.eu-central-1.amazonaws.com";
const SIGNATURE: &str = "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500";

fn query() -> String {
    format!(
        "Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=ASIAEXAMPLE%2F20261126%2Feu-central-1%2Fsts%2Faws4_request&X-Amz-Date=20261126T101500Z\
         &X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-postern-gateway&X-Amz-Security-Token=IQo%2B%2F%3D%3D\
         &X-Amz-Signature={SIGNATURE}"
    )
}

fn url() -> String {
    format!("https://{HOST}/?{}", query())
}

fn at(seconds: u64) -> SystemTime {
    time("20261126T101500Z").unwrap() + Duration::from_secs(seconds)
}

fn accepts() -> Accepts {
    Accepts {
        gateway: "orders.example".into(),
        accounts: vec!["123456789012".into()],
        regions: vec!["eu-west-1".into(), "eu-central-1".into()],
    }
}

fn read(url: &str) -> Result<Proof, BadProof> {
    Proof::read(&password(url, NONCE), &accepts(), at(10))
}

#[test]
fn a_good_one() {
    let proof = read(&url()).unwrap();
    assert_eq!(proof.host, HOST);
    assert_eq!(proof.header, "orders.example 0123456789abcdef");
    assert_eq!(*proof.path_and_query(), format!("/?{}", query()));
    assert_eq!(proof.signed_at, at(0));
    assert!(!format!("{proof:?}").contains("Signature"));
    assert!(read(&url().replace("&X-Amz-Security-Token=IQo%2B%2F%3D%3D", "")).is_ok());
}

#[test]
fn what_is_no_proof() {
    let encoded = URL_SAFE_NO_PAD.encode(url());
    for text in [
        String::new(),
        "secret".into(),
        encoded.clone(),
        format!("{PREFIX}{encoded}"),
        format!("{PREFIX}short.{encoded}"),
        format!("{PREFIX}0123456789 bcdef.{encoded}"),
        format!("{PREFIX}{NONCE}.{encoded}="),
        format!("{PREFIX}{NONCE}.{NONCE}.{encoded}"),
        format!("{PREFIX}{NONCE}.{}", URL_SAFE_NO_PAD.encode(b"\xff\xfe")),
        format!(
            "{PREFIX}{NONCE}.{}",
            URL_SAFE_NO_PAD.encode(format!("{} \r\nHost: x", url()))
        ),
        format!("{PREFIX}{NONCE}.{}", "A".repeat(MAX_BYTES)),
    ] {
        let refused = Proof::read(&text, &accepts(), at(10)).unwrap_err();
        assert_eq!(refused, BadProof::NoProof, "{text}");
    }
}

#[test]
fn hosts_that_are_never_asked() {
    for host in [
        "sts.amazonaws.com",
        "sts.eu-west-1.amazonaws.com",
        "sts.us-east-1.amazonaws.com",
        "sts.eu-central-1.amazonaws.com.evil.example",
        "sts.eu-central-1.amazonaws.com@evil.example",
        "user@sts.eu-central-1.amazonaws.com",
        "sts.eu-central-1.amazonaws.com:8443",
        "STS.eu-central-1.amazonaws.com",
        "169.254.169.254",
        "",
    ] {
        assert_eq!(
            read(&url().replace(HOST, host)).unwrap_err(),
            BadProof::OtherHost,
            "{host}"
        );
    }
    for (from, to) in [
        ("https://", "http://"),
        ("/?", "?"),
        ("/?", "/latest/?"),
        ("/?", "/#?"),
        ("%2Fsts%2F", "%2Frds-db%2F"),
        ("aws4_request", "aws4a_request"),
        ("eu-central-1", "us-east-1"),
    ] {
        let changed = url()
            .replacen("https", "\0", 1)
            .replace(from, to)
            .replacen('\0', "https", 1);
        let changed = if from == "https://" {
            url().replace(from, to)
        } else {
            changed
        };
        assert_eq!(read(&changed).unwrap_err(), BadProof::OtherHost, "{from} -> {to}");
    }
}

#[test]
fn parameters_that_are_too_many_or_too_few() {
    for (name, must) in PARAMETERS {
        let pair = query()
            .split('&')
            .find(|pair| pair.starts_with(&format!("{name}=")))
            .unwrap()
            .to_owned();
        let rest: Vec<_> = query()
            .split('&')
            .filter(|other| **other != *pair)
            .map(str::to_owned)
            .collect();
        let without = format!("https://{HOST}/?{}", rest.join("&"));
        assert_eq!(read(&without).is_err(), must, "without {name}");
        assert_eq!(
            read(&format!("{}&{pair}", url())).unwrap_err(),
            BadProof::OtherParameters,
            "{name} twice"
        );
    }
    for more in [
        "&x=1",
        "&",
        "&Action",
        "&action=x",
        "&X-Amz-Date%20=1",
        "#",
        "&RoleArn=a",
    ] {
        assert_eq!(
            read(&format!("{}{more}", url())).unwrap_err(),
            BadProof::OtherParameters,
            "{more}"
        );
    }
}

#[test]
fn other_requests() {
    let rows = [
        (
            "Action=GetCallerIdentity",
            "Action=GetSessionToken",
            BadProof::OtherRequest,
        ),
        (
            "Action=GetCallerIdentity",
            "Action=%47etCallerIdentity",
            BadProof::OtherRequest,
        ),
        ("2011-06-15", "2011-06-16", BadProof::OtherRequest),
        (
            "AWS4-HMAC-SHA256",
            "AWS4-ECDSA-P256-SHA256",
            BadProof::OtherRequest,
        ),
        (SIGNATURE, "0", BadProof::OtherRequest),
        ("b97d", "B97D", BadProof::OtherRequest),
        ("%2F20261126%2F", "%2F20261125%2F", BadProof::OtherRequest),
        ("%2F20261126%2F", "%2F20261126%2f", BadProof::OtherRequest),
        ("ASIAEXAMPLE", "ASIA%2FEXAMPLE", BadProof::OtherRequest),
        (
            "20261126T101500Z",
            "2026-11-26T10:15:00Z",
            BadProof::OtherParameters,
        ),
        ("20261126T101500Z", "20261126T1015000", BadProof::OtherRequest),
        ("Expires=60", "Expires=a", BadProof::OtherRequest),
        ("host%3Bx-postern-gateway", "host", BadProof::OtherHeaders),
        (
            "host%3Bx-postern-gateway",
            "host%3Bx-k8s-aws-id",
            BadProof::OtherHeaders,
        ),
        (
            "host%3Bx-postern-gateway",
            "accept%3Bhost%3Bx-postern-gateway",
            BadProof::OtherHeaders,
        ),
    ];
    for (from, to, why) in rows {
        let changed = url().replacen(from, to, 1);
        assert_eq!(read(&changed).unwrap_err(), why, "{from} -> {to}");
    }
}

#[test]
fn it_is_good_for_a_minute() {
    let read = |expires: &str, now| {
        let url = url().replace("Expires=60", &format!("Expires={expires}"));
        Proof::read(&password(&url, NONCE), &accepts(), now).map(|_| ())
    };
    assert_eq!(read("60", at(60)), Ok(()));
    assert_eq!(read("60", at(61)), Err(BadProof::Expired));
    assert_eq!(read("900", at(61)), Err(BadProof::Expired));
    assert_eq!(read("18446744073709551615", at(61)), Err(BadProof::Expired));
    assert_eq!(read("5", at(6)), Err(BadProof::Expired));
    let signed = at(0);
    assert_eq!(read("60", signed - AHEAD), Ok(()));
    assert_eq!(
        read("60", signed - AHEAD - Duration::from_secs(1)),
        Err(BadProof::Early)
    );
}

#[test]
fn each_has_its_own_id() {
    let other = url().replace("b97d", "b97e");
    assert_ne!(read(&url()).unwrap().id, read(&other).unwrap().id);
    let elsewhere = Proof::read(&password(&url(), "fedcba9876543210"), &accepts(), at(10)).unwrap();
    assert_eq!(
        elsewhere.id,
        read(&url()).unwrap().id,
        "the nonce alone makes no other"
    );
}
