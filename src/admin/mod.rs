//! What operations ask: HTTP for metrics and health.

pub mod http;
