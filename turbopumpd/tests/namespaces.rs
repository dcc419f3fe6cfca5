//! Real daemons in network namespaces, with links that are cut, one way or both, and that lose
//! packets. Where the machine permits no namespaces each test says `SKIPPED` and passes.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use support::{
    cluster::{Cluster, QUIC, SLACK, UDP, UDT, scaled},
    network::Network,
    until,
};

/// Detection of a silent peer takes 3 s by default, over UDT 10 s; both directions of it a little more.
const NOTICED: Duration = Duration::from_secs(20);
const HEALED: Duration = Duration::from_secs(30);

/// So many daemons that see each other, or nothing where the machine does not permit it.
fn networked(count: usize, options: &[&str]) -> Option<Cluster> {
    Some(Cluster::start_in(Some(Network::try_new(count)?), count, options))
}

fn network(cluster: &mut Cluster) -> &mut Network {
    cluster.network.as_mut().unwrap()
}

fn write(cluster: &Cluster, i: usize, target: &str, value: &str) {
    let answer = cluster.nodes[i].post(target, value.as_bytes());
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
}

/// Waits until one node sees just these others down.
fn until_down(cluster: &Cluster, i: usize, down: &[usize]) {
    let expected: BTreeSet<String> = down.iter().map(|d| (d + 1).to_string()).collect();
    until(&format!("node {i} sees {down:?} down"), NOTICED * SLACK, || {
        let states = cluster.states(i).into_iter();
        states.filter(|(_, s)| s == "down").map(|(id, _)| id).collect::<BTreeSet<_>>() == expected
    });
}

/// The values of a key on one node, sorted; it asks nobody else.
fn values(cluster: &Cluster, i: usize, name: &str) -> Vec<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let answer = cluster.nodes[i].get(&format!("/read?name={name}&local=1&siblings=all"));
    if answer.status == 404 {
        return Vec::new();
    }
    let siblings = answer.json();
    let mut values: Vec<String> = siblings
        .as_array()
        .unwrap()
        .iter()
        .map(|s| String::from_utf8(STANDARD.decode(s["value"].as_str().unwrap()).unwrap()).unwrap())
        .collect();
    values.sort();
    values
}

fn halves_that_grew_apart_merge(transport: &[&str]) {
    // Goal: after a partition into two and three, all is the same everywhere, siblings are just
    // where both sides wrote, and a delete holds. Method: each kind of key has its own names; all
    // were on all nodes before the cut, except those named new.
    let Some(mut cluster) =
        networked(5, &[transport, &["--mirrors", "0", "--durability", "buffered"]].concat())
    else {
        return;
    };
    let (ours, theirs) = ([0, 1], [2, 3, 4]);
    let count = scaled(200, 20);
    let kinds = ["both", "ours", "theirs", "gone", "gone-and-written", "untouched"];
    for (kind, i) in kinds.iter().flat_map(|k| (0..count).map(move |i| (k, i))) {
        write(&cluster, i % 5, &format!("/write?name={kind}-{i}&ack=all"), "old");
    }
    network(&mut cluster).cut(&ours, &theirs);
    ours.iter().for_each(|i| until_down(&cluster, *i, &theirs));
    theirs.iter().for_each(|i| until_down(&cluster, *i, &ours));
    for i in 0..count {
        let (we, they) = (ours[i % 2], theirs[i % 3]);
        for (node, value) in [(we, "ours"), (they, "theirs")] {
            write(&cluster, node, &format!("/write?name=both-{i}"), value);
            write(&cluster, node, &format!("/write?name={value}-{i}"), value);
            write(&cluster, node, &format!("/write?name=new-{value}-{i}"), value);
        }
        write(&cluster, we, &format!("/delete?name=gone-{i}"), "");
        write(&cluster, we, &format!("/delete?name=gone-and-written-{i}"), "");
        write(&cluster, they, &format!("/write?name=gone-and-written-{i}"), "theirs");
    }
    let expected: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("both", &["ours", "theirs"][..]),
        ("ours", &["ours"]),
        ("theirs", &["theirs"]),
        ("new-ours", &["ours"]),
        ("new-theirs", &["theirs"]),
        ("gone", &[]),
        ("gone-and-written", &["theirs"]),
        ("untouched", &["old"]),
    ]);
    assert_eq!(values(&cluster, 2, "gone-0"), ["old"], "the cut holds");
    network(&mut cluster).heal();
    let begin = Instant::now();
    cluster.all_up();
    println!("{transport:?}: all see each other {:?} after the heal", begin.elapsed());
    cluster.until_equal(&[0, 1, 2, 3, 4], HEALED * SLACK);
    println!("{transport:?}: equal sets {:?} after the heal", begin.elapsed());
    for ((kind, expected), i) in expected.iter().flat_map(|e| (0..count).map(move |i| (e, i))) {
        for node in 0..5 {
            assert_eq!(
                values(&cluster, node, &format!("{kind}-{i}")),
                *expected,
                "{kind}-{i} on node {node}"
            );
        }
    }
}

