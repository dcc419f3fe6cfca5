//! The conformance suite for a [`Transport`]: what every one of them promises, clause by clause.
//!
//! It starts transports on small mio loops of its own ([`Station`]), all on the calling thread,
//! and panics with the promise that was broken. It measures nothing, and it does not look below
//! the trait: what is special to one transport is tested next to it.
//!
//! ```
//! use turbopump::{testing::transport::TransportSuite, transport::MemoryNetwork};
//!
//! let network = MemoryNetwork::new();
//! TransportSuite::new("127.0.0.1:0".parse().unwrap(), move |addr| {
//!     Box::new(network.transport_at(addr))
//! })
//! .run();
//! ```
//!
//! Limits: a clause gives up after [`PATIENCE`] (bounded waits, no sleeps); the whole suite holds at
//! most [`STALL_BYTES`] of frames that nobody reads.

mod station;

pub use station::Station;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::transport::{MIN_MAX_FRAME_BYTES, SendError, Transport};

/// How long a clause waits for something that was promised.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How many bytes a transport may take for a peer that reads nothing, before it must refuse.
pub const STALL_BYTES: usize = 64 * 1024 * 1024;

/// How long one call that must not block may take; generous, since tests share their processors.
const CALL_TIME: Duration = Duration::from_millis(250);
/// How much longer than asked for a stop may take.
const STOP_SLACK: Duration = Duration::from_millis(500);
/// A frame that may be lost is sent again after this long.
const RESEND_AFTER: Duration = Duration::from_millis(50);
const MANY_PEERS: usize = 12;
const MANY_FRAMES: usize = 2_000;

/// Makes an unstarted transport for an address; port 0 means any free one. It is asked for a
/// given port only to start a transport again where one was stopped before.
type Maker = Box<dyn FnMut(SocketAddr) -> Box<dyn Transport>>;

/// Runs all clauses against the transports that a maker makes. See the [module](self).
pub struct TransportSuite {
    make: Maker,
    any_addr: SocketAddr,
    reliable: bool,
}

impl TransportSuite {
    /// A suite for the transports that `make` returns, not started yet, each for the address that
    /// it is given: `any_addr` (whose port should be 0), or one that `start` returned earlier.
    pub fn new(any_addr: SocketAddr, make: impl FnMut(SocketAddr) -> Box<dyn Transport> + 'static) -> Self {
        Self { make: Box::new(make), any_addr, reliable: true }
    }

    /// Says that frames between two live peers may get lost. Without it, each frame that was taken
    /// has to arrive.
    pub fn may_lose(mut self) -> Self {
        self.reliable = false;
        self
    }

    /// Runs every clause.
    ///
    /// # Panics
    /// With the promise that was broken.
    pub fn run(mut self) {
        self.a_start_says_where_it_is();
        self.frames_arrive_unchanged_both_ways();
        self.a_frame_that_is_too_long_is_refused();
        self.many_frames_arrive();
        self.a_poll_keeps_to_its_limit();
        self.many_peers_are_told_apart();
        self.a_send_to_nobody_neither_blocks_nor_disturbs();
        self.a_stalled_peer_is_not_queued_for_without_bound();
        self.a_closed_peer_can_be_sent_to_again();
        self.a_peer_that_restarts_at_its_address_is_reached_again();
        self.a_stop_returns_in_time();
    }

    fn station(&mut self) -> Station {
        Station::start((self.make)(self.any_addr))
    }

    fn a_start_says_where_it_is(&mut self) {
        let station = self.station();
        let transport = &station.transport;
        assert_ne!(station.addr.port(), 0, "`start` returns the port that was picked");
        assert_eq!(station.addr.ip(), self.any_addr.ip(), "`start` returns the address it bound");
        assert!(
            transport.max_frame_bytes() >= MIN_MAX_FRAME_BYTES,
            "`max_frame_bytes` is at least {MIN_MAX_FRAME_BYTES}"
        );
        assert!(
            !transport.kind().is_empty() && transport.kind().bytes().all(|b| b.is_ascii_lowercase()),
            "`kind` is one short lowercase word"
        );
    }

    fn frames_arrive_unchanged_both_ways(&mut self) {
        let (mut a, mut b) = (self.station(), self.station());
        let to = b.addr;
        let longest = a.transport.max_frame_bytes();
        // Around 1,456 and 1,500 lie the packet sizes of the usual networks.
        let lengths = [1, 2, 100, 1_199, 1_200, 1_448, 1_452, 1_456, 1_460, 2_908, 2_912, 4_096]
            .into_iter()
            .filter(|length| *length < longest - 1)
            .chain([longest - 1, longest]);
        for (number, length) in lengths.enumerate() {
            let there = frame(number, length);
            let from = self.deliver(&mut a, &mut b, to, &there);
            let back = frame(number + 1_000, length);
            self.deliver(&mut b, &mut a, from, &back);
        }
    }

