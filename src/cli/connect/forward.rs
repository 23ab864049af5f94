//! The forward: a session of Session Manager from a port of this computer to the gateway's, begun again at the same port when it is cut.
//!
//! It isn't probed while it is up: any byte counts as activity, and would keep a session from its idle timeout, which is a control (Session Manager, "idle session
//! timeout"). That it is gone is known when `aws` ends.

use std::convert::Infallible;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use std::{env, io};

use anyhow::Context as _;
use tokio::time::{Instant, sleep, timeout};

use super::awscli::Aws;
use super::bastion::{Bastion, instances};
use super::eprint;
use super::print::HOST;
use super::probe::answers;
use super::session::{Session, in_foreground};
use super::trouble::{Kind, Trouble};

/// The first pause before a session is begun again, and the longest; each is double the one before.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A session that was up for so long counts as one that works: the next pause is the first again.
const STEADY: Duration = Duration::from_secs(60);

/// How the forward is to be.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) aws: Aws,
    pub(super) bastion: Bastion,
    pub(super) document: String,
    /// None: as the document has it.
    pub(super) remote_port: Option<u16>,
    pub(super) local_port: u16,
    /// How long the gateway may take to answer.
    pub(super) wait: Duration,
}

/// A forward, up or not.
#[derive(Debug)]
pub(super) struct Forward {
    plan: Plan,
    /// This program. Asked for once: on Linux the answer changes when the file is replaced.
    postern: PathBuf,
    /// The instances that it can go to, the best first.
    instances: Vec<String>,
    /// Whatever runs for it.
    session: Option<Session>,
}

/// Where `aws` is run to find the bastion.
#[derive(Clone, Copy)]
enum Place {
    /// At the terminal, where it may ask for a code of a second factor.
    Terminal,
    /// Without it: the person's command has the terminal.
    Apart,
}

impl Forward {
    pub(super) fn new(plan: Plan) -> anyhow::Result<Self> {
        Ok(Self {
            plan,
            postern: env::current_exe().context("it isn't known which program this is")?,
            instances: Vec::new(),
            session: None,
        })
    }

    /// This program, to be started again.
    pub(super) fn postern(&self) -> &Path {
        &self.postern
    }

    /// Brings it up: the gateway answers when this returns.
    pub(super) async fn up(&mut self) -> Result<(), Trouble> {
        self.find(Place::Terminal).await?;
        if let ([first, others @ ..], Bastion::Tagged { key, value }) =
            (self.instances.as_slice(), &self.plan.bastion)
            && !others.is_empty()
        {
            eprint(&format!(
                "{} instances have the tag {key}={value}; {first}, which was started last, comes before {}",
                others.len() + 1,
                others.join(", ")
            ));
        }
        self.begin().await
    }

    /// Keeps it up.
    pub(super) async fn keep(&mut self) -> Infallible {
        let mut attempt = 0;
        loop {
            let since = Instant::now();
            let (out, error) = match &mut self.session {
                Some(session) => session.ended().await,
                None => (String::new(), String::new()),
            };
            self.session = None;
            if since.elapsed() >= STEADY {
                attempt = 0;
            }
            eprint(&format!(
                "the session was cut, and its connections with it{}; beginning another",
                last_words(&out, &error)
            ));
            let mut told = None;
            loop {
                sleep(pause(attempt)).await;
                match self.again(attempt > 0).await {
                    Ok(()) => break,
                    Err(trouble) if told.as_ref() == Some(&trouble) => {}
                    Err(trouble) => {
                        eprint(&format!("{trouble}\nThis is tried again until it works"));
                        told = Some(trouble);
                    }
                }
                attempt += 1;
            }
            attempt += 1;
            eprint("the forward is through again; connect anew");
        }
    }

    /// Ends it.
    pub(super) async fn end(&mut self) {
        if let Some(session) = &mut self.session {
            session.end().await;
        }
        self.session = None;
    }

    async fn again(&mut self, look: bool) -> Result<(), Trouble> {
        // The first time to the same instance; then it may be another that has the tag.
        if look {
            self.find(Place::Apart).await?;
        }
        self.begin().await
    }

    /// Begins a session with the first instance that Session Manager has a connection with.
    async fn begin(&mut self) -> Result<(), Trouble> {
        let mut last = None;
        for instance in self.instances.clone() {
            match self.open(&instance).await {
                Err(trouble) if trouble.kind == Kind::NotConnected => last = Some(trouble),
                done => return done,
            }
        }
        last.map_or(Ok(()), Err)
    }

