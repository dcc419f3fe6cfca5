//! From a client's bytes to a request: heads, bodies, refusals, and how a client ends.

use std::{io, time::Duration};

use super::{
    backend::Kind,
    client::{Body, Client, Current, State},
    dispatch::Waiting,
    head::{BodyFraming, RequestHead, leading_empty_lines, parse_head},
    lane::Class,
    refusal::Refusal,
    run::{Looper, Place, pack},
    slots::SlotId,
};

/// Reads in one turn of one connection, so that a fast sender does not starve the others.
const READS_PER_TURN: usize = 8;

/// What a read found.
enum Found {
    Bytes,
    NothingYet,
    TheEnd,
}

impl Looper {
    /// Goes on with a client as far as its bytes reach.
    pub(super) fn drive_client(&mut self, id: SlotId) {
        for _ in 0..READS_PER_TURN {
            let Some(client) = self.clients.get_mut(id) else { return };
            let goes_on = match &client.state {
                State::Head => self.drive_head(id),
                State::Body(_) => self.drive_body(id),
                State::Streaming(..) => self.drive_stream(id),
                State::Lingering => self.drive_linger(id),
                State::Queued(_) | State::Running(_) | State::Closing { .. } => false,
            };
            if !goes_on {
                return;
            }
        }
        self.again.push((Place::Client, id));
    }

