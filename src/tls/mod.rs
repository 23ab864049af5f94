//! TLS, both ways. The only module that names rustls.
//!
//! Two configurations come from here, an [`Acceptor`] for clients and a [`Connector`] for servers, and one thing
//! that both give: a [`Session`], which turns records into plaintext and back and never touches a socket.
//! There is no way to get a [`Connector`] that doesn't verify the whole chain and the name.

mod client;
mod failure;
mod roots;
mod server;
mod session;

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt as _;
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use client::Connector;
pub use failure::Failure;
pub use roots::{Roots, RootsError};
pub use server::{Acceptor, CertificateError};
pub use session::Session;

/// The protocol name that direct TLS must negotiate (PostgreSQL documentation, "SSL Session Encryption").
pub const ALPN_POSTGRESQL: &[u8] = b"postgresql";

/// A configuration for AWS's own endpoints, whose certificates the host's roots vouch for.
pub fn public() -> std::io::Result<ClientConfig> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .with_native_roots()?
        .with_no_client_auth())
}

/// P-256 first: PostgreSQL up to 17 speaks only that by default (`ssl_ecdh_curve = prime256v1`), and a first guess
/// at X25519 costs a HelloRetryRequest, one more round trip (measured against PostgreSQL 15, 2026-11).
fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519};
    Arc::new(CryptoProvider {
        kx_groups: vec![SECP256R1, X25519, SECP384R1],
        ..aws_lc_rs::default_provider()
    })
}
