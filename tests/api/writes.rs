//! What a write replaces: what this node knew, or exactly what a context covers.

use turbopump::{Context, Node, Reading};

fn values(reading: &Reading) -> Vec<String> {
    let text = |r: &turbopump::Record| String::from_utf8(r.value.clone().unwrap().to_vec()).unwrap();
    let mut values: Vec<_> = reading.values().map(text).collect();
    values.sort();
    values
}

#[test]
fn a_plain_write_replaces_what_the_node_knew() {
    let node = Node::builder().start().unwrap();
    node.put("key", "one").wait().unwrap();
    node.put("key", "two").wait().unwrap();
    let reading = node.get("key").wait().unwrap();
    assert_eq!((values(&reading), reading.records().len()), (vec!["two".to_owned()], 1));
}

#[test]
fn a_write_with_a_context_replaces_just_what_it_covers() {
    let node = Node::builder().start().unwrap();
    let one = node.put("key", "one").context(Context::EMPTY).wait().unwrap();
    node.put("key", "two").context(Context::EMPTY).wait().unwrap();
    assert_eq!(values(&node.get("key").wait().unwrap()), ["one", "two"]);
    node.put("key", "three").context(one.context.clone()).wait().unwrap();
    assert_eq!(values(&node.get("key").wait().unwrap()), ["three", "two"]);
    node.put("key", "late").context(one.context).wait().unwrap();
    let reading = node.get("key").wait().unwrap();
    assert_eq!(values(&reading), ["late", "three", "two"], "it had not seen what replaced one");
    node.put("key", "settled").context(reading.context()).wait().unwrap();
    assert_eq!(values(&node.get("key").wait().unwrap()), ["settled"]);
}

#[test]
fn the_context_of_a_write_covers_the_write() {
    let node = Node::builder().start().unwrap();
    let mut context = Context::EMPTY;
    for n in 0..10 {
        let written = node.put("key", format!("{n}")).context(context).wait().unwrap();
        assert!(written.context.contains(written.version));
        context = written.context;
    }
    assert_eq!(values(&node.get("key").wait().unwrap()), ["9"]);
}

#[test]
fn a_delete_with_a_context_leaves_what_it_did_not_see() {
    let node = Node::builder().start().unwrap();
    let one = node.put("key", "one").context(Context::EMPTY).wait().unwrap();
    node.put("key", "two").context(Context::EMPTY).wait().unwrap();
    node.delete("key").context(one.context).wait().unwrap();
    assert_eq!(values(&node.get("key").wait().unwrap()), ["two"]);
    node.delete("key").wait().unwrap();
    assert_eq!(values(&node.get("key").wait().unwrap()), [""; 0]);
}

#[test]
fn an_empty_value_is_a_value() {
    let node = Node::builder().start().unwrap();
    node.put("key", "").wait().unwrap();
    assert_eq!(node.get("key").wait().unwrap().value().unwrap(), "");
    assert_eq!(node.keys().wait().unwrap().keys.len(), 1);
}

#[test]
fn many_threads_write_at_once() {
    let node = Node::builder().start().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let node = node.clone();
            scope.spawn(move || {
                for n in 0..200 {
                    node.put(format!("own {thread}/{n}"), "value").wait().unwrap();
                    node.put("shared", format!("{thread}/{n}")).wait().unwrap();
                }
            });
        }
    });
    assert_eq!(node.keys().prefix("own ").limit(10_000).wait().unwrap().keys.len(), 1_600);
    let reading = node.get("shared").wait().unwrap();
    assert_eq!(reading.records().len(), 1, "each plain write replaced the one before");
    assert!(values(&reading)[0].ends_with("/199"));
}

#[test]
fn forgetting_drops_what_is_here_and_a_later_write_starts_anew() {
    let node = Node::builder().start().unwrap();
    node.put("key", "one").wait().unwrap();
    assert_eq!(node.forget("key").wait(), Ok(1));
    assert_eq!(node.get("key").wait().unwrap().records().len(), 0);
    assert_eq!(node.forget("key").wait(), Ok(0));
    node.put("key", "two").wait().unwrap();
    assert_eq!(values(&node.get("key").wait().unwrap()), ["two"]);
}
