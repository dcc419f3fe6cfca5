//! Reads: on the caller's thread where this node owns the key, else by asking; what has expired.

use std::{sync::mpsc, time::Duration};

use turbopump::{Ack, Node, Read, ReadError, Standing};

use crate::{
    common::{cluster, eventually, quick, udp_at},
    support::{SetClock, next},
};

#[test]
fn a_local_read_is_served_on_the_callers_thread() {
    // Goal: no hop to the loop. Method: closures run on the loop, and one of them holds it up.
    let node = Node::builder().callbacks(|task| task()).start().unwrap();
    node.put("key", "value").wait().unwrap();
    let (held, is_held) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let hold = move |_| {
        held.send(()).unwrap();
        let _ = released.recv();
    };
    node.put("other", "value").submit(hold).unwrap();
    next(&is_held);
    assert!(
        node.stats().start().unwrap().wait_timeout(Duration::from_millis(20)).is_err(),
        "the loop is held"
    );

    assert_eq!(node.get("key").wait().unwrap().value().unwrap(), "value");
    assert_eq!(node.get("none").wait().unwrap().value(), None);
    let Ok(reading) = node.get("key").now() else { panic!("it is answered at once") };
    assert_eq!(reading.unwrap().value().unwrap(), "value");
    drop(release);
}

#[test]
fn now_gives_back_a_read_that_others_have_to_answer() {
    let nodes = cluster(2, udp_at, |_, b| b);
    nodes[0].put("key", "value").ack(Ack::All).wait().unwrap();
    assert!(nodes[0].get("key").now().is_ok(), "what this node owns and holds");
    let Err(read) = nodes[0].get("key").read(Read::All).now() else { panic!("the other owner is not asked") };
    assert_eq!(read.wait().unwrap().value().unwrap(), "value");
    let Err(read) = nodes[0].get("none").now() else { panic!("another owner may have it") };
    assert_eq!(read.wait().unwrap().value(), None);
}

#[test]
fn a_node_that_owns_nothing_asks_the_one_that_owns_everything() {
    let nodes = cluster(2, udp_at, |n, b| if n == 0 { b.weight(0) } else { b });
    eventually("the weights are known", || nodes.iter().all(|n| n.placement().seats() == 1));
    nodes[1].put("key", "value").wait().unwrap();
    assert_eq!(nodes[0].get("key").wait().unwrap().value().unwrap(), "value");
    nodes[0].put("from outside", "value").ack(Ack::All).wait().unwrap();
    assert_eq!(nodes[1].get("from outside").local_only().wait().unwrap().value().unwrap(), "value");
}

#[test]
fn a_local_read_asks_nobody() {
    let nodes = cluster(2, udp_at, |_, b| b);
    let hash = |name: &str| turbopump::Key::new(name).unwrap().hash64();
    let owned_by_1 = |name: &String| {
        nodes[0].placement().owners(hash(name), turbopump::Mirrors(1)).next() == Some(nodes[1].id())
    };
    let name = (0..).map(|n| format!("key {n}")).find(owned_by_1).unwrap();
    nodes[1].put(&name, "value").mirrors(1).wait().unwrap();
    assert_eq!(nodes[0].get(&name).local_only().wait().unwrap().value(), None);
    assert_eq!(nodes[0].get(&name).wait().unwrap().value().unwrap(), "value");
}

#[test]
fn a_read_that_needs_more_owners_than_are_up_says_so() {
    let nodes = cluster(3, udp_at, |_, b| b);
    nodes[0].put("key", "value").ack(Ack::All).wait().unwrap();
    nodes[1].shutdown(Duration::from_secs(1));
    nodes[2].shutdown(Duration::from_secs(1));
    eventually("they are seen to be down", || nodes[0].members().iter().filter(|m| m.up).count() == 1);
    let few = nodes[0].get("key").read(Read::Quorum).wait();
    assert_eq!(few.unwrap_err(), ReadError::Unavailable { needed: 2, up: 1 });
    assert_eq!(nodes[0].get("key").wait().unwrap().value().unwrap(), "value");
}

#[test]
fn an_expired_value_is_hidden_and_may_be_written_again() {
    let clock = SetClock::default();
    let node = Node::builder().config(quick()).clock(clock.clone()).start().unwrap();
    node.put("key", "value").expires_in(Duration::from_secs(60)).wait().unwrap();
    clock.put_forward(Duration::from_secs(59));
    assert!(node.get("key").wait().unwrap().value().is_some());
    clock.put_forward(Duration::from_secs(2));
    let reading = node.get("key").wait().unwrap();
    assert_eq!((reading.value(), reading.values().count()), (None, 0));
    assert_eq!(node.keys().wait().unwrap().keys.len(), 0);
    assert_eq!(node.keys().deleted(true).wait().unwrap().keys.len(), 1);
    let wait = node.wait_for("key").start().unwrap();
    node.put("key", "again").wait().unwrap();
    assert_eq!(wait.wait().unwrap().unwrap().value().unwrap(), "again");
    assert_eq!(node.get("key").wait().unwrap().records().len(), 1, "the expired version is replaced");
}

#[test]
fn stats_count_what_the_node_holds_and_did() {
    let node = Node::builder().start().unwrap();
    for n in 0..5 {
        node.put(format!("key {n}"), "value").wait().unwrap();
    }
    node.delete("key 0").wait().unwrap();
    let stats = node.stats().wait().unwrap();
    assert_eq!((stats.keys, stats.tombstones, stats.members, stats.owed), (4, 1, 1, 0));
    assert_eq!((stats.counters.writes, stats.counters.stored, stats.counters.writes_unknown), (6, 6, 0));
    assert_eq!((stats.operations, stats.standing), (0, Standing::Member));
}
