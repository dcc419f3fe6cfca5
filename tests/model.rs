//! The laws of the nouns, against models that are too simple to be wrong.
//!
//! Seeds are fixed: a failure shows again with the same command.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
    test_runner::RngSeed,
};
use turbopump::{
    model::{
        Actor, Context, Digest, Dot, Key, Kind, MAX_KEY_BYTES, MAX_RANGES_PER_ACTOR, Member, MemberKey,
        MemberState, Members, MembersFile, Mirrors, NodeId, Proofs, PublicKey, Record, Seeded, Siblings,
        Version, Vouched, Warrant,
    },
    partition::{Partition, PartitionCount},
};

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 256,
        rng_seed: RngSeed::Fixed(1),
        failure_persistence: None,
        ..Default::default()
    }
}

// Contexts: against the set of their dots, written out one by one.

/// What the dots of a drawn context stay below, so that all of them can be asked for.
const COUNTERS: u64 = 40;
const ACTORS: u64 = 3;

/// The highest counter that a context as text may name.
const HIGHEST: u64 = (1 << 63) - 1;

type Dots = BTreeSet<Dot>;

/// Ranges as (actor, low, high), empty and backward ones among them.
fn ranges() -> impl Strategy<Value = Vec<(Actor, u64, u64)>> {
    let range = (0..ACTORS, 0..COUNTERS - 8, 0..8u64, any::<bool>());
    let range = range.prop_map(|(actor, low, length, forward)| match forward || length > 0 {
        true => (Actor(actor), low, low + length),
        false => (Actor(actor), low + 1, low),
    });
    vec(range, 0..12)
}

fn context(ranges: &[(Actor, u64, u64)]) -> (Context, Dots) {
    let (mut context, mut dots) = (Context::EMPTY, Dots::new());
    for &(actor, low, high) in ranges {
        context.add(actor, low, high);
        dots.extend((low + 1..=high).map(|counter| Dot { actor, counter }));
    }
    (context, dots)
}

fn all_dots() -> impl Iterator<Item = Dot> {
    let dots = |actor| (0..=COUNTERS).map(move |counter| Dot { actor: Actor(actor), counter });
    (0..=ACTORS).flat_map(dots)
}

