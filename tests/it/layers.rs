//! The layers, read from the source text: a module may use the modules of lower layers, those of its own
//! layer that are listed below, and never one of a higher layer. What a layer may not touch at all
//! (sockets, clocks, certain crates) is checked along with it.
//!
//! It reads tokens, not meaning: comments, strings and characters are skipped, macros are not expanded. That
//! is enough to find what somebody writes without thinking of the rule; it is no defence
//! against somebody who wants to get round it.

mod tokens;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokens::{Token, is_name, tokens};

/// Every module of the crate's root and its layer.
const LAYERS: &[(u8, &[&str])] = &[
    (0, &["ids", "sql", "wire"]),
    (
        1,
        &["discovery", "iam", "identity", "pin", "policy", "pool", "session"],
    ),
    (2, &["aws", "config", "net", "peer", "tls"]),
    (3, &["admin", "audit", "metrics", "telemetry", "upstream"]),
    (4, &["app", "cli", "gateway"]),
];

/// Which module may use which other one of its own layer.
const SIBLINGS: &[(&str, &[&str])] = &[
    ("policy", &["identity", "pool"]),
    ("aws", &["tls"]),
    ("session", &["pin"]),
    ("config", &["tls"]),
    ("net", &["tls"]),
    ("admin", &["metrics", "upstream"]),
    ("audit", &["metrics"]),
    ("upstream", &["metrics"]),
    ("app", &["gateway"]),
    ("cli", &["app", "gateway"]),
];

/// The highest layer that is without sockets and clocks.
const PURE: u8 = 1;

/// Crates that only one module may name, by the beginning of their names.
const CONFINED: &[(&str, &str)] = &[("rustls", "tls"), ("tokio_rustls", "tls"), ("aws_", "aws")];

/// Cryptography and nothing else, in spite of its name.
const UNCONFINED: &[&str] = &["aws_lc_rs"];

/// Crates that the pure layers may not name, by the beginning of their names.
const IMPURE: &[&str] = &["tokio", "mio", "socket2", "rustix", "hyper"];

#[test]
fn no_module_reaches_above_its_layer() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = sources(&root).unwrap();
    assert!(files.len() > 2, "no sources in {}", root.display());
    let mut found = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
        found.extend(violations(path, &source));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn planted_violations_are_found() {
    let rows = [
        (
            "wire/frame.rs",
            "\nuse crate::pool::Shard;",
            "2: wire (layer 0) uses pool (layer 1)",
        ),
        (
            "pool/mod.rs",
            "use crate::{ids, net::{a, b}};",
            "1: pool (layer 1) uses net (layer 2)",
        ),
        (
            "pool/mod.rs",
            "use {std::fmt, crate::app};",
            "1: pool (layer 1) uses app (layer 4)",
        ),
        (
            "pool/mod.rs",
            "fn f() { let x = 'x'; crate :: admin::f() }",
            "1: pool (layer 1) uses admin (layer 3)",
        ),
        (
            "pool/mod.rs",
            "#[cfg(test)] mod tests { use crate::tls; }",
            "1: pool (layer 1) uses tls (layer 2)",
        ),
        (
            "identity/mod.rs",
            "use crate::policy;",
            "1: identity uses policy, its sibling, which is not listed",
        ),
        (
            "ids.rs",
            "use crate::wire;",
            "1: ids uses wire, its sibling, which is not listed",
        ),
        ("pool/mod.rs", "use crate::nowhere;", "1: nowhere is in no layer"),
        ("pool/mod.rs", "use crate::*;", "1: * is in no layer"),
        ("nowhere/mod.rs", "", "1: nowhere is in no layer"),
        ("nowhere.rs", "use crate::app;", "1: nowhere is in no layer"),
        (
            "pool/mod.rs",
            "use super::app;",
            "1: super:: reaches the crate's root",
        ),
        (
            "pool/mod.rs",
            "mod a { use super::super::app; }",
            "1: super:: reaches the crate's root",
        ),
        (
            "pool/shard/tests.rs",
            "use super::super::super::app;",
            "1: super:: reaches the crate's root",
        ),
        (
            "pool/mod.rs",
            "let a = r#\"\n\"#; tokio::spawn(a);",
            "2: tokio belongs above layer 1",
        ),
        (
            "pool/mod.rs",
            "/* \n /* */ */ use tokio_util as t;",
            "2: tokio_util belongs above layer 1",
        ),
        (
            "sql/mod.rs",
            "use std::net::IpAddr;",
            "1: sockets belong above layer 1",
        ),
        (
            "sql/mod.rs",
            "use std::{fmt, net::IpAddr};",
            "1: sockets belong above layer 1",
        ),
        (
            "iam/mod.rs",
            "let now = Instant::now();",
            "1: the time comes in as an argument in layer 1",
        ),
        (
            "iam/mod.rs",
            "std::time::SystemTime::now",
            "1: the time comes in as an argument in layer 1",
        ),
        (
            "iam/mod.rs",
            "#[cfg(test)] mod t { } Instant::now()",
            "1: the time comes in as an argument",
        ),
        ("net/mod.rs", "use rustls::Stream;", "1: rustls belongs in tls"),
        (
            "net/mod.rs",
            "#[cfg(test)] mod tests { fn f(_: ::rustls::A) {} }",
            "1: rustls belongs in tls",
        ),
        (
            "net/mod.rs",
            "use rustls_pki_types as p;",
            "1: rustls_pki_types belongs in tls",
        ),
        (
            "main.rs",
            "fn main() { aws_config::load() }",
            "1: aws_config belongs in aws",
        ),
        ("tls/mod.rs", "\n\nunsafe { }", "3: unsafe"),
        ("lib.rs", "unsafe fn f() {}", "1: unsafe"),
    ];
    for (path, source, expected) in rows {
        let found = violations(path, source);
        let expected = format!("src/{path}:{expected}");
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with(&expected)),
            "{source}\nexpected {expected}\nfound {found:?}"
        );
    }
}

