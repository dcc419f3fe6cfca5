//! What a node makes of the keys that it hears of.

use super::*;
use crate::{
    config::Config,
    core::{Input, Now, OpId, Outcome, Output, Request, tests::setup},
    error::MemberError,
    wire::Message,
};

const NOW: Now = Now { mono_ms: 1, wall_ms: 1_000_000 };

fn id(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn key(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn with_key(name: &str, number: u8) -> Member {
    Member { key: MemberKey::Known(key(number)), ..Member::new(id(name), vec![]) }
}

/// The node `a`, whose key is 1, with a peer `b` that is up.
fn core(b: Member) -> Core {
    let mut core = Core::new(setup(with_key("a", 1), vec![b], Config::default()));
    core.start(NOW, &mut Vec::new());
    feed(&mut core, Input::LinkUp { peer: id("b"), incarnation: 1 });
    core
}

fn feed(core: &mut Core, input: Input) -> Vec<Output> {
    let mut outputs = Vec::new();
    core.handle(NOW, input, &mut outputs);
    outputs
}

fn hear(core: &mut Core, entries: Vec<Member>) -> Vec<Output> {
    feed(core, Input::Message { from: id("b"), message: Message::Members { entries, reply: false } })
}

fn add(core: &mut Core, name: &str, key: Option<PublicKey>) -> Result<(), MemberError> {
    let request = Request::AddMember { id: id(name), addrs: vec![], key, appointed: None };
    let outputs = feed(core, Input::Request { op: OpId(1), request });
    let outcome = outputs.into_iter().find_map(|output| match output {
        Output::Finish { outcome: Outcome::Members(result), .. } => Some(result),
        _ => None,
    });
    outcome.expect("it is answered")
}

fn notices(outputs: &[Output]) -> Vec<&str> {
    let texts = outputs.iter().map(|output| if let Output::Notice(text) = output { text } else { "" });
    texts.filter(|text| !text.is_empty()).collect()
}

fn key_of(core: &Core, name: &str) -> MemberKey {
    core.members().find(id(name)).unwrap().key
}

#[test]
fn two_keys_for_one_member_are_told_of_and_none_is_believed() {
    let mut core = core(with_key("b", 2));
    let outputs = hear(&mut core, vec![with_key("b", 9)]);
    assert!(notices(&outputs)[0].contains("two keys were named for node b"), "{outputs:?}");
    assert_eq!(key_of(&core, "b"), MemberKey::Disputed);
    assert_eq!(notices(&hear(&mut core, vec![with_key("b", 8)])), [""; 0], "once");
    // Removed and added again it has the key that it is added with, whatever old news say.
    let op = OpId(2);
    feed(
        &mut core,
        Input::Request { op, request: Request::RemoveMember { id: id("b"), key: None, warrant: None } },
    );
    assert_eq!(add(&mut core, "b", Some(key(9))), Ok(()));
    hear(&mut core, vec![with_key("b", 2)]);
    assert_eq!(key_of(&core, "b"), MemberKey::Known(key(9)));
}

#[test]
fn nobody_changes_a_nodes_own_key_without_its_saying_so() {
    let mut core = core(with_key("b", 2));
    let outputs = hear(&mut core, vec![Member { revision: 99, ..with_key("a", 9) }]);
    assert!(notices(&outputs)[0].contains("another key than its own"), "{outputs:?}");
    assert_eq!(key_of(&core, "a"), MemberKey::Disputed);
    let again = Member { generation: 1, ..with_key("a", 1) };
    hear(&mut core, vec![again]);
    assert_eq!(key_of(&core, "a"), MemberKey::Known(key(1)));
}

#[test]
fn a_copy_that_goes_by_another_name_is_told_of() {
    let mut core = core(with_key("b", 2));
    let outputs = hear(&mut core, vec![with_key("c", 2)]);
    assert!(notices(&outputs)[0].contains("the nodes b and c have the same key"), "{outputs:?}");
    assert_eq!(notices(&hear(&mut core, vec![with_key("d", 4)])), [""; 0], "once");
}

#[test]
fn a_known_key_is_not_exchanged_by_adding_the_member_again() {
    let mut core = core(with_key("b", 2));
    assert_eq!(add(&mut core, "b", Some(key(9))), Err(MemberError::Key(id("b"))));
    assert_eq!(add(&mut core, "b", Some(key(2))), Ok(()));
    assert_eq!(add(&mut core, "b", None), Ok(()));
    assert_eq!(key_of(&core, "b"), MemberKey::Known(key(2)));
    assert_eq!(add(&mut core, "c", None), Ok(()));
    assert_eq!(add(&mut core, "c", Some(key(3))), Ok(()));
    assert_eq!(key_of(&core, "c"), MemberKey::Known(key(3)));
}

#[test]
fn the_first_key_that_is_shown_is_taken_and_no_other() {
    let mut core = core(Member::new(id("b"), vec![]));
    let shown = |number| Input::KeyShown { peer: id("b"), key: key(number) };
    let outputs = feed(&mut core, shown(2));
    assert!(notices(&outputs)[0].contains("node b is taken at its word"), "{outputs:?}");
    assert_eq!(notices(&feed(&mut core, shown(9))), [""; 0]);
    assert_eq!(key_of(&core, "b"), MemberKey::Known(key(2)));
}
