//! Silent damage: bytes that change on a disk without a word.
//!
//! Only what another member has whole is damaged, since nothing else can be mended. Whoever has that
//! whole copy may lose it before the damage is found: then, once the faults are over, what was
//! damaged is whole again, as from a backup. So is what lies on a disk though its process has let go
//! of it: a removal that failed. The process can only read it again, and does.

use super::{disk::Kept, node::Standing, world::World};
use crate::model::{Dot, Key};

impl World {
    /// Changes a byte of a value on a node's disk of which another member has a whole copy, if there
    /// is one; `chance` says which.
    pub fn rot(&mut self, n: usize, chance: u64) {
        let disk = self.nodes[n].disk.written();
        let all = disk.flat_map(|(key, all)| all.iter().map(move |kept| (key, kept)));
        let whole = all.filter(|(_, kept)| kept.rotten_at.is_none() && !kept.value.is_empty());
        let spare = whole.filter(|(key, kept)| self.is_whole_elsewhere(n, key, kept.version.dot));
        let spare: Vec<(Key, Dot, usize)> =
            spare.map(|(key, kept)| (key.clone(), kept.version.dot, kept.value.len())).collect();
        if self.nodes[n].standing != Standing::Member || spare.is_empty() {
            return;
        }
        let (key, dot, len) = &spare[chance as usize % spare.len()];
        let at = (chance >> 32) as usize % len;
        self.trace.note(self.now_us, n, 19, || format!("byte {at} of {key:?} {dot} rots"));
        self.nodes[n].disk.rot(key, *dot, at);
    }

    /// Whether a node's disk holds damaged bytes.
    pub fn is_rotten(&self, n: usize) -> bool {
        self.nodes[n].disk.written().any(|(_, all)| all.iter().any(|kept| kept.rotten_at.is_some()))
    }

    /// Makes whole what is damaged everywhere.
    pub(super) fn unrot(&mut self) {
        for n in 0..self.nodes.len() {
            let damaged = |(key, all): (&Key, &Vec<Kept>)| {
                let rotten = all.iter().filter(|kept| kept.rotten_at.is_some());
                rotten.map(|kept| (key.clone(), kept.version.dot)).collect::<Vec<_>>()
            };
            let damaged: Vec<(Key, Dot)> = self.nodes[n].disk.written().flat_map(damaged).collect();
            for (key, dot) in damaged {
                let process = self.nodes[n].process.as_ref();
                let is_left = process.is_some_and(|process| !process.holds(&key).contains(&dot));
                let is_member = self.nodes[n].standing == Standing::Member;
                if is_left || !is_member || !self.is_whole_elsewhere(n, &key, dot) {
                    self.nodes[n].disk.unrot(&key, dot);
                }
            }
        }
    }

    fn is_whole_elsewhere(&self, n: usize, key: &Key, dot: Dot) -> bool {
        let others = self.nodes.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, node)| node);
        let mut members = others.filter(|node| node.standing == Standing::Member);
        members.any(|node| {
            node.disk.of(key).iter().any(|kept| kept.version.dot == dot && kept.rotten_at.is_none())
        })
    }
}
