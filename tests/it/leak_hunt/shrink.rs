//! From a long way to a difference to a short one.

use super::Hunt;
use super::client::{Login, Step};
use super::world::{Difference, World};

/// Who does what, in order.
pub(super) type Script = Vec<(usize, Step)>;

/// Worlds to be tried; each takes about two seconds.
const TRIES: usize = 150;

/// Leaves out of `script` what the difference doesn't need; `None` if the script doesn't lead there on its own.
pub(super) fn shrink(hunt: Hunt, logins: &[Login], script: Script) -> Option<(Script, Difference)> {
    let mut search = Search {
        hunt,
        logins,
        tries: TRIES,
    };
    let mut best = search.tail(&script)?;
    let (culprit, _) = *best.0.last()?;
    for client in (0..hunt.clients).filter(|client| *client != culprit) {
        search.without(&mut best, |_, (other, _)| *other == client);
    }
    let mut size = best.0.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < best.0.len() {
            let length = best.0.len();
            search.without(&mut best, |place, _| (start..start + size).contains(&place));
            if best.0.len() == length {
                start += size;
            }
        }
        size /= 2;
    }
    Some(best)
}

struct Search<'a> {
    hunt: Hunt,
    logins: &'a [Login],
    tries: usize,
}

impl Search<'_> {
    /// The shortest of some tails of the script that leads to a difference.
    fn tail(&mut self, script: &Script) -> Option<(Script, Difference)> {
        let lengths = std::iter::successors(Some(25), |length| Some(length * 3));
        for length in lengths.take_while(|length| *length < script.len() * 3) {
            let tail = script[script.len().saturating_sub(length)..].to_vec();
            println!("trying the last {} steps", tail.len());
            if let Some(found) = self.attempt(tail) {
                return Some(found);
            }
        }
        None
    }

    /// Makes `best` shorter by what is `superfluous`, if it is.
    fn without(
        &mut self,
        best: &mut (Script, Difference),
        superfluous: impl Fn(usize, &(usize, Step)) -> bool,
    ) {
        let steps = best.0.iter().enumerate();
        let kept: Script = steps
            .filter(|(place, step)| !superfluous(*place, step))
            .map(|(_, step)| step.clone())
            .collect();
        if kept.len() == best.0.len() || kept.is_empty() {
            return;
        }
        // What only hangs has lost a step that it needs, unless that is what is looked for.
        if let Some(found) = self.attempt(kept)
            && found.1.hangs == best.1.hangs
        {
            println!("{} steps", found.0.len());
            *best = found;
        }
    }

    fn attempt(&mut self, mut script: Script) -> Option<(Script, Difference)> {
        self.tries = self.tries.checked_sub(1)?;
        let mut world = World::new(self.hunt.pool, self.logins);
        for place in 0..script.len() {
            let (client, step) = &script[place];
            if let Err(difference) = world.run(*client, step) {
                script.truncate(place + 1);
                return Some((script, difference));
            }
        }
        None
    }
}
