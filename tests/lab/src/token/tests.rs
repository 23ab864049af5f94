//! Tokens: the published example, and every reason to refuse one.

use super::*;
use crate::clock::from_unix;

fn published() -> TokenParams {
    TokenParams {
        host: "prod-instance.us-east-1.rds.amazonaws.com".into(),
        port: 3306,
        user: "peccy".into(),
        region: "us-east-1".into(),
        service: "rds-db".into(),
        access_key_id: "akid".into(),
        secret: "secret".into(),
        session_token: None,
        signed_at: from_unix(1_724_709_600),
        expires: 900,
        tamper: None,
    }
}

/// The example in the test of the AWS SDK for Rust's own token generator.
#[test]
fn mints_the_published_example() {
    assert_eq!(
        published().mint(),
        "prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=peccy\
         &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=akid%2F20240826%2Fus-east-1%2Frds-db%2Faws4_request\
         &X-Amz-Date=20240826T220000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=dd0cba843009474347af724090233265628ace491ea17ce3eb3da098b983ad89"
    );
}

struct Case {
    params: TokenParams,
    user: String,
    now: SystemTime,
    keys: KeyRing,
}

impl Case {
    fn new() -> Self {
        let now = from_unix(1_800_000_000);
        let keys = KeyRing::new(now, Duration::from_secs(3_600)).unwrap();
        let key = keys.current().unwrap();
        let params = TokenParams {
            host: "Orders.example".into(),
            port: 5432,
            user: "odd user+x".into(),
            access_key_id: key.access_key_id,
            secret: key.secret,
            session_token: key.session_token,
            signed_at: now,
            ..published()
        };
        Self {
            params,
            user: "odd user+x".into(),
            now,
            keys,
        }
    }

    fn verdict(&self) -> Result<(), Refusal> {
        self.verdict_on(&self.params.mint())
    }

    fn verdict_on(&self, token: &str) -> Result<(), Refusal> {
        let endpoint = Endpoint {
            names: vec!["orders.example".into()],
            port: 5432,
            region: "us-east-1".into(),
        };
        Claims::parse(token)?.check(&self.user, &endpoint, &self.keys, self.now)
    }
}

fn refused(change: impl FnOnce(&mut Case)) -> Refusal {
    let mut case = Case::new();
    change(&mut case);
    case.verdict().unwrap_err()
}

#[test]
fn accepts_a_good_token_until_its_last_second() {
    let mut case = Case::new();
    assert_eq!(case.verdict(), Ok(()));
    case.now += Duration::from_secs(900);
    assert_eq!(case.verdict(), Ok(()));
    case.now += Duration::from_secs(1);
    assert_eq!(case.verdict(), Err(Refusal::TooOld));
}

#[test]
fn refuses_each_wrong_claim() {
    assert_eq!(
        refused(|c| c.params.host = "other.example".into()),
        Refusal::WrongHost
    );
    assert_eq!(refused(|c| c.params.port = 5433), Refusal::WrongPort);
    assert_eq!(refused(|c| c.user = "app_rw".into()), Refusal::WrongUser);
    assert_eq!(
        refused(|c| c.params.region = "eu-west-1".into()),
        Refusal::WrongRegion
    );
    assert_eq!(refused(|c| c.params.service = "rds".into()), Refusal::WrongScope);
    assert_eq!(
        refused(|c| c.params.access_key_id = "AKIANOBODY".into()),
        Refusal::UnknownKey
    );
    assert_eq!(
        refused(|c| c.params.secret = "guess".into()),
        Refusal::BadSignature
    );
    assert_eq!(
        refused(|c| c.params.session_token = None),
        Refusal::WrongSessionToken
    );
    assert_eq!(
        refused(|c| c.params.session_token = Some("x".into())),
        Refusal::WrongSessionToken
    );
    assert_eq!(refused(|c| c.params.expires = 901), Refusal::ExpiresTooLong);
    assert_eq!(
        refused(|c| c.params.signed_at += Duration::from_secs(301)),
        Refusal::FromTheFuture
    );
    assert_eq!(
        refused(|c| c.params.signed_at -= Duration::from_secs(901)),
        Refusal::TooOld
    );
    let short = |c: &mut Case| {
        c.params.expires = 60;
        c.params.signed_at -= Duration::from_secs(61);
    };
    assert_eq!(refused(short), Refusal::TooOld);
}

#[test]
fn refuses_expired_and_revoked_keys() {
    let mut case = Case::new();
    let signer = case.params.access_key_id.clone();
    case.now += Duration::from_secs(3_600);
    case.params.signed_at = case.now;
    assert_eq!(case.verdict(), Err(Refusal::KeyExpired));
    case = Case {
        now: from_unix(1_800_000_000),
        ..Case::new()
    };
    let signer_of_second = case.params.access_key_id.clone();
    assert_ne!(signer, signer_of_second);
    case.keys.rotate(case.now).unwrap();
    assert_eq!(case.verdict(), Ok(()), "a rotation leaves the old key valid");
    case.keys.revoke(Some(&signer_of_second));
    assert_eq!(case.verdict(), Err(Refusal::KeyRevoked));
}

#[test]
fn refuses_what_was_changed_after_signing() {
    let case = Case::new();
    let token = case.params.mint();
    let changed = |from: &str, to: &str| {
        assert!(token.contains(from), "{from}");
        case.verdict_on(&token.replace(from, to)).unwrap_err()
    };
    assert_eq!(
        changed("X-Amz-Expires=900", "X-Amz-Expires=899"),
        Refusal::BadSignature
    );
    assert_eq!(
        changed("Action=connect", "Action=connect&Extra=1"),
        Refusal::BadSignature
    );
    assert_eq!(changed("Action=connect", "Action=drop"), Refusal::WrongAction);
    assert_eq!(
        changed("DBUser=", "DBUser=x&DBUser="),
        Refusal::DuplicateParameter
    );
    assert_eq!(
        changed("SignedHeaders=host", "SignedHeaders=host%3Bdate"),
        Refusal::WrongSignedHeaders
    );
    assert_eq!(
        changed("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512"),
        Refusal::WrongAlgorithm
    );
    assert_eq!(changed("odd%20user%2Bx", "odd+user%2Bx"), Refusal::Malformed);
    assert_eq!(changed("/?", "/"), Refusal::Malformed);
    assert_eq!(changed("&X-Amz-Signature=", "&x="), Refusal::Malformed);
    assert_eq!(
        changed("X-Amz-Expires=900", "X-Amz-Expires=-1"),
        Refusal::Malformed
    );
    assert_eq!(
        changed("Expires=900", "Expires=99999999999999999999999"),
        Refusal::BadSignature
    );
}

#[test]
fn the_place_of_the_session_token_does_not_matter() {
    let case = Case::new();
    let token = case.params.mint();
    let (text, parameters) = token.split_once("&X-Amz-Security-Token=").unwrap();
    let (session_token, signature) = parameters.split_once('&').unwrap();
    let after = format!("{text}&{signature}&X-Amz-Security-Token={session_token}");
    assert_eq!(case.verdict_on(&after), Ok(()));
}