#[test]
fn what_is_allowed_is_not_complained_of() {
    let rows = [
        (
            "wire/frame.rs",
            "use crate::wire::body; use super::startup; pub(super) fn f() {} pub(crate) fn g() {}",
        ),
        (
            "pool/mod.rs",
            "use crate::{ids::PoolKey, wire::{self, frame}}; pub(super) struct A;",
        ),
        (
            "pool/mod.rs",
            "// use crate::app;\n/* tokio::spawn */ let a = \"\\\"crate::app\"; let b = b\"unsafe\";",
        ),
        (
            "pool/mod.rs",
            "fn f<'a>(a: &'a str) { let c = ['\\'', '\"']; let d = \"crate::app\"; }",
        ),
        (
            "pool/mod.rs",
            "#[cfg(test)]\nmod tests { use super::*; fn f() { Instant::now(); } }",
        ),
        (
            "pool/tests.rs",
            "use std::time::Instant; fn f() { Instant::now(); }",
        ),
        (
            "pool/mod.rs",
            "#![forbid(unsafe_code)] fn f(now: Instant, aws_region: &str) { std::fmt::f() }",
        ),
        ("policy/mod.rs", "use crate::identity::Principal;"),
        ("identity/scram.rs", "use aws_lc_rs::hmac;"),
        (
            "net/mod.rs",
            "use crate::tls; use std::net::IpAddr; fn f() { Instant::now(); tokio::spawn() }",
        ),
        ("tls/mod.rs", "use rustls::crypto::aws_lc_rs;"),
        ("aws/mod.rs", "use aws_sigv4::sign::v4;"),
        ("app.rs", "use crate::{admin, aws, gateway};"),
        ("lib.rs", "pub mod app; pub use crate::app::run;"),
        ("main.rs", "use postern::cli;"),
    ];
    for (path, source) in rows {
        assert_eq!(violations(path, source), [""; 0], "{source}");
    }
}

/// What `source`, the file at `path` below `src/`, does that its layer doesn't allow.
fn violations(path: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut report = |line: usize, what: String| found.push(format!("src/{path}:{line}: {what}"));
    let modules = module_path(path);
    let own = modules.first().copied();
    let layer = own.and_then(layer_of);
    if let (Some(own), None) = (own, layer) {
        report(1, no_layer(own));
        return found;
    }
    let is_pure = layer.is_some_and(|layer| layer <= PURE);
    let tokens = tokens(source);
    let mut scope = Scope::new(modules.contains(&"tests"));
    let (mut before_last, mut last) = ("", "");
    let mut rest = tokens.as_slice();
    while let [token, after @ ..] = rest {
        scope.enter(rest);
        let starts_path = last != "::" || !is_name(before_last);
        for used in crate_modules(token.text, after) {
            if let Some(own) = own
                && let Some(what) = arrow(own, used)
            {
                report(token.line, what);
            }
        }
        let climbs = if last == "::" { 0 } else { supers(rest) };
        if own.is_some() && climbs >= modules.len() + scope.inline_modules() {
            report(
                token.line,
                "super:: reaches the crate's root; write crate::".into(),
            );
        }
        let names_crate = starts_path
            && (after.first().is_some_and(|next| next.text == "::") || matches!(last, "use" | "crate"));
        if names_crate && let Some(home) = confined_to(token.text).filter(|home| own != Some(*home)) {
            report(token.line, format!("{} belongs in {home}", token.text));
        }
        if names_crate && is_pure && IMPURE.iter().any(|name| is_of(token.text, name)) {
            report(token.line, format!("{} belongs above layer {PURE}", token.text));
        }
        if is_pure && matches!(token.text, "std" | "core") && first_names(after).contains(&"net") {
            report(token.line, format!("sockets belong above layer {PURE}"));
        }
        if is_pure && !scope.is_test() && reads_clock(rest) {
            report(
                token.line,
                format!("the time comes in as an argument in layer {PURE} and below"),
            );
        }
        if token.text == "unsafe" {
            report(token.line, "unsafe".into());
        }
        (before_last, last) = (last, token.text);
        rest = after;
    }
    found
}

