//! The promise, by proptest over random schedules and an independent checker; the rest by hand.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const FAR: Duration = Duration::from_secs(100_000);

fn budget(logins_per_second: u32, burst: u32, in_flight: u32, slow_start_ms: u64) -> Budget {
    let slow_start = Duration::from_millis(slow_start_ms);
    Budget::new(logins_per_second, burst, in_flight, slow_start).unwrap()
}

fn poll(governor: &mut Governor, now: Instant) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    governor.poll(now, &mut verdicts);
    verdicts
}

fn granted(ticket: Ticket) -> Verdict {
    Verdict {
        ticket,
        outcome: Outcome::Granted,
    }
}

fn expired(ticket: Ticket) -> Verdict {
    Verdict {
        ticket,
        outcome: Outcome::Expired,
    }
}

/// Grants everything that was asked for, sleeping exactly as told; returns when each was granted.
fn run_dry(governor: &mut Governor, mut now: Instant) -> Vec<(Ticket, Instant)> {
    let mut grants = Vec::new();
    for _ in 0..100_000 {
        for verdict in poll(governor, now) {
            assert_eq!(verdict.outcome, Outcome::Granted);
            grants.push((verdict.ticket, now));
        }
        match governor.next_wakeup() {
            None => return grants,
            Some(wakeup) => {
                assert!(wakeup > now, "told to poll again without having to wait");
                now = wakeup;
            }
        }
    }
    panic!("requests are left over: {governor:?}");
}

/// No closed window of a second holds more than `limit` grants; every window that matters begins
/// with a grant.
fn check_promise(grants: &[Instant], limit: u32) -> Result<(), TestCaseError> {
    for first in grants {
        let within = grants.iter().filter(|&t| t >= first && *t <= *first + SECOND);
        let count = within.count();
        prop_assert!(count <= limit as usize, "{count} in a second of {limit}");
    }
    Ok(())
}

/// No stretch between two grants holds more than the bucket's capacity and what flowed in meanwhile.
fn check_bucket(grants: &[Instant], budget: &Budget) -> Result<(), TestCaseError> {
    for (i, first) in grants.iter().enumerate() {
        for (count, last) in grants[i..].iter().enumerate() {
            let flowed = (*last - *first).as_secs_f64() * f64::from(budget.logins_per_second());
            let most = f64::from(budget.burst()) + flowed + 1e-6;
            prop_assert!((count + 1) as f64 <= most, "{} in {flowed}", count + 1);
        }
    }
    Ok(())
}

/// Within the slow start, no second that ends with a grant holds more than the ramp allows there.
fn check_ramp(grants: &[Instant], budget: &Budget, born: Instant) -> Result<(), TestCaseError> {
    let full = f64::from(budget.logins_per_second());
    let first = (full / 4.0).floor().max(1.0);
    for last in grants {
        prop_assert!(*last > born + SECOND, "spent in the predecessor's last second");
        let part = (*last - born).as_secs_f64() / budget.slow_start().as_secs_f64().max(1e-9);
        let most = first + (full - first) * part.min(1.0);
        let within = grants.iter().filter(|&t| t <= last && *t + SECOND >= *last);
        prop_assert!(within.count() as f64 <= most + 1e-6);
    }
    Ok(())
}

#[derive(Clone, Debug)]
enum Step {
    AskSlot { patience_ms: u64 },
    AskSpend { patience_ms: u64 },
    Abandon { which: usize },
    Release { which: usize, outcome: LoginOutcome },
    Wait { micros: u64 },
    UntilWakeup,
    LateClock { micros: u64 },
    Poll,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let patience = prop_oneof![1 => Just(0_u64), 3 => 1_u64..3000, 3 => Just(1_000_000)];
    let outcome = prop_oneof![
        Just(LoginOutcome::Succeeded),
        Just(LoginOutcome::Refused),
        Just(LoginOutcome::Failed),
        Just(LoginOutcome::NotAttempted),
    ];
    let step = prop_oneof![
        3 => patience.clone().prop_map(|patience_ms| Step::AskSlot { patience_ms }),
        12 => patience.prop_map(|patience_ms| Step::AskSpend { patience_ms }),
        1 => any::<usize>().prop_map(|which| Step::Abandon { which }),
        2 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Release { which, outcome }),
        2 => (0_u64..2_000).prop_map(|micros| Step::Wait { micros }),
        4 => (0_u64..1_200_000).prop_map(|micros| Step::Wait { micros }),
        8 => Just(Step::UntilWakeup),
        1 => (0_u64..2_000_000).prop_map(|micros| Step::LateClock { micros }),
        6 => Just(Step::Poll),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..300)
}

