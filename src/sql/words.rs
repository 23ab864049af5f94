//! The words that matter: keywords that statements are recognised by, and names of built-in routines with effects.
//!
//! One table, built by the compiler and looked up once for every word of a text. Which keywords are reserved, and so can't
//! be the name of a function unless they follow a dot, is as in PostgreSQL's `kwlist.h`.

use super::effects::Effects;

/// A word as far as statements are told apart by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    All,
    Alter,
    Analyze,
    As,
    Atomic,
    Begin,
    Call,
    Case,
    Close,
    Commit,
    Constraints,
    Copy,
    Create,
    /// Begins a statement that changes catalogs.
    Ddl,
    Deallocate,
    Declare,
    Default,
    Delete,
    Discard,
    Do,
    Else,
    End,
    Execute,
    Explain,
    From,
    Global,
    /// Begins a statement that leaves nothing behind.
    Harmless,
    Hold,
    Insert,
    Into,
    Listen,
    Load,
    Local,
    Loop,
    /// Begins a statement that may run the expressions of any index.
    Maintain,
    Merge,
    /// The view `pg_settings`: updating it calls `set_config` (rule `pg_settings_u` in `system_views.sql`).
    PgSettings,
    Plans,
    Prepare,
    Prepared,
    Replace,
    Reset,
    Rollback,
    Select,
    Sequences,
    Session,
    Set,
    SetConfig,
    System,
    Table,
    Temp,
    Then,
    To,
    Transaction,
    Unlisten,
    Update,
    Values,
    Verbose,
    With,
    Work,
    /// None of these.
    Other,
}

/// What is known about a word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    text: &'static str,
    pub(super) word: Word,
    /// What using the name may do.
    pub(super) effects: Effects,
    /// Whether it can't be a name unless it is quoted or follows a dot.
    pub(super) reserved: bool,
}

/// What is known about the word with these bytes, in whatever case.
pub(super) fn find(word: &[u8]) -> &'static Entry {
    let Some(mut slot) = hash(word) else {
        return &NOTHING;
    };
    while let Some(entry) = TABLE.get(slot)
        && !entry.text.is_empty()
    {
        if entry.text.as_bytes().eq_ignore_ascii_case(word) {
            return entry;
        }
        slot = (slot + 1) % SLOTS;
    }
    for prefixed in &PREFIXES {
        let begins = word.split_at_checked(prefixed.text.len());
        if begins.is_some_and(|(begin, _)| begin.eq_ignore_ascii_case(prefixed.text.as_bytes())) {
            return prefixed;
        }
    }
    &NOTHING
}

static NOTHING: Entry = prefix("", Effects::NONE);

const fn prefix(text: &'static str, effects: Effects) -> Entry {
    Entry {
        text,
        word: Word::Other,
        effects,
        reserved: false,
    }
}

