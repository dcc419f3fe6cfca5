//! Signed membership on a bad network, among nodes of which one lies.

use std::collections::BTreeSet;

use turbopump::{
    FOR_GOOD, Identity, Member, MemberKey, PublicKey, Warrant,
    model::{Appointment, MemberState, Seeded, Vouched},
    testing::simulation::{Options, World, Write, admin, identity_of},
    wire::Message,
};

use crate::scenarios::healed;

/// The one that is removed.
const REMOVED: usize = 3;

/// What can be made of a true entry without the keys of who may sign and of the member.
fn lies(entry: &Member, liar: &Identity, signer: PublicKey) -> Vec<Member> {
    let appointed = |generation, key: PublicKey| {
        let said = Appointment { cluster: "simulation".into(), id: entry.id, key, generation };
        Vouched::by(liar.appoint(&said))
    };
    let key = entry.key.known().expect("it is signed");
    let revision = entry.revision + 1_000_000;
    let forged = Warrant { signer, signature: [9; 64] };
    vec![
        Member { vouched: Vouched::default(), revision, ..entry.clone() },
        Member { revision, ..entry.clone() },
        Member { revision, state: MemberState::Removed, addrs: Vec::new(), ..entry.clone() },
        Member { revision, state: MemberState::Leaving, ..entry.clone() },
        Member { revision, weight: 0, ..entry.clone() },
        Member { generation: entry.generation.saturating_add(1), ..entry.clone() },
        Member { generation: 7, state: MemberState::Active, vouched: appointed(7, key), ..entry.clone() },
        Member { key: MemberKey::Known(liar.public_key()), ..entry.clone() },
        forged.removal(entry.id, key),
        liar.appoint(&Appointment { cluster: "simulation".into(), id: entry.id, key, generation: FOR_GOOD })
            .removal(entry.id, key),
    ]
}

/// Members are who those that may sign say they are, whatever node `liar` says: one is removed and another
/// added over a network that loses, repeats and delays, while the liar, which has its own key, forges,
/// alters and replays whatever was ever said; nodes restart in between. In the end all have the same list.
fn lies_change_nothing(seed: u64, by_admin: bool, liar: usize) {
    let mut options = Options { spares: 1, ..Options::quiet(seed, 5) };
    match by_admin {
        true => options.config.admin_keys = vec![admin().public_key()],
        false => options.config.signed_members = true,
    }
    (options.drop_percent, options.duplicate_percent, options.late_percent) = (10, 10, 5);
    let mut world = World::new(options);
    world.run_for(3_000);
    let (mut chance, mut ever, mut told) = (Seeded::new(seed), Vec::<Member>::new(), 0);
    let (removed_at, joined_at) = (10 + chance.below(20), 10 + chance.below(20));
    for step in 0..60 {
        if step == removed_at {
            world.remove(REMOVED, chance.below(2) as usize);
        }
        if step == joined_at {
            world.join(5, 4);
        }
        if chance.percent(10) {
            let n = chance.below(2) as usize;
            world.crash(n);
            world.start(n);
        }
        world.write(chance.below(2) as usize, Write::put(&format!("k{}", chance.below(5)), 30));
        world.run_for(chance.below(300));
        for n in [0, 1, 3, 4] {
            let listed = world.members(n).into_iter().flat_map(|m| m.all());
            let signed = listed.filter(|m| m.vouched.0.is_some()).cloned();
            let signed: Vec<Member> = signed.filter(|m| !ever.contains(m)).collect();
            ever.extend(signed);
        }
        // A member may add and remove others where members sign: it has to be one no more.
        let lies_now = if by_admin || step > removed_at { 3 } else { 0 };
        for _ in 0..lies_now {
            let entry = ever[chance.below(ever.len() as u64) as usize].clone();
            let to = [0, 1, 4][chance.below(3) as usize];
            // As itself, or over a network that does not tell as another.
            let from = if chance.percent(50) { liar } else { 2 };
            let signer = if by_admin { admin() } else { identity_of(world.id(from)) }.public_key();
            let mut entries = lies(&entry, &identity_of(world.id(liar)), signer);
            entries.push(entry);
            told += entries.len();
            world.lie(from, to, Message::Members { entries, reply: chance.percent(50) });
        }
        assert!(world.violation().is_none(), "seed {seed}: {:?}", world.violation());
    }
    assert!(told > 500, "seed {seed}: {told} lies");
    healed(&mut world);
    let expected: BTreeSet<_> = [0, 1, 2, 4, 5].map(|n| world.id(n)).into();
    for n in [0, 1, 2, 4, 5] {
        let members = world.members(n).unwrap();
        assert_eq!(members.present().map(|m| m.id).collect::<BTreeSet<_>>(), expected, "seed {seed}: {n}");
        assert!(members.present().all(|m| m.weight == 1 && m.state == MemberState::Active));
        assert_eq!(members, world.members(0).unwrap(), "seed {seed}: {n}");
    }
    let refused = |n| {
        let counters = world.stats(n).unwrap().counters.all();
        counters.into_iter().find(|(name, _)| *name == "members_refused").unwrap().1
    };
    let refused: u64 = [0, 1, 4].map(refused).iter().sum();
    assert!(refused > 100, "seed {seed}: {refused} refused");
}

#[test]
fn lies_and_replays_of_a_member_change_nothing_where_admins_sign() {
    (1..=12).for_each(|seed| lies_change_nothing(seed, true, 2));
}

#[test]
fn lies_and_replays_of_a_removed_member_change_nothing_where_members_sign() {
    (1..=12).for_each(|seed| lies_change_nothing(seed, false, REMOVED));
}
