use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_rds::auth_token::{AuthTokenGenerator, Config};
use aws_smithy_async::time::StaticTimeSource;

use super::*;

const HOST: &str = "prod-instance.us-east-1.rds.amazonaws.com";

fn keys(session_token: Option<&str>) -> Keys {
    let credentials = Credentials::new("akid", "secret", session_token.map(str::to_owned), None, "test");
    Keys::new(credentials, None)
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The vector of the SDK's own unit test (`aws-sdk-rds` 1.159.0, `src/auth_token.rs`).
#[test]
fn a_known_token() {
    let token = sign(
        &keys(None),
        HOST,
        3306,
        "us-east-1",
        &"peccy".into(),
        at(1_724_709_600),
    )
    .unwrap();
    assert_eq!(
        token.secret(),
        "prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=peccy&X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=akid%2F20240826%2Fus-east-1%2Frds-db%2Faws4_request&X-Amz-Date=20240826T220000Z\
         &X-Amz-Expires=900&X-Amz-SignedHeaders=host\
         &X-Amz-Signature=dd0cba843009474347af724090233265628ace491ea17ce3eb3da098b983ad89"
    );
}

#[tokio::test]
async fn plain_names_give_the_sdks_token() {
    for user in ["app", "app_ro", "a-b.c_9", "x"] {
        for session_token in [None, Some("session/token+with=odd&characters")] {
            let keys = keys(session_token);
            let now = at(1_790_000_000);
            let sdk = SdkConfig::builder()
                .behavior_version(BehaviorVersion::latest())
                .credentials_provider(SharedCredentialsProvider::new(keys.credentials.clone()))
                .time_source(StaticTimeSource::new(now))
                .region(Region::new("eu-central-1"))
                .build();
            let config = Config::builder()
                .hostname(HOST)
                .port(5432)
                .username(user)
                .build()
                .unwrap();
            let expected = AuthTokenGenerator::new(config).auth_token(&sdk).await.unwrap();
            let token = sign(&keys, HOST, 5432, "eu-central-1", &user.into(), now).unwrap();
            assert_eq!(token.secret(), expected.as_str());
        }
    }
}

#[test]
fn odd_names_are_encoded_and_never_smuggle() {
    for (user, encoded) in [
        ("a b", "a%20b"),
        ("a+b", "a%2Bb"),
        ("a&DBUser=root", "a%26DBUser%3Droot"),
        ("a#b", "a%23b"),
        ("é", "%C3%A9"),
    ] {
        let token = sign(
            &keys(None),
            HOST,
            5432,
            "us-east-1",
            &user.into(),
            at(1_790_000_000),
        )
        .unwrap();
        assert!(
            token.secret().contains(&format!("&DBUser={encoded}&X-Amz-")),
            "{}",
            token.secret()
        );
        assert_eq!(token.secret().matches("DBUser=").count(), 1);
    }
    assert!(sign(&keys(None), HOST, 5432, "us-east-1", &"".into(), at(0)).is_err());
    assert!(sign(&keys(None), HOST, 5432, "us-east-1", &"a\0b".into(), at(0)).is_err());
}

#[test]
fn nothing_secret_is_printed() {
    let token = sign(
        &keys(Some("hush")),
        HOST,
        5432,
        "us-east-1",
        &"app".into(),
        at(1_790_000_000),
    )
    .unwrap();
    assert_eq!(format!("{token:?}"), "Token(signed by akid)");
    assert_eq!(format!("{:?}", keys(Some("hush"))), "Keys(akid)");
}
