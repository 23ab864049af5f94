//! Which instance the forward goes to.

use anyhow::ensure;

use super::awscli::Aws;
use super::trouble::{Kind, Trouble};

/// How the instance is known.
#[derive(Debug)]
pub(super) enum Bastion {
    /// By its id.
    Named(String),
    /// By a tag.
    Tagged { key: String, value: String },
}

impl Bastion {
    pub(super) fn named(id: &str) -> anyhow::Result<Self> {
        // `mi-` are hosts outside of EC2 that are registered with Systems Manager.
        let digits = id.strip_prefix("i-").or_else(|| id.strip_prefix("mi-"));
        ensure!(
            digits.is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit())),
            "\"{id}\" is no id of an instance; expected one such as i-0123456789abcdef0"
        );
        Ok(Self::Named(id.to_owned()))
    }

    pub(super) fn tagged(tag: &str) -> anyhow::Result<Self> {
        let (key, value) = tag.split_once('=').unwrap_or_default();
        ensure!(
            !key.is_empty(),
            "\"{tag}\" is no tag; expected KEY=VALUE, such as postern=bastion"
        );
        Ok(Self::Tagged {
            key: key.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// Reads which instances there are, the one that was started last first.
pub(super) fn instances(
    out: &str,
    error: &str,
    key: &str,
    value: &str,
    aws: &Aws,
) -> Result<Vec<String>, Trouble> {
    let profile = aws.profile();
    let Ok(ids) = serde_json::from_str::<Vec<String>>(out) else {
        let said = if error.trim().is_empty() { out } else { error };
        let what = format!("cannot find the bastion by its tag {key}={value}");
        return Err(Trouble::read(what, said, profile.as_deref()));
    };
    if ids.is_empty() {
        return Err(Trouble {
            what: format!("no running instance has the tag {key}={value}"),
            said: String::new(),
            kind: Kind::Other,
            remedy: "see whether profile and region are those of the bastion (--profile, --region), give its tag with --tag KEY=VALUE, \
                     or its id with --bastion"
                .to_owned(),
        });
    }
    Ok(ids)
}
