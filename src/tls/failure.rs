//! Why TLS failed, as far as it makes a difference to what is to be done.

use rustls::{CertificateError, Error};

/// A TLS failure, by cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The chain doesn't end in a trusted root.
    #[error("the server's certificate is not signed by a trusted authority")]
    UnknownIssuer,
    /// The certificate is somebody else's.
    #[error("the server's certificate is not valid for {expected}")]
    WrongName {
        /// The name that was expected.
        expected: String,
    },
    /// Past its end, or the clock is wrong.
    #[error("the server's certificate is expired or not yet valid by this host's clock")]
    Expired,
    /// Anything else about the certificate.
    #[error("the server's certificate was refused: {0}")]
    BadCertificate(String),
    /// The peer ended the handshake.
    #[error("the peer refused the handshake: {0}")]
    Alert(String),
    /// Anything else.
    #[error("TLS error: {0}")]
    Protocol(String),
}

impl Failure {
    pub(super) fn new(error: &Error, expected: &str) -> Self {
        match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => Self::UnknownIssuer,
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Self::WrongName {
                expected: expected.to_owned(),
            },
            Error::InvalidCertificate(
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. },
            ) => Self::Expired,
            Error::InvalidCertificate(error) => Self::BadCertificate(error.to_string()),
            Error::AlertReceived(alert) => Self::Alert(format!("{alert:?}")),
            error => Self::Protocol(error.to_string()),
        }
    }
}
