//! What is owed is offered first: nobody is sent what it has.
//!
//! ```text
//! owed names ──> Offer{key hash, dot ...} ──> peer answers for each, from its index alone
//!                  Known:  acknowledged, as if it had been sent
//!                  Wanted: read here, flown (`outbox`)
//!                  Coming: it is on its way to storage there; owed again a little later
//! ```
//!
//! A version is known to a peer only if it is *stored* there, or what replaced it is. Clients' writes
//! fly at once, without this: they are news to everybody, and waited for. Offers that are not
//! answered are repeated like flights, and owed again in the end. While offers are in the air names
//! gather, so what comes one by one under load goes out in batches.
//!
//! Limits: offers in the air and versions in each, names wanted and not read yet; all names together
//! are bounded by `max_owed_per_peer`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Core, Purpose, Timer, Work,
    leave::LastWord,
    outbox::{BUSY_PAUSE_MS, FAILED_PAUSE_MS, MAX_TRIES},
};
use crate::{
    model::{Dot, Key, NodeId},
    wire::{Interest, Message, OFFERED_BYTES, Offered},
};

/// Versions in one offer, at most; fewer where messages are short.
const MAX_OFFERED_VERSIONS: usize = 1_024;
/// Offers to one peer that are not answered yet.
const MAX_OFFERS: usize = 4;
/// Names that a peer wants and that are not read yet; past it no more are offered to it.
const MAX_WANTED_KEYS: usize = 4_096;
/// Bytes of an offer around its versions.
pub(super) const AROUND_OFFER_BYTES: usize = 32;
/// Pause before that is offered again which was on its way to the peer's storage.
const COMING_PAUSE_MS: u64 = 200;
/// Pause before a long value is offered again that the peer did not want to fetch just then.
const LONG_PAUSE_MS: u64 = 500;
/// For how long one who was told that a version is wanted from him is waited for, before it is wanted
/// from others too.
const PROMISED_MS: u64 = 400;
/// Versions that are waited for; past it some are sent twice.
const MAX_PROMISED: usize = 65_536;

/// Versions that peers were told to send, by the names that they gave them: whom, and until when.
#[derive(Debug, Default)]
pub(crate) struct Promised(BTreeMap<(u64, Dot), (NodeId, u64)>);

/// The names of keys of which a peer lacks something, or may, by how far they have come.
#[derive(Debug, Default)]
pub(crate) struct Debts {
    owed: BTreeSet<Key>,
    /// Owed as soon as storage has what is on its way there: it can't be read before.
    unstored: BTreeSet<Key>,
    offers: BTreeMap<u64, Offer>,
    /// With the versions that the peer knows.
    wanted: BTreeMap<Key, Vec<Dot>>,
    coming: BTreeSet<Key>,
    coming_until_ms: u64,
}

#[derive(Debug)]
struct Offer {
    /// Those of one key stand side by side.
    versions: Vec<(Key, Dot)>,
    keys: usize,
    tries: u32,
    due_ms: u64,
}

impl Debts {
    /// How many there are.
    pub(super) fn names(&self) -> usize {
        let offered: usize = self.offers.values().map(|offer| offer.keys).sum();
        self.owed.len() + self.unstored.len() + offered + self.wanted.len() + self.coming.len()
    }

    /// How many of them the peer has and does not vouch for yet.
    pub(super) fn coming(&self) -> usize {
        self.coming.len()
    }

    pub(super) fn owe(&mut self, key: Key) {
        if !self.wanted.contains_key(&key) {
            self.owed.insert(key);
        }
    }

    /// Nothing of it is on its way any more.
    pub(super) fn take_back(&mut self) {
        for (_, offer) in std::mem::take(&mut self.offers) {
            self.owe_again(offer);
        }
        self.owed.extend(std::mem::take(&mut self.wanted).into_keys());
        self.owed.append(&mut self.coming);
    }

    fn owe_again(&mut self, offer: Offer) {
        self.owed.extend(offer.versions.into_iter().map(|(key, _)| key));
    }
}

impl Core {
    /// Goes on with what is owed to a peer, as far as there is room.
    pub(super) fn pay(&mut self, to: NodeId) {
        let Some(peer) = self.peers.get(&to).filter(|p| p.up && p.debts.names() > 0) else { return };
        if peer.paused_until_ms > self.now.mono_ms {
            let until_ms = peer.paused_until_ms;
            return self.timers.set_earlier(Timer::Retry, until_ms);
        }
        self.load_wanted(to);
        self.make_offers(to);
    }

    /// What is owed to a peer, where there is room for one name more. A node that has left has nothing to
    /// pay with, and owes nothing.
    pub(super) fn debts_with_room(&mut self, to: NodeId) -> Option<&mut Debts> {
        let max_owed = match self.last_word {
            LastWord::Unsaid => self.config.max_owed_per_peer,
            LastWord::Said | LastWord::Heard => 0,
        };
        self.peers.get_mut(&to).map(|peer| &mut peer.debts).filter(|debts| debts.names() < max_owed)
    }