proptest! {
    #![proptest_config(config())]

    /// Goal: a context is exactly the set of the dots that were added. Method: ask for each dot.
    #[test]
    fn a_context_holds_the_dots_that_were_added_and_no_other(ranges in ranges()) {
        let (context, dots) = context(&ranges);
        for dot in all_dots() {
            prop_assert_eq!(context.contains(dot), dots.contains(&dot), "{} in {:?}", dot, context);
        }
        prop_assert_eq!(context.is_empty(), dots.is_empty());
        for actor in (0..=ACTORS).map(Actor) {
            let highest = dots.iter().filter(|dot| dot.actor == actor).map(|dot| dot.counter).max();
            prop_assert_eq!(context.highest(actor), highest.unwrap_or(0));
        }
    }

    /// Goal: a context has one form only, so that equal ones are equal. Method: look at the ranges.
    #[test]
    fn the_ranges_of_a_context_are_sorted_and_apart(ranges in ranges()) {
        let found: Vec<_> = context(&ranges).0.ranges().collect();
        prop_assert!(found.iter().all(|(_, low, high)| low < high), "an empty range: {:?}", found);
        for pair in found.windows(2) {
            let ((a, _, high), (b, low, _)) = (pair[0], pair[1]);
            prop_assert!(a < b || (a == b && high < low), "not sorted and apart: {:?}", found);
        }
    }

    /// Goal: merge is the union, `includes` is the superset, equality is equality. Method: both on sets.
    #[test]
    fn contexts_merge_and_compare_like_sets(a in ranges(), b in ranges()) {
        let ((a, in_a), (b, in_b)) = (context(&a), context(&b));
        let mut merged = a.clone();
        merged.merge(&b);
        for dot in all_dots() {
            prop_assert_eq!(merged.contains(dot), in_a.contains(&dot) || in_b.contains(&dot));
        }
        prop_assert_eq!(a.includes(&b), in_a.is_superset(&in_b));
        prop_assert_eq!(b.includes(&a), in_b.is_superset(&in_a));
        prop_assert!(merged.includes(&a) && merged.includes(&b));
        prop_assert_eq!(a == b, in_a == in_b);
    }

    #[test]
    fn contexts_merge_in_any_order_and_grouping(a in ranges(), b in ranges(), c in ranges()) {
        let merged = |parts: &[&Context]| {
            parts.iter().fold(Context::EMPTY, |mut all, part| { all.merge(part); all })
        };
        let [a, b, c] = [a, b, c].map(|ranges| context(&ranges).0);
        prop_assert_eq!(merged(&[&a, &b]), merged(&[&b, &a]));
        prop_assert_eq!(merged(&[&merged(&[&a, &b]), &c]), merged(&[&a, &merged(&[&b, &c])]));
        prop_assert_eq!(merged(&[&a, &a]), a.clone());
        prop_assert_eq!(merged(&[&Context::EMPTY, &a]), a);
    }

    #[test]
    fn a_context_reads_back_from_its_text(ranges in ranges(), actor: u64, low in 0..HIGHEST) {
        let (mut context, _) = context(&ranges);
        context.add(Actor(actor), low, HIGHEST);
        prop_assert_eq!(context.to_string().parse::<Context>(), Ok(context));
    }

    /// Goal: no text makes a parser panic, and what is accepted means what it says. Method: any
    /// text, and texts that look nearly right.
    #[test]
    fn parsers_survive_any_text(text in "\\PC{0,40}|[0-9a-f]{15,17}(-[0-9]{0,21}){0,3}(,[0-9a-f]{16}-[0-9]{1,3})?") {
        if let Ok(context) = text.parse::<Context>() {
            prop_assert_eq!(context.to_string().parse::<Context>(), Ok(context));
        }
        if let Ok(dot) = text.parse::<Dot>() {
            prop_assert_eq!(dot.to_string().parse::<Dot>(), Ok(dot));
            prop_assert!(dot.counter > 0);
        }
        if let Ok(id) = text.parse::<NodeId>() {
            prop_assert_eq!(id.to_string(), text.clone());
        }
        let _ = text.parse::<MembersFile>();
    }

    #[test]
    fn a_dot_reads_back_from_its_text(actor: u64, counter in 1..=HIGHEST) {
        let dot = Dot { actor: Actor(actor), counter };
        prop_assert_eq!(dot.to_string().parse::<Dot>(), Ok(dot));
    }

    #[test]
    fn a_node_id_reads_back_and_orders_like_its_text(a in "[A-Za-z0-9._-]{1,32}", b in "[A-Za-z0-9._-]{1,32}") {
        let [x, y] = [&a, &b].map(|text| text.parse::<NodeId>().unwrap());
        prop_assert_eq!(x.as_str(), &a);
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }

    #[test]
    fn a_key_is_any_text_and_orders_by_its_bytes(a in "\\PC{1,100}", b in "\\PC{1,100}") {
        let [x, y] = [&a, &b].map(|text| Key::new(text).unwrap());
        prop_assert_eq!(x.as_str(), &a);
        prop_assert_eq!(x.cmp(&y), a.as_bytes().cmp(b.as_bytes()));
    }
}

#[test]
fn garbage_is_no_context_and_no_dot() {
    let actor = "00000000000000ff";
    for text in ["", "-", "1-1", "ff-1", "00000000000000fg-1", "+0000000000000ff-1", " 00000000000000ff-1"] {
        assert!(text.parse::<Dot>().is_err(), "{text:?} is no dot");
        assert!(text.is_empty() || text.parse::<Context>().is_err(), "{text:?} is no context");
    }
    for rest in ["", "-", "-0", "-x", "-+1", "--1", "-1 ", "-18446744073709551616", "_1"] {
        let text = format!("{actor}{rest}");
        assert!(text.parse::<Dot>().is_err(), "{text:?} is no dot");
        assert!(text.parse::<Context>().is_err(), "{text:?} is no context");
    }
    for rest in ["-2-1", "-2-2", "-1-2-3", "-1-", "-1,", "-1,,", "-1;"] {
        let text = format!("{actor}{rest}");
        assert!(text.parse::<Context>().is_err(), "{text:?} is no context");
    }
    assert!(format!("{actor}-1-2").parse::<Dot>().is_err(), "a range is no dot");
    assert!(",".parse::<Context>().is_err());
}

