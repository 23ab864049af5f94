//! The messages that Postern sends as a client. Each function appends one message to a buffer.
//! (PostgreSQL documentation, "Message Formats".)

/// A message of type `tag` whose body `body` writes.
pub fn message(tag: u8, into: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    into.push(tag);
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    body(into);
    let length = ((into.len() - start) as u32).to_be_bytes();
    into.iter_mut()
        .skip(start)
        .zip(length)
        .for_each(|(slot, byte)| *slot = byte);
}

/// Tag and length of a message whose body follows by other ways.
#[inline]
pub fn header(tag: u8, length: u32, into: &mut Vec<u8>) {
    into.push(tag);
    into.extend_from_slice(&length.to_be_bytes());
}

/// Query.
pub fn query(text: &str, into: &mut Vec<u8>) {
    message(b'Q', into, |body| {
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    });
}

/// Close of a prepared statement.
pub fn close_statement(name: &str, into: &mut Vec<u8>) {
    message(b'C', into, |body| {
        body.push(b'S');
        body.extend_from_slice(name.as_bytes());
        body.push(0);
    });
}

/// Describe of a prepared statement.
pub fn describe_statement(name: &str, into: &mut Vec<u8>) {
    message(b'D', into, |body| {
        body.push(b'S');
        body.extend_from_slice(name.as_bytes());
        body.push(0);
    });
}

/// Sync.
pub fn sync(into: &mut Vec<u8>) {
    message(b'S', into, |_| {});
}

/// Appends a Flush.
pub fn flush(into: &mut Vec<u8>) {
    message(b'H', into, |_| {});
}

/// The portal of [`set_config`] and [`run`], so that the one without a name stays its owner's.
const PORTAL: &[u8] = b"postern: asks\0";

/// The types of the messages of [`set_config`] for `count` settings, in order.
pub fn set_config_types(count: usize) -> impl Iterator<Item = u8> {
    let each = std::iter::repeat_n([b'B', b'E', b'C'], count).flatten();
    std::iter::once(b'P').chain(each).chain([b'C'])
}

/// Sets each name to its value, without one to what the server began with, for the session or (`is_local`) for the transaction:
/// Parse once, Bind, Execute and Close for each, Close; a Sync must follow. One transaction, so that all take or none; and nothing
/// is left for a client that binds without having parsed.
pub fn set_config<'a>(
    settings: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    is_local: bool,
    into: &mut Vec<u8>,
) {
    message(b'P', into, |body| {
        let text = format!("\0SELECT pg_catalog.set_config($1,$2,{is_local})\0");
        body.extend_from_slice(text.as_bytes());
        // Two parameters of type text (object identifier 25).
        body.extend_from_slice(&[0, 2, 0, 0, 0, 25, 0, 0, 0, 25]);
    });
    for (name, value) in settings {
        message(b'B', into, |body| {
            body.extend_from_slice(PORTAL);
            body.extend_from_slice(&[0, 0, 0, 0, 2]);
            for text in [Some(name), value] {
                let length = text.map_or(u32::MAX, |text| text.len() as u32);
                body.extend_from_slice(&length.to_be_bytes());
                body.extend_from_slice(text.unwrap_or_default().as_bytes());
            }
            body.extend_from_slice(&[0, 0]);
        });
        message(b'E', into, |body| {
            body.extend_from_slice(PORTAL);
            body.extend_from_slice(&[0; 4]);
        });
        message(b'C', into, |body| {
            body.push(b'P');
            body.extend_from_slice(PORTAL);
        });
    }
    close_statement("", into);
}

/// The types of the messages of [`run`], in order.
pub const RUN_TYPES: [u8; 5] = [b'P', b'B', b'E', b'C', b'C'];

/// Runs a statement that returns nothing within an extended query: Parse, Bind, Execute, and Close of the portal and the unnamed
/// statement.
pub fn run(text: &str, into: &mut Vec<u8>) {
    message(b'P', into, |body| {
        body.push(0);
        body.extend_from_slice(text.as_bytes());
        body.extend_from_slice(&[0, 0, 0]);
    });
    message(b'B', into, |body| {
        body.extend_from_slice(PORTAL);
        body.extend_from_slice(&[0; 7]);
    });
    message(b'E', into, |body| {
        body.extend_from_slice(PORTAL);
        body.extend_from_slice(&[0; 4]);
    });
    message(b'C', into, |body| {
        body.push(b'P');
        body.extend_from_slice(PORTAL);
    });
    close_statement("", into);
}

/// An identifier in quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
