//! TLS to clients: a certificate from files, or one that is made at every start.

use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use super::{ALPN_POSTGRESQL, Failure, Session, provider};

/// Accepts sessions from clients.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    end_point: Option<Arc<[u8]>>,
}

/// Why a certificate or its key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file of certificates can't be read or isn't PEM.
    #[error("cannot read certificates: {0}")]
    Certificate(String),
    /// The file of the key can't be read or isn't PEM.
    #[error("cannot read the private key: {0}")]
    Key(String),
    /// They don't belong together, or the key is of a kind that isn't supported.
    #[error("certificate and key can't be used together: {0}")]
    Mismatch(String),
    /// No self-signed certificate could be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(String),
}

impl Acceptor {
    /// With the chain and the key in two PEM files.
    pub fn from_files(certificates: &Path, key: &Path) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| CertificateError::Certificate(format!("{}: {error}", certificates.display())))?;
        if chain.is_empty() {
            let reason = format!("{}: there is no certificate in it", certificates.display());
            return Err(CertificateError::Certificate(reason));
        }
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| CertificateError::Key(format!("{}: {error}", key.display())))?;
        Self::new(chain, key)
    }

    /// With a certificate of its own for `localhost`, made now and gone with the process. It encrypts; it proves
    /// nothing to a client that doesn't know it.
    pub fn self_signed() -> Result<Self, CertificateError> {
        let failed = |error: rcgen::Error| CertificateError::SelfSigned(error.to_string());
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).map_err(failed)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
            .map_err(|error| CertificateError::SelfSigned(error.to_owned()))?;
        Self::new(vec![made.cert.der().clone()], key)
    }

    /// A new session, whose handshake hasn't begun.
    pub fn accept(&self) -> Result<Session, Failure> {
        let connection = ServerConnection::new(self.config.clone())
            .map_err(|error| Failure::new(&error, "this server"))?;
        Ok(Session::new(connection.into(), "this server".into()))
    }

    /// The hash of the certificate that `tls-server-end-point` channel binding compares (RFC 5929 §4.1); `None` if
    /// the certificate is signed by an algorithm for which none is defined.
    pub fn end_point(&self) -> Option<&Arc<[u8]>> {
        self.end_point.as_ref()
    }

    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, CertificateError> {
        let mismatch = |error: rustls::Error| CertificateError::Mismatch(error.to_string());
        let end_point = chain.first().and_then(|own| end_point(own));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(mismatch)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(mismatch)?;
        config.alpn_protocols = vec![ALPN_POSTGRESQL.to_vec()];
        // libpq and the drivers never resume, as PostgreSQL itself doesn't let them.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            config: Arc::new(config),
            end_point,
        })
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

/// RFC 5929 §4.1: the hash of the certificate's own signature algorithm, SHA-256 in place of MD5 and SHA-1. Object
/// identifiers from RFC 4055 and RFC 5758.
fn end_point(certificate: &[u8]) -> Option<Arc<[u8]>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = match parsed.signature_algorithm.oid.to_string().as_str() {
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" | "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => {
            &digest::SHA256
        }
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(algorithm, certificate).as_ref().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_can_be_bound_to() {
        assert_eq!(Acceptor::self_signed().unwrap().end_point().unwrap().len(), 32);
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let error = Acceptor::from_files(Path::new("/nowhere.pem"), Path::new("/nowhere.key")).unwrap_err();
        assert!(error.to_string().contains("/nowhere.pem"), "{error}");
    }
}