#[test]
fn garbage_is_no_node_id_and_no_key() {
    for text in ["", " ", "a b", "a/b", "é", "a\0", &"x".repeat(33)] {
        assert!(text.parse::<NodeId>().is_err(), "{text:?} is no id");
    }
    assert!(Key::new("").is_err());
    assert!(Key::new("x".repeat(MAX_KEY_BYTES)).is_ok());
    assert!(Key::new("x".repeat(MAX_KEY_BYTES + 1)).is_err());
    assert!(Key::new("é".repeat(MAX_KEY_BYTES / 2 + 1)).is_err(), "the limit is bytes");
}

/// Goal: a context stays bounded, and pays with its oldest hole. Method: leave one hole too many.
#[test]
fn a_context_with_too_many_holes_closes_the_oldest() {
    let (actor, other) = (Actor(2), Actor(1));
    let mut context = Context::EMPTY;
    context.add(other, 4, 5);
    let holes = MAX_RANGES_PER_ACTOR as u64;
    (1..=holes).for_each(|n| context.add(actor, 2 * n, 2 * n + 1));
    assert!(!context.contains(Dot { actor, counter: 4 }));
    context.add(actor, 2 * holes + 2, 2 * holes + 3);
    assert!(context.contains(Dot { actor, counter: 4 }), "the oldest hole is closed");
    assert!(!context.contains(Dot { actor, counter: 6 }), "the next one is not");
    assert_eq!(context.ranges().len(), MAX_RANGES_PER_ACTOR + 1);
    assert!(!context.contains(Dot { actor: other, counter: 4 }), "another actor pays nothing");
}

// Siblings: against causal histories, written out as sets of dots.

/// One write as the model sees it: the dots that its writer had seen.
#[derive(Clone)]
struct Write {
    record: Record,
    past: Dots,
}

/// A reader: what turbopump says it saw, and what it saw.
#[derive(Clone, Default)]
struct Reader {
    context: Context,
    seen: Dots,
}

/// A replica of one key: what it holds, and the dots that ever came to it.
#[derive(Clone, Default)]
struct Replica {
    siblings: Siblings,
    delivered: Dots,
}

/// How a writer chooses `since`, out of the last counter that it used for the key and the new one.
type SinceRule = fn(&mut Seeded, u64, u64) -> u64;

/// Any counter that is surely not before the last use: exact, or a floor shared with other keys.
const CAREFUL: SinceRule = |chance, last, counter| last + chance.below(counter - last);

/// What a version vector would claim: all that the actor ever wrote.
const VERSION_VECTOR: SinceRule = |_, _, _| 0;

/// One key at several replicas. Their actors write other keys too, so counters have gaps.
struct World {
    chance: Seeded,
    since: SinceRule,
    replicas: Vec<Replica>,
    counters: Vec<u64>,
    last_used: Vec<u64>,
    writes: BTreeMap<Dot, Write>,
    readers: Vec<Reader>,
}

