//! What can be made believed of members where each signs what it says: by one that is a member, who belongs to
//! the cluster; by everybody else, nothing.

use super::*;
use crate::model::{MembersFile, Warrant};

fn key(name: &str) -> PublicKey {
    identity(name).public_key()
}

/// A node's entry as a person names it.
fn named(name: &str) -> Member {
    let addrs = vec!["10.0.0.1:1".parse().unwrap()];
    Member { key: MemberKey::Known(key(name)), ..Member::new(id(name), addrs) }
}

fn warrant(by: &str, name: &str, key_of: &str, generation: u32) -> Warrant {
    identity(by).appoint(&Appointment { key: key(key_of), ..appointment(name, generation) })
}

/// What one node says of another that has not spoken.
fn said(by: &str, name: &str, generation: u32) -> Member {
    warrant(by, name, name, generation).entry(id(name), key(name), generation, named(name).addrs)
}

/// What one node hands on of what another says of itself.
fn handed_on(by: &str, name: &str, change: impl Fn(&mut Member)) -> Member {
    let mut entry = Member { revision: 7, ..said(by, name, 0) };
    change(&mut entry);
    entry.vouched = Vouched::by(warrant(by, name, name, entry.generation));
    signed(entry, name)
}

fn removed(by: &str, name: &str) -> Member {
    warrant(by, name, name, FOR_GOOD).removal(id(name), key(name))
}

fn setup_of(this: Member, peers: Vec<Member>) -> Setup {
    let config = Config { signed_members: true, ..Config::default() };
    Setup { sign: Sign(Arc::new(|message| identity("a").sign(message))), ..setup(this, peers, config) }
}

/// The node `a` with these peers, all up.
fn core_with(peers: &[&str]) -> Core {
    let this = Member { revision: 1, ..named("a") };
    let mut core = Core::new(setup_of(this, peers.iter().map(|name| named(name)).collect()));
    core.start(NOW, &mut Vec::new());
    for peer in peers {
        feed(&mut core, Input::LinkUp { peer: id(peer), incarnation: 1 });
    }
    core
}

fn hear_from(core: &mut Core, from: &str, entries: Vec<Member>) {
    feed(core, Input::Message { from: id(from), message: Message::Members { entries, reply: false } });
}

fn refused(core: &Core) -> u64 {
    core.stats().counters.members_refused
}

/// Each entry of its list is one that this node can hand to anybody who knows its key.
fn assert_stands_by_all(core: &Core) {
    for m in core.members().all() {
        assert_eq!(m.check_warrant(CLUSTER, &[key("a")], is_signed_by), Ok(()), "{m:?}");
    }
}

fn add(core: &mut Core, name: &str, key: Option<PublicKey>) -> Result<(), MemberError> {
    ask(core, Request::AddMember { id: id(name), addrs: vec![], key, appointed: None })
}

fn remove(core: &mut Core, name: &str) -> Result<(), MemberError> {
    ask(core, Request::RemoveMember { id: id(name), key: None, warrant: None })
}

/// The node after a restart, from the members file that it left.
fn again(core: &Core) -> Core {
    let (this, peers) = core.members().all().cloned().partition::<Vec<_>, _>(|m| m.id == id("a"));
    let this = Member { state: MemberState::Active, ..this[0].clone() };
    let file: MembersFile = MembersFile { this, peers }.to_string().parse().unwrap();
    let this = Member { revision: core.members().find(id("a")).unwrap().revision + 1, ..file.this };
    let mut core = Core::new(setup_of(this, file.peers));
    core.start(NOW, &mut Vec::new());
    core
}

#[test]
fn what_a_member_signs_is_taken_and_stood_by() {
    let mut core = core_with(&["b"]);
    hear_from(&mut core, "b", vec![said("b", "c", 0)]);
    assert_eq!(names(&core), ["a", "b", "c"]);
    feed(&mut core, Input::LinkUp { peer: id("c"), incarnation: 1 });
    // In one message: who becomes a member by it, and what that one says itself.
    hear_from(&mut core, "c", vec![handed_on("c", "c", |c| c.weight = 3), said("c", "d", 0)]);
    assert_eq!((names(&core).len(), core.members().find(id("c")).unwrap().weight), (4, 3));
    assert_stands_by_all(&core);
    let gone = handed_on("c", "c", |c| (c.revision, c.state, c.addrs) = (9, MemberState::Removed, vec![]));
    hear_from(&mut core, "c", vec![gone, said("c", "e", 0)]);
    assert_eq!(names(&core), ["a", "b", "d", "e"], "it left, and that was its last word");
    hear_from(&mut core, "b", vec![said("b", "c", 1)]);
    assert_eq!(names(&core), ["a", "b", "c", "d", "e"], "it was added again");
    assert_stands_by_all(&core);
    assert_eq!(refused(&core), 0);
    assert_eq!(*again(&core).members().find(id("c")).unwrap(), *core.members().find(id("c")).unwrap());
}

