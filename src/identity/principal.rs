//! Who is calling, as rules, the audit record and people see it.
//!
//! A [`Principal`] is made only by the code that proved it; nothing parses one from text, so no text
//! that a client sends can turn into somebody's identity.

use std::fmt;
use std::sync::Arc;

use super::iam::IamPrincipal;

/// A caller whose identity has been established, or waived by `trust`.
///
/// [`Display`](fmt::Display) gives the canonical text that rules are matched against and the audit
/// record holds: a kind, a colon, a name. Kinds never contain a colon and the kind comes first, so no
/// name, however chosen, can look like a principal of another kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Principal {
    /// Nobody was asked. Written `trust:`.
    Trust,
    /// An IAM principal, of whom rules see what AWS vouches for ([`IamPrincipal::canonical`]): an ARN.
    Iam(IamPrincipal),
    /// Proved knowledge of the password of the configured user of this name. Written `scram:NAME`.
    Scram(Arc<str>),
}

impl Principal {
    /// A short name for people: in `application_name`, in console tables. For display only; two
    /// different principals may share a label.
    pub fn label(&self) -> &str {
        match self {
            Self::Iam(principal) => principal.person(),
            Self::Trust => "trust",
            Self::Scram(name) => name,
        }
    }
}

impl Principal {
    /// [`Self::label`] of somebody.
    pub fn person(&self) -> Option<&str> {
        match self {
            Self::Trust => None,
            Self::Iam(_) | Self::Scram(_) => Some(self.label()),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iam(principal) => f.write_str(principal.canonical()),
            Self::Trust => f.write_str("trust:"),
            Self::Scram(name) => write!(f, "scram:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_and_label() {
        let rows = [
            (Principal::Trust, "trust:", "trust"),
            (Principal::Scram("alice".into()), "scram:alice", "alice"),
            (Principal::Scram("trust:".into()), "scram:trust:", "trust:"),
            (Principal::Scram("".into()), "scram:", ""),
        ];
        for (principal, text, label) in rows {
            assert_eq!(principal.to_string(), text);
            assert_eq!(principal.label(), label);
        }
    }
}
