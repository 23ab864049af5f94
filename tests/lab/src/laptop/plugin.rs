//! The session-manager-plugin: listens, and carries each connection to the session's worker.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::{env, io};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use super::call;

pub(super) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    if arguments == ["--version"] {
        say("1.2.677.0\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let [response, _region, operation, _profile, parameters, _endpoint] = arguments else {
        bail!("six arguments are expected");
    };
    if response != "AWS_SSM_START_SESSION_RESPONSE" || operation != "StartSession" {
        bail!("Invalid Operation");
    }
    let session: Value = serde_json::from_str(&env::var(response)?)?;
    let parameters: Value = serde_json::from_str(parameters)?;
    let id = session["SessionId"].as_str().context("no SessionId")?;
    say(&format!("\nStarting session with SessionId: {id}\n"))?;
    let (opened, channel) =
        call(&json!({"Operation": "OpenDataChannel", "TokenValue": session["TokenValue"]}))?;
    let worker: SocketAddr = opened["Worker"].as_str().context("no worker")?.parse()?;
    let port = parameters["Parameters"]["localPortNumber"][0]
        .as_str()
        .unwrap_or("0")
        .parse()?;
    let channel = channel.into_inner();
    channel.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut interrupt, mut quit) = (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?);
        let mut channel = TcpStream::from_std(channel)?;
        let (mut from, mut to) = channel.split();
        let mut nothing = [0; 16];
        tokio::select! {
            failed = forward(id, port, worker) => failed?,
            _ = from.read(&mut nothing) => say(&format!("\n\nSessionId: {id} : Your session timed out due to inactivity.\n\n"))?,
            _ = async { tokio::select! { _ = interrupt.recv() => {}, _ = quit.recv() => {} } } => {
                say("Terminate signal received, exiting.\n")?;
                to.write_all(b"TerminateSession\n").await?;
                say(&format!("\n\nExiting session with sessionId: {id}.\n\n"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn forward(id: &str, port: u16, worker: SocketAddr) -> anyhow::Result<()> {
    let host = env::var("SSM_PLUGIN_LOCAL_HOST").unwrap_or_else(|_| "localhost".to_owned());
    let listener = TcpListener::bind((host.as_str(), port)).await.map_err(|error| {
        anyhow::anyhow!("Cannot perform start session: listen tcp {host}:{port}: {error}")
    })?;
    let port = listener.local_addr()?.port();
    say(&format!(
        "Port {port} opened for sessionId {id}.\nWaiting for connections...\n"
    ))?;
    let mut is_first = true;
    loop {
        let (client, _) = listener.accept().await?;
        if is_first {
            say(&format!("\nConnection accepted for session [{id}]\n"))?;
            is_first = false;
        }
        tokio::spawn(async move {
            let server = TcpStream::connect(worker).await?;
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            // Whichever ends first ends both: it knows no half-close.
            tokio::select! {
                _ = copy(&mut from_client, &mut to_server) => {}
                _ = copy(&mut from_server, &mut to_client) => {}
            }
            io::Result::Ok(())
        });
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}
