//! The gateway's side: each data thread asks the helper over one connection, which stays open.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::{Answer, Connection, MAX_LINE_BYTES};
use crate::identity::ssm::Unattributed;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The agent may have dialled us before it has written down whose the session is.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// Between two looks at what it has written.
const PAUSE: Duration = Duration::from_millis(50);

/// Questions that are written at once.
const MAX_AT_ONCE: usize = 512;

/// The helper, as one data thread asks it.
#[derive(Debug)]
pub struct Helper {
    socket: PathBuf,
    line: RefCell<Option<mpsc::UnboundedSender<Question>>>,
}

/// A question and where its answer is awaited, or why there is none.
type Question = (Connection, oneshot::Sender<Result<Answer, String>>);

impl Helper {
    /// The one that listens at `socket`.
    pub fn at(socket: PathBuf) -> Self {
        Self {
            socket,
            line: RefCell::default(),
        }
    }

    /// Asks about `connection`. `needs_record`: and again for a while if the agent hasn't written everything down yet.
    pub async fn ask(&self, connection: Connection, needs_record: bool) -> Answer {
        let began = Instant::now();
        loop {
            let line = self.line();
            let answer = match timeout(PATIENCE, self.asked(connection)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(reason)) => return Err(self.is_missing(&reason)),
                Err(_) => {
                    // Others may ask over a newer one.
                    self.line.borrow_mut().take_if(|open| open.same_channel(&line));
                    return Err(self.is_missing(&format!("no answer for {PATIENCE:?}")));
                }
            };
            let is_complete = match &answer {
                Ok(facts) if needs_record => match &facts.record {
                    Ok(record) => record.pid == facts.pid,
                    Err(reason) => !matches!(reason, Unattributed::NoRecord | Unattributed::BadRecord { .. }),
                },
                _ => true,
            };
            if is_complete || began.elapsed() > WRITTEN_WITHIN {
                return answer;
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks once, and once more if it is another helper by now than the one that the connection led to.
    async fn asked(&self, connection: Connection) -> Result<Answer, String> {
        let was_open = self.line.borrow().as_ref().is_some_and(|line| !line.is_closed());
        match self.answered(connection).await {
            Err(_) if was_open => self.answered(connection).await,
            answer => answer,
        }
    }

    async fn answered(&self, connection: Connection) -> Result<Answer, String> {
        let (answer, answered) = oneshot::channel();
        self.line()
            .send((connection, answer))
            .map_err(|_| "it has gone".to_owned())?;
        answered.await.unwrap_or_else(|_| Err("it has gone".to_owned()))
    }

    /// The connection that is open, or else a new one.
    fn line(&self) -> mpsc::UnboundedSender<Question> {
        let mut line = self.line.borrow_mut();
        if let Some(open) = line.as_ref().filter(|line| !line.is_closed()) {
            return open.clone();
        }
        let (questions, asked) = mpsc::unbounded_channel();
        spawn_local(talk(self.socket.clone(), asked));
        line.insert(questions).clone()
    }

    fn is_missing(&self, reason: &str) -> Unattributed {
        Unattributed::NoHelper {
            reason: format!("{}: {reason}", self.socket.display()),
        }
    }
}

/// Asks what is `asked` over one connection, until that ends or nobody asks any more.
async fn talk(socket: PathBuf, mut asked: mpsc::UnboundedReceiver<Question>) {
    let awaited = RefCell::new(VecDeque::new());
    let ended = match connect(&socket).await {
        Ok(stream) => exchange(stream, &mut asked, &awaited).await,
        Err(error) => Err(error),
    };
    asked.close();
    let reason = ended.map_or_else(|error| error.to_string(), |()| "it has gone".to_owned());
    for answer in awaited.into_inner() {
        let _ = answer.send(Err(reason.clone()));
    }
    while let Ok((_, answer)) = asked.try_recv() {
        let _ = answer.send(Err(reason.clone()));
    }
}

async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket).await?;
    // Whoever else may have taken its place could let in anybody.
    if stream.peer_cred()?.uid() != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "who listens there isn't root",
        ));
    }
    Ok(stream)
}

/// The helper answers in the order of the questions.
async fn exchange(
    stream: UnixStream,
    asked: &mut mpsc::UnboundedReceiver<Question>,
    awaited: &RefCell<VecDeque<oneshot::Sender<Result<Answer, String>>>>,
) -> io::Result<()> {
    let (answers, mut questions) = stream.into_split();
    let asks = async {
        let mut some = Vec::new();
        while asked.recv_many(&mut some, MAX_AT_ONCE).await > 0 {
            let mut lines = Vec::new();
            for (connection, answer) in some.drain(..) {
                serde_json::to_writer(&mut lines, &connection)?;
                lines.push(b'\n');
                awaited.borrow_mut().push_back(answer);
            }
            questions.write_all(&lines).await?;
        }
        Ok(())
    };
    let hears = async {
        let mut answers = BufReader::new(answers);
        let mut line = Vec::new();
        loop {
            line.clear();
            let most = MAX_LINE_BYTES as u64;
            if (&mut answers).take(most).read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let answer = serde_json::from_slice(&line)?;
            let Some(asker) = awaited.borrow_mut().pop_front() else {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "an answer that nobody has asked for",
                ));
            };
            let _ = asker.send(Ok(answer));
        }
    };
    tokio::select! {
        ended = asks => ended,
        ended = hears => ended,
    }
}