    /// Has a key offered to a peer again after a while.
    pub(super) fn owe_later(&mut self, to: NodeId, key: Key) {
        let until_ms = self.now.mono_ms + LONG_PAUSE_MS;
        if let Some(debts) = self.debts_with_room(to) {
            debts.coming.insert(key);
            debts.coming_until_ms = until_ms;
            self.timers.set_earlier(Timer::Retry, until_ms);
            self.indebted.insert(to);
        }
    }

    /// Storage is done with a version of a key, one way or the other: what waited for that is owed.
    pub(super) fn pay_unstored(&mut self, key: &Key) {
        for (id, peer) in &mut self.peers {
            if peer.debts.unstored.remove(key) {
                peer.debts.owe(key.clone());
                self.indebted.insert(*id);
            }
        }
    }

    pub(super) fn on_offer(&mut self, from: NodeId, tag: u64, versions: &[Offered]) {
        let answers = match self.is_disk_busy() {
            true => Vec::new(),
            false => versions.iter().map(|offered| self.wish(from, tag, offered)).collect(),
        };
        self.send(from, Message::OfferAck { tag, answers });
    }

    pub(super) fn on_offer_ack(&mut self, from: NodeId, tag: u64, answers: &[Interest]) {
        let now_ms = self.now.mono_ms;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(offer) = peer.debts.offers.remove(&tag) else { return };
        if answers.len() != offer.versions.len() {
            peer.paused_until_ms = now_ms + BUSY_PAUSE_MS;
            peer.debts.owe_again(offer);
            return self.pay(from);
        }
        let mut known = Vec::new();
        let mut answered = answers.iter();
        for versions in offer.versions.chunk_by(|(a, _), (b, _)| a == b) {
            let key = &versions[0].0;
            let answers: Vec<Interest> = answered.by_ref().take(versions.len()).copied().collect();
            let all = versions.iter().zip(&answers);
            let here = all.filter(|(_, answer)| **answer == Interest::Known).map(|((_, dot), _)| *dot);
            let here: Vec<Dot> = here.collect();
            known.extend(here.iter().map(|dot| (key.clone(), *dot)));
            let wanted = answers.iter().filter(|answer| **answer == Interest::Wanted).count();
            self.counters.wanted += wanted as u64;
            if wanted > 0 {
                peer.debts.wanted.insert(key.clone(), here);
            } else if answers.contains(&Interest::Coming) {
                peer.debts.coming.insert(key.clone());
                peer.debts.coming_until_ms = now_ms + COMING_PAUSE_MS;
                self.timers.set_earlier(Timer::Retry, now_ms + COMING_PAUSE_MS);
            }
        }
        known.into_iter().for_each(|(key, dot)| self.copy_acknowledged(from, &key, dot));
        self.pay(from);
    }

    pub(super) fn retry_offers(&mut self, id: NodeId) {
        let (now_ms, pauses) = (self.now.mono_ms, [0, 1, 2, 3, 4, 5].map(|tries| self.retry_ms(tries)));
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let debts = &mut peer.debts;
        if debts.coming_until_ms <= now_ms {
            debts.owed.append(&mut debts.coming);
        } else if !debts.coming.is_empty() {
            self.timers.set_earlier(Timer::Retry, debts.coming_until_ms);
        }
        let late: Vec<u64> =
            debts.offers.iter().filter(|(_, o)| o.due_ms <= now_ms).map(|(tag, _)| *tag).collect();
        let mut again = Vec::new();
        for tag in late {
            let Some(offer) = debts.offers.get_mut(&tag) else { continue };
            if offer.tries < MAX_TRIES {
                offer.due_ms = now_ms + pauses[offer.tries as usize];
                offer.tries += 1;
                again.push((tag, offer.versions.clone()));
            } else if let Some(offer) = debts.offers.remove(&tag) {
                peer.paused_until_ms = now_ms + FAILED_PAUSE_MS;
                debts.owe_again(offer);
            }
        }
        if let Some(due_ms) = debts.offers.values().map(|o| o.due_ms).min() {
            self.timers.set_earlier(Timer::Retry, due_ms);
        }
        again.into_iter().for_each(|(tag, versions)| self.send_offer(id, tag, &versions));
    }

