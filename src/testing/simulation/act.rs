//! What the driver does, without threads and sockets: carries out what a core says.

use std::sync::Arc;

use super::{
    disk::Given,
    node::Standing,
    options::Fault,
    oracle::{Asked, Dots, Surroundings},
    world::{Event, World},
};
use crate::{
    config::Ack,
    core::{Core, Done, Input, JobId, Now, OpId, Outcome, Output, Work},
    model::{Dot, Key, Ledger, Members, Version},
    storage::Change,
    wire::{Message, SendRefused},
};

/// How long it takes to write the members file, microseconds.
const MEMBERS_FILE_US: u64 = 3_000;

impl World {
    /// Hands an input to a node's core and carries out all that follows.
    pub(super) fn feed(&mut self, n: usize, input: Input) {
        self.run_core(n, |core, now, outputs| core.handle(now, input, outputs));
    }

    pub(super) fn run_core(&mut self, n: usize, f: impl FnOnce(&mut Core, Now, &mut Vec<Output>)) {
        let now = self.nodes[n].now(self.now_us);
        let Some(process) = &mut self.nodes[n].process else { return };
        f(&mut process.core, now, &mut process.outputs);
        let has_left = process.core.has_left();
        self.act(n);
        if self.nodes[n].standing == Standing::Member && (has_left || self.nodes[n].said_last_word) {
            self.note_departure(n, has_left);
        }
    }

    /// A node says that it has left, which must be true; or it said so before it crashed, and somebody may
    /// have heard it. From then on it does not count.
    fn note_departure(&mut self, n: usize, has_left: bool) {
        let id = self.nodes[n].id;
        let is_removed = |m: &Members| m.find(id).is_some_and(|m| !m.is_present());
        let stays = |m: &usize| *m != n && self.nodes[*m].standing == Standing::Member;
        // One that is down will know again.
        let list = |m: usize| self.members(m).or(self.nodes[m].kept_members.as_deref());
        let knows = |m: &usize| stays(m) && list(*m).is_some_and(is_removed);
        let known_to: Vec<usize> = (0..self.nodes.len()).filter(knows).collect();
        if !has_left && known_to.is_empty() {
            return;
        }
        let stats = self.nodes[n].process.as_ref().map(|process| process.core.stats()).unwrap_or_default();
        self.nodes[n].standing = Standing::Removed;
        if !has_left {
            self.note_disaster(n);
        } else if stats.keys + stats.tombstones + stats.handoff + stats.owed > 0 || known_to.is_empty() {
            self.fail("departure", format!("node {n} left, known to {known_to:?}, with {stats:?}"));
        }
    }

    /// What ends a turn of the loop: time, frames, and when to come back.
    pub(super) fn end_turn(&mut self, n: usize) {
        let now = self.nodes[n].now(self.now_us);
        let due = self.nodes[n].process.as_ref().and_then(|p| p.core.deadline());
        if due.is_some_and(|due_ms| due_ms <= now.mono_ms) {
            self.feed(n, Input::Tick);
        }
        self.flush(n);
        let now_us = self.now_us;
        let Some(process) = &mut self.nodes[n].process else { return };
        let Some(due_ms) = process.core.deadline() else { return };
        let due_us = (process.started_us + due_ms * 1_000).max(now_us);
        if process.wake_us.is_none_or(|wake_us| due_us < wake_us) {
            process.wake_us = Some(due_us);
            let number = process.number;
            self.schedule(due_us, Event::Wake { node: n, process: number });
        }
    }

    pub(super) fn disk_done(&mut self, n: usize, lane: usize) {
        let (done, next_us) = self.nodes[n].disk.finish(lane);
        self.note_applied(n);
        if let Some(us) = next_us {
            self.schedule_disk(n, lane, us);
        }
        for (job, result) in done {
            self.hear_done(n, job, &result);
            self.feed(n, Input::Done { job, result });
        }
    }

    pub(super) fn write_members(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if let Some(members) = node.process.as_mut().and_then(|p| p.unwritten.take()) {
            node.kept_members = Some(members);
        }
    }

    /// Versions that came to lie on a disk.
    pub(super) fn note_applied(&mut self, n: usize) {
        for dot in self.nodes[n].disk.take_applied() {
            if let Some(known) = self.oracle.find_mut(dot) {
                known.stored_on.insert(n);
            }
        }
    }

    /// What a message teaches a node about a key.
    pub(super) fn hear(&mut self, n: usize, message: &Message) {
        let Message::ReadReply { records: Some(records), .. } = message else { return };
        for record in records {
            let dot = record.version.dot;
            let Some(key) = self.oracle.find(dot).map(|k| k.key.clone()) else { continue };
            self.note_seen(n, &key, dot);
        }
    }

    fn note_seen(&mut self, n: usize, key: &Key, dot: Dot) {
        let heard = self.oracle.closure([dot]);
        if let Some(process) = &mut self.nodes[n].process {
            process.seen.entry(key.clone()).or_default().extend(heard);
        }
    }

