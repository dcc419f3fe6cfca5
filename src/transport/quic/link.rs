//! One link: a QUIC connection, who is at its other end, and how far it is.
//!
//! ```text
//! Handshake ── both keys shown and admitted ──> Proof ── the cluster's secret proved ──> Up
//! ```
//!
//! The proof is a keyed hash over what TLS has both sides agree on for this connection alone, so it is
//! worth nothing on any other. A cluster without a secret proves that it has none. No frame goes out or
//! comes in before.
//!
//! A link is known by the address that it was made with. It stays so when the peer's packets come from
//! another one later, as behind a NAT: QUIC finds out that it is the same peer.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Connection, ConnectionError, Event, StreamEvent, StreamId, VarInt};
use rustls::pki_types::CertificateDer;

use super::{
    inbox::{Broken, Inbox},
    limits::{HANDSHAKE_WITHIN, KEEP_ALIVE, PAD_AFTER, SILENT_FOR},
    outbox::Outbox,
    tls::key_of,
};
use crate::model::PublicKey;

/// Why a link is closed, as the other side is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Farewell {
    /// Nothing is wrong.
    Done = 0,
    /// It took too long to be made, or was silent for too long.
    Late = 1,
    /// The cluster's secret was not proved.
    Secret = 2,
    /// It did not keep to the protocol.
    Broken = 3,
    /// Its key is no member's any more.
    Removed = 4,
    /// There are too many of them.
    Many = 5,
}

/// How far a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    Handshake,
    Proof,
    Up,
    /// Nothing goes in or out any more; what is left is taken from its inbox.
    Over,
}

pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) addr: SocketAddr,
    /// Whether this node began it.
    pub(super) is_ours: bool,
    pub(super) phase: Phase,
    pub(super) key: Option<PublicKey>,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    /// Whether it is in the line of those that have something to write.
    pub(super) is_dirty: bool,
    /// Whether it is in the line of those that may have frames.
    pub(super) is_waiting: bool,
    /// Whether frames to its address go out here.
    pub(super) is_used: bool,
    /// Whether the other side has proved that it knows the secret, and its frames are taken.
    pub(super) was_proved: bool,
    /// Whether its end is to be told once its frames are taken.
    pub(super) says_closed: bool,
    /// Under what time it stands in the timers.
    pub(super) timer: Option<Instant>,
    /// The end of its ordered stream that a stop waits for.
    pub(super) ending: Option<StreamId>,
    born: Instant,
    heard: Instant,
    /// When it was sent something that it has to answer, since it was heard of last.
    asked: Option<Instant>,
    /// How often it was sent padding since then.
    padded: u32,
    /// Of what asks for an answer, how much was sent so far.
    questions: u64,
}

/// What a link's own clock says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Due {
    Nothing,
    /// It took too long to be made.
    Unmade,
    /// The peer does not answer.
    Silent,
}

