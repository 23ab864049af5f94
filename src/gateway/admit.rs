//! The fourth step: may they? The rules decide on the canonical values of the request, and what isn't configured is
//! refused in the same words as what isn't allowed.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::error::ClientError;
use super::identify::Identified;
use super::presence::{Admission, InForce};
use super::route::{Request, Routed};
use super::seats::{Seat, Seats};
use crate::config::Target;
use crate::ids::PoolKey;
use crate::policy::{self, Decision, Terms};
use crate::session::settings::Setting;

/// A client that may use its pool.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) identified: Identified,
    pub(super) target: Arc<Target>,
    pub(super) pool: PoolKey,
    pub(super) settings: Vec<Setting>,
    /// By what.
    pub(super) admission: Admission,
    /// On which terms.
    pub(super) terms: Terms,
    /// When it must end by them.
    pub(super) ends: Option<Instant>,
}

/// Takes the step.
pub(super) fn admit(routed: Routed, in_force: InForce) -> Result<Admitted, Box<(Identified, ClientError)>> {
    let Routed { identified, request } = routed;
    let InForce { rules, seats } = &in_force;
    let Request {
        target_name,
        target,
        database,
        user,
        settings,
    } = request;
    let known = target.filter(|target| target.databases.contains(&database) && target.users.contains(&user));
    let at = SystemTime::now();
    let decision = known.as_ref().map(|target| {
        let principal = &identified.principal;
        rules.decide(&policy::Request {
            principal,
            document: identified.session.as_ref().map(|session| &*session.document),
            target: &target.name,
            database: &database,
            user: &user,
            at,
        })
    });
    match (known, decision) {
        (Some(target), Some(Decision::Allow { rule })) => {
            let pool = PoolKey {
                target: target.name.clone(),
                database,
                user,
            };
            let terms = rules.terms(rule, at);
            match take_seats(&identified, rule, &terms, seats) {
                Ok(seats) => Ok(Admitted {
                    identified,
                    target,
                    pool,
                    settings,
                    admission: Admission {
                        in_force,
                        rule,
                        _seats: seats,
                    },
                    terms,
                    ends: terms.max_duration.map(|longest| Instant::now() + longest),
                }),
                Err(error) => Err(Box::new((identified, error))),
            }
        }
        _ => {
            let error = ClientError::not_admitted(
                &identified.principal,
                &target_name,
                database.as_str(),
                user.as_str(),
            );
            Err(Box::new((identified, error)))
        }
    }
}

/// Those of the principal and of the session of Session Manager, as far as the rule allows only so many.
fn take_seats(
    identified: &Identified,
    rule: usize,
    terms: &Terms,
    seats: &Arc<Seats>,
) -> Result<Box<[Seat]>, ClientError> {
    let principal = &identified.principal;
    let of_principal = terms.max_clients.map(|most| {
        let seat = seats.take(rule, principal.to_string(), most);
        seat.ok_or_else(|| ClientError::too_many_of(principal, rule, most))
    });
    let session = identified.session.as_ref().map(|session| &*session.id);
    let of_session = terms.max_clients_per_session.zip(session).map(|(most, session)| {
        let seat = seats.take(rule, Seats::session(session), most);
        seat.ok_or_else(|| ClientError::too_many_of_session(session, rule, most))
    });
    of_principal.into_iter().chain(of_session).collect()
}