impl World {
    fn new(seed: u64, since: SinceRule) -> Self {
        let mut chance = Seeded::new(seed);
        let count = 2 + chance.below(3) as usize;
        Self {
            chance,
            since,
            replicas: vec![Replica::default(); count],
            counters: vec![0; count],
            last_used: vec![0; count],
            writes: BTreeMap::new(),
            readers: vec![Reader::default()],
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let at = self.chance.below(self.replicas.len() as u64) as usize;
        match self.chance.below(8) {
            0 | 1 => self.write(at),
            2 => self.counters[at] += 1 + self.chance.below(3),
            3 => self.read(at),
            4 => self.late_message(at),
            5 => self.crash(at),
            _ => self.exchange(at),
        }
        self.check()
    }

    /// With what a reader saw: nothing, something old, or all that is here.
    fn write(&mut self, at: usize) {
        let reader = match self.chance.below(3) {
            0 => Reader::default(),
            1 => self.chance.pick(&self.readers).clone(),
            _ => self.reader_of(at),
        };
        self.write_as(reader, at);
    }

    fn write_as(&mut self, reader: Reader, at: usize) {
        self.counters[at] += 1;
        let counter = self.counters[at];
        let since = (self.since)(&mut self.chance, self.last_used[at], counter);
        self.last_used[at] = counter;
        let dot = Dot { actor: Actor(at as u64), counter };
        // Clocks are wrong: the time must not decide anything.
        let written_ms = self.chance.below(5);
        let kind = if self.chance.percent(20) { Kind::Tombstone } else { Kind::Value };
        let version = Version {
            dot,
            since,
            context: reader.context,
            written_ms,
            expires_ms: None,
            kind,
            mirrors: Mirrors(3),
            len: 0,
            digest: Digest::of(b""),
            seal: None,
        };
        let record = Record { version: Arc::new(version), value: None };
        self.writes.insert(dot, Write { record, past: reader.seen });
        self.deliver(at, dot);
    }

    fn reader_of(&self, at: usize) -> Reader {
        let siblings = &self.replicas[at].siblings;
        let mut seen = Dots::new();
        for record in siblings.records() {
            seen.insert(record.version.dot);
            seen.extend(&self.writes[&record.version.dot].past);
        }
        Reader { context: siblings.context(), seen }
    }

    /// A new reader, or one that reads on at another replica.
    fn read(&mut self, at: usize) {
        let mut reader = self.reader_of(at);
        if self.chance.percent(50) {
            let earlier = self.chance.pick(&self.readers);
            reader.context.merge(&earlier.context);
            reader.seen.extend(&earlier.seen);
        }
        self.readers.push(reader);
    }

    /// Any write ever made, for the network may hold it back for as long as it likes.
    fn late_message(&mut self, at: usize) {
        let dots: Vec<Dot> = self.writes.keys().copied().collect();
        if !dots.is_empty() {
            let dot = *self.chance.pick(&dots);
            self.deliver(at, dot);
        }
    }

    /// Loses all that it holds, and with it what it knew. Its actor goes on only in this model; the
    /// floor it keeps is `last_used`.
    fn crash(&mut self, at: usize) {
        if self.chance.percent(20) {
            self.replicas[at] = Replica::default();
        }
    }

    /// Some of what another replica holds, in any order.
    fn exchange(&mut self, at: usize) {
        let held: Vec<Dot> = {
            let from = self.chance.pick(&self.replicas);
            from.siblings.records().iter().map(|record| record.version.dot).collect()
        };
        for dot in shuffled(held, &mut self.chance) {
            if self.chance.percent(60) {
                self.deliver(at, dot);
            }
        }
    }

    fn deliver(&mut self, at: usize, dot: Dot) {
        self.replicas[at].siblings.insert(self.writes[&dot].record.clone());
        self.replicas[at].delivered.insert(dot);
    }

    /// Each replica holds exactly what no other write that came to it had seen, and each
    /// context covers exactly the writes that were seen.
    fn check(&self) -> Result<(), String> {
        for replica in &self.replicas {
            let held: Dots = replica.siblings.records().iter().map(|record| record.version.dot).collect();
            let replaced = |dot: &Dot| replica.delivered.iter().any(|by| self.writes[by].past.contains(dot));
            let due: Dots = replica.delivered.iter().copied().filter(|dot| !replaced(dot)).collect();
            if held != due {
                return Err(format!("a replica holds {held:?}, and {due:?} was never replaced"));
            }
        }
        let here = (0..self.replicas.len()).map(|at| self.reader_of(at));
        for reader in self.readers.iter().cloned().chain(here) {
            for dot in self.writes.keys() {
                if reader.context.contains(*dot) != reader.seen.contains(dot) {
                    return Err(format!(
                        "{:?} is wrong about {dot}, seen was {:?}",
                        reader.context, reader.seen
                    ));
                }
            }
        }
        Ok(())
    }

    /// Everything reaches everyone.
    fn heal(&mut self) -> Result<(), String> {
        for at in 0..self.replicas.len() {
            let dots = self.writes.keys().copied().collect();
            for dot in shuffled(dots, &mut self.chance) {
                self.deliver(at, dot);
            }
        }
        self.check()?;
        match self.replicas.iter().all(|replica| replica.siblings == self.replicas[0].siblings) {
            true => Ok(()),
            false => Err("replicas that met the same writes differ".into()),
        }
    }
}

fn shuffled<T>(mut items: Vec<T>, chance: &mut Seeded) -> Vec<T> {
    for last in (1..items.len()).rev() {
        items.swap(last, chance.below(last as u64 + 1) as usize);
    }
    items
}

fn simulate(seed: u64, since: SinceRule) -> Result<World, String> {
    let mut world = World::new(seed, since);
    for _ in 0..60 {
        world.step()?;
    }
    world.heal()?;
    Ok(world)
}

/// Goal: no write is lost and no sibling is false, whatever the order of news. Method: many small
/// worlds with stale readers, late messages and crashes, checked against histories after each step.
#[test]
fn replicas_hold_exactly_what_nobody_replaced() {
    for seed in 0..400 {
        if let Err(broken) = simulate(seed, CAREFUL) {
            panic!("seed {seed}: {broken}");
        }
    }
}

/// Goal: the worlds above can fail. Method: writers that claim what a version vector would.
#[test]
fn a_version_vector_would_lose_writes_and_be_caught() {
    let caught = (0..50).filter(|&seed| simulate(seed, VERSION_VECTOR).is_err()).count();
    assert!(caught > 25, "only {caught} of 50 worlds noticed");
}

/// Goal: siblings merge in any order, grouping and repetition. Method: random thirds of the writes
/// of a world, joined in different ways.
#[test]
fn siblings_merge_in_any_order_and_grouping() {
    for seed in 0..100 {
        let mut world = simulate(seed, CAREFUL).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        let mut part = || {
            let records = world.writes.values().map(|write| write.record.clone());
            Siblings::resolve(records.filter(|_| world.chance.percent(40)))
        };
        let (a, b, c) = (part(), part(), part());
        assert_eq!(joined(&[&a, &b]), joined(&[&b, &a]), "seed {seed}");
        let (left, right) = (joined(&[&joined(&[&a, &b]), &c]), joined(&[&a, &joined(&[&b, &c])]));
        assert_eq!(left, right, "seed {seed}");
        assert_eq!(joined(&[&a, &a]), a, "seed {seed}");
        assert_eq!(joined(&[&a, &Siblings::default()]), a, "seed {seed}");
        assert!(
            left.records().is_sorted_by_key(|record| std::cmp::Reverse(record.version.recency())),
            "newest first"
        );
    }
}

fn joined(parts: &[&Siblings]) -> Siblings {
    Siblings::resolve(parts.iter().flat_map(|part| part.records().iter().cloned()))
}

/// Goal: a conflict ends everywhere with one write of somebody who saw it. Method: worlds that end
/// with siblings, one more write, and its merge with each replica in both orders.
#[test]
fn a_write_after_reading_all_siblings_settles_them_everywhere() {
    let mut conflicts = 0;
    for seed in 0..50 {
        let mut world = simulate(seed, CAREFUL).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"));
        conflicts += usize::from(world.replicas[0].siblings.records().len() > 1);
        let reader = world.reader_of(0);
        world.write_as(reader, 0);
        let settled = &world.replicas[0].siblings;
        assert_eq!(settled.records().len(), 1, "seed {seed}");
        for other in &world.replicas[1..] {
            assert_eq!(joined(&[&other.siblings, settled]), *settled, "seed {seed}");
            assert_eq!(joined(&[settled, &other.siblings]), *settled, "seed {seed}");
        }
    }
    assert!(conflicts > 25, "only {conflicts} of 50 worlds ended with a conflict");
}

// Members: against the greatest entry per id.

fn member() -> impl Strategy<Value = Member> {
    let states = vec![MemberState::Active, MemberState::Leaving, MemberState::Removed];
    let addrs = select(vec!["10.0.0.1:1", "10.0.0.1:2", "[2001:db8::1]:1592"]);
    let addrs = vec(addrs.prop_map(|addr| addr.parse::<SocketAddr>().unwrap()), 0..3);
    let key = |number| MemberKey::Known(PublicKey([number; 32]));
    let keys = vec![MemberKey::Unknown, key(1), key(2), MemberKey::Disputed];
    (select(vec!["a", "b", "c"]), 0..3u32, select(states), 0..3u64, 0..3u16, addrs, select(keys)).prop_map(
        |(id, generation, state, revision, weight, addrs, key)| Member {
            id: id.parse().unwrap(),
            generation,
            state,
            revision,
            weight,
            addrs,
            key,
            vouched: Vouched::default(),
        },
    )
}

fn merged<'a>(news: impl IntoIterator<Item = &'a Member>) -> Members {
    let mut members = Members::default();
    for member in news {
        let before = members.clone();
        assert_eq!(members.merge(member), members != before, "merge says whether something changed");
    }
    members
}

