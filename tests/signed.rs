//! A node that lies, on a real network: it speaks the wire format and says what it likes.

mod common;

use std::{
    net::UdpSocket,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{PATIENCE, cluster, eventually, held, loopback, quick, udp_at};
use turbopump::{
    Ack, Config, Identity, Key, Member, Members, Mirrors, Node, NodeId, Statement, Version,
    identity::author_of,
    model::{Context, Digest, Kind},
    wire::{AckStatus, LinkEvent, Links, Local, Message, Vitals},
};

/// A member that has links to the others, answers their pings, and sends what it is told to.
struct Liar {
    socket: UdpSocket,
    links: Links,
    started: Instant,
    pinged: Instant,
    sequence: u64,
    acks: Vec<(NodeId, u64, AckStatus)>,
}

impl Liar {
    /// Takes part in the cluster of these nodes.
    fn join(nodes: &[Node]) -> Self {
        let socket = UdpSocket::bind(loopback()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        let id: NodeId = "liar".parse().unwrap();
        let local = Local {
            id,
            cluster: "turbopump".into(),
            incarnation: 7,
            partitions: 1_024,
            placement: "ring".into(),
        };
        let mut members = Members::default();
        for node in nodes {
            node.add_member(id, vec![socket.local_addr().unwrap()]).wait().unwrap();
            members.merge(&Member::new(node.id(), vec![node.local_addr()]));
        }
        let mut links = Links::new(local, 60_000, 1);
        links.admit(&members);
        nodes.iter().for_each(|node| links.dial(0, node.id(), &[node.local_addr()]));
        let (started, pinged) = (Instant::now(), Instant::now());
        let mut liar = Self { socket, links, started, pinged, sequence: 0, acks: Vec::new() };
        liar.until("it is linked and trusted", |liar| {
            let linked = nodes.iter().all(|node| liar.links.is_up(node.id()));
            linked
                && nodes.iter().all(|n| n.members().iter().any(|m| m.member.id == id && m.up))
                && liar.sequence > 3
        });
        liar
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < PATIENCE, "not in time: {what}");
            self.turn();
        }
    }

    fn turn(&mut self) {
        let (mut buffer, mut events) = (vec![0; 65_536], Vec::new());
        let now_ms = self.started.elapsed().as_millis() as u64;
        if let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            self.links.received(now_ms, from, Bytes::copy_from_slice(&buffer[..len]), &mut events);
        }
        for event in events {
            let LinkEvent::Message { peer, message } = event else { continue };
            match message {
                Message::Ping { sequence, .. } => {
                    self.say(peer, &Message::Pong { sequence, vitals: Vitals::default() });
                }
                Message::WriteAck { tag, status } => self.acks.push((peer, tag, status)),
                _ => {}
            }
        }
        if self.pinged.elapsed() > Duration::from_millis(50) {
            (self.pinged, self.sequence) = (Instant::now(), self.sequence + 1);
            for peer in ["n0", "n1"] {
                let ping = Message::Ping { sequence: self.sequence, vitals: Vitals::default() };
                self.say(peer.parse().unwrap(), &ping);
            }
        }
        self.flush();
    }

    fn say(&mut self, to: NodeId, message: &Message) {
        // What gets lost is said again.
        let _ = self.links.send(to, message);
    }

    fn flush(&mut self) {
        let socket = &self.socket;
        self.links.flush(&mut |addr, frame| _ = socket.send_to(&frame, addr));
    }

    /// What both nodes say to a copy.
    fn offer(&mut self, key: &Key, version: &Version, value: &Bytes) -> [AckStatus; 2] {
        let tag = (1 << 40) + self.acks.len() as u64;
        let nodes: [NodeId; 2] = ["n0", "n1"].map(|id| id.parse().unwrap());
        nodes.map(|to| {
            let (version, value) = (Arc::new(version.clone()), Some(value.clone()));
            self.say(to, &Message::Write { tag, key: key.clone(), version, value });
            self.flush();
            let mine = |ack: &&(NodeId, u64, AckStatus)| (ack.0, ack.1) == (to, tag);
            self.until("it is answered", |liar| liar.acks.iter().any(|ack| mine(&ack)));
            self.acks.iter().find(mine).unwrap().2
        })
    }
}

