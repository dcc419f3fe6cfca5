//! Signed writes on a bad network, among members of which one lies.

use std::sync::Arc;

use turbopump::{
    Ack, Key, PublicKey, Record, Version,
    model::{Actor, Context, Dot, Kind, Mirrors, Seal, Seeded},
    testing::simulation::{Options, Replaces, World, Write, author},
    wire::Message,
};

use crate::scenarios::{healed, key};

/// Sends what a node lies about to another.
fn lie(world: &mut World, to: usize, key: &Key, version: Version, record: &Record) {
    let message = Message::Write {
        tag: u64::MAX,
        key: key.clone(),
        version: Arc::new(version),
        value: record.value.clone(),
    };
    world.lie(2, to, message);
}

/// What can be made of a signed version without the author's key.
fn lies(true_one: &Version) -> Vec<Version> {
    let mut all = Context::EMPTY;
    all.add(Actor(1), 0, 1 << 50);
    all.merge(&true_one.context);
    let other = Dot { actor: Actor(77), counter: 1 };
    let seal = |author, signature| Some(Arc::new(Seal { author, signature }));
    let signature = true_one.seal.as_ref().unwrap().signature;
    vec![
        Version { seal: None, ..true_one.clone() },
        Version { seal: None, dot: other, since: 0, ..true_one.clone() },
        Version { dot: other, since: 0, ..true_one.clone() },
        Version { written_ms: u64::MAX, ..true_one.clone() },
        Version { mirrors: Mirrors(1), ..true_one.clone() },
        Version { expires_ms: Some(1), ..true_one.clone() },
        Version { context: all, ..true_one.clone() },
        Version { kind: Kind::Tombstone, len: 0, ..true_one.clone() },
        Version {
            dot: Dot { counter: true_one.dot.counter + (1 << 20), ..true_one.dot },
            ..true_one.clone()
        },
        Version { seal: seal(PublicKey([9; 32]), signature), ..true_one.clone() },
        Version { seal: seal(author().public_key(), [9; 64]), ..true_one.clone() },
    ]
}

/// Goal: no lie gets onto any disk, no replay changes anything, and owners end alike. Method: signed writes
/// and deletes of few keys over a network that loses, repeats and delays; in between a member forges,
/// alters and replays whatever was ever kept. The oracle knows what was written and by whom.
#[test]
fn lies_and_replays_among_signed_writes_change_nothing() {
    for seed in 1..=12 {
        let mut options = Options::quiet(seed, 4);
        options.config.signed_prefixes = vec![("s/".into(), vec![author().public_key()])];
        (options.drop_percent, options.duplicate_percent, options.late_percent) = (10, 10, 5);
        let mut world = World::new(options);
        world.run_for(3_000);
        let (mut chance, mut ever, mut told) = (Seeded::new(seed), Vec::<(Key, Record)>::new(), 0);
        for sequence in 1..=60 {
            let name = format!("s/{}", chance.below(3));
            let write = match chance.below(4) {
                0 => Write::delete(&name),
                _ => Write::put(&name, 30),
            };
            let node = [0, 1, 3][chance.below(3) as usize];
            let write = write.mirrors(chance.below(2) as u16 * 3).ack(Ack::Local);
            world.write(node, write.signed(sequence).replacing(Replaces::Nothing));
            world.run_for(chance.below(300));
            for (node, key) in [(0, key("s/0")), (1, key("s/1")), (3, key("s/2"))] {
                ever.extend(world.kept(node, &key).into_iter().map(|record| (key.clone(), record)));
            }
            let Some(at) = (chance.below(64) as usize).checked_rem(ever.len()) else { continue };
            let (key, record) = ever[at].clone();
            let to = [0, 1, 3][chance.below(3) as usize];
            lie(&mut world, to, &key, (*record.version).clone(), &record);
            for version in lies(&record.version) {
                lie(&mut world, to, &key, version, &record);
                told += 1;
            }
            assert!(world.violation().is_none(), "seed {seed}: {:?}", world.violation());
        }
        assert!(told > 200, "seed {seed}: {told} lies");
        healed(&mut world);
        let refused = |n| {
            let counters = world.stats(n).unwrap().counters.all();
            counters.into_iter().find(|(name, _)| *name == "signatures_refused").unwrap().1
        };
        let refused: u64 = [0, 1, 3].map(refused).iter().sum();
        assert!(refused > 100, "seed {seed}: {refused} refused");
    }
}
