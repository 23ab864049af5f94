//! How long tokens and credentials are good for, when to replace them, and how a token names its user.
//!
//! A token is a signed URL that RDS accepts for 15 minutes after the time that is signed into it, as
//! long as the credentials that signed it are valid too (Amazon RDS User Guide, "Connecting to your DB
//! instance using IAM authentication"). It serves any number of logins in that time, and what it
//! opened stays open afterwards. So one token per database user is made ahead of its need, and
//! replaced well before its end. Nothing here signs, fetches or waits.

use std::time::{Duration, SystemTime};

use crate::ids::DbUser;

/// How long a token is accepted: the `X-Amz-Expires` of RDS tokens, which can't be made longer.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(900);

/// How long before its end a token is no longer handed out: the time for a dial, a TLS handshake and a
/// slow login, and for clocks that disagree.
pub const TOKEN_MARGIN: Duration = Duration::from_secs(60);

/// By how much a token may seem to come from the future. A clock that is being adjusted steps back by
/// less; after a larger step the token bears a time that the server would think wrong.
pub const CLOCK_STEP_TOLERANCE: Duration = Duration::from_secs(5);

/// How long before their expiry credentials are renewed. EC2 has new role credentials ready at least five
/// minutes before the old ones expire (Amazon EC2 User Guide, "Retrieve security credentials from
/// instance metadata").
pub const CREDENTIALS_LEAD: Duration = Duration::from_secs(300);

/// The least time until credentials are asked for again, however close their expiry: a source that keeps
/// returning the same ones is not to be asked in a loop.
pub const CREDENTIALS_PAUSE: Duration = Duration::from_secs(1);

/// The longest role name that PostgreSQL tells apart: NAMEDATALEN - 1 bytes (PostgreSQL documentation,
/// "Identifiers and Key Words").
pub const MAX_DB_USER_BYTES: usize = 63;

/// When a token was made, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// The time that is signed into it, `X-Amz-Date`. That says whole seconds; a fraction here makes
    /// the token seem to last that much longer than it does.
    pub signed_at: SystemTime,
    /// When the credentials that signed it expire; `None` for those that don't.
    pub credentials_expire: Option<SystemTime>,
}

impl TokenTimes {
    /// When the server stops accepting it: the end of its own life, or of the credentials' if that is
    /// sooner.
    pub fn usable_until(&self) -> SystemTime {
        let own = self.signed_at + TOKEN_LIFETIME;
        self.credentials_expire.map_or(own, |expire| own.min(expire))
    }

    /// Whether it may be handed out at `now`, to be used within `margin`; usually [`TOKEN_MARGIN`].
    pub fn is_usable(&self, now: SystemTime, margin: Duration) -> bool {
        now + margin < self.usable_until() && self.signed_at <= now + CLOCK_STEP_TOLERANCE
    }

    /// When to make its successor: at 70 % of its life, give or take 5 %, but never so late that it
    /// would no longer be handed out (by [`TOKEN_MARGIN`]), and never before it was signed.
    ///
    /// `jitter`, from 0 to 1 and drawn anew for each token, spreads the work of tokens that were made
    /// at the same time. A result that equals `signed_at` tells of credentials so near their end
    /// that signing again with them is no use; they have to be renewed first.
    pub fn refresh_at(&self, jitter: f64) -> SystemTime {
        let until = self.usable_until();
        let life = until.duration_since(self.signed_at).unwrap_or_default();
        let share = 0.65 + 0.10 * unit(jitter);
        self.signed_at + life.mul_f64(share).min(life.saturating_sub(TOKEN_MARGIN))
    }
}

/// When to renew credentials that expire at `expiry`: [`CREDENTIALS_LEAD`] before, or half of what
/// remains at `now` if that is less, and up to a fifth of that earlier by `jitter`, from 0 to 1. So if
/// the source still has nothing better by then, there is time left for further tries, each of them
/// nearer to the last. Always at least [`CREDENTIALS_PAUSE`] from `now`.
pub fn credentials_refresh_at(expiry: SystemTime, now: SystemTime, jitter: f64) -> SystemTime {
    let remaining = expiry.duration_since(now).unwrap_or_default();
    let lead = CREDENTIALS_LEAD
        .min(remaining / 2)
        .mul_f64(1.0 + 0.2 * unit(jitter));
    now + remaining.saturating_sub(lead).max(CREDENTIALS_PAUSE)
}