#[test]
fn what_no_member_signs_is_refused() {
    // Goal: without a member's key nobody's list changes, and no member speaks for another. Method: each lie
    // is one change of something true; all seem to come from `b`.
    let mut core = core_with(&["b", "c"]);
    let truth = handed_on("b", "c", |c| c.weight = 3);
    hear_from(&mut core, "b", vec![truth.clone()]);
    let before = core.members().clone();
    let unsigned = |entry: Member| Member { vouched: Vouched::default(), ..entry };
    let mut other_cluster = appointment("d", 0);
    other_cluster.cluster = "other".into();
    let later = || Member { revision: 8, ..truth.clone() };
    let lies = [
        unsigned(said("b", "d", 0)),
        said("stranger", "d", 0),
        said("d", "d", 0),
        said("c", "d", 0),
        said("a", "d", 0),
        Member { vouched: Vouched::by(identity("b").appoint(&other_cluster)), ..said("b", "d", 0) },
        Member { id: id("e"), ..said("b", "d", 0) },
        Member { key: MemberKey::Known(key("b")), ..said("b", "d", 0) },
        Member { key: MemberKey::Unknown, ..said("b", "d", 0) },
        Member { weight: 2, ..said("b", "d", 0) },
        Member { state: MemberState::Leaving, ..said("b", "d", 0) },
        unsigned(later()),
        later(),
        Member { weight: 9, ..later() },
        Member { state: MemberState::Removed, ..later() },
        Member { state: MemberState::Removed, addrs: vec![], ..later() },
        Member { generation: 1, ..later() },
        signed(later(), "b"),
        handed_on("stranger", "c", |c| c.revision = 8),
        removed("stranger", "c"),
        removed("c", "b"),
        Member { id: id("a"), ..removed("b", "c") },
        unsigned(removed("b", "a")),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        hear_from(&mut core, "b", vec![lie.clone()]);
        assert_eq!(*core.members(), before, "{n}: {lie:?}");
        assert_eq!(refused(&core), n as u64 + 1, "{lie:?}");
    }
    hear_from(&mut core, "b", vec![truth, said("b", "c", 0)]);
    assert_eq!(*core.members(), before, "a replay");
    assert_eq!(core.stats().standing, Standing::Member);
}

#[test]
fn who_was_removed_says_nothing_any_more_and_does_not_come_back() {
    let news = [said("b", "c", 0), said("b", "c", 5), removed("b", "c"), {
        warrant("b", "d", "c", 4).entry(id("d"), key("c"), 4, vec![])
    }];
    for first in 0..news.len() {
        for second in 0..news.len() {
            let mut core = core_with(&["b", "c"]);
            let rest = (0..news.len()).filter(|n| ![first, second].contains(n));
            let order = [first, second].into_iter().chain(rest);
            order.for_each(|n| hear_from(&mut core, "b", vec![news[n].clone()]));
            for mut core in [again(&core), core] {
                assert_eq!(names(&core), ["a", "b"], "{first}, {second}");
                let before = core.members().clone();
                let own = handed_on("c", "c", |c| c.revision = 99);
                for from in ["b", "c"] {
                    hear_from(&mut core, from, vec![said("c", "e", 0), removed("c", "b"), own.clone()]);
                }
                assert_eq!(*core.members(), before);
                for name in ["c", "d", "e"] {
                    let result = add(&mut core, name, Some(key("c")));
                    assert_eq!(result, Err(MemberError::RemovedForGood(id(name))));
                }
                assert_stands_by_all(&core);
            }
        }
    }
}