/// What a process asked of its governor and has not heard of yet, in order, with deadlines.
#[derive(Default)]
struct Asked {
    slots: Vec<(Ticket, Instant)>,
    spends: Vec<(Ticket, Instant)>,
    held: Vec<Ticket>,
}

struct World {
    budget: Budget,
    governor: Governor,
    born: Instant,
    now: Instant,
    asked: Asked,
    /// Over all processes.
    spent: Vec<Instant>,
    /// By this process.
    spent_here: Vec<Instant>,
}

impl World {
    fn new(budget: Budget) -> Self {
        let now = Instant::now();
        Self {
            budget,
            governor: Governor::new(budget, now),
            born: now,
            now,
            asked: Asked::default(),
            spent: Vec::new(),
            spent_here: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::AskSlot { patience_ms } => {
                let deadline = self.now + Duration::from_millis(patience_ms);
                let ticket = self.governor.request_slot(self.now, deadline);
                self.asked.slots.push((ticket, deadline));
            }
            Step::AskSpend { patience_ms } => {
                let deadline = self.now + Duration::from_millis(patience_ms);
                let ticket = self.governor.request_spend(self.now, deadline);
                self.asked.spends.push((ticket, deadline));
            }
            Step::Abandon { which } => self.abandon(which),
            Step::Release { which, outcome } => {
                if !self.asked.held.is_empty() {
                    let ticket = self.asked.held.remove(which % self.asked.held.len());
                    self.governor.release_slot(ticket, outcome, self.now);
                    self.governor.release_slot(ticket, outcome, self.now);
                }
            }
            Step::Wait { micros } => self.now += Duration::from_micros(micros),
            Step::UntilWakeup => {
                if let Some(wakeup) = self.governor.next_wakeup() {
                    self.now = self.now.max(wakeup);
                }
                self.poll(self.now)?;
            }
            // A thread whose clock reading was overtaken by another's.
            Step::LateClock { micros } => {
                self.poll(self.now)?;
                self.step(Step::AskSpend { patience_ms: 5000 })?;
                let late = self.now.checked_sub(Duration::from_micros(micros));
                self.poll(late.unwrap_or(self.now))?;
            }
            Step::Poll => self.poll(self.now)?,
            Step::Restart => self.restart()?,
        }
        prop_assert_eq!(self.governor.in_flight(), self.asked.held.len());
        prop_assert!(self.asked.held.len() <= self.budget.logins_in_flight() as usize);
        let queued = self.asked.slots.len() + self.asked.spends.len();
        prop_assert_eq!(self.governor.queued(), queued);
        Ok(())
    }

    fn abandon(&mut self, which: usize) {
        let Asked { slots, spends, held } = &mut self.asked;
        let all = slots.iter().chain(spends.iter()).map(|(ticket, _)| *ticket);
        let all: Vec<Ticket> = all.chain(held.iter().copied()).collect();
        if all.is_empty() {
            return;
        }
        let ticket = all[which % all.len()];
        self.governor.abandon(ticket);
        slots.retain(|(other, _)| *other != ticket);
        spends.retain(|(other, _)| *other != ticket);
        held.retain(|other| *other != ticket);
    }

    fn restart(&mut self) -> Result<(), TestCaseError> {
        check_bucket(&self.spent_here, &self.budget)?;
        check_ramp(&self.spent_here, &self.budget, self.born)?;
        prop_assert_eq!(self.governor.spent_total(), self.spent_here.len() as u64);
        self.governor = Governor::new(self.budget, self.now);
        self.born = self.now;
        self.asked = Asked::default();
        self.spent_here.clear();
        Ok(())
    }

