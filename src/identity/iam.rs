//! IAM principals, by the ARNs that AWS gives its callers.
//!
//! An ARN says more than AWS vouches for: whoever assumes a role chooses the session name at its end (IAM User Guide, "Use
//! IAM role sessions", `RoleSessionName`), except where IAM Identity Center does it for him with the name of its user. So does an IAM
//! user who asks for a federated one (`GetFederationToken`, `Name`). What a
//! caller can choose is shown to people and never compared with a rule.

use std::fmt;
use std::sync::Arc;

/// How the roles begin that IAM Identity Center makes, one for each permission set, and of whose sessions it alone gives the
/// names (IAM Identity Center User Guide, "Referencing permission sets in resource policies"). Who may make roles in the account
/// could make one that looks alike: STS leaves out the path by which they are told apart.
const SSO_ROLE: &str = "AWSReservedSSO_";

/// The length of what such a role's name ends in, in hexadecimal digits.
const SSO_SUFFIX_LEN: usize = 16;

/// The longest ARN that is taken: a user's path alone may have 512 characters (IAM User Guide, "IAM and AWS STS quotas").
const MAX_ARN_BYTES: usize = 1024;

/// A part of an ARN, which is no longer than [`MAX_ARN_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    from: u16,
    to: u16,
}

/// An IAM principal that AWS has vouched for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct IamPrincipal {
    arn: Arc<str>,
    account: Place,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A user of IAM Identity Center; the session name is that user's name.
    Sso { permission_set: Place, name: Place },
    /// A session of any other role, or a federated user: whoever asks AWS for it chooses its name.
    Chosen {
        /// The role and the name, or the name.
        shown: Place,
        name: Place,
    },
    /// An IAM user.
    User { name: Place },
}

/// Why a text is no ARN of a principal that may be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadArn {
    /// It isn't one.
    #[error("it isn't the ARN of an IAM user or of a session of a role")]
    Malformed,
    /// It is the account itself, which nobody should work as.
    #[error("it is the root user of an account")]
    Root,
}

impl IamPrincipal {
    /// From an ARN as AWS gives it: of an assumed role, an IAM user or a federated user.
    pub fn parse(arn: &str) -> Result<Self, BadArn> {
        if arn.len() > MAX_ARN_BYTES || !arn.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadArn::Malformed);
        }
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next().ok_or(BadArn::Malformed);
        let (scheme, partition, service, region) = (next()?, next()?, next()?, next()?);
        let (account, resource) = (next()?, next()?);
        let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        let is_partition = partition == "aws" || partition.starts_with("aws-");
        if scheme != "arn" || !is_partition || !region.is_empty() || !is_account {
            return Err(BadArn::Malformed);
        }
        let place = |part: &str| {
            let from = part.as_ptr() as usize - arn.as_ptr() as usize;
            let number = |place: usize| u16::try_from(place).unwrap_or_default();
            Place {
                from: number(from),
                to: number(from + part.len()),
            }
        };
        let kind = match (service, resource.split_once('/')) {
            ("iam", None) if resource == "root" => return Err(BadArn::Root),
            ("iam", Some(("user", path))) => Kind::User {
                name: place(last(path)?),
            },
            ("sts", Some(("federated-user", name))) if is_name(name) => Kind::Chosen {
                shown: place(resource),
                name: place(name),
            },
            ("sts", Some(("assumed-role", rest))) => {
                let (role, session) = rest.split_once('/').ok_or(BadArn::Malformed)?;
                if !is_name(role) || !is_name(session) {
                    return Err(BadArn::Malformed);
                }
                match permission_set(role) {
                    Some(set) => Kind::Sso {
                        permission_set: place(set),
                        name: place(session),
                    },
                    None => Kind::Chosen {
                        shown: place(rest),
                        name: place(session),
                    },
                }
            }
            _ => return Err(BadArn::Malformed),
        };
        Ok(Self {
            account: place(account),
            arn: arn.into(),
            kind,
        })
    }

    /// The ARN as AWS gave it, with what the caller may have chosen: for people and for the record.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The account, twelve digits.
    pub fn account(&self) -> &str {
        self.part(&self.account)
    }

    /// The permission set of IAM Identity Center.
    pub fn permission_set(&self) -> Option<&str> {
        match &self.kind {
            Kind::Sso { permission_set, .. } => Some(self.part(permission_set)),
            Kind::Chosen { .. } | Kind::User { .. } => None,
        }
    }

    /// What people call whoever it is. For display only. What AWS doesn't vouch for has a `/` in it, which no name of a user has:
    /// `Deploy/alice` is somebody who is `Deploy` and calls himself alice.
    pub fn person(&self) -> &str {
        match &self.kind {
            Kind::Sso { name, .. } | Kind::User { name } => self.part(name),
            Kind::Chosen { shown, .. } => self.part(shown),
        }
    }

    /// Whether AWS vouches for [`Self::person`], so that it is always the same human or program.
    pub fn is_person_vouched_for(&self) -> bool {
        !matches!(self.kind, Kind::Chosen { .. })
    }

    /// What rules are compared with: the ARN, without a session name that the caller has chosen. It ends in `/` then, so that a
    /// pattern `…:assumed-role/ROLE/*` fits, and one that asks for a certain session name doesn't.
    pub fn canonical(&self) -> &str {
        match &self.kind {
            Kind::Chosen { name, .. } => self.part(&Place {
                from: 0,
                to: name.from,
            }),
            Kind::Sso { .. } | Kind::User { .. } => &self.arn,
        }
    }

    fn part(&self, place: &Place) -> &str {
        let Place { from, to } = *place;
        self.arn.get(from.into()..to.into()).unwrap_or_default()
    }
}

