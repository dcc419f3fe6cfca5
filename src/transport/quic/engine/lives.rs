//! When links come and go: which of several to one address is used, and who is told.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use quinn_proto::{ApplicationClose, ConnectionClose, ConnectionError};

use super::{
    super::{
        guard::Line,
        limits::MAX_LINKS_PER_KEY,
        link::{Farewell, Link, Phase},
    },
    Engine,
};
use crate::{model::PublicKey, transport::TransportEvent};

impl Engine {
    pub(in crate::transport::quic) fn close(&mut self, addr: SocketAddr) {
        self.close_where(Farewell::Done, |link| link.addr == addr);
        self.used.remove(&addr);
    }

    /// Members changed: ends the links of those that are none any more.
    pub(in crate::transport::quic) fn expel(&mut self) {
        let door = self.door.clone();
        let gone = |link: &Link| link.key.is_some_and(|key| !door.admits(&key));
        let addrs: Vec<SocketAddr> = self.links.values().filter(|link| gone(link)).map(|l| l.addr).collect();
        self.close_where(Farewell::Removed, gone);
        for addr in addrs {
            if self.used.remove(&addr).is_some() {
                self.news.push_back(TransportEvent::Closed { addr });
            }
        }
    }

    /// Both sides know each other: the link carries frames from now on.
    pub(super) fn made(&mut self, now: Instant, handle: usize) {
        let Some(link) = self.links.get(&handle) else { return };
        let (addr, Some(key)) = (link.addr, link.key) else { return };
        self.news.push_back(TransportEvent::Opened { addr, key });
        let other = self.used.get(&addr).copied().filter(|other| *other != handle);
        let is_better = other.is_none_or(|other| self.is_better(handle, other));
        if let Some(other) = other.filter(|_| is_better) {
            self.replace(now, other, handle);
        }
        if let (true, Some(link)) = (is_better, self.links.get_mut(&handle)) {
            link.is_used = true;
            self.used.insert(addr, handle);
        }
        self.thin_out(now, key);
    }

    /// Which of two links to one address is used. Both ends come to the same.
    fn is_better(&self, new: usize, old: usize) -> bool {
        let (Some(new), Some(old)) = (self.links.get(&new), self.links.get(&old)) else { return true };
        if old.phase != Phase::Up || new.key != old.key || new.is_ours == old.is_ours {
            return true;
        }
        let is_mine_smaller = new.key.is_some_and(|theirs| self.key < theirs);
        new.is_ours == is_mine_smaller
    }

    /// A better link to the same address takes the place of one.
    fn replace(&mut self, now: Instant, old: usize, new: usize) {
        let Some(mut before) = self.links.remove(&old) else { return };
        before.is_used = false;
        let same_way = self.links.get(&new).is_some_and(|link| link.is_ours == before.is_ours);
        if let Some(link) = self.links.get_mut(&new) {
            link.outbox.take_over(&mut before.outbox);
        }
        // Nothing more of whoever was there before.
        before.was_proved &= self.links.get(&new).is_some_and(|link| link.key == before.key);
        let (was_up, is_other) = (before.phase == Phase::Up, !before.was_proved);
        self.links.insert(old, before);
        // Dialled again on the same way: the process that was there before is gone.
        if was_up && (same_way || is_other) {
            self.end(now, old, Farewell::Done);
        }
    }

    /// Keeps one key from taking all links.
    fn thin_out(&mut self, now: Instant, key: PublicKey) {
        let of_key = |(_, link): &(&usize, &Link)| link.key == Some(key) && link.phase == Phase::Up;
        let mut held: Vec<(Duration, usize)> =
            self.links.iter().filter(of_key).map(|(handle, link)| (link.age(now), *handle)).collect();
        held.sort();
        for (_, handle) in held.into_iter().skip(MAX_LINKS_PER_KEY) {
            self.end(now, handle, Farewell::Many);
        }
    }

