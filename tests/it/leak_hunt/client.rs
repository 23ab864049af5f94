//! What is known of a client, and what it does next.

use std::collections::BTreeMap;

use super::dice::Dice;
use super::statements::{Asker, DRAWS, Hold, Statement, may_do_anything, statement};
use super::wire::Said;

/// One step of one client.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Says something and reads the answer.
    Say {
        said: Vec<Said>,
        /// What follows once the server asks for data.
        data: Vec<Said>,
        /// What rows hold can't be compared.
        opaque: bool,
    },
    /// Says something, leaves without reading the answer, and logs in again.
    Leave {
        said: Vec<Said>,
        goodbye: bool,
        login: Login,
    },
}

/// How a step has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// Of the last ReadyForQuery.
    pub(super) status: u8,
    /// Whether a Sync is missing.
    pub(super) open: bool,
    pub(super) went_well: bool,
}

/// What a client asks for at login, by its place in [`STARTUPS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Login(usize);

/// The first is what the gateway itself asks for.
const STARTUPS: &[&[(&str, &str)]] = &[
    &[("application_name", "postern")],
    &[("application_name", "berlin"), ("TimeZone", "Europe/Berlin")],
    &[
        ("application_name", "options"),
        ("options", "-c work_mem=7MB -c app.tenant=by\\ options"),
    ],
    &[
        ("application_name", "german"),
        ("DateStyle", "German"),
        ("IntervalStyle", "iso_8601"),
        ("client_encoding", "LATIN1"),
    ],
    &[("application_name", "path"), ("search_path", "side, public")],
    &[
        ("application_name", "planner"),
        ("options", "-c enable_seqscan=off --statement-timeout=70s"),
        ("client_encoding", "UTF8"),
    ],
    &[
        ("application_name", "custom"),
        ("app.person", "by startup"),
        ("standard_conforming_strings", "off"),
    ],
    &[
        ("application_name", "reader"),
        ("default_transaction_read_only", "on"),
        ("extra_float_digits", "3"),
    ],
];

impl Login {
    /// All of them differ from the gateway's own, but for the first.
    pub(super) fn any(dice: &mut Dice) -> Self {
        Self(if dice.percent(40) {
            0
        } else {
            dice.below(STARTUPS.len())
        })
    }

    pub(super) fn parameters(self) -> &'static [(&'static str, &'static str)] {
        STARTUPS[self.0]
    }
}

/// What the hunt allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Going back to the settings of the login works as with a server of one's own.
    pub(super) resets: bool,
    /// Settings that were put in place by the gateway look as if they weren't.
    pub(super) sources: bool,
}

/// What a step does to the client.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) step: Step,
    hold: Hold,
    /// Does nothing but call setseed.
    seeds: bool,
    /// Does nothing but draw a number and read it.
    draws: bool,
    /// May forget what was drawn.
    discards: bool,
    /// Ends all that holds.
    cleans: bool,
    /// May begin a transaction, or leave a Sync out.
    opens: bool,
}

/// A client, as far as it matters for what it may do next.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) index: usize,
    /// Of its last ReadyForQuery.
    pub(super) status: u8,
    /// Whether a Sync is missing.
    pub(super) open: bool,
    pub(super) login: Login,
    hold: Hold,
    seeded: bool,
    drawn: bool,
    /// How many parameters the statements of these names have, if they exist.
    statements: BTreeMap<String, usize>,
}

impl Client {
    pub(super) const fn new(index: usize, login: Login) -> Self {
        Self {
            index,
            status: b'I',
            open: false,
            login,
            hold: Hold::None,
            seeded: false,
            drawn: false,
            statements: BTreeMap::new(),
        }
    }

    /// Whether it may need its server connection for itself.
    pub(super) fn is_holding(&self) -> bool {
        self.hold != Hold::None || self.status != b'I' || self.open
    }

