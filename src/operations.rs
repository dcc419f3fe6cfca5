//! What can be asked of a node: one builder per operation.
//!
//! Each ends in one of three ways: `submit` with a closure, `start` for a handle
//! ([`Pending`]) that can be waited on and is a future, `wait` for both at once.
//!
//! **The callback contract.** `Ok` from `submit` means that the closure runs exactly once: with a
//! success, a failure, a timeout or the shutdown. `Err` means that it never runs. It runs with
//! nothing borrowed or locked, on the node's thread for closures (or where
//! [`callbacks`](crate::NodeBuilder::callbacks) says), so calling the node from it is fine, and a
//! slow one holds up other closures only. A panic in it is caught and logged.

use std::{future::IntoFuture, ops::Deref, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    config::Read,
    core::{Departure, Found, KeyPage, Outcome, Progress, ReadRequest, Request, Stats},
    driver::{Reply, Ticket, wall_ms},
    error::{MemberError, ReadError, SubmitError, WriteError},
    model::{Context, Key, Record, Siblings},
    node::Node,
    pending::{Pending, completion},
    writer::Staged,
};

/// What a read found: the versions of a key that exist side by side, tombstones included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    siblings: Siblings,
    wall_ms: u64,
}

impl Reading {
    pub(crate) fn new(siblings: Siblings, wall_ms: u64) -> Self {
        Self { siblings, wall_ms }
    }

    /// The value: that of the newest sibling, by time of writing. `None`: there is no such key,
    /// or it is deleted or expired; or the value was left out, see [`Get::without_long`].
    pub fn value(&self) -> Option<&Bytes> {
        self.newest().and_then(|record| record.value.as_ref())
    }

    /// The newest sibling that has a value.
    pub fn newest(&self) -> Option<&Record> {
        self.values().next()
    }

    /// All siblings that have a value, newest first. More than one: they were written
    /// concurrently, and the next write with this reading's context settles them.
    pub fn values(&self) -> impl Iterator<Item = &Record> {
        self.siblings.live(self.wall_ms)
    }
}

/// The versions themselves, and the context to hand back with a write.
impl Deref for Reading {
    type Target = Siblings;

    fn deref(&self) -> &Siblings {
        &self.siblings
    }
}

/// Milliseconds, as many as fit.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What an operation comes to on the caller's thread.
pub(crate) enum Prepared<P: Prepare> {
    /// It is answered already.
    Answered(Result<P::Ok, P::Error>),
    /// The loop has to be asked; `u64` bytes of values go along.
    Ask(Request, u64),
    /// The loop has to be asked to keep what is staged.
    Commit(Request, Staged),
}

/// An operation, to be ended in one of three ways.
pub(crate) trait Prepare: Sized {
    type Ok: Send + 'static;
    type Error: From<SubmitError> + Send + 'static;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError>;
    fn convert(wall_ms: u64, outcome: Outcome) -> Result<Self::Ok, Self::Error>;
    fn node(&self) -> Node;

    fn progress(&mut self) -> Option<Arc<dyn Fn(Progress) + Send + Sync>> {
        None
    }
}

fn submit<P: Prepare>(
    mut operation: P,
    closure: impl FnOnce(Result<P::Ok, P::Error>) + Send + 'static,
) -> Result<(), SubmitError> {
    let (node, progress) = (operation.node(), operation.progress());
    let (request, bytes, staged) = match operation.prepare()? {
        Prepared::Answered(answer) => return node.run_callback(move || closure(answer)),
        Prepared::Ask(request, bytes) => (request, bytes, None),
        Prepared::Commit(request, staged) => (request, 0, Some(staged)),
    };
    let clock = node.clock();
    let convert = move |outcome| closure(P::convert(wall_ms(&*clock), outcome));
    let reply = Reply::Closure(Box::new(convert));
    let ticket = Ticket { reply, progress, waits: waits(&request), bytes };
    ask(&node, request, staged, ticket)
}

/// Whether its end is what others do, not what the loop has to do.
fn waits(request: &Request) -> bool {
    matches!(request, Request::Wait { .. } | Request::Leave { .. })
}

/// Hands a request to the loop.
fn ask(node: &Node, request: Request, staged: Option<Staged>, ticket: Ticket) -> Result<(), SubmitError> {
    node.mailbox().submit(request, ticket)?;
    staged.into_iter().for_each(Staged::hand_over);
    Ok(())
}

/// What became of an operation on the caller's thread.
enum Begun<T, E> {
    Answered(Result<T, E>),
    UnderWay(Pending<T, E>),
}

fn begin<P: Prepare>(mut operation: P) -> Result<Begun<P::Ok, P::Error>, SubmitError> {
    let (node, progress) = (operation.node(), operation.progress());
    let (request, bytes, staged) = match operation.prepare()? {
        Prepared::Answered(answer) => return Ok(Begun::Answered(answer)),
        Prepared::Ask(request, bytes) => (request, bytes, None),
        Prepared::Commit(request, staged) => (request, 0, Some(staged)),
    };
    let (clock, (completion, pending)) = (node.clock(), completion());
    let convert = move |outcome| completion.complete(P::convert(wall_ms(&*clock), outcome));
    let reply = Reply::Handle(Box::new(convert));
    let ticket = Ticket { reply, progress, waits: waits(&request), bytes };
    ask(&node, request, staged, ticket)?;
    Ok(Begun::UnderWay(pending))
}