impl Link {
    pub(super) fn new(connection: Connection, addr: SocketAddr, is_ours: bool, now: Instant) -> Self {
        Self {
            connection,
            addr,
            is_ours,
            phase: Phase::Handshake,
            key: None,
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            is_dirty: false,
            is_waiting: false,
            is_used: false,
            was_proved: false,
            says_closed: false,
            timer: None,
            ending: None,
            born: now,
            heard: now,
            asked: None,
            padded: 0,
            questions: 0,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        (self.heard, self.asked, self.padded) = (now, None, 0);
    }

    /// Packets were written. What is not acknowledged is written again, so a peer that is gone is asked
    /// again, too.
    pub(super) fn wrote(&mut self, now: Instant) {
        let sent = self.connection.stats().frame_tx;
        let questions = sent.stream + sent.ping + sent.immediate_ack;
        if std::mem::replace(&mut self.questions, questions) < questions {
            self.asked.get_or_insert(now);
        }
    }

    /// When it wants to be looked at again.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Handshake | Phase::Proof => Some(self.born + HANDSHAKE_WITHIN),
            Phase::Up => match self.asked {
                Some(asked) => Some((asked + SILENT_FOR).min(self.pad_at(asked))),
                None => self.is_used.then_some(self.heard + KEEP_ALIVE),
            },
            Phase::Over => None,
        };
        own.into_iter().chain(self.connection.poll_timeout()).min()
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Instant) -> Due {
        self.connection.handle_timeout(now);
        match self.phase {
            Phase::Handshake | Phase::Proof if now >= self.born + HANDSHAKE_WITHIN => Due::Unmade,
            Phase::Up if self.asked.is_some_and(|asked| now >= asked + SILENT_FOR) => Due::Silent,
            Phase::Up if self.asked.is_some_and(|asked| now >= self.pad_at(asked)) => {
                self.padded += 1;
                self.outbox.pad();
                Due::Nothing
            }
            Phase::Up if self.asked.is_none() && self.is_used && now >= self.heard + KEEP_ALIVE => {
                self.connection.ping();
                Due::Nothing
            }
            _ => Due::Nothing,
        }
    }

    /// When a peer that was asked then, and does not answer, is sent padding next.
    fn pad_at(&self, asked: Instant) -> Instant {
        asked + PAD_AFTER.max(2 * self.connection.rtt()) * 3_u32.saturating_pow(self.padded)
    }

    /// Takes in what happened on the connection; an end is returned.
    pub(super) fn events(&mut self, secret: &[u8; 32]) -> Option<ConnectionError> {
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.connected(secret),
                Event::ConnectionLost { reason } => return Some(reason),
                Event::Stream(StreamEvent::Opened { .. }) => self.inbox.opened(&mut self.connection),
                Event::Stream(StreamEvent::Readable { id }) => self.inbox.readable(id),
                Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) => {
                    self.outbox.acked(id);
                    self.ending = self.ending.filter(|ending| *ending != id);
                }
                _ => {}
            }
        }
        None
    }

    /// Looks whether the other side has proved that it knows the secret.
    pub(super) fn check_proof(&mut self, secret: &[u8; 32]) -> Result<bool, Farewell> {
        if self.phase != Phase::Proof {
            return Ok(false);
        }
        let first = self.inbox.next_short(&mut self.connection).map_err(|Broken| Farewell::Broken)?;
        let Some(first) = first else { return Ok(false) };
        let expected = proof(&self.connection, secret, !self.is_ours).ok_or(Farewell::Broken)?;
        let shown = <[u8; 32]>::try_from(&first[..]).map_err(|_| Farewell::Broken)?;
        // Compared in constant time.
        match blake3::Hash::from_bytes(shown) == expected {
            true => {
                (self.phase, self.was_proved) = (Phase::Up, true);
                Ok(true)
            }
            false => Err(Farewell::Secret),
        }
    }

    /// Writes what there is to write into the connection.
    pub(super) fn pump(&mut self) {
        if self.phase == Phase::Up && !self.outbox.is_empty() {
            self.outbox.pump(&mut self.connection);
        }
    }

    /// Ends it. What has come in can still be taken.
    pub(super) fn close(&mut self, now: Instant, why: Farewell) {
        self.connection.close(now, VarInt::from_u32(why as u32), Bytes::new());
        self.phase = Phase::Over;
    }

    /// How long it has been there.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.born)
    }

    fn connected(&mut self, secret: &[u8; 32]) {
        let shown = self.connection.crypto_session().peer_identity();
        let shown = shown.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        self.key = shown.and_then(|shown| key_of(shown.first()?));
        let Some(proof) = proof(&self.connection, secret, self.is_ours) else { return };
        if self.key.is_some() && self.outbox.open(&mut self.connection, proof.as_bytes()) {
            self.phase = Phase::Proof;
        }
    }
}

/// What the side that began the link, or the other one, shows.
fn proof(connection: &Connection, secret: &[u8; 32], of_beginner: bool) -> Option<blake3::Hash> {
    let mut agreed = [0; 32];
    let side: &[u8] = if of_beginner { b"began" } else { b"answered" };
    let exported =
        connection.crypto_session().export_keying_material(&mut agreed, b"EXPORTER-turbopump-secret", side);
    exported.ok().map(|()| blake3::keyed_hash(secret, &agreed))
}
