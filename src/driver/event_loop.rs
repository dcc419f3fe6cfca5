//! The loop: one thread, one turn after the other, nothing that blocks.
//!
//! A turn: sleep until there is something to do or the core's deadline; take frames, mail and
//! time to the core; carry out what it says until it says no more; send what gathered. While
//! awake, other threads need not wake it.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use mio::{Events, Poll, Token, Waker};
use parking_lot::RwLock;

use super::{
    Callbacks, Clock, Home, Mail, Mailbox, Reply, Room, Task, Ticket, Watcher,
    ahead::{AHEAD, look_ahead},
    disk::Disk,
    now, values,
};
use crate::{
    core::{Core, Input, Now, OpId, Outcome, Output, WatchId},
    fixed_map::FixedMap,
    identity::Identity,
    model::{Members, NodeId},
    partition::Placement,
    storage::Storage,
    transport::{Admission, Handshakes, SendError, Transport, TransportContext, TransportEvent},
    wire::{LinkEvent, Links, Refusal, SendRefused},
};

/// The token of the transport.
const TRANSPORT: Token = Token(0);
/// The token of the waker.
pub(crate) const WAKER: Token = Token(1);
/// Transport events taken per turn, so that clients get their turn too.
const MAX_EVENTS_PER_TURN: usize = 256;
/// Mails of other threads opened per turn, so that what they cause is sent and told of soon.
const MAX_MAILS_PER_TURN: usize = 256;
/// Frames kept back while a transport's queue is full; more are dropped, and the core repeats.
const MAX_HELD_FRAMES: usize = 4_096;
/// Pause before held frames are tried again.
const HELD_FRAMES_MS: u64 = 1;
/// While stopping: how often it is looked at whether everything has settled.
const STOP_TICK_MS: u64 = 10;
/// While stopping: how long the transport gets for its last frames.
const STOP_TRANSPORT_MS: u64 = 500;

/// What callers' threads see without asking the loop.
pub(crate) struct Shared {
    pub(crate) members: ArcSwap<Members>,
    pub(crate) placement: ArcSwap<Placement>,
    pub(crate) up: RwLock<Vec<NodeId>>,
    pub(crate) watches: RwLock<BTreeMap<WatchId, Arc<Watcher>>>,
}

/// What the loop is made of.
pub(crate) struct Parts {
    pub(crate) me: NodeId,
    pub(crate) poll: Poll,
    pub(crate) core: Core,
    pub(crate) links: Links,
    pub(crate) transport: Box<dyn Transport>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) disk: Disk,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) callbacks: Callbacks,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) home: Option<Home>,
    /// The longest value that is read whole.
    pub(crate) max_value_bytes: u64,
}

/// See the [module](self).
pub(crate) struct EventLoop {
    parts: Parts,
    replies: FixedMap<OpId, Ticket>,
    /// Taken out and not opened yet.
    mails: VecDeque<Mail>,
    outputs: Vec<Output>,
    link_events: Vec<LinkEvent>,
    held: VecDeque<(SocketAddr, Bytes)>,
    more_events: bool,
    links_changed: bool,
    stop_at_ms: Option<u64>,
    /// Read once a turn: a turn is shorter than what the core can tell apart.
    at: Now,
}

