//! What every answer to a client has to fulfil at the moment when it is given.

use super::{
    act::{names, promised},
    oracle::{Asked, Dots, Operation},
    world::World,
};
use crate::{
    config::{Ack, Read},
    core::{Found, KeyPage, Stats, Written},
    model::Dot,
};

/// The promise that was broken, and how.
type Checked = Result<(), (&'static str, String)>;

impl World {
    /// Nothing is acknowledged that is not stored where it was said to be.
    pub(super) fn check_written(
        &mut self,
        n: usize,
        asked: &Operation,
        ack: Ack,
        answer: &Written,
    ) -> Checked {
        let (key, dot) = (&asked.key, answer.version);
        let Some(known) = self.oracle.find(dot) else {
            return Err(("causality", format!("{dot} was acknowledged and never stored")));
        };
        if known.key != *key {
            return Err(("causality", format!("{dot} was acknowledged for {key:?}")));
        }
        let holders = self.oracle.holders_ever(dot);
        let needed = promised(ack, answer.acked).max(answer.acked);
        if holders.len() < needed || (ack == Ack::Local && !holders.contains(&n)) {
            let what =
                format!("{dot} of {key:?} was acknowledged ({ack:?}, {answer:?}), stored on {holders:?}");
            return Err(("durability", what));
        }
        let seen = self.oracle.closure([dot]);
        let knowledge = self.oracle.knowledge(key, answer.context.clone(), seen);
        let knowledge = knowledge.map_err(|what| ("causality", what))?;
        self.knowledge.insert((asked.client, key.clone()), knowledge);
        let held = self.is_held(dot);
        let disasters = self.disasters > 0;
        if let Some(known) = self.oracle.find_mut(dot) {
            known.acknowledged = true;
            known.by_quorum = matches!(ack, Ack::Quorum | Ack::All);
            known.excused = !held && disasters;
        }
        Ok(())
    }

    /// Readers get what was written, no version beside one that replaced it, and a context that
    /// covers just that.
    pub(super) fn check_found(&mut self, n: usize, asked: &Operation, found: &Found) -> Checked {
        let (records, wall_ms) = (found.siblings.records(), self.nodes[n].wall_ms(self.now_us));
        let dots: Dots = names(records.iter().map(|r| &r.version));
        for record in records {
            let dot = record.version.dot;
            let Some(known) = self.oracle.find(dot).filter(|k| k.key == found.key) else {
                return Err(("causality", format!("{:?}: nobody wrote {dot}", found.key)));
            };
            if let Some(old) = dots.iter().find(|d| known.past.contains(d)) {
                return Err(("siblings", format!("{:?}: {dot} beside {old}, which it replaced", found.key)));
            }
            match &record.value {
                Some(value) if !record.version.matches(value) => {
                    return Err(("durability", format!("{:?} {dot}: other bytes", found.key)));
                }
                // The driver reads it now.
                None if record.version.is_live(wall_ms) && !self.has(n, dot) => {
                    let what = format!("{:?} {dot} was found and is not there to be read", found.key);
                    return Err(("durability", what));
                }
                _ => {}
            }
        }
        if let Asked::Read(Read::Quorum | Read::All) = asked.asked
            && self.options.is_steady()
            && !self.options.mixed_mirrors
        {
            let is_missed =
                |dot: &&Dot| !self.oracle.is_covered(**dot, dots.clone()) && !self.oracle.is_buried(**dot);
            let missed: Vec<_> = asked.must_show.iter().filter(is_missed).collect();
            if !missed.is_empty() {
                return Err(("durability", format!("a quorum read of {:?} missed {missed:?}", found.key)));
            }
        }
        let seen = self.oracle.closure(dots);
        let knowledge = self.oracle.knowledge(&found.key, found.siblings.context(), seen);
        let knowledge = knowledge.map_err(|what| ("causality", what))?;
        self.knowledge.insert((asked.client, found.key.clone()), knowledge);
        Ok(())
    }

    /// A node lists just what its disk has answered for.
    pub(super) fn check_listing(&self, n: usize, page: &KeyPage) -> Checked {
        let Some(process) = &self.nodes[n].process else { return Ok(()) };
        for info in &page.keys {
            let (listed, stored) = (names(info.versions.iter()), process.stored(&info.key));
            if listed != stored {
                let what = format!("node {n} lists {listed:?} of {:?}, it stored {stored:?}", info.key);
                return Err(("agreement", what));
            }
        }
        let stored = process.held.iter().filter(|(_, all)| all.iter().any(|h| h.stored)).count();
        if stored != page.keys.len() {
            let what = format!("node {n} lists {} keys, it stored {stored}", page.keys.len());
            return Err(("agreement", what));
        }
        Ok(())
    }

    /// Every queue stays within its limit.
    pub(super) fn check_limits(&self, stats: &Stats) -> Checked {
        let config = &self.options.config;
        let peers = &stats.peers;
        if stats.transfers > config.max_transfers
            // A key that is owed flies with all its siblings.
            || peers.iter().any(|p| p.in_flight > config.max_flights_per_peer * self.oracle.most_writes().max(1))
            || peers.iter().any(|p| p.owed > config.max_owed_per_peer)
        {
            return Err(("limits", format!("{stats:?}")));
        }
        Ok(())
    }

    /// Whether the disk of a node has this version, or one that replaced it.
    fn has(&self, n: usize, dot: Dot) -> bool {
        let Some(known) = self.oracle.find(dot) else { return false };
        let kept = names(self.nodes[n].disk.of(&known.key).iter().map(|kept| &kept.version));
        self.oracle.is_covered(dot, kept)
    }
}
