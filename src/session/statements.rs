//! Prepared statements of the protocol, which travel: a client's name stands for a text that all clients of a pool share,
//! and a server connection has it under a name of Postern's own.
//!
//! [`Registry`] knows the texts of a pool, [`Prepared`](super::prepared::Prepared) what one server connection has. Which of a client's names
//! means what is a plain map in its session.

use std::borrow::{Borrow, Cow};
use std::cell::{Cell, OnceCell};
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::rc::Rc;

use super::parameters::Reading;
use super::server::ServerSession;
use super::settings::{self, Setting, Settings, value};
use super::shape::Shape;
use crate::sql::{self, Command, DECIDING_REPORTED, DECIDING_UNREPORTED, Effects};
use crate::wire::body::Body;

/// How the names of statements on server connections begin. A client's own name may begin so too: it stands for
/// a statement of that client all the same, since no client's name reaches a server unless it is unknown.
pub const NAME_PREFIX: &str = "postern_";

/// Types with lower numbers are PostgreSQL's own (`FirstNormalObjectId` in `access/transam.h`).
const FIRST_OWN_OID: u32 = 16_384;

/// One that stands for a statement which returns something else than its client was told; no connection has it.
pub const CHANGED_NAME: &str = "postern_changed";

/// The largest Parse that is remembered. With a larger one a client keeps its server connection.
pub const MAX_STATEMENT_BYTES: usize = 256 * 1024;

/// Texts that a pool shares between its clients.
const MAX_SHARED: usize = 10_000;

/// The same in bytes.
const MAX_SHARED_BYTES: usize = 32 * 1024 * 1024;

/// What the named statements of one client may amount to. With more it keeps its server connection.
pub const MAX_CLIENT_BYTES: usize = 16 * 1024 * 1024;

/// One text with the types of its parameters.
#[derive(Debug)]
pub struct Statement {
    pub(super) id: u64,
    /// Its name on server connections.
    pub server_name: Box<str>,
    /// The rest of a Parse after the name: text, NUL, types.
    pub tail: Box<[u8]>,
    /// The statement of the same client's that it names, in SQL, by the name on server connections.
    pub names: Option<Rc<Self>>,
    /// What it is found by: the same, and the settings that it was parsed under, and others that it is used under.
    key: Box<[u8]>,
    /// The length of the last.
    variant: usize,
    /// What it is.
    pub command: Command,
    /// How it was read when it was prepared first.
    pub reading: Option<Reading>,
    /// Whether the server looks at what its names stand for when it is prepared.
    pub is_analysed: bool,
    /// Whether a Parse of it says that parameters have types of the database's own.
    pub has_own_types: bool,
    /// Whether it decides then about constants that it has.
    pub has_constants: bool,
    /// The settings under which these were read then; empty if nobody knows.
    pub constants_under: Settings,
    /// Those that all who share it have now: the server may read it anew.
    used_under: Settings,
    /// What it takes and returns, once that is known: the same for all that are in place of one another.
    pub(super) shape: Rc<OnceCell<Shape>>,
    /// What running it may leave behind, and when that was thought.
    effects: Cell<(u64, Effects)>,
}

/// The statements of a pool.
#[derive(Debug, Default)]
pub struct Registry {
    statements: HashSet<ByKey>,
    bytes: usize,
    next: u64,
}

/// The named statements of one client.
#[derive(Debug, Default)]
pub struct ClientStatements {
    by_name: HashMap<Box<[u8]>, Rc<Statement>>,
    /// Which they are; no statement has two names.
    ids: HashSet<u64>,
    bytes: usize,
}

/// A statement that is found by its key.
#[derive(Debug)]
struct ByKey(Rc<Statement>);

impl Borrow<[u8]> for ByKey {
    fn borrow(&self) -> &[u8] {
        &self.0.key
    }
}

impl Hash for ByKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl Statement {
    /// What running it may leave behind, if that was thought in this `epoch`.
    #[inline]
    pub fn effects(&self, epoch: u64) -> Option<Effects> {
        let (when, effects) = self.effects.get();
        (when == epoch).then_some(effects)
    }

    /// Notes what is thought now.
    pub fn set_effects(&self, epoch: u64, effects: Effects) {
        self.effects.set((epoch, effects));
    }

    /// A text, and whatever stands behind it, with this statement's name on server connections in `place`.
    pub fn named_in(&self, text: &[u8], place: Range<usize>) -> Vec<u8> {
        let mut renamed = text.to_vec();
        renamed.splice(place, self.server_name.bytes());
        renamed
    }

    /// Whether several clients may have it.
    #[inline]
    pub fn is_shared(&self) -> bool {
        !self.key.is_empty()
    }

    /// Whether all who share it have the settings of now.
    #[inline]
    pub fn is_used_under(&self, server: &ServerSession) -> bool {
        self.used_under.iter().eq(deciding(server))
    }

