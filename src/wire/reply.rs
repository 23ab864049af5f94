//! The messages that Postern sends as a server, encoded by `pgwire`'s structs.
//!
//! Each function appends one message to a buffer. Texts that come from outside are cut to fit ([`Report`]).

use bytes::{BufMut as _, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::data::{DataRow, FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

use super::body::Body;
use super::sqlstate::{FEATURE_NOT_SUPPORTED, SqlState};
use super::startup::{CancelKey, ProtocolVersion};

/// The longest text of one field; what is longer is cut.
const MAX_FIELD_BYTES: usize = 4_000;

/// The type text.
const TEXT_OID: u32 = 25;
/// The type int8 (`pg_type.dat` of PostgreSQL, as the one above).
const INT8_OID: u32 = 20;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The connection ends.
    Fatal,
    /// The statement failed.
    Error,
    /// Worth knowing.
    Notice,
}

impl Severity {
    fn text(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Notice => "NOTICE",
        }
    }
}

/// The fields of an ErrorResponse or NoticeResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it ends the connection.
    pub severity: Severity,
    /// What kind of error it is, for programs.
    pub state: SqlState,
    /// What happened.
    pub message: String,
    /// Why.
    pub detail: Option<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Report {
    fn fields(&self) -> Vec<(u8, String)> {
        let mut fields = vec![
            (b'S', self.severity.text().to_owned()),
            (b'V', self.severity.text().to_owned()),
            (b'C', self.state.to_owned()),
            (b'M', clean(&self.message)),
        ];
        fields.extend(self.detail.as_deref().map(|text| (b'D', clean(text))));
        fields.extend(self.hint.as_deref().map(|text| (b'H', clean(text))));
        fields
    }
}

/// An ErrorResponse, or a NoticeResponse if the severity is [`Severity::Notice`].
pub fn report(report: &Report, out: &mut BytesMut) {
    let fields = report.fields();
    match report.severity {
        Severity::Notice => append(&NoticeResponse::new(fields), out),
        Severity::Fatal | Severity::Error => append(&ErrorResponse::new(fields), out),
    }
}

/// AuthenticationOk.
pub fn authentication_ok(out: &mut BytesMut) {
    append(&Authentication::Ok, out);
}

/// AuthenticationCleartextPassword.
pub fn authentication_cleartext_password(out: &mut BytesMut) {
    append(&Authentication::CleartextPassword, out);
}

/// AuthenticationSASL with the mechanisms on offer.
pub fn authentication_sasl(mechanisms: &[&str], out: &mut BytesMut) {
    let mechanisms = mechanisms.iter().map(|name| (*name).to_owned()).collect();
    append(&Authentication::SASL(mechanisms), out);
}

/// AuthenticationSASLContinue.
pub fn authentication_sasl_continue(data: Vec<u8>, out: &mut BytesMut) {
    append(&Authentication::SASLContinue(data.into()), out);
}

/// AuthenticationSASLFinal.
pub fn authentication_sasl_final(data: Vec<u8>, out: &mut BytesMut) {
    append(&Authentication::SASLFinal(data.into()), out);
}

/// NegotiateProtocolVersion: the newest minor version spoken here, and the `_pq_.` options that aren't known.
pub fn negotiate_protocol_version(newest: ProtocolVersion, unknown: Vec<String>, out: &mut BytesMut) {
    let newest = (i32::from(newest.major) << 16) | i32::from(newest.minor);
    append(&NegotiateProtocolVersion::new(newest, unknown), out);
}

/// ParameterStatus.
pub fn parameter_status(name: &str, value: &str, out: &mut BytesMut) {
    append(&ParameterStatus::new(name.to_owned(), value.to_owned()), out);
}

/// BackendKeyData.
pub fn backend_key_data(key: &CancelKey, out: &mut BytesMut) {
    let secret = SecretKey::Bytes(key.secret.clone().into());
    append(&BackendKeyData::new(key.pid, secret), out);
}

/// ReadyForQuery outside a transaction.
pub fn ready_for_query(out: &mut BytesMut) {
    append(&ReadyForQuery::new(TransactionStatus::Idle), out);
}

/// What a column has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    Text,
    /// A number of 64 bits.
    Int8,
}

/// How a column's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As text.
    Text,
    /// As the type's own bytes.
    Binary,
}

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// None.
    Null,
    /// Of a column of text.
    Text(String),
    /// Of a column of numbers.
    Int(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, T::into)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// What is more than fits is as much as fits.