    /// Ends a link, and says so if it was one that frames went out on.
    pub(super) fn end(&mut self, now: Instant, handle: usize, why: Farewell) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let was_up = link.phase == Phase::Up;
        link.close(now, why);
        self.dropped += link.outbox.frames() as u64;
        link.outbox = Default::default();
        self.forget(handle, was_up);
        self.soil(handle);
    }

    pub(super) fn lost(&mut self, now: Instant, handle: usize, reason: &ConnectionError) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let (addr, phase) = (link.addr, link.phase);
        if phase == Phase::Over {
            return;
        }
        link.phase = Phase::Over;
        self.dropped += link.outbox.frames() as u64;
        // Who dialled us may be anybody still, whatever it says.
        let whose = link.key.filter(|_| link.is_ours || phase == Phase::Up);
        if let (true, Some(key)) = (says_removed(reason), whose) {
            self.news.push_back(TransportEvent::Removed { addr, key });
        }
        if phase != Phase::Up {
            self.tell_of_failure(now, addr, reason);
        }
        log::debug!("the link to {addr} is lost: {reason}");
        self.forget(handle, phase == Phase::Up);
    }

    /// A link is used no more: another one to the address takes its place, or the address is gone.
    fn forget(&mut self, handle: usize, was_up: bool) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        let addr = link.addr;
        if !std::mem::take(&mut link.is_used) || self.used.get(&addr) != Some(&handle) {
            return;
        }
        let next = self.links.iter_mut().find(|(_, link)| link.addr == addr && link.phase == Phase::Up);
        match next {
            Some((next, link)) => {
                link.is_used = true;
                self.used.insert(addr, *next);
            }
            None => {
                self.used.remove(&addr);
                if was_up {
                    // What came before it is handed out before.
                    self.wait(handle);
                    if let Some(link) = self.links.get_mut(&handle) {
                        link.says_closed = true;
                    }
                }
            }
        }
    }

    pub(super) fn tell_of_secret(&mut self, now: Instant, handle: usize, why: Farewell) {
        let Some(link) = self.links.get(&handle) else { return };
        if why == Farewell::Secret && self.told.allows(link.addr, Line::Secret, now) {
            log::warn!("refused a node at {}: it does not know the secret of this cluster", link.addr);
        }
    }

    fn tell_of_failure(&mut self, now: Instant, addr: SocketAddr, reason: &ConnectionError) {
        let refused = self.door.take_refused();
        let why = match (refused, reason) {
            (Some(key), _) => {
                Some((Line::Refused, format!("refused a node at {addr}: its key {key} is no member's")))
            }
            (None, ConnectionError::ConnectionClosed(close)) => {
                let line = Line::RefusesUs(close.error_code.into());
                Some((line, format!("a node at {addr} refuses this node: {}", why_refused(close))))
            }
            (None, ConnectionError::ApplicationClosed(close)) => {
                let line = Line::RefusesUs(close.error_code.into_inner());
                Some((line, format!("a node at {addr} refuses this node: {}", why_closed(close))))
            }
            _ => None,
        };
        self.counts.failed += u64::from(refused.is_none());
        if let Some((_, text)) = why.filter(|(line, _)| self.told.allows(addr, *line, now)) {
            log::warn!("{text}");
        }
    }

    pub(super) fn close_where(&mut self, why: Farewell, chosen: impl Fn(&Link) -> bool) {
        let now = Instant::now();
        let is_open = |link: &Link| link.phase != Phase::Over;
        let handles: Vec<usize> = self
            .links
            .iter()
            .filter(|(_, link)| is_open(link) && chosen(link))
            .map(|(handle, _)| *handle)
            .collect();
        for handle in handles {
            // What was sent before goes out before.
            self.write(now, handle);
            if let Some(link) = self.links.get_mut(&handle) {
                (link.is_used, link.was_proved) = (false, false);
                link.close(now, why);
                link.outbox = Default::default();
            }
            self.write(now, handle);
        }
    }
}

/// The alert for a certificate that was revoked.
const REVOKED: u64 = 0x100 + 44;

fn says_removed(reason: &ConnectionError) -> bool {
    match reason {
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code) == REVOKED,
        ConnectionError::ApplicationClosed(close) => {
            close.error_code.into_inner() == Farewell::Removed as u64
        }
        _ => false,
    }
}

/// What the other side's TLS says about ours.
fn why_refused(close: &ConnectionClose) -> String {
    const ACCESS_DENIED: u64 = 0x100 + 49;
    const UNKNOWN: u64 = 0x100 + 46;
    match u64::from(close.error_code) {
        REVOKED => "this node was removed from the cluster".into(),
        ACCESS_DENIED | UNKNOWN => "it does not know this node's key".into(),
        _ => close.to_string(),
    }
}

fn why_closed(close: &ApplicationClose) -> &'static str {
    match close.error_code.into_inner() {
        code if code == Farewell::Secret as u64 => "this node does not know the secret of the cluster",
        code if code == Farewell::Removed as u64 => "this node was removed from the cluster",
        code if code == Farewell::Many as u64 => "this node has too many links",
        _ => "it closed the link before it was made",
    }
}
