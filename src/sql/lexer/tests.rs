//! Texts and their tokens. PostgreSQL's own regression suite is read in `tests/it/sql.rs`.

use proptest::prelude::*;

use super::*;

/// Every token as a letter for its kind and what is written.
fn read(text: &str, standard_conforming_strings: bool) -> String {
    let tokens = Lexer::new(text.as_bytes(), standard_conforming_strings).map(|token| {
        let kind = match token.kind {
            Kind::Word => "w",
            Kind::Quoted => "q",
            Kind::EscapedIdentifier => "uq",
            Kind::String => "s",
            Kind::EscapeString => "e",
            Kind::UnicodeString => "us",
            Kind::BitString => "b",
            Kind::DollarString => "d",
            Kind::Number => "n",
            Kind::Parameter => "p",
            Kind::Symbol(_) => "",
            Kind::Operator => "o",
            Kind::Junk => "junk",
            Kind::Unterminated => "open",
        };
        format!("{kind}<{}>", &text[token.start..token.end])
    });
    tokens.collect::<Vec<_>>().join(" ")
}

#[test]
fn tokens_are_cut_as_postgresql_cuts_them() {
    for (text, expected) in [
        ("", ""),
        (" \t\n\r\u{c}\u{b}", ""),
        ("a_1$b ä1", "w<a_1$b> w<ä1>"),
        ("a\u{a0}b", "w<a\u{a0}b>"),
        (
            "\"a b\" \"a\"\"b\" \"\"\"\"",
            "q<\"a b\"> q<\"a\"\"b\"> q<\"\"\"\">",
        ),
        ("\"\"", "junk<\"\">"),
        ("U&\"\"", "junk<U&\"\">"),
        ("\"\"\"", "open<\"\"\">"),
        (
            "U&\"a\" u&\"\"\"\" u& \"a\"",
            "uq<U&\"a\"> uq<u&\"\"\"\"> w<u> o<&> q<\"a\">",
        ),
        ("'a' 'a''b' '' ''''", "s<'a'> s<'a''b'> s<''> s<''''>"),
        ("'a\\' 'b'", "s<'a\\'> s<'b'>"),
        ("'a'\n'b'", "s<'a'\n'b'>"),
        ("'a' -- c\n--d\r 'b'", "s<'a' -- c\n--d\r 'b'>"),
        ("'a' 'b'", "s<'a'> s<'b'>"),
        ("'a' /*\n*/ 'b'", "s<'a'> s<'b'>"),
        ("'a'\n/**/'b'", "s<'a'> s<'b'>"),
        ("'a' --\n", "s<'a'>"),
        ("'a'\n-'b'", "s<'a'> <-> s<'b'>"),
        ("'a'\nE'b'", "s<'a'> e<E'b'>"),
        ("E'a\\'b' e'\\\\'", "e<E'a\\'b'> e<e'\\\\'>"),
        ("E'a'\n'b\\'c'", "e<E'a'\n'b\\'c'>"),
        ("E'\\", "open<E'\\>"),
        ("B'01' x'1f' X'a'\n'b'", "b<B'01'> b<x'1f'> b<X'a'\n'b'>"),
        ("B'0''1'", "b<B'0'> s<'1'>"),
        ("N'a'", "w<N> s<'a'>"),
        ("U&'a\\'", "us<U&'a\\'>"),
        ("bE'a'", "w<bE> s<'a'>"),
        ("$$a$$ $a$ $$ $b$ $a$", "d<$$a$$> d<$a$ $$ $b$ $a$>"),
        ("$a$$b$a$", "d<$a$$b$a$>"),
        ("$a$ $a$a$", "d<$a$ $a$> w<a$>"),
        ("$ä$ $a$ $ä$", "d<$ä$ $a$ $ä$>"),
        ("$A$ $a$", "open<$A$ $a$>"),
        ("$a $1$$ $$", "junk<$> w<a> p<$1> d<$$ $$>"),
        ("$1a $", "junk<$1a> junk<$>"),
        ("a$$ b$$", "w<a$$> w<b$$>"),
        ("1$$ $$", "n<1> d<$$ $$>"),
        (
            "1 1. .5 1.5 1e5 1.e-5 .5E+5",
            "n<1> n<1.> n<.5> n<1.5> n<1e5> n<1.e-5> n<.5E+5>",
        ),
        ("1..2 1...2", "n<1> o<..> n<2> n<1> o<..> n<.2>"),
        ("1.2.3 a.1", "n<1.2> n<.3> w<a> n<.1>"),
        ("0x1F 0b1 0o17 1_000.5_0", "n<0x1F> n<0b1> n<0o17> n<1_000.5_0>"),
        (
            "0x_1 0xg 0b2 1__0 1_ 1._5",
            "n<0x_1> junk<0xg> junk<0b2> junk<1__0> junk<1_> junk<1._5>",
        ),
        (
            "1a 1e 1e+ 1.5x 0x1g 1e5e",
            "junk<1a> junk<1e> junk<1e> <+> junk<1.5x> junk<0x1g> junk<1e5e>",
        ),
        (
            "0x1$$ 1_0$1 1.e5$$ 0b12",
            "junk<0x1$$> junk<1_0$1> junk<1.e5$$> junk<0b12>",
        ),
        ("1e-5$$ $$ .5$1", "n<1e-5> d<$$ $$> n<.5> p<$1>"),
        (":: := : :a", "o<::> o<:=> <:> <:> w<a>"),
        (",()[].;", "<,> <(> <)> <[> <]> <.> <;>"),
        (
            "<= >= <> != => ~ || ->>",
            "o<<=> o<>=> o<<>> o<!=> o<=>> o<~> o<||> o<->>>",
        ),
        (
            "a=-1 a=+-1 *- @- @+-",
            "w<a> <=> <-> n<1> w<a> <=> <+> <-> n<1> <*> <-> o<@-> o<@+->",
        ),
        ("+-+", "<+> <-> <+>"),
        ("<=-1 =>-", "o<<=> <-> n<1> o<=>> <->"),
        ("+--a", "<+>"),
        ("+-/* */+", "<+> <-> <+>"),
        ("*/**/* @--", "<*> <*> o<@>"),
        ("=-/*+@*/@", "<=> <-> o<@>"),
        ("-- a\nb --c\rd --", "w<b> w<d>"),
        (
            "/* /* */ */a /**/b /***/c /*/*/*/*/d",
            "w<a> w<b> w<c> open</*/*/*/*/d>",
        ),
        ("//**/a", "</> w<a>"),
        ("/*", "open</*>"),
        ("/*/", "open</*/>"),
        ("{ \\ \u{1}", "junk<{> junk<\\> junk<\u{1}>"),
    ] {
        assert_eq!(read(text, true), expected, "{text:?}");
    }
}