    /// Begins a session with this instance, and waits until the gateway answers.
    async fn open(&mut self, instance: &str) -> Result<(), Trouble> {
        let plan = &self.plan;
        let command = plan
            .aws
            .forward(instance, &plan.document, plan.remote_port, plan.local_port);
        let profile = plan.aws.profile();
        let session = self
            .session
            .insert(Session::start(&self.postern, &command).map_err(|error| self.plan.cannot_run(&error))?);
        let trouble = tokio::select! {
            (out, error) = session.ended() => {
                let said = if error.trim().is_empty() { out } else { error };
                Trouble::read(format!("no session with {instance}"), &said, profile.as_deref())
            }
            answered = timeout(plan.wait, answers(plan.local_port)) => match answered {
                Ok(()) => return Ok(()),
                Err(_) => plan.nobody_answers(instance, &session.said()),
            },
        };
        self.end().await;
        Err(trouble)
    }

    /// Finds out which instances it may go to.
    async fn find(&mut self, place: Place) -> Result<(), Trouble> {
        let (key, value) = match &self.plan.bastion {
            Bastion::Named(id) => {
                self.instances = vec![id.clone()];
                return Ok(());
            }
            Bastion::Tagged { key, value } => (key, value),
        };
        let command = self.plan.aws.instances(key, value);
        let said = match place {
            // A code is asked for at the terminal itself; standard input is the person's command's.
            Place::Terminal => in_foreground(&self.postern, &command)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .output()
                .await
                .map(|output| {
                    (
                        String::from_utf8_lossy(&output.stdout).into_owned(),
                        String::from_utf8_lossy(&output.stderr).into_owned(),
                    )
                }),
            Place::Apart => match Session::start(&self.postern, &command) {
                Ok(session) => Ok(self.session.insert(session).ended().await),
                Err(error) => Err(error),
            },
        };
        self.session = None;
        let (out, error) = said.map_err(|error| self.plan.cannot_run(&error))?;
        self.instances = instances(&out, &error, key, value, &self.plan.aws)?;
        Ok(())
    }
}

impl Plan {
    fn cannot_run(&self, error: &io::Error) -> Trouble {
        Trouble::read(
            "cannot run aws",
            &error.to_string(),
            self.aws.profile().as_deref(),
        )
    }

    fn nobody_answers(&self, instance: &str, said: &str) -> Trouble {
        let port = self
            .remote_port
            .map_or_else(|| "the document's port".to_owned(), |port| format!("port {port}"));
        Trouble {
            what: format!(
                "no PostgreSQL answered through {instance} within {}",
                humantime::format_duration(self.wait)
            ),
            said: said.trim().to_owned(),
            kind: Kind::Other,
            remedy: format!(
                "see whether the gateway runs there and listens on {port} (--remote-port), or wait for longer (--wait)"
            ),
        }
    }
}

/// The last line that was said, in brackets: Session Manager's reason, if it has given one.
fn last_words(out: &str, error: &str) -> String {
    let last = |text: &str| {
        text.lines()
            .rev()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .map(str::to_owned)
    };
    last(error)
        .or_else(|| last(out))
        .map_or_else(String::new, |line| format!(" ({line})"))
}

/// The port of this computer: the one that is wanted, or one that is free.
pub(super) fn local_port(wanted: Option<u16>) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((HOST, wanted.unwrap_or(0))).with_context(|| {
        let port = wanted.map_or_else(|| "any port".to_owned(), |port| format!("port {port}"));
        format!("{port} of this computer can't be had; choose another with --local-port")
    })?;
    Ok(listener.local_addr()?.port())
}

/// The pause before an attempt: half of it to all of it, by chance, since one bastion's end cuts everybody's sessions at once.
fn pause(attempt: u32) -> Duration {
    let (first, longest) = PAUSES;
    let whole = first.saturating_mul(2_u32.saturating_pow(attempt)).min(longest);
    let mut byte = [0];
    // Without randomness it merely isn't spread.
    let _ = aws_lc_rs::rand::fill(&mut byte);
    let [byte] = byte;
    whole.mul_f64(0.5 + f64::from(byte) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_are_spread() {
        for attempt in [0, 1, 5, 6, 7, 40, u32::MAX] {
            let whole = PAUSES
                .0
                .saturating_mul(2_u32.saturating_pow(attempt))
                .min(PAUSES.1);
            let pauses: Vec<_> = (0..100).map(|_| pause(attempt)).collect();
            assert!(
                pauses.iter().all(|pause| (whole / 2..=whole).contains(pause)),
                "{attempt}"
            );
            assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        }
    }

    #[test]
    fn what_was_said_last_is_told() {
        let out =
            "Waiting for connections...\n\n\nSessionId: a-1 : Your session timed out due to inactivity.\n\n";
        assert_eq!(
            last_words(out, ""),
            " (SessionId: a-1 : Your session timed out due to inactivity.)"
        );
        assert_eq!(last_words(out, "\nno network\n"), " (no network)");
        assert_eq!(last_words("", "\n"), "");
    }

    #[test]
    fn a_port_in_use_is_not_taken() {
        let taken = TcpListener::bind((HOST, 0)).unwrap();
        let error = local_port(Some(taken.local_addr().unwrap().port())).unwrap_err();
        assert!(error.to_string().contains("--local-port"), "{error}");
        assert_ne!(local_port(None).unwrap(), 0);
    }
}
