//! What a pool knows of the texts that its clients send, and of what its database may run for them.

use std::cell::{Cell, OnceCell, Ref, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use crate::ids::SessionId;
use crate::pin::Routines;
use crate::session::client::Run;
use crate::session::doubt::{Changing, Doubt};
use crate::session::exchange::Texts;
use crate::session::names::{self, Names};
use crate::session::parameters::Reading;
use crate::session::ran::Ran;
use crate::session::server::ServerSession;
use crate::session::shape::Shape;
use crate::session::statements::{Registry, Statement, has_own_types};
use crate::sql::{self, Analysis, Command, Effects, Identifier, Kind, Language, Lexer, Options};
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
    /// As of which change of catalogs they are known.
    read: Cell<Option<u64>>,
    /// How often it turned out that texts had done otherwise than was thought.
    surprises: Cell<u64>,
    /// As of which the statements are shared.
    shared: Cell<u64>,
    doubt: Rc<Doubt>,
}

impl KnownTexts {
    /// Takes over what is known of the routines. What was thought of texts is void. Whoever has changed them: somebody from
    /// outside may have changed others at the same time.
    pub(super) fn set_routines(&self, routines: Routines) {
        self.learn(routines.custom().iter().cloned());
        let known = self.routines.replace(Some(routines));
        if known.is_some() && known != *self.routines.borrow() {
            self.surprises.set(self.surprises.get() + 1);
        }
        self.read.set(None);
    }

    /// How often it turned out that texts do something else. What they have left behind on a connection before that may not
    /// be known.
    #[inline]
    pub fn surprises(&self) -> u64 {
        self.surprises.get()
    }

    /// The routines are known as of this change.
    pub(super) fn confirm(&self, change: u64) {
        if self.read.replace(Some(change)) != Some(change) {
            self.doubt.renew();
        }
    }

    /// Nothing is known of the routines.
    pub(super) fn lose_routines(&self) {
        self.read.set(None);
        self.doubt.renew();
    }

    /// Whether anything is known of the routines, though it may be out of date.
    pub(super) fn has_routines(&self) -> bool {
        self.routines.borrow().is_some()
    }

    /// Somebody turns out to have changed catalogs.
    pub fn changed(&self) {
        drop(Changing::begin(&self.doubt, false));
    }

    /// What is in doubt.
    pub(super) fn doubt(&self) -> &Rc<Doubt> {
        &self.doubt
    }

    /// Whether the routines aren't known as of this change.
    pub(super) fn is_behind(&self, change: u64) -> bool {
        self.read.get().is_none_or(|read| read < change)
    }

    /// Whether catalogs have changed since they were last read, may be changing now, or weren't read yet.
    #[inline]
    pub fn is_doubtful(&self) -> bool {
        self.is_behind(self.doubt.changes()) || self.doubt.is_changing()
    }

    /// Whether what was `ran` must be judged again: catalogs are others than when it was sent, or may be.
    #[inline]
    pub fn are_outdated(&self, ran: &Ran) -> bool {
        ran.since()
            .is_some_and(|epoch| epoch != self.doubt.epoch() || self.is_doubtful())
    }

    /// Judges again what `id` has run on the connection of `server`, by the routines as they were last read. What was defined
    /// meanwhile it may have run, even if that is gone.
    ///
    /// `true`: it hasn't named anything that was defined, but something it has named may have led there (a trigger that was
    /// made and dropped), and what only whoever ran it could know of may be left. That is no reason to tie it: then every
    /// change would tie all who are at work. The connection must be cleaned before it serves anybody.
    #[must_use]
    pub fn judge_again(&self, run: &mut Run, id: SessionId, server: &ServerSession) -> bool {
        let routines = self.routines.borrow();
        let Some(routines) = routines.as_ref() else {
            run.is_unknown();
            return false;
        };
        let has_hidden = Cell::new(false);
        let since = server.ran.since().unwrap_or_default();
        let is_judged = run.judge_again(&server.ran, |text, is_run| {
            let options = reading(text, server)?;
            let mut analysis = self.judge(text, options, routines);
            if !is_run {
                analysis.effects = routines.checks_within(analysis.effects);
                analysis.lone = Command::Other;
            }
            if server.ran.has_own_types() {
                analysis.effects |= routines.checks();
            }
            // Who only defines something doesn't run it.
            let is_alone = is_run && server.ran.is_single() && analysis.statements <= 1;
            let used = names::used(text, options, analysis.effects);
            let (named, rest) = self
                .doubt
                .defined_since(since, is_alone.then_some(id), |defined| {
                    names::share(&used, defined)
                });
            analysis.effects |= named | rest.without(HIDDEN);
            analysis.effects = routines.all_of(analysis.effects);
            if rest.intersects(HIDDEN) {
                has_hidden.set(true);
                analysis.effects |= Effects::UNKNOWN;
            }
            Some(analysis)
        });
        if !is_judged {
            run.is_unknown();
        }
        has_hidden.get()
    }

