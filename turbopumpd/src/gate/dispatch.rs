//! Which request gets which lane, how many lanes there are, and what happens when one breaks.
//!
//! Lanes are opened one at a time, each after the one before answered its probe, when there are
//! fewer than the base, or when a request has waited for a while and most lanes are held up. They
//! are shared by class, so that requests which wait by nature, or whose bodies crawl, leave room
//! for the quick ones.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    time::{Duration, Instant},
};

use super::{
    backend::{GATE_HEADER, Kind, gate_value},
    client::{Body, State},
    lane::{Answer, Class, Lane, Phase},
    listen::Origin,
    refusal::Refusal,
    run::{Looper, Place, pack},
    slots::SlotId,
};

/// How long `tiny_http` has to answer a probe. It takes well under a millisecond.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Until the next attempt when a lane could not be opened.
const LANE_RETRY: Duration = Duration::from_millis(100);

/// A request that waits for a lane.
pub(super) struct Waiting {
    pub(super) client: SlotId,
    /// All of it, or the head where the body streams.
    bytes: Vec<u8>,
    class: Class,
    since: Instant,
}

/// One queue for each class.
pub(super) type Queues = [VecDeque<Waiting>; 3];

/// The gate's own header lines, made once.
pub(super) struct GateLines {
    held: [Vec<u8>; 2],
    marked: [Vec<u8>; 2],
    probe: Vec<u8>,
}

impl GateLines {
    pub(super) fn new(secret: &str) -> Self {
        let line = |origin, kind| format!("{GATE_HEADER}: {}", gate_value(secret, origin, kind)).into_bytes();
        let both = |kind| [line(Origin::Tcp, kind), line(Origin::Unix, kind)];
        let mut probe = b"GET / HTTP/1.1\r\n".to_vec();
        probe.extend(line(Origin::Tcp, Kind::Probe));
        probe.extend_from_slice(b"\r\n\r\n");
        Self { held: both(Kind::Held), marked: both(Kind::Marked), probe }
    }

    pub(super) fn append(&self, head: &mut Vec<u8>, origin: Origin, kind: Kind, client: SlotId) {
        let lines = if kind == Kind::Held { &self.held } else { &self.marked };
        head.extend_from_slice(&lines[usize::from(origin == Origin::Unix)]);
        // Into a Vec, which takes everything.
        let _ = write!(head, "{:x}\r\n", pack(Place::Client, client).0);
    }
}

impl Looper {
    /// Gives a request to a free lane, or lets it wait.
    pub(super) fn enqueue(&mut self, id: SlotId, bytes: Vec<u8>, class: Class, body: Option<Box<Body>>) {
        let is_full = self.queues.iter().map(VecDeque::len).sum::<usize>() >= self.limits.queued_requests;
        let Some(client) = self.clients.get_mut(id) else { return };
        client.state = State::Queued(body);
        let patience =
            if client.read_closed { self.limits.half_closed_grace } else { self.limits.queue_timeout };
        client.deadline = Some(self.now + patience);
        self.stats.requests.add_one();
        let waiting = Waiting { client: id, bytes, class, since: self.now };
        match self.free_lanes.last() {
            Some(_) if self.has_share(class) => self.start(waiting),
            _ if is_full => self.refuse(id, Refusal::busy()),
            _ => self.queues[class as usize].push_back(waiting),
        }
    }

    /// Gives waiting requests to the lanes that are free.
    pub(super) fn dispatch(&mut self) {
        while !self.free_lanes.is_empty() {
            let ready = [Class::Quick, Class::Long, Class::Streaming]
                .into_iter()
                .find(|c| !self.queues[*c as usize].is_empty() && self.has_share(*c));
            let Some(class) = ready else { break };
            if let Some(waiting) = self.queues[class as usize].pop_front() {
                self.start(waiting);
            }
        }
        self.stats.queued.set(self.queues.iter().map(VecDeque::len).sum());
    }

    fn has_share(&self, class: Class) -> bool {
        let share = match class {
            Class::Quick => self.limits.lanes,
            Class::Long => self.limits.long_lanes,
            Class::Streaming => self.limits.streaming_lanes,
        };
        self.running[class as usize] < share
    }

    fn start(&mut self, waiting: Waiting) {
        let Some(lane_id) = self.free_lanes.pop() else { return };
        let id = waiting.client;
        let (Some(client), Some(lane)) = (self.clients.get_mut(id), self.lanes.get_mut(lane_id)) else {
            return;
        };
        lane.phase = Phase::Busy(id);
        lane.answer = Answer::Head;
        lane.class = waiting.class;
        lane.since = self.now;
        self.running[waiting.class as usize] += 1;
        client.deadline = client.read_closed.then(|| self.now + self.limits.half_closed_grace);
        if let State::Queued(Some(body)) = std::mem::replace(&mut client.state, State::Running(lane_id)) {
            client.state = State::Streaming(lane_id, body);
            client.deadline = Some(self.now + self.limits.body_idle);
            self.again.push((Place::Client, id));
        }
        if lane.send(&waiting.bytes, (self.poll.registry(), pack(Place::Lane, lane_id))).is_err() {
            self.lane_takes_no_more(lane_id);
        }
    }

