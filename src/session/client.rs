//! What a client has, whichever server connection it is on.

use std::rc::Rc;

use super::parameters::Parameters;
use super::ran::Ran;
use super::settings::{Settings, signed};
use super::statements::{ClientStatements, Statement};
use super::supervision::Supervision;
use crate::ids::SessionId;
use crate::pin::{Pins, Reason};
use crate::sql::{Analysis, Command, Discarded, Effects, Found, Language};

/// How the names of settings begin that only some roles may set (`pg_settings`, context `superuser`); for one of these the
/// server is asked for more than its value.
const PRIVILEGED: [&str; 13] = [
    "allow_",
    "backtrace_",
    "commit_delay",
    "compute_query_id",
    "deadlock_timeout",
    "debug_",
    "ignore_",
    "lc_messages",
    "log_",
    "session_",
    "temp_file_limit",
    "track_",
    "zero_",
];

/// Settings that end with their transaction.
const OF_TRANSACTION: [&str; 3] = [
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
];

/// Settings that are kept account of by name in one transaction.
const MAX_NAMED: usize = 1_000;

/// Statements that are known to be adopted.
const MAX_ADOPTED: usize = 100;

/// After any of these a setting may have changed whose name nobody has seen.
const MAY_SET_ANY: Effects = Effects::CODE
    .union(Effects::DYNAMIC)
    .union(Effects::DYNAMIC_SETTING)
    .union(Effects::DOUBT);

/// After these it is rather likely.
const SETS_ANY: Effects = Effects::DYNAMIC.union(Effects::DYNAMIC_SETTING);

/// What is known of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Knowledge {
    /// They are as they are known to be.
    Sure,
    /// They most likely are.
    Unsure,
    /// They may well have been set, or what was set may have ended.
    Changed,
}

/// A client's session.
#[derive(Debug)]
pub struct ClientSession {
    /// Who it is, for what a server connection remembers of its last client.
    pub id: SessionId,
    /// The settings that it wants, as far as they aren't the server's own.
    pub settings: Settings,
    /// Who it is, which its `application_name` says.
    person: Option<Rc<str>>,
    /// Those that it came with; RESET goes back to them.
    pub startup: Settings,
    /// What it was last told of the server's parameters.
    pub told: Rc<Parameters>,
    /// Its prepared statements, by its own names.
    pub statements: ClientStatements,
    /// Those of them that it has defined, that a server connection had already, and that it hasn't used since.
    pub(super) adopted: Vec<u64>,
    /// Its unnamed statement.
    pub unnamed: Unnamed,
    /// What running the unnamed statement may leave behind, and when that was thought.
    pub unnamed_effects: (u64, Effects),
    /// What running those that it has prepared in SQL may leave behind.
    prepared_effects: Effects,
    /// How what these set decides how texts are read.
    prepared_decides: Effects,
    /// The epoch in which they were judged.
    prepared_as_of: u64,
    /// It may have drawn from a sequence, on a connection that it has given back.
    pub(super) drew: bool,
    /// Why it keeps its server connection.
    pub pins: Pins,
    /// What has been run since it was last settled what the session has.
    pub run: Run,
    /// What its rule holds it to.
    pub(super) supervision: Option<Box<Supervision>>,
}

/// An unnamed statement.
#[derive(Debug, Default)]
pub struct Unnamed {
    /// The rest of its Parse after the name. Empty if there is none.
    pub tail: Vec<u8>,
    /// The statement of the client's that it names, in SQL, by the name on server connections.
    pub names: Option<Rc<Statement>>,
    /// Its Parse says that parameters have types of the database's own.
    pub(super) has_own_types: bool,
    /// It is a COPY FROM.
    pub copies: bool,
    /// It is an EXECUTE.
    pub executes: bool,
    /// The server connection had it when another came in its place.
    pub(super) was_there: bool,
}

/// What was run since it was last settled what the session has.
#[derive(Debug, Default)]
pub struct Run {
    /// All that it may have left behind.
    pub effects: Effects,
    /// Settings that were set by name; only if no other can have changed is it enough to ask for these.
    pub named: Vec<String>,
    /// Some other setting may have changed.
    pub unnamed: bool,
    /// The session was discarded, and nothing was run since that leaves anything.
    pub discarded: bool,
    /// What the client began with may have been reset, and isn't set again before it is settled what the client has.
    pub(super) resets: bool,
    statements: u32,
    /// How many of them there were with the last DISCARD ALL.
    last_discard: u32,
    /// DISCARD ALLs that aren't known to have succeeded.
    discards: u32,
    /// Settings were set for the transaction.
    has_local: bool,
    /// How what was set or reset decides how texts are read.
    decides: Effects,
    /// The same of what was set, reset or undone since the server has told last how things are, and what else was run.
    untold: Effects,
}

