//! The packet that opens a connection: no tag, a length, a code, and what the code announces.
//!
//! (PostgreSQL documentation, "Message Formats": StartupMessage, SSLRequest, GSSENCRequest, CancelRequest.)
//! Decoded here and not by `pgwire`, whose map of parameters forgets order and duplicates: which of two
//! `user` parameters counts must not be left to chance.

use super::body::{Body, Truncated};

/// The longest startup packet that PostgreSQL accepts (`MAX_STARTUP_PACKET_LENGTH`, `pqcomm.h`).
pub const MAX_STARTUP_BYTES: usize = 10_000;

/// The first byte of a TLS handshake record (RFC 8446 §5.1), which no startup packet within
/// [`MAX_STARTUP_BYTES`] can begin with.
pub const TLS_HANDSHAKE: u8 = 0x16;

/// The longest secret of a cancel key (PostgreSQL documentation, "BackendKeyData": 256 bytes).
pub const MAX_CANCEL_SECRET_BYTES: usize = 256;

const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;
const GSSENC_REQUEST: i32 = 80_877_104;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProtocolVersion {
    /// 3 for everything since PostgreSQL 7.4.
    pub major: u16,
    /// 0, or 2 since PostgreSQL 18.
    pub minor: u16,
}

impl ProtocolVersion {
    /// The protocol of PostgreSQL 7.4 to 17.
    pub const V3_0: Self = Self { major: 3, minor: 0 };
    /// The protocol of PostgreSQL 18: cancel keys of up to 256 bytes.
    pub const V3_2: Self = Self { major: 3, minor: 2 };
}

/// What a client says first.
#[derive(Debug, PartialEq, Eq)]
pub enum Opening {
    /// "May I speak TLS?"
    SslRequest,
    /// "May I speak GSSAPI encryption?"
    GssEncRequest,
    /// "Stop that query."
    Cancel(CancelKey),
    /// "I am …"
    Startup(Startup),
}

/// The name and the secret of a running session.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The process id that BackendKeyData named.
    pub pid: i32,
    /// 4 bytes under protocol 3.0, up to 256 since 3.2.
    pub secret: Vec<u8>,
}

impl std::fmt::Debug for CancelKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CancelKey({})", self.pid)
    }
}

/// Version and parameters of a StartupMessage, in the order in which they came.
#[derive(Debug, PartialEq, Eq)]
pub struct Startup {
    /// What the client would like to speak.
    pub version: ProtocolVersion,
    /// Names and values, both valid UTF-8.
    pub parameters: Vec<(String, String)>,
}

/// Why a first packet was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOpening {
    /// The length field is below 8 or above what PostgreSQL accepts.
    #[error("invalid length of startup packet: {0}")]
    Length(u32),
    /// The parameters aren't pairs of strings, ended by one NUL.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A name or a value isn't UTF-8.
    #[error("startup parameter is not valid UTF-8")]
    NotUtf8,
    /// A parameter stands there twice.
    #[error("startup parameter \"{0}\" was given more than once")]
    Duplicate(String),
    /// A version that nobody speaks here.
    #[error("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2")]
    Version {
        /// Its major number.
        major: u16,
        /// Its minor number.
        minor: u16,
    },
    /// A cancel key of a length that can't be.
    #[error("invalid length of cancel request")]
    CancelLength,
}

impl From<Truncated> for BadOpening {
    fn from(_: Truncated) -> Self {
        Self::Layout
    }
}

/// How many bytes the packet that begins with `bytes` has in all, or `None` if that can't be told yet.
pub fn packet_len(bytes: &[u8]) -> Result<Option<usize>, BadOpening> {
    let Some(length) = bytes.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length);
    match usize::try_from(length) {
        Ok(len) if (8..=MAX_STARTUP_BYTES).contains(&len) => Ok(Some(len)),
        _ => Err(BadOpening::Length(length)),
    }
}

/// Reads one packet, which must be exactly as long as its length field says (see [`packet_len`]).
pub fn parse(packet: &[u8]) -> Result<Opening, BadOpening> {
    if packet_len(packet)? != Some(packet.len()) {
        return Err(BadOpening::Layout);
    }
    let mut body = Body::new(packet.get(4..).unwrap_or_default());
    let code = body.i32()?;
    match code {
        SSL_REQUEST | GSSENC_REQUEST if !body.is_empty() => Err(BadOpening::Layout),
        SSL_REQUEST => Ok(Opening::SslRequest),
        GSSENC_REQUEST => Ok(Opening::GssEncRequest),
        CANCEL_REQUEST => cancel(body),
        _ => startup(code, body).map(Opening::Startup),
    }
}

