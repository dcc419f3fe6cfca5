//! What a member can make others believe of members, where only an admin may say so: nothing.

mod by_members;

use super::*;
use crate::{
    Identity,
    config::Config,
    core::{Input, Now, OpId, Outcome, Request, Setup, Standing, tests::setup},
    identity::is_signed_by,
    model::{Appointment, MemberKey, MemberState},
    wire::Message,
};

const NOW: Now = Now { mono_ms: 1, wall_ms: 1_000_000 };
const CLUSTER: &str = "test";

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// The key pair of a node, or of the admin.
fn identity(name: &str) -> Identity {
    Identity::from_seed([name.as_bytes()[0]; 32])
}

fn appointment(name: &str, generation: u32) -> Appointment {
    Appointment { cluster: CLUSTER.into(), id: id(name), key: identity(name).public_key(), generation }
}

/// What the admin says of a node that has not spoken.
fn bare(name: &str, generation: u32) -> Member {
    let appointment = appointment(name, generation);
    let warrant = identity("admin").appoint(&appointment);
    warrant.entry(id(name), appointment.key, generation, vec!["10.0.0.1:1".parse().unwrap()])
}

/// What the node says of itself, on the word of the admin.
fn spoken(name: &str, change: impl Fn(&mut Member)) -> Member {
    let mut entry = Member { revision: 7, ..bare(name, 0) };
    change(&mut entry);
    signed(entry, name)
}

/// With the signature of this node as the member's own.
fn signed(entry: Member, signer: &str) -> Member {
    let key = entry.key.known().unwrap();
    let own = Some(identity(signer).sign(&entry.own_message(CLUSTER, &key)));
    let warrant = entry.vouched.0.as_ref().unwrap().warrant;
    Member { vouched: Vouched(Some(Proofs { warrant, own }.into())), ..entry }
}

fn removal(name: &str) -> Member {
    let appointment = appointment(name, FOR_GOOD);
    identity("admin").appoint(&appointment).removal(appointment.id, appointment.key)
}

fn admin_setup(this: Member) -> Setup {
    let config = Config { admin_keys: vec![identity("admin").public_key()], ..Config::default() };
    let sign = Sign(Arc::new(|message| identity("a").sign(message)));
    Setup { sign, ..setup(this, vec![bare("b", 0)], config) }
}

/// The node `a` with a peer `b` that is up, in a cluster with an admin.
fn core(this: Member) -> Core {
    let mut core = Core::new(admin_setup(this));
    core.start(NOW, &mut Vec::new());
    feed(&mut core, Input::LinkUp { peer: id("b"), incarnation: 1 });
    core
}

fn appointed() -> Core {
    core(Member { revision: 1, ..bare("a", 0) })
}

fn feed(core: &mut Core, input: Input) -> Vec<Output> {
    let mut outputs = Vec::new();
    core.handle(NOW, input, &mut outputs);
    outputs
}

fn hear(core: &mut Core, entry: Member) {
    let message = Message::Members { entries: vec![entry], reply: false };
    feed(core, Input::Message { from: id("b"), message });
}

fn ask(core: &mut Core, request: Request) -> Result<(), MemberError> {
    let outputs = feed(core, Input::Request { op: OpId(1), request });
    let outcome = outputs.into_iter().find_map(|output| match output {
        Output::Finish { outcome: Outcome::Members(result), .. } => Some(result),
        _ => None,
    });
    outcome.expect("it is answered")
}

fn names(core: &Core) -> Vec<String> {
    core.members().present().map(|m| m.id.to_string()).collect()
}