    /// What it does next. `free`: it may begin to hold a server connection.
    pub(super) fn plan(&mut self, dice: &mut Dice, rules: Rules, free: bool) -> Plan {
        if self.is_holding() && dice.percent(if self.may_reset(rules) { 8 } else { 2 }) {
            return self.clean_up(dice, rules);
        }
        for _ in 0..20 {
            let plan = self.any(dice, rules);
            if free || self.is_holding() || !plan.holds() {
                return plan;
            }
        }
        Plan::say(vec![Said::Query("show work_mem".to_owned())])
    }

    /// One more step towards holding nothing.
    pub(super) fn clean_up(&self, dice: &mut Dice, rules: Rules) -> Plan {
        if self.open {
            return Plan::say(vec![Said::Sync]);
        }
        if self.status != b'I' {
            let sql = if self.status == b'T' && dice.percent(70) {
                "commit"
            } else {
                "rollback"
            };
            return Plan::say(vec![Said::Query(sql.to_owned())]);
        }
        if self.hold == Hold::Leave || !self.may_reset(rules) {
            return Self::leave(dice);
        }
        Plan {
            cleans: true,
            ..Plan::say(vec![Said::Query("discard all".to_owned())])
        }
    }

    /// Takes note of what a step that went through has done.
    pub(super) fn done(&mut self, plan: &Plan, done: Done) {
        if let Step::Leave { login, .. } = plan.step {
            *self = Self::new(self.index, login);
            return;
        }
        (self.status, self.open) = (done.status, done.open);
        self.seeded |= plan.seeds && done.went_well;
        self.drawn = (self.drawn || plan.draws && done.went_well) && !(plan.discards || plan.cleans);
        if plan.cleans && done.status == b'I' {
            self.hold = Hold::None;
            self.statements.clear();
        }
        self.hold = self.hold.max(plan.hold);
    }

    fn may_reset(&self, rules: Rules) -> bool {
        rules.resets || self.login == Login(0)
    }

    fn any(&mut self, dice: &mut Dice, rules: Rules) -> Plan {
        if self.open && dice.percent(50) {
            return Plan::say(vec![Said::Sync]);
        }
        match dice.weighted(&[if self.open { 10 } else { 250 }, 60, 100, 110, 12, 2]) {
            0 => self.simple(dice, rules, 1),
            1 => {
                let count = 2 + dice.below(3);
                self.simple(dice, rules, count)
            }
            2 => self.one_shot(dice, rules),
            3 => self.pipeline(dice, rules),
            4 => self.copy(dice),
            _ => Self::leave(dice),
        }
    }

    fn statement(&self, dice: &mut Dice, rules: Rules) -> Statement {
        let asker = Asker {
            index: self.index,
            status: self.status,
            seeded: self.seeded,
            drawn: self.drawn,
            fresh: self.hold == Hold::None,
            sources: rules.sources,
        };
        loop {
            let statement = statement(dice, asker);
            if (!statement.resets || self.may_reset(rules)) && !(rules.resets && self.shows(&statement)) {
                return statement;
            }
        }
    }

    /// Whether it shows that a server connection is shared, as the README says.
    fn shows(&self, statement: &Statement) -> bool {
        let is_unseen = may_do_anything(&statement.sql);
        // Until its transaction is over, a RESET that no text shows goes back to what the server began with, and so does
        // what `set_config` returns.
        let resets = statement.resets && (is_unseen || statement.sql.contains("null"));
        // The name may be that of a statement of the protocol.
        let prepares = is_unseen
            && ["prepare ", "deallocate "]
                .iter()
                .any(|name| statement.sql.contains(name));
        resets && self.login != Login(0) || prepares
    }

    /// A statement that runs next, perhaps within a pipeline.
    fn next_statement(&self, dice: &mut Dice, rules: Rules) -> Statement {
        if self.open {
            self.kept_statement(dice, rules)
        } else {
            self.statement(dice, rules)
        }
    }

    /// A statement that may be prepared now and executed later.
    fn kept_statement(&self, dice: &mut Dice, rules: Rules) -> Statement {
        loop {
            let statement = self.statement(dice, rules);
            if statement.may_be_kept() {
                return statement;
            }
        }
    }

