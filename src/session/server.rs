//! What a server connection has of its clients, as far as it differs from a new one.

use std::rc::Rc;

use super::doubt::Changing;
use super::parameters::Parameters;
use super::prepared::Prepared;
use super::ran::Ran;
use super::settings::{Settings, difference, settings, value};
use crate::ids::SessionId;
use crate::sql::Effects;
use crate::sql::{DECIDING_REPORTED, DECIDING_UNREPORTED};
use crate::wire::request;

/// A server connection's session.
#[derive(Debug)]
pub struct ServerSession {
    /// The parameters as the server last reported them.
    pub parameters: Rc<Parameters>,
    /// What it reported when it was opened.
    pub(super) defaults: Rc<Parameters>,
    /// The settings that aren't the server's own.
    pub settings: Settings,
    /// The statements of Postern's that are prepared.
    pub prepared: Prepared,
    /// The texts that its client has run since it was last settled what they left behind.
    pub ran: Ran,
    /// Its client changes catalogs.
    pub(super) changing: Option<Changing>,
    /// Whether clients are told apart by what is set: then a setting is set even where it is the server's default.
    is_shared: bool,
    /// Whose unnamed statement it has.
    pub(super) unnamed_of: Option<SessionId>,
    /// Who may have advanced sequences last: `currval` and `lastval` are that client's.
    pub(super) sequences_of: Option<SessionId>,
    /// Who may have seeded `random()` by code that no text shows.
    seeded_by: Option<SessionId>,
    /// Who may have set, for the time being, what decides about constants: code may have been planned then.
    planned_by: Option<SessionId>,
    /// As of which surprise it is known what clients have left on it.
    known_as_of: u64,
}

/// Makes `random()` nobody's, from what no seed decides (documentation, "UUID Functions": strong randomness).
const RESEED: &str = "SELECT pg_catalog.setseed(pg_catalog.hashtextextended(pg_catalog.gen_random_uuid()::pg_catalog.text, 0) \
     OPERATOR(pg_catalog./) 9223372036854775808.0)";

impl ServerSession {
    /// That of a connection which has just been opened.
    pub fn new(parameters: Parameters, is_shared: bool) -> Self {
        let parameters = Rc::new(parameters);
        Self {
            is_shared,
            defaults: parameters.clone(),
            parameters,
            settings: settings([]),
            prepared: Prepared::default(),
            ran: Ran::default(),
            changing: None,
            unnamed_of: None,
            sequences_of: None,
            seeded_by: None,
            planned_by: None,
            known_as_of: 0,
        }
    }

    /// Notes that DISCARD ALL was run.
    pub fn discarded(&mut self) {
        self.settings = settings([]);
        self.prepared = Prepared::default();
        self.ran.clear();
        self.changing = None;
        self.unnamed_of = None;
        self.sequences_of = None;
        self.planned_by = None;
    }

    /// Notes that `id` has run what may leave these behind, deciding effects among them.
    #[inline]
    pub fn noted(&mut self, id: SessionId, effects: Effects) {
        if effects.intersects(Effects::DECIDES | Effects::DYNAMIC | Effects::DYNAMIC_SETTING) {
            self.planned_by = Some(id);
        }
        if effects.intersects(Effects::ADVANCES) {
            self.sequences_of = Some(id);
        }
        if effects.intersects(Effects::DYNAMIC | Effects::DYNAMIC_SETTING) {
            self.seeded_by = Some(id);
        }
    }

    /// Notes that nothing was left on it, but what is known, up to this surprise.
    pub fn known_as_of(&mut self, surprise: u64) {
        self.known_as_of = surprise;
    }

    /// Notes that `id` may have left on it what nobody can know of.
    pub fn distrust(&mut self, id: SessionId) {
        self.known_as_of = u64::MAX;
        (self.seeded_by, self.planned_by) = (Some(id), Some(id));
    }

    /// Whether more may have been left on it than is known.
    #[inline]
    pub fn is_behind(&self, surprise: u64) -> bool {
        self.known_as_of != surprise
    }

    /// Notes that Postern has used the connection for itself: a Query ends the unnamed statement.
    pub fn lose_unnamed(&mut self) {
        self.unnamed_of = None;
    }