pub(crate) fn start<P: Prepare>(operation: P) -> Result<Pending<P::Ok, P::Error>, SubmitError> {
    begin(operation).map(|begun| match begun {
        Begun::Answered(answer) => Pending::ready(answer),
        Begun::UnderWay(pending) => pending,
    })
}

fn wait<P: Prepare>(operation: P) -> Result<P::Ok, P::Error> {
    match begin(operation)? {
        Begun::Answered(answer) => answer,
        Begun::UnderWay(pending) => pending.wait(),
    }
}

macro_rules! operation {
    ($name:ident, $ok:ty, $error:ty) => {
        impl $name {
            /// Begins, and has `closure` run when it is over; see the
            /// [callback contract](crate::operations).
            ///
            /// # Errors
            /// [`SubmitError`]: nothing was begun, and the closure never runs.
            pub fn submit(
                self,
                closure: impl FnOnce(Result<$ok, $error>) + Send + 'static,
            ) -> Result<(), SubmitError> {
                submit(self, closure)
            }

            /// Begins, and gives a handle to wait on or to `.await`.
            ///
            /// # Errors
            /// [`SubmitError`]: nothing was begun.
            pub fn start(self) -> Result<Pending<$ok, $error>, SubmitError> {
                start(self)
            }

            /// Begins, and blocks this thread until it is over. Not for closures that run on the
            /// node's loop.
            ///
            /// # Errors
            /// Those of the operation; the state afterwards stands at each variant.
            pub fn wait(self) -> Result<$ok, $error> {
                wait(self)
            }
        }

        /// `.await` begins the operation and waits for its end, under any executor.
        impl IntoFuture for $name {
            type Output = Result<$ok, $error>;
            type IntoFuture = Pending<$ok, $error>;

            fn into_future(self) -> Self::IntoFuture {
                start(self).unwrap_or_else(|refused| Pending::ready(Err(refused.into())))
            }
        }
    };
}

// Behind the macro, which it uses.
mod members;
mod put;

pub(crate) use members::Change;
pub use members::ChangeMembers;
pub(crate) use put::Payload;
pub use put::Put;

/// A read: [`Node::get`].
#[must_use = "nothing is read before submit, start or wait"]
pub struct Get {
    pub(crate) node: Node,
    pub(crate) key: Result<Key, SubmitError>,
    pub(crate) read: Read,
    pub(crate) timeout: Option<Duration>,
    pub(crate) local_only: bool,
    pub(crate) short: bool,
}

operation!(Get, Reading, ReadError);

impl Get {
    /// Whom to ask. Default: [`Read::One`].
    pub fn read(mut self, read: Read) -> Self {
        self.read = read;
        self
    }

    /// Ask nobody but this node, whether it owns the key or not.
    pub fn local_only(mut self) -> Self {
        self.local_only = true;
        self
    }

    /// Leave long values out, and those that would have to be brought here first: their records come
    /// without. Then [`Node::reader_of`] reads them.
    pub fn without_long(mut self) -> Self {
        self.short = true;
        self
    }

    /// How long it may take. Default:
    /// [`Config::operation_timeout`](crate::Config::operation_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What this node can answer at once, on this thread; else the operation back, to be
    /// submitted. Reads storage, so it may block where storage is slow.
    ///
    /// # Errors
    /// `Err` is no failure: it is this read, still to be done.
    pub fn now(self) -> Result<Result<Reading, ReadError>, Self> {
        let Ok(key) = self.key.clone() else { return Err(self) };
        match self.node.read_here(&key, self.read, self.local_only, self.short) {
            Ok(Some(answer)) => Ok(Ok(answer)),
            _ => Err(self),
        }
    }
}

impl Prepare for Get {
    type Ok = Reading;
    type Error = ReadError;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError> {
        let key = self.key?;
        let distrust = match self.node.read_here(&key, self.read, self.local_only, self.short) {
            Ok(Some(reading)) => return Ok(Prepared::Answered(Ok(reading))),
            Ok(None) => false,
            Err(error @ ReadError::TooLong { .. }) => return Ok(Prepared::Answered(Err(error))),
            Err(error) if self.local_only => return Ok(Prepared::Answered(Err(error))),
            Err(error) => {
                log::error!("reading {key:?} here failed, asking others: {error}");
                true
            }
        };
        let (read, short, timeout_ms) = (self.read, self.short, self.timeout.map(whole_ms));
        Ok(Prepared::Ask(Request::Read(ReadRequest { key, read, timeout_ms, distrust, short }), 0))
    }

    fn convert(wall_ms: u64, outcome: Outcome) -> Result<Reading, ReadError> {
        match outcome {
            Outcome::Read(Ok(Found { siblings, .. })) => Ok(Reading::new(siblings, wall_ms)),
            Outcome::Read(Err(error)) => Err(error),
            _ => Err(ReadError::Stopped),
        }
    }

