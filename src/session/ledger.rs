//! What was asked of a server and not yet answered.
//!
//! A ReadyForQuery is owed for every Query, Sync and FunctionCall; a Sync that arrives in the middle of a COPY FROM
//! STDIN is ignored by the server (PostgreSQL documentation, "COPY Operations") and so owes none. A *fine* ledger also
//! knows the answers within an extended query, and whose they are: the client's, ours, or made up by us because the
//! request never went to the server. Where the order of things can't be known, the ledger says that it is lost.

use std::collections::VecDeque;

/// Runs of unanswered requests that are kept account of; a pipeline of one kind is a single run.
const MAX_OWED: usize = 10_000;

/// The same where each message of an extended query counts: some 300,000 queries, in 8 MB.
const MAX_OWED_FINE: usize = 1_000_000;

/// What the last ReadyForQuery said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// `I`: no transaction.
    Idle,
    /// `T`: in a transaction block.
    InTransaction,
    /// `E`: in a transaction block that has failed.
    Failed,
}

/// What a client is at, as PostgreSQL's own timeouts see it (documentation, "Client Connection Defaults").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activity {
    /// Nothing is under way, or no more than the beginning of a message.
    #[default]
    Idle,
    /// The server has something to do, or takes the data of a COPY.
    Query,
    /// A transaction is open, and it is the client's turn.
    Pause,
    /// A pipeline is open. The server has answered what it was asked to, or wasn't asked to yet.
    Pipeline,
}

/// What a client is at, and how far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What it is at.
    pub activity: Activity,
    /// Grows with each query that ends.
    pub queries: u64,
    /// Grows with each transaction that ends.
    pub transactions: u64,
}

/// Who gets an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The client.
    Client,
    /// Nobody: Postern asked for itself.
    Own,
    /// The client, but from Postern: the server was never asked.
    Made,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Parse,
    Bind,
    Describe,
    Execute,
    Close,
    /// Query or FunctionCall.
    Query,
    Sync,
    /// CopyDone or CopyFail: no ReadyForQuery of its own, but it parts the Syncs that count from those that don't.
    CopyEnd,
}

impl Request {
    /// Whether its answer ends in a ReadyForQuery.
    fn is_ready(self) -> bool {
        matches!(self, Self::Query | Self::Sync)
    }
}

/// One thing that was sent and whose answer isn't complete, with how often it stands there in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owed {
    what: Request,
    whose: Whose,
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copying {
    No,
    /// The server takes CopyData.
    In,
    /// The same, and at least one Sync was void in it.
    InPastSync,
}

/// The account of one lease.
#[derive(Debug)]
pub(super) struct Ledger {
    owed: VecDeque<Owed>,
    is_fine: bool,
    /// Answers that the client doesn't get as they come: runs that aren't [`Whose::Client`]'s.
    edits: usize,
    /// ReadyForQuery messages that are owed.
    readies: u64,
    pub(super) unsynced: bool,
    /// The client has asked for what there is by now of the answers that no Sync asks for.
    flushed: bool,
    pub(super) copy: Copying,
    /// A COPY into which void Syncs fell has been ended by the client and not yet by the server. If it fails after all,
    /// nobody knows which of those Syncs the server will answer.
    doubtful: bool,
    /// A Query was sent after extended-protocol messages without a Sync between them. If one of those fails, the server
    /// skips the Query, and there is no answer to it.
    skippable: bool,
    /// An extended query without its Sync has failed: the server skips whatever comes before one.
    skipping: bool,
    pub(super) lost: bool,
    pub(super) status: TransactionStatus,
    pub(super) answered: u64,
    /// ReadyForQuery messages outside of a transaction.
    pub(super) transactions: u64,
    /// Executes that have ended, in a fine ledger.
    executed: u64,
    pub(super) last_was_error: bool,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            owed: VecDeque::new(),
            is_fine: false,
            edits: 0,
            readies: 0,
            unsynced: false,
            flushed: false,
            copy: Copying::No,
            doubtful: false,
            skippable: false,
            skipping: false,
            lost: false,
            status: TransactionStatus::Idle,
            answered: 0,
            transactions: 0,
            executed: 0,
            last_was_error: false,
        }
    }
}

impl Ledger {
    /// A ledger that knows the answers within an extended query.
    pub(super) fn fine() -> Self {
        Self {
            is_fine: true,
            ..Self::default()
        }
    }

    /// Whether nothing is owed.
    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether the server has told all that there is to tell: what was set is reported ahead of a ReadyForQuery.
    pub(super) fn is_told(&self) -> bool {
        self.owed.is_empty() && !self.unsynced
    }

    /// Whether the next request begins a transaction.
    pub(super) fn begins_transaction(&self) -> bool {
        self.is_told() && self.status == TransactionStatus::Idle
    }

    /// Whether a ReadyForQuery is owed.
    pub(super) fn owes_ready(&self) -> bool {
        self.readies > 0
    }

    /// How many ReadyForQuery messages are owed.
    pub(super) fn readies(&self) -> u64 {
        self.readies
    }

