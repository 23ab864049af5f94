//! A cursor over the body of one isolated frame.
//!
//! Every read is bounded by the frame: a length field inside a body can be wrong, and then the read
//! fails; it never reaches past the frame and never panics.

/// The bytes of one frame's body that haven't been read yet.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a>(&'a [u8]);

/// A field didn't fit into its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field doesn't fit into its message")]
pub struct Truncated;

impl<'a> Body<'a> {
    /// A cursor at the start of `bytes`, which hold one body without tag and length.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether everything was read.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// What hasn't been read yet.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        let (byte, rest) = self.0.split_first().ok_or(Truncated)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// The next four bytes as a signed number in network order.
    pub fn i32(&mut self) -> Result<i32, Truncated> {
        let (bytes, rest) = self.0.split_first_chunk::<4>().ok_or(Truncated)?;
        self.0 = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], Truncated> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// The bytes up to the next NUL, which is skipped.
    pub fn cstring(&mut self) -> Result<&'a [u8], Truncated> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Truncated)?;
        let text = self.bytes(end)?;
        self.u8()?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end() {
        let mut body = Body::new(b"ab\0\0\0\0\x07");
        assert_eq!(body.cstring(), Ok(&b"ab"[..]));
        assert_eq!(body.i32(), Ok(7));
        assert_eq!(body.u8(), Err(Truncated));
        assert!(body.is_empty());
        assert_eq!(Body::new(b"no end").cstring(), Err(Truncated));
        assert_eq!(Body::new(b"xy").bytes(3), Err(Truncated));
        assert_eq!(Body::new(b"abc").i32(), Err(Truncated));
    }
}