    fn node(&self) -> Node {
        self.node.clone()
    }
}

/// A wait for a key: [`Node::wait_for`].
#[must_use = "nothing is awaited before submit, start or wait"]
pub struct WaitFor {
    pub(crate) node: Node,
    pub(crate) key: Result<Key, SubmitError>,
    pub(crate) context: Context,
    pub(crate) timeout: Duration,
}

operation!(WaitFor, Option<Reading>, ReadError);

impl WaitFor {
    /// What is known already: only a value that it does not cover ends the wait. Default: any.
    pub fn context(mut self, context: Context) -> Self {
        self.context = context;
        self
    }

    /// For how long; then the outcome is `None`. Default 30 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Prepare for WaitFor {
    type Ok = Option<Reading>;
    type Error = ReadError;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError> {
        let timeout_ms = whole_ms(self.timeout);
        Ok(Prepared::Ask(Request::Wait { key: self.key?, context: self.context, timeout_ms }, 0))
    }

    fn convert(wall_ms: u64, outcome: Outcome) -> Result<Option<Reading>, ReadError> {
        match outcome {
            Outcome::Waited(Ok(found)) => Ok(found.map(|found| Reading::new(found.siblings, wall_ms))),
            Outcome::Waited(Err(error)) => Err(error),
            _ => Err(ReadError::Stopped),
        }
    }

    fn node(&self) -> Node {
        self.node.clone()
    }
}

/// A listing of what this node holds: [`Node::keys`].
#[must_use = "nothing is listed before submit, start or wait"]
pub struct Keys {
    pub(crate) node: Node,
    pub(crate) prefix: String,
    pub(crate) after: Option<String>,
    pub(crate) limit: usize,
    pub(crate) deleted: bool,
}

operation!(Keys, KeyPage, ReadError);

impl Keys {
    /// Only keys that begin like this. Default: all.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Only keys behind this one: the `next` of the page before.
    pub fn after(mut self, after: impl Into<String>) -> Self {
        self.after = Some(after.into());
        self
    }

    /// At most so many, 1 to 10,000. Default 1,000.
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Lists tombstones and expired versions too.
    pub fn deleted(mut self, deleted: bool) -> Self {
        self.deleted = deleted;
        self
    }
}

impl Prepare for Keys {
    type Ok = KeyPage;
    type Error = ReadError;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError> {
        let Self { prefix, after, limit, deleted, .. } = self;
        Ok(Prepared::Ask(Request::Keys { prefix, after, limit, deleted }, 0))
    }

    fn convert(_: u64, outcome: Outcome) -> Result<KeyPage, ReadError> {
        match outcome {
            Outcome::Keys(page) => Ok(page),
            _ => Err(ReadError::Stopped),
        }
    }

    fn node(&self) -> Node {
        self.node.clone()
    }
}

/// Drops this node's copies of a key: [`Node::forget`].
#[must_use = "nothing is dropped before submit, start or wait"]
pub struct Forget {
    pub(crate) node: Node,
    pub(crate) key: Result<Key, SubmitError>,
}

operation!(Forget, usize, WriteError);

impl Prepare for Forget {
    type Ok = usize;
    type Error = WriteError;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError> {
        Ok(Prepared::Ask(Request::Forget(self.key?), 0))
    }

    fn convert(_: u64, outcome: Outcome) -> Result<usize, WriteError> {
        match outcome {
            Outcome::Forgotten(result) => result,
            _ => Err(WriteError::Stopped),
        }
    }

    fn node(&self) -> Node {
        self.node.clone()
    }
}

/// A departure: [`Node::leave`].
#[must_use = "the node does not leave before submit, start or wait"]
pub struct Leave {
    pub(crate) node: Node,
    pub(crate) timeout: Duration,
}

operation!(Leave, Departure, MemberError);

impl Leave {
    /// For how long to wait for the end; the departure goes on after that. Default 10 minutes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Prepare for Leave {
    type Ok = Departure;
    type Error = MemberError;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError> {
        Ok(Prepared::Ask(Request::Leave { timeout_ms: self.timeout.as_millis() as u64 }, 0))
    }

    fn convert(_: u64, outcome: Outcome) -> Result<Departure, MemberError> {
        match outcome {
            Outcome::Departure(result) => result,
            _ => Err(MemberError::Stopped),
        }
    }

    fn node(&self) -> Node {
        self.node.clone()
    }
}

/// A count of what the node holds and does: [`Node::stats`].
#[must_use = "nothing is counted before submit, start or wait"]
pub struct Count {
    pub(crate) node: Node,
}

operation!(Count, Stats, ReadError);

impl Prepare for Count {
    type Ok = Stats;
    type Error = ReadError;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError> {
        Ok(Prepared::Ask(Request::Stats, 0))
    }

    fn convert(_: u64, outcome: Outcome) -> Result<Stats, ReadError> {
        match outcome {
            Outcome::Stats(stats) => Ok(*stats),
            _ => Err(ReadError::Stopped),
        }
    }

    fn node(&self) -> Node {
        self.node.clone()
    }
}
