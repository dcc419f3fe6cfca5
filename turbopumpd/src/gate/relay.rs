//! From `tiny_http`'s answer to the client: whole and in one write where it is short, else in
//! pieces, no faster than the client takes them.

use std::io;

use mio::event::Event;

use super::{
    answer::{AnswerHead, parse_answer},
    client::State,
    lane::{Answer, Phase},
    run::{Looper, Place, pack},
    slots::SlotId,
};

/// Reads in one turn of one lane, so that a long answer does not starve the others.
const READS_PER_TURN: usize = 8;

impl Looper {
    pub(super) fn lane_event(&mut self, id: SlotId, event: &Event) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        lane.readable |= event.is_readable() || event.is_error();
        if event.is_read_closed() {
            lane.read_closed = true;
            lane.readable = true;
        }
        if event.is_writable() && !lane.output.is_empty() {
            if lane.flush((self.poll.registry(), pack(Place::Lane, id))).is_err() {
                self.lane_takes_no_more(id);
                return;
            }
            if let Phase::Busy(client) = lane.phase {
                self.drive_client(client);
            }
        }
        self.relay(id);
    }

    /// Reads what a lane has, as far as its client can take it.
    pub(super) fn relay(&mut self, id: SlotId) {
        for _ in 0..READS_PER_TURN {
            let Some(lane) = self.lanes.get_mut(id) else { return };
            if !lane.readable {
                return;
            }
            if let (Phase::Busy(client), Answer::Streaming { .. }) = (lane.phase, lane.answer) {
                let unsent = self.clients.get_mut(client).map_or(0, |c| c.output.len());
                if unsent >= self.limits.held_answer_bytes {
                    return;
                }
            }
            match lane.read(&mut self.scratch) {
                Ok(n) if n > 0 => {
                    let scratch = std::mem::take(&mut self.scratch);
                    self.lane_bytes(id, &scratch[..n]);
                    self.scratch = scratch;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    self.lane_lost(id);
                    return;
                }
            }
        }
        self.again.push((Place::Lane, id));
    }

    fn lane_bytes(&mut self, id: SlotId, bytes: &[u8]) {
        let Some(lane) = self.lanes.get_mut(id) else { return };
        match (lane.phase, lane.answer) {
            // An idle lane has nothing to say: this answer has no request.
            (Phase::Free, _) => self.kill_lane(id),
            (Phase::Busy(client), Answer::Streaming { left_bytes }) => {
                let Some(bytes) = lane.of_the_answer(bytes, left_bytes) else {
                    self.lane_lost(id);
                    return;
                };
                let n = bytes.len() as u64;
                lane.answer = Answer::Streaming { left_bytes: left_bytes - n };
                if self.pass_on(client, bytes) && n == left_bytes {
                    self.answered(id, client);
                }
            }
            _ if lane.input.is_empty() => self.answer_bytes(id, bytes),
            _ => {
                lane.input.extend_from_slice(bytes);
                let whole = std::mem::take(&mut lane.input);
                self.answer_bytes(id, &whole);
            }
        }
    }

    /// `bytes` are all that has come of an answer.
    fn answer_bytes(&mut self, id: SlotId, bytes: &[u8]) {
        let held_limit = self.limits.held_answer_bytes;
        let Some(lane) = self.lanes.get_mut(id) else { return };
        let phase = lane.phase;
        let to_head = match phase {
            Phase::Busy(client) => self.clients.get_mut(client).is_some_and(|c| c.current.is_head),
            _ => false,
        };
        let have = bytes.len() as u64;
        match (parse_answer(bytes, to_head), phase) {
            (Ok(None), _) if bytes.len() <= held_limit => lane.input.extend_from_slice(bytes),
            (Ok(Some(answer)), _) if have < answer.total_bytes && answer.total_bytes <= held_limit as u64 => {
                lane.input.extend_from_slice(bytes);
            }
            (Ok(Some(answer)), Phase::Opening) if answer.status == 204 => self.lane_is_open(id),
            (Ok(Some(answer)), Phase::Busy(client)) => {
                lane.has_unread = answer.unread_line.is_some();
                let Some(bytes) = lane.of_the_answer(bytes, answer.total_bytes) else {
                    self.lane_lost(id);
                    return;
                };
                let left_bytes = answer.total_bytes - bytes.len() as u64;
                lane.answer = Answer::Streaming { left_bytes };
                if self.pass_on_head(client, bytes, answer) && left_bytes == 0 {
                    self.answered(id, client);
                }
            }
            _ => self.lane_lost(id),
        }
    }

    /// Sends the first piece of an answer with what the client must know of the connection.
    fn pass_on_head(&mut self, id: SlotId, bytes: &[u8], answer: AnswerHead) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return false };
        // An answer that came before the body was read: what is left of the body is not wanted.
        client.current.keep_alive &= !self.draining && matches!(client.state, State::Running(_));
        let line: &[u8] = match (client.current.keep_alive, client.current.is_http10) {
            (true, false) if answer.unread_line.is_none() => return self.pass_on(id, bytes),
            (true, false) => b"",
            (true, true) => b"Connection: keep-alive\r\n",
            (false, _) => b"Connection: close\r\n",
        };
        let at = answer.status_line_bytes;
        let cut = answer.unread_line.unwrap_or(at..at);
        let whole = [&bytes[..at], line, &bytes[at..cut.start], &bytes[cut.end..]].concat();
        self.pass_on(id, &whole)
    }

    /// Sends, and says whether the client is still there.
    fn pass_on(&mut self, id: SlotId, bytes: &[u8]) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return false };
        if client.send(bytes, (self.poll.registry(), pack(Place::Client, id))).is_err() {
            self.drop_client(id);
            return false;
        }
        if !client.output.is_empty() {
            client.deadline = Some(self.now + self.limits.write_stall);
        }
        true
    }

    /// The whole answer has passed: the lane and the client go on, each on its own.
    fn answered(&mut self, lane_id: SlotId, id: SlotId) {
        let is_clean = self.lanes.get_mut(lane_id).is_some_and(|l| l.is_clean());
        let Some(client) = self.clients.get_mut(id) else { return };
        let is_whole = matches!(client.state, State::Running(_));
        client.has_served = true;
        client.since = self.now;
        if !client.output.is_empty() {
            client.deadline = Some(self.now + self.limits.write_stall);
        } else {
            let idle = if client.has_host { self.limits.keep_alive_idle } else { self.limits.hostless_idle };
            client.deadline = Some(self.now + idle);
        }
        let goes_on = client.current.keep_alive && is_whole;
        let has_unread = client.readable || !client.input.is_empty() || !is_whole;
        client.state = if goes_on { State::Head } else { State::Closing { linger: has_unread } };
        client.shrink();
        if is_clean && is_whole {
            self.lane_is_free(lane_id);
        } else {
            self.kill_lane(lane_id);
        }
        if !goes_on {
            self.end_if_written(id);
        } else if has_unread {
            // Not here and now: a client that pipelines would recurse, and push aside the others.
            self.again.push((Place::Client, id));
        }
    }

    /// Writes what waits for a client, and says whether it is still there.
    pub(super) fn flush_client(&mut self, id: SlotId) -> bool {
        let Some(client) = self.clients.get_mut(id) else { return false };
        let before = client.output.len();
        if client.flush((self.poll.registry(), pack(Place::Client, id))).is_err() {
            self.drop_client(id);
            return false;
        }
        let after = client.output.len();
        if after < before && matches!(client.state, State::Running(_) | State::Closing { .. } | State::Head) {
            client.deadline = match after {
                0 if matches!(client.state, State::Running(_)) => None,
                0 => Some(self.now + self.limits.keep_alive_idle),
                _ => Some(self.now + self.limits.write_stall),
            };
        }
        match client.state {
            State::Closing { .. } => self.end_if_written(id),
            State::Running(lane) | State::Streaming(lane, _) => self.relay(lane),
            _ => {}
        }
        self.clients.get_mut(id).is_some()
    }
}