    /// The settings that it was read under first where they are others now: name, what it was, what it is. Nothing is what the
    /// server began with.
    pub fn read_otherwise(
        &self,
        server: &ServerSession,
    ) -> Vec<(&'static str, Option<String>, Option<String>)> {
        let others = self.first_read_under().map(|(name, then)| {
            let now = value(server.parameters.deciding(), name).or_else(|| value(&server.settings, name));
            (name, then, now.map(str::to_owned))
        });
        others.filter(|(_, then, now)| then != now).collect()
    }

    /// The settings that decide about its constants, as they were when it was read first, as far as they are known.
    pub fn first_read_under(&self) -> impl Iterator<Item = (&'static str, Option<String>)> {
        let names = DECIDING_REPORTED.iter().chain(&DECIDING_UNREPORTED);
        let names = names.filter(|_| self.has_constants && self.knows_constants());
        names.map(|name| (*name, value(&self.constants_under, name).map(str::to_owned)))
    }

    /// Whether it is known what its constants were read under first.
    pub fn knows_constants(&self) -> bool {
        !self.constants_under.is_empty()
    }

    /// Notes that it is prepared first as the server reads it now, as far as it is known what decides about constants.
    pub fn is_read_now(&mut self, server: &ServerSession, knows_constants: bool) {
        self.key = Box::default();
        self.shape = Rc::default();
        self.effects.set((u64::MAX, Effects::NONE));
        self.reading = server.parameters.reading().filter(|_| knows_constants);
        self.constants_under = deciding(server).filter(|_| knows_constants).cloned().collect();
    }

    /// What it takes and returns, if that is known.
    pub fn shape(&self) -> Option<&Shape> {
        self.shape.get()
    }

    /// The text, without its NUL.
    pub fn text(&self) -> &[u8] {
        Body::new(&self.tail).cstring().unwrap_or_default()
    }
}

impl ClientStatements {
    /// The one that has this name.
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Rc<Statement>> {
        self.by_name.get(name)
    }

    /// Whether it has a name.
    pub fn has(&self, statement: &Statement) -> bool {
        self.ids.contains(&statement.id)
    }

    /// How many bytes they amount to.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Box<[u8]>, &Rc<Statement>)> {
        self.by_name.iter()
    }

    /// Gives the statement this name.
    pub fn insert(&mut self, name: Box<[u8]>, statement: Rc<Statement>) {
        self.remove_entry(&name);
        self.bytes += name.len() + statement.tail.len();
        self.ids.insert(statement.id);
        self.by_name.insert(name, statement);
    }

    /// Takes the name away.
    pub fn remove_entry(&mut self, name: &[u8]) -> Option<(Box<[u8]>, Rc<Statement>)> {
        let (name, statement) = self.by_name.remove_entry(name)?;
        self.bytes -= name.len() + statement.tail.len();
        self.ids.remove(&statement.id);
        Some((name, statement))
    }

    /// This one with its name.
    pub(super) fn named(&self, id: u64) -> Option<(Box<[u8]>, Rc<Statement>)> {
        let known = self.by_name.iter().find(|(_, known)| known.id == id);
        known.map(|(name, known)| (name.clone(), known.clone()))
    }

    /// Takes the statement's name away.
    pub fn remove(&mut self, statement: &Statement) -> Option<(Box<[u8]>, Rc<Statement>)> {
        let (name, _) = self.named(statement.id)?;
        self.remove_entry(&name)
    }

    /// Adds those of `before` whose names aren't taken.
    pub fn restore(&mut self, before: Self) {
        for (name, statement) in before.by_name {
            if !self.by_name.contains_key(&name) && !self.has(&statement) {
                self.insert(name, statement);
            }
        }
    }
}

impl Registry {
    /// The statement whose Parse has this `tail`, which `look` tells the meaning of if it is new. If it isn't to be shared, it is
    /// one of its own.
    pub fn intern(
        &mut self,
        tail: &[u8],
        is_shared: bool,
        server: &ServerSession,
        epoch: u64,
        look: impl FnOnce() -> (Effects, Command),
    ) -> Rc<Statement> {
        let key = if is_shared {
            key(tail, &server.settings)
        } else {
            Cow::default()
        };
        if is_shared
            && let Some(ByKey(known)) = self.statements.get(key.as_ref())
            // What connections begin with may have changed.
            && *known.tail == *tail
            && (!known.has_constants || known.is_used_under(server))
        {
            return known.clone();
        }
        if self.statements.len() >= MAX_SHARED || self.bytes >= MAX_SHARED_BYTES {
            self.statements.retain(|ByKey(known)| Rc::strong_count(known) > 1);
            self.bytes = self.statements.iter().map(|ByKey(known)| known.tail.len()).sum();
        }
        let (effects, command) = look();
        let text = Body::new(tail).cstring().unwrap_or_default();
        let is_analysed = sql::is_analysed(text);
        self.next += 1;
        let statement = Rc::new(Statement {
            id: self.next,
            server_name: format!("{NAME_PREFIX}{}", self.next).into(),
            tail: tail.into(),
            names: None,
            key: key.into(),
            variant: 0,
            command,
            reading: server.parameters.reading(),
            is_analysed,
            has_own_types: has_own_types(tail),
            has_constants: is_analysed && sql::has_constants(text),
            constants_under: deciding(server).cloned().collect(),
            used_under: deciding(server).cloned().collect(),
            shape: Rc::default(),
            effects: Cell::new((epoch, effects)),
        });
        // What clients hold is bounded by their own limits; beyond ours, texts are no longer shared.
        if is_shared
            && self.statements.len() < MAX_SHARED
            && self.bytes < MAX_SHARED_BYTES
            && self.statements.replace(ByKey(statement.clone())).is_none()
        {
            self.bytes += tail.len();
        }
        statement
    }