    /// Reads once into the client's input. A connection that ended or broke in here is dropped,
    /// whatever it was about to ask.
    fn read_client(&mut self, id: SlotId) -> Found {
        let Some(client) = self.clients.get_mut(id) else { return Found::TheEnd };
        if !client.readable {
            return Found::NothingYet;
        }
        match client.read(&mut self.scratch) {
            Ok(n) if n > 0 => Found::Bytes,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Found::NothingYet
            }
            _ => {
                self.drop_client(id);
                Found::TheEnd
            }
        }
    }

    fn drive_head(&mut self, id: SlotId) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return false };
        // The next request waits until the answer to the one before is on its way.
        if !client.output.is_empty() {
            return false;
        }
        let was_empty = client.input.is_empty();
        if was_empty && !matches!(self.read_client(id), Found::Bytes) {
            return false;
        }
        let Some(client) = self.clients.get_mut(id) else { return false };
        let empty_lines = leading_empty_lines(&client.input);
        if empty_lines > 0 && client.scan == Default::default() {
            client.input.drain(..empty_lines);
        }
        match parse_head(&client.input, &mut client.scan, &self.limits) {
            Err(refusal) => {
                self.refuse(id, refusal);
                false
            }
            Ok(Some((head, used))) => {
                client.input.drain(..used);
                client.scan = Default::default();
                self.take_head(id, head);
                true
            }
            Ok(None) => {
                if was_empty {
                    client.deadline = Some(self.now + self.limits.head_timeout);
                    return true;
                }
                matches!(self.read_client(id), Found::Bytes)
            }
        }
    }

    fn take_head(&mut self, id: SlotId, head: RequestHead) {
        let Some(client) = self.clients.get_mut(id) else { return };
        client.current =
            Current { keep_alive: head.keep_alive, is_http10: head.is_http10, is_head: head.is_head };
        client.has_host = head.has_host;
        if self.draining {
            self.refuse(id, Refusal::stopping());
            return;
        }
        if self.token.as_ref().is_some_and(|token| !token.is(head.bearer.as_deref())) {
            self.refuse(id, Refusal::unauthorized());
            return;
        }
        let is_long = std::str::from_utf8(head.target()).is_ok_and(self.is_long);
        if head.body == BodyFraming::Length(0) {
            let class = if is_long { Class::Long } else { Class::Quick };
            let mut request = head.forward;
            self.finish_head(&mut request, id, Kind::Held, Some(0));
            self.enqueue(id, request, class, None);
            return;
        }
        if head.expects_continue
            && client.input.is_empty()
            && client.send(CONTINUE, (self.poll.registry(), pack(Place::Client, id))).is_err()
        {
            self.drop_client(id);
            return;
        }
        client.state = State::Body(Box::new(Body::new(head.body, head.forward, is_long, self.now)));
        client.deadline = Some(self.now + self.limits.body_idle);
    }

    /// Adds what the gate itself has to say to a head, and ends it.
    fn finish_head(&mut self, head: &mut Vec<u8>, id: SlotId, kind: Kind, length: Option<usize>) {
        let Some(client) = self.clients.get_mut(id) else { return };
        self.gate_lines.append(head, client.origin, kind, id);
        match length {
            Some(0) => head.extend_from_slice(b"\r\n"),
            Some(n) => head.extend_from_slice(format!("Content-Length: {n}\r\n\r\n").as_bytes()),
            None => head.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n"),
        }
    }

    fn drive_body(&mut self, id: SlotId) -> bool {
        let held_limit = self.limits.held_body_bytes as u64;
        let Some(client) = self.clients.get_mut(id) else { return false };
        let State::Body(body) = &mut client.state else { return false };
        if let Err(refusal) = body.take(&mut client.input) {
            self.refuse(id, refusal);
            return false;
        }
        let is_too_long_to_hold = body.received_bytes > held_limit
            || matches!(body.left, super::client::BodyLeft::Length(left) if left + body.received_bytes > held_limit);
        if body.is_done() || is_too_long_to_hold {
            self.body_to_queue(id);
            return true;
        }
        self.read_more_body(id)
    }

    /// Reads on; what comes moves the deadline of the body.
    fn read_more_body(&mut self, id: SlotId) -> bool {
        let deadline = self.body_deadline(id);
        match self.read_client(id) {
            Found::Bytes => {
                if let Some(client) = self.clients.get_mut(id) {
                    client.deadline = deadline;
                }
                true
            }
            _ => false,
        }
    }

    fn body_to_queue(&mut self, id: SlotId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let State::Body(mut body) = std::mem::replace(&mut client.state, State::Head) else { return };
        let mut request = std::mem::take(&mut body.head);
        if body.is_done() && body.received_bytes <= self.limits.held_body_bytes as u64 {
            let class = if body.is_long { Class::Long } else { Class::Quick };
            self.finish_head(&mut request, id, Kind::Held, Some(body.held.len()));
            request.extend_from_slice(&body.held);
            self.enqueue(id, request, class, None);
        } else {
            self.finish_head(&mut request, id, Kind::Marked, None);
            self.enqueue(id, request, Class::Streaming, Some(body));
        }
    }

    /// A body must not stand still, nor crawl for ever.
    fn body_deadline(&mut self, id: SlotId) -> Option<std::time::Instant> {
        let client = self.clients.get_mut(id)?;
        let (State::Body(body) | State::Streaming(_, body)) = &client.state else { return None };
        let fair = Duration::from_secs(body.received_bytes / self.limits.body_bytes_per_second.max(1));
        Some((self.now + self.limits.body_idle).min(body.started + self.limits.body_idle + fair))
    }

    /// Passes a long body on, no faster than its lane takes it.
    fn drive_stream(&mut self, id: SlotId) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return false };
        let State::Streaming(lane_id, body) = &mut client.state else { return false };
        let lane_id = *lane_id;
        let Some(lane) = self.lanes.get_mut(lane_id) else { return false };
        if lane.output.len() > self.limits.held_body_bytes {
            // It is the handler that is slow, not the client.
            client.deadline = Some(self.now + self.limits.body_idle);
            return false;
        }
        if let Err(refusal) = body.take(&mut client.input) {
            self.refuse(id, refusal);
            return false;
        }
        if body.received_bytes > self.limits.body_bytes {
            let refusal = Refusal::too_large(self.limits.body_bytes);
            self.refuse(id, refusal);
            return false;
        }
        let mut piece = Vec::with_capacity(body.held.len() + 64);
        if !body.held.is_empty() {
            append_chunk(&mut piece, &body.held);
            body.held.clear();
        }
        let is_done = body.is_done();
        if is_done {
            // The mark says that this is the end: a lane that is cut looks like an end too.
            append_chunk(&mut piece, self.secret.as_bytes());
            piece.extend_from_slice(b"0\r\n\r\n");
        }
        if lane.send(&piece, (self.poll.registry(), pack(Place::Lane, lane_id))).is_err() {
            self.lane_takes_no_more(lane_id);
            return false;
        }
        if is_done {
            client.state = State::Running(lane_id);
            client.deadline = client.read_closed.then(|| self.now + self.limits.half_closed_grace);
            client.shrink();
            return false;
        }
        self.read_more_body(id)
    }

    fn drive_linger(&mut self, id: SlotId) -> bool {
        let found = self.read_client(id);
        if let Some(client) = self.clients.get_mut(id) {
            client.input.clear();
        }
        matches!(found, Found::Bytes)
    }

    /// Answers by itself and ends the connection.
    pub(super) fn refuse(&mut self, id: SlotId, refusal: Refusal) {
        self.release_request(id);
        let Some(client) = self.clients.get_mut(id) else { return };
        self.stats.refused.add_one();
        let bytes = refusal.to_bytes(client.current.is_head);
        client.state = State::Closing { linger: true };
        client.deadline = Some(self.now + self.limits.write_stall);
        if client.send(&bytes, (self.poll.registry(), pack(Place::Client, id))).is_err() {
            self.drop_client(id);
            return;
        }
        self.end_if_written(id);
    }

    /// In `Closing`, once all is written: ends the connection, or waits for the client to see why.
    pub(super) fn end_if_written(&mut self, id: SlotId) {
        let Some(client) = self.clients.get_mut(id) else { return };
        let State::Closing { linger } = client.state else { return };
        if !client.output.is_empty() {
            return;
        }
        if !linger {
            self.drop_client(id);
            return;
        }
        // Closing with unread bytes would reset the connection, and the client lose the answer.
        client.stream.shutdown_write();
        client.state = State::Lingering;
        client.deadline = Some(self.now + self.limits.linger);
        client.input = Vec::new();
        self.again.push((Place::Client, id));
    }

    /// Ends a connection at once, and whatever runs for it.
    pub(super) fn drop_client(&mut self, id: SlotId) {
        if self.release_request(id) {
            self.stats.abandoned.add_one();
        }
        if self.clients.remove(id).is_some() {
            self.stats.connections.set(self.clients.len());
        }
    }

    /// Takes a client's request out of the queue or off its lane, and says whether there was one.
    fn release_request(&mut self, id: SlotId) -> bool {
        match self.clients.get_mut(id).map(|c: &mut Client| &c.state) {
            Some(State::Running(lane) | State::Streaming(lane, _)) => {
                let lane = *lane;
                self.kill_lane(lane);
                true
            }
            Some(State::Queued(_)) => {
                self.queues.iter_mut().for_each(|q| q.retain(|w: &Waiting| w.client != id));
                true
            }
            _ => false,
        }
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn append_chunk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}
