//! Everything that needs a running gateway, a lab or the source tree, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that can't go on has failed"
)]

mod attribution;
mod audit;
mod budget;
mod cancel;
mod catalogs;
mod check;
mod connect;
mod console;
mod corpus;
mod deadlines;
mod discovery;
mod drivers;
mod exchange;
mod gateway;
mod hostile;
mod isolation;
mod layers;
mod leak_hunt;
mod leaks;
mod login;
mod metrics;
mod pipelines;
mod pool;
mod proofs;
mod raw;
mod read_only;
mod readme;
mod reload;
mod routing;
mod rules;
mod sharing;
mod short;
mod sql;
mod tokens;
mod upstream;