/// A name that can't be a database user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DbUserError {
    /// There is no name.
    #[error("the database user is empty")]
    Empty,
    /// There is a zero byte in it, at which PostgreSQL would cut it off.
    #[error("the database user contains a zero byte")]
    Nul,
    /// PostgreSQL would cut it off, and so take it for another.
    #[error("the database user is {bytes} bytes long, PostgreSQL allows {MAX_DB_USER_BYTES}")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
}

/// `user` as the value of the token's parameter `DBUser`: every byte of its UTF-8 percent-encoded in
/// upper case except `A-Za-z0-9-._~` (RFC 3986 sections 2.1 and 2.3), as signatures require (AWS Signature
/// Version 4, "Create a canonical request": UriEncode). A client chooses the name, so anything less would
/// let it add parameters of its own to the URL that is signed.
pub fn encode_db_user(user: &DbUser) -> Result<String, DbUserError> {
    let name = user.as_str();
    match name.len() {
        0 => return Err(DbUserError::Empty),
        bytes if bytes > MAX_DB_USER_BYTES => return Err(DbUserError::TooLong { bytes }),
        _ if name.contains('\0') => return Err(DbUserError::Nul),
        _ => {}
    }
    let mut encoded = String::with_capacity(3 * name.len());
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => {
                encoded.push('%');
                encoded.extend([byte >> 4, byte & 0x0F].map(hex_digit));
            }
        }
    }
    Ok(encoded)
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16).map_or('0', |digit| digit.to_ascii_uppercase())
}

