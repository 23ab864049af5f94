//! How many connections somebody has by a rule that allows only so many.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

/// A rule, counted from 0, and a principal as rules see it, or a session of Session Manager: whoever may choose a name has no more by
/// having several.
type Key = (usize, String);

/// The connections of all threads that count.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<HashMap<Key, usize>>);

/// One connection's; it counts until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    key: Key,
}

impl Seats {
    /// How a session of Session Manager is named here.
    pub(super) fn session(id: &str) -> String {
        format!("session {id}")
    }

    /// Counts one more of `whom` by `rule`, unless there are `most` already.
    pub(super) fn take(self: &Arc<Self>, rule: usize, whom: String, most: usize) -> Option<Seat> {
        let key = (rule, whom);
        let mut seats = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = seats.entry(key.clone()).or_default();
        (*taken < most).then(|| {
            *taken += 1;
            Seat {
                seats: self.clone(),
                key,
            }
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut taken) = seats.entry(std::mem::take(&mut self.key)) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}