/// What is wrong with `own` using `used`, both modules of the crate's root.
fn arrow(own: &str, used: &str) -> Option<String> {
    let from = layer_of(own)?;
    let Some(to) = layer_of(used) else {
        return Some(no_layer(used));
    };
    let is_listed = || {
        SIBLINGS
            .iter()
            .any(|(name, uses)| *name == own && uses.contains(&used))
    };
    if to > from {
        Some(format!(
            "{own} (layer {from}) uses {used} (layer {to}), which is above it"
        ))
    } else if to == from && own != used && !is_listed() {
        Some(format!(
            "{own} uses {used}, its sibling, which is not listed in {}",
            file!()
        ))
    } else {
        None
    }
}

fn layer_of(module: &str) -> Option<u8> {
    let (layer, _) = LAYERS.iter().find(|(_, modules)| modules.contains(&module))?;
    Some(*layer)
}

fn no_layer(module: &str) -> String {
    format!("{module} is in no layer; put it into one in {}", file!())
}

/// The module that alone may name the crate `name`, if there is one such.
fn confined_to(name: &str) -> Option<&'static str> {
    if UNCONFINED.contains(&name) {
        return None;
    }
    CONFINED
        .iter()
        .find(|(beginning, _)| is_of(name, beginning))
        .map(|(_, home)| *home)
}

/// Whether the crate `name` is `family` or one of those around it, such as `tokio_util` of `tokio`.
fn is_of(name: &str, family: &str) -> bool {
    let family = family.trim_end_matches('_');
    name.strip_prefix(family)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

/// The module path of a file, without the crate itself: none for `lib.rs` and `main.rs`.
fn module_path(path: &str) -> Vec<&str> {
    let mut modules: Vec<_> = path.trim_end_matches(".rs").split(['/', '\\']).collect();
    if matches!(modules.as_slice(), ["lib" | "main"] | [.., "mod"]) {
        modules.pop();
    }
    modules
}

/// The modules of the crate's root that `crate::…` and `crate::{…, …}` name.
fn crate_modules<'a>(token: &str, after: &[Token<'a>]) -> Vec<&'a str> {
    match token {
        "crate" => first_names(after)
            .into_iter()
            .filter(|name| *name != "self")
            .collect(),
        _ => Vec::new(),
    }
}

/// Of the tokens after a path's first name: the names that come next, several if there is a group.
fn first_names<'a>(after: &[Token<'a>]) -> Vec<&'a str> {
    let [colons, next, group @ ..] = after else {
        return Vec::new();
    };
    match (colons.text, next.text) {
        ("::", "{") => {}
        ("::", name) => return vec![name],
        _ => return Vec::new(),
    }
    let mut names = Vec::new();
    let (mut depth, mut is_first) = (1, true);
    for token in group {
        match token.text {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => is_first = true,
            name if depth == 1 && is_first => {
                names.push(name);
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// How many `super::` `tokens` begin with.
fn supers(mut tokens: &[Token<'_>]) -> usize {
    let mut count = 0;
    while let [token, colons, after @ ..] = tokens
        && (token.text, colons.text) == ("super", "::")
    {
        count += 1;
        tokens = after;
    }
    count
}

fn reads_clock(tokens: &[Token<'_>]) -> bool {
    match tokens {
        [clock, colons, call, ..] => {
            matches!(clock.text, "Instant" | "SystemTime") && (colons.text, call.text) == ("::", "now")
        }
        _ => false,
    }
}

/// Which inline modules the current token is in.
struct Scope {
    /// For each open brace, whether it is that of a module, and of which kind.
    braces: Vec<Option<Kind>>,
    /// `#[cfg(test)]` was seen and what it belongs to wasn't yet.
    test_follows: bool,
    /// `mod name` was seen and its brace wasn't yet.
    module_follows: Option<Kind>,
    file_is_test: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ordinary,
    Test,
}

impl Scope {
    fn new(file_is_test: bool) -> Self {
        Self {
            braces: Vec::new(),
            test_follows: false,
            module_follows: None,
            file_is_test,
        }
    }

    fn enter(&mut self, tokens: &[Token<'_>]) {
        let texts: Vec<_> = tokens.iter().take(7).map(|token| token.text).collect();
        match texts.as_slice() {
            ["#", "[", "cfg", "(", "test", ")", "]"] => self.test_follows = true,
            ["mod", _, "{", ..] => {
                self.module_follows = Some(if self.test_follows {
                    Kind::Test
                } else {
                    Kind::Ordinary
                });
            }
            ["{", ..] => {
                self.braces.push(self.module_follows.take());
                self.test_follows = false;
            }
            ["}", ..] => {
                self.braces.pop();
                self.test_follows = false;
            }
            [";", ..] => self.test_follows = false,
            _ => {}
        }
    }

    fn inline_modules(&self) -> usize {
        self.braces.iter().flatten().count()
    }

    fn is_test(&self) -> bool {
        self.file_is_test || self.braces.contains(&Some(Kind::Test))
    }
}

/// Every `.rs` file below `folder`.
fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