/// `jitter` kept within what it should be.
fn unit(jitter: f64) -> f64 {
    if jitter.is_nan() {
        0.5
    } else {
        jitter.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIGNED: u64 = 1_724_709_600;

    fn at(offset: i64) -> SystemTime {
        let seconds = SIGNED.checked_add_signed(offset).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token(credentials_expire: Option<i64>) -> TokenTimes {
        TokenTimes {
            signed_at: at(0),
            credentials_expire: credentials_expire.map(at),
        }
    }

    #[test]
    fn usable_for_a_quarter_of_an_hour_or_as_long_as_the_credentials() {
        assert_eq!(token(None).usable_until(), at(900));
        assert_eq!(token(Some(21_600)).usable_until(), at(900));
        assert_eq!(token(Some(300)).usable_until(), at(300));
        assert_eq!(token(Some(-10)).usable_until(), at(-10));
    }

    #[test]
    fn handed_out_until_the_margin() {
        let minute = TOKEN_MARGIN;
        let rows = [
            (None, 0, minute, true),
            (None, 839, minute, true),
            (None, 840, minute, false),
            (None, 899, Duration::ZERO, true),
            (None, 900, Duration::ZERO, false),
            (Some(300), 239, minute, true),
            (Some(300), 240, minute, false),
            (Some(30), 0, minute, false),
            (Some(-10), 0, Duration::ZERO, false),
            // The clock was set back.
            (None, -5, minute, true),
            (None, -6, minute, false),
            (None, -3600, minute, false),
        ];
        for (expire, now, margin, expected) in rows {
            let usable = token(expire).is_usable(at(now), margin);
            assert_eq!(usable, expected, "{expire:?} {now} {margin:?}");
        }
    }

    #[test]
    fn refreshed_at_about_seven_tenths() {
        let rows = [
            (None, 0.0, 585),
            (None, 0.5, 630),
            (None, 1.0, 675),
            (None, f64::NAN, 630),
            (None, 9.0, 675),
            (None, -9.0, 585),
            (Some(400), 0.5, 280),
            // Later it would not be handed out any more.
            (Some(100), 0.5, 40),
            (Some(60), 0.5, 0),
            (Some(10), 0.5, 0),
            (Some(-10), 0.5, 0),
        ];
        for (expire, jitter, expected) in rows {
            let refresh = token(expire).refresh_at(jitter);
            assert_eq!(round(refresh), at(expected), "{expire:?} {jitter}");
        }
    }

    #[test]
    fn credentials_are_renewed_some_minutes_ahead() {
        let rows = [
            (21_600, 0.0, 21_300),
            (21_600, 0.5, 21_270),
            (21_600, 1.0, 21_240),
            (600, 0.0, 300),
            (400, 0.0, 200),
            (400, 1.0, 160),
            (1, 0.0, 1),
            (0, 0.0, 1),
            (-100, 0.5, 1),
        ];
        for (expiry, jitter, expected) in rows {
            let refresh = credentials_refresh_at(at(expiry), at(0), jitter);
            assert_eq!(round(refresh), at(expected), "{expiry} {jitter}");
        }
    }

    fn round(time: SystemTime) -> SystemTime {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs_f64().round() as u64)
    }

    #[test]
    fn users_are_percent_encoded() {
        let rows = [
            ("app_ro", "app_ro"),
            ("AZaz09-._~", "AZaz09-._~"),
            ("a b", "a%20b"),
            ("a+b", "a%2Bb"),
            ("a&DBUser=postgres", "a%26DBUser%3Dpostgres"),
            ("a#b", "a%23b"),
            ("a%20b", "a%2520b"),
            ("a/b?c:d@e", "a%2Fb%3Fc%3Ad%40e"),
            ("\u{fc}\n\u{7f}", "%C3%BC%0A%7F"),
        ];
        for (user, expected) in rows {
            assert_eq!(encode_db_user(&user.into()).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn names_that_postgres_would_change_are_refused() {
        let umlauts = "\u{fc}".repeat(32);
        let rows = [
            ("", DbUserError::Empty),
            ("a\0", DbUserError::Nul),
            (&"a".repeat(64), DbUserError::TooLong { bytes: 64 }),
            (&umlauts, DbUserError::TooLong { bytes: 64 }),
        ];
        for (user, expected) in rows {
            assert_eq!(encode_db_user(&user.into()), Err(expected));
        }
        assert!(encode_db_user(&"a".repeat(63).as_str().into()).is_ok());
    }

    proptest! {
        #[test]
        fn encoding_is_reversible_and_plain(user in "[^\0]{1,15}") {
            let encoded = encode_db_user(&user.as_str().into()).unwrap();
            let mut decoded = Vec::new();
            let mut rest = encoded.as_str();
            while let Some(c) = rest.chars().next() {
                if c == '%' {
                    decoded.push(u8::from_str_radix(&rest[1..3], 16).unwrap());
                    rest = &rest[3..];
                } else {
                    prop_assert!(c.is_ascii_alphanumeric() || "-._~".contains(c));
                    decoded.push(c as u8);
                    rest = &rest[1..];
                }
            }
            prop_assert_eq!(decoded, user.as_bytes());
        }

        #[test]
        fn a_refresh_comes_in_time(expire in -100_i64..2000, jitter in any::<f64>()) {
            let token = token(Some(expire));
            let refresh = token.refresh_at(jitter);
            prop_assert!(refresh >= token.signed_at);
            let last = token.usable_until() - TOKEN_MARGIN;
            prop_assert!(refresh <= last || refresh == token.signed_at);
        }

        #[test]
        fn credentials_are_asked_for_again_but_not_in_a_loop(
            expiry in 0_i64..100_000,
            jitter in 0.0..1.0,
        ) {
            let (mut now, mut times) = (at(0), 0);
            while now < at(expiry) {
                let next = credentials_refresh_at(at(expiry), now, jitter);
                prop_assert!(next >= now + CREDENTIALS_PAUSE);
                (now, times) = (next, times + 1);
            }
            prop_assert!(times < 20, "{times}");
        }
    }
}
