//! The few messages of PostgreSQL's protocol that are read or written before a login is decided.
//!
//! Every length is checked before anything is read for it. After the login nothing here is used: bytes are relayed.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// What a client may send first.
#[derive(Debug)]
pub(crate) enum First {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    Gss,
    /// CancelRequest, as it came.
    Cancel(Vec<u8>),
    /// StartupMessage.
    Startup(Startup),
}

/// A StartupMessage of protocol 3.
#[derive(Debug, Clone)]
pub(crate) struct Startup {
    /// The message as it came, length included.
    pub(crate) raw: Vec<u8>,
    pub(crate) user: String,
    pub(crate) database: String,
}

impl Startup {
    fn parse(raw: Vec<u8>) -> io::Result<Self> {
        let body = raw
            .get(8..)
            .and_then(|body| body.strip_suffix(b"\0"))
            .ok_or_else(malformed)?;
        let mut texts = body.split_inclusive(|byte| *byte == 0).map(|text| {
            let text = text.strip_suffix(b"\0").ok_or_else(malformed)?;
            std::str::from_utf8(text).map_err(|_| malformed())
        });
        let (mut user, mut database) = (None, None);
        while let Some(name) = texts.next() {
            let value = texts.next().ok_or_else(malformed)??;
            match name? {
                "user" => user = Some(value.to_owned()),
                "database" => database = Some(value.to_owned()),
                _ => {}
            }
        }
        let user = user.unwrap_or_default();
        let database = database
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| user.clone());
        Ok(Self { raw, user, database })
    }

    /// The same message with further parameters.
    pub(crate) fn with(&self, parameters: &[(&str, &str)]) -> Vec<u8> {
        let mut raw = self.raw.clone();
        raw.pop();
        for (name, value) in parameters {
            raw.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        raw.push(0);
        let length = u32::try_from(raw.len()).unwrap_or(u32::MAX).to_be_bytes();
        raw.splice(..4, length);
        raw
    }
}

/// Reads a client's first message, or the next one after a refused request for encryption.
pub(crate) async fn read_first<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<First> {
    let length = stream.read_u32().await?;
    if !(8..=MAX_STARTUP_BYTES).contains(&length) {
        return Err(malformed());
    }
    let mut raw = length.to_be_bytes().to_vec();
    stream.take(u64::from(length) - 4).read_to_end(&mut raw).await?;
    if u32::try_from(raw.len()) != Ok(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let code = raw
        .get(4..8)
        .and_then(|code| code.try_into().ok())
        .map(u32::from_be_bytes);
    match (code, length) {
        (Some(SSL_REQUEST), 8) => Ok(First::Ssl),
        (Some(GSS_REQUEST), 8) => Ok(First::Gss),
        (Some(CANCEL_REQUEST), 12..) => Ok(First::Cancel(raw)),
        (Some(version), _) if version >> 16 == 3 => Startup::parse(raw).map(First::Startup),
        _ => Err(malformed()),
    }
}

/// Reads one message whose body has at most `limit` bytes.
pub(crate) async fn read_message<S: AsyncRead + Unpin>(
    stream: &mut S,
    limit: u32,
) -> io::Result<(u8, Vec<u8>)> {
    let tag = stream.read_u8().await?;
    let length = stream
        .read_u32()
        .await?
        .checked_sub(4)
        .filter(|length| *length <= limit)
        .ok_or_else(malformed)?;
    let mut body = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut body).await?;
    if u32::try_from(body.len()) == Ok(length) {
        Ok((tag, body))
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Writes bytes and makes sure that they leave.
pub(crate) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// A message with its tag and length.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend_from_slice(&u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(body);
    message
}

/// A fatal ErrorResponse.
pub(crate) fn fatal(sqlstate: &str, text: &str) -> Vec<u8> {
    message(
        b'E',
        format!("SFATAL\0VFATAL\0C{sqlstate}\0M{text}\0\0").as_bytes(),
    )
}

/// AuthenticationCleartextPassword.
pub(crate) fn ask_cleartext_password() -> Vec<u8> {
    message(b'R', &3_u32.to_be_bytes())
}

/// AuthenticationSASL with SCRAM-SHA-256.
pub(crate) fn ask_scram() -> Vec<u8> {
    message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0")
}

pub(crate) fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed message")
}

/// PostgreSQL's own limit for the first message.
const MAX_STARTUP_BYTES: u32 = 10_000;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(parameters: &[u8]) -> Vec<u8> {
        let mut raw = u32::try_from(parameters.len() + 8)
            .unwrap()
            .to_be_bytes()
            .to_vec();
        raw.extend_from_slice(&196_610_u32.to_be_bytes());
        raw.extend_from_slice(parameters);
        raw
    }

    async fn read(bytes: &[u8]) -> io::Result<First> {
        read_first(&mut &*bytes).await
    }

    #[tokio::test]
    async fn reads_startup_messages_and_adds_to_them() {
        let First::Startup(first) = read(&startup(b"user\0app_ro\0options\0\0\0")).await.unwrap() else {
            panic!()
        };
        assert_eq!(
            (first.user.as_str(), first.database.as_str()),
            ("app_ro", "app_ro")
        );
        let First::Startup(more) = read(&first.with(&[("database", "orders")])).await.unwrap() else {
            panic!()
        };
        assert_eq!((more.user.as_str(), more.database.as_str()), ("app_ro", "orders"));
    }

    #[tokio::test]
    async fn refuses_what_is_no_first_message() {
        let endless = [0xff; 64];
        let short = [0, 0, 0, 9, 0, 3, 0, 0];
        let version2 = [0, 0, 0, 8, 0, 2, 0, 0];
        for bytes in [
            &endless[..],
            &short,
            &version2,
            b"GET / HTTP/1.1\r\n",
            &startup(b"user\0x"),
            &startup(b""),
        ] {
            assert!(read(bytes).await.is_err(), "{bytes:?}");
        }
        assert!(read_message(&mut &b"p\0\0\0\x03"[..], 10).await.is_err());
        assert!(read_message(&mut &b"p\0\0\0\x10abc"[..], 10).await.is_err());
    }
}
