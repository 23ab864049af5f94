//! Signature Version 4, written from its specification ("Create a signed AWS API request", IAM User Guide).
//!
//! This file knows how a request is put into canonical form and how the signature is computed from it. It
//! doesn't know what a request asks for, who may ask, or when it is too old; [`crate::token`] and
//! [`crate::aws`] do. It shares no code with the gateway, so that a mistake there isn't repeated here.

use aws_lc_rs::{constant_time, digest, hmac};

/// Where and when a signature is valid: the middle part of `X-Amz-Credential`, and `X-Amz-Date`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    /// `YYYYMMDD`.
    pub(crate) date: String,
    pub(crate) region: String,
    pub(crate) service: String,
    /// `YYYYMMDDTHHMMSSZ`.
    pub(crate) amz_date: String,
}

/// A request in the form that is signed.
#[derive(Debug, Clone)]
pub(crate) struct CanonicalRequest<'a> {
    pub(crate) method: &'a str,
    /// Already percent-encoded.
    pub(crate) path: &'a str,
    /// Decoded names and values, without `X-Amz-Signature`.
    pub(crate) query: &'a [(String, String)],
    /// Lower-case names with their values, exactly those that are signed.
    pub(crate) headers: &'a [(String, String)],
    /// Lower-case hex SHA-256 of the body.
    pub(crate) payload_hash: &'a str,
}

impl CanonicalRequest<'_> {
    fn text(&self) -> String {
        let mut headers: Vec<_> = self.headers.iter().collect();
        headers.sort();
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let lines: String = headers
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", squeeze(value)))
            .collect();
        format!(
            "{}\n{}\n{}\n{lines}\n{}\n{}",
            self.method,
            self.path,
            canonical_query(self.query),
            names.join(";"),
            self.payload_hash
        )
    }

    /// The signature of this request in lower-case hex.
    pub(crate) fn signature(&self, secret: &str, scope: &Scope) -> String {
        let Scope {
            date,
            region,
            service,
            amz_date,
        } = scope;
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{amz_date}\n{date}/{region}/{service}/aws4_request\n{}",
            sha256_hex(self.text().as_bytes())
        );
        let mut key = mac(format!("AWS4{secret}").as_bytes(), date);
        for part in [region.as_str(), service, "aws4_request"] {
            key = mac(key.as_ref(), part);
        }
        hex(mac(key.as_ref(), &to_sign).as_ref())
    }
}

/// Compares two signatures in a time that doesn't tell where they differ.
pub(crate) fn same_signature(one: &str, other: &str) -> bool {
    constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
#[must_use]
pub fn uri_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// Decodes `%XX`. Characters that should have been encoded, bad escapes and bad UTF-8 are refused.
pub(crate) fn uri_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => bytes.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(bytes).ok()
}

/// Splits a query string into decoded pairs. `None` when it isn't strictly `name=value&name=value`.
pub(crate) fn parse_query(query: &str) -> Option<Vec<(String, String)>> {
    query
        .split('&')
        .map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((uri_decode(name)?, uri_decode(value)?))
        })
        .collect()
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn canonical_query(pairs: &[(String, String)]) -> String {
    let mut encoded: Vec<_> = pairs
        .iter()
        .map(|(name, value)| (uri_encode(name), uri_encode(value)))
        .collect();
    encoded.sort();
    let joined: Vec<_> = encoded
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    joined.join("&")
}

/// Trims a header value and makes one space of several, as the canonical form asks.
fn squeeze(value: &str) -> String {
    value
        .split(' ')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn mac(key: &[u8], message: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "get-vanilla-query-order-key-case" of the SigV4 test suite.
    #[test]
    fn signs_the_published_example() {
        let scope = Scope {
            date: "20150830".into(),
            region: "us-east-1".into(),
            service: "service".into(),
            amz_date: "20150830T123600Z".into(),
        };
        let query = [
            ("Param2".to_owned(), "value2".to_owned()),
            ("Param1".to_owned(), "value1".to_owned()),
        ];
        let headers = [
            ("x-amz-date".to_owned(), "20150830T123600Z".to_owned()),
            ("host".to_owned(), "example.amazonaws.com".to_owned()),
        ];
        let request = CanonicalRequest {
            method: "GET",
            path: "/",
            query: &query,
            headers: &headers,
            payload_hash: &sha256_hex(b""),
        };
        assert_eq!(
            request.signature("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", &scope),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        );
    }

    #[test]
    fn encoding_goes_both_ways_and_is_strict() {
        assert_eq!(uri_encode("odd user+x/ü~"), "odd%20user%2Bx%2F%C3%BC~");
        assert_eq!(uri_decode("odd%20user%2bx").as_deref(), Some("odd user+x"));
        for text in ["a+b", "a b", "%2", "%zz", "%", "%ff", "a#b", "a/b"] {
            assert_eq!(uri_decode(text), None, "{text}");
        }
    }
}
