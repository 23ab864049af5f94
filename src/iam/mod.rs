//! IAM database logins as a matter of time and number: how long a token is good for, when to make the
//! next one, and how often the database may be asked to check one.
//!
//! Decisions only. Signing a token and fetching credentials are an adapter's business, logging in is
//! a service's; both bring the time and the randomness along as arguments.
//!
//! * [`governor`]: the login budget of one database endpoint.
//! * [`validity`]: lifetimes of tokens and credentials, and the text of a user name within a token.

pub mod governor;
pub mod validity;

pub use governor::{Budget, BudgetError, Governor, LoginOutcome, Outcome, Ticket, Verdict};
pub use validity::{DbUserError, TokenTimes, credentials_refresh_at, encode_db_user};
