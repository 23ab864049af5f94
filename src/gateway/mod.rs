//! A client's way through: accept → negotiate → identify → route → authorise → greet → attach → pump → give back.
//!
//! One direction only. Each step takes what the step before it has learnt and hands on a value of its own
//! (`negotiate::Negotiated` → `identify::Identified` → `route::Routed` → `admit::Admitted`), so that no step can
//! run before the one it depends on. All of it runs on one data thread per client; [`Shard`] is what a thread has.

mod accept;
mod admit;
mod attach;
mod cancel;
mod clients;
mod console;
mod deadlines;
mod error;
mod identify;
mod login;
mod multiplex;
mod negotiate;
mod offers;
mod presence;
mod pump;
mod record;
mod route;
mod seats;
mod serve;
mod shard;

pub use cancel::Cancels;
pub use error::ErrorKind;
pub use identify::Asked;
pub use presence::{Current, InForce};
pub use shard::{Asker, Failing, Readiness, Shard, Shared, Shutdown};