#[test]
fn what_an_admin_and_the_member_say_is_taken() {
    let mut core = appointed();
    hear(&mut core, bare("c", 0));
    assert_eq!(names(&core), ["a", "b", "c"]);
    hear(&mut core, spoken("c", |c| c.weight = 3));
    assert_eq!(core.members().find(id("c")).unwrap().weight, 3);
    hear(&mut core, spoken("c", |c| (c.revision, c.state, c.addrs) = (9, MemberState::Removed, vec![])));
    assert_eq!(names(&core), ["a", "b"], "it left");
    hear(&mut core, bare("c", 1));
    assert_eq!(names(&core), ["a", "b", "c"], "it was appointed again");
    assert_eq!(core.stats().counters.members_refused, 0);
}

#[test]
fn what_anybody_else_says_is_refused() {
    // Goal: a member that lies changes nothing. Method: each lie is one change of something true.
    let mut core = appointed();
    let truth = spoken("c", |c| c.weight = 3);
    hear(&mut core, truth.clone());
    let before = core.members().clone();
    let mut other_cluster = appointment("d", 0);
    other_cluster.cluster = "other".into();
    let by = |signer: &str, said: &Appointment| Vouched::by(identity(signer).appoint(said));
    let unsigned = |entry: Member| Member { vouched: Vouched::default(), ..entry };
    let later = || Member { revision: 8, ..truth.clone() };
    let lies = [
        unsigned(Member::new(id("d"), vec![])),
        unsigned(bare("d", 0)),
        Member { vouched: by("b", &appointment("d", 0)), ..bare("d", 0) },
        Member { vouched: by("admin", &other_cluster), ..bare("d", 0) },
        Member { id: id("e"), ..bare("d", 0) },
        Member { key: MemberKey::Known(identity("b").public_key()), ..bare("d", 0) },
        Member { key: MemberKey::Unknown, ..bare("d", 0) },
        Member { weight: 2, ..bare("d", 0) },
        Member { state: MemberState::Leaving, ..bare("d", 0) },
        unsigned(later()),
        later(),
        Member { weight: 9, ..later() },
        Member { addrs: vec![], ..later() },
        Member { state: MemberState::Removed, ..later() },
        Member { generation: 1, ..later() },
        Member { generation: 1, ..bare("c", 0) },
        signed(later(), "b"),
        signed(Member { generation: 1, ..later() }, "c"),
        signed(Member { state: MemberState::Removed, ..later() }, "c"),
        Member { generation: FOR_GOOD, state: MemberState::Removed, ..later() },
        Member { generation: FOR_GOOD, ..bare("c", 0) },
        Member { addrs: truth.addrs.clone(), ..removal("d") },
        Member { vouched: by("b", &appointment("a", FOR_GOOD)), ..removal("a") },
        Member { id: id("a"), ..removal("c") },
        unsigned(Member {
            generation: FOR_GOOD,
            state: MemberState::Removed,
            ..Member::new(id("a"), vec![])
        }),
    ];
    for (n, lie) in lies.into_iter().enumerate() {
        hear(&mut core, lie.clone());
        assert_eq!(*core.members(), before, "{n}: {lie:?}");
        assert_eq!(core.stats().counters.members_refused, n as u64 + 1, "{lie:?}");
    }
    hear(&mut core, truth);
    hear(&mut core, bare("c", 0));
    assert_eq!(*core.members(), before, "a replay");
    assert_eq!(core.stats().standing, Standing::Member);
}

#[test]
fn who_was_removed_does_not_come_back_by_any_id_in_whichever_order() {
    let under_another_id = {
        let said = Appointment { id: id("d"), ..appointment("c", 4) };
        Member { id: id("d"), vouched: Vouched::by(identity("admin").appoint(&said)), ..bare("c", 4) }
    };
    let news = [bare("c", 0), bare("c", 5), removal("c"), under_another_id];
    for first in 0..news.len() {
        for second in 0..news.len() {
            let mut core = appointed();
            let rest = (0..news.len()).filter(|n| ![first, second].contains(n));
            [first, second].into_iter().chain(rest).for_each(|n| hear(&mut core, news[n].clone()));
            assert_eq!(names(&core), ["a", "b"], "{first}, {second}");
            assert_eq!(core.stats().counters.members_refused, 0, "all of it is signed");
            let key = identity("c").public_key();
            let warrant = identity("admin").appoint(&appointment("c", 6));
            let (key, appointed) = (Some(key), Some((6, warrant)));
            let again = Request::AddMember { id: id("c"), addrs: vec![], key, appointed };
            assert_eq!(ask(&mut core, again), Err(MemberError::RemovedForGood(id("c"))));
        }
    }
}

