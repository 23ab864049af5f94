//! Since when what is thought of texts may be wrong, because catalogs have changed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::names::Names;
use crate::ids::SessionId;
use crate::sql::Effects;

/// Changes whose own effects are kept apart; of more, the oldest are taken together.
const MAX_KEPT: usize = 1_000;

/// One pool's; shared with whatever is about to change catalogs.
#[derive(Debug, Default)]
pub struct Doubt {
    epoch: Cell<u64>,
    changes: Cell<u64>,
    pending: Cell<usize>,
    /// What the code may leave behind that changes have defined, which may be gone before anybody looks, and when.
    defined: RefCell<Vec<Defined>>,
}

/// Code that was defined.
#[derive(Debug)]
struct Defined {
    /// When that was about to be run.
    epoch: u64,
    /// Until when it may have been there without anybody's having read it.
    until: Option<u64>,
    /// Nobody's, if it was defined by several.
    by: Option<SessionId>,
    effects: Effects,
    /// One of these is named by whatever runs it, unless something leads there that is named instead.
    names: Names,
}

/// Catalogs are being changed; when this is dropped, they have changed.
#[derive(Debug)]
pub struct Changing {
    doubt: Rc<Doubt>,
    is_pending: bool,
}

impl Doubt {
    /// Grows whenever what was thought of texts is void.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// How often catalogs have changed.
    pub fn changes(&self) -> u64 {
        self.changes.get()
    }

    /// Whether they may be changing at this moment.
    #[inline]
    pub fn is_changing(&self) -> bool {
        self.pending.get() > 0
    }

    /// What was thought is void: they are read, or were changed by nobody knows whom.
    pub fn renew(&self) {
        self.epoch.set(self.epoch.get() + 1);
    }

    /// `by` defines code of these names that may leave these effects behind.
    pub fn defines(&self, effects: Effects, names: Names, by: SessionId) {
        let mut defined = self.defined.borrow_mut();
        if defined.len() >= MAX_KEPT {
            let oldest = defined.remove(0);
            if let Some(next) = defined.first_mut() {
                next.effects |= oldest.effects;
                next.by = next.by.filter(|by| oldest.by == Some(*by));
                next.names = None;
                next.until = next
                    .until
                    .zip(oldest.until)
                    .map(|(next, oldest)| next.max(oldest));
            }
        }
        defined.push(Defined {
            epoch: self.epoch(),
            until: None,
            by: Some(by),
            effects,
            names,
        });
    }

    /// Whether code was defined that nobody has read yet.
    pub fn has_unread(&self) -> bool {
        self.defined.borrow().iter().any(|one| one.until.is_none())
    }

    /// The catalogs were read after `epoch`, when none were being changed: what was defined before is known since, or gone.
    pub fn were_read(&self, epoch: u64) {
        let mut defined = self.defined.borrow_mut();
        let unread = |one: &&mut Defined| one.until.is_none() && one.epoch <= epoch;
        let mut unread = defined.iter_mut().filter(unread).peekable();
        if unread.peek().is_some() {
            unread.for_each(|one| one.until = Some(self.epoch()));
            self.renew();
        }
    }

    /// What code may leave behind that a text may have met which has run since `epoch`, defined by others than `but`: that which a text names that
    /// `is_named` says so of, and the rest.
    pub fn defined_since(
        &self,
        epoch: u64,
        but: Option<SessionId>,
        is_named: impl Fn(&Names) -> bool,
    ) -> (Effects, Effects) {
        let defined = self.defined.borrow();
        let met = defined
            .iter()
            .filter(|one| one.until.is_none_or(|until| until >= epoch) && (but.is_none() || one.by != but));
        met.fold((Effects::NONE, Effects::NONE), |(named, rest), one| {
            if is_named(&one.names) {
                (named | one.effects, rest)
            } else {
                (named, rest | one.effects)
            }
        })
    }
}

impl Changing {
    /// Begins. `is_pending`: until it ends, it isn't known what texts do.
    pub fn begin(doubt: &Rc<Doubt>, is_pending: bool) -> Self {
        if is_pending {
            doubt.pending.set(doubt.pending.get() + 1);
            doubt.renew();
        }
        Self {
            doubt: doubt.clone(),
            is_pending,
        }
    }

    /// Whether it isn't known what texts do.
    pub fn is_pending(&self) -> bool {
        self.is_pending
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        let doubt = &self.doubt;
        if self.is_pending {
            doubt.pending.set(doubt.pending.get() - 1);
        }
        doubt.changes.set(doubt.changes.get() + 1);
        doubt.renew();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_when_it_is_over_and_may_be_in_doubt_before() {
        let doubt = Rc::new(Doubt::default());
        let (first, second) = (Changing::begin(&doubt, true), Changing::begin(&doubt, false));
        let epoch = doubt.epoch();
        assert!(epoch > 0 && doubt.is_changing());
        drop(second);
        assert!(doubt.is_changing() && doubt.changes() == 1);
        drop(first);
        assert!(!doubt.is_changing() && doubt.changes() == 2 && doubt.epoch() > epoch);
    }

    #[test]
    fn what_was_defined_meanwhile_is_not_forgotten() {
        let doubt = Doubt::default();
        let (one, two) = (SessionId(1), SessionId(2));
        let names = |name: &str| Some(vec![Box::from(name.as_bytes())]);
        let since = |epoch, but| doubt.defined_since(epoch, but, Option::is_none);
        doubt.defines(Effects::SEED, names("seeds"), one);
        doubt.renew();
        let begun = doubt.epoch();
        doubt.renew();
        doubt.defines(Effects::SETTING, None, two);
        let both = (Effects::SETTING, Effects::SEED);
        assert_eq!(since(doubt.epoch(), None), both, "nobody has read it");
        doubt.were_read(begun);
        assert!(doubt.has_unread(), "the second may have come later");
        assert_eq!(since(doubt.epoch(), None), (Effects::SETTING, Effects::NONE));
        assert_eq!(since(doubt.epoch(), Some(two)), (Effects::NONE, Effects::NONE));
        assert_eq!(since(begun, None), both, "it may be gone since");
        doubt.were_read(doubt.epoch());
        assert!(!doubt.has_unread());
        for _ in 0..2 * MAX_KEPT {
            doubt.renew();
            doubt.defines(Effects::LISTEN, names("listens"), one);
        }
        let (named, rest) = since(0, Some(one));
        assert!(
            named.contains(Effects::SEED | Effects::SETTING),
            "of nobody knows which names"
        );
        assert_eq!(rest, Effects::NONE);
        assert_eq!(doubt.defined.borrow().len(), MAX_KEPT);
    }
}
