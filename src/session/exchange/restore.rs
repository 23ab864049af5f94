//! RESET goes back to what a server connection began with, and a client began with settings of its own.

use super::Sides;
use super::desk::Desk;
use crate::session::settings::Setting;
use crate::sql::{Command, Discarded, Effects, Identifier, Lexer, setting_name};
use crate::wire::body::Body;
use crate::wire::frame::Frame;
use crate::wire::request;

/// Portals that reset settings and are kept account of; of more than these it is seen when it is settled.
pub(super) const MAX_RESETTING: usize = 16;

/// Settings to go back to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Restore {
    Nothing,
    One(String),
    All,
}

impl Restore {
    /// What a statement resets, as far as its text alone shows it.
    pub(super) fn of(text: &[u8], effects: Effects, command: &Command) -> Self {
        match command {
            Command::Other if effects.intersects(Effects::SETTING) => {
                reset_in_other_words(text).map_or(Self::Nothing, |name| Self::One(name.to_owned()))
            }
            _ if !effects.intersects(Effects::RESET) => Self::Nothing,
            Command::Set { local: false, name } | Command::Reset { name } => {
                setting_name(text.get(name.clone()).unwrap_or_default()).map_or(Self::Nothing, Self::One)
            }
            Command::ResetAll | Command::Discard(Discarded::All) => Self::All,
            _ => Self::Nothing,
        }
    }
}

impl Desk {
    /// RESET goes back to what the server connection began with, but the client began with settings of its own: they
    /// are set again right behind it. The ReadyForQuery of the RESET waits for that.
    pub(super) fn restore(&mut self, what: &Restore, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        let begin = self.ledger.answered + self.ledger.readies();
        if self.set_again(what, sides, out) {
            self.restores.push_back(begin);
            request::sync(out);
            self.sent_own(b'S');
        }
    }

    /// The same within an extended query: if the server skips the one, it skips the other.
    pub(super) fn restore_within(&mut self, execute: Frame<'_>, sides: &mut Sides<'_>, out: &mut Vec<u8>) {
        let portal = Body::new(execute.body).cstring().unwrap_or_default();
        let place = self.resetting.iter().position(|(name, _)| **name == *portal);
        // More of the Execute follows if it was too long to be gathered; what is reset then is seen when it is settled.
        sides.client.run.resets |= execute.is_cut();
        if let Some(place) = place.filter(|_| !execute.is_cut()) {
            let (_, what) = self.resetting.swap_remove(place);
            self.set_again(&what, sides, out);
        }
    }

    /// Notes that `portal` runs a statement.
    pub(super) fn binds(&mut self, portal: &[u8], what: Restore, sides: &mut Sides<'_>) {
        self.resetting.retain(|(name, _)| **name != *portal);
        if what == Restore::Nothing {
            return;
        }
        if self.resetting.len() < MAX_RESETTING {
            self.resetting.push((portal.into(), what));
        } else {
            sides.client.run.resets = true;
        }
    }

    /// Sets again what the client began with, as far as it is reset; whether there is anything.
    pub(super) fn set_again(&mut self, what: &Restore, sides: &mut Sides<'_>, out: &mut Vec<u8>) -> bool {
        let startup = sides.client.startup.iter();
        let settings: Vec<&Setting> = match what {
            Restore::Nothing => return false,
            Restore::One(reset) => startup.filter(|(name, _)| name == reset).collect(),
            Restore::All => startup.collect(),
        };
        if settings.is_empty() {
            return false;
        }
        sides.server.unnamed_of = None;
        request::set_config(
            settings
                .iter()
                .map(|(name, value)| (name.as_str(), Some(value.as_str()))),
            false,
            out,
        );
        request::set_config_types(settings.len()).for_each(|tag| self.sent_own(tag));
        true
    }
}

/// The setting that a statement resets in other words than RESET name or SET name TO DEFAULT.
pub(super) fn reset_in_other_words(text: &[u8]) -> Option<&'static str> {
    let lexer = Lexer::new(text, true);
    let mut words = lexer
        .map_while(|token| Identifier::of(text, &token))
        .filter(|word| !word.eq_folded("session"));
    let resets = words.next().is_some_and(|word| word.eq_folded("reset"));
    let what = words.next()?;
    let mut next_is = |names: &[&str]| {
        let word = words.next();
        word.is_some_and(|word| names.iter().any(|name| word.eq_folded(name)))
    };
    if what.eq_folded("names") {
        return (!resets && next_is(&["default"])).then_some("client_encoding");
    }
    let is_time_zone = what.eq_folded("time") && next_is(&["zone"]);
    (is_time_zone && (resets || next_is(&["local", "default"]))).then_some("timezone")
}

/// Whether a ParameterStatus says that such a setting is as the server has it: then the client is told of it when it is
/// settled what it has, if it is so then.
pub(super) fn hides(sides: &Sides<'_>, frame: Frame<'_>) -> bool {
    if !sides.client.run.resets {
        return false;
    }
    let mut body = Body::new(frame.body);
    let (Ok(name), Ok(value)) = (body.cstring(), body.cstring()) else {
        return false;
    };
    let mut startup = sides.client.startup.iter();
    let begins_otherwise = startup
        .any(|(known, wanted)| known.as_bytes().eq_ignore_ascii_case(name) && wanted.as_bytes() != value);
    let name = str::from_utf8(name).unwrap_or_default();
    begins_otherwise && sides.server.defaults.get(name).map(str::as_bytes) == Some(value)
}