    fn simple(&self, dice: &mut Dice, rules: Rules, count: usize) -> Plan {
        let mut plan = Plan::say(Vec::new());
        let mut texts = Vec::new();
        for _ in 0..count {
            let statement = self.next_statement(dice, rules);
            // The name may be that of a statement of the protocol.
            let mut named = ["prepare", "execute", "deallocate"].iter();
            let shows = named.any(|command| statement.sql.starts_with(command))
                || statement.resets && rules.resets && self.login != Login(0)
                // The rest may define anything then, and ties all who name the same.
                || ["selec", "select 'unfinished", "load 'nothing'"].contains(&statement.sql.as_str());
            if count > 1 && shows {
                continue;
            }
            plan.count(&statement);
            plan.seeds |= count == 1 && statement.hold == Hold::Leave;
            plan.draws |= count == 1 && statement.sql == DRAWS;
            texts.push(statement.sql);
        }
        plan.add(Said::Query(texts.join(";\n")));
        plan
    }

    /// Parse to Sync with the unnamed statement.
    fn one_shot(&self, dice: &mut Dice, rules: Rules) -> Plan {
        let mut plan = Plan::say(Vec::new());
        let statement = self.next_statement(dice, rules);
        let keeps = statement.may_be_kept();
        Self::add_one_shot(&mut plan, dice, statement);
        plan.add(Said::Sync);
        if !keeps {
            plan.add(Said::CloseStatement(String::new()));
            plan.add(Said::Sync);
        }
        plan
    }

    fn add_one_shot(plan: &mut Plan, dice: &mut Dice, statement: Statement) {
        plan.count(&statement);
        let unnamed = String::new;
        plan.add(Said::Parse(unnamed(), statement.sql, Vec::new()));
        if dice.percent(20) {
            plan.add(Said::DescribeStatement(unnamed()));
        }
        plan.add(Said::Bind(unnamed(), unnamed(), Vec::new(), dice.percent(20)));
        if dice.percent(50) {
            plan.add(Said::DescribePortal(unnamed()));
        }
        plan.add(Said::Execute(unnamed(), dice.pick(&[0, 0, 0, 1])));
    }

    /// A few messages about named statements and portals, with Syncs among them, or none.
    fn pipeline(&mut self, dice: &mut Dice, rules: Rules) -> Plan {
        let mut plan = Plan::say(Vec::new());
        for _ in 0..=dice.below(6) {
            match dice.weighted(&[30, 40, 10, 6, 8, 6]) {
                0 => self.add_parse(&mut plan, dice, rules),
                1 => self.add_bind(&mut plan, dice, rules),
                // A server that hasn't got the statement yet can't get it while its transaction has failed, and in one that goes on
                // it takes the snapshot for it.
                2 if self.status == b'I' && !plan.opens => plan.add(Said::DescribeStatement(name(dice))),
                2 => {}
                3 => {
                    let statement = self.kept_statement(dice, rules);
                    Self::add_one_shot(&mut plan, dice, statement);
                }
                4 => {
                    let name = name(dice);
                    self.statements.remove(&name);
                    plan.add(Said::CloseStatement(name));
                }
                _ => plan.add(dice.pick(&[
                    || Said::Execute("p1".to_owned(), 1),
                    || Said::ClosePortal("p1".to_owned()),
                    || Said::DescribePortal("p1".to_owned()),
                    || Said::Sync,
                ])()),
            }
            if dice.percent(10) {
                plan.add(Said::Sync);
            }
        }
        if dice.percent(12) {
            plan.add(Said::Flush);
            plan.opens = true;
        } else {
            plan.add(Said::Sync);
        }
        plan
    }

