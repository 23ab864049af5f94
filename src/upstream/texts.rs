//! What a pool knows of the texts that its clients send, and of what its database may run for them.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::pin::Routines;
use crate::session::client::Run;
use crate::session::exchange::Texts;
use crate::session::parameters::Reading;
use crate::session::ran::Ran;
use crate::session::server::ServerSession;
use crate::session::statements::{Registry, Statement};
use crate::sql::{self, Analysis, Command, Effects, Kind, Language, Lexer, Options};
use crate::wire::body::Body;

/// Names of settings that are remembered although no routine sets them any more.
const MAX_CUSTOM: usize = 1_000;

/// One pool's.
#[derive(Debug, Default)]
pub struct KnownTexts {
    registry: RefCell<Registry>,
    /// Nothing while it isn't known.
    routines: RefCell<Option<Routines>>,
    /// Settings that they set and no view lists, or that some did before.
    custom: RefCell<BTreeSet<String>>,
    /// Whether they may be out of date.
    is_changed: Cell<bool>,
    epoch: Cell<u64>,
}

impl KnownTexts {
    /// Takes over what is known of the routines. What was thought of texts is void.
    pub(super) fn set_routines(&self, routines: Routines) {
        self.epoch.set(self.epoch.get() + 1);
        let mut custom = self.custom.borrow_mut();
        if custom.len() > MAX_CUSTOM {
            custom.clear();
        }
        custom.extend(routines.custom().iter().cloned());
        *self.routines.borrow_mut() = Some(routines);
        self.is_changed.set(false);
    }

    /// Whether anything is known of the routines, though it may be out of date.
    pub(super) fn has_routines(&self) -> bool {
        self.routines.borrow().is_some()
    }

    /// Whoever prepares a text from now on gets a statement of its own: what it returns may have changed.
    pub(super) fn forget(&self) {
        self.registry.borrow_mut().forget();
    }

    /// Until further notice, nothing is known of what texts may leave behind.
    pub(super) fn doubt(&self) {
        self.is_changed.set(true);
        self.epoch.set(self.epoch.get() + 1);
    }

    /// What was known still holds.
    pub(super) fn trust(&self) {
        if self.is_changed.replace(false) {
            self.epoch.set(self.epoch.get() + 1);
        }
    }

    /// Whether catalogs have changed since they were last read, or weren't read yet.
    pub fn is_doubtful(&self) -> bool {
        self.is_changed.get() || self.routines.borrow().is_none()
    }

    /// Whether what was `ran` must be judged again: catalogs are others than when it was sent, or may be.
    #[inline]
    pub fn are_outdated(&self, ran: &Ran) -> bool {
        ran.since()
            .is_some_and(|epoch| epoch != self.epoch.get() || self.is_doubtful())
    }

    /// Judges again what was run on the connection of `server`, by the routines as they were last read. Those that it has
    /// defined it may have run, even if they are gone.
    pub fn judge_again(&self, run: &mut Run, server: &ServerSession) {
        let routines = self.routines.borrow();
        let Some(routines) = routines.as_ref() else {
            run.is_unknown();
            return;
        };
        let is_judged = run.judge_again(&server.ran, |text| {
            let options = reading(text, server)?;
            let mut analysis = judge(text, options, routines);
            let is_alone = server.ran.is_single() && analysis.statements <= 1;
            if !is_alone && analysis.effects.intersects(Effects::DDL) {
                analysis.effects |= code_effects(text, options, routines);
            }
            Some(analysis)
        });
        if !is_judged {
            run.is_unknown();
        }
    }

    /// Settings that routines set, or did, and that no view lists.
    pub fn custom(&self) -> Ref<'_, BTreeSet<String>> {
        self.custom.borrow()
    }
}

impl Texts for KnownTexts {
    fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    #[inline]
    fn analyse(&self, text: &[u8], server: &ServerSession) -> Analysis {
        let Some(reading) = reading(text, server) else {
            return Analysis {
                effects: Effects::UNKNOWN | Effects::DYNAMIC_SETTING,
                statements: 1,
                lone: Command::Other,
            };
        };
        let routines = self.routines.borrow();
        match routines.as_ref().filter(|_| !self.is_doubtful()) {
            Some(routines) => judge(text, reading, routines),
            None => {
                let mut analysis = sql::analyse(text, reading, |_| Effects::NONE);
                analysis.effects |= Effects::DOUBT;
                analysis
            }
        }
    }

    fn apart(&self, statement: &Statement) -> Rc<Statement> {
        self.registry.borrow_mut().apart(statement)
    }

    fn intern(&self, tail: &[u8], server: &ServerSession) -> Rc<Statement> {
        let epoch = self.epoch.get();
        self.registry
            .borrow_mut()
            .intern(tail, &server.settings, epoch, || {
                let text = Body::new(tail).cstring().unwrap_or_default();
                let analysis = self.analyse(text, server);
                (analysis.effects, analysis.lone)
            })
    }
}

/// How the server reads the text; nothing if that can't be told, or if names in it may be written otherwise than in the
/// catalogs, or folded in another way.
fn reading(text: &[u8], server: &ServerSession) -> Option<Options> {
    let Reading {
        standard_conforming_strings,
        is_utf8,
    } = server.parameters.reading()?;
    (is_utf8 || text.is_ascii()).then_some(Options {
        standard_conforming_strings,
    })
}

/// What running `text` may leave behind where these are the routines.
fn judge(text: &[u8], options: Options, routines: &Routines) -> Analysis {
    let mut analysis = sql::analyse(text, options, |name| routines.lookup(name));
    if analysis.effects.contains(Effects::CODE) {
        analysis.effects |= code_effects(text, options, routines);
    }
    if analysis.effects.intersects(Effects::DDL) {
        analysis.effects |= routines.on_ddl();
    }
    analysis.effects |= routines.ambient();
    analysis
}

/// What the code that a DO or a CREATE FUNCTION quotes may leave behind; CALL has none. Settings that it names and no view lists can't be
/// kept apart from others: they count as dynamic.
fn code_effects(text: &[u8], options: Options, routines: &Routines) -> Effects {
    let mut effects = Effects::NONE;
    let lexer = Lexer::new(text, options.standard_conforming_strings);
    for token in lexer {
        let Some(written) = text.get(token.start..token.end) else {
            continue;
        };
        let body = match token.kind {
            Kind::DollarString => written
                .iter()
                .skip(1)
                .position(|byte| *byte == b'$')
                .and_then(|end| written.get(end + 2..written.len().checked_sub(end + 2)?)),
            Kind::String if !written.contains(&b'\\') => written.get(1..written.len().saturating_sub(1)),
            Kind::String | Kind::EscapeString | Kind::UnicodeString => {
                effects |= Effects::DYNAMIC;
                None
            }
            _ => None,
        };
        let Some(body) = body else { continue };
        let mut more = Effects::NONE;
        effects |= sql::routine_effects(body, Language::PlPgSql, |found| match found {
            sql::Found::Identifier(identifier) => more |= routines.lookup(&identifier),
            sql::Found::Setting(name) if name.contains('.') => more |= Effects::DYNAMIC_SETTING,
            sql::Found::Setting(_) => {}
        });
        effects |= more;
    }
    effects
}
