//! The names by which a text reaches code, and those that code is reached by.

use std::cell::RefCell;

use crate::sql::{self, Command, Effects, Identifier, Kind, Lexer, MAX_NAME_BYTES, Options};

/// Names as PostgreSQL has them; nothing if they can't be told.
pub type Names = Option<Vec<Box<[u8]>>>;

/// Words without quotes that stand for nothing but themselves: those that are reserved (documentation, "SQL Key Words"), and of
/// the others those that begin a statement or a definition; and the functions that nearly everybody names. Whoever names code by one
/// of the latter counts as not having named it.
const KEYWORDS: [&str; 107] = [
    "add",
    "all",
    "alter",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "both",
    "by",
    "call",
    "cascade",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "constraint",
    "copy",
    "create",
    "current_catalog",
    "current_date",
    "current_role",
    "current_setting",
    "current_time",
    "current_timestamp",
    "current_user",
    "default",
    "deferrable",
    "delete",
    "desc",
    "distinct",
    "do",
    "drop",
    "each",
    "else",
    "end",
    "except",
    "execute",
    "exists",
    "false",
    "fetch",
    "for",
    "foreign",
    "from",
    "function",
    "grant",
    "group",
    "having",
    "if",
    "in",
    "index",
    "initially",
    "insert",
    "intersect",
    "into",
    "is",
    "key",
    "language",
    "lateral",
    "leading",
    "limit",
    "localtime",
    "localtimestamp",
    "not",
    "null",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "placing",
    "primary",
    "references",
    "replace",
    "returning",
    "returns",
    "row",
    "select",
    "session_user",
    "set",
    "set_config",
    "some",
    "symmetric",
    "table",
    "temp",
    "temporary",
    "then",
    "to",
    "trailing",
    "trigger",
    "true",
    "union",
    "unique",
    "update",
    "user",
    "using",
    "values",
    "variadic",
    "view",
    "when",
    "where",
    "window",
    "with",
];

/// More names than anybody looks through.
const MAX_NAMES: usize = 1_000;

/// The names of `text`, which defines something: all of them but the types of casts (`::`), and of a single CREATE FUNCTION only
/// that of what it makes.
pub fn defined(text: &[u8], options: Options) -> Names {
    if let Command::CreateRoutine { name } = sql::analyse(text, options, |_| Effects::NONE).lone {
        let name = Identifier::parse(text.get(name)?)?;
        return Some(vec![Box::from(name.fold(&mut [0; MAX_NAME_BYTES])?)]);
    }
    let tokens = Lexer::new(text, options.standard_conforming_strings);
    let mut is_cast = false;
    let identifiers = tokens.filter_map(|token| {
        let is_type = std::mem::replace(&mut is_cast, text.get(token.start..token.end) == Some(b"::"));
        let is_keyword = token.kind == Kind::Word
            && text
                .get(token.start..token.end)
                .and_then(|word| std::str::from_utf8(word).ok())
                .is_some_and(|word| KEYWORDS.contains(&word.to_ascii_lowercase().as_str()));
        if is_keyword || is_type {
            None
        } else {
            Identifier::of(text, &token)
        }
    });
    let names: Names = identifiers
        .take(MAX_NAMES + 1)
        .map(|identifier| identifier.fold(&mut [0; MAX_NAME_BYTES]).map(Box::from))
        .collect();
    names.filter(|names| names.len() <= MAX_NAMES)
}

/// The names by which `text` may run something; they can't be told if it has these `effects`.
pub fn used(text: &[u8], options: Options, effects: Effects) -> Names {
    if effects.intersects(Effects::CODE | Effects::DYNAMIC | Effects::UNKNOWN | Effects::PREPARED) {
        return None;
    }
    let names = RefCell::new(Some(Vec::new()));
    sql::analyse(text, options, |identifier| {
        let mut names = names.borrow_mut();
        match (identifier.fold(&mut [0; MAX_NAME_BYTES]), &mut *names) {
            (Some(name), Some(names)) if names.len() < MAX_NAMES => names.push(Box::from(name)),
            _ => *names = None,
        }
        Effects::NONE
    });
    names.into_inner()
}

/// Whether one of these names may be one of those.
pub fn share(these: &Names, those: &Names) -> bool {
    match (these, those) {
        (Some(these), Some(those)) => these.iter().any(|name| those.contains(name)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: Options = Options {
        standard_conforming_strings: true,
    };

    fn names(names: &Names) -> Option<Vec<String>> {
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).unwrap();
        names
            .as_ref()
            .map(|names| names.iter().map(|name| text(name)).collect())
    }

    fn some(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_routine_is_reached_by_its_name_alone() {
        let defined = |text: &str| defined(text.as_bytes(), OPTIONS);
        for text in [
            "create function a.\"Sets\"(b text) returns text language sql as 'select 1'",
            "CREATE OR REPLACE PROCEDURE \"Sets\" () AS ''",
            "create function \"Sets\"() begin atomic select one; select two; end",
        ] {
            assert_eq!(names(&defined(text)), some(&["Sets"]), "{text}");
        }
        let two = defined("create function f() as ''; select 1");
        assert_eq!(names(&two), some(&["f"]));
        let view = names(&defined("create view v as select set_config('a', 'b', false)"));
        assert_eq!(view, some(&["v"]));
        let cast = names(&defined(
            "create domain text as int; select 'a'::name::Other[], b",
        ));
        assert_eq!(cast, some(&["domain", "text", "int", "b"]));
        let trigger = names(&defined(
            "create trigger t before insert on \"select\" for each row execute function f()",
        ));
        assert_eq!(trigger, some(&["t", "before", "select", "f"]));
        assert_eq!(defined("create view U&\"a\" as select 1"), None);
        assert_eq!(
            defined(&format!("create view v as select {}", "a,".repeat(2_000))),
            None
        );
    }

    #[test]
    fn who_defines_a_routine_does_not_use_it() {
        let used = |text: &str| used(text.as_bytes(), OPTIONS, Effects::NONE);
        assert_eq!(names(&used("select F(x) from t")), some(&["f", "x", "t"]));
        assert_eq!(names(&used("create function f() as ''")), some(&[]));
        assert_eq!(super::used(b"select 1", OPTIONS, Effects::DYNAMIC), None);
        assert!(share(&None, &used("select 1")) && share(&used("select f"), &used("table f")));
        assert!(!share(&used("select f"), &used("table g")));
    }
}
