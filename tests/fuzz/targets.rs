//! What is fuzzed: one function for each parser that meets bytes from outside. Run by `cargo fuzz`, and on the kept
//! corpus by an ordinary test.

use std::sync::Arc;

use postern::config::Config;
use postern::identity::Verifier;
use postern::identity::scram::{ChannelBinding, Exchange, Mechanism, NONCE_LEN};
use postern::session::parameters::Parameters;
use postern::session::tracker::Tracker;
use postern::wire::frame::{Frames, whole};
use postern::wire::{options, reply, startup};

/// Takes any bytes and must not panic.
type Target = fn(&[u8]);

/// Every target with its name.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("startup", startup),
    ("frames", frames),
    ("tracker", tracker),
    ("options", switches),
    ("scram", scram),
    ("verifier", verifier),
    ("config", config),
    ("report", report),
];

/// The first packet of a connection, as it is and with its length made right.
pub(crate) fn startup(data: &[u8]) {
    let _ = startup::packet_len(data);
    let _ = startup::parse(data);
    if let (Some(rest), Ok(len)) = (data.get(4..), u32::try_from(data.len())) {
        let _ = startup::parse(&[&len.to_be_bytes(), rest].concat());
    }
}

/// A stream of frames gives the same frames wherever it is cut.
pub(crate) fn frames(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else {
        return;
    };
    let cut = usize::from(*cut).min(stream.len());
    let whole = scan(&[stream]);
    let (head, tail) = stream.split_at(cut);
    assert_eq!(whole, scan(&[head, tail]), "cut at {cut}");
}

fn scan(chunks: &[&[u8]]) -> (Vec<(u8, Vec<u8>)>, bool) {
    let (mut frames, mut seen) = (Frames::default(), Vec::new());
    for chunk in chunks {
        let mut input = *chunk;
        loop {
            match frames.next(&mut input, whole(b"ZS")) {
                Ok(Some(frame)) => seen.push((frame.tag, frame.body.to_vec())),
                Ok(None) => break,
                Err(_) => return (seen, false),
            }
        }
    }
    (seen, true)
}

/// Both directions interleaved: what a client sends reaches the server unchanged up to a Terminate, and nothing that
/// is under way is called idle. As long as there is no COPY, that can be counted.
pub(crate) fn tracker(data: &[u8]) {
    let (mut tracker, mut parameters) = (Tracker::default(), std::rc::Rc::<Parameters>::default());
    let (mut sent, mut forwarded, mut received) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = data;
    while let Some((head, tail)) = rest.split_first() {
        let (chunk, tail) = tail.split_at(usize::from(head & 0x7f).min(tail.len()));
        rest = tail;
        if head & 0x80 != 0 {
            received.extend_from_slice(chunk);
            if tracker.from_server(chunk, &mut parameters).is_err() {
                return;
            }
            assert_settled_by_count(&tracker, &forwarded, &received);
            continue;
        }
        let held_back = tracker.held_back().to_vec();
        let seen = tracker.from_client(chunk);
        sent.extend_from_slice(chunk);
        if seen.forward > 0 {
            forwarded.extend(held_back);
            forwarded.extend_from_slice(&chunk[..seen.forward]);
        }
        assert!(
            sent.starts_with(&forwarded),
            "the server gets what the client has sent"
        );
        if seen.ended.is_some() {
            return;
        }
        assert_eq!(
            forwarded.len() + tracker.held_back().len(),
            sent.len(),
            "nothing is lost"
        );
        assert!(!(tracker.is_idle() && (tracker.is_busy() || tracker.is_unsynced() || tracker.is_lost())));
        assert_settled_by_count(&tracker, &forwarded, &received);
    }
}

fn assert_settled_by_count(tracker: &Tracker, forwarded: &[u8], received: &[u8]) {
    let (answers, _) = scan(&[received]);
    if tracker.is_settled() && answers.iter().all(|(tag, _)| *tag != b'G') {
        let (requests, _) = scan(&[forwarded]);
        let asked = requests
            .iter()
            .filter(|(tag, _)| matches!(tag, b'Q' | b'F' | b'S'));
        let answered = answers.iter().filter(|(tag, _)| *tag == b'Z');
        assert_eq!(
            asked.count(),
            answered.count(),
            "settled with a ReadyForQuery owed"
        );
    }
}

/// The startup parameter `options`.
pub(crate) fn switches(data: &[u8]) {
    let _ = options::settings(&String::from_utf8_lossy(data));
}

/// Two SCRAM messages, parted by the first NUL.
pub(crate) fn scram(data: &[u8]) {
    let (first, last) = match data.iter().position(|byte| *byte == 0) {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &b""[..]),
    };
    let verifier = Arc::new(Verifier::mock("nobody", &[7; 32], &[]));
    for (mechanism, binding) in [
        (Mechanism::ScramSha256, ChannelBinding::Unavailable),
        (
            Mechanism::ScramSha256Plus,
            ChannelBinding::ServerEndPoint(vec![1; 32]),
        ),
    ] {
        let exchange = Exchange::begin(verifier.clone(), binding, &[b'n'; NONCE_LEN]);
        if let Ok((exchange, _)) = exchange.client_first(mechanism, first) {
            assert!(exchange.client_final(last).is_err(), "nobody has this password");
        }
    }
}

/// A verifier's text; what is read is written in the same way.
pub(crate) fn verifier(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(verifier) = text.parse::<Verifier>() {
        assert_eq!(
            verifier
                .to_string()
                .parse::<Verifier>()
                .map(|again| again.to_string())
                .ok(),
            Some(verifier.to_string())
        );
    }
}

/// A configuration file.
pub(crate) fn config(data: &[u8]) {
    let _ = Config::parse(&String::from_utf8_lossy(data), std::iter::empty());
}

/// An ErrorResponse from a server.
pub(crate) fn report(data: &[u8]) {
    let (state, message) = reply::state_and_message(data);
    assert!(!state.contains(char::is_control) && !message.contains(char::is_control));
}