    /// Opens a lane where one is wanted and none is on its way.
    pub(super) fn maintain_lanes(&mut self) {
        if let Some(id) = self.opening_lane {
            let is_late = self.lanes.get_mut(id).is_none_or(|l| l.since + PROBE_TIMEOUT <= self.now);
            if is_late {
                log::error!("tiny_http does not serve a new lane");
                self.kill_lane(id);
                self.restart_server();
            }
            return;
        }
        if self.lane_retry_at.is_some_and(|t| self.now < t) {
            return;
        }
        self.lane_retry_at = None;
        if self.wants_lane()
            && let Err(e) = self.open_lane()
        {
            log::warn!("a lane can't be opened: {e}");
            self.lane_retry_at = Some(self.now + LANE_RETRY);
            if e.kind() == io::ErrorKind::ConnectionRefused || e.kind() == io::ErrorKind::NotFound {
                self.restart_server();
            }
        }
    }

    fn wants_lane(&self) -> bool {
        if self.lanes.len() < self.limits.base_lanes {
            return true;
        }
        let is_waiting = |class: Class| {
            let front = self.queues[class as usize].front();
            front.is_some_and(|w| w.since + self.limits.grow_after <= self.now) && self.has_share(class)
        };
        self.lanes.len() < self.limits.lanes
            && self.free_lanes.is_empty()
            && (is_waiting(Class::Quick) || is_waiting(Class::Long) || is_waiting(Class::Streaming))
            && self.brisk_lanes() < self.limits.base_lanes
    }

    /// Lanes that took their request just now. As long as there are enough of them the queue is
    /// long because there is much to do, and more threads would only take turns.
    fn brisk_lanes(&self) -> usize {
        self.lanes.iter().filter(|(_, l)| l.since + self.limits.grow_after > self.now).count()
    }

    fn open_lane(&mut self) -> io::Result<()> {
        // tiny_http's accept loop ends when it finds no descriptor: make sure that it finds two,
        // and we one. The system gives them back at once.
        let _proof = [File::open("/dev/null")?, File::open("/dev/null")?, File::open("/dev/null")?];
        drop(_proof);
        let token = pack(Place::Lane, self.lanes.next_id());
        let mut lane = Lane::connect(&self.lane_path, self.poll.registry(), token, self.now)?;
        lane.send(&self.gate_lines.probe, (self.poll.registry(), token))?;
        self.opening_lane = Some(self.lanes.insert(lane));
        self.stats.lanes.set(self.lanes.len());
        Ok(())
    }

    fn restart_server(&mut self) {
        self.stats.restarts.add_one();
        self.lane_retry_at = Some(self.now + LANE_RETRY);
        match self.backend.start_server() {
            Ok(path) => self.lane_path = path,
            Err(e) => log::error!("tiny_http can't be started again: {e}"),
        }
    }

    /// The probe was answered.
    pub(super) fn lane_is_open(&mut self, id: SlotId) {
        if self.opening_lane == Some(id) {
            self.opening_lane = None;
        }
        self.lane_is_free(id);
    }

    /// The lane is ready for the next request.
    pub(super) fn lane_is_free(&mut self, id: SlotId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        if let Phase::Busy(_) = lane.phase {
            self.running[lane.class as usize] -= 1;
        }
        lane.phase = Phase::Free;
        lane.since = self.now;
        self.free_lanes.push(id);
    }

    /// Closes a lane, whatever it does.
    pub(super) fn kill_lane(&mut self, id: SlotId) {
        let Some(lane) = self.lanes.remove(id) else { return };
        if let Phase::Busy(_) = lane.phase {
            self.running[lane.class as usize] -= 1;
        }
        if self.opening_lane == Some(id) {
            self.opening_lane = None;
        }
        self.free_lanes.retain(|l| *l != id);
        self.stats.lanes.set(self.lanes.len());
    }

    /// A lane can't be written to any more. What it had said before is still heard: a handler may answer
    /// before it has read the whole body, and `tiny_http` ends the connection then.
    pub(super) fn lane_takes_no_more(&mut self, id: SlotId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        (lane.readable, lane.read_closed) = (true, true);
        self.relay(id);
    }

    /// A lane broke: its client gets to know.
    pub(super) fn lane_lost(&mut self, id: SlotId) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let (phase, answer) = (lane.phase, lane.answer);
        self.kill_lane(id);
        if let Phase::Busy(client) = phase {
            log::warn!("a lane broke with a request on it");
            match answer {
                Answer::Head => self.refuse(client, Refusal::lost()),
                Answer::Streaming { .. } => self.drop_client(client),
            }
        }
    }

    /// Closes lanes beyond the base that were not needed for a while.
    pub(super) fn close_surplus_lanes(&mut self) {
        while self.lanes.len() > self.limits.base_lanes {
            let Some(&coldest) = self.free_lanes.first() else { return };
            let is_cold =
                self.lanes.get_mut(coldest).is_none_or(|l| l.since + self.limits.lane_idle <= self.now);
            if !is_cold {
                return;
            }
            self.kill_lane(coldest);
        }
    }
}