#[test]
fn over_udp_halves_that_grew_apart_merge() {
    halves_that_grew_apart_merge(UDP);
}

#[test]
fn over_quic_halves_that_grew_apart_merge() {
    halves_that_grew_apart_merge(QUIC);
}

#[test]
fn over_udt_halves_that_grew_apart_merge() {
    halves_that_grew_apart_merge(UDT);
}

fn a_partition_leaves_no_copy_where_it_does_not_belong(transport: &[&str]) {
    // Goal: with three mirrors on five nodes a cut-off side keeps what it took for owners that it
    // could not reach, and gives it back. Method: writes on both sides; in the end each key is
    // exactly on the owners that /ring names.
    let Some(mut cluster) = networked(5, &[transport, &["--durability", "buffered"]].concat()) else {
        return;
    };
    let count = scaled(500, 60);
    let names: Vec<String> = (0..count).map(|i| format!("k{i}")).collect();
    network(&mut cluster).cut(&[0, 1], &[2, 3, 4]);
    until_down(&cluster, 0, &[2, 3, 4]);
    for (i, name) in names.iter().enumerate() {
        write(&cluster, i % 5, &format!("/write?name={name}&ack=local"), "v");
    }
    network(&mut cluster).heal();
    cluster.all_up();
    let owners = cluster.owners(0, &names);
    cluster.until_exact(&[0, 1, 2, 3, 4], &owners, HEALED * SLACK);
}

#[test]
fn over_udp_a_partition_leaves_no_copy_where_it_does_not_belong() {
    a_partition_leaves_no_copy_where_it_does_not_belong(UDP);
}