    fn a_frame_that_is_too_long_is_refused(&mut self) {
        let (mut a, mut b) = (self.station(), self.station());
        let longest = a.transport.max_frame_bytes();
        let refusal = a.transport.send(b.addr, frame(0, longest + 1));
        assert!(
            matches!(refusal, Err(SendError::TooLong)),
            "a frame longer than `max_frame_bytes` is refused with `TooLong`, got {refusal:?}"
        );
        let to = b.addr;
        self.deliver(&mut a, &mut b, to, &frame(1, 100));
        assert!(
            b.frames.iter().all(|(_, frame)| frame.len() <= longest),
            "a frame that was refused never arrives"
        );
    }

    fn many_frames_arrive(&mut self) {
        let (mut a, mut b) = (self.station(), self.station());
        let to = b.addr;
        self.deliver(&mut a, &mut b, to, &frame(MANY_FRAMES, 100));
        let mut arrived = vec![false; MANY_FRAMES];
        let deadline = Instant::now() + PATIENCE;
        let mut next = 0;
        loop {
            while next < MANY_FRAMES && a.offer(to, &frame(next, 100)) {
                next += 1;
            }
            a.turn();
            b.turn();
            for (_, got) in b.frames.drain(..) {
                let number = number_of(&got);
                assert_eq!(got, frame(number, 100), "a frame arrives unchanged");
                if number < MANY_FRAMES {
                    arrived[number] = true;
                }
            }
            let count = arrived.iter().filter(|arrived| **arrived).count();
            if count == MANY_FRAMES || (!self.reliable && next == MANY_FRAMES && count > 0) {
                return;
            }
            assert!(Instant::now() < deadline, "each frame that was taken arrives: {count} of {next} did");
        }
    }

    fn a_poll_keeps_to_its_limit(&mut self) {
        let (mut a, mut b) = (self.station(), self.station());
        let to = b.addr;
        self.deliver(&mut a, &mut b, to, &frame(100, 100));
        for number in 0..20 {
            self.send_taken(&mut a, to, &frame(number, 100));
        }
        let deadline = Instant::now() + PATIENCE;
        let mut total = 0;
        while total == 0 || (self.reliable && total < 20) {
            a.turn();
            b.wait();
            let mut more = true;
            while more {
                let mut events = 0;
                more = b.transport.poll(3, &mut |_| events += 1);
                assert!(events <= 3, "`poll` hands out at most `limit` events");
                total += events;
            }
            assert!(Instant::now() < deadline, "`poll` says so while more is waiting");
        }
        assert!(
            !b.transport.poll(0, &mut |_| panic!("`poll` with a limit of 0 hands out nothing"))
                || !self.reliable,
            "`poll` does not claim that more is waiting once all was handed out"
        );
    }

    fn many_peers_are_told_apart(&mut self) {
        let mut hub = self.station();
        let mut peers: Vec<Station> = (0..MANY_PEERS).map(|_| self.station()).collect();
        for (number, peer) in peers.iter_mut().enumerate() {
            let to = peer.addr;
            let from = self.deliver(&mut hub, peer, to, &frame(number, 300));
            let answered = self.deliver(peer, &mut hub, from, &frame(number + 100, 300));
            assert_eq!(
                answered, to,
                "an answer over the connection that we made comes from the address we sent to"
            );
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            let to = peer.addr;
            self.deliver(&mut hub, peer, to, &frame(number + 200, 300));
            assert!(peer.frames.is_empty(), "a frame reaches nobody but the peer that it was sent to");
        }
    }

    fn a_send_to_nobody_neither_blocks_nor_disturbs(&mut self) {
        let nobody = self.station();
        let nobodys_addr = nobody.addr;
        nobody.stop(Duration::from_millis(100));
        let (mut a, mut b) = (self.station(), self.station());
        for number in 0..100 {
            let begin = Instant::now();
            // Taken, refused or unreachable are all fine; waiting for an answer is not.
            let _ = a.transport.send(nobodys_addr, frame(number, 100));
            assert!(begin.elapsed() < CALL_TIME, "`send` to an absent peer does not block");
            a.turn();
        }
        let to = b.addr;
        self.deliver(&mut a, &mut b, to, &frame(7, 100));
    }

    fn a_stalled_peer_is_not_queued_for_without_bound(&mut self) {
        let (mut a, mut b) = (self.station(), self.station());
        let to = b.addr;
        self.deliver(&mut a, &mut b, to, &frame(0, 100));
        let length = a.transport.max_frame_bytes();
        let mut taken_bytes = 0;
        let refused = loop {
            let offered = frame(taken_bytes / length, length);
            let begin = Instant::now();
            let result = a.transport.send(to, offered.clone());
            assert!(begin.elapsed() < CALL_TIME, "`send` to a stalled peer does not block");
            match result {
                Ok(()) => taken_bytes += length,
                Err(SendError::Full(returned)) => {
                    assert_eq!(returned, offered, "a frame that was not taken comes back unchanged");
                    break true;
                }
                Err(error) => panic!("a stalled peer is `Full`, not {error:?}"),
            }
            if taken_bytes > STALL_BYTES {
                break false;
            }
        };
        assert!(
            refused || !self.reliable,
            "the queue to a peer that reads nothing is bounded: {taken_bytes} bytes were taken"
        );
        // And it recovers: everything in the way is read, then a new frame comes through.
        b.frames.clear();
        self.deliver(&mut a, &mut b, to, &frame(0xfeed, 100));
    }