    fn act(&mut self, n: usize) {
        let mut done: Vec<(JobId, Done)> = Vec::new();
        loop {
            let Some(process) = &mut self.nodes[n].process else { return };
            for output in std::mem::take(&mut process.outputs) {
                match output {
                    Output::Work { job, work } => done.extend(self.give_work(n, job, work)),
                    other => self.carry_out(n, other),
                }
            }
            if done.is_empty() {
                return;
            }
            let now = self.nodes[n].now(self.now_us);
            for (job, result) in std::mem::take(&mut done) {
                self.hear_done(n, job, &result);
                let Some(process) = &mut self.nodes[n].process else { return };
                process.core.handle(now, Input::Done { job, result }, &mut process.outputs);
            }
        }
    }

    fn give_work(&mut self, n: usize, job: JobId, work: Work) -> Option<(JobId, Done)> {
        self.trace.note(self.now_us, n, job.0, || format!("disk {job:?} {work:?}"));
        if let Work::Change(change) = &work
            && !Ledger::is_named(change.key())
        {
            self.check_change(n, job, change);
        }
        let given = self.nodes[n].disk.give(job, work);
        self.note_applied(n);
        match given {
            Given::Done(done) => Some((job, done)),
            Given::Begun(lane, us) => {
                self.schedule_disk(n, lane, us);
                None
            }
            Given::Waiting => None,
        }
    }

    fn check_change(&mut self, n: usize, job: JobId, change: &Change) {
        let Some(process) = &mut self.nodes[n].process else { return };
        let (key, version, value) = match change {
            Change::Put { key, version, value, .. } => (key, version, Some(value)),
            Change::Commit { key, version, .. } => (key, version, None),
            Change::Remove { key, dots } => {
                process.remove(key, dots);
                return self.check_dropped(n, dots);
            }
        };
        let held = process.holds(key);
        let seen = process.seen.get(key).cloned().unwrap_or_default();
        process.begin(key, version);
        process.storing.insert(job, (key.clone(), version.clone()));
        let around = Surroundings { held: &held, seen: &seen };
        let result = self.oracle.given_to_disk(n, key, version, value, &around);
        self.check("causality", result);
        self.note_seen(n, key, version.dot);
    }

    /// A node drops copies: somebody else has to have them, or to have had them before a disaster.
    fn check_dropped(&mut self, n: usize, dots: &[Dot]) {
        let wall_ms = self.nodes[n].wall_ms(self.now_us);
        let is_dead = |dot: &Dot| self.oracle.find(*dot).is_some_and(|k| !k.version.is_live(wall_ms));
        let dead: Vec<Dot> = dots.iter().copied().filter(is_dead).collect();
        let buried = self.oracle.closure(dead);
        // Who has not heard yet that a member was removed may count on the copies that it took along.
        let misled = self.counts_on_removed(n);
        for dot in &buried {
            if let Some(known) = self.oracle.find_mut(*dot) {
                known.fading = true;
            }
        }
        for dot in self.oracle.closure(dots.iter().copied()) {
            if self.is_held(dot) {
                continue;
            }
            let Some(known) = self.oracle.find(dot) else { continue };
            // It gives away what others have said to hold, the last words of those that a disaster struck too.
            let is_given_away = !self.owns(n, &known.key, known.version.mirrors);
            let was_struck = self.oracle.holders_ever(dot).iter().any(|m| self.struck.contains(m));
            let Some(known) = self.oracle.find_mut(dot) else { continue };
            known.excused |= (misled || was_struck && is_given_away) && known.acknowledged;
            known.buried |= buried.contains(&dot);
            if known.buried || known.excused || !known.acknowledged {
                continue;
            }
            if was_struck {
                self.oracle.excuse(dot);
            } else {
                self.fail("durability", format!("node {n} drops the last copy of {dot}"));
            }
        }
    }

    fn hear_done(&mut self, n: usize, job: JobId, result: &Done) {
        self.trace.note(self.now_us, n, job.0 ^ 6, || format!("disk {job:?} done: {result:?}"));
        let (Some(process), Done::Changed(result)) = (&mut self.nodes[n].process, result) else { return };
        if let Some((key, version)) = process.storing.remove(&job) {
            process.end(&key, &version, result.is_ok());
        }
    }

    fn schedule_disk(&mut self, n: usize, lane: usize, us: u64) {
        let process = self.nodes[n].processes;
        self.schedule(self.now_us + us, Event::Disk { node: n, process, lane });
    }

