//! A client of PostgreSQL's protocol that shows what was answered: no library hides anything.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use postern_lab::Lab;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

pub(crate) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Tls {
    None,
    Requested,
    Direct,
}

/// Where and how to log in.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) address: SocketAddr,
    pub(crate) ca: PathBuf,
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: String,
    pub(crate) tls: Tls,
    /// 3.0 or 3.2.
    pub(crate) minor: u16,
}

impl Login {
    /// A login by a good token.
    pub(crate) fn good(lab: &Lab, user: &str) -> Self {
        let password = lab.token_params(user).unwrap().mint();
        Self {
            address: lab.dial_address(),
            ca: lab.ca_file(),
            name: lab.endpoint_host().to_owned(),
            user: user.to_owned(),
            database: "orders".to_owned(),
            password,
            tls: Tls::Requested,
            minor: 0,
        }
    }

    pub(crate) fn go(&self) -> Result<Session, Failure> {
        let mut session = Session {
            stream: self.connect()?,
            parameters: HashMap::new(),
            key: Vec::new(),
        };
        let parameters = format!("user\0{}\0database\0{}\0\0", self.user, self.database);
        let length = u32::try_from(parameters.len() + 8).unwrap().to_be_bytes();
        let version = (196_608 + u32::from(self.minor)).to_be_bytes();
        session
            .stream
            .write_all(&[&length[..], &version, parameters.as_bytes()].concat())?;
        session.authenticate(&self.password)?;
        Ok(session)
    }

    /// The connection, up to where the startup message goes.
    pub(crate) fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let mut tcp = TcpStream::connect(self.address)?;
        tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
        if self.tls == Tls::None {
            return Ok(Box::new(tcp));
        }
        if self.tls == Tls::Requested {
            tcp.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])?;
            let mut answer = [0];
            tcp.read_exact(&mut answer)?;
            if answer != *b"S" {
                return Err(Failure::NoTls);
            }
        }
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&self.ca).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        if self.tls == Tls::Direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        let name = ServerName::try_from(self.name.clone()).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        connection.complete_io(&mut tcp)?;
        Ok(Box::new(StreamOwned::new(connection, tcp)))
    }
}

/// A connection that is logged in.
pub(crate) struct Session {
    stream: Box<dyn Stream>,
    pub(crate) parameters: HashMap<String, String>,
    /// BackendKeyData.
    pub(crate) key: Vec<u8>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    /// The values of the first column.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Vec<String>, Failure> {
        self.send_query(sql)?;
        self.answer()
    }

    pub(crate) fn send_query(&mut self, sql: &str) -> io::Result<()> {
        self.send(b'Q', format!("{sql}\0").as_bytes())
    }

    pub(crate) fn answer(&mut self) -> Result<Vec<String>, Failure> {
        let (mut values, mut failure) = (Vec::new(), None);
        loop {
            match self.receive()? {
                (b'D', body) => values.push(String::from_utf8_lossy(&body[6..]).into_owned()),
                (b'E', body) => failure = Some(Failure::answer(&body)),
                (b'Z', _) => return failure.map_or(Ok(values), Err),
                _ => {}
            }
        }
    }

    /// A CancelRequest for what this session runs.
    pub(crate) fn cancel_request(&self) -> Vec<u8> {
        let length = u32::try_from(self.key.len() + 8).unwrap().to_be_bytes();
        [&length[..], &80_877_102_u32.to_be_bytes(), &self.key].concat()
    }

    fn authenticate(&mut self, password: &str) -> Result<(), Failure> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let (tag, body) = self.receive()?;
            match (tag, body.get(..4)) {
                (b'R', Some([0, 0, 0, 0])) => {}
                (b'R', Some([0, 0, 0, 3])) => self.send(b'p', format!("{password}\0").as_bytes())?,
                (b'R', Some([0, 0, 0, 10])) => {
                    let first = scram.message();
                    let length = u32::try_from(first.len()).unwrap().to_be_bytes();
                    let message = [b"SCRAM-SHA-256\0", &length[..], first].concat();
                    self.send(b'p', &message)?;
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    scram.update(&body[4..])?;
                    let message = scram.message().to_vec();
                    self.send(b'p', &message)?;
                }
                (b'R', Some([0, 0, 0, 12])) => scram.finish(&body[4..])?,
                (b'S', _) => {
                    let text = String::from_utf8(body).unwrap();
                    let mut parts = text.split('\0').map(str::to_owned);
                    self.parameters
                        .insert(parts.next().unwrap(), parts.next().unwrap());
                }
                (b'K', _) => self.key = body,
                (b'E', _) => return Err(Failure::answer(&body)),
                (b'Z', _) => return Ok(()),
                (b'N' | b'v', _) => {}
                _ => panic!("unexpected message {tag} {body:?}"),
            }
        }
    }

    fn send(&mut self, tag: u8, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        self.stream.write_all(&[&[tag][..], &length, body].concat())?;
        self.stream.flush()
    }

    fn receive(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header)?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) - 4;
        if length > 1 << 20 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
        }
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut body)?;
        Ok((header[0], body))
    }
}

/// How a login or a query failed.
#[derive(Debug, PartialEq)]
pub(crate) enum Failure {
    /// ErrorResponse: SQLSTATE and message.
    Answer(String, String),
    /// `N` to SSLRequest.
    NoTls,
    Io(io::ErrorKind),
}

impl Failure {
    fn answer(body: &[u8]) -> Self {
        let field = |tag: u8| {
            let mut fields = body.split(|byte| *byte == 0);
            let text = fields.find_map(|field| field.strip_prefix(&[tag]));
            String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
        };
        Self::Answer(field(b'C'), field(b'M'))
    }

    pub(crate) fn sqlstate(&self) -> &str {
        match self {
            Self::Answer(sqlstate, _) => sqlstate,
            _ => "",
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// Waits until it is so; the test runner's own limit ends a wait in vain.
pub(crate) fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::sleep(Duration::from_millis(10));
    }
}
