//! What somebody may use: for who asks what there is, and for who has asked for something else.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::identify::Identified;
use crate::config::Target;
use crate::identity::Principal;
use crate::ids::{DatabaseName, DbUser};
use crate::policy::{Decision, Request, Rules};

/// Databases that an error names; the console names all that are looked at.
const MAX_NAMED: usize = 20;

/// Rules that are looked at for one list, so that nobody has many targets looked through again and again: about a millisecond.
const MAX_LOOKS: usize = 5_000;

/// A database that somebody may use, and as whom.
#[derive(Debug)]
pub(super) struct Offer {
    pub(super) target: Arc<Target>,
    pub(super) database: DatabaseName,
    /// Each with the rule that says so, from 0.
    pub(super) users: Vec<(DbUser, usize)>,
}

/// What somebody may use, in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Offers {
    pub(super) offers: Vec<Offer>,
    /// There may be more: not all was looked at.
    is_cut: bool,
}

impl Offers {
    /// To one who is known, by the `rules`, now.
    pub(super) fn to(identified: &Identified, rules: &Rules, targets: &[Arc<Target>]) -> Self {
        let document = identified.session.as_ref().map(|session| &*session.document);
        Self::for_principal(&identified.principal, document, rules, targets)
    }

    /// To a principal that comes through a session with that document.
    pub(super) fn for_principal(
        principal: &Principal,
        document: Option<&str>,
        rules: &Rules,
        targets: &[Arc<Target>],
    ) -> Self {
        let at = SystemTime::now();
        let mut left = MAX_LOOKS;
        let mut all = Self::default();
        let databases = targets
            .iter()
            .flat_map(|target| target.databases.iter().map(move |database| (target, database)));
        for (target, database) in databases {
            let cost = rules.len() * target.users.len();
            if left < cost {
                all.is_cut = true;
                break;
            }
            left -= cost;
            let admitted = target.users.iter().filter_map(|user| {
                let request = Request {
                    principal,
                    document,
                    target: &target.name,
                    database,
                    user,
                    at,
                };
                match rules.decide(&request) {
                    Decision::Allow { rule } => Some((user.clone(), rule)),
                    Decision::Refuse(_) => None,
                }
            });
            let users: Vec<_> = admitted.collect();
            if !users.is_empty() {
                all.offers.push(Offer {
                    target: target.clone(),
                    database: database.clone(),
                    users,
                });
            }
        }
        all
    }
}

impl Offer {
    /// What to connect to.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.target.name, self.database)
    }

    /// The users, one behind the other, with what `note` says of each one's rule.
    pub(super) fn users(&self, note: impl Fn(usize) -> &'static str) -> String {
        let users = self.users.iter();
        let users: Vec<_> = users
            .map(|(user, rule)| format!("{user}{}", note(*rule)))
            .collect();
        users.join(", ")
    }
}

/// As an error has it; empty if there is nothing.
impl fmt::Display for Offers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = self.offers.len().min(MAX_NAMED).checked_sub(1) else {
            return Ok(());
        };
        f.write_str("You may use ")?;
        for (place, offer) in self.offers.iter().take(MAX_NAMED).enumerate() {
            write!(f, "{} as {}", offer.name(), offer.users(|_| ""))?;
            f.write_str(if place == last { "" } else { "; " })?;
        }
        let more = self.offers.len().saturating_sub(MAX_NAMED);
        match (more, self.is_cut) {
            (0, false) => f.write_str("."),
            (0, true) => f.write_str("; and perhaps more."),
            (more, _) => write!(f, "; and {more} more: psql -l \"dbname=postern …\" lists them."),
        }
    }
}
