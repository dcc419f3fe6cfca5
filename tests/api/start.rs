//! How a node starts, refuses to, and starts again.

use std::{fs, path::Path, time::Duration};

use turbopump::{
    Config, Node, NodeBuilder, StartError,
    storage::{Durability, FileStorage},
    transport::UdpTransport,
};

use crate::common::{eventually, loopback};

fn refused(builder: NodeBuilder) -> StartError {
    match builder.start() {
        Ok(node) => panic!("{node:?} started"),
        Err(error) => error,
    }
}

#[test]
fn a_setting_out_of_its_bounds_is_named() {
    let ms = Duration::from_millis;
    let default = Config::default;
    let wrong = [
        ("operation_timeout", Config { operation_timeout: Duration::ZERO, ..default() }),
        ("ping_interval", Config { ping_interval: ms(1), ..default() }),
        ("down_after", Config { down_after: Some(default().ping_interval), ..default() }),
        ("retry_interval", Config { retry_interval: ms(1), ..default() }),
        ("sync_interval", Config { sync_interval: ms(1), ..default() }),
        ("max_operations", Config { max_operations: 0, ..default() }),
        ("max_flights_per_peer", Config { max_flights_per_peer: 0, ..default() }),
        ("max_transfers", Config { max_transfers: 0, ..default() }),
        ("max_disk_jobs", Config { max_disk_jobs: 0, ..default() }),
        ("max_disk_bytes", Config { max_disk_bytes: 0, ..default() }),
        ("disk_threads", Config { disk_threads: 0, ..default() }),
        ("max_value_bytes", Config { max_value_bytes: 2 << 30, ..default() }),
    ];
    for (name, config) in wrong {
        let error = refused(Node::builder().config(config));
        assert!(matches!(&error, StartError::Config(text) if text.starts_with(name)), "{name}: {error}");
    }
}

#[test]
fn an_id_or_a_cluster_that_is_no_name_is_refused() {
    for id in ["", "a b", "a/b", &"x".repeat(33)] {
        assert!(matches!(refused(Node::builder().id(id)), StartError::Id(_)), "{id:?}");
    }
    assert!(matches!(refused(Node::builder().cluster("")), StartError::Config(_)));
}

#[test]
fn a_members_file_with_a_bad_line_is_named_with_the_line_and_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("turbo_members.txt");
    let text = "1 127.0.0.1:1593\n# a comment\n2 not-an-address\n";
    fs::write(&path, text).unwrap();
    let error = refused(Node::builder().home(home.path())).to_string();
    assert!(error.contains("turbo_members.txt") && error.contains("line 3"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[test]
fn an_id_other_than_that_of_the_home_is_refused() {
    let home = tempfile::tempdir().unwrap();
    drop(at(home.path()).id("one").start().unwrap());
    let error = refused(at(home.path()).id("two"));
    assert!(matches!(&error, StartError::Config(text) if text.contains("one") && text.contains("two")));
    assert_eq!(at(home.path()).id("one").start().unwrap().id().as_str(), "one");
}

#[test]
fn a_home_has_one_node_at_a_time() {
    let home = tempfile::tempdir().unwrap();
    let node = at(home.path()).start().unwrap();
    let error = refused(at(home.path()));
    assert!(matches!(error, StartError::Home { .. }), "{error}");
    drop(node);
    at(home.path()).start().unwrap();
}

#[test]
fn an_address_in_use_is_named() {
    let node = Node::builder().transport(UdpTransport::bind(loopback())).start().unwrap();
    let addr = node.local_addr();
    let error = refused(Node::builder().listen(addr).transport(UdpTransport::bind(addr)));
    assert!(matches!(error, StartError::Bind { .. }) && error.to_string().contains(&addr.to_string()));
}

#[test]
fn a_node_without_a_name_gets_one_and_keeps_it_where_it_has_a_home() {
    let home = tempfile::tempdir().unwrap();
    let id = at(home.path()).start().unwrap().id();
    assert_ne!(Node::builder().start().unwrap().id(), id);
    assert_eq!(at(home.path()).start().unwrap().id(), id);
}

#[test]
fn the_members_file_gives_this_node_its_id_and_weight() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("turbo_members.txt");
    fs::write(&path, "one 127.0.0.1:1 weight=3\ntwo 127.0.0.1:9\n").unwrap();
    let node = at(home.path()).start().unwrap();
    let weights = |node: &Node| {
        node.members().iter().map(|m| (m.member.id.to_string(), m.member.weight)).collect::<Vec<_>>()
    };
    assert_eq!(weights(&node), [("one".into(), 3), ("two".into(), 1)]);
    drop(node);
    assert_eq!(weights(&at(home.path()).start().unwrap())[0].1, 3, "it is kept");
    assert_eq!(weights(&at(home.path()).weight(5).start().unwrap())[0].1, 5, "the builder has the last word");
}

#[test]
fn a_restart_keeps_the_id_the_members_and_the_data() {
    let home = tempfile::tempdir().unwrap();
    let start = || {
        let storage = FileStorage::open(home.path().join("store"), Durability::Buffered).unwrap();
        at(home.path()).storage(storage).start().unwrap()
    };
    let node = start();
    let id = node.id();
    node.add_member("friend".parse().unwrap(), vec!["127.0.0.1:9".parse().unwrap()]).wait().unwrap();
    node.put("key", "value").wait().unwrap();
    node.put("long", vec![7; 300_000]).wait().unwrap();
    node.delete("gone").wait().unwrap();
    drop(node);

    let node = start();
    assert_eq!(node.id(), id);
    let friend = node.members().into_iter().find(|m| m.member.id.as_str() == "friend").expect("a member");
    assert_eq!(friend.member.addrs, ["127.0.0.1:9".parse().unwrap()]);
    assert_eq!(node.get("key").local_only().wait().unwrap().value().unwrap(), "value");
    assert_eq!(node.get("long").local_only().wait().unwrap().value().unwrap(), &vec![7; 300_000]);
    let stats = node.stats().wait().unwrap();
    assert_eq!((stats.keys, stats.tombstones), (2, 1));
}

#[test]
fn a_write_after_a_restart_replaces_what_was_there() {
    let home = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let storage = FileStorage::open(home.path().join("store"), Durability::Buffered).unwrap();
        let node = at(home.path()).storage(storage).start().unwrap();
        node.put("key", format!("value {n}")).wait().unwrap();
        let reading = node.get("key").wait().unwrap();
        assert_eq!((reading.records().len(), reading.value().unwrap()), (1, &format!("value {n}").into()));
    }
}

#[test]
fn a_node_shuts_down_in_order_when_its_last_handle_goes() {
    let node = Node::builder().transport(UdpTransport::bind(loopback())).start().unwrap();
    let (addr, other) = (node.local_addr(), node.clone());
    drop(node);
    other.put("key", "value").wait().expect("there is a handle left");
    drop(other);
    let again = || Node::builder().transport(UdpTransport::bind(addr)).start();
    eventually("the address is free", || again().is_ok());
}

fn at(home: &Path) -> NodeBuilder {
    Node::builder().home(home).transport(UdpTransport::bind(loopback()))
}
