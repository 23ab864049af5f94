//! PostgreSQL's own regression suite as PostgreSQL's scanner and parser read it, and as ours do.
//!
//! The scripts are looked for in `regress/tests/regress/sql` of `POSTERN_TEST_ENV`, and the package pglast (which holds the scanner and
//! the parser) in its `venv`. Without them the test says so and passes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use postern::sql::{Effects, Kind, Lexer, Options, Token, analyse};

const OPTIONS: Options = Options {
    standard_conforming_strings: true,
};

/// A text as `tests/drivers/sql_tokens.py` reports it, with places counted from the beginning of its file.
#[derive(Default)]
struct Text {
    file: String,
    start: usize,
    end: usize,
    tokens: Vec<Token>,
    error: Option<String>,
    /// How many statements, and what they do at least; none if it doesn't parse.
    statements: Option<(u32, Effects)>,
}

#[test]
fn postgresql_s_regression_suite_is_read_as_postgresql_reads_it() {
    let Some((scripts, python)) = environment() else {
        return;
    };
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers/sql_tokens.py");
    let output = Command::new(python).arg(program).arg(&scripts).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "sql_tokens.py: {said}");

    let (mut tokens, mut refused, mut statements, mut harmless) = (0, 0, 0, (0, 0));
    let mut wrong = Vec::new();
    let mut script = (String::new(), Vec::new());
    for text in texts(&String::from_utf8(output.stdout).unwrap(), &scripts) {
        if script.0 != text.file {
            script = (text.file.clone(), fs::read(scripts.join(&text.file)).unwrap());
        }
        let sql = &script.1[text.start..text.end];
        wrong.extend(compare_tokens(&text, sql));
        tokens += text.tokens.len();
        refused += usize::from(text.error.is_some());
        if let Some((count, least)) = text.statements {
            wrong.extend(compare_effects(&text, sql, count, least));
            statements += count;
            if least.is_empty() && count > 0 {
                harmless.0 += 1;
                harmless.1 += u32::from(analyse(sql, OPTIONS, |_| Effects::NONE).effects.is_empty());
            }
        }
    }
    println!(
        "{tokens} tokens, {statements} statements, {refused} texts refused; {} of {} harmless texts are found so; \
         {} differences",
        harmless.1,
        harmless.0,
        wrong.len()
    );
    assert!(tokens > 100_000 && wrong.is_empty(), "{}", wrong.join("\n"));
}

fn environment() -> Option<(PathBuf, PathBuf)> {
    let skip = |why: &str| {
        println!("skipped: {why}");
        None
    };
    let Some(environment) = std::env::var_os("POSTERN_TEST_ENV").map(PathBuf::from) else {
        return skip("POSTERN_TEST_ENV isn't set; tests/run prepares it");
    };
    let scripts = environment.join("regress/tests/regress/sql");
    if !scripts.is_dir() {
        return skip("POSTERN_TEST_ENV has no PostgreSQL sources; tests/regress/prepare fetches them");
    }
    let python = environment.join("venv/bin/python3");
    let imports = Command::new(&python).args(["-c", "import pglast"]).output();
    if !imports.is_ok_and(|output| output.status.success()) {
        return skip("the Python package pglast isn't in POSTERN_TEST_ENV/venv");
    }
    Some((scripts, python))
}

fn texts(report: &str, scripts: &Path) -> Vec<Text> {
    let mut texts: Vec<Text> = Vec::new();
    let mut file = String::new();
    let mut script = Vec::new();
    for line in report.lines() {
        let (what, rest) = line.split_once(' ').unwrap();
        let mut words = rest.split(' ');
        let mut number = || words.next().unwrap().parse::<usize>().unwrap();
        match what {
            "file" => {
                file = rest.to_owned();
                script = fs::read(scripts.join(rest)).unwrap();
            }
            "text" => texts.push(Text {
                file: file.clone(),
                start: number(),
                end: number(),
                ..Text::default()
            }),
            "token" => {
                let (start, end) = (number(), number());
                let kind = kind(words.next().unwrap(), script[start]);
                texts.last_mut().unwrap().tokens.push(Token { kind, start, end });
            }
            "error" => texts.last_mut().unwrap().error = Some(rest.to_owned()),
            "statements" => {
                let count = number() as u32;
                let least = words.map(effect).fold(Effects::NONE, Effects::union);
                texts.last_mut().unwrap().statements = Some((count, least));
            }
            _ => panic!("{line}"),
        }
    }
    texts
}

