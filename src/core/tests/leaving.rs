//! When a node has left, and what it tells of that.

use super::*;

/// Whether a call to leave was told that this node has left.
fn has_left(outputs: &[Output]) -> bool {
    let left = |outcome: &Outcome| matches!(outcome, Outcome::Departure(Ok(crate::Departure::Left)));
    outputs.iter().any(|output| matches!(output, Output::Finish { outcome, .. } if left(outcome)))
}

/// What a node said of itself as it left.
fn last_word(outputs: &[Output]) -> Option<Message> {
    let is_word = |m: &&Message| match m {
        Message::Members { entries, .. } => entries.iter().any(|m| m.id == id("a") && !m.is_present()),
        _ => false,
    };
    messages(outputs).into_iter().find(is_word).cloned()
}

/// Begins a write of a key of which `b` is the only owner; the tag with which `b` is asked what it knows of it.
fn write_for_b(bench: &mut Bench) -> (String, u64) {
    let owner = |core: &Core, name: &str| core.placement.owners(key(name).hash64(), Mirrors(1)).next();
    let names: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    let name = names.into_iter().find(|name| owner(&bench.core, name) == Some(id("b"))).unwrap();
    let outputs = bench.write(&name, &Bytes::from_static(b"v"));
    let [Message::Read { tag, .. }] = messages(&outputs)[..] else { panic!("{outputs:?}") };
    (name, *tag)
}

#[test]
fn a_write_that_asks_an_owner_while_the_node_leaves_is_refused() {
    // Goal: nothing is left on a node that said it may be stopped.
    let mut bench = Bench::new(Config { mirrors: Mirrors(1), ..Config::default() });
    let (_, tag) = write_for_b(&mut bench);
    let mut outputs = bench.ask(Request::Leave { timeout_ms: 10_000 });
    outputs.extend(bench.wait(200));
    assert!(last_word(&outputs).is_some(), "{outputs:?}");
    let outputs = bench.hear(Message::ReadReply { tag, records: Some(vec![]) });
    let refused = crate::WriteError::Refused(crate::SubmitError::NoMember);
    let is_refusal =
        |o: &Output| matches!(o, Output::Finish { outcome: Outcome::Written(Err(e)), .. } if *e == refused);
    assert!(outputs.len() == 1 && is_refusal(&outputs[0]), "{outputs:?}");
}

#[test]
fn a_node_that_has_left_owes_nothing() {
    // Goal: who is told that it may be stopped is not told of debts that nothing here could pay.
    // Method: it offers a copy to an owner that is about to store it, having been sent it by the write
    // itself, and that says so in answer to the write first, to the offer never.
    let mut bench = Bench::new(Config { mirrors: Mirrors(1), ..Config::default() });
    let (_, tag) = write_for_b(&mut bench);
    let outputs = bench.hear(Message::ReadReply { tag, records: Some(vec![]) });
    let [Message::Write { tag, .. }] = messages(&outputs)[..] else { panic!("{outputs:?}") };
    let mut outputs = bench.ask(Request::Leave { timeout_ms: 10_000 });
    outputs.extend(bench.wait(100));
    assert!(messages(&outputs).iter().any(|m| matches!(m, Message::Offer { .. })), "{outputs:?}");
    assert!(!has_left(&outputs) && bench.core.stats().owed == 1);
    let mut outputs = bench.hear(Message::WriteAck { tag: *tag, status: AckStatus::Stored });
    outputs.extend(bench.wait(100));
    assert!(last_word(&outputs).is_some(), "{outputs:?}");
    let stats = bench.core.stats();
    assert_eq!((stats.keys, stats.owed), (0, 0));
}

#[test]
fn a_node_has_left_when_another_one_knows() {
    // Goal: nobody is told to stop a node for which the others would wait for ever. Method: its last word is
    // lost, then heard; and in another run it is turned away, its answer having been lost.
    for is_answered in [true, false] {
        let mut bench = Bench::new(Config::default());
        let mut outputs = bench.ask(Request::Leave { timeout_ms: 10_000 });
        outputs.extend(bench.wait(1_000));
        let said = last_word(&outputs).expect("it holds nothing");
        let stats = bench.core.stats();
        assert!(!has_left(&outputs) && stats.standing == Standing::Leaving && !stats.safe_to_stop);
        let outputs = match is_answered {
            true => bench.hear(said),
            false => bench.feed(Input::RefusedAsRemoved { by: id("b") }),
        };
        let stats = bench.core.stats();
        assert!(has_left(&outputs) && stats.standing == Standing::Left && stats.safe_to_stop);
    }
}

#[test]
fn a_last_word_is_answered_while_there_is_a_link() {
    // Goal: who leaves hears at once that it is known. Method: a peer says so; the answer comes before the
    // list without it is published, for that ends the link.
    let mut bench = Bench::new(Config::default());
    let mut gone = bench.core.members.find(id("b")).unwrap().clone();
    gone.state = MemberState::Removed;
    let word = Message::Members { entries: vec![gone.clone()], reply: false };
    let outputs = bench.hear(word.clone());
    let answer = outputs.iter().position(|o| matches!(o, Output::Send { message, .. } if *message == word));
    let published = outputs.iter().position(|o| matches!(o, Output::Publish { .. }));
    assert!(answer.is_some() && answer < published, "{outputs:?}");
}

#[test]
fn what_is_dropped_is_not_given_away_any_more() {
    // Goal: nobody waits for the hand-off of a copy that is gone, least of all a node that leaves. Method: a
    // copy for another node is forgotten, as a burial would do it, before its owner acknowledges it.
    let mut bench = Bench::new(Config { mirrors: Mirrors(1), ..Config::default() });
    let (name, tag) = write_for_b(&mut bench);
    bench.hear(Message::ReadReply { tag, records: Some(vec![]) });
    assert_eq!(bench.core.stats().handoff, 1);
    bench.ask(Request::Forget(key(&name)));
    assert_eq!((bench.core.stats().handoff, bench.core.stats().keys), (0, 0));
}

#[test]
fn a_node_that_is_removed_while_it_leaves_is_not_said_to_have_given_all_away() {
    // Goal: nobody takes a removal for a departure. Method: another member removes it while it still holds the
    // only copy of a key, and it is asked to leave once more.
    let mut bench = Bench::new(Config { mirrors: Mirrors(1), ..Config::default() });
    let (_, tag) = write_for_b(&mut bench);
    bench.hear(Message::ReadReply { tag, records: Some(vec![]) });
    bench.ask(Request::Leave { timeout_ms: 10_000 });
    let mut gone = bench.core.members.find(id("a")).unwrap().clone();
    gone.state = MemberState::Removed;
    let is_unknown =
        |o: &Outcome| matches!(o, Outcome::Departure(Err(crate::MemberError::Unknown(it))) if *it == id("a"));
    let is_refusal = |o: &Output| matches!(o, Output::Finish { outcome, .. } if is_unknown(outcome));
    let outputs = bench.hear(Message::Members { entries: vec![gone], reply: false });
    assert!(outputs.iter().any(is_refusal), "{outputs:?}");
    let outputs = bench.ask(Request::Leave { timeout_ms: 10_000 });
    assert!(outputs.iter().any(is_refusal), "{outputs:?}");
    assert_eq!((bench.core.stats().standing, bench.core.stats().keys), (Standing::Removed, 1));
}