    fn poll(&mut self, told: Instant) -> Result<(), TestCaseError> {
        let offered = self.governor.available(told);
        let free = self.budget.logins_in_flight() as usize - self.asked.held.len();
        let (mut spends, mut slots) = (0, 0);
        for Verdict { ticket, outcome } in poll(&mut self.governor, told) {
            let of_slots = self.asked.slots.iter().any(|(other, _)| *other == ticket);
            let line = if of_slots {
                &mut self.asked.slots
            } else {
                &mut self.asked.spends
            };
            let place = line.iter().position(|(other, _)| *other == ticket);
            prop_assert!(place.is_some(), "a verdict on what nobody asked");
            let (_, deadline) = line.remove(place.unwrap());
            if outcome == Outcome::Expired {
                prop_assert!(deadline <= self.now);
                continue;
            }
            prop_assert_eq!(place, Some(0), "somebody jumped the queue");
            prop_assert!(deadline > self.now);
            if of_slots {
                slots += 1;
                self.asked.held.push(ticket);
            } else {
                spends += 1;
                self.spent.push(self.now);
                self.spent_here.push(self.now);
            }
        }
        // As many as could be were granted, and nobody is left who should have been told.
        prop_assert!(slots == free || self.asked.slots.is_empty());
        prop_assert!(spends == offered || (spends < offered && self.asked.spends.is_empty()));
        let mut left = self.asked.slots.iter().chain(&self.asked.spends);
        prop_assert!(left.all(|(_, deadline)| *deadline > self.now));
        Ok(())
    }

    /// From here on nobody asks any more: whoever waits gets a verdict, by the wake-ups alone.
    fn finish(&mut self) -> Result<(), TestCaseError> {
        for _ in 0..10_000 {
            self.poll(self.now)?;
            for ticket in std::mem::take(&mut self.asked.held) {
                self.governor.release_slot(ticket, LoginOutcome::Failed, self.now);
            }
            let Some(wakeup) = self.governor.next_wakeup() else {
                prop_assert_eq!(self.governor.queued(), 0);
                self.restart()?;
                return check_promise(&self.spent, self.budget.logins_per_second());
            };
            self.now = self.now.max(wakeup);
        }
        Err(TestCaseError::fail("somebody waits for ever"))
    }
}

proptest! {
    #[test]
    fn no_schedule_exceeds_the_budget(
        (rate, burst) in (1_u32..12).prop_flat_map(|rate| (Just(rate), 1..=rate)),
        in_flight in 1_u32..4,
        slow_start_ms in prop_oneof![Just(0_u64), 1_u64..6000],
        steps in steps(),
    ) {
        let mut world = World::new(budget(rate, burst, in_flight, slow_start_ms));
        for step in steps {
            world.step(step)?;
        }
        world.finish()?;
    }

    #[test]
    fn a_crowd_is_served_in_order_and_within_the_budget(
        rate in 1_u32..300,
        slow_start_ms in prop_oneof![Just(0_u64), 1_u64..20_000],
        crowd in 1_usize..200,
    ) {
        let budget = budget(rate, rate, 1, slow_start_ms);
        let born = Instant::now();
        let mut governor = Governor::new(budget, born);
        let asked: Vec<_> = (0..crowd).map(|_| governor.request_spend(born, born + FAR)).collect();
        let grants = run_dry(&mut governor, born);
        let served: Vec<_> = grants.iter().map(|(ticket, _)| *ticket).collect();
        prop_assert_eq!(served, asked);
        let times: Vec<_> = grants.iter().map(|(_, time)| *time).collect();
        check_promise(&times, rate)?;
        check_bucket(&times, &budget)?;
        check_ramp(&times, &budget, born)?;
    }
}