/// Our kind of token by the name of PostgreSQL's, and by its first byte where that name says less than ours.
fn kind(name: &str, first: u8) -> Kind {
    match name {
        "SCONST" if first == b'$' => Kind::DollarString,
        "SCONST" if first == b'\'' => Kind::String,
        "SCONST" => Kind::EscapeString,
        "USCONST" => Kind::UnicodeString,
        "BCONST" | "XCONST" => Kind::BitString,
        "ICONST" | "FCONST" => Kind::Number,
        "PARAM" => Kind::Parameter,
        "UIDENT" => Kind::EscapedIdentifier,
        "IDENT" if first == b'"' => Kind::Quoted,
        "Op" | "TYPECAST" | "DOT_DOT" | "COLON_EQUALS" | "EQUALS_GREATER" => Kind::Operator,
        "LESS_EQUALS" | "GREATER_EQUALS" | "NOT_EQUALS" => Kind::Operator,
        // A character that libpg_query has no name for, such as a brace.
        "UNKNOWN" if !first.is_ascii_alphabetic() => Kind::Junk,
        _ if !name.starts_with("ASCII_") => Kind::Word,
        _ if b",()[].;:+-*/%^<>=".contains(&first) => Kind::Symbol(first),
        _ => Kind::Junk,
    }
}

fn effect(name: &str) -> Effects {
    match name {
        "ADVISORY" => Effects::ADVISORY,
        "CODE" => Effects::CODE,
        "CURSOR" => Effects::CURSOR,
        "DDL" => Effects::DDL,
        "DEALLOCATE" => Effects::DEALLOCATE,
        "DISCARD" => Effects::DISCARD,
        "DYNAMIC" => Effects::DYNAMIC,
        "ENDS" => Effects::ENDS,
        "LASTING" => Effects::LASTING,
        "LISTEN" => Effects::LISTEN,
        "PREPARED" => Effects::PREPARED,
        "SEED" => Effects::SEED,
        "SEQUENCE_READ" => Effects::SEQUENCE_READ,
        "SEQUENCE_WRITE" => Effects::SEQUENCE_WRITE,
        "SETTING" => Effects::SETTING,
        "TEMPORARY" => Effects::TEMPORARY,
        _ => panic!("{name}"),
    }
}

fn compare_tokens(text: &Text, sql: &[u8]) -> Option<String> {
    let ours: Vec<Token> = Lexer::new(sql, OPTIONS.standard_conforming_strings)
        .map(|token| Token {
            start: token.start + text.start,
            end: token.end + text.start,
            ..token
        })
        .collect();
    let place = |what: String| Some(format!("{} {}..{}: {what}", text.file, text.start, text.end));
    if let Some(error) = &text.error {
        // Escapes in strings are evaluated by the server only.
        let refused = ours
            .iter()
            .any(|token| matches!(token.kind, Kind::Junk | Kind::Unterminated));
        return (!refused && !error.contains("Unicode"))
            .then(|| place(format!("not refused: {error}")))
            .flatten();
    }
    let first = ours
        .iter()
        .zip(&text.tokens)
        .position(|(ours, theirs)| ours != theirs);
    let at =
        first.or_else(|| (ours.len() != text.tokens.len()).then(|| ours.len().min(text.tokens.len())))?;
    // `$1a` is an error to PostgreSQL since version 15; libpg_query is made to take it for two tokens.
    let theirs = text.tokens.get(at).map(|token| token.kind);
    if theirs == Some(Kind::Parameter) && ours.get(at).is_some_and(|token| token.kind == Kind::Junk) {
        return None;
    }
    place(format!("{:?} instead of {:?}", ours.get(at), text.tokens.get(at)))
}

fn compare_effects(text: &Text, sql: &[u8], count: u32, least: Effects) -> Option<String> {
    let ours = analyse(sql, OPTIONS, |_| Effects::NONE);
    let covered = ours.effects.contains(Effects::UNKNOWN) || ours.effects.contains(least);
    let sql = String::from_utf8_lossy(sql);
    (ours.statements != count || !covered).then(|| {
        format!(
            "{} {}: {count} statements with {least:?}, found {ours:?}: {sql}",
            text.file, text.start
        )
    })
}