    /// What running `text` may leave behind where these are the routines.
    fn judge(&self, text: &[u8], options: Options, routines: &Routines) -> Analysis {
        let mut analysis = sql::analyse(text, options, |name| routines.lookup(name));
        if analysis.effects.contains(Effects::CODE) {
            analysis.effects |= self.code_effects(text, options, routines);
        }
        analysis.effects = routines.all_of(analysis.effects);
        analysis
    }

    /// What the code may leave behind that each statement of `text`, which has these `effects`, defines, and by which names it
    /// is reached.
    fn defined(
        &self,
        text: &[u8],
        effects: Effects,
        options: Options,
        routines: &Routines,
    ) -> Vec<(Effects, Names)> {
        let known = self.judge(text, options, routines).effects;
        if !known.contains(effects.without(Effects::DOUBT)) || known.contains(Effects::UNKNOWN) {
            // It may be read in another way.
            let (read, names) = self.defined_by(text, known, options, routines);
            return vec![(read | effects.without(HARMLESS), names)];
        }
        let statements = sql::split(text, options).into_iter();
        let judged =
            statements.map(|statement| (statement, self.judge(statement, options, routines).effects));
        let changing = judged.filter(|(_, effects)| effects.intersects(Effects::DDL));
        let defined =
            changing.map(|(statement, effects)| self.defined_by(statement, effects, options, routines));
        defined.filter(|(effects, _)| !effects.is_empty()).collect()
    }

    fn defined_by(
        &self,
        statement: &[u8],
        effects: Effects,
        options: Options,
        routines: &Routines,
    ) -> (Effects, Names) {
        // What is done by what it names is done by whoever uses it.
        let mut defined = effects.without(HARMLESS)
            | sql::analyse(statement, options, |name| routines.lookup(name)).by_names;
        if quotes_code(statement, options) {
            defined |= self.code_effects(statement, options, routines);
            // A SET clause sets it for whoever calls the routine, and what it was doesn't come back.
            if has_word(statement, options, &["seed"]) {
                defined |= Effects::SEED;
            }
        }
        if names_extension(statement, options) {
            defined |= Effects::UNKNOWN;
        }
        // A view, default or rule sets them for whoever uses it.
        let mut custom = Vec::new();
        sql::routine_effects(statement, Language::Sql, |found| {
            if let sql::Found::Setting(name) = found
                && name.contains('.')
            {
                custom.push(name.to_ascii_lowercase());
            }
        });
        if !self.learn(custom.into_iter()) {
            defined |= Effects::DYNAMIC_SETTING;
        }
        let by_itself = sql::analyse(statement, options, |_| Effects::NONE).effects;
        let names = if by_itself.intersects(Effects::DDL | Effects::UNKNOWN) {
            names::defined(statement, options)
        } else {
            // Code does, by names that the text doesn't have.
            Some(Vec::new())
        };
        (
            defined.without(Effects::LOCAL | Effects::ENDS_TRANSACTION | Effects::DOUBT),
            names,
        )
    }