/// As it stands in a list of signed members, which have keys.
fn signed(member: &Member) -> Member {
    let key = MemberKey::Known(member.key.known().unwrap_or(PublicKey([3; 32])));
    let warrant = Warrant { signer: PublicKey([9; 32]), signature: [9; 64] };
    Member { key, vouched: Vouched::by(warrant), ..member.clone() }
}

/// An entry without its key, which goes its own way.
fn bare(member: &Member) -> Member {
    Member { key: MemberKey::Unknown, ..member.clone() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn member_lists_merge_in_any_order_and_repetition(
        news in vec(member(), 0..12),
        repeated in vec(any::<Index>(), 0..6),
        seed: u64,
        are_signed: bool,
    ) {
        let news: Vec<Member> = if are_signed { news.iter().map(signed).collect() } else { news };
        let mut again = news.clone();
        if !news.is_empty() {
            again.extend(repeated.iter().map(|index| index.get(&news).clone()));
        }
        let again = shuffled(again, &mut Seeded::new(seed));
        let (list, other) = (merged(&news), merged(&again));
        prop_assert_eq!(&list, &other);
        prop_assert_eq!(list.digest(), other.digest());
        let lists_merged = merged(list.all().chain(other.all()));
        prop_assert_eq!(lists_merged, list);
    }

    #[test]
    fn different_member_lists_have_different_digests(a in vec(member(), 0..4), b in vec(member(), 0..4)) {
        let (a, b) = (merged(&a), merged(&b));
        prop_assert_eq!(a == b, a.digest() == b.digest());
    }

    /// Goal: which of two entries wins is as the module says. Method: the rule, spelled out.
    #[test]
    fn generation_then_removal_then_leaving_then_revision_decide(a in member(), b in member()) {
        let b = Member { id: a.id, ..b };
        let weight_of = |m: &Member| (m.generation, m.state == MemberState::Removed, m.state == MemberState::Leaving, m.revision);
        let winner = merged([&a, &b]).find(a.id).unwrap().clone();
        match weight_of(&a).cmp(&weight_of(&b)) {
            std::cmp::Ordering::Greater => prop_assert_eq!(bare(&winner), bare(&a)),
            std::cmp::Ordering::Less => prop_assert_eq!(bare(&winner), bare(&b)),
            std::cmp::Ordering::Equal => prop_assert!(bare(&winner) == bare(&a) || bare(&winner) == bare(&b)),
        }
    }

    /// Goal: a key once known for a generation is never exchanged for another. Method: any news of it.
    #[test]
    fn a_known_key_stays_or_is_disputed(a in member(), b in member()) {
        let b = Member { id: a.id, ..b };
        let joined = a.joined(&b);
        let expected = match (a.generation == b.generation, a.key, b.key) {
            (false, ..) => a.clone().max(b.clone()).key,
            (true, MemberKey::Unknown, key) | (true, key, MemberKey::Unknown) => key,
            (true, one, other) if one == other => one,
            _ => MemberKey::Disputed,
        };
        prop_assert_eq!(joined.key, expected);
    }

    /// Goal: no statement about a signed member disputes its key. Method: the later entry, spelled out.
    #[test]
    fn of_two_signed_entries_the_later_one_counts_as_a_whole(a in member(), b in member()) {
        let (a, b) = (signed(&a), signed(&Member { id: a.id, ..b }));
        prop_assert_eq!(a.joined(&b), a.clone().max(b));
    }

    #[test]
    fn a_removed_member_returns_with_a_higher_generation_only(member in member(), revision: u64) {
        let removed = Member { state: MemberState::Removed, ..member.clone() };
        let stale = Member { state: MemberState::Active, revision, ..member.clone() };
        let mut members = merged([&removed, &stale]);
        prop_assert!(!members.contains(member.id));
        prop_assert_eq!(members.present().count(), 0);
        let again = Member { generation: member.generation + 1, revision: 0, ..stale };
        prop_assert!(members.merge(&again));
        prop_assert!(members.contains(member.id));
        prop_assert!(!members.merge(&removed));
        prop_assert!(members.contains(member.id));
    }

    /// Goal: nothing that the file is meant to keep is lost by writing it. Method: write and read.
    #[test]
    fn a_members_file_reads_back_from_its_text(
        peers in vec(member(), 0..4),
        weight in option::of(any::<u16>()),
    ) {
        // A file carries no revisions, and a removed member has no address any more.
        let kept = |m: &Member| {
            let addrs = if m.is_present() { m.addrs.clone() } else { Vec::new() };
            Member { revision: 0, addrs, ..m.clone() }
        };
        let mut this = Member::new("self".parse().unwrap(), vec!["[::1]:1592".parse().unwrap()]);
        this.weight = weight.unwrap_or(1);
        let file = MembersFile { this, peers: merged(&peers).all().map(kept).collect() };
        prop_assert_eq!(file.to_string().parse::<MembersFile>(), Ok(file));
    }
}

#[test]
fn a_members_file_keeps_what_vouches_for_a_member() {
    let warrant = Warrant { signer: PublicKey([5; 32]), signature: [6; 64] };
    let with = |own, revision| Member {
        key: MemberKey::Known(PublicKey([4; 32])),
        revision,
        vouched: Vouched(Some(Proofs { warrant, own }.into())),
        ..Member::new("2".parse().unwrap(), vec!["10.0.0.2:1".parse().unwrap()])
    };
    for member in
        [with(None, 0), with(Some([7; 64]), 300), warrant.removal("2".parse().unwrap(), PublicKey([4; 32]))]
    {
        let this = Member::new("1".parse().unwrap(), vec![]);
        let text = MembersFile { this, peers: vec![member.clone()] }.to_string();
        let read: MembersFile = text.parse().unwrap();
        assert_eq!((&read.peers[0], &read.peers[0].vouched.0), (&member, &member.vouched.0), "{text}");
    }
    let key = PublicKey([4; 32]);
    for wrong in ["by=5", &format!("by={key}:{key}"), &format!("own={key}"), "revision=x"] {
        assert!(format!("1 none {wrong}").parse::<MembersFile>().is_err(), "{wrong}");
    }
}

#[test]
fn a_members_file_names_keys() {
    let key = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    let file: MembersFile = format!("1 none {key}\n2 10.0.0.2:1 disputed weight=2\n3 none").parse().unwrap();
    assert_eq!(file.this.key, MemberKey::Known(key.parse().unwrap()));
    assert_eq!((file.peers[0].key, file.peers[0].weight), (MemberKey::Disputed, 2));
    assert_eq!(file.peers[1].key, MemberKey::Unknown);
    for wrong in
        [format!("1 none {}", &key[1..]), format!("1 none {key} {key}"), format!("1 none {key} disputed")]
    {
        assert!(wrong.parse::<MembersFile>().is_err(), "{wrong}");
    }
    let short = key.parse::<PublicKey>().unwrap().short();
    assert_eq!(short.as_str(), &key[..16]);
}

#[test]
fn a_members_file_may_be_laid_out_as_people_do() {
    let file: MembersFile =
        "# mine\r\n\r\n  1\t127.0.0.1:1593 \n2 127.0.0.1:2593|[::1]:2593 weight=2 # other\n3 none"
            .parse()
            .unwrap();
    assert_eq!(file.this.id.as_str(), "1");
    assert_eq!(file.peers[0].addrs.len(), 2);
    assert_eq!(file.peers[0].weight, 2);
    assert_eq!(file.peers[1].addrs, []);
}

/// Goal: a person finds the line that is wrong. Method: one wrong line of each sort, below a
/// comment and a good line.
#[test]
fn a_wrong_line_of_a_members_file_is_named() {
    let wrong = [
        ("2", "an address is missing"),
        ("a/b none", "a node id has"),
        ("2 localhost:1", "is no address"),
        ("2 127.0.0.1", "is no address"),
        ("2 127.0.0.1:1|", "is no address"),
        ("2 127.0.0.1:1 127.0.0.1:2", "is none of"),
        ("2 127.0.0.1:1 weight=70000", "is none of"),
        ("2 127.0.0.1:1 weight=-1", "is none of"),
        ("2 removed leaving", "is none of"),
        ("1 127.0.0.1:1", "stands here twice"),
        ("2 ::1:1|1:1|1:1", "is no address"),
    ];
    for (line, reason) in wrong {
        let text = format!("# a comment\n1 127.0.0.1:1593\n\n{line}\n3 none\n");
        let error = text.parse::<MembersFile>().expect_err(line);
        assert_eq!(error.line, 4, "{line}: {error}");
        assert!(error.reason.contains(reason), "{line}: {error}");
        assert!(error.to_string().starts_with("line 4: "));
    }
    let crowded = format!("1 {}", ["127.0.0.1:1"; 9].join("|"));
    assert!(crowded.parse::<MembersFile>().unwrap_err().reason.contains("more than 8"));
    assert!("".parse::<MembersFile>().unwrap_err().reason.contains("no node"));
    assert!("# only\n".parse::<MembersFile>().unwrap_err().reason.contains("no node"));
    let error = "# a comment\n1 removed\n2 none".parse::<MembersFile>().unwrap_err();
    assert_eq!((error.line, error.reason.as_str()), (2, "this node is marked removed"));
}

// Partitions and mirrors.

/// Goal: `bounds` and `of` speak of the same slices. Method: for each count, the edges of each slice
/// and of their neighbours.
#[test]
fn the_bounds_of_partitions_meet_without_gap_or_overlap() {
    for count in (0..=16).map(|bit| PartitionCount::new(1 << bit).unwrap()) {
        let mut expected = Some(0);
        for partition in count.all() {
            let (low, high) = count.bounds(partition);
            assert_eq!(Some(low), expected, "{partition:?} of {count:?}");
            assert_eq!((count.of(low), count.of(high)), (partition, partition), "of {count:?}");
            expected = high.checked_add(1);
        }
        assert_eq!(expected, None, "the last partition ends where the hashes do");
        assert_eq!(count.of(u64::MAX), Partition(count.get() - 1));
    }
}

#[test]
fn the_number_of_partitions_is_a_power_of_two_within_bounds() {
    for wrong in [0, 3, 1_000, 65_535, 131_072, u32::MAX] {
        assert!(PartitionCount::new(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn mirrors_order_by_how_far_they_spread() {
    assert!(Mirrors(1) < Mirrors(2) && Mirrors(2) < Mirrors(u16::MAX) && Mirrors(u16::MAX) < Mirrors::ALL);
    assert_eq!([Mirrors(2).of(3), Mirrors(5).of(3), Mirrors::ALL.of(3), Mirrors::ALL.of(0)], [2, 3, 3, 0]);
}
