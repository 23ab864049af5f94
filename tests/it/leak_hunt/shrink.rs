//! From a long way to a difference to a short one.

use super::Hunt;
use super::client::{Login, Step};
use super::world::{Difference, World};

/// Who does what, in order.
pub(super) type Script = Vec<(usize, Step)>;

/// Worlds to be tried; each takes about two seconds.
const TRIES: usize = 150;

/// Leaves out of `script`, which has led to `difference`, what isn't needed to get there, and tells with which logins it
/// then begins; `None` if it doesn't lead there once more.
pub(super) fn shrink(
    hunt: Hunt,
    logins: &[Login],
    script: &Script,
    difference: &Difference,
) -> Option<(Script, Vec<Login>)> {
    let mut search = Search {
        pool: hunt.pool,
        kind: &difference.kind,
        logins: logins.to_vec(),
        tries: TRIES,
    };
    let mut best = search.tail(script)?;
    let (culprit, _) = *best.last()?;
    for client in (0..hunt.clients).filter(|client| *client != culprit) {
        search.without(&mut best, |_, (other, _)| *other == client);
    }
    let mut size = best.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < best.len() {
            let length = best.len();
            search.without(&mut best, |place, _| (start..start + size).contains(&place));
            if best.len() == length {
                start += size;
            }
        }
        size /= 2;
    }
    Some((best, search.logins))
}

struct Search<'a> {
    pool: Option<&'static str>,
    kind: &'a str,
    logins: Vec<Login>,
    tries: usize,
}

impl Search<'_> {
    /// The shortest of some tails of the script that leads to the difference.
    fn tail(&mut self, script: &Script) -> Option<Script> {
        let first_logins = self.logins.clone();
        let lengths = std::iter::successors(Some(25), |length| Some(length * 3));
        for length in lengths.take_while(|length| *length < script.len() * 3) {
            let (before, tail) = script.split_at(script.len().saturating_sub(length));
            println!("trying the last {} steps", tail.len());
            self.logins.clone_from(&first_logins);
            for (client, step) in before {
                if let Step::Leave { login, .. } = step {
                    self.logins[*client] = *login;
                }
            }
            if let Some(found) = self.attempt(tail.to_vec()) {
                return Some(found);
            }
        }
        None
    }

    /// Makes `best` shorter by what is `superfluous`, if it is.
    fn without(&mut self, best: &mut Script, superfluous: impl Fn(usize, &(usize, Step)) -> bool) {
        let steps = best
            .iter()
            .enumerate()
            .filter(|(place, step)| !superfluous(*place, step));
        let kept: Script = steps.map(|(_, step)| step.clone()).collect();
        if kept.len() < best.len()
            && let Some(found) = self.attempt(kept)
        {
            println!("{} steps", found.len());
            *best = found;
        }
    }

    /// The script up to the difference, if it leads there.
    fn attempt(&mut self, mut script: Script) -> Option<Script> {
        self.tries = self.tries.checked_sub(1)?;
        let mut world = World::new(self.pool, &self.logins);
        let mut steps = script.iter().enumerate();
        let (place, difference) = steps.find_map(|(place, (client, step))| {
            let difference = world.run(*client, step).err()?;
            Some((place, difference))
        })?;
        script.truncate(place + 1);
        (difference.kind == self.kind).then_some(script)
    }
}
