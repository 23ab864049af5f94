//! The texts that were run since it was last settled what they left behind.
//!
//! What a text may do is judged when it is sent, by what is known of the catalogs then. Should they turn out to have been
//! others when it ran, the texts are judged again.

/// As much text as is kept.
const MAX_BYTES: usize = 64 * 1024;

/// As many of the last texts are compared with one that comes: loops repeat a few.
const COMPARED: usize = 8;

/// Texts in the order in which they were sent, without most repetitions.
#[derive(Debug, Default)]
pub struct Ran {
    bytes: Vec<u8>,
    /// Where each ends, and whether it is run.
    ends: Vec<(usize, bool)>,
    since: Option<u64>,
    is_cut: bool,
    has_own_types: bool,
    /// How many there were with the last DISCARD ALL.
    discarded: usize,
}

impl Ran {
    /// Notes that `text` is about to be run, as it was judged in this `epoch` of what is known.
    #[inline]
    pub fn note(&mut self, text: &[u8], epoch: u64) {
        self.add(text, true, epoch);
    }

    /// Notes that `text` is about to be prepared, and so its constants are read.
    #[inline]
    pub fn note_read(&mut self, text: &[u8], epoch: u64) {
        self.add(text, false, epoch);
    }

    #[inline]
    fn add(&mut self, text: &[u8], is_run: bool, epoch: u64) {
        self.since.get_or_insert(epoch);
        let later = self.ends.len() - self.discarded;
        // What is run is read as well.
        let is_noted = |(known, was_run): (&[u8], bool)| known == text && (was_run || !is_run);
        if self.texts().rev().take(COMPARED.min(later)).any(is_noted) {
            return;
        }
        if self.bytes.len() + text.len() > MAX_BYTES {
            self.is_cut = true;
            return;
        }
        self.bytes.extend_from_slice(text);
        self.ends.push((self.bytes.len(), is_run));
    }

    /// Notes that one takes parameters whose types are the database's own, which its text doesn't show.
    pub fn takes_own_types(&mut self) {
        self.has_own_types = true;
    }

    /// Whether one does.
    pub fn has_own_types(&self) -> bool {
        self.has_own_types
    }

    /// Notes that the last one is DISCARD ALL.
    pub fn discards(&mut self) {
        self.discarded = self.ends.len();
    }

    /// Takes out what came after the last DISCARD ALL.
    #[must_use]
    pub fn split_discarded(&mut self) -> Self {
        let last = self.discarded.checked_sub(1).and_then(|last| self.ends.get(last));
        let begin = last.map_or(0, |(end, _)| *end);
        let mut later = Self {
            bytes: self.bytes.split_off(begin),
            ends: self.ends.split_off(self.discarded),
            since: self.since,
            is_cut: self.is_cut,
            has_own_types: self.has_own_types,
            discarded: 0,
        };
        later.ends.iter_mut().for_each(|(end, _)| *end -= begin);
        if later.ends.is_empty() && !later.is_cut {
            later.since = None;
        }
        later
    }

    /// The epoch in which the first one was judged; nothing if there is none.
    #[inline]
    pub fn since(&self) -> Option<u64> {
        self.since
    }

    /// The texts, and whether they are run or only read.
    pub fn texts(&self) -> impl DoubleEndedIterator<Item = (&[u8], bool)> {
        self.ends.iter().enumerate().map(|(place, (end, is_run))| {
            let before = place.checked_sub(1).and_then(|before| self.ends.get(before));
            let begin = before.map_or(0, |(begin, _)| *begin);
            (self.bytes.get(begin..*end).unwrap_or_default(), *is_run)
        })
    }

    /// Whether no more than one is run.
    pub fn is_single(&self) -> bool {
        self.ends.iter().filter(|(_, is_run)| *is_run).count() <= 1
    }

    /// Whether no more than half of what can be kept is.
    pub fn has_room(&self) -> bool {
        !self.is_cut && self.bytes.len() <= MAX_BYTES / 2
    }

    /// Whether there were more than could be kept.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Forgets all.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.since = None;
        self.is_cut = false;
        self.has_own_types = false;
        self.discarded = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_kept_up_to_a_bound() {
        let mut ran = Ran::default();
        assert_eq!(ran.since(), None);
        for text in ["a", "", "bc", "a", "bc"] {
            ran.note(text.as_bytes(), 3);
        }
        ran.note(b"d", 4);
        let texts: Vec<_> = ran.texts().map(|(text, _)| text).collect();
        assert_eq!(texts, [&b"a"[..], b"", b"bc", b"d"]);
        assert_eq!(ran.since(), Some(3), "the first counts");
        assert!(ran.has_room() && !ran.is_cut());
        ran.note(&[b'x'; MAX_BYTES], 4);
        assert!(ran.is_cut() && !ran.has_room());
        ran.clear();
        for (text, last) in [
            ("a", false),
            ("all", true),
            ("a", false),
            ("all", true),
            ("a", false),
            ("a", false),
        ] {
            ran.note(text.as_bytes(), 5);
            if last {
                ran.discards();
            }
        }
        let mut later = ran.split_discarded();
        let texts: Vec<_> = later.texts().collect();
        assert_eq!(texts, [(&b"a"[..], true)], "it may do something else by now");
        assert_eq!(ran.texts().last().unwrap().0, b"all");
        later.note(b"all", 6);
        later.discards();
        ran = later.split_discarded();
        assert!(ran.since().is_none() && ran.texts().next().is_none() && ran.has_room());
    }

    #[test]
    fn what_is_only_read_is_not_run() {
        let mut ran = Ran::default();
        ran.note(b"a", 1);
        ran.note_read(b"a", 1);
        ran.note_read(b"b", 1);
        ran.note_read(b"b", 1);
        assert!(ran.is_single());
        ran.note(b"b", 1);
        assert!(!ran.is_single());
        let texts: Vec<_> = ran.texts().collect();
        assert_eq!(texts, [(&b"a"[..], true), (b"b", false), (b"b", true)]);
    }
}
