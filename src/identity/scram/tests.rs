//! RFC 7677's example, every way to spoil it, and arbitrary bytes.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::super::verifier::salted_password;
use super::*;

const HASH: &[u8] = b"\x00the hash of a certificate\xff";
/// The base64 of the nonce that the tests use.
const SERVER_NONCE: &str = "BwcHBwcHBwcHBwcHBwcHBwcH";

fn pencil() -> Arc<Verifier> {
    Arc::new(Verifier::from_password("pencil", b"0123456789abcdef", 2))
}

fn begin(verifier: Arc<Verifier>, channel_binding: ChannelBinding) -> Exchange {
    Exchange::begin(verifier, channel_binding, &[7; NONCE_LEN])
}

impl Exchange {
    fn with_nonce(self, nonce: &str) -> Self {
        Self {
            nonce: nonce.into(),
            ..self
        }
    }
}

fn end_point() -> ChannelBinding {
    ChannelBinding::ServerEndPoint(HASH.into())
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The client's final message, as RFC 5802 section 3 has it, with whatever is said to come before
/// the proof.
fn client_final(password: &str, bare: &str, server_first: &str, without_proof: &str) -> String {
    let (_, rest) = server_first.split_once(",s=").unwrap();
    let (salt, iterations) = rest.split_once(",i=").unwrap();
    let iterations: NonZeroU32 = iterations.parse().unwrap();
    let salted = salted_password(password, &STANDARD.decode(salt).unwrap(), iterations);
    let client_key = hmac_sha256(&*salted, &[b"Client Key"]);
    let message = format!("{bare},{server_first},{without_proof}");
    let signature = hmac_sha256(&*sha256(&*client_key), &[message.as_bytes()]);
    let proof: Vec<u8> = client_key
        .iter()
        .zip(signature.iter())
        .map(|(a, b)| a ^ b)
        .collect();
    format!("{without_proof},p={}", STANDARD.encode(proof))
}

/// A whole exchange by a client that does everything right for this header and password.
fn run(
    exchange: Exchange,
    mechanism: Mechanism,
    header: &str,
    bound_to: &[u8],
    password: &str,
) -> Result<Vec<u8>, ScramError> {
    let bare = "n=,r=client";
    let (next, server_first) = exchange.client_first(mechanism, format!("{header}{bare}").as_bytes())?;
    let binding = STANDARD.encode([header.as_bytes(), bound_to].concat());
    let without_proof = format!("c={binding},r=client{SERVER_NONCE}");
    next.client_final(client_final(password, bare, text(&server_first), &without_proof).as_bytes())
}

#[test]
fn rfc_7677_section_3() {
    let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let verifier = Arc::new(Verifier::from_password("pencil", &salt, 4096));
    let exchange = begin(verifier, ChannelBinding::Unavailable).with_nonce("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0");
    let (next, server_first) = exchange
        .client_first(Mechanism::ScramSha256, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        .unwrap();
    assert_eq!(
        text(&server_first),
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let server_final = next
        .client_final(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        .unwrap();
    assert_eq!(
        text(&server_final),
        "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    );
}

#[test]
fn the_nonce_is_the_base64_of_the_random_bytes() {
    let exchange = Exchange::begin(pencil(), ChannelBinding::Unavailable, &[7; NONCE_LEN]);
    let (_, server_first) = exchange
        .client_first(Mechanism::ScramSha256, b"n,,n=,r=abc")
        .unwrap();
    let expected = "r=abcBwcHBwcHBwcHBwcHBwcHBwcH,s=MDEyMzQ1Njc4OWFiY2RlZg==,i=2";
    assert_eq!(text(&server_first), expected);
}

#[test]
fn channel_binding() {
    use Mechanism::*;
    let none = || ChannelBinding::Unavailable;
    let bound = "p=tls-server-end-point,,";
    let malformed = |what| Err(ScramError::Malformed(what));
    let rows = [
        (none(), ScramSha256, "n,,", &b""[..], Ok(())),
        (none(), ScramSha256, "y,,", b"", Ok(())),
        (
            none(),
            ScramSha256,
            bound,
            HASH,
            malformed("channel binding data without SCRAM-SHA-256-PLUS"),
        ),
        (
            none(),
            ScramSha256Plus,
            bound,
            HASH,
            malformed("SCRAM-SHA-256-PLUS was not offered"),
        ),
        (
            none(),
            ScramSha256Plus,
            "n,,",
            b"",
            malformed("SCRAM-SHA-256-PLUS was not offered"),
        ),
        (end_point(), ScramSha256Plus, bound, HASH, Ok(())),
        (end_point(), ScramSha256, "n,,", b"", Ok(())),
        (end_point(), ScramSha256, "y,,", b"", Err(ScramError::Downgraded)),
        (
            end_point(),
            ScramSha256,
            bound,
            HASH,
            malformed("channel binding data without SCRAM-SHA-256-PLUS"),
        ),
        (
            end_point(),
            ScramSha256Plus,
            "n,,",
            b"",
            malformed("SCRAM-SHA-256-PLUS without channel binding data"),
        ),
        (
            end_point(),
            ScramSha256Plus,
            "y,,",
            b"",
            malformed("SCRAM-SHA-256-PLUS without channel binding data"),
        ),
        (
            end_point(),
            ScramSha256Plus,
            "p=tls-unique,,",
            HASH,
            malformed("unsupported channel binding type"),
        ),
        (
            end_point(),
            ScramSha256Plus,
            bound,
            b"another hash",
            Err(ScramError::OtherChannel),
        ),
        (
            end_point(),
            ScramSha256Plus,
            bound,
            b"",
            Err(ScramError::OtherChannel),
        ),
        // What a man in the middle would pass on: bound for him, not bound for us.
        (
            none(),
            ScramSha256,
            "n,,",
            HASH,
            malformed("unexpected channel binding data"),
        ),
    ];
    for (offered, mechanism, header, bound_to, expected) in rows {
        let context = format!("{offered:?} {mechanism:?} {header}");
        let result = run(begin(pencil(), offered), mechanism, header, bound_to, "pencil");
        assert_eq!(result.map(drop), expected, "{context}");
    }
}

#[test]
fn the_flag_can_not_be_changed_on_the_way() {
    // The client said `y`, somebody made it `n`: the header is repeated under the proof.
    let (next, server_first) = begin(pencil(), end_point())
        .client_first(Mechanism::ScramSha256, b"n,,n=,r=client")
        .unwrap();
    let without_proof = format!("c=eSws,r=client{SERVER_NONCE}");
    let message = client_final("pencil", "n=,r=client", text(&server_first), &without_proof);
    assert_eq!(
        next.client_final(message.as_bytes()),
        Err(ScramError::Malformed("unexpected channel binding data"))
    );
}

#[test]
fn wrong_passwords_and_unknown_users_end_alike() {
    let result = |verifier: Verifier, password| {
        let exchange = begin(Arc::new(verifier), ChannelBinding::Unavailable);
        run(exchange, Mechanism::ScramSha256, "n,,", b"", password)
    };
    let failed = Err(ScramError::WrongPassword);
    assert!(result(Verifier::from_password("pencil", b"salt", 1), "pencil").is_ok());
    assert_eq!(
        result(Verifier::from_password("pencil", b"salt", 1), "Pencil"),
        failed
    );
    assert_eq!(result(Verifier::from_password("pencil", b"salt", 1), ""), failed);
    assert_eq!(
        result(Verifier::mock("bob", &[1; 32], &[(1, 16)]), "pencil"),
        failed
    );
    // Even if its keys were those of a password.
    let verifier = Verifier::from_password("pencil", b"salt", 1).into_mock();
    assert_eq!(result(verifier, "pencil"), failed);
}

#[test]
fn the_user_name_in_the_message_is_not_looked_at() {
    for name in ["", "alice", "=2C=3D", "\u{fc}", "=zz"] {
        let bare = format!("n={name},r=client");
        let (next, server_first) = begin(pencil(), ChannelBinding::Unavailable)
            .client_first(Mechanism::ScramSha256, format!("n,,{bare}").as_bytes())
            .unwrap();
        let without_proof = format!("c=biws,r=client{SERVER_NONCE},x=extension");
        let message = client_final("pencil", &bare, text(&server_first), &without_proof);
        assert!(next.client_final(message.as_bytes()).is_ok(), "{name}");
    }
}

#[test]
fn malformed_first_messages() {
    let rows: [(&[u8], &str); 20] = [
        (b"", "comma expected"),
        (b"n", "comma expected"),
        (b"n,", "comma expected"),
        (b",,n=,r=x", "unexpected channel binding flag"),
        (b"N,,n=,r=x", "unexpected channel binding flag"),
        (b"nn,,n=,r=x", "unexpected channel binding flag"),
        (b"p,,n=,r=x", "unexpected channel binding flag"),
        (b"\0,,n=,r=x", "unexpected channel binding flag"),
        (b"n,a=root,n=,r=x", "authorization identities are not supported"),
        (b"n,a=,n=,r=x", "authorization identities are not supported"),
        (b"n,n=,r=x", "authorization identities are not supported"),
        (b"n,,m=x,n=,r=x", "a required extension is not supported"),
        (b"n,,", "user name expected"),
        (b"n,,r=x,n=", "user name expected"),
        (b"n,,n=\0,r=x", "user name expected"),
        (b"n,,n=", "nonce expected"),
        (b"n,,n=,r=", "the nonce is empty or not printable"),
        (b"n,,n=,r=\x7f", "the nonce is empty or not printable"),
        (b"n,,n=,r=x,", "attribute expected"),
        (b"n,,n=,r=x,1=y", "attribute expected"),
    ];
    for (data, what) in rows {
        let exchange = begin(pencil(), ChannelBinding::Unavailable);
        let error = exchange.client_first(Mechanism::ScramSha256, data).unwrap_err();
        assert_eq!(error, ScramError::Malformed(what), "{}", data.escape_ascii());
        assert!(error.is_malformed());
    }
}

/// An exchange that waits for the proof, and the message that would satisfy it.
fn at_the_proof() -> (AwaitFinal, String) {
    let bare = "n=,r=client";
    let (next, server_first) = begin(pencil(), ChannelBinding::Unavailable)
        .client_first(Mechanism::ScramSha256, format!("n,,{bare}").as_bytes())
        .unwrap();
    let without_proof = format!("c=biws,r=client{SERVER_NONCE}");
    let message = client_final("pencil", bare, text(&server_first), &without_proof);
    (next, message)
}

#[test]
fn malformed_final_messages() {
    let (_, good) = at_the_proof();
    let proof = good.split_once(",p=").unwrap().1;
    let nonce = format!("client{SERVER_NONCE}");
    let short = STANDARD.encode([0; 31]);
    let long = STANDARD.encode([0; 33]);
    let rows = [
        (String::new(), "comma expected"),
        (format!("p={proof}"), "comma expected"),
        (format!("c=biws,r={nonce}"), "the proof is not the last attribute"),
        (
            format!("c=biws,r={nonce},p={proof},"),
            "the proof is not the last attribute",
        ),
        (
            format!("c=biws,r={nonce},p={proof},x=y"),
            "the proof is not the last attribute",
        ),
        (
            format!("r={nonce},c=biws,p={proof}"),
            "channel binding data expected",
        ),
        (format!("c=biws,p={proof}"), "nonce expected"),
        (format!("c=biws,r={nonce},x,p={proof}"), "attribute expected"),
        (
            format!("c=,r={nonce},p={proof}"),
            "unexpected channel binding data",
        ),
        (
            format!("c=eSws,r={nonce},p={proof}"),
            "unexpected channel binding data",
        ),
        (
            format!("c=biws=,r={nonce},p={proof}"),
            "unexpected channel binding data",
        ),
        (format!("c=biws,r=,p={proof}"), "the nonce doesn't match"),
        (format!("c=biws,r=client,p={proof}"), "the nonce doesn't match"),
        (
            format!("c=biws,r={SERVER_NONCE},p={proof}"),
            "the nonce doesn't match",
        ),
        (format!("c=biws,r={nonce}x,p={proof}"), "the nonce doesn't match"),
        (format!("c=biws,r={nonce},p="), "malformed proof"),
        (format!("c=biws,r={nonce},p={proof}="), "malformed proof"),
        (
            format!("c=biws,r={nonce},p={}", proof.trim_end_matches('=')),
            "malformed proof",
        ),
        (format!("c=biws,r={nonce},p= {proof}"), "malformed proof"),
        (format!("c=biws,r={nonce},p={proof}\0"), "malformed proof"),
        (format!("c=biws,r={nonce},p={short}"), "malformed proof"),
        (format!("c=biws,r={nonce},p={long}"), "malformed proof"),
    ];
    for (message, what) in rows {
        let (next, _) = at_the_proof();
        let result = next.client_final(message.as_bytes());
        assert_eq!(result, Err(ScramError::Malformed(what)), "{message}");
    }
}

#[test]
fn one_changed_bit_anywhere_in_the_final_message_is_fatal() {
    let (next, good) = at_the_proof();
    assert!(next.client_final(good.as_bytes()).is_ok());
    for place in 0..good.len() {
        for bit in 0..8 {
            let (next, good) = at_the_proof();
            let mut bytes = good.into_bytes();
            bytes[place] ^= 1 << bit;
            assert!(next.client_final(&bytes).is_err(), "bit {bit} of byte {place}");
        }
    }
}

#[test]
fn a_changed_first_message_spoils_the_proof() {
    let (next, server_first) = begin(pencil(), ChannelBinding::Unavailable)
        .client_first(Mechanism::ScramSha256, b"n,,n=mallory,r=client")
        .unwrap();
    let without_proof = format!("c=biws,r=client{SERVER_NONCE}");
    let message = client_final("pencil", "n=,r=client", text(&server_first), &without_proof);
    assert_eq!(
        next.client_final(message.as_bytes()),
        Err(ScramError::WrongPassword)
    );
}

#[test]
fn mechanisms_by_name() {
    for mechanism in end_point().mechanisms() {
        assert_eq!(Mechanism::from_name(mechanism.name()), Some(*mechanism));
    }
    assert_eq!(ChannelBinding::Unavailable.mechanisms(), [Mechanism::ScramSha256]);
    for name in [
        "",
        "scram-sha-256",
        "SCRAM-SHA-1",
        "SCRAM-SHA-256-PLUS\0",
        "SCRAM-SHA-256 ",
    ] {
        assert_eq!(Mechanism::from_name(name), None);
    }
}

#[test]
fn debug_shows_no_secret() {
    let exchange = begin(pencil(), end_point());
    assert_eq!(format!("{exchange:?}"), "Exchange { .. }");
    assert_eq!(format!("{:?}", at_the_proof().0), "AwaitFinal { .. }");
}

/// Text that gets past the first checks now and then.
fn nearly(prefixes: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let tail = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        "[nrcpm=, a-z0-9+/]{0,80}".prop_map(String::into_bytes),
    ];
    let prefix = proptest::sample::select(prefixes);
    (prefix, tail).prop_map(|(prefix, tail)| [prefix.as_bytes(), &tail].concat())
}

proptest! {
    #[test]
    fn any_first_message_is_answered_or_refused(
        data in nearly(&["", "n,,", "y,,", "p=tls-server-end-point,,", "n,,n=,r="]),
        plus in any::<bool>(),
        offered in any::<bool>(),
    ) {
        let mechanism = if plus { Mechanism::ScramSha256Plus } else { Mechanism::ScramSha256 };
        let binding = if offered { end_point() } else { ChannelBinding::Unavailable };
        let result = begin(pencil(), binding).client_first(mechanism, &data);
        if let Ok((_, server_first)) = result {
            prop_assert!(server_first.ends_with(b",s=MDEyMzQ1Njc4OWFiY2RlZg==,i=2"));
            prop_assert!(server_first.iter().all(u8::is_ascii_graphic));
        }
    }

    #[test]
    fn any_final_message_is_refused(
        data in nearly(&["", "c=biws,", "c=biws,r=client", "c=biws,r=clientBwcHBwcHBwcHBwcHBwcHBwcH,p="]),
    ) {
        let (next, good) = at_the_proof();
        prop_assume!(data != good.as_bytes());
        prop_assert!(next.client_final(&data).is_err());
    }
}