fn cancel(mut body: Body<'_>) -> Result<Opening, BadOpening> {
    let pid = body.i32().map_err(|Truncated| BadOpening::CancelLength)?;
    let secret = body.rest();
    if !(4..=MAX_CANCEL_SECRET_BYTES).contains(&secret.len()) {
        return Err(BadOpening::CancelLength);
    }
    Ok(Opening::Cancel(CancelKey {
        pid,
        secret: secret.to_vec(),
    }))
}

fn startup(code: i32, mut body: Body<'_>) -> Result<Startup, BadOpening> {
    let [a, b, c, d] = code.to_be_bytes();
    let version = ProtocolVersion {
        major: u16::from_be_bytes([a, b]),
        minor: u16::from_be_bytes([c, d]),
    };
    if version.major != 3 {
        return Err(BadOpening::Version {
            major: version.major,
            minor: version.minor,
        });
    }
    let mut parameters: Vec<(String, String)> = Vec::new();
    loop {
        let name = text(body.cstring()?)?;
        if name.is_empty() {
            break;
        }
        let value = text(body.cstring()?)?;
        if parameters.iter().any(|(known, _)| *known == name) {
            return Err(BadOpening::Duplicate(name));
        }
        parameters.push((name, value));
    }
    if !body.is_empty() {
        return Err(BadOpening::Layout);
    }
    Ok(Startup { version, parameters })
}

fn text(bytes: &[u8]) -> Result<String, BadOpening> {
    String::from_utf8(bytes.to_vec()).map_err(|_| BadOpening::NotUtf8)
}

/// A CancelRequest for `key`, as it goes to a server.
pub fn cancel_request(key: &CancelKey) -> Vec<u8> {
    packet(CANCEL_REQUEST, |bytes| {
        bytes.extend_from_slice(&key.pid.to_be_bytes());
        bytes.extend_from_slice(&key.secret);
    })
}

/// An SSLRequest.
pub fn ssl_request() -> Vec<u8> {
    packet(SSL_REQUEST, |_| {})
}

/// A StartupMessage with `parameters`, none of which may hold a NUL.
pub fn startup_message(version: ProtocolVersion, parameters: &[(&str, &str)]) -> Vec<u8> {
    let code = (i32::from(version.major) << 16) | i32::from(version.minor);
    packet(code, |bytes| {
        for (name, value) in parameters {
            for text in [name, value] {
                bytes.extend_from_slice(text.as_bytes());
                bytes.push(0);
            }
        }
        bytes.push(0);
    })
}

fn packet(code: i32, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend_from_slice(&code.to_be_bytes());
    body(&mut bytes);
    let length = (bytes.len() as u32).to_be_bytes();
    bytes.iter_mut().zip(length).for_each(|(slot, byte)| *slot = byte);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let key = CancelKey {
            pid: 7,
            secret: vec![9; 32],
        };
        assert_eq!(parse(&cancel_request(&key)), Ok(Opening::Cancel(key)));
        assert_eq!(parse(&ssl_request()), Ok(Opening::SslRequest));
        let packet = startup_message(ProtocolVersion::V3_2, &[("user", "app"), ("database", "")]);
        let parameters = vec![("user".into(), "app".into()), ("database".into(), String::new())];
        assert_eq!(
            parse(&packet),
            Ok(Opening::Startup(Startup {
                version: ProtocolVersion::V3_2,
                parameters
            }))
        );
    }

    #[test]
    fn smuggling_is_refused() {
        let twice = startup_message(ProtocolVersion::V3_0, &[("user", "a"), ("user", "b")]);
        assert_eq!(parse(&twice), Err(BadOpening::Duplicate("user".into())));
        let mut trailing = startup_message(ProtocolVersion::V3_0, &[("user", "a")]);
        trailing.push(b'x');
        let length = trailing.len() as u32;
        trailing[..4].copy_from_slice(&length.to_be_bytes());
        assert_eq!(parse(&trailing), Err(BadOpening::Layout));
        assert!(parse(&startup_message(ProtocolVersion { major: 2, minor: 0 }, &[])).is_err());
        for secret in [0, 3, 257] {
            let key = CancelKey {
                pid: 1,
                secret: vec![0; secret],
            };
            assert_eq!(parse(&cancel_request(&key)), Err(BadOpening::CancelLength));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        for length in [0u32, 7, 10_001, u32::MAX] {
            assert_eq!(packet_len(&length.to_be_bytes()), Err(BadOpening::Length(length)));
        }
        assert_eq!(packet_len(&[0, 0, 0]), Ok(None));
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 8..600), code in prop::sample::select(vec![196_608, 196_610, 80_877_102, 80_877_103, 80_877_104])) {
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_be_bytes());
            let _ = parse(&bytes);
            bytes[4..8].copy_from_slice(&i32::to_be_bytes(code));
            let _ = parse(&bytes);
        }
    }
}