    fn add_parse(&mut self, plan: &mut Plan, dice: &mut Dice, rules: Rules) {
        let name = name(dice);
        if dice.percent(30) {
            // Most often there is one of that name.
            self.statements.remove(&name);
            plan.add(Said::CloseStatement(name.clone()));
        }
        let (sql, types) = if dice.percent(25) {
            let statement = self.kept_statement(dice, rules);
            let opens = std::mem::take(&mut plan.opens);
            plan.count(&statement);
            if plan.opens {
                // Whenever it is executed.
                plan.hold = plan.hold.max(Hold::Discard);
            }
            plan.opens |= opens;
            (statement.sql, &[][..])
        } else {
            let (sql, types, hold) = dice.pick(PREPARED);
            plan.hold = plan.hold.max(hold);
            (sql.replace("OWN", &format!("own_{}", self.index)), types)
        };
        self.statements.entry(name.clone()).or_insert(types.len());
        let declared = if dice.percent(30) {
            types.to_vec()
        } else {
            Vec::new()
        };
        plan.add(Said::Parse(name, sql, declared));
    }

    fn add_bind(&self, plan: &mut Plan, dice: &mut Dice, rules: Rules) {
        let name = name(dice);
        let count = self.statements.get(&name).copied().unwrap_or_default();
        // To set something to NULL is to reset it.
        let last = if self.may_reset(rules) { None } else { Some("0") };
        let value = |_| {
            dice.pick(&[Some("7"), Some("1"), Some("12"), last])
                .map(str::to_owned)
        };
        let values = (0..count).map(value).collect();
        let portal = dice.pick(&["", "", "", "p1"]).to_owned();
        plan.add(Said::Bind(portal.clone(), name, values, dice.percent(25)));
        if dice.percent(40) {
            plan.add(Said::DescribePortal(portal.clone()));
        }
        plan.add(Said::Execute(portal, dice.pick(&[0, 0, 1, 2])));
    }

    /// Data that comes in, good or bad, asked for or not.
    fn copy(&self, dice: &mut Dice) -> Plan {
        let (sql, rows) = dice.pick(COPIES);
        let sql = sql.replace("OWN", &format!("own_{}", self.index));
        let mut data: Vec<_> = rows.iter().map(|row| Said::CopyData((*row).to_owned())).collect();
        data.push(if dice.percent(80) {
            Said::CopyDone
        } else {
            Said::CopyFail("no more".to_owned())
        });
        let mut plan = Plan::say(Vec::new());
        plan.hold = Hold::Discard;
        let extended = dice.percent(30);
        if extended {
            plan.add(Said::Parse(String::new(), sql, Vec::new()));
            plan.add(Said::Bind(String::new(), String::new(), Vec::new(), false));
            plan.add(Said::Execute(String::new(), 0));
            // Nobody may execute it once more without data.
            data.extend([Said::Sync, Said::CloseStatement(String::new()), Said::Sync]);
        } else {
            plan.add(Said::Query(sql));
        }
        let Step::Say {
            said, data: later, ..
        } = &mut plan.step
        else {
            unreachable!()
        };
        if dice.percent(50) || extended {
            said.append(&mut data);
        } else {
            *later = data;
        }
        plan
    }

    fn leave(dice: &mut Dice) -> Plan {
        let harmless = || {
            vec![
                Said::Parse(
                    "s1".to_owned(),
                    "select current_setting('work_mem')".to_owned(),
                    Vec::new(),
                ),
                Said::Bind(String::new(), "s1".to_owned(), Vec::new(), false),
                Said::Execute(String::new(), 0),
            ]
        };
        let (said, goodbye) = match dice.below(8) {
            0 => (vec![Said::Query("set work_mem = '6MB'".to_owned())], true),
            1 => (
                vec![Said::Query("select pg_try_advisory_lock(2)".to_owned())],
                true,
            ),
            2 => (
                vec![Said::Query("begin; set timezone = 'Asia/Tokyo'".to_owned())],
                true,
            ),
            3 => (harmless(), dice.percent(50)),
            4 => ([harmless(), vec![Said::Flush]].concat(), false),
            // The beginning of a Query.
            5 => (vec![Said::Scrap(b"Q\0\0\0\x20sel".to_vec())], false),
            _ => (Vec::new(), dice.percent(60)),
        };
        let login = Login::any(dice);
        let step = Step::Leave { said, goodbye, login };
        Plan {
            step,
            ..Plan::say(Vec::new())
        }
    }
}

