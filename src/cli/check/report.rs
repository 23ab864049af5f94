//! What was found, and how it is shown.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

/// How a check has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// All is as it should be.
    Ok,
    /// It works, and something should be changed all the same.
    Warning,
    /// It doesn't work.
    Failed,
    /// It wasn't looked at, since something that comes before it doesn't work or isn't wanted.
    Skipped,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What one check has found.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    /// The check's name, from a closed set.
    pub(super) check: &'static str,
    /// What was looked at.
    pub(super) subject: String,
    pub(super) state: State,
    /// What was seen.
    detail: String,
    /// Why it is so.
    cause: Option<String>,
    /// What to do about it.
    remedy: Option<String>,
    /// How long it took.
    ms: u64,
    /// What stands in the way of this, if it was skipped for that: where the fault is.
    #[serde(skip)]
    because: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, subject: impl ToString, detail: impl Into<String>) -> Self {
        Self {
            check,
            subject: subject.to_string(),
            state: State::Ok,
            detail: detail.into(),
            cause: None,
            remedy: None,
            ms: 0,
            because: None,
        }
    }

    /// It wasn't looked at because of `prerequisite`, as [`Self::is_in_the_way`] names it.
    pub(super) fn skipped(check: &'static str, subject: impl ToString, prerequisite: &str) -> Self {
        Self {
            state: State::Skipped,
            because: Some(prerequisite.to_owned()),
            ..Self::ok(check, subject, format!("because of {prerequisite}"))
        }
    }

    /// It wasn't looked at, and nothing is amiss with that.
    pub(super) fn unneeded(check: &'static str, subject: impl ToString, detail: impl Into<String>) -> Self {
        Self {
            state: State::Skipped,
            ..Self::ok(check, subject, detail)
        }
    }

    /// The same with something wrong, for this reason, which is to be put right like that.
    pub(super) fn but(self, state: State, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            state,
            cause: Some(cause.into()),
            remedy: Some(remedy.into()),
            ..self
        }
    }

    /// It has taken from then to now.
    pub(super) fn since(self, began: Instant) -> Self {
        self.took(began.elapsed())
    }

    /// It has taken so long.
    pub(super) fn took(self, time: Duration) -> Self {
        let ms = time.as_millis().try_into().unwrap_or(u64::MAX);
        Self { ms, ..self }
    }

    /// What others are skipped because of: this if it has failed, or what this was skipped because of.
    pub(super) fn is_in_the_way(&self) -> Option<String> {
        match self.state {
            State::Failed => Some(format!("{} ({})", self.check, self.subject)),
            State::Skipped => self.because.clone(),
            State::Ok | State::Warning => None,
        }
    }
}

/// All findings.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    findings: Vec<Finding>,
    ok: bool,
}

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        let ok = findings.iter().all(|finding| finding.state != State::Failed);
        Self { findings, ok }
    }

    /// How many checks have failed, of how many.
    pub(super) fn failed(&self) -> (usize, usize) {
        (self.count(State::Failed), self.findings.len())
    }

    /// How many checks have ended how.
    pub(super) fn counts(&self) -> Vec<(&'static str, usize)> {
        let states = [State::Ok, State::Warning, State::Failed, State::Skipped];
        states.map(|state| (state.name(), self.count(state))).into()
    }

    /// What isn't well, one line each.
    pub(super) fn wrong(&self) -> Vec<String> {
        let is_wrong = |finding: &&Finding| matches!(finding.state, State::Warning | State::Failed);
        let wrong = self.findings.iter().filter(is_wrong);
        wrong
            .map(|finding| {
                let Finding {
                    check,
                    subject,
                    detail,
                    ..
                } = finding;
                let [why, remedy] =
                    [&finding.cause, &finding.remedy].map(|told| told.as_deref().unwrap_or_default());
                printable(&format!(
                    "check {check} ({subject}): {detail}; why: {why}; do: {remedy}"
                ))
            })
            .collect()
    }

    fn count(&self, state: State) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.state == state)
            .count()
    }

    /// A line for each, the reason and the remedy under what isn't well, and a line with the count.
    pub(super) fn text(&self) -> String {
        let width = |of: fn(&Finding) -> &str| {
            let lengths = self.findings.iter().map(|finding| of(finding).chars().count());
            lengths.max().unwrap_or_default()
        };
        let (checks, subjects) = (width(|finding| finding.check), width(|finding| &finding.subject));
        let mut text = String::new();
        for finding in &self.findings {
            let Finding {
                check,
                subject,
                state,
                detail,
                ms,
                ..
            } = finding;
            let (state, detail) = (state.name(), printable(detail));
            let _ = write!(
                text,
                "{state:<7}  {check:<checks$}  {subject:<subjects$}  {detail}"
            );
            text.push_str(&if *ms > 0 {
                format!(" ({ms} ms)\n")
            } else {
                "\n".to_owned()
            });
            for (label, told) in [("why:", &finding.cause), ("do:", &finding.remedy)] {
                let lines = told.iter().flat_map(|told| told.split('\n'));
                for (number, line) in lines.enumerate() {
                    let label = if number == 0 { label } else { "" };
                    let _ = writeln!(text, "    {label:<5}{}", printable(line));
                }
            }
        }
        let counts = self.counts().into_iter();
        let counts: Vec<_> = counts.map(|(state, count)| format!("{count} {state}")).collect();
        let _ = writeln!(text, "{} checks: {}", self.findings.len(), counts.join(", "));
        text
    }
}

/// Names of roles are the server's, and may be anything: what a terminal would act on isn't shown.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