#[test]
fn clients_need_the_signature_of_an_admin() {
    let mut core = appointed();
    let key = identity("c").public_key();
    let add = |signer: &str, generation, said: u32| {
        let warrant = identity(signer).appoint(&appointment("c", said));
        Request::AddMember {
            id: id("c"),
            addrs: vec![],
            key: Some(key),
            appointed: Some((generation, warrant)),
        }
    };
    let remove = |signer: &str, said: u32| Request::RemoveMember {
        id: id("c"),
        key: None,
        warrant: Some(identity(signer).appoint(&appointment("c", said))),
    };
    let unsigned = Request::AddMember { id: id("c"), addrs: vec![], key: Some(key), appointed: None };
    assert_eq!(ask(&mut core, unsigned), Err(WarrantError::Missing.into()));
    assert_eq!(ask(&mut core, add("b", 0, 0)), Err(WarrantError::Signer.into()));
    assert_eq!(ask(&mut core, add("admin", 0, 1)), Err(WarrantError::Signature.into()));
    assert_eq!(names(&core), ["a", "b"]);
    assert_eq!(ask(&mut core, add("admin", 1, 1)), Ok(()));
    assert_eq!(ask(&mut core, add("admin", 0, 0)), Err(MemberError::Generation { id: id("c"), next: 1 }));
    assert_eq!(names(&core), ["a", "b", "c"]);
    let unsigned = Request::RemoveMember { id: id("c"), key: None, warrant: None };
    assert_eq!(ask(&mut core, unsigned), Err(WarrantError::Missing.into()));
    assert_eq!(ask(&mut core, remove("b", FOR_GOOD)), Err(WarrantError::Signer.into()));
    assert_eq!(ask(&mut core, remove("admin", 1)), Err(WarrantError::Signature.into()));
    assert_eq!(names(&core), ["a", "b", "c"]);
    assert_eq!(ask(&mut core, remove("admin", FOR_GOOD)), Ok(()));
    assert_eq!(names(&core), ["a", "b"]);
}

#[test]
fn a_node_signs_what_it_says_of_itself_once_it_is_appointed() {
    let own_word = |core: &Core| {
        let mine = core.members().find(id("a")).unwrap().clone();
        mine.check_warrant(CLUSTER, &[identity("admin").public_key()], is_signed_by)
    };
    let mut core = core(Member { revision: 5, vouched: Vouched::default(), ..bare("a", 0) });
    assert_eq!(own_word(&core), Err(WarrantError::Missing));
    hear(&mut core, bare("a", 2));
    assert_eq!(own_word(&core), Ok(()));
    feed(&mut core, Input::Request { op: OpId(2), request: Request::Leave { timeout_ms: 1 } });
    let mine = core.members().find(id("a")).unwrap();
    assert_eq!((mine.generation, mine.state), (2, MemberState::Leaving));
    assert_eq!(own_word(&core), Ok(()));
}

#[test]
fn a_node_that_was_removed_knows_it_after_a_restart() {
    let mut core = appointed();
    hear(&mut core, removal("a"));
    assert_eq!(core.stats().standing, Standing::Removed);
    let mine = core.members().find(id("a")).unwrap().clone();
    // As the members file has it: who the node is, without saying that it is none.
    let mut again = self::core(Member { state: MemberState::Active, ..mine });
    assert_eq!(again.stats().standing, Standing::Removed);
    hear(&mut again, bare("a", 9));
    assert_eq!(again.stats().standing, Standing::Removed);
}