fn statement(author: &Identity, sequence: u64, value: &[u8]) -> Statement {
    Statement {
        author: author.public_key(),
        sequence,
        kind: Kind::Value,
        len: value.len() as u64,
        digest: Digest::of(value),
        mirrors: Mirrors::ALL,
        expires_ms: None,
        context: Context::EMPTY,
    }
}

#[test]
fn a_member_that_lies_can_neither_forge_nor_alter_nor_replay_a_signed_write() {
    let (alice, mallory) = (Arc::new(Identity::from_seed([1; 32])), Identity::from_seed([2; 32]));
    let signed_prefixes = vec![("signed/".to_owned(), vec![alice.public_key()])];
    let config = Config { signed_prefixes, ..quick() };
    let nodes = cluster(2, udp_at, |_, builder| builder.config(config.clone()));
    let mut liar = Liar::join(&nodes);
    let (key, first, second) = (Key::new("signed/a").unwrap(), Bytes::from("first"), Bytes::from("second"));
    let made = |author: &Identity, said: &Statement| {
        said.version(&key, author.seal(&key, said).unwrap().signature).unwrap()
    };
    let said = statement(&alice, 5, &first);
    let version = made(&alice, &said);
    let signature = version.seal.as_ref().unwrap().signature;
    let mut claims_all = Context::EMPTY;
    claims_all.merge(&version.context);
    claims_all.add(turbopump::model::Actor(3), 0, 1 << 40);
    for (what, lie, value) in [
        ("unsigned", Version { seal: None, ..version.clone() }, &first),
        ("by another author", made(&mallory, &statement(&mallory, 9, &first)), &first),
        (
            "another value",
            Statement { len: 6, digest: Digest::of(&second), ..said.clone() }
                .version(&key, signature)
                .unwrap(),
            &second,
        ),
        (
            "a higher sequence",
            Statement { sequence: 9, ..said.clone() }.version(&key, signature).unwrap(),
            &first,
        ),
        ("other mirrors", Version { mirrors: Mirrors(1), ..version.clone() }, &first),
        ("another expiry", Version { expires_ms: Some(1), ..version.clone() }, &first),
        ("another context", Version { context: claims_all, ..version.clone() }, &first),
    ] {
        assert_eq!(liar.offer(&key, &lie, value), [AckStatus::Refused; 2], "{what}");
    }
    let other = Key::new("signed/b").unwrap();
    assert_eq!(liar.offer(&other, &version, &first), [AckStatus::Refused; 2]);
    for node in &nodes {
        assert_eq!((held(node, "signed/a"), held(node, "signed/b")), (None, None));
    }
    // The author's own words are taken from whomever they come; then there are newer ones.
    assert_eq!(liar.offer(&key, &version, &first), [AckStatus::Stored; 2]);
    let put = nodes[0].put("signed/a", second.clone()).mirrors(0).ack(Ack::Mirrors(2));
    let pending = put.signed_by(&alice, 6).start().unwrap();
    let all_have =
        |value: &Bytes| nodes.iter().all(|node| held(node, "signed/a").as_deref() == Some(&value[..]));
    liar.until("the newer one is everywhere", |_| all_have(&second));
    assert!(pending.wait().unwrap().acked >= 2);
    assert_eq!(liar.offer(&key, &version, &first), [AckStatus::Known; 2], "a replay is no news");
    for node in &nodes {
        let reading = node.get("signed/a").local_only().wait().unwrap();
        assert_eq!(reading.records().len(), 1);
        let record = reading.newest().unwrap();
        assert_eq!((record.version.sequence(), record.value.as_ref()), (Some(6), Some(&second)));
        assert_eq!(author_of(&key, &record.version), Some(alice.public_key()));
    }
    let refused = |node: &Node| {
        let stats = node.stats().wait().unwrap();
        stats.counters.all().into_iter().find(|(name, _)| *name == "signatures_refused").unwrap().1
    };
    assert_eq!(nodes.iter().map(refused).collect::<Vec<_>>(), [8, 8]);
    eventually("nothing else came of it", || all_have(&second));
}
