use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limits(size: usize, min_idle: usize) -> Limits {
    Limits {
        size,
        min_idle,
        idle_timeout: 60 * SECOND,
        replace_ahead: 10 * SECOND,
    }
}

fn member(id: u32, expires_at: Instant) -> Member<u32> {
    Member {
        connection: id,
        opened_at: Instant::now(),
        expires_at,
    }
}

#[test]
fn what_is_retired_is_lent_no_more() {
    let now = Instant::now();
    let mut pool: Pool<u32, &str> = Pool::new(limits(3, 1));
    let open = |id: u32, opened_at: Instant| Member {
        connection: id,
        opened_at,
        expires_at: now + 600 * SECOND,
    };
    pool.wait("first");
    pool.wait("second");
    assert_eq!(pool.start_opening(now, usize::MAX), 3);
    let Placement::HandOff(_, first) = pool.opened(open(1, now), now) else {
        panic!()
    };
    let Placement::HandOff(_, second) = pool.opened(open(2, now), now) else {
        panic!()
    };
    assert!(matches!(pool.opened(open(3, now), now), Placement::Parked));
    pool.retire(now + SECOND);
    assert!(pool.checkout(now + SECOND).is_none());
    assert_eq!(pool.expire(now + SECOND), [3]);
    assert!(matches!(
        pool.returned(first, now + SECOND),
        Placement::Expired(1)
    ));
    pool.wait("third");
    // What was being opened meanwhile is new.
    assert_eq!(pool.start_opening(now + SECOND, usize::MAX), 2);
    assert!(matches!(
        pool.opened(open(4, now + 2 * SECOND), now + 2 * SECOND),
        Placement::HandOff("third", _)
    ));
    assert!(matches!(
        pool.opened(open(5, now + 2 * SECOND), now + 2 * SECOND),
        Placement::Parked
    ));
    assert!(pool.checkout(now + 2 * SECOND).is_some());
    assert!(matches!(
        pool.returned(second, now + 2 * SECOND),
        Placement::Expired(2)
    ));
}

#[test]
fn what_is_beyond_new_limits_ends() {
    let now = Instant::now();
    let end = now + 600 * SECOND;
    let mut pool: Pool<u32, &str> = Pool::new(limits(4, 4));
    assert_eq!(pool.start_opening(now, usize::MAX), 4);
    for id in 1..=4 {
        assert!(matches!(pool.opened(member(id, end), now), Placement::Parked));
    }
    let lent = pool.checkout(now).unwrap();
    let other = pool.checkout(now).unwrap();
    pool.set_limits(limits(1, 1));
    assert_eq!(pool.expire(now).len(), 2, "no idle one is left: two are lent");
    pool.wait("waits");
    assert_eq!(pool.start_opening(now, usize::MAX), 0);
    assert!(matches!(pool.returned(lent, now), Placement::Expired(_)));
    assert!(matches!(
        pool.returned(other, now),
        Placement::HandOff("waits", _)
    ));
    pool.set_limits(limits(2, 1));
    pool.wait("too");
    assert_eq!(pool.start_opening(now, usize::MAX), 1);
}

#[test]
fn a_paused_pool_lends_and_opens_nothing() {
    let now = Instant::now();
    let mut pool: Pool<u32, &str> = Pool::new(limits(3, 1));
    assert_eq!(pool.start_opening(now, usize::MAX), 1);
    pool.pause(now);
    assert!(matches!(
        pool.opened(member(1, now + 600 * SECOND), now + SECOND),
        Placement::Expired(1)
    ));
    pool.wait("waits");
    assert_eq!(pool.start_opening(now + SECOND, usize::MAX), 0);
    pool.resume();
    assert_eq!(pool.start_opening(now + SECOND, usize::MAX), 2);
    let new = Member {
        connection: 2,
        opened_at: now + SECOND,
        expires_at: now + 600 * SECOND,
    };
    assert!(matches!(
        pool.opened(new, now + SECOND),
        Placement::HandOff("waits", _)
    ));
}

#[test]
fn a_returned_connection_goes_to_the_longest_waiter() {
    let now = Instant::now();
    let mut pool: Pool<u32, &str> = Pool::new(limits(1, 0));
    let first = pool.wait("first");
    pool.wait("second");
    assert_eq!(pool.start_opening(now, usize::MAX), 1, "room for one");
    let Placement::HandOff("first", lent) = pool.opened(member(1, now + 600 * SECOND), now) else {
        panic!("not handed to the first")
    };
    assert_eq!(pool.abandon(first), None, "already served");
    assert!(pool.checkout(now).is_none(), "nobody overtakes a waiter");
    let Placement::HandOff("second", lent) = pool.returned(lent, now) else {
        panic!("not handed on")
    };
    assert!(matches!(pool.returned(lent, now), Placement::Parked));
    assert_eq!(
        pool.census(),
        Census {
            idle: 1,
            ..Census::default()
        }
    );
}