impl EventLoop {
    /// Binds the transport. Gives its address.
    pub(crate) fn bind(
        transport: &mut dyn Transport,
        poll: &Poll,
        waker: &Arc<Waker>,
        identity: Arc<Identity>,
    ) -> io::Result<SocketAddr> {
        transport.start(TransportContext {
            registry: poll.registry(),
            token: TRANSPORT,
            waker: waker.clone(),
            identity,
        })
    }

    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            at: now(&*parts.clock),
            parts,
            replies: FixedMap::default(),
            mails: VecDeque::new(),
            outputs: Vec::new(),
            link_events: Vec::new(),
            held: VecDeque::new(),
            more_events: false,
            links_changed: true,
            stop_at_ms: None,
        }
    }

    /// Runs until it is told to stop, then ends everything in order.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        self.parts.core.start(self.at, &mut self.outputs);
        self.act();
        while !self.is_over() {
            let is_idle = self.mails.is_empty() && !self.more_events && self.parts.mailbox.fall_asleep();
            let timeout = if is_idle { self.timeout() } else { Some(Duration::ZERO) };
            if let Err(error) = self.parts.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("the loop's poll failed: {error}");
            }
            self.parts.mailbox.wake_up();
            self.at = now(&*self.parts.clock);
            if events.iter().any(|e| e.token() == TRANSPORT) {
                self.parts.transport.ready();
            }
            self.take_frames();
            self.take_mails(MAX_MAILS_PER_TURN);
            self.feed(Input::Tick);
            self.parts.callbacks.flush();
            self.send_frames();
            self.note_who_is_up();
        }
        self.end();
    }

    fn timeout(&self) -> Option<Duration> {
        let now_ms = now(&*self.parts.clock).mono_ms;
        let mut at_ms = self.parts.core.deadline();
        if !self.held.is_empty() {
            at_ms = Some(at_ms.map_or(u64::MAX, |at| at.min(now_ms + HELD_FRAMES_MS)));
        }
        if self.stop_at_ms.is_some() {
            at_ms = Some(at_ms.map_or(u64::MAX, |at| at.min(now_ms + STOP_TICK_MS)));
        }
        let own = at_ms.map(|at| Duration::from_millis(at.saturating_sub(now_ms)));
        let transports = self.parts.transport.deadline();
        own.into_iter().chain(transports.map(|at| at.saturating_duration_since(Instant::now()))).min()
    }

    fn take_frames(&mut self) {
        let Parts { transport, links, .. } = &mut self.parts;
        let (now_ms, events) = (self.at.mono_ms, &mut self.link_events);
        self.more_events = transport.poll(MAX_EVENTS_PER_TURN, &mut |event| match event {
            TransportEvent::Frame { from, frame } => links.received(now_ms, from, frame, events),
            TransportEvent::Opened { addr, key } => links.opened(addr, key, events),
            TransportEvent::Removed { addr, key } => links.turned_away(now_ms, addr, key, events),
            TransportEvent::Closed { addr } => links.closed(addr, events),
        });
        let mut events = std::mem::take(&mut self.link_events).into_iter();
        for n in 0..events.len() {
            if n % AHEAD == 0 {
                look_ahead(&self.parts, events.as_slice().iter());
            }
            let Some(event) = events.next() else { break };
            match event {
                LinkEvent::Up { peer, incarnation, addr } => {
                    self.links_changed = true;
                    log::info!("node {peer} is up at {addr} (incarnation {incarnation})");
                    self.feed(Input::LinkUp { peer, incarnation });
                }
                LinkEvent::KeyShown { peer, key } => self.feed(Input::KeyShown { peer, key }),
                LinkEvent::Down { peer } => {
                    self.links_changed = true;
                    log::info!("node {peer} is down");
                    self.feed(Input::LinkDown { peer });
                }
                LinkEvent::Message { peer, message } => self.feed(Input::Message { from: peer, message }),
                LinkEvent::Refused { addr, reason } => log::warn!("refused a node at {addr}: {reason}"),
                LinkEvent::RefusedBy { peer, addr, reason } => {
                    let who = peer.map(|id| format!("node {id}")).unwrap_or_else(|| "a node".into());
                    log::warn!("{who} at {addr} refuses this node: {reason}");
                    if let (Some(by), Refusal::RemovedNode) = (peer, reason) {
                        self.feed(Input::RefusedAsRemoved { by });
                    }
                }
            }
        }
    }

    /// Opens so many mails. False: there was none.
    fn take_mails(&mut self, limit: usize) -> bool {
        if self.mails.is_empty() {
            self.parts.mailbox.take(&mut self.mails);
        }
        let count = self.mails.len().min(limit);
        // One by one: should a part of the application panic, those behind are still there.
        for n in 0..count {
            if n % AHEAD == 0 {
                look_ahead(&self.parts, self.mails.iter().take(count - n));
            }
            let Some(mail) = self.mails.pop_front() else { break };
            self.open(mail);
        }
        count > 0
    }

    fn open(&mut self, mail: Mail) {
        match mail {
            Mail::Request { op, request, ticket } => {
                self.replies.insert(op, ticket);
                self.feed(Input::Request { op, request });
            }
            Mail::Tell(request) => self.feed(Input::Request { op: OpId(0), request }),
            Mail::Done { job, result } => self.feed(Input::Done { job, result }),
            Mail::Stop { within } => {
                self.parts.mailbox.close();
                let at_ms = self.at.mono_ms.saturating_add(within.as_millis() as u64);
                self.stop_at_ms = Some(self.stop_at_ms.map_or(at_ms, |before| before.min(at_ms)));
                self.end_waits();
            }
        }
    }

    fn feed(&mut self, input: Input) {
        if matches!(input, Input::Tick) && self.parts.core.deadline().is_none_or(|due| due > self.at.mono_ms)
        {
            return;
        }
        self.parts.core.handle(self.at, input, &mut self.outputs);
        self.act();
    }

    /// Carries out outputs, and those that follow from them, until there are none.
    fn act(&mut self) {
        let mut done = Vec::new();
        loop {
            let mut outputs = std::mem::take(&mut self.outputs);
            for output in outputs.drain(..) {
                if let Output::Work { job, work } = output {
                    done.extend(self.parts.disk.give(job, work).map(|result| Input::Done { job, result }));
                } else {
                    self.carry_out(output);
                }
            }
            self.outputs = outputs;
            if done.is_empty() {
                return;
            }
            let at = self.at;
            done.drain(..).for_each(|input| self.parts.core.handle(at, input, &mut self.outputs));
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => match self.parts.links.send(to, &message) {
                Ok(()) => {}
                Err(SendRefused::TooLong) => log::warn!("a message to {to} is too long: dropped"),
                Err(error) => log::debug!("a message to {to} was not sent: {error}"),
            },
            Output::Work { .. } => unreachable!("handled by act"),
            Output::Finish { op, outcome } => self.finish(op, outcome),
            Output::Progress { op, progress } => {
                if let Some(closure) = self.replies.get(&op).and_then(|t| t.progress.clone()) {
                    self.parts.callbacks.run(Box::new(move || closure(progress)));
                }
            }
            Output::Notify { watch, event } => {
                let watcher = self.parts.shared.watches.read().get(&watch).cloned();
                if let Some(task) = watcher.and_then(|watcher| watcher.tell(event)) {
                    self.parts.callbacks.run(task);
                }
            }
            Output::Publish { members, placement } => self.publish(members, placement),
            Output::Dial { peer, addrs } => {
                self.parts.links.dial(self.at.mono_ms, peer, &addrs);
            }
            Output::HangUp { peer } => {
                self.links_changed = true;
                log::info!("node {peer} is silent or gone");
                if let Some(addr) = self.parts.links.addr_of(peer) {
                    self.send_frames();
                    self.parts.transport.close(addr);
                }
                self.parts.links.hang_up(peer);
            }
            Output::Notice(text) => log::warn!("{text}"),
        }
    }

    /// Shows callers' threads which peers have a link, if that changed in this turn.
    fn note_who_is_up(&mut self) {
        if !std::mem::take(&mut self.links_changed) {
            return;
        }
        let links = &self.parts.links;
        let members = self.parts.shared.members.load();
        let up = members.present().map(|m| m.id).filter(|id| links.is_up(*id)).collect();
        *self.parts.shared.up.write() = up;
    }

    fn publish(&mut self, members: Arc<Members>, placement: Arc<Placement>) {
        // What was said to a member that is no more goes out first: it learns of its removal.
        self.send_frames();
        self.parts.transport.admit(Admission::of(&members));
        for peer in self.parts.links.admit(&members) {
            log::info!("node {peer} is no member any more");
        }
        if let Some(home) = self.parts.home.clone() {
            let (me, members) = (self.parts.me, members.clone());
            self.parts.disk.run(Box::new(move || {
                if let Err(error) = home.keep_members(me, &members) {
                    log::error!("the members file can't be written: {error}");
                }
            }));
        }
        self.links_changed = true;
        self.parts.shared.members.store(members);
        self.parts.shared.placement.store(placement);
    }

    fn finish(&mut self, op: OpId, mut outcome: Outcome) {
        if let Outcome::Stats(stats) = &mut outcome {
            let Handshakes { refused, failed, limited } = self.parts.transport.handshakes();
            let counters = &mut stats.counters;
            (counters.handshakes_refused, counters.handshakes_failed) = (refused, failed);
            counters.handshakes_limited = limited;
            counters.frames_dropped = self.parts.transport.dropped_frames();
        }
        let Some(Ticket { reply, bytes, .. }) = self.replies.remove(&op) else { return };
        let missing = match &outcome {
            Outcome::Read(Ok(found)) | Outcome::Waited(Ok(Some(found))) => {
                values::are_missing(&found.siblings)
            }
            _ => false,
        };
        let room = self.parts.mailbox.room(bytes);
        if matches!(outcome, Outcome::Members(Ok(()))) {
            // Behind the file that the change was written to: what is acknowledged outlives a crash.
            return self.reply_later(reply, room, || outcome);
        }
        if !missing {
            return reply_with(reply, room, outcome, |task| self.parts.callbacks.run(task));
        }
        let (storage, max) = (self.parts.storage.clone(), self.parts.max_value_bytes);
        let fill = move || match outcome {
            Outcome::Read(Ok(found)) => Outcome::Read(values::fill(&*storage, found, max)),
            Outcome::Waited(Ok(Some(found))) => {
                Outcome::Waited(values::fill(&*storage, found, max).map(Some))
            }
            other => other,
        };
        if self.parts.disk.is_slow() {
            self.reply_later(reply, room, fill);
        } else {
            reply_with(reply, room, fill(), |task| self.parts.callbacks.run(task));
        }
    }

    /// Answers on the thread that reads, behind what was given to it before.
    fn reply_later(&self, reply: Reply, room: Room, outcome: impl FnOnce() -> Outcome + Send + 'static) {
        let run = self.parts.callbacks.runner();
        self.parts.disk.run(Box::new(move || reply_with(reply, room, outcome(), &*run)));
    }

    /// Nothing that clients wait for will come any more.
    fn end_waits(&mut self) {
        let waits: Vec<OpId> = self.replies.iter().filter(|(_, t)| t.waits).map(|(op, _)| *op).collect();
        waits.into_iter().for_each(|op| self.finish(op, Outcome::Stopped));
    }

    fn send_frames(&mut self) {
        let Parts { transport, links, .. } = &mut self.parts;
        let held = &mut self.held;
        let is_urgent = links.is_urgent();
        for _ in 0..held.len() {
            let Some((addr, frame)) = held.pop_front() else { break };
            if let Err(SendError::Full(frame)) = transport.send(addr, frame) {
                held.push_back((addr, frame));
            }
        }
        let mut give = |addr, frame| match is_urgent {
            true => transport.send(addr, frame),
            false => transport.send_later(addr, frame),
        };
        links.flush(&mut |addr, frame| match give(addr, frame) {
            Ok(()) => {}
            Err(SendError::Full(frame)) if held.len() < MAX_HELD_FRAMES => held.push_back((addr, frame)),
            Err(SendError::Full(_)) => log::debug!("a frame to {addr} was dropped: the queues are full"),
            Err(error) => log::debug!("a frame to {addr} was dropped: {error}"),
        });
        transport.flush();
    }

    fn is_over(&self) -> bool {
        let Some(at_ms) = self.stop_at_ms else { return false };
        let settled = self.replies.is_empty() && self.parts.core.unsettled() == 0;
        settled || self.at.mono_ms >= at_ms
    }

    fn end(mut self) {
        self.parts.core.say_bye(&mut self.outputs);
        self.act();
        self.send_frames();
        self.parts.transport.stop(Duration::from_millis(STOP_TRANSPORT_MS));
        self.parts.disk.stop();
        // What the disk finished last may still complete operations.
        self.at = now(&*self.parts.clock);
        while self.take_mails(usize::MAX) {}
        self.stop_replies();
    }

    /// Tells all who wait that the node has stopped, and runs what closures are left.
    fn stop_replies(&mut self) {
        for (_, Ticket { reply, bytes, .. }) in std::mem::take(&mut self.replies) {
            let room = self.parts.mailbox.room(bytes);
            reply_with(reply, room, Outcome::Stopped, |task| self.parts.callbacks.run(task));
        }
        let watches = std::mem::take(&mut *self.parts.shared.watches.write());
        drop(watches);
        self.parts.callbacks.stop();
    }
}

/// Where a part of the application (a transport, a partitioner) panics on the loop, the node is over,
/// and everybody who waits hears of it.
impl Drop for EventLoop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.parts.mailbox.close();
        let mut late = VecDeque::new();
        self.parts.mailbox.take(&mut late);
        let requests =
            std::mem::take(&mut self.mails).into_iter().chain(late).filter_map(|mail| match mail {
                Mail::Request { op, ticket, .. } => Some((op, ticket)),
                _ => None,
            });
        self.replies.extend(requests);
        self.stop_replies();
    }
}

/// Closures that wait to run count as operations under way: their queue is bounded by the same limit.
fn reply_with(reply: Reply, room: Room, outcome: Outcome, run: impl FnOnce(Task)) {
    match reply {
        Reply::Handle(set) => {
            drop(room);
            set(outcome);
        }
        Reply::Closure(closure) => run(Box::new(move || {
            drop(room);
            closure(outcome);
        })),
    }
}
