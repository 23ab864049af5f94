//! The lab's private certificate authority and the certificates its login front shows, good and bad.
//!
//! As with PostgreSQL there are no session tickets, a client that offers ALPN must offer `postgresql`, and one that
//! starts TLS without asking first must offer ALPN.

use std::sync::Arc;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, RsaKeySize,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

/// The kind of key in the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyType {
    /// ECDSA on P-256: quick to make.
    #[default]
    P256,
    /// RSA with 2048 bits: what RDS has, and what its handshakes cost.
    Rsa2048,
}

/// Which certificate the front shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Certificate {
    /// The right name, from the lab's authority.
    #[default]
    Good,
    /// The lab's authority, but another server's name.
    OtherName,
    /// The right name, but from an authority that nobody was told of.
    OtherAuthority,
    /// The right name and authority, but out of date.
    Expired,
}

/// What the front needs for TLS.
pub(crate) struct Tls {
    pub(crate) ca_pem: String,
    good: TlsAcceptor,
    other_name: TlsAcceptor,
    other_authority: TlsAcceptor,
    expired: TlsAcceptor,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Makes everything for a server that answers to `names`.
    pub(crate) fn new(names: &[String], key_type: KeyType) -> anyhow::Result<Self> {
        let authority = Authority::new("Postern lab CA")?;
        let stranger = Authority::new("A CA unknown to the lab's clients")?;
        let key = match key_type {
            KeyType::P256 => KeyPair::generate()?,
            KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        let elsewhere = ["elsewhere.cluster-zzz999.us-east-1.rds.amazonaws.com".to_owned()];
        Ok(Self {
            good: authority.acceptor(names, &key, LAST_YEAR)?,
            other_name: authority.acceptor(&elsewhere, &key, LAST_YEAR)?,
            other_authority: stranger.acceptor(names, &key, LAST_YEAR)?,
            expired: authority.acceptor(names, &key, 2001)?,
            ca_pem: authority.pem,
        })
    }

    pub(crate) const fn acceptor(&self, certificate: Certificate) -> &TlsAcceptor {
        match certificate {
            Certificate::Good => &self.good,
            Certificate::OtherName => &self.other_name,
            Certificate::OtherAuthority => &self.other_authority,
            Certificate::Expired => &self.expired,
        }
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// A certificate for `names`, in PEM and DER.
    fn certificate(
        &self,
        names: &[String],
        key: &KeyPair,
        last_year: i32,
    ) -> anyhow::Result<rcgen::Certificate> {
        let mut params = CertificateParams::new(names)?;
        if let Some(name) = names.first() {
            params
                .distinguished_name
                .push(DnType::CommonName, name.get(..64).unwrap_or(name));
        }
        params.use_authority_key_identifier_extension = true;
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(last_year, 12, 31);
        Ok(params.signed_by(key, &self.issuer)?)
    }

    fn acceptor(&self, names: &[String], key: &KeyPair, last_year: i32) -> anyhow::Result<TlsAcceptor> {
        let certificate = self.certificate(names, key, last_year)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .context("the certificate doesn't fit its key")?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The protocol that a client which starts TLS at once has to name.
pub(crate) const ALPN: &[u8] = b"postgresql";
const LAST_YEAR: i32 = 2099;
