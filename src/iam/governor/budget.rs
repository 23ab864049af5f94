//! How many logins a database endpoint is to see.

use std::time::Duration;

/// The login budget of one database endpoint: checked when made, so that every value of this type is
/// one that a [`Governor`](super::Governor) can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    logins_per_second: u32,
    burst: u32,
    logins_in_flight: u32,
    slow_start: Duration,
}

/// A budget that can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BudgetError {
    /// A number lies outside what is allowed.
    #[error("{key} is {value}, expected {min} to {max}")]
    OutOfRange {
        /// Which of the four it is, by the name of its configuration key.
        key: &'static str,
        /// What was given; seconds for `slow_start`.
        value: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// The burst could never be used up within a second.
    #[error("burst is {burst}, expected at most logins_per_second, which is {logins_per_second}")]
    BurstAboveRate {
        /// What was given.
        burst: u32,
        /// The rate that it may not exceed.
        logins_per_second: u32,
    },
}

impl Budget {
    /// The most that `logins_per_second` may be. AWS has named 200 IAM logins per second as the point from
    /// which a database throttles (Amazon RDS User Guide, "IAM database authentication for MariaDB,
    /// MySQL, and PostgreSQL"); five times that leaves room for a raised quota and none for a typing error.
    pub const MAX_LOGINS_PER_SECOND: u32 = 1000;
    /// The most that `logins_in_flight` may be.
    pub const MAX_LOGINS_IN_FLIGHT: u32 = 1000;
    /// The longest that `slow_start` may be.
    pub const MAX_SLOW_START: Duration = Duration::from_secs(600);

    /// A budget of at most `logins_per_second` logins in any second, `burst` of them at once, with at
    /// most `logins_in_flight` unfinished at any time, reached gradually over the first `slow_start` of
    /// a process. A `slow_start` of zero does without.
    pub fn new(
        logins_per_second: u32,
        burst: u32,
        logins_in_flight: u32,
        slow_start: Duration,
    ) -> Result<Self, BudgetError> {
        let between = |key, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(BudgetError::OutOfRange { key, value, min, max })
        };
        let (most, most_in_flight) = (Self::MAX_LOGINS_PER_SECOND, Self::MAX_LOGINS_IN_FLIGHT);
        between("logins_per_second", logins_per_second.into(), 1, most.into())?;
        between("burst", burst.into(), 1, most.into())?;
        between(
            "logins_in_flight",
            logins_in_flight.into(),
            1,
            most_in_flight.into(),
        )?;
        if slow_start > Self::MAX_SLOW_START {
            return Err(BudgetError::OutOfRange {
                key: "slow_start",
                value: slow_start.as_secs(),
                min: 0,
                max: Self::MAX_SLOW_START.as_secs(),
            });
        }
        if burst > logins_per_second {
            return Err(BudgetError::BurstAboveRate {
                burst,
                logins_per_second,
            });
        }
        Ok(Self {
            logins_per_second,
            burst,
            logins_in_flight,
            slow_start,
        })
    }

    /// How many logins any window of one second may hold.
    pub fn logins_per_second(&self) -> u32 {
        self.logins_per_second
    }

    /// How many logins may follow one another without a pause after a quiet time.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// How many logins may be between dial and outcome at once.
    pub fn logins_in_flight(&self) -> u32 {
        self.logins_in_flight
    }

    /// How long a new process takes to reach the full rate.
    pub fn slow_start(&self) -> Duration {
        self.slow_start
    }

    /// How many logins a window may hold `age` after the process began: a quarter of the rate (at
    /// least 1) at first, then growing linearly.
    pub(super) fn allowed_at(&self, age: Duration) -> u32 {
        if age >= self.slow_start {
            return self.logins_per_second;
        }
        let first = self.first_allowed();
        let gained = u128::from(self.logins_per_second - first) * age.as_nanos() / self.slow_start.as_nanos();
        // `age` is less than `slow_start`, so `gained` is less than the u32 it is a part of.
        first + u32::try_from(gained).unwrap_or(0)
    }

    /// The age at which [`allowed_at`](Self::allowed_at) next grows; `None` if it is at its full height.
    pub(super) fn next_step(&self, age: Duration) -> Option<Duration> {
        let reached = self.allowed_at(age);
        if reached == self.logins_per_second {
            return None;
        }
        let first = self.first_allowed();
        let nanos = (u128::from(reached + 1 - first) * self.slow_start.as_nanos())
            .div_ceil(u128::from(self.logins_per_second - first));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    fn first_allowed(&self) -> u32 {
        (self.logins_per_second / 4).max(1)
    }
}

impl Default for Budget {
    /// 20 logins per second, all of them at once if need be, 8 in flight, 10 s of slow start: a tenth
    /// of the rate from which AWS throttles.
    fn default() -> Self {
        Self {
            logins_per_second: 20,
            burst: 20,
            logins_in_flight: 8,
            slow_start: Duration::from_secs(10),
        }
    }
}
