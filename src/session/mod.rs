//! One client's protocol state: who owes whom what, and what the session has.
//!
//! Pure: bytes go in, facts come out. `ledger` is the account of what is owed; [`tracker`] keeps it for a client that has a
//! server connection to itself, [`exchange`] for one that shares connections with others. What travels with a client is in
//! [`client`], what a rule holds it to in [`supervision`], what a server connection has of its clients in [`server`].

pub mod client;
pub mod doubt;
pub mod exchange;
pub mod ledger;
pub mod names;
pub mod parameters;
pub mod prepared;
pub mod ran;
pub mod server;
pub mod settings;
pub mod shape;
pub mod statements;
pub mod supervision;
pub mod tracker;
