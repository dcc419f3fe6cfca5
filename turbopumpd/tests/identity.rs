//! Real daemons through disasters of identity: a lost store, a lost home, a restored old copy and
//! two processes that are one node. No name of a write is used twice, nothing acknowledged is
//! shadowed, nothing deleted comes back, and the others go on.

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use support::{
    Daemon, binary,
    cluster::{Cluster, Holdings, QUIC, SLACK, UDP, UDT, scaled},
    until,
};

const WITHIN: Duration = Duration::from_secs(30);

fn cluster(transport: &[&str]) -> Cluster {
    Cluster::start(3, &[transport, &["--durability", "buffered"]].concat())
}

/// Writes a value to `PREFIX-0` and on.
fn write_each(node: &Daemon, prefix: &str, count: usize, query: &str, value: &str) {
    let mut client = node.connect_unix();
    for i in 0..count {
        let answer = client.post(&format!("/write?name={prefix}-{i}{query}"), value.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn delete_each(node: &Daemon, prefix: &str, count: usize) {
    let mut client = node.connect_unix();
    for i in 0..count {
        let answer = client.post(&format!("/delete?name={prefix}-{i}&ack=quorum"), b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Every node has just this many values of each key, the newest being this one.
fn expect_each(cluster: &Cluster, prefix: &str, count: usize, siblings: usize, newest: &str) {
    for (node, i) in (0..3).flat_map(|node| (0..count).map(move |i| (node, i))) {
        let answer = cluster.nodes[node].get(&format!("/read?name={prefix}-{i}&local=1"));
        let what = format!("{prefix}-{i} on node {node}: {answer:?}");
        if siblings == 0 {
            assert_eq!(answer.status, 404, "{what}");
            continue;
        }
        assert_eq!((answer.status, answer.text().as_str()), (200, newest), "{what}");
        assert_eq!(answer.header("turbopump-siblings"), siblings.to_string(), "{what}");
    }
}

fn names(holdings: &Holdings) -> BTreeSet<String> {
    holdings.values().flat_map(|versions| versions.keys().cloned()).collect()
}

fn a_restored_old_copy_brings_nothing_back(transport: &[&str]) {
    // Goal: what was deleted or written since the copy holds. Method: the copied node held all
    // keys; it is alone when it starts again, so that it writes with nothing but its old knowledge.
    let (mut cluster, count) = (cluster(transport), scaled(400, 100));
    for prefix in ["gone", "newer", "both", "kept"] {
        write_each(&cluster.nodes[0], prefix, count, "&ack=all", "old");
    }
    cluster.kill(2);
    let backup = cluster.back_up(2);
    cluster.relaunch(2);
    cluster.all_up();
    delete_each(&cluster.nodes[0], "gone", count);
    write_each(&cluster.nodes[1], "newer", count, "&ack=quorum", "newer");
    write_each(&cluster.nodes[1], "both", count, "&ack=quorum", "newer");
    write_each(&cluster.nodes[2], "late", count, "&ack=quorum", "late");
    cluster.until_equal(&[0, 1, 2], WITHIN * SLACK);
    let used = names(&cluster.holdings(0));
    (0..3).for_each(|i| cluster.kill(i));
    cluster.restore(2, &backup);
    cluster.relaunch(2);
    let alive = cluster.nodes[2].get("/read?name=gone-0&local=1");
    assert_eq!((alive.status, alive.text().as_str()), (200, "old"), "the copy is old");
    let copied = names(&cluster.holdings(2));
    write_each(&cluster.nodes[2], "both", count, "&ack=local", "restored");
    let named: BTreeSet<String> = names(&cluster.holdings(2)).difference(&copied).cloned().collect();
    assert_eq!(named.len(), count);
    assert!(named.is_disjoint(&used), "a name is used twice");
    let begin = Instant::now();
    (0..2).for_each(|i| cluster.relaunch(i));
    cluster.all_up();
    cluster.until_equal(&[0, 1, 2], WITHIN * SLACK);
    println!("{transport:?}: equal sets {:?} after the others were back", begin.elapsed());
    expect_each(&cluster, "gone", count, 0, "");
    expect_each(&cluster, "newer", count, 1, "newer");
    expect_each(&cluster, "both", count, 2, "restored");
    expect_each(&cluster, "late", count, 1, "late");
    expect_each(&cluster, "kept", count, 1, "old");
}

#[test]
fn over_udp_a_restored_old_copy_brings_nothing_back() {
    a_restored_old_copy_brings_nothing_back(UDP);
}

#[test]
fn over_quic_a_restored_old_copy_brings_nothing_back() {
    a_restored_old_copy_brings_nothing_back(QUIC);
}

#[test]
fn over_udt_a_restored_old_copy_brings_nothing_back() {
    a_restored_old_copy_brings_nothing_back(UDT);
}

#[test]
fn an_emptied_node_shadows_nothing_and_revives_nothing() {
    // Goal: a node that lost its store and writes before it has heard of anything replaces nothing
    // that others acknowledged. Method: it is alone then; the others come back later.
    let (mut cluster, count) = (cluster(UDP), scaled(400, 100));
    for prefix in ["gone", "both", "kept"] {
        write_each(&cluster.nodes[2], prefix, count, "&ack=all", "old");
    }
    delete_each(&cluster.nodes[2], "gone", count);
    cluster.until_equal(&[0, 1, 2], WITHIN * SLACK);
    let used = names(&cluster.holdings(2));
    (0..3).for_each(|i| cluster.kill(i));
    cluster.empty(2);
    cluster.relaunch(2);
    assert!(cluster.holdings(2).is_empty(), "it is empty");
    write_each(&cluster.nodes[2], "both", count, "&ack=local", "emptied");
    assert!(names(&cluster.holdings(2)).is_disjoint(&used), "a name is used twice");
    (0..2).for_each(|i| cluster.relaunch(i));
    cluster.all_up();
    cluster.until_equal(&[0, 1, 2], WITHIN * SLACK);
    expect_each(&cluster, "gone", count, 0, "");
    expect_each(&cluster, "both", count, 2, "emptied");
    expect_each(&cluster, "kept", count, 1, "old");
}

#[test]
fn a_lost_home_is_made_good_by_the_same_name_and_an_introduction() {
    // Goal: `--name` again after all was lost gives the node its place back, with all its keys.
    // Method: on its own it knows nobody, and writes; it is introduced to one of the others.
    for transport in [UDP, UDT] {
        let (mut cluster, count) = (cluster(transport), scaled(400, 100));
        write_each(&cluster.nodes[2], "kept", count, "&ack=all", "old");
        write_each(&cluster.nodes[2], "both", count, "&ack=all", "old");
        write_each(&cluster.nodes[0], "gone", count, "&ack=all", "old");
        delete_each(&cluster.nodes[0], "gone", count);
        cluster.until_equal(&[0, 1, 2], WITHIN * SLACK);
        let used = names(&cluster.holdings(0));
        cluster.kill(2);
        cluster.lose_home(2);
        cluster.relaunch(2);
        assert_eq!(cluster.states(2).len(), 1, "it knows nobody");
        write_each(&cluster.nodes[2], "both", count, "&ack=local", "lost");
        assert!(names(&cluster.holdings(2)).is_disjoint(&used), "a name is used twice");
        cluster.tell(2, 0);
        cluster.all_up();
        cluster.until_equal(&[0, 1, 2], WITHIN * SLACK);
        expect_each(&cluster, "kept", count, 1, "old");
        expect_each(&cluster, "both", count, 2, "lost");
        expect_each(&cluster, "gone", count, 0, "");
    }
}

fn two_processes_that_are_one_node_break_nothing(transport: &[&str]) {
    // Goal: of a copied machine and its original the others talk to the later one, tell the other
    // one why not to it, and go on; once the copy is gone, all is well with what the original had.
    // Method: the copy runs on a port of its own, and takes writes, while others write by quorum.
    let (mut cluster, count) = (cluster(transport), scaled(300, 60));
    write_each(&cluster.nodes[0], "kept", count, "&ack=all", "old");
    cluster.kill(2);
    let twin_home = tempfile::tempdir().unwrap();
    cluster.back_up(2).copy_to(twin_home.path());
    cluster.relaunch(2);
    cluster.all_up();
    let options = [transport, &["--port", "0", "--durability", "buffered"]].concat();
    let mut twin = Daemon::spawn(binary(), twin_home.path(), &options);
    assert_eq!(twin.get("/status").json()["node"], "3");
    write_each(&twin, "twin", count, "&ack=quorum", "twin");
    for node in 0..2 {
        write_each(&cluster.nodes[node], &format!("beside-{node}"), count, "&ack=quorum", "v");
    }
    until("the original is told of the copy", WITHIN, || {
        cluster.log(2).contains("refuses this node: a later process goes by its id")
    });
    // What only the original was told while the others did not listen.
    write_each(&cluster.nodes[2], "original", count, "&ack=local", "original");
    assert!(twin.is_alive() && cluster.nodes.iter_mut().all(Daemon::is_alive));
    drop(twin);
    let begin = Instant::now();
    cluster.all_up();
    println!("{transport:?}: the original was back {:?} after the copy's end", begin.elapsed());
    cluster.until_equal(&[0, 1, 2], WITHIN * SLACK);
    for (prefix, value) in
        [("kept", "old"), ("twin", "twin"), ("beside-0", "v"), ("beside-1", "v"), ("original", "original")]
    {
        expect_each(&cluster, prefix, count, 1, value);
    }
}

#[test]
fn over_udp_two_processes_that_are_one_node_break_nothing() {
    two_processes_that_are_one_node_break_nothing(UDP);
}

#[test]
fn over_quic_two_processes_that_are_one_node_break_nothing() {
    two_processes_that_are_one_node_break_nothing(QUIC);
}

#[test]
fn over_udt_two_processes_that_are_one_node_break_nothing() {
    two_processes_that_are_one_node_break_nothing(UDT);
}