    /// What the client is at. `partial`: the type of a message whose beginning alone has come.
    pub(super) fn standing(&self, partial: Option<u8>) -> Standing {
        Standing {
            activity: if self.is_working(partial) {
                Activity::Query
            } else if self.unsynced {
                Activity::Pipeline
            } else if self.status == TransactionStatus::Idle {
                Activity::Idle
            } else {
                Activity::Pause
            },
            queries: self.answered + self.executed,
            transactions: self.transactions,
        }
    }

    fn is_working(&self, partial: Option<u8>) -> bool {
        // That message is owed already, and the server can't begin with it.
        let is_partial = |owed: &Owed| {
            owed.times == 1 && matches!(partial, Some(b'Q' | b'F')) && owed.what == Request::Query
        };
        let is_owed = match self.owed.len() {
            0 => false,
            1 => !self.owed.back().is_some_and(is_partial),
            _ => true,
        };
        self.copy != Copying::No || is_owed && (self.readies > 0 || self.flushed)
    }

    /// Whether more is owed than can be kept account of; then it is lost.
    pub(super) fn overflows(&mut self) -> bool {
        let most = if self.is_fine { MAX_OWED_FINE } else { MAX_OWED };
        let overflows = self.owed.len() > most;
        if overflows {
            self.lost = true;
            self.owed = VecDeque::new();
            (self.edits, self.readies) = (0, 0);
        }
        overflows
    }

    /// Whether some answer isn't to be passed on as it comes.
    #[inline]
    pub(super) fn has_edits(&self) -> bool {
        self.edits > 0
    }

    /// Notes a message of type `tag` that is `whose`.
    #[inline]
    pub(super) fn sent(&mut self, tag: u8, whose: Whose) {
        match tag {
            b'S' if self.copy == Copying::No => {
                self.unsynced = false;
                self.skipping = false;
                self.push(Request::Sync, whose);
            }
            // COPY doesn't go on after an error, and so nothing of it can be under way here.
            _ if self.skipping => {}
            b'Q' | b'F' => {
                // It ends what a pipeline has begun, unless that has failed.
                self.skippable |= std::mem::take(&mut self.unsynced);
                self.push(Request::Query, whose);
            }
            b'S' => self.copy = Copying::InPastSync,
            b'P' => self.extended(Request::Parse, whose),
            b'B' => self.extended(Request::Bind, whose),
            b'D' => self.extended(Request::Describe, whose),
            b'E' => self.extended(Request::Execute, whose),
            b'C' => self.extended(Request::Close, whose),
            // On its own it begins nothing.
            b'H' => self.flushed |= self.unsynced,
            b'c' | b'f' => {
                self.doubtful |= self.copy == Copying::InPastSync;
                self.copy = Copying::No;
                if !self.owed.is_empty() || self.unsynced {
                    self.push(Request::CopyEnd, whose);
                }
            }
            _ => {}
        }
    }

    /// Notes a message from the server, and tells whom it is for.
    #[inline]
    pub(super) fn received(&mut self, tag: u8, body: &[u8]) -> Whose {
        self.last_was_error = tag == b'E';
        let whose = self.owed.front().map_or(Whose::Client, |first| first.whose);
        match tag {
            b'D' | b'd' => {}
            b'Z' => return self.ready(body),
            b'E' => self.failed(),
            b'G' => self.copy_begins(),
            // CopyBothResponse belongs to replication, which is never let through.
            b'W' => self.lost = true,
            b'C' => {
                self.doubtful = false;
                self.done(Request::Execute);
            }
            b'I' | b's' => self.done(Request::Execute),
            b'1' => self.done(Request::Parse),
            b'2' => self.done(Request::Bind),
            b'3' => self.done(Request::Close),
            b'T' | b'n' => self.done(Request::Describe),
            _ => {}
        }
        whose
    }

    /// The next answer, if it is one to be made.
    #[inline]
    pub(super) fn take_made(&mut self) -> Option<Request> {
        let first = self.owed.front().filter(|first| first.whose == Whose::Made)?;
        let what = first.what;
        self.pop();
        Some(what)
    }

    /// What is answered next.
    pub(super) fn front(&self) -> Option<Request> {
        self.owed.front().map(|first| first.what)
    }

    /// How many answers are owed to Postern's own Describes.
    pub(super) fn own_describes(&self) -> usize {
        let own = self.owed.iter();
        let own = own.filter(|owed| owed.what == Request::Describe && owed.whose == Whose::Own);
        own.map(|owed| owed.times as usize).sum()
    }

    /// Whether nothing of the client's is owed before the next ReadyForQuery.
    pub(super) fn is_apart(&self) -> bool {
        let end = self.owed.iter().position(|owed| owed.what.is_ready());
        let these = self.owed.iter().take(end.map_or(0, |end| end + 1));
        end.is_some() && these.into_iter().all(|owed| owed.whose == Whose::Own)
    }

    /// Whether an Execute may still begin a COPY FROM STDIN.
    pub(super) fn may_begin_copy(&self) -> bool {
        self.copy == Copying::No && self.owed.iter().any(|owed| owed.what == Request::Execute)
    }

