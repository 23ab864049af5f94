//! Framing of a running connection: one tag byte, a length of four bytes that counts itself, a body.
//!
//! (PostgreSQL documentation, "Message Formats".) [`Frames`] walks over chunks as they come from a socket,
//! wherever they are cut, and allocates only for a body that was asked for and is cut in two. It doesn't
//! know what a tag means.

/// Length of a tag and a length field.
pub const HEADER_BYTES: usize = 5;

/// The largest length that PostgreSQL itself accepts or sends: `MaxAllocSize`, 1 GiB - 1
/// (`src/include/utils/memutils.h`, `PQ_LARGE_MESSAGE_LIMIT` in `libpq.h`).
pub const MAX_FRAME_BYTES: u32 = 0x3fff_ffff;

/// The most of a body that is gathered where nothing else is said; a ParameterStatus or ReadyForQuery is far smaller.
pub const MAX_GATHERED_BYTES: u32 = 64 * 1024;

/// For [`Frames::next`]: the bodies of these types are wanted, up to [`MAX_GATHERED_BYTES`], and no others.
#[inline]
pub fn whole<const N: usize>(tags: &[u8; N]) -> impl Fn(u8) -> u32 {
    move |tag| {
        if tags.contains(&tag) {
            MAX_GATHERED_BYTES
        } else {
            0
        }
    }
}

/// A length field that can't be: the stream is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message type {tag:#04x} has the impossible length {length}")]
pub struct BadLength {
    /// The frame's tag.
    pub tag: u8,
    /// Its length field.
    pub length: u32,
}

/// One frame's beginning, or the whole of it if its body was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The frame's tag.
    pub tag: u8,
    /// Its length field, which counts itself and the body.
    pub length: u32,
    /// The body, if it was wanted, or as much of it as was; else empty.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Whether the body goes on after what is lent of it.
    #[inline]
    pub fn is_cut(&self) -> bool {
        self.body.len() < (self.length as usize).saturating_sub(4)
    }
}

/// Where in the stream of frames we are.
#[derive(Debug, Default)]
pub struct Frames {
    header: [u8; HEADER_BYTES],
    have: u8,
    /// Bytes of the current body that are wanted and still to come.
    want: u32,
    /// Bytes of the current body that aren't wanted and still to come, after those that are.
    skip: u32,
    gathered: Vec<u8>,
    gathering: bool,
}

