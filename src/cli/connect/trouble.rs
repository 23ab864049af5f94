//! What `aws` says when it can't, and what whoever reads it can do.
//!
//! Its messages are for people, so they are shown as they are; the codes in them are the APIs' own (Systems Manager API Reference, `StartSession`; EC2 API
//! Reference, "Error codes"; botocore/exceptions.py for what is found out before a call).

use std::fmt;

/// An `aws` that ended with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// What couldn't be done.
    pub(super) what: String,
    /// What `aws` has said.
    pub(super) said: String,
    pub(super) kind: Kind,
    /// What to do next.
    pub(super) remedy: String,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The login of IAM Identity Center, or keys, have run out.
    Expired,
    /// There are no credentials.
    Missing,
    /// IAM doesn't let.
    Denied,
    /// Session Manager doesn't know the instance, or has no connection with it.
    NotConnected,
    /// The document or its parameters aren't right.
    Document,
    /// No region.
    Region,
    /// No such profile.
    Profile,
    /// The local port is taken.
    Port,
    /// Something else.
    Other,
}

/// What is looked for in what `aws` says, the first that is there.
const SIGNS: &[(&str, Kind)] = &[
    ("aws sso login", Kind::Expired),
    ("aws login", Kind::Expired),
    ("Error loading SSO Token", Kind::Expired),
    ("Error when retrieving token from sso", Kind::Expired),
    ("ExpiredToken", Kind::Expired),
    ("RequestExpired", Kind::Expired),
    ("Unable to locate credentials", Kind::Missing),
    ("InvalidClientTokenId", Kind::Missing),
    ("UnrecognizedClientException", Kind::Missing),
    ("AuthFailure", Kind::Missing),
    ("AccessDenied", Kind::Denied),
    ("UnauthorizedOperation", Kind::Denied),
    ("TargetNotConnected", Kind::NotConnected),
    ("InvalidTarget", Kind::NotConnected),
    ("InvalidDocument", Kind::Document),
    ("InvalidParameters", Kind::Document),
    ("You must specify a region", Kind::Region),
    ("The config profile", Kind::Profile),
    ("address already in use", Kind::Port),
];

impl Trouble {
    /// Reads what was said about something that couldn't be done.
    pub(super) fn read(what: impl Into<String>, said: &str, profile: Option<&str>) -> Self {
        let kind = SIGNS
            .iter()
            .find(|(sign, _)| said.contains(sign))
            .map_or(Kind::Other, |(_, kind)| *kind);
        Self {
            what: what.into(),
            said: said.trim().to_owned(),
            kind,
            remedy: kind.remedy(profile),
        }
    }
}

impl Kind {
    fn remedy(self, profile: Option<&str>) -> String {
        let option = profile.map_or_else(String::new, |name| format!(" --profile {name}"));
        match self {
            Self::Expired => format!("log in anew, with: aws sso login{option}"),
            Self::Missing => "aws needs credentials: name a profile with --profile or AWS_PROFILE, or make one with: aws configure sso".to_owned(),
            Self::Denied => {
                "ask whoever gives out permissions for ssm:StartSession on the instance and on the document, and for ec2:DescribeInstances to find it by its tag \
                 (or name it with --bastion)"
                    .to_owned()
            }
            Self::NotConnected => {
                "see whether the instance runs and its SSM agent is registered, in this account and region: \
                 aws ssm get-connection-status --target ID"
                    .to_owned()
            }
            Self::Document => {
                "see which parameters the document has (aws ssm get-document --name NAME): one that pins the port takes no --remote-port, \
                 and each needs localPortNumber"
                    .to_owned()
            }
            Self::Region => "name the bastion's region with --region or AWS_REGION".to_owned(),
            Self::Profile => "aws configure list-profiles says which there are".to_owned(),
            Self::Port => "choose another port of this computer with --local-port".to_owned(),
            Self::Other => format!("try it by hand: aws sts get-caller-identity{option} says whether the AWS CLI works at all"),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.said.is_empty() {
            write!(f, ": {}", self.said)?;
        }
        write!(f, "\nWhat to do: {}", self.remedy)
    }
}

impl std::error::Error for Trouble {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_aws_says_is_understood() {
        let rows = [
            (
                "Error when retrieving token from sso: Token has expired and refresh failed",
                Kind::Expired,
            ),
            (
                "The SSO session associated with this profile has expired or is otherwise invalid. To refresh this SSO session run aws sso login with the corresponding profile.",
                Kind::Expired,
            ),
            (
                "An error occurred (ExpiredTokenException) when calling the StartSession operation: The security token included in the request is expired",
                Kind::Expired,
            ),
            (
                "An error occurred (RequestExpired) when calling the DescribeInstances operation: Request has expired.",
                Kind::Expired,
            ),
            (
                "Unable to locate credentials. You can configure credentials by running \"aws configure\".",
                Kind::Missing,
            ),
            (
                "An error occurred (AccessDeniedException) when calling the StartSession operation: User: arn:aws:iam::1:user/a is not authorized to perform: ssm:StartSession",
                Kind::Denied,
            ),
            (
                "An error occurred (UnauthorizedOperation) when calling the DescribeInstances operation: You are not authorized to perform this operation.",
                Kind::Denied,
            ),
            (
                "An error occurred (TargetNotConnected) when calling the StartSession operation: i-1 is not connected.",
                Kind::NotConnected,
            ),
            (
                "An error occurred (InvalidDocument) when calling the StartSession operation: Document with name X does not exist.",
                Kind::Document,
            ),
            (
                "You must specify a region. You can also configure your region by running \"aws configure\".",
                Kind::Region,
            ),
            ("The config profile (x) could not be found", Kind::Profile),
            (
                "Unable to start: listen tcp 127.0.0.1:5432: bind: address already in use",
                Kind::Port,
            ),
            (
                "Could not connect to the endpoint URL: \"https://ssm.eu-west-1.amazonaws.com/\"",
                Kind::Other,
            ),
        ];
        for (said, kind) in rows {
            assert_eq!(Trouble::read("x", said, None).kind, kind, "{said}");
        }
        let trouble = Trouble::read("no session", "Error loading SSO Token", Some("work"));
        assert_eq!(
            trouble.to_string(),
            "no session: Error loading SSO Token\nWhat to do: log in anew, with: aws sso login --profile work"
        );
    }
}
