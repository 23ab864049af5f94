//! What time it is by AWS's clock: the `Date` of an answer (RFC 9110, section 6.6.1).

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::DATE;
use jiff::fmt::rfc2822;

/// When the answer with these headers was given, as far as it says so, in whole seconds.
pub(super) fn date(headers: &HeaderMap) -> Option<SystemTime> {
    let text = headers.get(DATE)?.to_str().ok()?;
    let seconds = rfc2822::parse(text).ok()?.timestamp().as_second();
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_as_http_writes_it_is_read() {
        let mut headers = HeaderMap::new();
        assert_eq!(date(&headers), None);
        headers.insert(DATE, "Mon, 26 Aug 2024 22:00:00 GMT".parse().unwrap());
        let expected = SystemTime::UNIX_EPOCH + Duration::from_secs(1_724_709_600);
        assert_eq!(date(&headers), Some(expected));
        headers.insert(DATE, "yesterday".parse().unwrap());
        assert_eq!(date(&headers), None);
    }
}
