//! Watches report what a node stores; waits end with the next value.

use std::{sync::mpsc, time::Duration};

use turbopump::{Node, model::Kind};

use crate::support::{all, gated, next};

#[test]
fn a_watch_reports_writes_and_deletes_of_its_prefix_in_order() {
    let node = Node::builder().start().unwrap();
    let (sender, events) = mpsc::channel();
    let watch = node.watch("a/", move |event| sender.send(event).unwrap()).unwrap();
    for n in 0..20 {
        node.put(format!("a/{n}"), "value").wait().unwrap();
        node.put(format!("b/{n}"), "value").wait().unwrap();
    }
    node.delete("a/0").wait().unwrap();
    node.shutdown(Duration::from_secs(5));
    drop(watch);
    let events = all(events);
    let names: Vec<_> = events.iter().map(|e| e.key.to_string()).collect();
    let expected: Vec<_> = (0..20).map(|n| format!("a/{n}")).chain(["a/0".into()]).collect();
    assert_eq!(names, expected);
    assert_eq!(events[20].version.kind, Kind::Tombstone);
}

#[test]
fn a_watch_ends_when_it_is_dropped() {
    let node = Node::builder().start().unwrap();
    let (sender, events) = mpsc::channel();
    let watch = node.watch("", move |event| sender.send(event.key.to_string()).unwrap()).unwrap();
    node.put("before", "value").wait().unwrap();
    assert_eq!(next(&events), "before");
    drop(watch);
    node.put("after", "value").wait().unwrap();
    assert_eq!(all(events), [""; 0], "the closure is gone, and no event came");
}

#[test]
fn a_watch_tells_what_is_stored_and_not_what_is_only_begun() {
    let (node, gate) = gated();
    let (sender, events) = mpsc::channel();
    let _watch = node.watch("", move |event| sender.send(event.version).unwrap()).unwrap();
    gate.close();
    let pending = node.put("key", "value").start().unwrap();
    node.stats().wait().unwrap();
    assert!(events.try_recv().is_err());
    gate.open();
    assert_eq!(next(&events).dot, pending.wait().unwrap().version);
}

#[test]
fn a_wait_ends_at_once_where_the_key_is_there_and_with_news_where_a_context_is_given() {
    let node = Node::builder().start().unwrap();
    let first = node.put("key", "first").wait().unwrap();
    assert_eq!(node.wait_for("key").wait().unwrap().unwrap().value().unwrap(), "first");
    let wait = node.wait_for("key").context(first.context.clone()).start().unwrap();
    let Err(wait) = wait.wait_timeout(Duration::from_millis(20)) else { panic!("that is known already") };
    node.put("key", "second").wait().unwrap();
    assert_eq!(wait.wait().unwrap().unwrap().value().unwrap(), "second");
}

#[test]
fn a_wait_whose_time_is_up_ends_with_none() {
    let node = Node::builder().start().unwrap();
    node.delete("deleted").wait().unwrap();
    for key in ["never", "deleted"] {
        assert_eq!(node.wait_for(key).timeout(Duration::from_millis(20)).wait().unwrap(), None);
    }
}
