//! One client's protocol state: who owes whom what, and which parameters the server has reported.
//!
//! Pure: bytes go in, facts come out. [`tracker`] decides when a server connection is clean;
//! [`parameters`] holds ParameterStatus values.

pub mod ledger;
pub mod parameters;
pub mod tracker;