    /// What the code that a DO or a CREATE FUNCTION quotes may leave behind; CALL has none. Settings that it names and no
    /// view lists are asked for from now on.
    fn code_effects(&self, text: &[u8], options: Options, routines: &Routines) -> Effects {
        let mut effects = Effects::NONE;
        let mut custom = Vec::new();
        let lexer = Lexer::new(text, options.standard_conforming_strings);
        for token in lexer {
            let written = text.get(token.start..token.end).unwrap_or_default();
            let body = match token.kind {
                Kind::DollarString => dollar_quoted(written),
                // One with quotes in it says something else than is written.
                Kind::String
                    if !written.contains(&b'\\')
                        && written.iter().filter(|byte| **byte == b'\'').count() == 2 =>
                {
                    written.get(1..written.len().saturating_sub(1))
                }
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
                sql::Found::Setting(name) if name.contains('.') => custom.push(name.to_ascii_lowercase()),
                sql::Found::Setting(_) => {}
            });
            effects |= more;
        }
        if self.learn(custom.into_iter()) {
            effects
        } else {
            effects | Effects::DYNAMIC_SETTING
        }
    }

    /// Remembers settings that no view lists; `false` if there are too many.
    fn learn(&self, names: impl Iterator<Item = String>) -> bool {
        let mut custom = self.custom.borrow_mut();
        for name in names {
            if custom.len() >= MAX_CUSTOM && !custom.contains(&name) {
                return false;
            }
            custom.insert(name);
        }
        true
    }

    /// Whether server connections may keep what constants in code meant when it was run first: not if it is known that none has any.
    pub fn keep_constants(&self) -> bool {
        self.is_doubtful()
            || self
                .routines
                .borrow()
                .as_ref()
                .is_none_or(Routines::keeps_constants)
    }

    /// Settings that routines set, or did, and that no view lists.
    pub fn custom(&self) -> Ref<'_, BTreeSet<String>> {
        self.custom.borrow()
    }
}

impl Texts for KnownTexts {
    fn epoch(&self) -> u64 {
        self.doubt.epoch()
    }

    /// What code is defined counts as run by everybody for whom it may have been there. While it is dangerous, nobody knows
    /// whether it is there already.
    fn changing(
        &self,
        text: &[u8],
        effects: Effects,
        is_temporary: bool,
        by: SessionId,
        server: &ServerSession,
    ) -> Option<Changing> {
        let routines = self.routines.borrow();
        let reading = reading(text, server);
        let defined = match (routines.as_ref(), reading) {
            (Some(routines), Some(options)) => self.defined(text, effects, options, routines),
            // What it names may do anything.
            (None, Some(options)) => vec![(UNREAD, names::defined(text, options))],
            (_, None) => vec![(UNREAD, None)],
        };
        let does_nothing = |(effects, _): &(Effects, _)| effects.without(Effects::TEMPORARY).is_empty();
        if is_temporary && defined.iter().all(does_nothing) {
            return None;
        }
        let is_dangerous = !defined.is_empty() || self.is_doubtful() && self.doubt.has_unread();
        let changing = Changing::begin(&self.doubt, is_dangerous);
        for (effects, names) in defined {
            self.doubt.defines(effects, names, by);
        }
        Some(changing)
    }

    #[inline]
    fn analyse(&self, text: &[u8], server: &ServerSession) -> Analysis {
        let Some(reading) = reading(text, server) else {
            return Analysis {
                effects: UNREAD,
                by_names: Effects::UNKNOWN,
                statements: 1,
                lone: Command::Other,
            };
        };
        let routines = self.routines.borrow();
        let mut analysis = match routines.as_ref() {
            Some(routines) => self.judge(text, reading, routines),
            None => sql::analyse(text, reading, |_| Effects::NONE),
        };
        if routines.is_none() || self.is_doubtful() {
            analysis.effects |= Effects::DOUBT;
        }
        analysis
    }

    fn own_types(&self) -> Effects {
        let routines = self.routines.borrow();
        routines.as_ref().map_or(Effects::NONE, Routines::checks)
    }

    fn checks_within(&self, effects: Effects) -> Effects {
        let routines = self.routines.borrow();
        routines
            .as_ref()
            .map_or(Effects::NONE, |routines| routines.checks_within(effects))
    }

    fn under(&self, statement: &Statement, server: &ServerSession) -> Rc<Statement> {
        self.registry.borrow_mut().under(statement, server)
    }

