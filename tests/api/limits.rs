//! Limits refuse, and let go again.

use std::{sync::mpsc, time::Duration};

use turbopump::{Config, Node, ReadError, SubmitError, WriteError};

use crate::{
    common::eventually,
    support::{Gate, Gated, all, gated_with, next},
};

#[test]
fn more_operations_than_the_limit_are_refused_until_one_ends() {
    let (node, gate) = gated_with(Config { max_operations: 2, ..Config::default() });
    gate.close();
    let running: Vec<_> = (0..2).map(|n| node.put(format!("{n}"), "v").start().unwrap()).collect();
    assert_eq!(node.put("k", "v").wait(), Err(WriteError::Refused(SubmitError::Busy)));
    assert_eq!(node.keys().wait(), Err(ReadError::Refused(SubmitError::Busy)));
    assert!(node.get("k").wait().is_ok(), "a local read takes no room");
    gate.open();
    running.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
    node.put("k", "v").wait().unwrap();
}

#[test]
fn a_storage_is_changed_by_no_more_threads_than_it_wants() {
    for (max_writers, expected) in [(0, 4), (3, 3), (1, 1)] {
        let gate = Gate::default();
        gate.set_max_writers(max_writers);
        let config = Config { disk_threads: 4, ..Config::default() };
        let node = Node::builder().storage(Gated::new(&gate)).config(config).start().unwrap();
        (0..100).for_each(|n| _ = node.put(format!("{n}"), "v").wait().unwrap());
        assert_eq!(gate.writers(), expected);
    }
}

#[test]
fn more_bytes_than_the_limit_are_refused_until_some_are_written() {
    let (node, gate) = gated_with(Config { max_operation_bytes: 100, ..Config::default() });
    gate.close();
    let running = node.put("a", vec![0; 80]).start().unwrap();
    assert_eq!(node.put("b", vec![0; 21]).wait(), Err(WriteError::Refused(SubmitError::Busy)));
    let beside = node.put("c", vec![0; 20]).start().unwrap();
    gate.open();
    running.wait().unwrap();
    beside.wait().unwrap();
    node.put("b", vec![0; 21]).wait().unwrap();
    let alone = node.put("longer than the limit, alone", vec![0; 1_000]);
    alone.wait().expect("one value of any length has its turn");
}

#[test]
fn closures_that_have_not_begun_count_as_operations() {
    // Goal: a slow closure can't make the queue behind it grow without end.
    let (node, _gate) = gated_with(Config { max_operations: 3, ..Config::default() });
    node.put("k", "v").wait().unwrap();
    let (release, held) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let slow = move |_| {
        begun.send(()).unwrap();
        let _ = held.recv();
    };
    node.get("k").submit(slow).unwrap();
    has_begun.recv().unwrap();
    let (sender, ran) = mpsc::channel();
    let mut accepted = 0;
    for _ in 0..10 {
        let sender = sender.clone();
        accepted += usize::from(node.get("k").submit(move |_| sender.send(()).unwrap()).is_ok());
    }
    assert_eq!(accepted, 3);
    drop((release, sender));
    assert_eq!(all(ran).len(), 3);
    node.get("k").submit(|_| {}).unwrap();
}

#[test]
fn an_operation_takes_no_room_any_more_when_its_closure_runs() {
    let node = Node::builder().config(Config { max_operations: 1, ..Config::default() }).start().unwrap();
    let (sender, outcomes) = mpsc::channel();
    for n in 0..5 {
        let (again, inside, sender) = (node.clone(), node.clone(), sender.clone());
        let then = move |outcome: Result<_, _>| {
            outcome.unwrap();
            inside.put("k", "from a closure").submit(move |outcome| sender.send(outcome).unwrap()).unwrap();
        };
        again.put("k", format!("{n}")).submit(then).unwrap();
        next(&outcomes).unwrap();
    }
}

#[test]
fn a_value_over_the_limit_is_refused_and_one_at_the_limit_is_not() {
    let (node, _gate) = gated_with(Config { max_value_bytes: 1_000, ..Config::default() });
    let refused = node.put("k", vec![0; 1_001]).wait().unwrap_err();
    assert_eq!(refused, WriteError::Refused(SubmitError::ValueTooLong { len: 1_001, max: 1_000 }));
    assert_eq!(refused.to_string(), "the value has 1001 bytes, the limit max_value_bytes is 1000");
    node.put("k", vec![0; 1_000]).wait().unwrap();
}

#[test]
fn a_key_has_from_1_to_1024_bytes_of_any_kind() {
    let node = Node::builder().start().unwrap();
    for name in ["a", "../../x", "a b\n", "ключ", &"k".repeat(1_024)] {
        node.put(name, name.to_owned()).wait().unwrap();
        assert_eq!(node.get(name).wait().unwrap().value().unwrap(), name);
    }
    for name in ["", &"k".repeat(1_025)] {
        let refused = node.get(name).wait();
        assert!(matches!(refused, Err(ReadError::Refused(SubmitError::Key(_)))), "{refused:?}");
    }
}

#[test]
fn more_watches_than_the_limit_are_refused_until_one_ends() {
    let (node, _gate) = gated_with(Config { max_watches: 1, ..Config::default() });
    let watch = node.watch("a", |_| {}).unwrap();
    assert!(matches!(node.watch("b", |_| {}), Err(SubmitError::Busy)));
    drop(watch);
    let watch = node.watch("b", |_| {}).unwrap();
    drop(watch);
}

#[test]
fn a_shutdown_may_be_repeated_and_nothing_is_taken_after_it() {
    let (node, _gate) = gated_with(Config::default());
    node.put("k", "v").wait().unwrap();
    node.shutdown(Duration::from_secs(5));
    node.shutdown(Duration::from_secs(5));
    assert_eq!(node.put("k", "v").wait(), Err(WriteError::Refused(SubmitError::Stopping)));
    assert_eq!(node.get("k").wait().unwrap_err(), ReadError::Refused(SubmitError::Stopping));
    assert!(matches!(node.watch("", |_| {}), Err(SubmitError::Stopping)));
}

#[test]
fn more_acknowledgements_than_owners_are_refused_and_nothing_is_stored() {
    let node = Node::builder().start().unwrap();
    let impossible = node.put("k", "v").ack(turbopump::Ack::Mirrors(2)).wait();
    assert_eq!(impossible, Err(WriteError::AckImpossible { asked: 2, owners: 1 }));
    assert_eq!(node.get("k").wait().unwrap().value(), None);
    eventually("nothing is under way", || node.stats().wait().unwrap().operations == 0);
}
