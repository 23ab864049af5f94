//! TLS to a server: the whole chain and the name are verified, always.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::{ALPN_POSTGRESQL, Failure, Roots, Session, provider};

/// Opens sessions to one endpoint.
#[derive(Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Connector {
    /// For the server that calls itself `host`, under one of `roots`.
    pub fn new(host: &str, roots: &Roots) -> Result<Self, Failure> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Failure::Protocol(format!("\"{host}\" is not a valid server name")))?;
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::new(&error, host))?
            .with_root_certificates(roots.0.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }

    /// A new session, whose handshake hasn't begun.
    pub fn connect(&self) -> Result<Session, Failure> {
        let host = self.name.to_str();
        let connection = ClientConnection::new(self.config.clone(), self.name.clone())
            .map_err(|error| Failure::new(&error, &host))?;
        Ok(Session::new(connection.into(), host.into()))
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connector({:?})", self.name)
    }
}