/// What is known of settings that `decide` so, where what was set `decides` and what was run had these `effects`.
fn knowledge(decide: Effects, decides: Effects, effects: Effects) -> Knowledge {
    if decides.intersects(decide) || effects.intersects(SETS_ANY) {
        Knowledge::Changed
    } else if effects.intersects(MAY_SET_ANY) {
        Knowledge::Unsure
    } else {
        Knowledge::Sure
    }
}

impl ClientSession {
    /// One that begins.
    pub fn new(
        id: SessionId,
        startup: Settings,
        told: Rc<Parameters>,
        person: Option<Rc<str>>,
        supervision: Option<Box<Supervision>>,
    ) -> Self {
        Self {
            id,
            settings: startup.clone(),
            person,
            startup,
            told,
            statements: ClientStatements::default(),
            adopted: Vec::new(),
            unnamed: Unnamed::default(),
            unnamed_effects: (0, Effects::NONE),
            prepared_effects: Effects::NONE,
            prepared_decides: Effects::NONE,
            prepared_as_of: 0,
            drew: false,
            pins: Pins::default(),
            run: Run::default(),
            supervision,
        }
    }

    /// Notes that `text`, which is `command`, is about to be run, as it was judged in this `epoch` of what is known.
    /// The answer is what it may leave behind with what it runs by EXECUTE.
    #[inline]
    pub(super) fn runs(&mut self, text: &[u8], effects: Effects, command: Command, epoch: u64) -> Effects {
        self.run.has_local |= effects.intersects(Effects::LOCAL);
        let mut decides = effects.common(Effects::DECIDING);
        let ends = effects.intersects(Effects::ENDS_TRANSACTION);
        let mut effects = effects.without(Effects::PASSING);
        if effects.intersects(Effects::PREPARED) {
            // PREPARE has the effects of what it prepares, and EXECUTE doesn't say what that was.
            if !self.prepared_effects.is_empty() && self.prepared_as_of != epoch {
                // Nor what it does by now.
                effects |= Effects::DYNAMIC | Effects::DYNAMIC_SETTING;
            }
            if !matches!(command, Command::Execute { .. }) {
                self.prepared_effects |= effects;
                self.prepared_decides |= decides;
                self.prepared_as_of = epoch;
            }
            effects |= self.prepared_effects;
            decides |= self.prepared_decides;
            if effects.intersects(Effects::SETTING | Effects::DOUBT) {
                effects |= Effects::DYNAMIC_SETTING;
            }
        }
        self.run.decides |= decides;
        self.run.untold |= decides | effects;
        if ends {
            self.run.untold |= self.run.decides | Effects::ENDS_TRANSACTION;
        }
        if effects.is_empty() {
            return effects;
        }
        self.run.note(text, effects, command);
        effects
    }

    /// The transaction has ended, and nothing in it can have left anything behind.
    #[inline]
    pub fn leaves_nothing(&mut self) {
        (self.run.has_local, self.run.decides, self.run.untold) = (false, Effects::NONE, Effects::NONE);
    }

    /// Takes over what was found out about the session after what was run; `pins` are those that the server told of.
    pub fn settle(&mut self, pins: Pins) {
        let Run { effects, .. } = std::mem::take(&mut self.run);
        self.pins = pins;
        self.drew =
            (self.drew || effects.intersects(Effects::ADVANCES)) && !effects.intersects(Effects::DISCARD);
        self.pins.unseen(effects);
    }

    /// Takes `settings` over as those that it wants; its `application_name` goes on saying who it is.
    pub fn wants(&mut self, settings: Settings) {
        self.settings = match &self.person {
            Some(person) => signed(person, &settings),
            None => settings,
        };
    }

    /// Notes that it has defined a statement that its server connection had already.
    pub(super) fn adopts(&mut self, statement: &Statement) {
        if statement.is_analysed && self.adopted.len() < MAX_ADOPTED {
            self.adopted.push(statement.id);
        }
    }

    /// The session was discarded after all that is noted.
    pub fn discarded(&mut self) {
        self.pins = self.pins.without_discarded();
        (self.prepared_effects, self.prepared_decides) = (Effects::NONE, Effects::NONE);
        let run = &mut self.run;
        run.effects = run.effects.common(Effects::UNSEEN | Effects::DDL)
            | Effects::DISCARD
            | Effects::SETTING
            | Effects::RESET
            | Effects::ENDS;
        run.named.clear();
        run.unnamed = true;
    }

    /// Whether it may have prepared statements whose texts aren't known.
    pub(super) fn has_unknown_statements(&self) -> bool {
        let ties = [Reason::Prepared, Reason::Large];
        !self.prepared_effects.is_empty() || ties.iter().any(|reason| self.pins.contains(*reason))
    }