#[test]
fn a_wrong_key_for_a_member_does_not_put_its_own_in_doubt() {
    // Two people named two keys for one node. Whoever hears of both believes the same, in any order, and
    // the node's own word goes before either.
    let keys = |core: &Core| core.members().find(id("c")).unwrap().key;
    let of_c =
        |by: &str, key_of: &str| warrant(by, "c", key_of, 0).entry(id("c"), key(key_of), 0, named("c").addrs);
    let news = [of_c("b", "x"), of_c("b", "c"), handed_on("b", "c", |c| c.weight = 2)];
    let mut seen = Vec::new();
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 1]] {
        let mut core = core_with(&["b"]);
        for (heard, n) in order.into_iter().enumerate() {
            hear_from(&mut core, "b", vec![news[n].clone()]);
            assert_ne!(keys(&core), MemberKey::Disputed);
            if heard == 1 && !order[..2].contains(&2) {
                seen.push(keys(&core));
            }
        }
        assert_eq!(keys(&core), MemberKey::Known(key("c")), "{order:?}");
        assert_eq!(keys(&again(&core)), MemberKey::Known(key("c")));
        assert_stands_by_all(&core);
        assert_eq!(refused(&core), 0);
        assert_eq!(add(&mut core, "c", Some(key("x"))), Err(MemberError::Key(id("c"))));
    }
    assert_eq!(seen[0], seen[1]);
    // The same of the node itself: it stays who it is.
    let mut core = core_with(&["b"]);
    let wrong = warrant("b", "a", "x", 0).entry(id("a"), key("x"), 0, vec![]);
    hear_from(&mut core, "b", vec![wrong]);
    assert_eq!(core.members().find(id("a")).unwrap().key, MemberKey::Known(key("a")));
    assert_stands_by_all(&core);
}

#[test]
fn clients_of_a_node_speak_with_its_signature() {
    let mut core = core_with(&["b"]);
    assert_eq!(add(&mut core, "c", None), Err(WarrantError::Key.into()));
    assert_eq!(add(&mut core, "a", Some(key("a"))), Err(MemberError::Myself(id("a"))));
    assert_eq!(add(&mut core, "c", Some(key("c"))), Ok(()));
    assert_eq!(add(&mut core, "c", None), Ok(()), "once more, perhaps with another address");
    assert_eq!(names(&core), ["a", "b", "c"]);
    let by_stranger = Some((0, warrant("stranger", "d", "d", 0)));
    let request =
        Request::AddMember { id: id("d"), addrs: vec![], key: Some(key("d")), appointed: by_stranger };
    assert_eq!(ask(&mut core, request), Err(WarrantError::Signer.into()));
    let gone = handed_on("b", "c", |c| (c.state, c.addrs) = (MemberState::Removed, vec![]));
    hear_from(&mut core, "b", vec![gone]);
    assert_eq!(add(&mut core, "c", Some(key("x"))), Ok(()), "it left, and comes back with a new key");
    let c = core.members().find(id("c")).unwrap();
    assert_eq!((c.generation, c.key), (1, MemberKey::Known(key("x"))));
    let wrong = Request::RemoveMember { id: id("c"), key: Some(key("c")), warrant: None };
    assert_eq!(ask(&mut core, wrong), Err(MemberError::Key(id("c"))));
    assert_eq!(remove(&mut core, "c"), Ok(()));
    assert_eq!(names(&core), ["a", "b"]);
    assert_eq!(add(&mut core, "c", Some(key("c"))), Err(MemberError::RemovedForGood(id("c"))));
    assert_eq!(remove(&mut core, "c"), Err(MemberError::Unknown(id("c"))));
    assert_stands_by_all(&core);
}

#[test]
fn a_removed_node_is_told_and_speaks_for_nobody() {
    let mut core = core_with(&["b", "c"]);
    hear_from(&mut core, "b", vec![removed("b", "a")]);
    for mut core in [again(&core), core] {
        assert_eq!(core.stats().standing, Standing::Removed);
        hear_from(&mut core, "c", vec![said("c", "a", 9)]);
        assert_eq!(core.stats().standing, Standing::Removed);
    }
}

#[test]
fn a_list_from_before_members_signed_is_taken_as_far_as_one_can_sign_it() {
    // Goal: members may begin to sign in a cluster that runs. Method: the lines that stand in its files.
    let text = format!(
        "a none {a}\nb 10.0.0.2:1 {b} weight=4\nc 10.0.0.3:1 {c} leaving generation=2\nd removed {d} \
         generation=1\ne removed",
        a = key("a"),
        b = key("b"),
        c = key("c"),
        d = key("d")
    );
    let file: MembersFile = text.parse().unwrap();
    let core = Core::new(setup_of(file.this, file.peers));
    assert_eq!(names(&core), ["a", "b", "c"]);
    let of = |name| core.members().find(id(name));
    assert_eq!((of("b").unwrap().weight, of("c").unwrap().state), (1, MemberState::Active));
    assert_eq!((of("c").unwrap().generation, of("d"), of("e")), (2, None, None));
    assert_stands_by_all(&core);
}