/// Statements to be prepared by protocol, the types of their parameters, and what executing them holds.
const PREPARED: &[(&str, &[u32], Hold)] = &[
    ("select 1 as one", &[], Hold::None),
    ("select $1::int + 1 as n", &[23], Hold::None),
    ("select 'text ' || $1 as t, $2::int", &[25, 23], Hold::None),
    ("select place, n from t4", &[], Hold::None),
    ("select v from OWN order by id", &[], Hold::None),
    ("select word from fixed where id = $1", &[23], Hold::None),
    ("select word from fixed where id < 5", &[], Hold::None),
    ("show timezone", &[], Hold::None),
    (
        "select current_setting('app.tenant'), current_setting('timezone')",
        &[],
        Hold::None,
    ),
    // Nobody sees a NULL in what is bound, and it would be a RESET.
    (
        "select set_config('app.tenant', coalesce($1, 'none'), false)",
        &[25],
        Hold::None,
    ),
    (
        "select hide_set('app.person', coalesce($1, 'none'), false)",
        &[25],
        Hold::Discard,
    ),
    ("set work_mem = '8MB'", &[], Hold::None),
    ("set local timezone = 'Asia/Tokyo'", &[], Hold::None),
    ("update OWN set v = $1 where id = 1", &[25], Hold::None),
    (
        "insert into log (who) values ($1) returning id",
        &[25],
        Hold::Discard,
    ),
    ("select place from t3", &[], Hold::Discard),
    ("select pg_try_advisory_lock($1)", &[20], Hold::Discard),
    (
        "insert into tripwire values ('set', coalesce($1, 'none'))",
        &[25],
        Hold::Discard,
    ),
    (
        "create temp table if not exists t3 (place text)",
        &[],
        Hold::Discard,
    ),
    ("listen mail", &[], Hold::Discard),
    ("selec", &[], Hold::Discard),
    ("", &[], Hold::None),
];

const COPIES: &[(&str, &[&str])] = &[
    ("copy tripwire from stdin", &["set\tby copy\n"]),
    ("copy tripwire from stdin", &["lock\tx\nta", "ke\tx\n"]),
    (
        "copy tripwire (kind, value) from stdin with (format csv)",
        &["zone,x\n", "temp,x\n"],
    ),
    ("copy log (who) from stdin", &["one\n", "two\n"]),
    ("copy OWN from stdin", &["50\tfifty\n"]),
    ("copy OWN from stdin", &["not a number\tx\n"]),
    ("copy t3 from stdin", &["x\t1\n"]),
    ("copy nowhere from stdin", &["x\n"]),
];

fn name(dice: &mut Dice) -> String {
    dice.pick(&["s1", "s1", "s2", "a longer name", ""]).to_owned()
}

impl Plan {
    pub(super) const fn say(said: Vec<Said>) -> Self {
        Self {
            step: Step::Say {
                said,
                data: Vec::new(),
                opaque: false,
            },
            hold: Hold::None,
            seeds: false,
            draws: false,
            discards: false,
            cleans: false,
            opens: false,
        }
    }

    /// Whether it may make its client hold a server connection beyond its answer.
    fn holds(&self) -> bool {
        self.hold != Hold::None || self.opens
    }

    fn add(&mut self, message: Said) {
        if let Step::Say { said, .. } = &mut self.step {
            said.push(message);
        }
    }

    /// Takes the effects of a statement into account.
    fn count(&mut self, statement: &Statement) {
        self.hold = self.hold.max(statement.hold);
        self.discards |= statement.sql.contains("discard");
        let begins = |word: &str| {
            statement
                .sql
                .get(..5)
                .is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        self.opens |= begins("begin") || begins("start");
        if let Step::Say { opaque, .. } = &mut self.step {
            *opaque |= statement.opaque;
        }
    }
}
