//! Postern: a PostgreSQL gateway for bastion hosts in front of RDS and Aurora.
//!
//! It terminates PostgreSQL connections, finds out who is calling, mints RDS IAM tokens with the host's role, and lends
//! each client a pooled TLS connection.
//!
//! # Layers
//!
//! A module may use lower layers, siblings only where a test lists them, and never a higher one.
//!
//! | layer | modules | may touch |
//! |---|---|---|
//! | 0 words | [`wire`], [`sql`], [`ids`] | bytes |
//! | 1 decisions | [`session`], [`pin`], [`pool`], [`identity`], [`policy`], [`iam`], [`discovery`] | time and randomness that are passed in |
//! | 2 adapters | [`net`], [`tls`], [`aws`], [`peer`], [`config`] | sockets, rustls, the AWS SDK, files |
//! | 3 services | [`upstream`], [`metrics`], [`admin`], [`telemetry`] | tokio |
//! | 4 gateway | [`gateway`], [`app`], [`cli`] | all of it |
//!
//! # Where to begin
//!
//! [`wire::frame`] → [`session::tracker`] → [`pool`] → `gateway/pump.rs` → `gateway/serve.rs`; then [`iam::governor`] and
//! `upstream/login.rs` for the way of a token.

pub mod admin;
pub mod app;
pub mod audit;
pub mod aws;
pub mod cli;
pub mod config;
pub mod discovery;
pub mod gateway;
pub mod iam;
pub mod identity;
pub mod ids;
pub mod metrics;
pub mod net;
pub mod peer;
pub mod pin;
pub mod policy;
pub mod pool;
pub mod session;
pub mod sql;
pub mod telemetry;
pub mod tls;
pub mod upstream;
pub mod wire;
