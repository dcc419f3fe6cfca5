//! The loop: waits, accepts, looks at deadlines, stops.
//!
//! One turn: wait for events, handle each, retry what was cut short for fairness, hand queued
//! requests to lanes, then (four times a second) look through the deadlines.

use std::{
    fs::File,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, event::Event};

use super::{
    BearerToken, GateStats, Limits, Listener, Shared,
    backend::Backend,
    client::{Client, State},
    dispatch::{GateLines, Queues},
    lane::Lane,
    refusal::Refusal,
    slots::{GENERATION_MASK, SlotId, Slots},
};

pub(super) const WAKER_TOKEN: Token = Token(0);

/// Tokens below are the waker and the listeners.
const FIRST_SLOT_TOKEN: usize = 1 << 62;

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(250);

/// How long accepting pauses when no descriptor can be had.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections accepted from one listener in one turn, so that those inside get theirs.
const ACCEPTS_PER_TURN: usize = 64;

/// Bytes read at once.
pub(super) const SCRATCH_BYTES: usize = 64 * 1024;

pub(super) struct Looper {
    pub(super) poll: Poll,
    listeners: Vec<Listener>,
    /// Listeners with connections that were not accepted yet.
    pending_accepts: Vec<bool>,
    accept_paused_until: Option<Instant>,
    /// A descriptor in reserve: given up to accept, and at once refuse, a client when there is none.
    spare: Option<File>,
    pub(super) limits: Limits,
    pub(super) stats: Arc<GateStats>,
    pub(super) is_long: fn(&str) -> bool,
    pub(super) token: Option<BearerToken>,
    pub(super) backend: Backend,
    pub(super) secret: String,
    shared: Arc<Shared>,
    pub(super) clients: Slots<Client>,
    pub(super) lanes: Slots<Lane>,
    /// Lanes without a request; the last one freed is used first, its threads are still warm.
    pub(super) free_lanes: Vec<SlotId>,
    pub(super) opening_lane: Option<SlotId>,
    pub(super) lane_path: std::path::PathBuf,
    pub(super) lane_retry_at: Option<Instant>,
    /// Lanes taken, by class.
    pub(super) running: [usize; 3],
    pub(super) queues: Queues,
    pub(super) gate_lines: GateLines,
    /// Connections whose turn was cut short.
    pub(super) again: Vec<(Place, SlotId)>,
    pub(super) now: Instant,
    pub(super) scratch: Vec<u8>,
    pub(super) draining: bool,
    next_tick: Instant,
}

