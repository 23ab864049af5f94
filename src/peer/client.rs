//! The gateway's side: asks the helper, one connection for each question.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::{Answer, Connection, MAX_LINE_BYTES};
use crate::identity::ssm::Unattributed;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The agent may have dialled us before it has written down whose the session is.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// Between two looks at what it has written.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks the helper at `socket` about `connection`, and again for a while if the agent hasn't written everything down yet.
pub async fn ask(socket: &Path, connection: Connection) -> Answer {
    let began = Instant::now();
    loop {
        let answer = match timeout(PATIENCE, exchange(socket, connection)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(no_helper(format!("{}: {error}", socket.display()))),
            Err(_) => {
                return Err(no_helper(format!(
                    "{}: no answer for {PATIENCE:?}",
                    socket.display()
                )));
            }
        };
        let is_complete = match &answer {
            Ok(facts) => facts.record.pid == facts.pid,
            Err(reason) => !matches!(reason, Unattributed::NoRecord | Unattributed::BadRecord { .. }),
        };
        if is_complete || began.elapsed() > WRITTEN_WITHIN {
            return answer;
        }
        sleep(PAUSE).await;
    }
}

async fn exchange(socket: &Path, connection: Connection) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket).await?;
    // Whoever else may have taken its place could let in anybody.
    if stream.peer_cred()?.uid() != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "who listens there isn't root",
        ));
    }
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(&connection)?;
    line.push(b'\n');
    stream.get_mut().write_all(&line).await?;
    line.clear();
    (&mut stream)
        .take(MAX_LINE_BYTES as u64)
        .read_until(b'\n', &mut line)
        .await?;
    Ok(serde_json::from_slice(&line)?)
}

fn no_helper(reason: String) -> Unattributed {
    Unattributed::NoHelper { reason }
}
