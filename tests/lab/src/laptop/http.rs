//! The same calls as a real AWS CLI makes them: EC2's query protocol and Session Manager's JSON, over HTTP. Signatures aren't looked at.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, Read as _, Write};
use std::sync::Mutex;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{State, lock};

/// The longest body that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// Answers a request whose first line was read.
pub(super) fn serve(
    lines: &mut impl BufRead,
    out: &mut impl Write,
    state: &Mutex<State>,
) -> anyhow::Result<()> {
    let (mut target, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => target = value.trim().to_owned(),
            "content-length" => length = value.trim().parse()?,
            _ => {}
        }
    }
    let mut body = String::new();
    lines.take(length.min(MAX_BYTES)).read_to_string(&mut body)?;
    let mut state = lock(state);
    let (status, kind, text) = match target.as_str() {
        "AmazonSSM.StartSession" => match started(&mut state, &body) {
            Ok(session) => (200, "application/x-amz-json-1.1", session.to_string()),
            Err(error) => (400, "application/x-amz-json-1.1", refused(&error).to_string()),
        },
        _ => (200, "text/xml", described(&mut state, &body)?),
    };
    write!(
        out,
        "HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )?;
    Ok(())
}

fn started(state: &mut State, body: &str) -> anyhow::Result<Value> {
    let request: Value = serde_json::from_str(body)?;
    let target = request["Target"].as_str().context("no Target")?;
    let document = request["DocumentName"].as_str().context("no DocumentName")?;
    state.log.push(format!("StartSession {target}"));
    state.start(target, document, &request["Parameters"])
}

/// The error's code and text apart, as the API has them.
fn refused(error: &anyhow::Error) -> Value {
    let text = error.to_string();
    let (_, rest) = text.split_once('(').unwrap_or_default();
    let (code, rest) = rest.split_once(')').unwrap_or_default();
    let (_, message) = rest.split_once(": ").unwrap_or_default();
    json!({"__type": code, "message": message})
}

fn described(state: &mut State, body: &str) -> anyhow::Result<String> {
    let fields: BTreeMap<String, String> = body
        .split('&')
        .filter_map(|field| field.split_once('='))
        .map(|(name, value)| Ok((name.to_owned(), decoded(value)?)))
        .collect::<anyhow::Result<_>>()?;
    anyhow::ensure!(
        fields
            .get("Action")
            .is_some_and(|action| action == "DescribeInstances"),
        "no such action: {body}"
    );
    state.log.push("DescribeInstances".to_owned());
    let filters: Vec<Value> = (1..)
        .map_while(|number| {
            let name = fields.get(&format!("Filter.{number}.Name"))?;
            let values = (1..).map_while(|value| fields.get(&format!("Filter.{number}.Value.{value}")));
            Some(json!({"Name": name, "Values": values.collect::<Vec<_>>()}))
        })
        .collect();
    let found = state.described(&json!(filters));
    let mut items = String::new();
    // In the order in which they are known: sorting is the CLI's work.
    for instance in &state.instances {
        let is_found = found["Ids"]
            .as_array()
            .is_some_and(|ids| ids.iter().any(|id| id == instance.id.as_str()));
        if is_found {
            write!(
                items,
                "<item><reservationId>r</reservationId><instancesSet><item><instanceId>{}</instanceId><launchTime>{}</launchTime></item></instancesSet></item>",
                instance.id, instance.launched
            )?;
        }
    }
    Ok(format!(
        "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>1</requestId>\
         <reservationSet>{items}</reservationSet></DescribeInstancesResponse>"
    ))
}

/// A value of a form.
fn decoded(text: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = [rest.next().unwrap_or_default(), rest.next().unwrap_or_default()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits)?, 16)?);
            }
            byte => bytes.push(byte),
        }
    }
    Ok(String::from_utf8(bytes)?)
}