    fn apart(
        &self,
        statement: &Statement,
        shape: Option<OnceCell<Shape>>,
        named: Option<(Range<usize>, Rc<Statement>)>,
    ) -> Rc<Statement> {
        let mut registry = self.registry.borrow_mut();
        registry.apart(statement, shape, named)
    }

    fn forget_statements(&self) {
        self.registry.borrow_mut().forget();
    }

    fn intern(&self, tail: &[u8], is_shared: bool, server: &ServerSession) -> Rc<Statement> {
        let epoch = self.doubt.epoch();
        let mut registry = self.registry.borrow_mut();
        let changes = self.doubt.changes();
        if self.shared.replace(changes) != changes {
            // What a statement returns may have changed.
            registry.forget();
        }
        registry.intern(tail, is_shared, server, epoch, || {
            let text = Body::new(tail).cstring().unwrap_or_default();
            let analysis = self.analyse(text, server);
            let types = if has_own_types(tail) {
                self.own_types()
            } else {
                Effects::NONE
            };
            (analysis.effects | types, analysis.lone)
        })
    }
}

/// What may be done by code that nobody has read.
const UNREAD: Effects = Effects::UNKNOWN.union(Effects::DYNAMIC_SETTING);

/// What a definition does to whoever makes it and not to whoever uses it, or what changes nothing that anybody sees.
const HARMLESS: Effects = Effects::DDL
    .union(Effects::SEQUENCE_WRITE)
    .union(Effects::LOCAL)
    .union(Effects::ENDS_TRANSACTION)
    .union(Effects::DOUBT);

/// What the server doesn't tell of, and DISCARD ALL ends or a new seed makes nobody's.
const HIDDEN: Effects = Effects::DYNAMIC
    .union(Effects::DYNAMIC_SETTING)
    .union(Effects::SEED)
    .union(Effects::SEQUENCE_READ);

/// How the server reads the text; nothing if that can't be told, or if names in it may be written otherwise than in the
/// catalogs, or folded in another way.
fn reading(text: &[u8], server: &ServerSession) -> Option<Options> {
    let Reading {
        standard_conforming_strings,
        is_utf8,
    } = server.parameters.reading()?;
    let options = Options {
        standard_conforming_strings,
    };
    (is_utf8 || text.is_ascii() || is_ascii_but_for_values(text, options)).then_some(options)
}

/// Whether the text does nothing but by its names, and these are in ASCII: in whatever encoding the rest is, it says nothing.
fn is_ascii_but_for_values(text: &[u8], options: Options) -> bool {
    let mut tokens = Lexer::new(text, options.standard_conforming_strings);
    let is_ascii = tokens.all(|token| {
        matches!(token.kind, Kind::String | Kind::EscapeString)
            || text.get(token.start..token.end).is_some_and(<[u8]>::is_ascii)
    });
    is_ascii && {
        let analysis = sql::analyse(text, options, |_| Effects::NONE);
        let alone = Effects::SEQUENCE_WRITE | Effects::PASSING;
        analysis.effects.without(alone).is_empty() || matches!(analysis.lone, Command::Set { .. })
    }
}

/// What stands between the tags of a string quoted in dollars.
fn dollar_quoted(written: &[u8]) -> Option<&[u8]> {
    let tag = written.iter().skip(1).position(|byte| *byte == b'$')? + 2;
    written.get(tag..written.len().checked_sub(tag)?)
}

/// Whether the text is about an extension, whose code isn't in it.
fn names_extension(text: &[u8], options: Options) -> bool {
    has_word(text, options, &["extension"])
}

/// Whether a string in the text may be code: the body of a routine, or what a DO runs.
fn quotes_code(text: &[u8], options: Options) -> bool {
    has_word(text, options, &["function", "procedure", "routine", "do"])
}

fn has_word(text: &[u8], options: Options, words: &[&str]) -> bool {
    let mut tokens = Lexer::new(text, options.standard_conforming_strings);
    tokens.any(|token| {
        Identifier::of(text, &token).is_some_and(|found| words.iter().any(|word| found.eq_folded(word)))
    })
}