macro_rules! from_number {
    ($($number:ty),*) => {$(
        impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}

from_number!(i32, u16, u32, u64, usize);

/// The format of the column at that place: one for each, or one for all, or text (PostgreSQL documentation, "Message Formats", Bind).
fn format_of(formats: &[Format], place: usize) -> Format {
    match formats {
        [] => Format::Text,
        [all] => *all,
        each => each.get(place).copied().unwrap_or(Format::Text),
    }
}

/// RowDescription.
pub fn row_description(columns: &[(&str, Type)], formats: &[Format], out: &mut BytesMut) {
    let fields = columns.iter().enumerate().map(|(place, (name, of))| {
        let (oid, length) = match of {
            Type::Text => (TEXT_OID, -1),
            Type::Int8 => (INT8_OID, 8),
        };
        let format = i16::from(format_of(formats, place) == Format::Binary);
        FieldDescription::new((*name).to_owned(), 0, 0, oid, length, -1, format)
    });
    append(&RowDescription::new(fields.collect()), out);
}

/// DataRow.
pub fn data_row(values: &[Value], formats: &[Format], out: &mut BytesMut) {
    let mut data = BytesMut::new();
    let put = |bytes: &[u8], data: &mut BytesMut| {
        data.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        data.put_slice(bytes);
    };
    for (place, value) in values.iter().enumerate() {
        match (value, format_of(formats, place)) {
            (Value::Null, _) => data.put_i32(-1),
            (Value::Text(text), _) => put(text.as_bytes(), &mut data),
            (Value::Int(number), Format::Text) => put(number.to_string().as_bytes(), &mut data),
            (Value::Int(number), Format::Binary) => put(&number.to_be_bytes(), &mut data),
        }
    }
    let count = i16::try_from(values.len()).unwrap_or(i16::MAX);
    append(&DataRow::new(data, count), out);
}

/// ParameterDescription of a statement that has none.
pub fn no_parameters(out: &mut BytesMut) {
    append(&ParameterDescription::new(Vec::new()), out);
}

/// ParseComplete.
pub fn parse_complete(out: &mut BytesMut) {
    append(&ParseComplete::new(), out);
}

/// BindComplete.
pub fn bind_complete(out: &mut BytesMut) {
    append(&BindComplete::new(), out);
}

/// CloseComplete.
pub fn close_complete(out: &mut BytesMut) {
    append(&CloseComplete::new(), out);
}

/// NoData: a statement that returns no rows.
pub fn no_data(out: &mut BytesMut) {
    append(&NoData::new(), out);
}

/// CommandComplete.
pub fn command_complete(tag: &str, out: &mut BytesMut) {
    append(&CommandComplete::new(tag.to_owned()), out);
}

/// EmptyQueryResponse.
pub fn empty_query(out: &mut BytesMut) {
    append(&EmptyQueryResponse::new(), out);
}

/// SQLSTATE and message of an ErrorResponse's body, as one line each; empty where the server sent none.
pub fn state_and_message(body: &[u8]) -> (String, String) {
    let (mut state, mut message) = (String::new(), String::new());
    let mut fields = Body::new(body);
    while let Ok(code) = fields.u8()
        && code != 0
        && let Ok(text) = fields.cstring()
    {
        let line = || {
            String::from_utf8_lossy(text)
                .chars()
                .filter(|c| !c.is_control())
                .take(MAX_FIELD_BYTES / 4)
                .collect()
        };
        match code {
            b'C' => state = line(),
            b'M' => message = line(),
            _ => {}
        }
    }
    (state, message)
}

/// The routine that refuses such a statement (`src/backend/utils/cache/plancache.c`).
pub const RESULT_TYPE_CHANGED: &str = "RevalidateCachedQuery";

/// The body of an ErrorResponse with which a server refuses a statement that would return something else than when it was prepared,
/// as bad as the `refusal` in whose place it comes. Drivers know it by its code and the routine that raises it.
pub fn result_type_changed(refusal: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut field = |code: u8, text: &[u8]| {
        body.push(code);
        body.extend_from_slice(text);
        body.push(0);
    };
    let mut fields = Body::new(refusal);
    while let Ok(code) = fields.u8()
        && code != 0
        && let Ok(text) = fields.cstring()
    {
        if matches!(code, b'S' | b'V') {
            field(code, text);
        }
    }
    field(b'C', FEATURE_NOT_SUPPORTED.as_bytes());
    field(b'M', b"cached plan must not change result type");
    field(b'D', b"Tables or search_path are others than when the statement was prepared, and it would return other columns.");
    field(b'H', b"Prepare the statement anew.");
    field(b'F', b"plancache.c");
    field(b'R', RESULT_TYPE_CHANGED.as_bytes());
    body.push(0);
    body
}

fn clean(text: &str) -> String {
    let end = text.floor_char_boundary(MAX_FIELD_BYTES);
    text.get(..end).unwrap_or_default().replace('\0', " ")
}

/// A message that is too long for `pgwire` (30,000 bytes) is left out whole: a parameter of that length stays unknown to
/// the client, and nothing else that is sent can be so long.
fn append(message: &impl Message, out: &mut BytesMut) {
    let before = out.len();
    if message.encode(out).is_err() {
        out.truncate(before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::Frames;
    use crate::wire::sqlstate;

    #[test]
    fn a_report_has_no_room_for_smuggling() {
        let mut out = BytesMut::new();
        let long = Report {
            severity: Severity::Fatal,
            state: sqlstate::INTERNAL_ERROR,
            message: "a\0Cevil".into(),
            detail: Some("é".repeat(9_000)),
            hint: None,
        };
        report(&long, &mut out);
        let mut frames = Frames::default();
        let mut input = &out[..];
        let frame = frames.next(&mut input, |_| u32::MAX).unwrap().unwrap();
        assert_eq!(frame.tag, b'E');
        assert!(input.is_empty());
        let fields: Vec<&[u8]> = frame.body.split(|byte| *byte == 0).collect();
        assert_eq!(&fields[..4], [&b"SFATAL"[..], b"VFATAL", b"CXX000", b"Ma Cevil"]);
    }
}
