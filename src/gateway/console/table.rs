//! Rows, as clients see them.

use bytes::BytesMut;

use crate::wire::reply::{self, Format, Type, Value};

/// A column: its name and what is in it.
pub(super) type Column = (&'static str, Type);

pub(super) const fn text(name: &'static str) -> Column {
    (name, Type::Text)
}

pub(super) const fn int(name: &'static str) -> Column {
    (name, Type::Int8)
}

/// Rows of so many columns.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) columns: &'static [Column],
    pub(super) rows: Vec<Vec<Value>>,
}

impl Table {
    pub(super) fn new(columns: &'static [Column]) -> Self {
        let rows = Vec::new();
        Self { columns, rows }
    }

    pub(super) fn add(&mut self, row: impl Into<Vec<Value>>) {
        self.rows.push(row.into());
    }

    /// DataRow messages.
    pub(super) fn write(&self, formats: &[Format], out: &mut BytesMut) {
        for row in &self.rows {
            reply::data_row(row, formats, out);
        }
    }
}
