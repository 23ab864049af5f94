//! The verifier that a PAM module asks, so that PostgreSQL's own `pam` method can be tried with tokens.
//!
//! It judges by the same rules as the login front, but meets none of its faults.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::Shared;
use crate::logins::Outcome;
use crate::token::Claims;

/// Makes the socket. The server asks from a user of its own, so everybody may connect.
pub(crate) fn listen(socket: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Answers until it is dropped.
pub(crate) async fn run(listener: UnixListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        // Whoever asks sees that there is no answer.
        tokio::spawn(async move { verify(stream, &shared).await.ok() });
    }
}

async fn verify(mut stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new((&mut stream).take(MAX_QUESTION_BYTES));
    let mut texts = [String::new(), String::new()];
    for text in &mut texts {
        let mut bytes = Vec::new();
        reader.read_until(0, &mut bytes).await?;
        bytes.pop();
        *text = String::from_utf8(bytes).map_err(io::Error::other)?;
    }
    let [user, token] = texts;
    let now = shared.clock.now();
    let number = shared.logins.begin(&user, "", now);
    shared.logins.password(
        number,
        crate::logins::TokenFacts::of(&token, &shared.keys),
        false,
        now,
    );
    let verdict =
        Claims::parse(&token).and_then(|claims| claims.check(&user, &shared.endpoint, &shared.keys, now));
    shared.logins.end(
        number,
        verdict.map_or_else(Outcome::Refused, |()| Outcome::Accepted),
    );
    stream.write_all(if verdict.is_ok() { b"1" } else { b"0" }).await
}

const MAX_QUESTION_BYTES: u64 = 1 << 18;
