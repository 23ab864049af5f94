//! The extended query protocol, for drivers that speak no other (PostgreSQL documentation, "Extended Query").

use std::collections::HashMap;

use super::command::Command;
use crate::wire::body::{Body, Truncated};
use crate::wire::reply::Format;

/// Statements and portals that a visitor may have at a time, each.
const MAX_NAMES: usize = 64;

/// What a visitor has prepared, and bound.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    statements: HashMap<Vec<u8>, (String, Command)>,
    portals: HashMap<Vec<u8>, Portal>,
}

/// A command that can be executed.
#[derive(Clone, Debug)]
pub(super) struct Portal {
    pub(super) text: String,
    pub(super) command: Command,
    pub(super) formats: Vec<Format>,
}

/// What isn't right with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Its layout.
    Layout,
    /// There is no such command.
    Command,
    /// It has parameters.
    Parameters,
    /// There is no statement or portal of that name.
    Name,
    /// There are too many.
    TooMany,
}

impl From<Truncated> for Wrong {
    fn from(_: Truncated) -> Self {
        Self::Layout
    }
}

/// What Describe and Close are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named<'a> {
    Statement(&'a [u8]),
    Portal(&'a [u8]),
}

impl Named<'_> {
    fn read(body: &[u8]) -> Result<Named<'_>, Wrong> {
        let mut body = Body::new(body);
        match body.u8()? {
            b'S' => Ok(Named::Statement(body.cstring()?)),
            b'P' => Ok(Named::Portal(body.cstring()?)),
            _ => Err(Wrong::Layout),
        }
    }
}

impl Prepared {
    pub(super) fn parse(&mut self, body: &[u8]) -> Result<(), Wrong> {
        let mut body = Body::new(body);
        let (name, text) = (body.cstring()?, String::from_utf8_lossy(body.cstring()?));
        let command = Command::read(&text).ok_or(Wrong::Command)?;
        insert(&mut self.statements, name, (text.into_owned(), command))
    }

    pub(super) fn bind(&mut self, body: &[u8]) -> Result<(), Wrong> {
        let mut body = Body::new(body);
        let (portal, statement) = (body.cstring()?, body.cstring()?);
        let (text, command) = self.statements.get(statement).ok_or(Wrong::Name)?.clone();
        formats(&mut body)?;
        if u16_of(&mut body)? > 0 {
            return Err(Wrong::Parameters);
        }
        let formats = formats(&mut body)?;
        insert(
            &mut self.portals,
            portal,
            Portal {
                text,
                command,
                formats,
            },
        )
    }

    /// The command that is described; of a portal with its formats.
    pub(super) fn described(&self, body: &[u8]) -> Result<(&Command, Option<&[Format]>), Wrong> {
        match Named::read(body)? {
            Named::Statement(name) => {
                let (_, command) = self.statements.get(name).ok_or(Wrong::Name)?;
                Ok((command, None))
            }
            Named::Portal(name) => {
                let portal = self.portals.get(name).ok_or(Wrong::Name)?;
                Ok((&portal.command, Some(&portal.formats)))
            }
        }
    }

    pub(super) fn executed(&self, body: &[u8]) -> Result<Portal, Wrong> {
        let name = Body::new(body).cstring()?;
        self.portals.get(name).cloned().ok_or(Wrong::Name)
    }

    pub(super) fn close(&mut self, body: &[u8]) -> Result<(), Wrong> {
        match Named::read(body)? {
            Named::Statement(name) => drop(self.statements.remove(name)),
            Named::Portal(name) => drop(self.portals.remove(name)),
        }
        Ok(())
    }

    /// A transaction is over, and with it its portals.
    pub(super) fn synced(&mut self) {
        self.portals.clear();
    }
}

fn insert<T>(all: &mut HashMap<Vec<u8>, T>, name: &[u8], value: T) -> Result<(), Wrong> {
    if all.len() >= MAX_NAMES && !all.contains_key(name) {
        return Err(Wrong::TooMany);
    }
    all.insert(name.to_owned(), value);
    Ok(())
}

fn u16_of(body: &mut Body<'_>) -> Result<u16, Truncated> {
    Ok(u16::from_be_bytes([body.u8()?, body.u8()?]))
}

fn formats(body: &mut Body<'_>) -> Result<Vec<Format>, Wrong> {
    let count = u16_of(body)?;
    let format = |_| match u16_of(body)? {
        0 => Ok(Format::Text),
        1 => Ok(Format::Binary),
        _ => Err(Wrong::Layout),
    };
    (0..count).map(format).collect()
}
