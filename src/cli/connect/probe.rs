//! Whether the gateway answers at the other end of a forward.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::print::HOST;
use crate::wire::startup::ssl_request;

/// How often is looked whether the plugin listens.
const LOOK: Duration = Duration::from_millis(100);

/// How often the gateway is asked, once the plugin listens: that goes to the bastion and back.
const ASK: Duration = Duration::from_secs(1);

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Waits until something that speaks PostgreSQL answers at this port.
///
/// That the plugin listens says nothing: it accepts before it knows whether anybody is there, and closes then.
pub(super) async fn answers(port: u16) {
    loop {
        let pause = match timeout(ANSWER, ask(port)).await {
            Ok(Ok(true)) => return,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => LOOK,
            _ => ASK,
        };
        sleep(pause).await;
    }
}

/// Asks for TLS: a server says yes, no, or that it has an error (PostgreSQL, "SSL Session Encryption").
async fn ask(port: u16) -> io::Result<bool> {
    let mut stream = TcpStream::connect((HOST, port)).await?;
    stream.write_all(&ssl_request()).await?;
    let answer = stream.read_u8().await?;
    Ok(matches!(answer, b'S' | b'N' | b'E'))
}