impl Looper {
    #[allow(clippy::too_many_arguments, reason = "called once, right beside the struct that it takes apart")]
    pub(super) fn new(
        poll: Poll,
        mut listeners: Vec<Listener>,
        limits: Limits,
        stats: Arc<GateStats>,
        is_long: fn(&str) -> bool,
        token: Option<BearerToken>,
        backend: Backend,
        secret: String,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        for (i, listener) in listeners.iter_mut().enumerate() {
            listener.register(poll.registry(), Token(1 + i))?;
        }
        let lane_path = backend.start_server()?;
        let now = Instant::now();
        Ok(Self {
            poll,
            pending_accepts: vec![false; listeners.len()],
            listeners,
            accept_paused_until: None,
            spare: File::open("/dev/null").ok(),
            limits,
            stats,
            is_long,
            token,
            backend,
            gate_lines: GateLines::new(&secret),
            secret,
            shared,
            clients: Slots::new(),
            lanes: Slots::new(),
            free_lanes: Vec::new(),
            opening_lane: None,
            lane_path,
            lane_retry_at: None,
            running: [0; 3],
            queues: Queues::default(),
            again: Vec::new(),
            now,
            scratch: vec![0; SCRATCH_BYTES],
            draining: false,
            next_tick: now + TICK,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        self.maintain_lanes();
        loop {
            if let Err(e) = self.poll.poll(&mut events, self.patience())
                && e.kind() != io::ErrorKind::Interrupted
            {
                log::error!("the gate can't wait for events: {e}");
                break;
            }
            self.now = Instant::now();
            for event in &events {
                self.handle_event(event);
            }
            for (place, id) in std::mem::take(&mut self.again) {
                match place {
                    Place::Client => self.drive_client(id),
                    Place::Lane => self.relay(id),
                }
            }
            self.accept_all();
            self.dispatch();
            self.maintain_lanes();
            if self.now >= self.next_tick {
                self.next_tick = self.now + TICK;
                self.tick();
            }
            if self.draining && self.should_end() {
                break;
            }
        }
        self.backend.stop();
        self.shared.command.lock().is_quiet = true;
        self.shared.quiet.notify_all();
    }

    /// How long to wait for events.
    fn patience(&self) -> Option<Duration> {
        let accepts_wait = self.accept_paused_until.is_none() && self.pending_accepts.contains(&true);
        if !self.again.is_empty() || accepts_wait {
            return Some(Duration::ZERO);
        }
        let has_queue = self.queues.iter().any(|q| !q.is_empty());
        if has_queue && self.opening_lane.is_none() && self.lanes.len() < self.limits.lanes {
            return Some(self.limits.grow_after.max(Duration::from_millis(1)));
        }
        let surplus = self.lanes.len() > self.limits.base_lanes;
        let at_rest = self.clients.len() == 0
            && !surplus
            && !has_queue
            && self.opening_lane.is_none()
            && self.lane_retry_at.is_none()
            && !self.draining
            && self.accept_paused_until.is_none();
        if at_rest { None } else { Some(TICK.min(self.accept_wait())) }
    }

    fn accept_wait(&self) -> Duration {
        self.accept_paused_until.map_or(TICK, |t| t.saturating_duration_since(Instant::now()))
    }

    fn handle_event(&mut self, event: &Event) {
        match event.token() {
            WAKER_TOKEN => self.take_command(),
            Token(n) if n < FIRST_SLOT_TOKEN => {
                if let Some(pending) = self.pending_accepts.get_mut(n - 1) {
                    *pending = true;
                }
            }
            token => match unpack(token) {
                (Place::Client, id) => self.client_event(id, event),
                (Place::Lane, id) => self.lane_event(id, event),
            },
        }
    }

    fn client_event(&mut self, id: SlotId, event: &Event) {
        let Some(client) = self.clients.get_mut(id) else { return };
        // Both halves gone or the connection broken: whatever runs for it runs for nobody.
        let is_gone = event.is_error() || (event.is_write_closed() && event.is_read_closed());
        if is_gone && !matches!(client.state, State::Head) {
            self.drop_client(id);
            return;
        }
        client.readable |= event.is_readable();
        if event.is_read_closed() && !client.read_closed {
            client.read_closed = true;
            client.readable = true;
            if matches!(client.state, State::Queued(_) | State::Running(_)) {
                client.deadline = Some(self.now + self.limits.half_closed_grace);
            }
        }
        if event.is_writable() && !client.output.is_empty() && !self.flush_client(id) {
            return;
        }
        self.drive_client(id);
    }

    fn take_command(&mut self) {
        let command = *self.shared.command.lock();
        let lost = std::mem::take(&mut *self.shared.lost.lock());
        for client in lost {
            if let (Place::Client, id) = unpack(Token(client)) {
                self.drop_client(id);
            }
        }
        if command.drain && !self.draining {
            self.draining = true;
            self.listeners.clear();
            self.pending_accepts.clear();
            let idle: Vec<SlotId> = self
                .clients
                .iter()
                .filter(|(_, c)| c.is_idle() && c.input.is_empty())
                .map(|(id, _)| id)
                .collect();
            idle.into_iter().for_each(|id| self.drop_client(id));
        }
    }

    fn should_end(&self) -> bool {
        let is_quiet = self.clients.iter().all(|(_, c)| match c.state {
            State::Head => c.output.is_empty(),
            State::Lingering => true,
            _ => false,
        });
        let mut command = self.shared.command.lock();
        if is_quiet && !command.is_quiet {
            command.is_quiet = true;
            self.shared.quiet.notify_all();
        }
        command.end_at.is_some_and(|at| is_quiet || self.now >= at)
    }

    fn accept_all(&mut self) {
        if self.accept_paused_until.is_some_and(|t| self.now < t) {
            return;
        }
        self.accept_paused_until = None;
        for i in 0..self.pending_accepts.len() {
            for turn in 0..=ACCEPTS_PER_TURN {
                if !self.pending_accepts[i] || turn == ACCEPTS_PER_TURN {
                    break;
                }
                if self.clients.len() >= self.limits.connections && !self.evict_one() {
                    self.accept_paused_until = Some(self.now + ACCEPT_PAUSE);
                    return;
                }
                self.accept_one(i);
            }
        }
    }

    fn accept_one(&mut self, listener: usize) {
        match self.listeners[listener].accept() {
            Ok((stream, origin)) => {
                self.stats.accepted.add_one();
                let mut client = Client::new(stream, origin, self.now);
                client.deadline = Some(self.now + self.limits.head_timeout);
                let token = pack(Place::Client, self.clients.next_id());
                if let Err(e) = client.stream.register(self.poll.registry(), token) {
                    log::warn!("a connection can't be watched: {e}");
                    return;
                }
                let _ = self.clients.insert(client);
                self.stats.connections.set(self.clients.len());
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.pending_accepts[listener] = false,
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(e) => self.accept_failed(listener, &e),
        }
    }

    /// Most likely there are no descriptors left: an idle client gives up its own, or the reserve
    /// serves to turn the new client away at once instead of letting it hang.
    fn accept_failed(&mut self, listener: usize, error: &io::Error) {
        self.stats.accept_failures.add_one();
        if self.evict_one() {
            return;
        }
        log::warn!("a connection can't be accepted: {error}");
        if self.spare.take().is_some()
            && let Ok((mut stream, _)) = self.listeners[listener].accept()
        {
            let _ = stream.write(&Refusal::busy().to_bytes(false));
        }
        self.spare = File::open("/dev/null").ok();
        self.accept_paused_until = Some(self.now + ACCEPT_PAUSE);
    }

    /// Closes the connection that has been idle for longest, and says whether there was one.
    fn evict_one(&mut self) -> bool {
        let oldest = self.clients.iter().filter(|(_, c)| c.is_idle()).min_by_key(|(_, c)| c.since);
        let Some(id) = oldest.map(|(id, _)| id) else { return false };
        self.stats.evicted.add_one();
        self.drop_client(id);
        true
    }

    fn tick(&mut self) {
        let now = self.now;
        let late: Vec<SlotId> = self
            .clients
            .iter()
            .filter(|(_, c)| c.deadline.is_some_and(|d| d <= now))
            .map(|(id, _)| id)
            .collect();
        late.into_iter().for_each(|id| self.deadline_passed(id));
        self.close_surplus_lanes();
    }

    fn deadline_passed(&mut self, id: SlotId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        match &client.state {
            State::Head if client.input.is_empty() => self.drop_client(id),
            State::Head | State::Body(_) => self.refuse(id, Refusal::silent()),
            State::Streaming(..) if client.output.is_empty() => self.refuse(id, Refusal::silent()),
            State::Queued(_) if !client.read_closed => self.refuse(id, Refusal::busy()),
            _ => self.drop_client(id),
        }
    }
}

/// Whose event it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Client,
    Lane,
}

/// Packs kind, generation and index into a token: bit 62 set, 30 bits, 31 bits, 1 bit.
pub(super) fn pack(place: Place, id: SlotId) -> Token {
    let kind = usize::from(place == Place::Lane);
    let generation = (id.generation & GENERATION_MASK) as usize;
    Token(FIRST_SLOT_TOKEN | generation << 32 | (id.index as usize) << 1 | kind)
}

fn unpack(token: Token) -> (Place, SlotId) {
    let place = if token.0 & 1 == 1 { Place::Lane } else { Place::Client };
    let generation = (token.0 >> 32) as u32 & GENERATION_MASK;
    (place, SlotId { index: (token.0 as u32) >> 1, generation })
}
