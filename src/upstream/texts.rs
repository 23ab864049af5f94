//! What a pool knows of the texts that its clients send, and of what its database may run for them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::pin::Routines;
use crate::session::exchange::Texts;
use crate::session::parameters::Reading;
use crate::session::server::ServerSession;
use crate::session::statements::{Registry, Statement};
use crate::sql::{self, Analysis, Command, Effects, Kind, Language, Lexer, Options};
use crate::wire::body::Body;

/// One pool's.
#[derive(Debug, Default)]
pub struct KnownTexts {
    registry: RefCell<Registry>,
    /// Nothing while it isn't known.
    routines: RefCell<Option<Routines>>,
    is_doubtful: Cell<bool>,
    epoch: Cell<u64>,
}

impl KnownTexts {
    /// Takes over what is known of the routines. What was thought of texts is void.
    pub(super) fn set_routines(&self, routines: Routines) {
        self.epoch.set(self.epoch.get() + 1);
        *self.routines.borrow_mut() = Some(routines);
        self.is_doubtful.set(false);
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
        self.is_doubtful.set(true);
        self.epoch.set(self.epoch.get() + 1);
    }

    /// What was known still holds.
    pub(super) fn trust(&self) {
        if self.is_doubtful.replace(false) {
            self.epoch.set(self.epoch.get() + 1);
        }
    }

    /// Settings that routines set and that no view lists.
    pub fn custom(&self) -> Vec<String> {
        let routines = self.routines.borrow();
        routines
            .as_ref()
            .map_or_else(Vec::new, |routines| routines.custom().to_vec())
    }
}

impl Texts for KnownTexts {
    fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    #[inline]
    fn analyse(&self, text: &[u8], server: &ServerSession) -> Analysis {
        let routines = self.routines.borrow();
        let known = routines.as_ref().filter(|_| !self.is_doubtful.get());
        let (Some(reading), Some(routines)) = (server.parameters.reading(), known) else {
            return unknown(text, server);
        };
        let Reading {
            standard_conforming_strings,
        } = reading;
        let options = Options {
            standard_conforming_strings,
        };
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

/// While the routines aren't known, or where the text can't be read, it may leave anything behind. What it is can be told
/// from its words all the same, if they can be read.
fn unknown(text: &[u8], server: &ServerSession) -> Analysis {
    let mut analysis = match server.parameters.reading() {
        Some(Reading {
            standard_conforming_strings,
        }) => {
            let options = Options {
                standard_conforming_strings,
            };
            sql::analyse(text, options, |_| Effects::NONE)
        }
        None => Analysis {
            effects: Effects::NONE,
            statements: 1,
            lone: Command::Other,
        },
    };
    analysis.effects |= Effects::UNKNOWN | Effects::DYNAMIC_SETTING;
    analysis
}

/// What the code that a DO quotes may leave behind; CALL has none. Settings that it names and no view lists can't be
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
