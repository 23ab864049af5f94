use proptest::prelude::*;

use super::*;

fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn frames(tags: &str) -> Vec<u8> {
    tags.bytes()
        .flat_map(|tag| match tag {
            b'I' => frame(b'Z', b"I"),
            b'+' => frame(b'Z', b"T"),
            b'!' => frame(b'Z', b"E"),
            tag => frame(tag, b"body"),
        })
        .collect()
}

/// `>` before what the client sends, `<` before what the server sends (`I`, `+`, `!` are ReadyForQuery
/// outside, in, and in a failed transaction).
fn play(script: &str) -> Tracker {
    let mut tracker = Tracker::default();
    let mut parameters = Rc::<Parameters>::default();
    for part in script.split_whitespace() {
        let (side, tags) = part.split_at(1);
        match side {
            ">" => drop(tracker.from_client(&frames(tags))),
            _ => tracker.from_server(&frames(tags), &mut parameters).unwrap(),
        }
    }
    tracker
}

#[test]
fn what_will_not_come_is_not_waited_for() {
    for (script, busy, lost) in [
        (">Q", true, false),
        (">PBES", true, false),
        (">Q <E", true, false),
        // The server skips everything up to a Sync, a Query as well.
        (">PQ", true, false),
        (">PQ <E", false, true),
        (">PH <E >Q", false, false),
        (">PH <E >QS", true, false),
        (">PH <E >QS <I", false, false),
        (">PH <E >S <I >Q", true, false),
        (">PQ <1CI", false, false),
        (">PQ <1CI >S <I >Q <E", true, false),
        // An end of nothing is ignored, and has no answer.
        (">Pc", false, false),
        (">PcS", true, false),
        (">PcS <1I", false, false),
        // It waits for data that nobody sends any more.
        (">Q <G", false, true),
        (">Q <G >c", true, false),
        // If it fails after all, nobody knows which Syncs are answered; not if it is a later one that fails.
        (">Q <G >dSc <E", false, true),
        (">Q <G >dSc <CE", true, false),
    ] {
        let tracker = play(script);
        assert_eq!((tracker.is_busy(), tracker.is_lost()), (busy, lost), "{script}");
    }
}

#[test]
fn clean_is_a_fact() {
    for (script, idle, settled) in [
        ("", true, true),
        (">Q", false, false),
        (">Q <TDCI", true, true),
        (">Q <C+", false, true),
        (">Q <E!", false, true),
        (">QQ <CI", false, false),
        (">QQ <CI <CI", true, true),
        (">PBDE", false, false),
        (">PBDES <12TDCI", true, true),
        (">PBESPBES <12CI", false, false),
        (">PBESPBES <12CI12CI", true, true),
        (">PBH", false, false),
        // COPY FROM STDIN, simple protocol
        (">Q <G", false, false),
        (">Q <G >dddc", false, false),
        (">Q <G >dddc <CI", true, true),
        (">Q <G >df <EI", true, true),
        (">Q <G >d <EI >dc", true, true),
        // COPY FROM STDIN, extended protocol: the Sync before the data is void
        (">PBES <12G >dc", false, false),
        (">PBES <12G >dcS <CI", true, true),
        (">PBE <12 >H <G >dcS <CI", true, true),
        (">PBEdcS <12GCI", true, true),
        // COPY TO STDOUT
        (">Q <HddcC", false, false),
        (">Q <HddcCI", true, true),
        // nobody can say which Sync counts
        (">PBES <12G >S <E >S <I", false, false),
        (">PBES <12G >SSc >PBES <E >S <I", false, false),
        (">Q <G >dSSc <E >PBESPBES <I", false, false),
        (">Q <G >dScQ <CI <CI", true, true),
        // answers that nobody asked for
        ("<I", false, false),
    ] {
        let tracker = play(script);
        assert_eq!(
            (tracker.is_idle(), tracker.is_settled()),
            (idle, settled),
            "{script}: {tracker:?}"
        );
    }
}

#[test]
fn what_a_server_would_die_of_is_stopped_here() {
    for tag in *b"pz\0Z" {
        let mut tracker = Tracker::default();
        let bytes = [frames("Q"), frame(tag, b"x")].concat();
        let forward = frames("Q").len();
        assert_eq!(
            tracker.from_client(&bytes),
            ClientChunk {
                forward,
                ended: Some(Ended::BadType(tag))
            }
        );
        tracker.from_server(&frames("CI"), &mut Rc::default()).unwrap();
        assert!(tracker.is_idle(), "the server connection is good");
    }
}

#[test]
fn requests_that_nothing_answers_are_bounded() {
    let mut tracker = Tracker::default();
    let ended = (0..20_000)
        .map(|_| tracker.from_client(&frames("PQc")).ended)
        .find(Option::is_some);
    assert_eq!(ended, Some(Some(Ended::TooMuch)));
    assert!(tracker.is_lost());
}

#[test]
fn what_no_server_says_here_loses_the_account() {
    for said in [frame(b'Z', b"X"), frame(b'Z', b""), frame(b'W', b"\0\0\0")] {
        let mut tracker = Tracker::default();
        tracker.from_client(&frames("Q"));
        tracker.from_server(&said, &mut Rc::default()).unwrap();
        assert!(tracker.is_lost(), "{said:?}");
    }
}

#[test]
fn terminate_never_reaches_the_server() {
    let mut tracker = Tracker::default();
    let mut bytes = frames("Q");
    let forward = bytes.len();
    bytes.extend(frames("X"));
    assert_eq!(
        tracker.from_client(&bytes),
        ClientChunk {
            forward,
            ended: Some(Ended::Goodbye)
        }
    );

    let mut tracker = Tracker::default();
    for byte in &frames("Q")[..7] {
        tracker.from_client(&[*byte]);
    }
    assert!(tracker.is_lost(), "in the middle of a message");
}

proptest! {
    #[test]
    fn cut_anywhere_the_server_gets_the_same(
        tags in "[QPBDESHdcf]{0,12}X?",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes = frames(&tags);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut tracker = Tracker::default();
        let mut forwarded = Vec::new();
        let mut terminated = false;
        for pair in cuts.windows(2) {
            let chunk = &bytes[pair[0]..pair[1]];
            let held_back = tracker.held_back().to_vec();
            let seen = tracker.from_client(chunk);
            if seen.forward > 0 {
                forwarded.extend(held_back);
                forwarded.extend(&chunk[..seen.forward]);
            }
            terminated |= seen.ended == Some(Ended::Goodbye);
            if terminated { break; }
        }
        prop_assert_eq!(forwarded, frames(tags.trim_end_matches('X')));
        prop_assert_eq!(terminated, tags.ends_with('X'));
        let whole = {
            let mut whole = Tracker::default();
            whole.from_client(&bytes);
            whole
        };
        prop_assert_eq!(format!("{:?}", whole.ledger), format!("{:?}", tracker.ledger));
    }
}