    /// Whether the server skips what is sent now, up to a Sync.
    #[inline]
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// How many Parse and Close messages an error that comes now makes void: the server skips all up to the next Sync. To be
    /// asked before the error is noted.
    pub(super) fn void(&self) -> usize {
        if self.front() == Some(Request::Query) {
            return 0;
        }
        let skipped = self.owed.iter().take_while(|owed| owed.what != Request::Sync);
        let these = skipped.filter(|owed| matches!(owed.what, Request::Parse | Request::Close));
        these.map(|owed| owed.times as usize).sum()
    }

    fn extended(&mut self, what: Request, whose: Whose) {
        (self.unsynced, self.flushed) = (true, false);
        if self.is_fine {
            self.push(what, whose);
        }
    }

    #[inline]
    fn push(&mut self, what: Request, whose: Whose) {
        self.readies += u64::from(what.is_ready());
        match self.owed.back_mut() {
            Some(last) if last.what == what && last.whose == whose && last.times < u32::MAX => {
                last.times += 1
            }
            _ => {
                self.edits += usize::from(whose != Whose::Client);
                self.owed.push_back(Owed {
                    what,
                    whose,
                    times: 1,
                });
            }
        }
    }

    /// The first of what is owed is no longer.
    #[inline]
    fn pop(&mut self) {
        if self.owed.front().is_some_and(|first| first.what.is_ready()) {
            self.readies -= 1;
        }
        match self.owed.front_mut() {
            Some(first) if first.times > 1 => first.times -= 1,
            Some(first) => {
                self.edits -= usize::from(first.whose != Whose::Client);
                self.owed.pop_front();
            }
            None => {}
        }
        self.drop_copy_ends();
    }

    /// An answer within an extended query is complete. During a Query the same messages mean less.
    #[inline]
    fn done(&mut self, what: Request) {
        if self.is_fine && self.owed.front().is_some_and(|first| first.what == what) {
            self.executed += u64::from(what == Request::Execute);
            self.pop();
        }
    }

    #[inline]
    fn ready(&mut self, body: &[u8]) -> Whose {
        self.answered += 1;
        self.status = match body {
            [b'T'] => TransactionStatus::InTransaction,
            [b'E'] => TransactionStatus::Failed,
            _ => TransactionStatus::Idle,
        };
        self.transactions += u64::from(self.status == TransactionStatus::Idle);
        self.lost |= !matches!(body, [b'I' | b'T' | b'E']);
        if self.copy != Copying::No {
            // A ReadyForQuery can't come while the server waits for CopyData.
            self.lost = true;
        }
        self.drop_copy_ends();
        let whose = match self.owed.front() {
            Some(first) if first.what.is_ready() => first.whose,
            _ => {
                self.lost = true;
                Whose::Client
            }
        };
        self.pop();
        self.skippable &= !self.owed.is_empty();
        whose
    }

    fn drop_copy_ends(&mut self) {
        while self
            .owed
            .front()
            .is_some_and(|first| first.what == Request::CopyEnd)
        {
            self.owed.pop_front();
        }
    }

    /// CopyInResponse: the server reads until CopyDone or CopyFail, and every Sync before that is void.
    fn copy_begins(&mut self) {
        let first_end = self.owed.iter().position(|owed| owed.what == Request::CopyEnd);
        let before_end = first_end.unwrap_or(self.owed.len());
        let (mut place, mut had_sync) = (0, false);
        let Self {
            owed,
            edits,
            readies,
            lost,
            ..
        } = self;
        owed.retain(|owed| {
            place += 1;
            let stays = place > before_end || owed.what != Request::Sync;
            if !stays {
                had_sync = true;
                *readies -= u64::from(owed.times);
                // What Postern asked for itself the server has taken for a part of the COPY, or has refused.
                *edits -= usize::from(owed.whose != Whose::Client);
                *lost |= owed.whose == Whose::Own;
            }
            stays
        });
        self.unsynced |= had_sync;
        match (first_end, had_sync) {
            (None, false) => self.copy = Copying::In,
            (None, true) => self.copy = Copying::InPastSync,
            (Some(_), false) => {}
            // Void Syncs and an end that was sent already: if the COPY fails in between, nobody knows which count.
            (Some(_), true) => self.lost = true,
        }
    }

    fn failed(&mut self) {
        // A Query that fails makes the server skip nothing.
        let fails_alone = self.is_fine && self.front() == Some(Request::Query);
        self.lost |= self.doubtful | (self.skippable && !self.is_fine);
        match self.copy {
            Copying::No => {}
            Copying::In => self.copy = Copying::No,
            Copying::InPastSync => self.lost = true,
        }
        if self.is_fine && !fails_alone {
            while let Some(first) = self.owed.front()
                && first.what != Request::Sync
            {
                self.edits -= usize::from(first.whose != Whose::Client);
                self.readies -= u64::from(first.what.is_ready()) * u64::from(first.times);
                // It has no answer, and others count on that.
                self.lost |= first.what == Request::Query;
                self.owed.pop_front();
            }
        }
        self.skipping |= self.unsynced && self.owed.is_empty();
    }
}