    fn carry_out(&mut self, n: usize, output: Output) {
        match output {
            Output::Send { to, message } => self.send(n, to, &message),
            Output::Work { .. } => unreachable!("handled by act"),
            Output::Finish { op, outcome } => self.finish(n, op, outcome),
            Output::Progress { op, progress } => {
                self.trace.note(self.now_us, n, op.0 ^ 7, || format!("{op:?} {progress:?}"));
                if !self.oracle.running(n, self.nodes[n].processes).any(|(running, _)| running == op) {
                    self.fail("completion", format!("progress of {op:?}, which is not under way"));
                }
            }
            Output::Notify { watch, event } => {
                let process = self.nodes[n].processes;
                let dot = event.version.dot;
                let stored = self.nodes[n].process.as_ref().map(|p| p.stored(&event.key));
                if !self.watches.contains(&(n, process, watch)) {
                    self.fail("completion", format!("{watch:?} was told something and is over"));
                } else if !stored.is_some_and(|stored| self.oracle.is_covered(dot, stored)) {
                    self.fail("completion", format!("{watch:?} was told of {dot}, which is not stored"));
                }
            }
            Output::Publish { members, .. } => self.publish(n, &members),
            Output::Dial { peer, addrs } => {
                let now_ms = self.nodes[n].now(self.now_us).mono_ms;
                if let Some(process) = &mut self.nodes[n].process {
                    process.links.dial(now_ms, peer, &addrs);
                }
            }
            Output::HangUp { peer } => {
                self.trace.note(self.now_us, n, 8, || format!("hangs up on {peer}"));
                if let Some(process) = &mut self.nodes[n].process {
                    process.links.hang_up(peer);
                }
            }
            Output::Notice(text) => self.trace.note(self.now_us, n, 9, || format!("notice: {text}")),
        }
    }

    fn send(&mut self, n: usize, to: crate::model::NodeId, message: &Message) {
        self.trace.note(self.now_us, n, 10, || format!("-> {to} {message:?}"));
        let Some(process) = &mut self.nodes[n].process else { return };
        if process.links.send(to, message) == Err(SendRefused::TooLong) {
            let text = format!("{message:?}");
            self.fail("limits", format!("too long to be sent: {}", text.get(..2_000).unwrap_or(&text)));
        }
    }

    fn flush(&mut self, n: usize) {
        let from = self.nodes[n].addr;
        let mut frames = Vec::new();
        if let Some(process) = &mut self.nodes[n].process {
            process.links.flush(&mut |to, frame| frames.push((to, frame)));
        }
        self.traffic.frames += frames.len() as u64;
        for (to, frame) in frames {
            self.traffic.bytes += frame.len() as u64;
            if frame.len() > self.options.max_frame_bytes {
                self.fail("limits", format!("a frame of {} bytes", frame.len()));
            }
            let Some(&receiver) = self.former.get(&to) else { continue };
            for us in self.network.route(n, receiver) {
                self.schedule(self.now_us + us, Event::Frame { from, to, frame: frame.clone() });
            }
        }
    }

    fn publish(&mut self, n: usize, members: &Arc<Members>) {
        self.flush(n);
        let at_us = self.now_us + MEMBERS_FILE_US;
        let node = &mut self.nodes[n];
        let Some(process) = &mut node.process else { return };
        process.links.admit(members);
        process.unwritten = Some(members.clone());
        let number = process.number;
        if self.options.faults.contains(&Fault::Leave) {
            // A last word is answered before it is kept: a crash in these milliseconds would undo it.
            return self.write_members(n);
        }
        self.schedule(at_us, Event::WriteMembers { node: n, process: number });
    }

    fn finish(&mut self, n: usize, op: OpId, outcome: Outcome) {
        self.trace.note(self.now_us, n, op.0 ^ 11, || format!("{op:?} ends: {outcome:?}"));
        let process = self.nodes[n].processes;
        let operation = match self.oracle.end(op, n, process) {
            Ok(operation) => operation,
            Err(what) => return self.fail("completion", what),
        };
        let result = match (&outcome, &operation.asked) {
            (Outcome::Written(Ok(written)), Asked::Write { ack, .. }) => {
                self.check_written(n, &operation, *ack, written)
            }
            (Outcome::Written(Err(_)), Asked::Write { .. }) => Ok(()),
            (Outcome::Read(Ok(found)), Asked::Read(_)) => self.check_found(n, &operation, found),
            (Outcome::Read(Err(_)), Asked::Read(_)) => Ok(()),
            (Outcome::Waited(Ok(Some(found))), _) => self.check_found(n, &operation, found),
            (Outcome::Keys(page), _) => self.check_listing(n, page),
            (Outcome::Stats(stats), _) => self.check_limits(stats),
            (_, Asked::Other) => Ok(()),
            (other, asked) => Err(("completion", format!("{asked:?} ended as {other:?}"))),
        };
        if let Err((promise, what)) = result {
            self.fail(promise, what);
        }
        self.outcomes.insert(op, outcome);
    }
}

/// How many acknowledgements an answer may rest on at least.
pub(super) fn promised(ack: Ack, acked: usize) -> usize {
    match ack {
        Ack::Local => 0,
        Ack::Mirrors(n) => usize::from(n),
        Ack::Quorum | Ack::All => acked.max(1),
    }
}

/// The names of versions.
pub(super) fn names<'a>(versions: impl Iterator<Item = &'a Arc<Version>>) -> Dots {
    versions.map(|version| version.dot).collect()
}