/// The checker is worth something only if it sees a breach.
#[test]
fn the_checkers_see_a_breach() {
    let start = Instant::now() + SECOND * 10;
    let at = |ms: u64| start + Duration::from_millis(ms);
    assert!(check_promise(&[at(0), at(500), at(1001)], 2).is_ok());
    assert!(check_promise(&[at(0), at(500), at(1000)], 2).is_err());
    let two = budget(2, 1, 1, 10_000);
    assert!(check_bucket(&[at(0), at(500)], &two).is_ok());
    assert!(check_bucket(&[at(0), at(499)], &two).is_err());
    assert!(check_ramp(&[at(0), at(900)], &two, start - SECOND * 20).is_ok());
    assert!(check_ramp(&[at(0), at(900)], &two, start - SECOND * 2).is_err());
    assert!(check_ramp(&[at(0)], &two, start - SECOND).is_err());
}

#[test]
fn a_new_process_assumes_that_its_predecessor_has_just_spent_everything() {
    let born = Instant::now();
    let mut governor = Governor::new(budget(20, 20, 8, 0), born);
    let ticket = governor.request_spend(born, born + FAR);
    assert_eq!(poll(&mut governor, born), []);
    assert_eq!(governor.next_wakeup(), Some(born + SECOND + GUARD));
    assert_eq!(poll(&mut governor, born + SECOND), []);
    assert_eq!(poll(&mut governor, born + SECOND + GUARD), [granted(ticket)]);
    assert_eq!(governor.next_wakeup(), None);
}

#[test]
fn the_rate_is_reached_and_no_more() {
    let born = Instant::now();
    let mut governor = Governor::new(budget(20, 20, 8, 10_000), born);
    for _ in 0..600 {
        governor.request_spend(born, born + FAR);
    }
    let times: Vec<_> = run_dry(&mut governor, born)
        .into_iter()
        .map(|(_, at)| at)
        .collect();
    let between = |from: u64, to: u64| {
        let (from, to) = (born + SECOND * from as u32, born + SECOND * to as u32);
        times.iter().filter(|t| **t >= from && **t < to).count()
    };
    assert_eq!(between(0, 1), 0);
    // A quarter of the rate, and what the ramp adds in two of its ten seconds.
    assert!((5..=8).contains(&between(1, 2)), "{}", between(1, 2));
    assert!((15..=20).contains(&between(9, 10)), "{}", between(9, 10));
    // Full rate, less the guard's 5 %.
    let later = between(11, 21);
    assert!((185..=200).contains(&later), "{later}");
}

#[test]
fn a_burst_then_the_refill() {
    let born = Instant::now();
    let mut governor = Governor::new(budget(10, 3, 8, 0), born);
    let now = born + SECOND * 10;
    let asked: Vec<_> = (0..5).map(|_| governor.request_spend(now, now + FAR)).collect();
    assert_eq!(governor.available(now), 3);
    assert_eq!(
        poll(&mut governor, now),
        [asked[0], asked[1], asked[2]].map(granted)
    );
    assert_eq!(governor.available(now), 0);
    let tenth = Duration::from_millis(100);
    assert_eq!(governor.next_wakeup(), Some(now + tenth));
    assert_eq!(poll(&mut governor, now + tenth), [granted(asked[3])]);
    assert_eq!(poll(&mut governor, now + tenth * 2), [granted(asked[4])]);
    assert_eq!(governor.spent_total(), 5);
}

#[test]
fn deadlines_end_waits_and_do_not_cost_anything() {
    let born = Instant::now();
    let mut governor = Governor::new(budget(1, 1, 1, 0), born);
    let now = born + SECOND * 5;
    let (first, second) = (
        governor.request_slot(now, now + SECOND),
        governor.request_slot(now, now + SECOND * 3),
    );
    assert_eq!(governor.next_wakeup(), Some(now));
    assert_eq!(poll(&mut governor, now), [granted(first)]);
    let spend = governor.request_spend(now, now);
    assert_eq!(poll(&mut governor, now), [expired(spend)]);
    assert_eq!(governor.spent_total(), 0);
    assert_eq!(governor.next_wakeup(), Some(now + SECOND * 3));
    assert_eq!(poll(&mut governor, now + SECOND * 3), [expired(second)]);
    assert_eq!((governor.queued(), governor.in_flight()), (0, 1));
}