    /// Notes that the settings are now `settings`, whatever they were.
    pub fn settled(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Appends what makes the settings `wanted`, and what `currval` remembers nobody's or `id`'s, to `into`, and the types of
    /// these messages to `sent`. Nothing is appended if it is so already. `keeps_constants`: the connection may keep what
    /// constants in code meant under others' settings, so that its plans have to go.
    pub fn hand_over(
        &mut self,
        id: SessionId,
        wanted: &Settings,
        keeps_constants: bool,
        into: &mut Vec<u8>,
        sent: &mut Vec<u8>,
    ) {
        let sequences = is_others(self.sequences_of, id);
        if sequences {
            self.sequences_of = None;
        }
        let is_same = self.has(wanted);
        let reseeds = is_others(self.seeded_by, id);
        let decides_otherwise = !self.decides_alike(wanted);
        let replans = keeps_constants && (is_others(self.planned_by, id) || decides_otherwise);
        if is_same && !sequences && !reseeds && !replans {
            return;
        }
        self.lose_unnamed();
        let mut present = std::mem::replace(&mut self.settings, wanted.clone());
        let mut first: Vec<String> = Vec::new();
        let is_deferrable = is_deferrable(&present);
        if is_deferrable || sequences || reseeds || replans {
            first.push("SET TRANSACTION NOT DEFERRABLE".to_owned());
        }
        if is_deferrable {
            first.push(format!("RESET {DEFERRABLE}"));
            present = present
                .iter()
                .filter(|(name, _)| name != DEFERRABLE)
                .cloned()
                .collect();
        }
        let change = difference(&present, wanted);
        let is_role = |name: &str| name == ROLE;
        if sequences {
            first.push("DISCARD SEQUENCES".to_owned());
        }
        if reseeds {
            first.push(RESEED.to_owned());
        }
        if replans {
            first.push("DISCARD PLANS".to_owned());
            self.prepared.replan();
            self.planned_by = None;
        } else if decides_otherwise {
            self.planned_by = Some(id);
        }
        // The role first, and set last: what else there is to do is done as the user that is logged in.
        if !is_same && present.iter().any(|(name, _)| is_role(name)) {
            first.push("RESET ROLE".to_owned());
        }
        let resets = change.reset.iter().filter(|name| !is_role(name));
        first.extend(resets.map(|name| format!("RESET {}", request::quoted(name))));
        if !first.is_empty() {
            request::query(&first.join(";"), into);
            sent.push(b'Q');
        }
        let role = wanted.iter().filter(|(name, _)| !is_same && is_role(name));
        let differ = change.set.iter().copied().filter(|(name, value)| {
            let is_default = !self.is_shared
                && !present.iter().any(|(known, _)| known == name)
                && self.parameters.get(name) == Some(value.as_str());
            !is_role(name) && !is_default
        });
        // The encoding before all others: they were told in it.
        let (encoding, others): (Vec<_>, Vec<_>) = differ.partition(|(name, _)| name == "client_encoding");
        let set: Vec<_> = encoding.into_iter().chain(others).chain(role).collect();
        if !set.is_empty() {
            request::set_config(
                set.iter()
                    .map(|(name, value)| (name.as_str(), Some(value.as_str()))),
                false,
                into,
            );
            sent.extend(request::set_config_types(set.len()));
            request::sync(into);
            sent.push(b'S');
        }
    }

    /// Whether its transactions may wait for others by default.
    pub fn may_wait(&self) -> bool {
        is_deferrable(&self.settings)
    }

    /// Notes that what [`Self::hand_over`] has appended is done.
    pub fn handed_over(&mut self, id: SessionId) {
        self.seeded_by = self.seeded_by.filter(|by| *by == id);
    }

    /// Whether constants mean the same under the `wanted` settings as under those that it has.
    fn decides_alike(&self, wanted: &Settings) -> bool {
        Rc::ptr_eq(&self.settings, wanted) || {
            let effective = |settings| {
                let names = DECIDING_REPORTED.iter().chain(&DECIDING_UNREPORTED);
                names.map(move |name| value(settings, name).or_else(|| self.defaults.get(name)))
            };
            effective(&self.settings).eq(effective(wanted))
        }
    }

    fn has(&self, settings: &Settings) -> bool {
        Rc::ptr_eq(&self.settings, settings) || self.settings == *settings
    }

    /// Whether the connection is `id`'s with these settings as it is, so that nothing has to be handed over.
    #[inline]
    pub fn is_ready_for(
        &self,
        id: SessionId,
        wanted: &Settings,
        keeps_constants: impl FnOnce() -> bool,
    ) -> bool {
        let others = is_others(self.sequences_of, id)
            || is_others(self.seeded_by, id)
            || is_others(self.planned_by, id) && keeps_constants();
        !others && self.has(wanted)
    }
}

fn is_others(of: Option<SessionId>, id: SessionId) -> bool {
    of.is_some_and(|other| other != id)
}

fn is_deferrable(settings: &Settings) -> bool {
    settings.iter().any(|(name, _)| name == DEFERRABLE)
}

const ROLE: &str = "role";

/// With this on, a transaction that is serializable and only reads waits until nothing can conflict with it (documentation,
/// "SET TRANSACTION"). What Postern does for itself must not.
const DEFERRABLE: &str = "default_transaction_deferrable";
