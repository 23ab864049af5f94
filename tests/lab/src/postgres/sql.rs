//! A client for the simple query protocol over a unix socket, where the server trusts everybody.
//!
//! It is for the lab's own questions and for assertions: text results only, no parameters, no COPY.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context as _, bail};

/// Rows of text values; `None` is NULL.
pub(crate) type Rows = Vec<Vec<Option<String>>>;

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
}

impl Connection {
    pub(crate) fn connect(socket: &Path, user: &str, database: &str) -> anyhow::Result<Self> {
        let mut connection = Self {
            stream: UnixStream::connect(socket)?,
        };
        let parameters = format!(
            "user\0{user}\0database\0{database}\0application_name\0postern-lab\0client_encoding\0UTF8\0\0"
        );
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        startup.extend_from_slice(parameters.as_bytes());
        connection.send(None, &startup)?;
        connection.until_ready()?;
        Ok(connection)
    }

    /// Runs one or more statements and returns all their rows.
    pub(crate) fn query(&mut self, sql: &str) -> anyhow::Result<Rows> {
        self.send(Some(b'Q'), format!("{sql}\0").as_bytes())?;
        self.until_ready().with_context(|| format!("in: {sql}"))
    }

    fn send(&mut self, tag: Option<u8>, body: &[u8]) -> anyhow::Result<()> {
        let mut frame: Vec<u8> = tag.into_iter().collect();
        frame.extend_from_slice(&u32::try_from(body.len() + 4)?.to_be_bytes());
        frame.extend_from_slice(body);
        Ok(self.stream.write_all(&frame)?)
    }

    /// Reads up to ReadyForQuery. The first error is the answer, as nothing useful can follow it.
    fn until_ready(&mut self) -> anyhow::Result<Rows> {
        let mut rows = Rows::new();
        let mut error = None;
        loop {
            let mut header = [0; 5];
            if let Err(closed) = self.stream.read_exact(&mut header) {
                return Err(error.unwrap_or_else(|| closed.into()));
            }
            let [tag, length @ ..] = header;
            let length = usize::try_from(u32::from_be_bytes(length))?
                .checked_sub(4)
                .context("bad frame length")?;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body)?;
            match tag {
                b'D' => rows.push(data_row(&body)?),
                b'E' => error = error.or_else(|| Some(anyhow::anyhow!(error_text(&body)))),
                b'Z' => return error.map_or(Ok(rows), Err),
                b'R' if body != [0; 4] => bail!("the server asks for a password"),
                _ => {}
            }
        }
    }
}

/// `SQLSTATE: message` of an ErrorResponse.
fn error_text(body: &[u8]) -> String {
    let field = |tag: u8| {
        body.split(|byte| *byte == 0)
            .find_map(|field| field.strip_prefix(&[tag]))
            .map(|text| String::from_utf8_lossy(text).into_owned())
            .unwrap_or_default()
    };
    format!("{}: {}", field(b'C'), field(b'M'))
}

fn data_row(body: &[u8]) -> anyhow::Result<Vec<Option<String>>> {
    let (count, mut rest) = body.split_first_chunk().context("short row")?;
    let mut values = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk().context("short row")?;
        rest = after;
        values.push(match i32::from_be_bytes(*length) {
            -1 => None,
            length => {
                let (value, after) = rest
                    .split_at_checked(usize::try_from(length)?)
                    .context("short row")?;
                rest = after;
                Some(String::from_utf8_lossy(value).into_owned())
            }
        });
    }
    Ok(values)
}

/// Quotes a string constant.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Quotes a name.
pub(crate) fn identifier(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}