#[test]
fn slots_come_back_once_by_release_or_by_abandoning() {
    let now = Instant::now();
    let mut governor = Governor::new(budget(1, 1, 2, 0), now);
    let asked: Vec<_> = (0..5).map(|_| governor.request_slot(now, now + FAR)).collect();
    assert_eq!(poll(&mut governor, now), [asked[0], asked[1]].map(granted));
    assert_eq!(governor.next_wakeup(), Some(now + FAR));
    governor.release_slot(asked[0], LoginOutcome::Failed, now);
    governor.release_slot(asked[0], LoginOutcome::Failed, now);
    governor.abandon(asked[0]);
    governor.abandon(asked[2]);
    assert_eq!(poll(&mut governor, now), [granted(asked[3])]);
    governor.abandon(asked[1]);
    assert_eq!(poll(&mut governor, now), [granted(asked[4])]);
    assert_eq!((governor.queued(), governor.in_flight()), (0, 2));
}

#[test]
fn an_abandoned_spend_stays_spent() {
    let born = Instant::now();
    let mut governor = Governor::new(budget(1, 1, 1, 0), born);
    let now = born + SECOND * 5;
    let first = governor.request_spend(now, now + FAR);
    assert_eq!(poll(&mut governor, now), [granted(first)]);
    governor.abandon(first);
    let second = governor.request_spend(now, now + FAR);
    assert_eq!(poll(&mut governor, now + SECOND), []);
    assert_eq!(poll(&mut governor, now + SECOND + GUARD), [granted(second)]);
}

#[test]
fn a_clock_reading_that_was_overtaken_counts_as_the_later_one() {
    let born = Instant::now();
    let mut governor = Governor::new(budget(1, 1, 1, 0), born);
    let now = born + SECOND * 5;
    assert_eq!(poll(&mut governor, now), []);
    let late = now - Duration::from_millis(500);
    let first = governor.request_spend(late, now + FAR);
    assert_eq!(poll(&mut governor, late), [granted(first)]);
    let second = governor.request_spend(late, now + FAR);
    assert_eq!(poll(&mut governor, now + SECOND), []);
    assert_eq!(poll(&mut governor, now + SECOND + GUARD), [granted(second)]);
}

#[test]
fn outcomes_are_counted() {
    use LoginOutcome::*;
    let now = Instant::now();
    let mut governor = Governor::new(Budget::default(), now);
    let mut log_in = |outcome| {
        let ticket = governor.request_slot(now, now + FAR);
        assert_eq!(poll(&mut governor, now), [granted(ticket)]);
        governor.release_slot(ticket, outcome, now);
        (governor.has_succeeded(), governor.consecutive_refusals())
    };
    assert_eq!(log_in(NotAttempted), (false, 0));
    assert_eq!(log_in(Refused), (false, 1));
    assert_eq!(log_in(Failed), (false, 1));
    assert_eq!(log_in(Refused), (false, 2));
    assert_eq!(log_in(Succeeded), (true, 0));
    assert_eq!(log_in(Refused), (true, 1));
}

#[test]
fn impossible_budgets_are_refused_by_name() {
    let second = Duration::from_secs(1);
    let rows = [
        (
            Budget::new(0, 1, 1, second),
            "logins_per_second is 0, expected 1 to 1000",
        ),
        (
            Budget::new(1001, 1, 1, second),
            "logins_per_second is 1001, expected 1 to 1000",
        ),
        (Budget::new(5, 0, 1, second), "burst is 0, expected 1 to 1000"),
        (
            Budget::new(5, 6, 1, second),
            "burst is 6, expected at most logins_per_second, which is 5",
        ),
        (
            Budget::new(5, 5, 0, second),
            "logins_in_flight is 0, expected 1 to 1000",
        ),
        (
            Budget::new(5, 5, 1, second * 601),
            "slow_start is 601, expected 0 to 600",
        ),
    ];
    for (result, text) in rows {
        assert_eq!(result.unwrap_err().to_string(), text);
    }
    let default = Budget::default();
    let again = Budget::new(
        default.logins_per_second(),
        default.burst(),
        default.logins_in_flight(),
        default.slow_start(),
    );
    assert_eq!(again, Ok(default));
}