impl Frames {
    /// The next frame that begins in `input` (or, when its body is wanted, ends in it). `input` moves on
    /// to what hasn't been looked at; `None` means that all of it was.
    ///
    /// `most` says how many bytes of a body with this tag are wanted, from its beginning; the rest of a longer
    /// one is passed over. The body is lent until the next call. An error is final.
    #[inline]
    pub fn next<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input [u8],
        most: impl Fn(u8) -> u32,
    ) -> Result<Option<Frame<'a>>, BadLength> {
        if self.gathering {
            return Ok(self.gather(input));
        }
        self.skip_unwanted(input);
        if input.is_empty() || !self.take_header(input) {
            return Ok(None);
        }
        let [tag, a, b, c, d] = self.header;
        let length = u32::from_be_bytes([a, b, c, d]);
        self.have = 0;
        if !(4..=MAX_FRAME_BYTES).contains(&length) {
            return Err(BadLength { tag, length });
        }
        let body = length - 4;
        self.want = body.min(most(tag));
        self.skip = body - self.want;
        if self.want == 0 {
            return Ok(Some(Frame {
                tag,
                length,
                body: &[],
            }));
        }
        if let Some((body, rest)) = input.split_at_checked(self.want as usize) {
            *input = rest;
            self.want = 0;
            return Ok(Some(Frame { tag, length, body }));
        }
        self.gathered.clear();
        self.gathering = true;
        Ok(self.gather(input))
    }

    /// Moves `input` past what it holds of a body that isn't wanted, and lends that.
    #[inline]
    pub fn skip_unwanted<'input>(&mut self, input: &mut &'input [u8]) -> &'input [u8] {
        if self.gathering {
            return &[];
        }
        let (skipped, rest) = input.split_at(input.len().min(self.skip as usize));
        *input = rest;
        self.skip -= skipped.len() as u32;
        skipped
    }

    /// Whether a body that isn't wanted goes on.
    pub fn has_unwanted(&self) -> bool {
        !self.gathering && self.skip > 0
    }

    /// The tag of a frame that was returned and whose body goes on.
    pub fn goes_on(&self) -> Option<u8> {
        let [tag, ..] = self.header;
        self.has_unwanted().then_some(tag)
    }

    /// The tag of a frame of which something was seen that hasn't been returned yet.
    #[inline]
    pub fn begun(&self) -> Option<u8> {
        let [tag, ..] = self.header;
        (self.gathering || self.have > 0).then_some(tag)
    }

    /// How many bytes of a frame that hasn't been returned yet were seen.
    pub fn seen(&self) -> usize {
        if self.gathering {
            HEADER_BYTES + self.gathered.len()
        } else {
            self.have as usize
        }
    }

    /// How many bytes of a header that isn't complete were at the end of the last input.
    pub fn partial_header(&self) -> &[u8] {
        self.header.get(..self.have as usize).unwrap_or_default()
    }

    /// Where in a chunk of `len` bytes the frame ends whose header ended at `header_end`; `len` if it goes on
    /// beyond.
    pub fn body_end(&self, header_end: usize, len: usize) -> usize {
        header_end
            .saturating_add((self.want + self.skip) as usize)
            .min(len)
    }

    /// Whether the stream stands in the middle of a frame's body.
    pub fn in_body(&self) -> bool {
        self.want > 0 || self.skip > 0
    }

    /// Whether the stream stands between two frames.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && !self.in_body()
    }

    #[inline]
    fn take_header(&mut self, input: &mut &[u8]) -> bool {
        if self.have == 0
            && let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>()
        {
            self.header = *header;
            *input = rest;
            return true;
        }
        while let Some((byte, rest)) = input.split_first() {
            if let Some(slot) = self.header.get_mut(self.have as usize) {
                *slot = *byte;
            }
            self.have += 1;
            *input = rest;
            if self.have as usize == HEADER_BYTES {
                return true;
            }
        }
        false
    }

    fn gather<'a>(&'a mut self, input: &mut &[u8]) -> Option<Frame<'a>> {
        let take = input.len().min(self.want as usize);
        let (part, rest) = input.split_at_checked(take)?;
        self.gathered.extend_from_slice(part);
        *input = rest;
        self.want -= take as u32;
        if self.want > 0 {
            return None;
        }
        self.gathering = false;
        let [tag, a, b, c, d] = self.header;
        Some(Frame {
            tag,
            length: u32::from_be_bytes([a, b, c, d]),
            body: &self.gathered,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn scan(chunks: &[&[u8]]) -> Result<Vec<(u8, Vec<u8>)>, BadLength> {
        let mut frames = Frames::default();
        let mut seen = Vec::new();
        for chunk in chunks {
            let mut input = *chunk;
            while let Some(frame) = frames.next(&mut input, whole(b"ZS"))? {
                seen.push((frame.tag, frame.body.to_vec()));
            }
        }
        Ok(seen)
    }

    #[test]
    fn impossible_lengths_are_errors() {
        for length in [0u32, 3, 0x4000_0000, 0xffff_ffff] {
            let mut bytes = vec![b'Q'];
            bytes.extend_from_slice(&length.to_be_bytes());
            assert_eq!(scan(&[&bytes]), Err(BadLength { tag: b'Q', length }));
        }
        let long = frame(b'S', &vec![b'x'; 2 * MAX_GATHERED_BYTES as usize]);
        let (cut, rest) = long.split_at(100);
        let seen = scan(&[cut, rest, &frame(b'Z', b"I")]).unwrap();
        let lent: Vec<_> = seen.iter().map(|(tag, body)| (*tag, body.len())).collect();
        let most = MAX_GATHERED_BYTES as usize;
        assert_eq!(lent, [(b'S', most), (b'Z', 1)], "what is gathered is bounded");
    }

    proptest! {
        #[test]
        fn cut_anywhere_the_frames_are_the_same(
            frames in prop::collection::vec((prop::sample::select(&b"QZSDdC"[..]), prop::collection::vec(any::<u8>(), 0..40)), 0..12),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(tag, body)| frame(*tag, body)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let expected: Vec<(u8, Vec<u8>)> = frames
                .iter()
                .map(|(tag, body)| (*tag, if matches!(tag, b'Z' | b'S') { body.clone() } else { Vec::new() }))
                .collect();
            prop_assert_eq!(scan(&chunks).unwrap(), expected);
        }

        #[test]
        fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let _ = scan(&chunks);
        }
    }
}