fn a_link_that_is_cut_one_way_stops_no_quorum(transport: &[&str]) {
    // Goal: node 1 is not heard by node 0 and hears it well; both still write and read by quorum,
    // and what they wrote is everywhere after the heal.
    let Some(mut cluster) = networked(3, &[transport, &["--durability", "buffered"]].concat()) else {
        return;
    };
    network(&mut cluster).cut_one_way(1, 0);
    let begin = Instant::now();
    let (mut written, mut slowest) = (0, Duration::ZERO);
    // Longer than it takes to notice the silence.
    while begin.elapsed() < Duration::from_secs(scaled(8, 4) as u64) {
        let (node, one) = (written % 3, Instant::now());
        write(&cluster, node, &format!("/write?name=k{written}&ack=quorum"), "v");
        let answer = cluster.nodes[(node + 1) % 3].get(&format!("/read?name=k{written}&read=quorum"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        written += 1;
        slowest = slowest.max(one.elapsed());
        thread::park_timeout(Duration::from_millis(5));
    }
    let seen: Vec<_> = (0..3).map(|i| cluster.states(i)).collect();
    println!(
        "{transport:?}: {written} writes and reads, the slowest pair {slowest:?}; the states in the end {seen:?}"
    );
    network(&mut cluster).heal();
    cluster.all_up();
    cluster.until_equal(&[0, 1, 2], HEALED * SLACK);
    assert_eq!(cluster.keys(0), written as u64);
}

#[test]
fn over_udp_a_link_that_is_cut_one_way_stops_no_quorum() {
    a_link_that_is_cut_one_way_stops_no_quorum(UDP);
}

#[test]
fn over_quic_a_link_that_is_cut_one_way_stops_no_quorum() {
    a_link_that_is_cut_one_way_stops_no_quorum(QUIC);
}

#[test]
fn over_udt_a_link_that_is_cut_one_way_stops_no_quorum() {
    a_link_that_is_cut_one_way_stops_no_quorum(UDT);
}

/// Writes by quorum while 20 % of the packets each way between any two of three nodes are dropped at
/// random: how many ended, how many of them as unknown, and how often a peer was taken for down.
fn writes_at_a_fifth_of_the_packets_lost(transport: &[&str]) -> Option<(usize, usize, u64)> {
    let mut cluster = networked(3, &[transport, &["--durability", "buffered"]].concat())?;
    let stretch = Duration::from_secs(scaled(20, 4) as u64);
    network(&mut cluster).lose(20);
    let begin = Instant::now();
    let (mut times, mut unknown, mut seen_down) = (Vec::new(), 0, 0);
    let mut clients: Vec<_> = cluster.nodes.iter().map(|n| n.connect_unix()).collect();
    while begin.elapsed() < stretch {
        let (i, one) = (times.len(), Instant::now());
        let answer = clients[i % 3].post(&format!("/write?name=k{i}&ack=quorum"), b"v");
        // 504: the time was up; it may be on its way still.
        assert!([200, 504].contains(&answer.status), "{}", answer.text());
        unknown += usize::from(answer.status == 504);
        times.push(one.elapsed());
        let all_up = |node: usize| cluster.states(node).values().all(|s| s == "up");
        seen_down += usize::from(!(0..3).all(all_up));
    }
    let lost = cluster.sum(&[0, 1, 2], "turbopump_peers_lost_total");
    times.sort();
    let (n, at) = (times.len(), |percent: usize| times[(times.len() - 1) * percent / 100]);
    println!(
        "{transport:?}: {n} writes at 20 % loss, {unknown} ended as unknown, p50 {:?}, p99 {:?}, worst {:?}, \
         {lost} times a peer was taken for down, {seen_down} looks at the members saw one down",
        at(50),
        at(99),
        at(100)
    );
    network(&mut cluster).heal();
    cluster.until_equal(&[0, 1, 2], HEALED * SLACK);
    assert_eq!(cluster.keys(0), n as u64);
    Some((n, unknown, lost))
}

#[test]
fn over_udp_a_fifth_of_the_packets_lost_marks_nobody_down() {
    // Goal: loss is no absence. No member list ever says down, and every write ends well.
    let Some((ended, unknown, lost)) = writes_at_a_fifth_of_the_packets_lost(UDP) else { return };
    assert_eq!((unknown, lost), (0, 0), "unknown writes, peers taken for down");
    assert!(ended >= 20, "only {ended} writes");
}

#[test]
fn over_quic_a_fifth_of_the_packets_lost_marks_nobody_down() {
    // Goal: the same over links that are given up after two seconds of silence.
    let Some((ended, unknown, lost)) = writes_at_a_fifth_of_the_packets_lost(QUIC) else { return };
    assert_eq!((unknown, lost), (0, 0), "unknown writes, peers taken for down");
    assert!(ended >= 20, "only {ended} writes");
}

#[test]
fn over_udt_a_fifth_of_the_packets_lost_marks_nobody_down() {
    // Goal: the same. UDT delivers in order and repeats what was lost after long pauses, so that a
    // write may take longer than its client waits.
    let Some((ended, unknown, lost)) = writes_at_a_fifth_of_the_packets_lost(UDT) else { return };
    assert_eq!(lost, 0, "peers taken for down");
    assert!(ended > unknown, "{ended} writes, {unknown} of them unknown");
}

fn an_isolated_node_finds_its_way_back(transport: &[&str]) {
    // Goal: a node that could reach nobody comes back without a person, even if meanwhile others
    // moved. Method: cut it off, restart two of three others on other ports, write; heal.
    let Some(mut cluster) =
        networked(4, &[transport, &["--mirrors", "0", "--durability", "buffered"]].concat())
    else {
        return;
    };
    network(&mut cluster).cut(&[3], &[0, 1, 2]);
    until_down(&cluster, 3, &[0, 1, 2]);
    until_down(&cluster, 0, &[3]);
    for i in [0, 1] {
        cluster.kill(i);
        cluster.relaunch_elsewhere(i);
    }
    write(&cluster, 0, "/write?name=theirs", "v");
    write(&cluster, 3, "/write?name=mine", "v");
    // Longer than any pause between two attempts should grow to unnoticed.
    thread::park_timeout(Duration::from_secs(scaled(20, 2) as u64));
    network(&mut cluster).heal();
    let begin = Instant::now();
    cluster.all_up();
    println!(
        "{transport:?}: the isolated node and all others see each other {:?} after the heal",
        begin.elapsed()
    );
    cluster.until_equal(&[0, 1, 2, 3], HEALED * SLACK);
    assert_eq!(cluster.keys(3), 2);
}

#[test]
fn over_udp_an_isolated_node_finds_its_way_back() {
    an_isolated_node_finds_its_way_back(UDP);
}

#[test]
fn over_quic_an_isolated_node_finds_its_way_back() {
    an_isolated_node_finds_its_way_back(QUIC);
}

#[test]
fn over_udt_an_isolated_node_finds_its_way_back() {
    an_isolated_node_finds_its_way_back(UDT);
}
