//! What statements take and return, asked of the server wherever they are prepared.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::Sides;
use super::desk::Desk;
use crate::session::ledger::Whose;
use crate::session::shape::Shape;
use crate::session::statements::{CHANGED_NAME, Statement};
use crate::wire::frame::Frame;
use crate::wire::reply;
use crate::wire::request;

/// What was asked, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    /// Of each Describe of Postern's that isn't answered.
    asked: VecDeque<Asked>,
    /// What the first of them takes, until it is told what it returns.
    parameters: Vec<u8>,
    /// A request of the client's waits for the answer to the last.
    is_awaited: bool,
    /// The statement that this request is about returns something else by now.
    changed: Option<u64>,
    /// Such a request was sent for the server to refuse.
    refuses: bool,
    /// Statements that the client has adopted and uses, with the ReadyForQuery of this lease by which it is known whether it can.
    tried: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Asked {
    statement: Rc<Statement>,
    /// The client's name, if it has just prepared it.
    name: Option<Box<[u8]>>,
}

/// Whether the server connection has a statement as the client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alike {
    Yes,
    /// The server was asked.
    Unknown,
    No,
}

impl Shapes {
    /// Whether a request of the client's waits for an answer.
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Whether answers are to be looked at.
    #[inline]
    pub(super) fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }
}

impl Desk {
    /// Asks what `statement` takes and returns, right behind its Parse. `name`: the client has just prepared it by this name.
    pub(super) fn ask_shape(
        &mut self,
        statement: &Rc<Statement>,
        name: Option<&[u8]>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) {
        if !may_ask(sides) {
            if statement.shape().is_some() {
                sides.server.prepared.spoil(statement, None);
            }
            return;
        }
        request::describe_statement(&statement.server_name, out);
        self.ledger.sent(b'D', Whose::Own);
        self.shapes.asked.push_back(Asked {
            statement: statement.clone(),
            name: name.map(Into::into),
        });
    }

    /// Sees to it that the server connection has `statement`, as the client knows it. If it isn't known whether it has, nothing of
    /// the client's may be sent until it has told.
    #[inline]
    pub(super) fn ensure_alike(
        &mut self,
        statement: &Rc<Statement>,
        sides: &mut Sides<'_>,
        out: &mut Vec<u8>,
    ) -> Alike {
        if !sides.client.adopted.is_empty() && sides.client.adopted.contains(&statement.id) {
            let known_at = self.ledger.answered + self.ledger.readies() + 1;
            self.shapes.tried.push((known_at, statement.id));
        }
        if self.shapes.changed.take() == Some(statement.id) {
            self.shapes.refuses = true;
            return Alike::No;
        }
        if self.ensure(statement, sides, out)
            && statement.is_analysed
            && statement.shape().is_some()
            && may_ask(sides)
        {
            request::flush(out);
            self.ledger.sent(b'H', Whose::Own);
            self.shapes.is_awaited = true;
            return Alike::Unknown;
        }
        Alike::Yes
    }

    /// Takes an answer of the server's to what Postern has asked: ParameterDescription, and RowDescription or NoData.
    pub(super) fn takes_shape(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>) {
        if frame.tag == b't' {
            self.shapes.parameters = frame.body.to_vec();
            return;
        }
        let Some(Asked { statement, name }) = self.shapes.asked.pop_front() else {
            return;
        };
        let was_awaited = self.shapes.is_awaited;
        self.shapes.is_awaited &= self.shapes.is_asked();
        let shape = Shape::new(
            &std::mem::take(&mut self.shapes.parameters),
            (frame.tag == b'T').then_some(frame.body),
        );
        if *statement.shape.get_or_init(|| shape.clone()) == shape || !statement.is_analysed {
            return;
        }
        sides.texts.forget_statements();
        sides.server.prepared.is_other(&statement);
        if was_awaited && !self.shapes.is_awaited {
            self.shapes.changed = Some(statement.id);
        }
        // Whoever prepares it now is told what it returns now.
        if let Some(name) = name
            && sides
                .client
                .statements
                .get(&name)
                .is_some_and(|known| known.id == statement.id)
        {
            self.renew(name, &statement, shape.into(), sides);
        }
    }

    /// Gives the client another statement by this `name`, for the same text, that takes and returns what it is told to from now on.
    fn renew(
        &mut self,
        name: Box<[u8]>,
        statement: &Statement,
        shape: OnceCell<Shape>,
        sides: &mut Sides<'_>,
    ) {
        let own = sides.texts.apart(statement, Some(shape), None);
        self.was(&name, statement);
        sides.client.statements.insert(name, own);
    }

    /// It is known what became of what was tried before the ReadyForQuery `by`. Whoever has adopted a statement and couldn't use it,
    /// since it returns something else by now, was never told what it returned: next time it has another. What was used otherwise, or
    /// together with others, it may have been told of.
    fn tried(&mut self, by: u64, is_refused: bool, sides: &mut Sides<'_>) {
        let done = |(known_at, _): &mut (u64, u64)| *known_at <= by;
        let mut done: Vec<u64> = self.shapes.tried.extract_if(.., done).map(|(_, id)| id).collect();
        done.dedup();
        let is_new = |id: &u64| sides.client.adopted.contains(id);
        let refused = match done.as_slice() {
            [id] if is_refused && is_new(id) => sides.client.statements.named(*id),
            _ => None,
        };
        sides.client.adopted.retain(|id| !done.contains(id));
        if let Some((name, statement)) = refused {
            self.renew(name, &statement, OnceCell::new(), sides);
        }
    }

    /// Forgets what won't be answered, after an error. Whether these statements are as they are known to be nobody knows.
    pub(super) fn forget_unanswered(&mut self, sides: &mut Sides<'_>) {
        if self.shapes.is_asked() {
            let answered = self.ledger.own_describes();
            while self.shapes.asked.len() > answered
                && let Some(void) = self.shapes.asked.pop_front()
            {
                sides.server.prepared.is_other(&void.statement);
            }
            self.shapes.is_awaited &= self.shapes.is_asked();
        }
    }

    /// The error with which a server of the client's own would have refused a request, for that with which this one has. If it is
    /// the server's own, more statements may be outdated than the one that it is about.
    pub(super) fn refused(&mut self, frame: Frame<'_>, sides: &mut Sides<'_>) -> Option<Vec<u8>> {
        let has = |text: &[u8]| frame.body.windows(text.len()).any(|window| window == text);
        let is_outdated = has(reply::RESULT_TYPE_CHANGED.as_bytes());
        if is_outdated {
            sides.texts.forget_statements();
        }
        let is_ours = self.shapes.refuses && has(CHANGED_NAME.as_bytes());
        self.tried(self.ledger.answered + 1, is_outdated || is_ours, sides);
        is_ours.then(|| {
            self.shapes.refuses = false;
            reply::result_type_changed(frame.body)
        })
    }

    /// Whatever was to be refused was, or was skipped.
    pub(super) fn refuses_nothing(&mut self, sides: &mut Sides<'_>) {
        self.shapes.refuses = false;
        if !self.shapes.tried.is_empty() {
            self.tried(self.ledger.answered, false, sides);
        }
    }
}

/// Whether the server may be asked: the names of columns come in the client's encoding, and not all can be written in all.
fn may_ask(sides: &Sides<'_>) -> bool {
    let reading = sides.server.parameters.reading();
    reading.is_some_and(|reading| reading.is_utf8) && !sides.client.run.decides_reading()
}
