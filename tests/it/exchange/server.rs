//! As much of a server as statements, portals, transactions and one setting need: what PostgreSQL 15 answers.

use std::collections::BTreeMap;

use crate::raw::frame;

const FAILED: (&str, &str) = (
    "25P02",
    "current transaction is aborted, commands ignored until end of transaction block",
);

/// One session of it.
pub(super) struct Server {
    input: Vec<u8>,
    statements: BTreeMap<String, String>,
    portals: BTreeMap<String, (String, Vec<String>)>,
    /// The time zone: now, if the transaction is rolled back, after a RESET, and as last reported.
    pub(super) zone: String,
    committed: String,
    saved: String,
    reset: String,
    reported: String,
    status: u8,
    /// Up to the next Sync.
    skips: bool,
    /// Something was executed since the last Sync.
    in_pipeline: bool,
}

type Outcome = Result<Vec<u8>, (&'static str, String)>;

impl Server {
    /// One that has begun with the time zone `reset`, and has `zone` now.
    pub(super) fn new(reset: &str, zone: &str) -> Self {
        Self {
            input: Vec::new(),
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            zone: zone.to_owned(),
            committed: zone.to_owned(),
            saved: String::new(),
            reset: reset.to_owned(),
            reported: zone.to_owned(),
            status: b'I',
            skips: false,
            in_pipeline: false,
        }
    }

    /// Another client has used it, and `zone` was handed over.
    pub(super) fn used_by_another(&mut self, zone: &str) {
        self.statements
            .insert(String::new(), "select 'of another'".to_owned());
        for known in [&mut self.zone, &mut self.committed, &mut self.reported] {
            *known = zone.to_owned();
        }
    }

    /// What it answers to `bytes`.
    pub(super) fn hears(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        let mut answers = Vec::new();
        while let Some(header) = self.input.first_chunk::<5>() {
            let [tag, length @ ..] = *header;
            let end = 1 + u32::from_be_bytes(length) as usize;
            if self.input.len() < end {
                break;
            }
            let body: Vec<u8> = self.input.drain(..end).skip(5).collect();
            answers.extend(self.message(tag, &body));
        }
        answers
    }

    fn message(&mut self, tag: u8, body: &[u8]) -> Vec<u8> {
        let text = |from: usize| {
            let rest = body.get(from..).unwrap_or_default();
            let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
            String::from_utf8_lossy(&rest[..end]).into_owned()
        };
        if tag == b'S' {
            self.skips = false;
            return self.ready();
        }
        if self.skips || matches!(tag, b'H' | b'c' | b'd') {
            return Vec::new();
        }
        let first = text(0);
        let outcome = match tag {
            b'Q' => {
                self.statements.remove("");
                self.portals.remove("");
                let parsed = self.may_run(&first);
                let outcome = parsed.and_then(|()| self.execute(&first, &[]));
                self.in_pipeline = false;
                return [self.end_of(outcome, false), self.ready()].concat();
            }
            b'P' => self.parse(first.clone(), text(first.len() + 1)),
            b'B' => {
                let values = values(&body[first.len() + text(first.len() + 1).len() + 2..]);
                self.bind(first.clone(), &text(first.len() + 1), values)
            }
            b'E' => match self.portals.get(&first).cloned() {
                Some((text, values)) => self.may_run(&text).and_then(|()| {
                    let outcome = self.execute(&text, &values);
                    self.in_pipeline = true;
                    outcome
                }),
                None if self.status == b'E' => Err((FAILED.0, FAILED.1.to_owned())),
                None => Err(("34000", format!("portal \"{first}\" does not exist"))),
            },
            b'D' => self
                .statement(&text(1))
                .map(|_| [frame('t', b"\0\0"), frame('n', b"")].concat()),
            _ => {
                let known = if first.starts_with('S') {
                    self.statements.remove(&text(1)).is_some()
                } else {
                    self.portals.remove(&text(1)).is_some()
                };
                let _ = known;
                Ok(frame('3', b""))
            }
        };
        self.end_of(outcome, true)
    }

    fn end_of(&mut self, outcome: Outcome, is_extended: bool) -> Vec<u8> {
        let (state, message) = match outcome {
            Ok(answers) => return answers,
            Err(error) => error,
        };
        self.skips = is_extended;
        self.portals.clear();
        if self.status == b'I' {
            self.zone = self.committed.clone();
        } else {
            self.status = b'E';
        }
        frame(
            'E',
            format!("SERROR\0VERROR\0C{state}\0M{message}\0\0").as_bytes(),
        )
    }

    fn ready(&mut self) -> Vec<u8> {
        self.in_pipeline = false;
        if self.status == b'I' {
            self.committed = self.zone.clone();
            self.portals.clear();
        }
        let mut answers = Vec::new();
        if self.zone != self.reported {
            answers = frame('S', format!("TimeZone\0{}\0", self.zone).as_bytes());
            self.reported = self.zone.clone();
        }
        [answers, frame('Z', &[self.status])].concat()
    }

    fn statement(&self, name: &str) -> Result<String, (&'static str, String)> {
        let known = self.statements.get(name).cloned();
        known.ok_or_else(|| {
            let message = match name {
                "" => "unnamed prepared statement does not exist".to_owned(),
                name => format!("prepared statement \"{name}\" does not exist"),
            };
            ("26000", message)
        })
    }

    /// Whether the transaction lets `text` be parsed or run, and it is SQL at all.
    fn may_run(&self, text: &str) -> Result<(), (&'static str, String)> {
        if text == "selec" {
            return Err(("42601", "syntax error".to_owned()));
        }
        if self.status == b'E' && !matches!(text, "rollback" | "commit") {
            return Err((FAILED.0, FAILED.1.to_owned()));
        }
        Ok(())
    }

    fn parse(&mut self, name: String, text: String) -> Outcome {
        if name.is_empty() {
            self.statements.remove("");
        }
        self.may_run(&text)?;
        if self.statements.contains_key(&name) {
            return Err(("42P05", format!("prepared statement \"{name}\" already exists")));
        }
        self.statements.insert(name, text);
        Ok(frame('1', b""))
    }

    fn bind(&mut self, portal: String, name: &str, values: Vec<String>) -> Outcome {
        let text = self.statement(name)?;
        self.may_run(&text)?;
        self.portals.insert(portal, (text, values));
        Ok(frame('2', b""))
    }

    fn execute(&mut self, text: &str, values: &[String]) -> Outcome {
        let row = |value: &str, tag: &str| {
            let length = (value.len() as u32).to_be_bytes();
            let body = [&[0, 1][..], &length, value.as_bytes()].concat();
            [frame('D', &body), frame('C', format!("{tag}\0").as_bytes())].concat()
        };
        let tag = match text {
            "show timezone" => return Ok(row(&self.zone, "SHOW")),
            "set timezone = 'Asia/Seoul'" => {
                "Asia/Seoul".clone_into(&mut self.zone);
                "SET"
            }
            "reset timezone" => {
                self.zone = self.reset.clone();
                "RESET"
            }
            "begin" => {
                if self.status == b'I' {
                    self.status = b'T';
                }
                "BEGIN"
            }
            "commit" if self.status == b'T' => {
                self.committed = self.zone.clone();
                (self.status, self.portals) = (b'I', BTreeMap::new());
                "COMMIT"
            }
            "commit" | "rollback" if self.status != b'I' => {
                self.zone = self.committed.clone();
                (self.status, self.portals) = (b'I', BTreeMap::new());
                "ROLLBACK"
            }
            "SAVEPOINT postern" => {
                self.saved = self.zone.clone();
                "SAVEPOINT"
            }
            "ROLLBACK TO postern" => {
                self.zone = self.saved.clone();
                "ROLLBACK"
            }
            "RELEASE postern" => "RELEASE",
            "deallocate all" => {
                self.statements.retain(|name, _| name.is_empty());
                "DEALLOCATE ALL"
            }
            "discard all" if self.status == b'T' || self.in_pipeline => {
                return Err((
                    "25001",
                    "DISCARD ALL cannot run inside a transaction block".to_owned(),
                ));
            }
            "discard all" => {
                self.statements.retain(|name, _| name.is_empty());
                self.zone = self.reset.clone();
                self.committed = self.zone.clone();
                "DISCARD ALL"
            }
            _ => match (text.strip_prefix("deallocate "), values) {
                (Some(name), _) => {
                    self.statement(name)?;
                    self.statements.remove(name);
                    "DEALLOCATE"
                }
                (None, [name, value]) => {
                    if name.eq_ignore_ascii_case("timezone") {
                        self.zone.clone_from(value);
                    }
                    return Ok(row(value, "SELECT 1"));
                }
                (None, _) => return Ok(row(text, "SELECT 1")),
            },
        };
        Ok(frame('C', format!("{tag}\0").as_bytes()))
    }
}

/// The values of a Bind's parameters, which are text; NULL is taken for an empty one.
fn values(body: &[u8]) -> Vec<String> {
    let number = |at: usize| usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
    let mut at = 2 + 2 * number(0);
    let count = number(at);
    at += 2;
    let each = (0..count).map(|_| {
        let length = i32::from_be_bytes(body[at..at + 4].try_into().unwrap()).max(0) as usize;
        at += 4 + length;
        String::from_utf8_lossy(&body[at - length..at]).into_owned()
    });
    each.collect()
}