const KEYWORDS: &[(Word, &[&str])] = &[
    (Word::All, &["all"]),
    (Word::Alter, &["alter"]),
    (Word::Analyze, &["analyse", "analyze"]),
    (Word::As, &["as"]),
    (Word::Atomic, &["atomic"]),
    (Word::Begin, &["begin", "start"]),
    (Word::Call, &["call"]),
    (Word::Case, &["case"]),
    (Word::Close, &["close"]),
    (Word::Commit, &["commit"]),
    (Word::Constraints, &["constraints"]),
    (Word::Copy, &["copy"]),
    (Word::Create, &["create"]),
    (
        Word::Ddl,
        &[
            "comment", "drop", "grant", "import", "reassign", "refresh", "revoke", "security",
        ],
    ),
    (Word::Deallocate, &["deallocate"]),
    (Word::Declare, &["declare"]),
    (Word::Default, &["default"]),
    (Word::Delete, &["delete"]),
    (Word::Discard, &["discard"]),
    (Word::Do, &["do"]),
    (Word::Else, &["else"]),
    (Word::End, &["end"]),
    (Word::Execute, &["execute"]),
    (Word::Explain, &["explain"]),
    (Word::From, &["from"]),
    (Word::Global, &["global"]),
    (
        Word::Harmless,
        &[
            "checkpoint",
            "fetch",
            "lock",
            "move",
            "notify",
            "release",
            "return",
            "savepoint",
            "show",
            "truncate",
        ],
    ),
    (Word::Maintain, &["cluster", "reindex", "vacuum"]),
    (Word::Hold, &["hold"]),
    (Word::Insert, &["insert"]),
    (Word::Into, &["into"]),
    (Word::Listen, &["listen"]),
    (Word::Load, &["load"]),
    (Word::Local, &["local"]),
    (Word::Loop, &["loop"]),
    (Word::Merge, &["merge"]),
    (Word::PgSettings, &["pg_settings"]),
    (Word::Plans, &["plans"]),
    (Word::Prepare, &["prepare"]),
    (Word::Prepared, &["prepared"]),
    (Word::Replace, &["replace"]),
    (Word::Reset, &["reset"]),
    (Word::Rollback, &["abort", "rollback"]),
    (Word::Select, &["select"]),
    (Word::Sequences, &["sequences"]),
    (Word::Session, &["session"]),
    (Word::Set, &["set"]),
    (Word::SetConfig, &["set_config"]),
    (Word::System, &["system"]),
    (Word::Table, &["table"]),
    (Word::Temp, &["temp", "temporary"]),
    (Word::Then, &["then"]),
    (Word::To, &["to"]),
    (Word::Transaction, &["transaction"]),
    (Word::Unlisten, &["unlisten"]),
    (Word::Update, &["update"]),
    (Word::Values, &["values"]),
    (Word::Verbose, &["verbose"]),
    (Word::With, &["with"]),
    (Word::Work, &["work"]),
];

#[rustfmt::skip]
const RESERVED: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "both", "case", "cast",
    "check", "collate", "column", "constraint", "create", "current_catalog", "current_date", "current_role",
    "current_time", "current_timestamp", "current_user", "default", "deferrable", "desc", "distinct", "do",
    "else", "end", "except", "false", "fetch", "for", "foreign", "from", "grant", "group", "having", "in",
    "initially", "intersect", "into", "lateral", "leading", "limit", "localtime", "localtimestamp", "not",
    "null", "offset", "on", "only", "or", "order", "placing", "primary", "references", "returning", "select",
    "session_user", "some", "symmetric", "table", "then", "to", "trailing", "true", "union", "unique", "user",
    "using", "variadic", "when", "where", "window", "with",
];

/// Names that have an effect wherever they stand, quoted or not, in whatever schema. Built-in routines are from
/// PostgreSQL's `pg_proc.dat` (13 to 18), the others from its contrib modules and RDS.
#[rustfmt::skip]
const NAMES: &[(Effects, &[&str])] = &[
    // A word that can stand anywhere in a WITH query.
    (Effects::SEQUENCE_WRITE, &["insert", "merge"]),
    (Effects::SEQUENCE_WRITE, &["nextval", "setval"]),
    (Effects::SEQUENCE_READ, &["currval", "lastval"]),
    (Effects::SEED, &["setseed"]),
    (Effects::SETTING, &["set_limit"]), // pg_trgm
    (
        Effects::ADVISORY,
        &["pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared"],
    ),
    (Effects::ENDS, &["pg_advisory_unlock", "pg_advisory_unlock_all", "pg_advisory_unlock_shared"]),
    (
        Effects::DYNAMIC,
        &[
            "query_to_xml", "query_to_xmlschema", "query_to_xml_and_xmlschema",
            "table_to_xml", "table_to_xmlschema", "table_to_xml_and_xmlschema",
            "schema_to_xml", "schema_to_xmlschema", "schema_to_xml_and_xmlschema",
            "database_to_xml", "database_to_xmlschema", "database_to_xml_and_xmlschema",
            "cursor_to_xml", "cursor_to_xmlschema",
            "ts_stat", "ts_rewrite",
            // They run the expressions of an index that a string names.
            "brin_summarize_new_values", "brin_summarize_range", "brin_desummarize_range", "gin_clean_pending_list",
            "connectby", "crosstab", "crosstabn", "crosstab2", "crosstab3", "crosstab4", // tablefunc
            "xpath_table", // xml2
            "query_export_to_s3", // aws_s3
        ],
    ),
    (
        Effects::LASTING,
        &[
            "pg_backup_start", "pg_backup_stop", "pg_start_backup", "pg_stop_backup",
            "pg_replication_origin_session_setup", "pg_replication_origin_session_reset",
            "pg_replication_origin_xact_setup", "pg_replication_origin_xact_reset",
            "pg_create_logical_replication_slot", "pg_create_physical_replication_slot",
            "pg_copy_logical_replication_slot", "pg_copy_physical_replication_slot",
            "dblink_connect", "dblink_connect_u", "sepgsql_setcon",
        ],
    ),
    (Effects::DDL, &["pg_import_system_collations"]),
    // They take a type by its number, and a domain's checks run.
    (
        Effects::DYNAMIC,
        &[
            "array_in", "array_recv", "domain_in", "domain_recv", "multirange_in", "multirange_recv", "range_in", "range_recv",
            "record_in", "record_recv", "pg_input_error_info", "pg_input_is_valid",
        ],
    ),
    (Effects::TEMPORARY, &["pg_temp"]),
];