#[test]
fn idle_connections_end_but_for_the_minimum() {
    let now = Instant::now();
    let mut pool: Pool<u32, ()> = Pool::new(limits(5, 1));
    for id in 0..3 {
        pool.opening += 1;
        let Placement::Parked = pool.opened(member(id, now + 600 * SECOND), now) else {
            panic!()
        };
    }
    assert_eq!(pool.expire(now + 59 * SECOND), Vec::<u32>::new());
    assert_eq!(pool.expire(now + 60 * SECOND), [0, 1]);
    assert_eq!(
        pool.expire(now + 600 * SECOND),
        [2],
        "a lifetime ends whatever the minimum"
    );
}

#[test]
fn a_replacement_is_opened_before_the_end() {
    let now = Instant::now();
    let mut pool: Pool<u32, ()> = Pool::new(limits(5, 1));
    assert_eq!(pool.start_opening(now, usize::MAX), 1);
    let Placement::Parked = pool.opened(member(1, now + 100 * SECOND), now) else {
        panic!()
    };
    assert_eq!(pool.start_opening(now + 89 * SECOND, usize::MAX), 0);
    assert_eq!(pool.start_opening(now + 91 * SECOND, usize::MAX), 1);
    assert_eq!(
        pool.start_opening(now + 91 * SECOND, usize::MAX),
        0,
        "one is on its way"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Arrive,
    Leave(prop::sample::Index),
    Abandon(prop::sample::Index),
    Open(bool),
    Discard,
    Tick(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Arrive),
        4 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => any::<prop::sample::Index>().prop_map(Step::Abandon),
        4 => any::<bool>().prop_map(Step::Open),
        1 => Just(Step::Discard),
        1 => any::<u8>().prop_map(Step::Tick),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Over any schedule: never more than `size`, nobody overtaken, nobody forgotten.
    #[test]
    fn the_limits_hold_over_any_schedule(steps in steps(), size in 1usize..4, min_idle in 0usize..3) {
        let mut now = Instant::now();
        let mut pool: Pool<u32, u32> = Pool::new(limits(size, min_idle));
        let mut leases: Vec<Member<u32>> = Vec::new();
        let mut queue: Vec<(WaitId, u32)> = Vec::new();
        let (mut opening, mut arrivals, mut connections) = (0, 0, 0);
        for step in steps {
            let placed = match step {
                Step::Arrive => {
                    arrivals += 1;
                    match pool.checkout(now) {
                        Some(lent) => leases.push(lent),
                        None => queue.push((pool.wait(arrivals), arrivals)),
                    }
                    None
                }
                Step::Leave(_) | Step::Discard if leases.is_empty() => None,
                Step::Leave(which) => {
                    let lent = leases.swap_remove(which.index(leases.len()));
                    Some(pool.returned(lent, now))
                }
                Step::Discard => {
                    leases.pop();
                    pool.discarded();
                    None
                }
                Step::Abandon(_) if queue.is_empty() => None,
                Step::Abandon(which) => {
                    let (id, who) = queue.remove(which.index(queue.len()));
                    prop_assert_eq!(pool.abandon(id), Some(who));
                    None
                }
                Step::Open(_) if opening == 0 => None,
                Step::Open(true) => {
                    opening -= 1;
                    connections += 1;
                    Some(pool.opened(member(connections, now + 100 * SECOND), now))
                }
                Step::Open(false) => {
                    opening -= 1;
                    pool.open_failed();
                    None
                }
                Step::Tick(seconds) => {
                    now += Duration::from_secs(seconds.into());
                    pool.expire(now);
                    None
                }
            };
            if let Some(Placement::HandOff(who, lent)) = placed {
                prop_assert_eq!(queue.remove(0).1, who);
                leases.push(lent);
            }
            opening += pool.start_opening(now, usize::MAX);
            let census = pool.census();
            prop_assert!(census.idle + census.leased + census.opening <= size);
            prop_assert_eq!((census.leased, census.opening, census.waiting), (leases.len(), opening, queue.len()));
            prop_assert!(queue.is_empty() || census.leased + census.opening == size || census.opening >= queue.len());
        }
    }
}
