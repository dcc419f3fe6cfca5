//! A simulated node: what outlives its process, and the process.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use super::{
    Options, admins,
    disk::{Contents, Disk},
    oracle::Dots,
};
use crate::{
    core::{Core, JobId, Now, Output},
    model::{Key, Member, MemberState, Members, MembersFile, NodeId, Version},
    wire::Links,
};

/// When the simulation begins, on clocks that go right: milliseconds since 1970.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// Where the first node listens, 10.0.0.1; the others follow.
const FIRST_IP: u32 = 0x0a00_0001;

/// How a node stands to the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It has not joined yet.
    Spare,
    /// It is a member.
    Member,
    /// It was removed.
    Removed,
}

/// What outlives the process.
pub struct Node {
    /// Its name.
    pub id: NodeId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its share of the keys.
    pub weight: u16,
    /// Whether it belongs to the cluster.
    pub standing: Standing,
    /// A process of it had said that it has left, and crashed before it knew that others heard it.
    pub said_last_word: bool,
    /// Its disk.
    pub disk: Disk,
    /// An older copy of the disk.
    pub backup: Option<Contents>,
    /// The member list, as it was last written. See [`members_file`](Node::members_file).
    pub kept_members: Option<Arc<Members>>,
    /// Members that it was told of on its command line.
    pub introduced: Vec<Member>,
    /// How others are introduced to it, without its address.
    pub introduction: Member,
    /// How far its wall clock is off, milliseconds.
    pub skew_ms: i64,
    /// It stands still until then, microseconds.
    pub paused_until_us: u64,
    /// How many processes it has had.
    pub processes: u64,
    /// The one that runs.
    pub process: Option<Process>,
}

/// A running process of a node.
pub struct Process {
    /// Which of the node's.
    pub number: u64,
    /// Decides.
    pub core: Core,
    /// Speaks.
    pub links: Links,
    /// What the core has said and was not carried out yet.
    pub outputs: Vec<Output>,
    /// When it started, microseconds.
    pub started_us: u64,
    /// When it will be woken.
    pub wake_us: Option<u64>,
    /// What the core should hold: kept here a second time, in the plainest way.
    pub held: BTreeMap<Key, Vec<Held>>,
    /// Versions that it ever heard of, per key.
    pub seen: BTreeMap<Key, Dots>,
    /// Versions that were given to the disk, by the work that this is.
    pub storing: BTreeMap<JobId, (Key, Arc<Version>)>,
    /// A members file that is not written yet.
    pub unwritten: Option<Arc<Members>>,
}

/// A version that a process holds.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which.
    pub version: Arc<Version>,
    /// Whether the disk has said so.
    pub stored: bool,
}

impl Node {
    /// The node of this number, not started yet.
    pub fn new(number: usize, options: &Options, seed: u64, standing: Standing) -> Self {
        let id = format!("n{number}").parse().expect("allowed characters");
        Self {
            id,
            addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::from_bits(FIRST_IP + number as u32)), 1593),
            weight: 1,
            standing,
            said_last_word: false,
            disk: Disk::new(options, seed),
            backup: None,
            kept_members: None,
            introduced: Vec::new(),
            introduction: admins::introduction(options, id),
            skew_ms: 0,
            paused_until_us: 0,
            processes: 0,
            process: None,
        }
    }

    /// Its entry as others are told of it.
    pub fn entry(&self) -> Member {
        Member { addrs: vec![self.addr], ..self.introduction.clone() }
    }

    /// The members file: made when somebody reads it, for the lists of large clusters are long.
    pub fn members_file(&self) -> Option<String> {
        let members = self.kept_members.as_ref()?;
        let this = members.find(self.id)?;
        let state = if this.is_present() { this.state } else { MemberState::Active };
        let this = Member { state, ..this.clone() };
        let peers = members.all().filter(|m| m.id != self.id).cloned().collect();
        Some(MembersFile { this, peers }.to_string())
    }

    /// What its wall clock says.
    pub fn wall_ms(&self, now_us: u64) -> u64 {
        (EPOCH_MS + (now_us / 1_000) as i64 + self.skew_ms) as u64
    }

    /// What its clocks say to the running process.
    pub fn now(&self, now_us: u64) -> Now {
        let started_us = self.process.as_ref().map_or(now_us, |p| p.started_us);
        Now { mono_ms: (now_us - started_us) / 1_000, wall_ms: self.wall_ms(now_us) }
    }

    /// Whether it is a member and runs.
    pub fn is_there(&self) -> bool {
        self.standing == Standing::Member && self.process.is_some()
    }
}

impl Process {
    /// Takes in what the disk held when it started.
    pub fn load(&mut self, key: &Key, version: &Arc<Version>) {
        let all = self.held.entry(key.clone()).or_default();
        if !all.iter().any(|h| h.version.covers(version.dot)) {
            all.retain(|h| !version.covers(h.version.dot));
            all.push(Held { version: version.clone(), stored: true });
        }
    }

    /// A version goes to the disk.
    pub fn begin(&mut self, key: &Key, version: &Arc<Version>) {
        let held = Held { version: version.clone(), stored: false };
        let all = self.held.entry(key.clone()).or_default();
        // A damaged copy is stored again while it counts as stored.
        if !all.iter().any(|h| h.version.dot == version.dot) {
            all.push(held);
        }
    }

    /// The disk says how that ended.
    pub fn end(&mut self, key: &Key, version: &Arc<Version>, stored: bool) {
        let Some(all) = self.held.get_mut(key) else { return };
        if stored {
            all.iter_mut().filter(|h| h.version.dot == version.dot).for_each(|h| h.stored = true);
            all.retain(|h| !version.covers(h.version.dot));
        } else {
            all.retain(|h| h.stored || h.version.dot != version.dot);
        }
        self.clean(key);
    }

    /// Copies are dropped.
    pub fn remove(&mut self, key: &Key, dots: &[crate::model::Dot]) {
        if let Some(all) = self.held.get_mut(key) {
            all.retain(|h| !dots.contains(&h.version.dot));
        }
        self.clean(key);
    }

    /// What it holds of a key, what is on its way to the disk included.
    pub fn holds(&self, key: &Key) -> Dots {
        self.held.get(key).into_iter().flatten().map(|h| h.version.dot).collect()
    }

    /// What it has stored of a key.
    pub fn stored(&self, key: &Key) -> Dots {
        let all = self.held.get(key).into_iter().flatten();
        all.filter(|h| h.stored).map(|h| h.version.dot).collect()
    }

    fn clean(&mut self, key: &Key) {
        if self.held.get(key).is_some_and(Vec::is_empty) {
            self.held.remove(key);
        }
    }
}
