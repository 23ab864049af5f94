//! The fourth step: may they? The rules decide on the canonical values of the request, and what isn't configured is
//! refused in the same words as what isn't allowed: with what they may use instead.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use super::error::ClientError;
use super::identify::Identified;
use super::negotiate::Conversation;
use super::offers::Offers;
use super::presence::{Admission, InForce, Presence};
use super::route::{Request, Routed};
use super::seats::{Seat, Seats};
use crate::config::{Absent, Target};
use crate::ids::{PoolKey, TargetName};
use crate::policy::{self, Decision, Terms};
use crate::session::settings::Setting;
use crate::wire::startup::ProtocolVersion;

/// A client that may use its pool.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) conversation: Conversation,
    pub(super) version: ProtocolVersion,
    /// Who it is, by which rule it is in, and which pool is its.
    pub(super) presence: Rc<Presence>,
    pub(super) settings: Vec<Setting>,
    /// On which terms.
    pub(super) terms: Terms,
    /// When it must end by them.
    pub(super) ends: Option<Instant>,
}

/// Takes the step, for a client that comes `from` there.
pub(super) fn admit(
    routed: Routed,
    in_force: InForce,
    targets: &[Arc<Target>],
    absent: &[Absent],
    from: Option<SocketAddr>,
) -> Result<Admitted, Box<(Identified, ClientError)>> {
    let Routed { identified, request } = routed;
    let Request {
        target_name,
        target,
        database,
        user,
        settings,
    } = request;
    // As it is now: who it is took a while to find out.
    let target = target.and_then(|target| targets.iter().find(|now| now.name == target.name));
    let known = target.filter(|target| target.databases.contains(&database) && target.users.contains(&user));
    let at = SystemTime::now();
    let decide = |target: &TargetName| {
        in_force.rules.decide(&policy::Request {
            principal: &identified.principal,
            document: identified.session.as_ref().map(|session| &*session.document),
            target,
            database: &database,
            user: &user,
            at,
        })
    };
    let decision = known.as_ref().map(|target| decide(&target.name));
    let (Some(target), Some(Decision::Allow { rule })) = (known, decision) else {
        let offers = Offers::to(&identified, &in_force.rules, targets);
        let error = match target_name {
            None => ClientError::no_target(&offers),
            Some(name) => {
                let is_meant = |absent: &&Absent| {
                    let is_called =
                        absent.is_called(&name) && !targets.iter().any(|known| known.name.as_str() == name);
                    is_called && absent.databases.contains(&database) && absent.users.contains(&user)
                };
                let absent = absent.iter().find(is_meant);
                // Who may go there is told more.
                let is_admitted = || matches!(decide(&name.as_str().into()), Decision::Allow { .. });
                match absent.filter(|_| is_admitted()) {
                    Some(absent) => ClientError::absent(&name, &absent.told),
                    None => {
                        let asked = [name.as_str(), database.as_str(), user.as_str()];
                        ClientError::not_admitted(&identified.principal, asked, &offers)
                    }
                }
            }
        };
        return Err(Box::new((identified, error)));
    };
    let terms = in_force.rules.terms(rule, at);
    let seats = match take_seats(&identified, rule, &terms, &in_force.seats) {
        Ok(seats) => seats,
        Err(error) => return Err(Box::new((identified, error))),
    };
    let Identified {
        conversation,
        version,
        principal,
        source,
        session,
    } = identified;
    let admission = Admission {
        in_force,
        rule,
        _seats: seats,
    };
    let pool = PoolKey {
        target: target.name.clone(),
        database,
        user,
    };
    let presence = Presence::new(principal, source, session, pool, from, None, admission);
    Ok(Admitted {
        conversation,
        version,
        presence: Rc::new(presence),
        settings,
        terms,
        ends: terms.max_duration.map(|longest| Instant::now() + longest),
    })
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