/// The same, for everything that begins so and isn't listed above.
static PREFIXES: [Entry; 2] = [
    prefix("pg_temp_", Effects::TEMPORARY),
    prefix("dblink", Effects::DYNAMIC),
];

const SLOTS: usize = 1024;

static TABLE: [Entry; SLOTS] = table();

/// A slot by a word's length and four of its bytes, regardless of their case; `None` for the empty word.
const fn hash(word: &[u8]) -> Option<usize> {
    let (Some(first), Some(last)) = (word.first(), word.last()) else {
        return None;
    };
    let (second, middle) = match word {
        [_, second, ..] => (*second, word.split_at(word.len() / 2).1),
        _ => (0, word),
    };
    let middle = match middle.first() {
        Some(byte) => *byte,
        None => 0,
    };
    let key = u32::from_le_bytes([*first | 0x20, second | 0x20, middle | 0x20, *last | 0x20]);
    let key = key ^ ((word.len() as u32) << 13);
    Some((key.wrapping_mul(0x9e37_79b1) >> 22) as usize)
}

#[allow(clippy::indexing_slicing, reason = "runs in the compiler only")]
const fn table() -> [Entry; SLOTS] {
    let mut table = [prefix("", Effects::NONE); SLOTS];
    let (mut group, mut at) = (0, 0);
    while group < KEYWORDS.len() {
        while at < KEYWORDS[group].1.len() {
            entry(&mut table, KEYWORDS[group].1[at]).word = KEYWORDS[group].0;
            at += 1;
        }
        (group, at) = (group + 1, 0);
    }
    group = 0;
    while group < NAMES.len() {
        while at < NAMES[group].1.len() {
            entry(&mut table, NAMES[group].1[at]).effects = NAMES[group].0;
            at += 1;
        }
        (group, at) = (group + 1, 0);
    }
    while at < RESERVED.len() {
        entry(&mut table, RESERVED[at]).reserved = true;
        at += 1;
    }
    table
}

/// The entry of a word, a new one if it has none.
#[allow(clippy::indexing_slicing, reason = "runs in the compiler only")]
const fn entry<'a>(table: &'a mut [Entry; SLOTS], text: &'static str) -> &'a mut Entry {
    let mut slot = match hash(text.as_bytes()) {
        Some(slot) => slot,
        None => 0,
    };
    while !table[slot].text.is_empty() && !same(table[slot].text.as_bytes(), text.as_bytes()) {
        slot = (slot + 1) % SLOTS;
    }
    table[slot].text = text;
    &mut table[slot]
}

#[allow(clippy::indexing_slicing, reason = "runs in the compiler only")]
const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}
