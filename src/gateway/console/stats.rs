//! What has gone through pools: sums since the start, and averages of the last whole period.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pools::by_database;
use super::table::{Column, Table, int, text};
use crate::gateway::shard::Shard;
use crate::upstream::pool::ServerPool;
use crate::wire::reply::Value;

/// How long a period is (PgBouncer's `stats_period`).
const PERIOD: Duration = Duration::from_secs(60);

/// How many things are counted.
const COUNTED: usize = 14;

pub(super) const STATS: &[Column] = &[
    text("database"),
    int("total_server_assignment_count"),
    int("total_xact_count"),
    int("total_query_count"),
    int("total_received"),
    int("total_sent"),
    int("total_xact_time"),
    int("total_query_time"),
    int("total_wait_time"),
    int("total_client_parse_count"),
    int("total_server_parse_count"),
    int("total_bind_count"),
    int("total_client_login_count"),
    int("total_server_closed_count"),
    int("total_server_lifetime"),
    int("avg_server_assignment_count"),
    int("avg_xact_count"),
    int("avg_query_count"),
    int("avg_recv"),
    int("avg_sent"),
    int("avg_xact_time"),
    int("avg_query_time"),
    int("avg_wait_time"),
    int("avg_client_parse_count"),
    int("avg_server_parse_count"),
    int("avg_bind_count"),
    int("avg_client_login_count"),
    int("avg_server_closed_count"),
    int("avg_server_lifetime"),
];

/// The columns of STATS_TOTALS and STATS_AVERAGES (PgBouncer's `stats.c`, as its exporter reads them).
pub(super) const PART: &[Column] = &[
    text("database"),
    int("server_assignment_count"),
    int("xact_count"),
    int("query_count"),
    int("bytes_received"),
    int("bytes_sent"),
    int("xact_time"),
    int("query_time"),
    int("wait_time"),
    int("client_parse_count"),
    int("server_parse_count"),
    int("bind_count"),
    int("client_login_count"),
    int("server_closed_count"),
    int("server_lifetime"),
];

pub(super) const TOTALS: &[Column] = &[text("name"), int("value")];

/// In the order of [`PART`]; what isn't counted is nothing.
type Counts = [Option<u64>; COUNTED];

const ASSIGNMENTS: usize = 0;
const TRANSACTIONS: usize = 1;
const CLOSED: usize = 12;

/// By what each time is divided: times are averages of one thing, everything else is per second.
const PER: [(usize, usize); 3] = [(5, TRANSACTIONS), (7, ASSIGNMENTS), (13, CLOSED)];

/// The averages of the last whole period.
#[derive(Debug)]
pub(in crate::gateway) struct Averages {
    began: Instant,
    before: BTreeMap<String, Counts>,
    averages: BTreeMap<String, Counts>,
    /// Those of all together.
    of_all: Counts,
}

impl Default for Averages {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            before: BTreeMap::new(),
            averages: BTreeMap::new(),
            of_all: [Some(0); COUNTED],
        }
    }
}

impl Averages {
    /// Begins another period if this one is over.
    pub(in crate::gateway) fn turn(&mut self, shard: &Shard) {
        let took = self.began.elapsed();
        if took < PERIOD {
            return;
        }
        let now = counts(shard);
        let of = |(name, counts): (&String, &Counts)| {
            let before = self.before.get(name).copied().unwrap_or([Some(0); COUNTED]);
            (name.clone(), average(&before, counts, took))
        };
        self.averages = now.iter().map(of).collect();
        self.of_all = average(&sum(self.before.values()), &sum(now.values()), took);
        self.before = now;
        self.began = Instant::now();
    }
}

