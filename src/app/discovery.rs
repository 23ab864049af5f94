//! Looking for the databases that the configuration doesn't say where they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::aws::credentials::{CredentialCache, Keys, jitter};
use crate::aws::rds::{self, NotDescribed};
use crate::config::{Config, Target};
use crate::discovery::{Described, Found, Search, Selector, pause};
use crate::metrics::Metrics;

/// How long one region may take to list what it has.
const LISTED_WITHIN: Duration = Duration::from_secs(20);

/// How long the metadata service may take to say which region this is.
const REGION_WITHIN: Duration = Duration::from_secs(5);

/// How long the first look for targets may hold up a start or a reload.
pub(super) const FIRST_LOOK_WITHIN: Duration = Duration::from_secs(5);

/// Looks are so far apart at least, however often somebody reloads.
const APART: Duration = Duration::from_secs(1);

/// Asks RDS again and again.
pub(super) struct Explorer {
    pub(super) credentials: CredentialCache,
    pub(super) metrics: Arc<Metrics>,
    /// What is looked for.
    pub(super) wanted: watch::Receiver<Vec<Search>>,
    /// What was found.
    pub(super) found: watch::Sender<Found>,
}

impl Explorer {
    /// Looks for as long as it is polled: at once when something else is wanted.
    pub(super) async fn run(mut self) {
        self.credentials.loaded().await;
        let (mut failed, mut looks) = (0, 0);
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            if wanted.is_empty() {
                self.found
                    .send_if_modified(|found| std::mem::take(found) != Found::default());
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let next = Instant::now() + APART;
            looks += 1;
            let trouble = self.look(&wanted, looks).await;
            failed = if trouble.is_empty() { 0 } else { failed + 1 };
            self.metrics.discovery.looked(trouble.is_empty());
            // Once, and then as often as it is waited for long.
            if failed == 1 || failed > 5 {
                for trouble in &trouble {
                    warn!("databases are looked for in vain, those that are known go on: {trouble}");
                }
            }
            let has_all = {
                let found = self.found.borrow();
                wanted
                    .iter()
                    .all(|search| found.databases(search).next().is_some())
            };
            let pause = pause(failed, has_all, jitter());
            tokio::select! {
                () = sleep(pause) => {}
                changed = self.wanted.changed() => if changed.is_err() { return },
            }
            sleep_until(next).await;
        }
    }

    /// Takes one look, of that number. What RDS couldn't be asked, and why not.
    async fn look(&self, wanted: &[Search], look: u64) -> Vec<String> {
        let mut found = self.found.borrow().clone();
        let mut trouble = Vec::new();
        match self.credentials.keys(SystemTime::now()) {
            Ok(keys) => {
                for (searches, looked) in look_everywhere(wanted, &keys).await {
                    match looked {
                        Ok((region, all)) => searches
                            .iter()
                            .for_each(|search| found.answered(search, &all, &region, look)),
                        Err(error) => {
                            let reason = error.to_string();
                            searches.iter().for_each(|search| found.failed(search, &reason));
                            trouble.push(reason);
                        }
                    }
                }
            }
            Err(error) => {
                let reason = error.to_string();
                wanted.iter().for_each(|search| found.failed(search, &reason));
                trouble.push(reason);
            }
        }
        // What is wanted by now: a reload may have brought back what this look wasn't for, and that is known.
        found.keep(&self.wanted.borrow());
        self.found.send_if_modified(|known| {
            let is_new = *known != found;
            *known = found;
            is_new
        });
        trouble
    }
}

/// What one region has, and which that is.
type Listed = Result<(String, Vec<Described>), NotDescribed>;

/// Asks all regions at the same time: one that hangs doesn't hold up the others.
async fn look_everywhere(wanted: &[Search], keys: &Arc<Keys>) -> Vec<(Vec<Search>, Listed)> {
    let mut looking = JoinSet::new();
    for (region, searches) in by_region(wanted) {
        let (region, keys) = (region.map(str::to_owned), keys.clone());
        looking.spawn(async move {
            let listed = look_in(region.as_deref(), &searches, &keys).await;
            (searches, listed)
        });
    }
    let mut looked = Vec::new();
    while let Some(ended) = looking.join_next().await {
        // An error would be a panic, which has told of itself.
        looked.extend(ended);
    }
    looked
}

/// What RDS has of what is looked for in a region, this host's if none is given, and which region that is.
async fn look_in(region: Option<&str>, searches: &[Search], keys: &Keys) -> Listed {
    let region = match region {
        Some(region) => region.to_owned(),
        None => match timeout(REGION_WITHIN, rds::own_region()).await {
            Ok(Some(region)) => region,
            Ok(None) | Err(_) => {
                let reason = "it isn't known in which region this host is: give the target a region";
                return Err(NotDescribed::Unavailable(reason.to_owned()));
            }
        },
    };
    let selectors: Vec<&Selector> = searches.iter().map(|search| &search.selector).collect();
    let of_region = |reason: String| NotDescribed::Unavailable(format!("RDS in {region}: {reason}"));
    match timeout(LISTED_WITHIN, rds::list(keys, &region, &selectors)).await {
        Ok(Ok(all)) => Ok((region, all)),
        Ok(Err(NotDescribed::Unavailable(reason))) => Err(of_region(reason)),
        Ok(Err(other)) => Err(other),
        Err(_) => Err(of_region(format!(
            "no answer within {} s",
            LISTED_WITHIN.as_secs()
        ))),
    }
}

/// What is found of `config` by one look, and where RDS couldn't be asked.
pub async fn look_once(config: &Config, keys: &Arc<Keys>) -> (Found, Vec<(Search, NotDescribed)>) {
    let searches = searches(config);
    let (mut found, mut refused) = (Found::default(), Vec::new());
    for (searches, looked) in look_everywhere(&searches, keys).await {
        match looked {
            Ok((region, all)) => searches
                .iter()
                .for_each(|search| found.answered(search, &all, &region, 0)),
            Err(error) => {
                for search in searches {
                    found.failed(&search, &error.to_string());
                    refused.push((search, error.clone()));
                }
            }
        }
    }
    (found, refused)
}

/// Logs which targets of `config` were discovered, beside those that are `written`, that weren't there `before`, or were elsewhere.
pub(super) fn tell_discovered(before: &[Arc<Target>], written: &Config, config: &Config) {
    for target in config.discovered(written) {
        let is_same =
            |known: &Arc<Target>| (&known.name, &known.endpoint) == (&target.name, &target.endpoint);
        if !before.iter().any(is_same) {
            info!(target = %target.name, endpoint = %target.endpoint, "a target was discovered");
        }
    }
}

/// What is to be looked for.
pub(super) fn searches(config: &Config) -> Vec<Search> {
    let mut searches: Vec<Search> = Vec::new();
    for discovery in &*config.discoveries {
        if !searches.contains(&discovery.search) {
            searches.push(discovery.search.clone());
        }
    }
    searches
}

/// The searches by the region that each names.
fn by_region(searches: &[Search]) -> BTreeMap<Option<&str>, Vec<Search>> {
    let mut by_region: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for search in searches {
        by_region
            .entry(search.region.as_deref())
            .or_default()
            .push(search.clone());
    }
    by_region
}