#[test]
fn backslashes_escape_when_strings_do_not_conform() {
    for (text, expected) in [
        ("'a\\'b'", "e<'a\\'b'>"),
        ("'a'\n'\\''", "e<'a'\n'\\''>"),
        ("N'\\''", "w<N> e<'\\''>"),
        ("B'\\' x'\\'", "b<B'\\'> b<x'\\'>"),
        ("U&'a'", "junk<U&'a'>"),
        ("U&\"a\"", "uq<U&\"a\">"),
        ("\"\\\"", "q<\"\\\">"),
        ("$$\\$$", "d<$$\\$$>"),
    ] {
        assert_eq!(read(text, false), expected, "{text:?}");
    }
}

/// Tokens follow one another, and what lies between them holds none.
fn tiles(text: &[u8], standard_conforming_strings: bool) {
    let gap = |from: usize, to: usize| {
        let between = &text[from..to];
        assert_eq!(
            Lexer::new(between, true).next(),
            None,
            "between tokens of {text:?}"
        );
    };
    let mut end = 0;
    for token in Lexer::new(text, standard_conforming_strings) {
        assert!(end <= token.start && token.start < token.end && token.end <= text.len());
        gap(end, token.start);
        end = token.end;
    }
    gap(end, text.len());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_tiled(text: Vec<u8>, conforming: bool) {
        tiles(&text, conforming);
    }

    #[test]
    fn any_mixture_of_fragments_is_tiled(
        fragments in prop::collection::vec(prop::sample::select(vec![
            "'", "\"", "\\", "$", "$$", "$a$", "a", "E", "U&", "B", "--", "/*", "*/", "\n", " ", "+", "-", "*", "@",
            "=", "<", ">", ":", ".", "..", "1", "0x", "e", "_", ";", "(", ")", "{", "\0", "é", "''", "\"\"",
        ]), 0..40),
        conforming: bool,
    ) {
        tiles(fragments.concat().as_bytes(), conforming);
    }
}

#[test]
fn what_is_analysed_when_it_is_prepared_is_told_from_what_is_not() {
    for text in [
        "select 1",
        ";select 1",
        "((SELECT 1) union select 1)",
        "-- a\nWITH a AS (select null) table a",
        "create temp table a as select 1",
        "CREATE MATERIALIZED VIEW a AS SELECT 1",
        "explain select 1",
    ] {
        assert!(is_analysed(text.as_bytes()), "{text}");
    }
    for text in [
        "",
        "set timezone = 'UTC'",
        "lock table t",
        "vacuum t",
        "comment on table t is 'a'",
        "create index concurrently on t (a)",
        "execute a",
    ] {
        assert!(!is_analysed(text.as_bytes()), "{text}");
    }
}