fn average(before: &Counts, now: &Counts, took: Duration) -> Counts {
    let more = |place: usize| {
        let (before, now) = (before.get(place)?.as_ref()?, now.get(place)?.as_ref()?);
        Some(now.saturating_sub(*before))
    };
    std::array::from_fn(|place| {
        let per = PER.iter().find(|(time, _)| *time == place);
        match per {
            Some((_, of)) => Some(more(place)?.checked_div(more(*of)?).unwrap_or(0)),
            None => Some((more(place)? as f64 / took.as_secs_f64()) as u64),
        }
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn count(pool: &ServerPool) -> Counts {
    let (usage, metrics) = (pool.usage(), pool.metrics());
    let waited = Duration::try_from_secs_f64(metrics.wait_seconds.get_sample_sum()).unwrap_or_default();
    let prepared = metrics.statements_prepared.get();
    [
        Some(metrics.leases.get()),
        Some(metrics.transactions.get()),
        Some(metrics.queries.get()),
        Some(metrics.received.get()),
        Some(metrics.sent.get()),
        Some(micros(usage.lent.get())),
        None,
        Some(micros(waited)),
        None,
        Some(prepared),
        Some(prepared + metrics.statements_found.get()),
        Some(usage.logins.get()),
        Some(usage.closed.get()),
        Some(micros(usage.lifetime.get())),
    ]
}

fn sum<'a>(all: impl Iterator<Item = &'a Counts>) -> Counts {
    let none = count_of_nothing();
    all.fold(none, |sum, more| {
        std::array::from_fn(|place| {
            let (sum, more) = (sum.get(place)?.as_ref()?, more.get(place)?.as_ref()?);
            Some(sum.saturating_add(*more))
        })
    })
}

fn count_of_nothing() -> Counts {
    [Some(0); COUNTED]
}

fn counts(shard: &Shard) -> BTreeMap<String, Counts> {
    let databases = by_database(shard).into_iter();
    databases
        .map(|(name, pools)| {
            let counts: Vec<_> = pools.iter().map(|pool| count(pool)).collect();
            (name, sum(counts.iter()))
        })
        .collect()
}

fn row(name: &str, counts: impl Iterator<Item = Option<u64>>) -> Vec<Value> {
    std::iter::once(name.into())
        .chain(counts.map(Value::from))
        .collect()
}

pub(super) fn stats(shard: &Shard, table: &mut Table) {
    let averages = shard.averages.borrow();
    for (name, counts) in counts(shard) {
        let average = averages
            .averages
            .get(&name)
            .copied()
            .unwrap_or_else(|| average(&counts, &counts, PERIOD));
        table.add(row(&name, counts.into_iter().chain(average)));
    }
}

pub(super) fn totals(shard: &Shard, table: &mut Table) {
    for (name, counts) in counts(shard) {
        table.add(row(&name, counts.into_iter()));
    }
}

pub(super) fn averages(shard: &Shard, table: &mut Table) {
    for (name, counts) in counts(shard) {
        let averages = shard.averages.borrow();
        let average = averages
            .averages
            .get(&name)
            .copied()
            .unwrap_or_else(|| average(&counts, &counts, PERIOD));
        table.add(row(&name, average.into_iter()));
    }
}

/// Over all databases.
pub(super) fn all(shard: &Shard, table: &mut Table) {
    let totals = sum(counts(shard).values());
    let averages = shard.averages.borrow().of_all;
    let names = STATS.iter().skip(1).map(|(name, _)| *name);
    for (name, value) in names.zip(totals.into_iter().chain(averages)) {
        table.add([name.into(), value.into()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_per_second_and_times_per_thing() {
        let mut before = count_of_nothing();
        let mut now = count_of_nothing();
        before[TRANSACTIONS] = Some(100);
        now[TRANSACTIONS] = Some(700);
        now[5] = Some(1_200_000);
        now[6] = None;
        let average = average(&before, &now, PERIOD);
        assert_eq!(average[TRANSACTIONS], Some(10));
        assert_eq!(average[5], Some(2_000), "microseconds of each transaction");
        assert_eq!(average[6], None);
        assert_eq!(average[7], Some(0), "of none");
    }
}
