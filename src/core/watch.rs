//! Clients that want to hear of versions: watches over prefixes, and waits for one key.
//!
//! A watch reports what this node stores, in the order in which it does. A wait ends when a value
//! of the key is there that its context does not cover: seen here if this node owns the key, else
//! by asking an owner with `Await`, again and again as long as the wait lasts, so that neither a
//! lost message nor a lost owner matters.
//!
//! Limits: `max_watches` watches, as many waits, and as many questions of peers.

use std::{collections::BTreeMap, sync::Arc};

use super::{Core, Event, OpId, Outcome, Output, ReadRequest, Timer, WatchId, operations::Operation};
use crate::{
    error::{ReadError, SubmitError},
    model::{Context, Key, NodeId, Version},
    wire::Message,
};

/// How often an owner is asked again, and for how long its answer is awaited each time.
const AWAIT_MS: u64 = 1_000;
/// The longest that a peer's question stands.
const MAX_AWAIT_MS: u64 = 10_000;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Watches {
    prefixes: BTreeMap<WatchId, String>,
    waits: BTreeMap<Key, Vec<OpId>>,
    wait_count: usize,
    tags: BTreeMap<u64, OpId>,
    questions: BTreeMap<Key, Vec<Question>>,
    question_count: usize,
}

/// A client that waits.
#[derive(Debug)]
pub(crate) struct WaitOperation {
    key: Key,
    context: Context,
    until_ms: u64,
    tag: Option<u64>,
}

#[derive(Debug)]
struct Question {
    peer: NodeId,
    tag: u64,
    context: Context,
    until_ms: u64,
}

impl Watches {
    pub(crate) fn end(&mut self, watch: WatchId) {
        self.prefixes.remove(&watch);
    }
}

impl Core {
    pub(super) fn submit_watch(&mut self, op: OpId, watch: WatchId, prefix: String) {
        let room = self.watches.prefixes.len() < self.config.max_watches;
        if room {
            self.watches.prefixes.insert(watch, prefix);
        }
        self.finish(op, Outcome::Watching(room));
    }

    pub(super) fn submit_wait(&mut self, op: OpId, key: Key, context: Context, timeout_ms: u64) {
        let until_ms = self.now.mono_ms.saturating_add(timeout_ms);
        if self.has_news(&key, &context) {
            return self.begin_read(op, ReadRequest::one(key), timeout_ms.max(AWAIT_MS), true);
        }
        if self.watches.wait_count >= self.config.max_watches {
            let refused = Err(ReadError::Refused(SubmitError::Busy));
            return self.finish(op, Outcome::Waited(refused));
        }
        self.watches.wait_count += 1;
        self.watches.waits.entry(key.clone()).or_default().push(op);
        let wait = WaitOperation { key, context, until_ms, tag: None };
        self.keep(op, Operation::Wait(Box::new(wait)), timeout_ms);
        self.await_owner(op);
    }

    pub(super) fn wait_timed_out(&mut self, op: OpId, wait: WaitOperation) {
        self.forget_wait(op, &wait);
        self.finish(op, Outcome::Waited(Ok(None)));
    }

    /// This node stored a version that somebody may want to hear of.
    pub(super) fn watch_stored(&mut self, key: &Key, version: &Arc<Version>) {
        let matching = self.watches.prefixes.iter().filter(|(_, prefix)| key.as_str().starts_with(*prefix));
        let watches: Vec<WatchId> = matching.map(|(watch, _)| *watch).collect();
        for watch in watches {
            let event = Event { key: key.clone(), version: version.clone() };
            self.out.push(Output::Notify { watch, event });
        }
        for op in self.watches.waits.get(key).cloned().unwrap_or_default() {
            let Some(context) = self.operations.wait(op).map(|w| w.context.clone()) else { continue };
            if self.has_news(key, &context) {
                self.end_wait(op);
            }
        }
        if let Some(questions) = self.watches.questions.remove(key) {
            self.watches.question_count -= questions.len();
            for q in questions {
                let left_ms = q.until_ms.saturating_sub(self.now.mono_ms);
                self.on_await(q.peer, q.tag, key.clone(), q.context, left_ms);
            }
        }
    }

