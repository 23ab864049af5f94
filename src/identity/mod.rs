//! Who is calling: the parts of it that need no socket.
//!
//! * [`Principal`]: the result, in the form that rules and the audit record use.
//! * [`Source`]: the ways to find out, as the configuration names them.
//! * [`iam`]: IAM principals, and what of them AWS vouches for.
//! * [`ssm`]: the session of Session Manager that a connection came through.
//! * [`sts`]: a request to STS that the caller has signed, as a password.
//! * [`scram`] and [`verifier`]: a password, proved without being sent.
//!
//! An identity that can't be established is a refusal, never a default: there is no principal for
//! "somebody", only [`Principal::Trust`], which the configuration must ask for by name.

pub mod iam;
mod principal;
pub mod scram;
pub mod ssm;
pub mod sts;
pub mod verifier;

pub use principal::Principal;
pub use verifier::{Verifier, VerifierError};

use std::fmt;
use std::str::FromStr;

/// A way to find out who is calling: a value of `sources` in the section `[identity]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// `ssm`: the owner of the session of Session Manager that the connection came through.
    Ssm,
    /// `sts`: whoever has signed the request to STS that is the password.
    Sts,
    /// `trust`: nobody is asked.
    Trust,
    /// `scram`: a password, checked against a verifier from the configuration.
    Scram,
}

/// A text that names no [`Source`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown identity source {given:?}, expected one of: {}", names())]
pub struct UnknownSource {
    /// What was given.
    pub given: String,
}

impl Source {
    /// Every source, in the order in which they are listed to people.
    pub const ALL: [Self; 4] = [Self::Ssm, Self::Sts, Self::Trust, Self::Scram];

    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssm => "ssm",
            Self::Sts => "sts",
            Self::Trust => "trust",
            Self::Scram => "scram",
        }
    }
}

impl FromStr for Source {
    type Err = UnknownSource;

    /// The source of exactly this name: lower case, nothing around it.
    fn from_str(text: &str) -> Result<Self, UnknownSource> {
        let found = Self::ALL.into_iter().find(|source| source.name() == text);
        found.ok_or_else(|| UnknownSource { given: text.into() })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn names() -> String {
    Source::ALL.map(Source::name).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_parsed_from_its_own_name() {
        for source in Source::ALL {
            assert_eq!(source.to_string().parse(), Ok(source));
        }
    }

    #[test]
    fn anything_else_is_an_error_that_lists_the_choices() {
        for text in ["", "Trust", " scram", "md5"] {
            let error = text.parse::<Source>().unwrap_err();
            let expected =
                format!("unknown identity source {text:?}, expected one of: ssm, sts, trust, scram");
            assert_eq!(error.to_string(), expected);
        }
    }
}
