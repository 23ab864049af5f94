//! Who may use what: rules over principal × target × database × database user.
//!
//! The first rule that matches all four decides, and rules only ever allow; when none matches, the
//! answer is no. There is no default rule and no fallback identity. The values that are compared must
//! be the canonical ones that the connection will really use (a missing database has already become
//! the user's name, as PostgreSQL has it: "Message Formats", StartupMessage, parameter `database`);
//! a value that is filled in after the check would be a way round it.
//!
//! This module doesn't establish who somebody is ([`crate::identity`]) nor which targets exist.

mod glob;
mod hours;

pub use glob::Glob;
pub use hours::{BadSpan, Hours, Span};

use std::fmt;
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::identity::Principal;
use crate::identity::iam::IamPrincipal;
use crate::ids::{DatabaseName, DbUser, TargetName};
use crate::pool::PoolMode;

/// One line of the policy. It matches when each of its lists has a pattern that matches. An
/// empty list matches nothing: "any" is written `*`, or not written where a list may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Against the principal's canonical text, such as `scram:alice`.
    pub principals: Vec<Glob>,
    /// Against the account of an IAM principal.
    pub accounts: Option<Vec<Glob>>,
    /// Against the permission set of a user of IAM Identity Center.
    pub permission_sets: Option<Vec<Glob>>,
    /// Against the document of the session of Session Manager that it comes through.
    pub documents: Option<Vec<Glob>>,
    /// Against the configured name of the target.
    pub targets: Vec<Glob>,
    /// Against the database's name.
    pub databases: Vec<Glob>,
    /// Against the database role's name.
    pub users: Vec<Glob>,
    /// When it holds; always if it isn't given.
    pub hours: Option<Hours>,
    /// It is about the console, and about no target.
    pub console: Option<Console>,
    /// On which terms it lets somebody in.
    pub terms: Terms,
}

/// What somebody may do at the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Console {
    /// Look, end connections, and have the configuration read again.
    Admin,
    /// Look.
    Stats,
}

/// On which terms a rule lets somebody in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// No more connections of each principal at a time.
    pub max_clients: Option<usize>,
    /// No more connections of each session of Session Manager at a time.
    pub max_clients_per_session: Option<usize>,
    /// How long each may last.
    pub max_duration: Option<Duration>,
    /// They may only read.
    pub read_only: bool,
    /// When they give server connections back, if not as the pool says.
    pub mode: Option<PoolMode>,
    /// What of their statements is recorded.
    pub statements: Recorded,
}

impl Terms {
    /// Whether what they send must be understood, and not just passed on.
    pub fn need_understanding(&self) -> bool {
        self.read_only || self.mode.is_some() || self.statements != Recorded::No
    }
}

/// As the console shows them.
impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statements = match self.statements {
            Recorded::No => None,
            Recorded::Masked => Some("masked"),
            Recorded::Full => Some("full"),
        };
        let terms = [
            self.read_only.then(|| "read_only".to_owned()),
            self.mode.map(|mode| format!("mode {}", mode.name())),
            statements.map(|how| format!("statements {how}")),
            self.max_clients.map(|most| format!("max_clients {most}")),
            self.max_clients_per_session
                .map(|most| format!("max_clients_per_session {most}")),
            self.max_duration
                .map(|longest| format!("max_duration {} s", longest.as_secs())),
        ];
        let terms: Vec<_> = terms.into_iter().flatten().collect();
        f.write_str(&terms.join(", "))
    }
}

/// What of statements goes to the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Recorded {
    /// Nothing.
    #[default]
    No,
    /// Their texts without the constants in them, and without comments.
    Masked,
    /// Their texts; but not what stands behind PASSWORD.
    Full,
}

/// The whole policy, in the order in which it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    rules: Box<[Rule]>,
}

/// What somebody asks to use.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The document of the session of Session Manager that he comes through, if he does.
    pub document: Option<&'a str>,
    /// The target that the connection was routed to.
    pub target: &'a TargetName,
    /// The database that it would be logged in to.
    pub database: &'a DatabaseName,
    /// The role that it would be logged in as.
    pub user: &'a DbUser,
    /// When it is asked.
    pub at: SystemTime,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Yes.
    Allow {
        /// Which rule said so, counted from 0 in the order of the configuration; for the audit record.
        rule: usize,
    },
    /// No.
    Refuse(Refusal),
}

/// Why not: the first thing that stood in the way in the rule that came nearest.
///
/// It says what of the caller's *own request* no rule covers, never what some rule does name, so that
/// a stranger learns nothing of what exists: the answer for a target that isn't there is that for one
/// that is closed to him. Ordered by how near the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// There are no rules at all, so nobody is let in.
    NoRules,
    /// The rules are about the console.
    Console,
    /// No rule has this principal.
    Principal,
    /// Rules have this principal, but none of them with this document of Session Manager, or with none.
    Document,
    /// Rules have this principal, but none of them with this target.
    Target,
    /// Rules have this principal and target, but none of them with this database.
    Database,
    /// Rules have this principal, target and database, but none of them with this database user.
    User,
    /// Rules have all of it, but none of them at this time.
    Hours,
}