impl fmt::Debug for IamPrincipal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.arn)
    }
}

/// Names of roles, sessions and users (IAM User Guide, "IAM and AWS STS quotas, name requirements, and character limits").
fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    !text.is_empty() && text.len() <= 64 && text.bytes().all(is_allowed)
}

/// The name of a user, behind its path.
fn last(path: &str) -> Result<&str, BadArn> {
    let name = path.rsplit('/').next().unwrap_or_default();
    if is_name(name) {
        Ok(name)
    } else {
        Err(BadArn::Malformed)
    }
}

/// The permission set that the role belongs to, if it is one of IAM Identity Center's.
fn permission_set(role: &str) -> Option<&str> {
    let (set, suffix) = role.strip_prefix(SSO_ROLE)?.rsplit_once('_')?;
    let is_suffix = suffix.len() == SSO_SUFFIX_LEN
        && suffix
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    (is_suffix && !set.is_empty()).then_some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SSO: &str = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Data_Analyst_0123456789abcdef/alice@example.com";

    #[test]
    fn what_aws_vouches_for_is_told_from_what_a_caller_chooses() {
        let rows = [
            (SSO, SSO, "alice@example.com", Some("Data_Analyst"), true),
            (
                "arn:aws:sts::123456789012:assumed-role/Admin/alice",
                "arn:aws:sts::123456789012:assumed-role/Admin/",
                "Admin/alice",
                None,
                false,
            ),
            // Not as IAM Identity Center names them.
            (
                "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst/bob",
                "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_Analyst/",
                "AWSReservedSSO_Analyst/bob",
                None,
                false,
            ),
            (
                "arn:aws-us-gov:iam::123456789012:user/team/data/carol",
                "arn:aws-us-gov:iam::123456789012:user/team/data/carol",
                "carol",
                None,
                true,
            ),
            (
                "arn:aws-cn:sts::123456789012:federated-user/dave",
                "arn:aws-cn:sts::123456789012:federated-user/",
                "federated-user/dave",
                None,
                false,
            ),
        ];
        for (arn, canonical, person, set, is_vouched_for) in rows {
            let principal = IamPrincipal::parse(arn).unwrap();
            assert_eq!(principal.arn(), arn);
            assert_eq!(principal.canonical(), canonical);
            assert_eq!(principal.person(), person);
            assert_eq!(principal.permission_set(), set);
            assert_eq!(principal.is_person_vouched_for(), is_vouched_for);
            assert_eq!(principal.account(), "123456789012");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for arn in [
            "",
            "alice",
            "arn:aws:sts::123456789012:assumed-role/Admin",
            "arn:aws:sts::123456789012:assumed-role/Admin/",
            "arn:aws:sts::123456789012:assumed-role//alice",
            "arn:aws:sts::123456789012:assumed-role/Admin/alice/bob",
            "arn:aws:sts::123456789012:assumed-role/Admin/al ice",
            "arn:aws:sts::12345678901:assumed-role/Admin/alice",
            "arn:aws:sts:eu-west-1:123456789012:assumed-role/Admin/alice",
            "arn:awsx:sts::123456789012:assumed-role/Admin/alice",
            "arn:aws:iam::123456789012:role/Admin",
            "arn:aws:iam::123456789012:user/",
            "arn:aws:sts::123456789012:federated-user/a/b",
            "arn:aws:ec2::123456789012:user/alice",
            "urn:aws:iam::123456789012:user/alice",
        ] {
            assert_eq!(IamPrincipal::parse(arn), Err(BadArn::Malformed), "{arn}");
        }
        let long = format!("arn:aws:iam::123456789012:user/{}/alice", "a".repeat(1_024));
        assert_eq!(IamPrincipal::parse(&long), Err(BadArn::Malformed));
        assert_eq!(
            IamPrincipal::parse("arn:aws:iam::123456789012:root"),
            Err(BadArn::Root)
        );
    }
}
