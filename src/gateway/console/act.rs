//! What changes something.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::sleep;

use super::command::Act;
use super::pools::name;
use super::refusal;
use crate::gateway::presence::{Ending, Presence};
use crate::gateway::shard::{Shard, Shutdown};
use crate::upstream::pool::ServerPool;
use crate::wire::reply::{Report, Severity};
use crate::wire::sqlstate;

/// Between two looks whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// What has come of it: the command's tag, and what else there is to say.
pub(super) type Outcome = Result<(String, Option<Report>), Box<Report>>;

fn done(tag: &str) -> Outcome {
    Ok((tag.to_owned(), None))
}

impl Act {
    /// Does it. PAUSE and WAIT_CLOSE take until servers are free of clients; who goes meanwhile leaves things as they are then.
    pub(super) async fn run(&self, shard: &Rc<Shard>) -> Outcome {
        match self {
            // Also one at the console.
            Self::KillClient(id) => {
                let ended = shard.clients.each(|session, presence| {
                    if session.to_string() == *id {
                        presence.end(Ending::Killed);
                    }
                });
                done(&format!("KILL {ended}"))
            }
            Self::KillPerson(name) => kill(shard, |presence| {
                presence.principal.person() == Some(name) || presence.principal.to_string() == *name
            }),
            Self::KillSession(id) => kill(shard, |presence| {
                let session = presence.session.as_ref();
                session.is_some_and(|session| *session.id == **id)
            }),
            Self::Kill(database) => {
                let pools = pools(shard, database.as_deref())?;
                pools.iter().for_each(|pool| pool.pause());
                kill(shard, |presence| {
                    pools.iter().any(|pool| *pool.key() == presence.pool)
                })
            }
            Self::Pause(database) => {
                let pools = pools(shard, database.as_deref())?;
                pools.iter().for_each(|pool| pool.pause());
                while pools
                    .iter()
                    .any(|pool| pool.is_paused() && pool.census().leased > 0)
                {
                    sleep(LOOK).await;
                }
                done("PAUSE")
            }
            Self::Resume(database) => {
                let pools = pools(shard, database.as_deref())?;
                if !pools.iter().any(|pool| pool.is_paused()) {
                    let report = refusal(
                        sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
                        "nothing of that is paused",
                        "SHOW DATABASES says what is.",
                    );
                    return Err(Box::new(report));
                }
                pools.iter().for_each(|pool| pool.resume());
                done("RESUME")
            }
            Self::Reconnect(database) => {
                pools(shard, database.as_deref())?
                    .iter()
                    .for_each(|pool| pool.reconnect());
                done("RECONNECT")
            }
            Self::WaitClose(database) => {
                let pools = pools(shard, database.as_deref())?;
                while pools.iter().any(has_retired) {
                    sleep(LOOK).await;
                }
                done("WAIT_CLOSE")
            }
            Self::Disable(database) => {
                pools(shard, Some(database))?
                    .iter()
                    .for_each(|pool| pool.disable(true));
                done("DISABLE")
            }
            Self::Enable(database) => {
                pools(shard, Some(database))?
                    .iter()
                    .for_each(|pool| pool.disable(false));
                done("ENABLE")
            }
            Self::Drain(database) => {
                let pools = pools(shard, Some(database))?;
                pools.iter().for_each(|pool| pool.disable(true));
                let ended = shard.clients.each(|_, presence| {
                    if presence.console.is_none() && pools.iter().any(|pool| *pool.key() == presence.pool) {
                        presence.end(Ending::Drained);
                    }
                });
                shard.hurry_later();
                done(&format!("DRAIN {ended}"))
            }
            Self::Reload => reload(shard).await,
            Self::Shutdown => {
                shard.shared.end(Shutdown::Now);
                done("SHUTDOWN")
            }
            Self::ShutdownWaitForServers => {
                shard.shared.end(Shutdown::Drain);
                done("SHUTDOWN")
            }
        }
    }
}

async fn reload(shard: &Rc<Shard>) -> Outcome {
    match shard.shared.reload().await {
        Ok(told) => {
            // Before it is answered.
            shard.enforce();
            let notice = Report {
                severity: Severity::Notice,
                hint: None,
                ..refusal(sqlstate::SUCCESSFUL_COMPLETION, &told, "")
            };
            Ok(("RELOAD".to_owned(), Some(notice)))
        }
        Err(error) => Err(Box::new(refusal(
            sqlstate::OBJECT_NOT_IN_PREREQUISITE_STATE,
            &error,
            "Mend it and RELOAD again; until then, all goes on as before.",
        ))),
    }
}

fn has_retired(pool: &Rc<ServerPool>) -> bool {
    let mut has = false;
    pool.each_entry(|_, is_retired| has |= is_retired);
    has
}

/// The pools of that database, by the name that SHOW DATABASES has, of that target, or all.
fn pools(shard: &Shard, named: Option<&str>) -> Result<Vec<Rc<ServerPool>>, Box<Report>> {
    let is_meant = |pool: &Rc<ServerPool>| {
        let key = pool.key();
        named.is_none_or(|named| key.target.as_str() == named || name(key) == named)
    };
    let all = shard.pools().into_iter().chain(shard.leaving());
    let pools: Vec<_> = all.filter(is_meant).collect();
    if pools.is_empty() {
        let message = format!("there is no database \"{}\"", named.unwrap_or_default());
        let hint = "SHOW DATABASES has the names; that of a target stands for all of its databases.";
        return Err(Box::new(refusal(sqlstate::INVALID_CATALOG_NAME, &message, hint)));
    }
    Ok(pools)
}

/// Ends the connections that are meant, but for those to the console. The tag has their number.
fn kill(shard: &Shard, is_meant: impl Fn(&Presence) -> bool) -> Outcome {
    let ended = shard.clients.each(|_, presence| {
        if presence.console.is_none() && is_meant(presence) {
            presence.end(Ending::Killed);
        }
    });
    done(&format!("KILL {ended}"))
}