    fn a_closed_peer_can_be_sent_to_again(&mut self) {
        let (mut a, mut b) = (self.station(), self.station());
        let to = b.addr;
        let from = self.deliver(&mut a, &mut b, to, &frame(1, 100));
        a.transport.close(to);
        self.deliver_at_last(&mut a, &mut b, to, &frame(2, 100));
        b.transport.close(from);
        self.deliver_at_last(&mut a, &mut b, to, &frame(3, 100));
    }

    fn a_peer_that_restarts_at_its_address_is_reached_again(&mut self) {
        let (mut a, mut b) = (self.station(), self.station());
        let to = b.addr;
        self.deliver(&mut a, &mut b, to, &frame(1, 100));
        b.stop(Duration::from_millis(500));
        a.turn();
        let mut b = Station::start((self.make)(to));
        assert_eq!(b.addr, to, "a transport starts at the address that it is given");
        self.deliver_at_last(&mut a, &mut b, to, &frame(2, 100));
    }

    fn a_stop_returns_in_time(&mut self) {
        let nobody = self.station();
        let nobodys_addr = nobody.addr;
        nobody.stop(Duration::from_millis(100));
        let (mut a, mut b) = (self.station(), self.station());
        let to = b.addr;
        self.deliver(&mut a, &mut b, to, &frame(1, 100));
        for number in 0..200 {
            let _ = a.transport.send(to, frame(number, a.transport.max_frame_bytes()));
            let _ = a.transport.send(nobodys_addr, frame(number, 100));
        }
        for (station, within) in [(a, Duration::from_millis(300)), (b, Duration::ZERO)] {
            let begin = Instant::now();
            station.stop(within);
            assert!(
                begin.elapsed() <= within + STOP_SLACK,
                "`stop` returns within its bound of {within:?}: it took {:?}",
                begin.elapsed()
            );
        }
    }

    /// Sends until it is there, once where nothing may be lost, and says what address it came from.
    fn deliver(
        &self,
        sender: &mut Station,
        receiver: &mut Station,
        to: SocketAddr,
        frame: &Bytes,
    ) -> SocketAddr {
        deliver(sender, receiver, to, frame, !self.reliable)
    }

    /// Like `deliver`, for a connection that may have to be found dead and made again first.
    fn deliver_at_last(&self, sender: &mut Station, receiver: &mut Station, to: SocketAddr, frame: &Bytes) {
        deliver(sender, receiver, to, frame, true);
    }

    fn send_taken(&self, sender: &mut Station, to: SocketAddr, frame: &Bytes) {
        let deadline = Instant::now() + PATIENCE;
        while !sender.offer(to, frame) {
            sender.turn();
            assert!(Instant::now() < deadline, "a full queue has room again at some time");
        }
    }
}

fn deliver(
    sender: &mut Station,
    receiver: &mut Station,
    to: SocketAddr,
    frame: &Bytes,
    again: bool,
) -> SocketAddr {
    let deadline = Instant::now() + PATIENCE;
    let mut taken = false;
    let mut send_at = Instant::now();
    loop {
        let due = !taken || (again && Instant::now() >= send_at);
        if due && sender.offer(to, frame) {
            taken = true;
            send_at = Instant::now() + RESEND_AFTER;
        }
        sender.turn();
        receiver.turn();
        let arrived = receiver.frames.iter().position(|(_, got)| got == frame);
        if let Some(at) = arrived {
            return receiver.frames.swap_remove(at).0;
        }
        assert!(
            Instant::now() < deadline,
            "a {} frame of {} bytes to {to} arrives, unchanged (taken: {taken})",
            sender.transport.kind(),
            frame.len()
        );
    }
}

/// A frame of this length whose bytes depend on its number and their place.
fn frame(number: usize, length: usize) -> Bytes {
    let mut bytes: Vec<u8> = (0..length).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ number) as u8).collect();
    let name = (number as u64).to_be_bytes();
    let named = name.len().min(length);
    bytes[..named].copy_from_slice(&name[name.len() - named..]);
    bytes.into()
}

fn number_of(frame: &Bytes) -> usize {
    let mut name = [0; 8];
    let named = frame.len().min(8);
    name[8 - named..].copy_from_slice(&frame[..named]);
    u64::from_be_bytes(name) as usize
}
