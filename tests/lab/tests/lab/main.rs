//! Tests of the lab itself: it lets in what RDS lets in, refuses what RDS refuses, and the real AWS SDK takes it for AWS.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

mod aws;
mod client;
mod faults;
mod pam;
mod server;
mod tokens;