    /// Adds a pin that the text of a message calls for.
    pub(super) fn pin(&mut self, reason: Reason) {
        self.pins.add(reason);
    }
}

impl Run {
    /// Notes that a DISCARD ALL has succeeded.
    pub(super) fn has_discarded(&mut self) {
        self.discards = self.discards.saturating_sub(1);
        self.discarded = self.discards == 0 && self.last_discard == self.statements;
    }

    /// Notes that something has failed or was rolled back: a setting that was set by name may be nobody's, and its value alone
    /// doesn't show that.
    pub(super) fn has_undone(&mut self) {
        self.unnamed |= !self.effects.is_empty();
    }

    /// Whether settings may differ from what they are known to be.
    pub(super) fn may_set(&self) -> bool {
        self.has_local
            || self
                .effects
                .intersects(Effects::SETTING | Effects::DYNAMIC_SETTING | Effects::PROBE | Effects::DOUBT)
    }

    /// Whether texts may be read in another way once what was run is done.
    pub(super) fn changes_reading(&self) -> bool {
        self.decides_reading() || self.effects.intersects(MAY_SET_ANY)
    }

    /// Whether what was set by name decides that.
    pub(super) fn decides_reading(&self) -> bool {
        self.decides.intersects(Effects::DECIDES_WORDS)
    }

    /// All that it may have left behind, and how what was set meanwhile decides how texts are read.
    pub fn traces(&self) -> Effects {
        self.effects | self.decides
    }

    /// Notes that the server has told of all that it reports.
    #[inline]
    pub(super) fn is_told(&mut self) {
        self.untold = Effects::NONE;
    }

    /// Whether a transaction is known to go on that went on when the server has told last.
    pub(super) fn goes_on(&self) -> bool {
        !self.untold.intersects(Effects::ENDS_TRANSACTION)
    }

    /// What is known of the settings that decide about constants and that the server reports.
    pub(super) fn reported(&self) -> Knowledge {
        knowledge(Effects::DECIDES, self.untold, self.untold)
    }

    /// The same of others.
    pub(super) fn unreported(&self) -> Knowledge {
        knowledge(Effects::DECIDES_UNREPORTED, self.decides, self.effects)
    }

    /// Judges again what `ran`: `judge` says by what is known now what running a text may have left behind, or reading it, if that
    /// can be told. `false`: not all of it can be judged.
    pub fn judge_again(&mut self, ran: &Ran, judge: impl Fn(&[u8], bool) -> Option<Analysis>) -> bool {
        self.effects = self.effects.without(Effects::DOUBT);
        if ran.is_cut()
            || self.decides.intersects(Effects::DECIDES_WORDS)
                && !ran.texts().all(|(text, _)| crate::sql::reads_alike(text))
        {
            return false;
        }
        for (text, is_run) in ran.texts() {
            let Some(Analysis { effects, lone, .. }) = judge(text, is_run) else {
                return false;
            };
            self.decides |= effects.common(Effects::DECIDING);
            self.note(text, effects.without(Effects::PASSING), lone);
        }
        true
    }

    /// Notes that anything may have been run.
    pub fn is_unknown(&mut self) {
        self.effects |= Effects::UNKNOWN | Effects::DYNAMIC_SETTING;
    }

    fn name(&mut self, name: String) {
        if self.named.len() >= MAX_NAMED {
            // More than anybody could ask for.
            self.effects |= Effects::DYNAMIC_SETTING;
        } else if !self.named.contains(&name) {
            self.named.push(name);
        }
    }

    fn note(&mut self, text: &[u8], effects: Effects, command: Command) {
        self.effects |= effects;
        self.statements = self.statements.saturating_add(1);
        self.discarded = false;
        match command {
            Command::Set { local: false, name } | Command::Reset { name } => {
                match crate::sql::setting_name(text.get(name).unwrap_or_default()) {
                    Some(name) if OF_TRANSACTION.contains(&name.as_str()) => {}
                    Some(name) => {
                        // What others are is told in it.
                        self.unnamed |= name == "client_encoding";
                        self.unnamed |= PRIVILEGED.iter().any(|prefix| name.starts_with(prefix));
                        self.name(name);
                    }
                    None => self.unnamed = true,
                }
            }
            Command::Discard(Discarded::All) => {
                (self.last_discard, self.discards) = (self.statements, self.discards + 1);
                self.unnamed = true;
            }
            _ if effects.intersects(Effects::SETTING) => {
                self.unnamed = true;
                let mut custom = Vec::new();
                crate::sql::routine_effects(text, Language::Sql, |found| {
                    if let Found::Setting(name) = found {
                        custom.push(name.to_ascii_lowercase());
                    }
                });
                // Those that no view lists must be asked for by name.
                custom.retain(|name| name.contains('.'));
                custom.into_iter().for_each(|name| self.name(name));
            }
            _ => {}
        }
    }
}