impl Rules {
    /// The policy that consists of `rules`, the first of which has precedence.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules: rules.into() }
    }

    /// Decides. Linear in the number of patterns; no allocation but for the principal's text.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let principal = request.principal.to_string();
        let mut nearest = Refusal::NoRules;
        for (index, rule) in self.rules.iter().enumerate() {
            match rule.missing(&principal, request) {
                None => return Decision::Allow { rule: index },
                Some(missing) => nearest = nearest.max(missing),
            }
        }
        Decision::Refuse(nearest)
    }

    /// Which rule lets this principal, who comes through a session with that document, use the console `at` a time, and how.
    pub fn decide_console(
        &self,
        principal: &Principal,
        document: Option<&str>,
        at: SystemTime,
    ) -> Option<(usize, Console)> {
        let text = principal.to_string();
        let rules = self.rules.iter().enumerate();
        rules.into_iter().find_map(|(index, rule)| {
            let console = rule.console?;
            let matches = rule.is_about(&text, principal) && rule.covers_document(document) && rule.holds(at);
            matches.then_some((index, console))
        })
    }

    /// For each rule, what it doesn't cover of `request`; nothing if it matches.
    pub fn explain(&self, request: &Request<'_>) -> Vec<Option<Refusal>> {
        let principal = request.principal.to_string();
        let rules = self.rules.iter();
        rules.map(|rule| rule.missing(&principal, request)).collect()
    }

    /// On which terms that rule, counted from 0, lets somebody in `at` a time: until its hours are over, at most.
    pub fn terms(&self, rule: usize, at: SystemTime) -> Terms {
        let Some(rule) = self.rules.get(rule) else {
            return Terms::default();
        };
        let until = rule.hours.as_ref().and_then(|hours| hours.until(at));
        let left = until.and_then(|until| until.duration_since(at).ok());
        let durations = rule.terms.max_duration.into_iter().chain(left);
        Terms {
            max_duration: durations.min(),
            ..rule.terms
        }
    }

    /// The terms of that rule as they are written.
    pub fn terms_of(&self, rule: usize) -> Terms {
        self.rules.get(rule).map(|rule| rule.terms).unwrap_or_default()
    }

    /// Whether that rule lets somebody in on the same terms as `other_rule` of the `other` rules does: how many may come apart.
    pub fn agree(&self, rule: usize, other: &Self, other_rule: usize) -> bool {
        let of = |rules: &Self, rule: usize| {
            let rule = rules.rules.get(rule)?;
            let terms = Terms {
                max_clients: None,
                max_clients_per_session: None,
                ..rule.terms
            };
            Some((terms, rule.hours.clone()))
        };
        of(self, rule) == of(other, other_rule)
    }

    /// When that rule holds, if it doesn't always.
    pub fn hours(&self, rule: usize) -> Option<&Hours> {
        self.rules.get(rule)?.hours.as_ref()
    }

    /// Whether some rule for that target needs what clients send to be understood.
    pub fn need_understanding(&self, target: &str) -> bool {
        let of_target = |rule: &&Rule| rule.targets.iter().any(|glob| glob.matches(target));
        let rules = self.rules.iter().filter(of_target);
        rules.into_iter().any(|rule| rule.terms.need_understanding())
    }

    /// Whether some rule wants statements recorded.
    pub fn record_statements(&self) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.terms.statements != Recorded::No)
    }

    /// The rules, the first of which has precedence.
    pub fn iter(&self) -> std::slice::Iter<'_, Rule> {
        self.rules.iter()
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none, so that every request is refused.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Rule {
    /// The first of the four that this rule doesn't cover; `None` if it covers them all.
    fn missing(&self, principal: &str, request: &Request<'_>) -> Option<Refusal> {
        if self.console.is_some() {
            Some(Refusal::Console)
        } else if !self.is_about(principal, request.principal) {
            Some(Refusal::Principal)
        } else if !self.covers_document(request.document) {
            Some(Refusal::Document)
        } else if !covers(&self.targets, request.target.as_str()) {
            Some(Refusal::Target)
        } else if !covers(&self.databases, request.database.as_str()) {
            Some(Refusal::Database)
        } else if !covers(&self.users, request.user.as_str()) {
            Some(Refusal::User)
        } else if !self.holds(request.at) {
            Some(Refusal::Hours)
        } else {
            None
        }
    }

    /// Whether it has that principal, whose canonical `text` that is.
    fn is_about(&self, text: &str, principal: &Principal) -> bool {
        let iam = match principal {
            Principal::Iam(principal) => Some(principal),
            Principal::Scram(_) | Principal::Trust => None,
        };
        covers(&self.principals, text)
            && may_cover(&self.accounts, iam.map(IamPrincipal::account))
            && may_cover(&self.permission_sets, iam.and_then(IamPrincipal::permission_set))
    }

    fn covers_document(&self, document: Option<&str>) -> bool {
        may_cover(&self.documents, document)
    }

    fn holds(&self, at: SystemTime) -> bool {
        self.hours.as_ref().is_none_or(|hours| hours.hold(at))
    }
}

fn covers(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.matches(text))
}

fn may_cover(globs: &Option<Vec<Glob>>, text: Option<&str>) -> bool {
    globs
        .as_ref()
        .is_none_or(|globs| text.is_some_and(|text| covers(globs, text)))
}

impl Refusal {
    /// What of a request a rule doesn't cover, in a word.
    pub fn what(self) -> &'static str {
        match self {
            Self::NoRules => "rules",
            Self::Console => "database: it is about the console",
            Self::Principal => "principal",
            Self::Document => "document",
            Self::Target => "target",
            Self::Database => "database",
            Self::User => "user",
            Self::Hours => "time",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRules => "there are no rules, so nobody is allowed in",
            Self::Console | Self::Principal => "no rule allows this principal anything",
            Self::Document => {
                "no rule allows this principal anything by the way that it came (the document of its session)"
            }
            Self::Target => "no rule allows this principal this target",
            Self::Database => "no rule allows this principal this database of the target",
            Self::User => "no rule allows this principal this database user",
            Self::Hours => "no rule allows this principal this at this time",
        })
    }
}

#[cfg(test)]
mod tests;
