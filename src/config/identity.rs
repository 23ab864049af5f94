//! How callers prove who they are, as it is written.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::error::ConfigError;
use super::target::is_region;
use super::{Identity, Ssm, file};
use crate::identity::sts::Accepts;
use crate::identity::{Source, Verifier};
use crate::policy::Glob;

/// The sources that are written, with what they need. `of_targets`: their regions, if all are known.
pub(super) fn identity(
    typed: &file::Identity,
    of_targets: &BTreeSet<String>,
) -> Result<Identity, ConfigError> {
    let sources = typed
        .sources
        .iter()
        .map(|name| {
            name.parse()
                .map_err(|error| ConfigError::value("identity.sources", format!("{error}")))
        })
        .collect::<Result<Vec<Source>, _>>()?;
    if sources.is_empty() {
        return Err(ConfigError::value(
            "identity.sources",
            "is empty, so nobody could come in; expected \"ssm\", \"sts\", \"scram\" or \"trust\"",
        ));
    }
    let first_final = sources.iter().position(|source| *source != Source::Ssm);
    if first_final.is_some_and(|first| first + 1 < sources.len())
        || sources.iter().filter(|source| **source == Source::Ssm).count() > 1
    {
        let message = "names something behind what decides for good; only \"ssm\" may be followed by another, by one of \"sts\", \"scram\" and \"trust\"";
        return Err(ConfigError::value("identity.sources", message));
    }
    let verifiers = typed.scram.verifiers.iter().map(|(name, text)| {
        let verifier: Verifier = text.parse().map_err(|error| {
            ConfigError::value(format!("identity.scram.verifiers.{name}"), format!("{error}"))
        })?;
        Ok((name.clone(), Arc::new(verifier)))
    });
    let verifiers = verifiers.collect::<Result<HashMap<_, _>, ConfigError>>()?;
    if sources.contains(&Source::Scram) && verifiers.is_empty() {
        return Err(ConfigError::value(
            "identity.scram.verifiers",
            "is empty, but \"scram\" is among the sources",
        ));
    }
    let documents = &typed.ssm.documents;
    if sources.contains(&Source::Ssm) && documents.is_empty() {
        return Err(ConfigError::value(
            "identity.ssm.documents",
            "is empty, so no session would do; expected names of documents, such as \"AWS-StartPortForwardingSession\"",
        ));
    }
    let asks = sources.contains(&Source::Ssm) && typed.ssm.source != file::SsmSource::AgentState;
    let ssm = Ssm {
        socket: typed.ssm.socket.clone(),
        documents: documents.iter().map(|text| Glob::new(text)).collect(),
        source: typed.ssm.source,
        region: if asks {
            Some(region(&typed.ssm, of_targets)?)
        } else {
            None
        },
    };
    let sts = if sources.contains(&Source::Sts) {
        Some(accepts(&typed.sts, of_targets)?)
    } else {
        None
    };
    Ok(Identity {
        sources,
        verifiers,
        ssm,
        sts,
    })
}

/// Where Session Manager is asked.
fn region(typed: &file::Ssm, of_targets: &BTreeSet<String>) -> Result<String, ConfigError> {
    match (&typed.region, of_targets.first()) {
        (Some(region), _) if is_region(region) => Ok(region.clone()),
        (None, Some(only)) if of_targets.len() == 1 => Ok(only.clone()),
        _ => Err(ConfigError::value(
            "identity.ssm.region",
            "must be the region of this host, such as \"eu-west-1\": identity.ssm.source asks Session Manager there",
        )),
    }
}

fn accepts(typed: &file::Sts, of_targets: &BTreeSet<String>) -> Result<Accepts, ConfigError> {
    let is_name =
        |name: &&String| (1..=128).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    let Some(gateway) = typed.gateway.as_ref().filter(is_name) else {
        return Err(ConfigError::value(
            "identity.sts.gateway",
            "must be a name if \"sts\" is among the sources, such as that of the host: up to 128 printable ASCII characters \
             without spaces. Callers sign it, so that what they prove to one gateway is nothing to another",
        ));
    };
    let is_account =
        |account: &String| account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    if typed.accounts.is_empty() || !typed.accounts.iter().all(is_account) {
        return Err(ConfigError::value(
            "identity.sts.accounts",
            "must be a list of AWS accounts whose principals may come, such as [\"123456789012\"], if \"sts\" is among the sources: \
             whoever has an account can give his roles and users any name in it",
        ));
    }
    let mut regions = match &typed.regions {
        Some(regions) => regions.clone(),
        None => of_targets.iter().cloned().collect(),
    };
    regions.sort_unstable();
    regions.dedup();
    if regions.is_empty() || !regions.iter().all(|region| is_region(region)) {
        return Err(ConfigError::value(
            "identity.sts.regions",
            "must be a list of regions, such as [\"eu-west-1\"]",
        ));
    }
    Ok(Accepts {
        gateway: gateway.clone(),
        accounts: typed.accounts.clone(),
        regions,
    })
}