    /// What this node says to an offer: of two peers that offer the same only one is to send it.
    fn wish(&mut self, from: NodeId, tag: u64, offered: &Offered) -> Interest {
        let interest = self.interest(from, tag, offered);
        if interest != Interest::Wanted {
            return interest;
        }
        let (name, now_ms) = ((offered.hash, offered.dot), self.now.mono_ms);
        let promised = &mut self.promised.0;
        if promised.get(&name).is_some_and(|(by, until_ms)| *by != from && *until_ms > now_ms) {
            return Interest::Coming;
        }
        if promised.len() >= MAX_PROMISED {
            promised.retain(|_, (_, until_ms)| *until_ms > now_ms);
        }
        if promised.len() < MAX_PROMISED {
            promised.insert(name, (from, now_ms + PROMISED_MS));
        }
        Interest::Wanted
    }

    /// It came.
    pub(super) fn promise_kept(&mut self, key: &Key, dot: Dot) {
        if !self.promised.0.is_empty() {
            self.promised.0.remove(&(key.hash64(), dot));
        }
    }

    /// Whether this node lacks a version.
    fn interest(&self, from: NodeId, tag: u64, offered: &Offered) -> Interest {
        let dot = offered.dot;
        if self.transfers.is_fetching(dot) {
            return Interest::Coming;
        }
        let mut keys = self.index.keys_at(offered.hash).into_iter();
        let Some(key) = keys.find(|key| key.check(tag) == offered.check) else { return Interest::Wanted };
        let replaced = self.index.replaced(&key, dot);
        if replaced || self.index.holds(&key, dot) {
            // Whom sync does not tell of what replaced it has to hear of it in answer to the version.
            let hears = self.index.mirrors(&key).is_some_and(|mirrors| self.owns(from, &key, mirrors));
            return match () {
                () if replaced && !hears => Interest::Wanted,
                // What is here may be dropped: it is no reason to drop it elsewhere.
                () if self.is_doubted(&key) || self.is_unsure(&key) => Interest::Coming,
                () if self.holds_for_others(&key, dot) => Interest::Coming,
                () => Interest::Known,
            };
        }
        match self.index.is_coming(&key, dot) {
            true => Interest::Coming,
            false => Interest::Wanted,
        }
    }

    fn load_wanted(&mut self, to: NodeId) {
        while let Some(peer) = self.peers.get_mut(&to).filter(|p| p.room() > 0)
            && let Some((key, known)) = peer.debts.wanted.pop_first()
        {
            if self.index.has_pending(&key) {
                peer.debts.unstored.insert(key);
                continue;
            }
            if self.index.stored(&key).next().is_none() || self.is_doubted(&key) {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&to) {
                peer.loading += 1;
            }
            self.work(Purpose::Copies { peer: to, key: key.clone(), known }, Work::Read(key));
        }
    }

    fn make_offers(&mut self, to: NodeId) {
        let fitting = self.max_message_bytes.saturating_sub(AROUND_OFFER_BYTES) / OFFERED_BYTES;
        let per_offer = fitting.clamp(1, MAX_OFFERED_VERSIONS);
        loop {
            let mut versions: Vec<(Key, Dot)> = Vec::new();
            while versions.len() < per_offer
                && let Some(key) = self.next_owed(to)
            {
                // What is in doubt is found again by sync.
                if !self.is_doubted(&key) {
                    versions.extend(self.index.stored(&key).map(|v| (key.clone(), v.dot)));
                }
            }
            if versions.is_empty() {
                return;
            }
            // The last key may have more of them than there was room for.
            for versions in versions.chunks(per_offer) {
                self.offer(to, versions.to_vec());
            }
        }
    }

    fn next_owed(&mut self, to: NodeId) -> Option<Key> {
        let debts = &mut self.peers.get_mut(&to)?.debts;
        let has_room = debts.offers.len() < MAX_OFFERS && debts.wanted.len() < MAX_WANTED_KEYS;
        while let Some(key) = if has_room { debts.owed.pop_first() } else { None } {
            if !self.index.has_pending(&key) {
                return Some(key);
            }
            debts.unstored.insert(key);
        }
        None
    }

    fn offer(&mut self, to: NodeId, versions: Vec<(Key, Dot)>) {
        let tag = self.fresh_id();
        let due_ms = self.now.mono_ms + self.retry_ms(0);
        self.counters.offered += versions.len() as u64;
        self.timers.set_earlier(Timer::Retry, due_ms);
        self.send_offer(to, tag, &versions);
        if let Some(peer) = self.peers.get_mut(&to) {
            let keys = versions.chunk_by(|(a, _), (b, _)| a == b).count();
            peer.debts.offers.insert(tag, Offer { versions, keys, tries: 1, due_ms });
        }
    }

    fn send_offer(&mut self, to: NodeId, tag: u64, versions: &[(Key, Dot)]) {
        let offered =
            |(key, dot): &(Key, Dot)| Offered { hash: key.hash64(), check: key.check(tag), dot: *dot };
        let versions = versions.iter().map(offered).collect();
        self.send(to, Message::Offer { tag, versions });
    }
}
