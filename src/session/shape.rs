//! What a prepared statement takes and returns.
//!
//! The server keeps both as they were when it was prepared: it reads the text anew after catalogs or `search_path` have changed,
//! with the types of the parameters as they were, and refuses to run it if it would return something else
//! (`src/backend/utils/cache/plancache.c`, `RevalidateCachedQuery`). A client may hold on to what Describe has told it, and so
//! whatever connection runs its statement must know the same.

use std::hash::{DefaultHasher, Hasher as _};

use crate::wire::body::{Body, Truncated};

/// What Describe tells of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The number of parameters and their types: the body of a ParameterDescription, and what stands behind the text in a Parse.
    pub parameters: Box<[u8]>,
    row: Option<u64>,
}

impl Shape {
    /// That of a ParameterDescription, and of a RowDescription if it returns rows. Names of columns come in the encoding of whoever asks,
    /// so only those who use UTF-8 may.
    pub fn new(parameters: &[u8], row: Option<&[u8]>) -> Self {
        let hash = |row| {
            let mut hasher = DefaultHasher::new();
            if columns(row, &mut hasher).is_err() {
                hasher.write(row);
            }
            hasher.finish()
        };
        Self {
            parameters: parameters.into(),
            row: row.map(hash),
        }
    }

    /// Whether it returns rows.
    pub fn has_rows(&self) -> bool {
        self.row.is_some()
    }
}

/// Takes in what must not change: the names, types and modifiers of the columns (`equalRowTypes`), and not where they come from.
fn columns(row: &[u8], hasher: &mut DefaultHasher) -> Result<(), Truncated> {
    let mut row = Body::new(row);
    hasher.write(row.bytes(2)?);
    while !row.is_empty() {
        hasher.write(row.cstring()?);
        hasher.write_u8(0);
        let (_table, _attribute) = (row.i32()?, row.bytes(2)?);
        hasher.write_i32(row.i32()?);
        let _size = row.bytes(2)?;
        hasher.write_i32(row.i32()?);
        let _format = row.bytes(2)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two columns, the second of this name, table, type and modifier.
    fn row(name: &[u8], table: i32, kind: i32, modifier: i32) -> Vec<u8> {
        let mut row = vec![0, 2];
        for (name, kind) in [(&b"id"[..], 23), (name, kind)] {
            row.extend_from_slice(name);
            row.push(0);
            row.extend_from_slice(&table.to_be_bytes());
            row.extend_from_slice(&[0, 1]);
            row.extend_from_slice(&kind.to_be_bytes());
            row.extend_from_slice(&[0, 4]);
            row.extend_from_slice(&modifier.to_be_bytes());
            row.extend_from_slice(&[0, 0]);
        }
        row
    }

    #[test]
    fn only_what_the_server_holds_to_counts() {
        let shape = |row: &[u8]| Shape::new(&[0, 0], Some(row));
        let known = shape(&row(b"a", 1, 23, -1));
        assert_eq!(shape(&row(b"a", 2, 23, -1)), known, "another table");
        assert_ne!(shape(&row(b"b", 1, 23, -1)), known);
        assert_ne!(shape(&row(b"a", 1, 20, -1)), known);
        assert_ne!(shape(&row(b"a", 1, 23, 4)), known);
        assert_ne!(shape(&row(b"a", 1, 23, -1)[..30]), known);
        assert_ne!(Shape::new(&[0, 0], None), known);
        assert_ne!(
            Shape::new(&[0, 1, 0, 0, 0, 25], Some(&row(b"a", 1, 23, -1))),
            known
        );
    }
}
