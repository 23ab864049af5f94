//! Which authorities a server's certificate may come from.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// The RDS authorities of generation G1, with where they come from.
const RDS_ROOTS: &str = include_str!("rds-roots.pem");

/// A set of trusted authorities.
#[derive(Clone, Debug)]
pub struct Roots(pub(super) Arc<RootCertStore>);

/// Why a file of authorities can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// It can't be read or isn't PEM.
    #[error("cannot read certificates from it: {0}")]
    Unreadable(String),
    /// No certificate in it.
    #[error("there is no certificate in it (expected PEM blocks \"BEGIN CERTIFICATE\")")]
    Empty,
    /// A certificate can't be an authority.
    #[error("certificate number {number} can't be used as an authority: {reason}")]
    Unusable {
        /// Its place in the file, from 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Roots {
    /// The 81 authorities of RDS and Aurora that are built in.
    pub fn rds() -> Result<Self, RootsError> {
        Self::from_certificates(CertificateDer::pem_slice_iter(RDS_ROOTS.as_bytes()))
    }

    /// The authorities in a PEM file, and no others.
    pub fn from_file(path: &Path) -> Result<Self, RootsError> {
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| RootsError::Unreadable(error.to_string()))?;
        Self::from_certificates(certificates)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, which no constructor lets happen.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn from_certificates<E: std::fmt::Display>(
        certificates: impl Iterator<Item = Result<CertificateDer<'static>, E>>,
    ) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        for (place, certificate) in certificates.enumerate() {
            let certificate = certificate.map_err(|error| RootsError::Unreadable(error.to_string()))?;
            store.add(certificate).map_err(|error| RootsError::Unusable {
                number: place + 1,
                reason: error.to_string(),
            })?;
        }
        if store.is_empty() {
            return Err(RootsError::Empty);
        }
        Ok(Self(Arc::new(store)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_root_loads() {
        assert_eq!(Roots::rds().unwrap().len(), 81);
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(Roots::from_file(file.path()), Err(RootsError::Empty)));
        assert!(matches!(
            Roots::from_file(Path::new("/nowhere")),
            Err(RootsError::Unreadable(_))
        ));
    }
}