    /// A statement like that one, with a name of its own, which isn't remembered. `shape`: what it takes and returns, once that
    /// is known, if it isn't what that one does. `named`: its text names that statement, and where.
    pub fn apart(
        &mut self,
        statement: &Statement,
        shape: Option<OnceCell<Shape>>,
        named: Option<(Range<usize>, Rc<Statement>)>,
    ) -> Rc<Statement> {
        self.next += 1;
        let tail = named.as_ref().map_or_else(
            || statement.tail.clone(),
            |(place, named)| named.named_in(&statement.tail, place.clone()).into(),
        );
        Rc::new(Statement {
            id: self.next,
            server_name: format!("{NAME_PREFIX}{}", self.next).into(),
            tail,
            names: named.map_or_else(|| statement.names.clone(), |(_, named)| Some(named)),
            key: Box::default(),
            variant: 0,
            command: statement.command.clone(),
            reading: statement.reading,
            is_analysed: statement.is_analysed,
            has_own_types: statement.has_own_types,
            has_constants: statement.has_constants,
            constants_under: statement.constants_under.clone(),
            used_under: Settings::default(),
            shape: shape.map_or_else(|| statement.shape.clone(), Rc::new),
            effects: statement.effects.clone(),
        })
    }

    /// The statement in whose place all have this one who share `statement` and have the settings of now.
    pub fn under(&mut self, statement: &Statement, server: &ServerSession) -> Rc<Statement> {
        let now: Settings = deciding(server).cloned().collect();
        let of = statement.key.len() - statement.variant;
        let mut key = statement.key.get(..of).unwrap_or_default().to_vec();
        if now != statement.constants_under {
            // No text has one of these in it.
            for text in now.iter().flat_map(|(name, value)| [name, value]) {
                key.extend_from_slice(b"\0\0");
                key.extend_from_slice(text.as_bytes());
            }
        }
        match self.statements.get(key.as_slice()) {
            Some(ByKey(known))
                if known.constants_under == statement.constants_under && known.tail == statement.tail =>
            {
                return known.clone();
            }
            // What connections begin with has changed since.
            Some(_) => return self.apart(statement, None, None),
            None => {}
        }
        let mut variant = self.apart(statement, None, None);
        if self.statements.len() < MAX_SHARED
            && self.bytes < MAX_SHARED_BYTES
            && let Some(new) = Rc::get_mut(&mut variant)
        {
            new.variant = key.len() - of;
            new.key = key.into();
            new.used_under = now;
            self.bytes += new.tail.len();
            self.statements.insert(ByKey(variant.clone()));
        }
        variant
    }

    /// Forgets what is known of the texts: catalogs have changed, and with them what a text may do and return. Clients
    /// that have prepared one keep theirs.
    pub fn forget(&mut self) {
        self.statements.clear();
        self.bytes = 0;
    }
}

/// Whether the Parse with this `tail` says of a parameter that its type is one of the database's own.
pub fn has_own_types(tail: &[u8]) -> bool {
    let mut body = Body::new(tail);
    let _text = body.cstring();
    let _count = body.bytes(2);
    while let Ok(oid) = body.i32() {
        if oid as u32 >= FIRST_OWN_OID {
            return true;
        }
    }
    false
}

/// The text of a Parse and the settings that decide what it means: a literal is another date under another `DateStyle`, and
/// a name another table under another `search_path`.
fn key<'a>(tail: &'a [u8], settings: &Settings) -> Cow<'a, [u8]> {
    if settings.is_empty() {
        return Cow::Borrowed(tail);
    }
    let mut key = tail.to_vec();
    for text in settings.iter().flat_map(|(name, value)| [name, value]) {
        key.push(0);
        key.extend_from_slice(text.as_bytes());
    }
    Cow::Owned(key)
}

/// What decides about constants.
fn deciding(server: &ServerSession) -> impl Iterator<Item = &Setting> {
    let others = settings::deciding(&server.settings);
    server.parameters.deciding().iter().chain(others)
}