    pub(super) fn on_await(&mut self, from: NodeId, tag: u64, key: Key, context: Context, within_ms: u64) {
        if self.has_news(&key, &context) {
            let records = Some(self.held(&key));
            return self.send(from, Message::ReadReply { tag, records });
        }
        if self.watches.question_count >= self.config.max_watches {
            return;
        }
        let until_ms = self.now.mono_ms + within_ms.min(MAX_AWAIT_MS);
        let questions = self.watches.questions.entry(key).or_default();
        let before = questions.len();
        questions.retain(|q| (q.peer, q.tag) != (from, tag) && q.until_ms > self.now.mono_ms);
        questions.push(Question { peer: from, tag, context, until_ms });
        self.watches.question_count = self.watches.question_count + questions.len() - before;
        self.timers.set_earlier(Timer::Await, self.now.mono_ms + AWAIT_MS);
    }

    /// An owner has news of a key. Says whether the tag was that of a wait.
    pub(super) fn wait_answered(&mut self, tag: u64, versions: &[Arc<Version>]) -> bool {
        let Some(op) = self.watches.tags.get(&tag).copied() else { return false };
        let wall_ms = self.now.wall_ms;
        let Some(wait) = self.operations.wait(op) else { return true };
        let context = wait.context.clone();
        if versions.iter().any(|v| v.is_live(wall_ms) && !context.contains(v.dot)) {
            self.end_wait(op);
        }
        true
    }

    /// Asks the owners again, and drops questions whose time is up.
    pub(super) fn repeat_awaits(&mut self) {
        self.hedge_reads();
        let now_ms = self.now.mono_ms;
        let waiting: Vec<OpId> = self.watches.waits.values().flatten().copied().collect();
        waiting.into_iter().for_each(|op| self.await_owner(op));
        let mut count = 0;
        self.watches.questions.retain(|_, questions| {
            questions.retain(|q| q.until_ms > now_ms);
            count += questions.len();
            !questions.is_empty()
        });
        self.watches.question_count = count;
        if count > 0 {
            self.timers.set_earlier(Timer::Await, now_ms + AWAIT_MS);
        }
    }

    fn await_owner(&mut self, op: OpId) {
        let now_ms = self.now.mono_ms;
        let Some(wait) = self.operations.wait(op) else { return };
        let (key, context, until_ms) = (wait.key.clone(), wait.context.clone(), wait.until_ms);
        // The first owner holds the key whatever its mirrors are.
        let owners: Vec<NodeId> = self.placement.owners(key.hash64(), self.config.mirrors).collect();
        if owners.first() == Some(&self.me) {
            return;
        }
        self.timers.set_earlier(Timer::Await, now_ms + AWAIT_MS);
        let Some(owner) = owners.into_iter().find(|id| self.is_up(*id)) else { return };
        let fresh = self.fresh_id();
        let Some(wait) = self.operations.wait(op) else { return };
        let tag = *wait.tag.get_or_insert(fresh);
        self.watches.tags.insert(tag, op);
        let within_ms = until_ms.saturating_sub(now_ms).min(2 * AWAIT_MS);
        self.send(owner, Message::Await { tag, key, context, within_ms });
    }

    fn end_wait(&mut self, op: OpId) {
        if let Some(Operation::Wait(wait)) = self.operations.remove(op) {
            self.forget_wait(op, &wait);
            let left_ms = wait.until_ms.saturating_sub(self.now.mono_ms).max(AWAIT_MS);
            self.begin_read(op, ReadRequest::one(wait.key), left_ms, true);
        }
    }

    fn forget_wait(&mut self, op: OpId, wait: &WaitOperation) {
        self.watches.wait_count -= 1;
        if let Some(tag) = wait.tag {
            self.watches.tags.remove(&tag);
        }
        if let Some(ops) = self.watches.waits.get_mut(&wait.key) {
            ops.retain(|waiting| *waiting != op);
            if ops.is_empty() {
                self.watches.waits.remove(&wait.key);
            }
        }
    }

    fn has_news(&self, key: &Key, context: &Context) -> bool {
        self.index.stored(key).any(|v| v.is_live(self.now.wall_ms) && !context.contains(v.dot))
    }
}
