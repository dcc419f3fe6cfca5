//! Several real daemons: what three or six processes promise together, over UDT, UDP and QUIC.

mod support;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use support::{
    Client, Daemon,
    cluster::{Cluster, QUIC, SLACK, UDP, UDT, medium, read_all, small, write_all},
    until,
};

fn ten_thousand_keys_reach_all_mirrors(transport: &[&str]) {
    let cluster = Cluster::start(3, &[transport, &["--durability", "buffered"]].concat());
    let begin = Instant::now();
    write_all(&cluster.nodes[0], 16, 10_000, "", small);
    let (wrote, last) = (begin.elapsed(), Instant::now());
    for i in 0..3 {
        let within = Duration::from_secs(10) * SLACK;
        until("every mirror has every key", within, || cluster.keys(i) == 10_000);
    }
    println!("{transport:?}: 10,000 writes in {wrote:?}, on all mirrors {:?} after the last", last.elapsed());
    cluster.nodes.iter().for_each(|node| read_all(node, 10_000, small));
}

#[test]
fn over_udt_ten_thousand_keys_reach_all_mirrors() {
    ten_thousand_keys_reach_all_mirrors(UDT);
}

#[test]
fn over_quic_ten_thousand_keys_reach_all_mirrors() {
    ten_thousand_keys_reach_all_mirrors(QUIC);
}

#[test]
fn over_udp_ten_thousand_keys_reach_all_mirrors() {
    ten_thousand_keys_reach_all_mirrors(UDP);
}

fn fresh_connections_and_long_values(transport: &[&str]) {
    let cluster = Cluster::start(3, &[transport, &["--store", "memory"]].concat());
    for i in 0..300 {
        let answer = cluster.nodes[i % 3].post(&format!("/write?name=key-{i}"), &small(i));
        assert_eq!(answer.status, 200);
    }
    for i in 0..3 {
        until("every mirror has every key", Duration::from_secs(10) * SLACK, || cluster.keys(i) == 300);
        read_all(&cluster.nodes[i], 300, small);
    }
    write_all(&cluster.nodes[1], 4, 90, "&ack=all", medium);
    cluster.nodes.iter().for_each(|node| read_all(node, 90, medium));
}

#[test]
fn over_udt_fresh_connections_and_values_of_64_kb_arrive() {
    fresh_connections_and_long_values(UDT);
}

#[test]
fn over_quic_fresh_connections_and_values_of_64_kb_arrive() {
    fresh_connections_and_long_values(QUIC);
}

#[test]
fn over_udp_fresh_connections_and_values_of_64_kb_arrive() {
    fresh_connections_and_long_values(UDP);
}

#[test]
fn of_six_nodes_just_the_owners_keep_a_key() {
    // Goal: mirrors 1 to 5 and 0 side by side. Method: keys of each kind written everywhere; then
    // what each node lists is compared with what /ring says.
    let cluster = Cluster::start(6, &["--udp", "--store", "memory"]);
    let name = |mirrors: usize, i: usize| format!("m{mirrors}-{i}");
    for mirrors in 0..6 {
        for i in 0..12 {
            let target = format!("/write?name={}&mirrors={mirrors}", name(mirrors, i));
            assert_eq!(cluster.nodes[i % 6].post(&target, b"v").status, 200);
        }
    }
    for mirrors in 0..6 {
        for i in 0..12 {
            let name = name(mirrors, i);
            let holds = |node: &Daemon| node.get(&format!("/read?name={name}&local=1")).status == 200;
            let mut holders = BTreeSet::new();
            let expected = if mirrors == 0 { 6 } else { mirrors };
            until("as many nodes hold the key as it has mirrors", Duration::from_secs(30), || {
                let all = cluster.nodes.iter().enumerate().filter(|(_, node)| holds(node));
                holders = all.map(|(i, _)| (i + 1).to_string()).collect();
                holders.len() == expected
            });
            let ring = cluster.nodes[0].get(&format!("/ring?name={name}&mirrors={mirrors}")).json();
            let owners = ring["owners"].as_array().unwrap().iter().map(|o| o.as_str().unwrap().to_string());
            assert_eq!(holders, owners.collect(), "{name}: {ring}");
        }
    }
}

fn acknowledged_write_takes(transport: &[&str], limit: Duration) {
    let cluster = Cluster::start(3, &[transport, &["--store", "memory"]].concat());
    let mut client = cluster.nodes[0].connect_unix();
    let mut times: Vec<Duration> = (0..2_000)
        .map(|i| {
            let begin = Instant::now();
            let answer = client.post(&format!("/write?name=k{}&ack=all", i % 100), &small(i));
            assert_eq!((answer.status, answer.json()["acked"].as_u64()), (200, Some(3)));
            begin.elapsed()
        })
        .collect();
    times.sort();
    println!("{transport:?}: ack=all over HTTP p50 {:?}, p99 {:?}", times[1_000], times[1_980]);
    assert!(times[1_000] < limit * SLACK, "p50 {:?}", times[1_000]);
}

#[test]
fn over_udt_a_write_acknowledged_by_all_takes_under_a_millisecond() {
    acknowledged_write_takes(UDT, Duration::from_millis(1));
}

#[test]
fn over_quic_a_write_acknowledged_by_all_takes_under_four_tenths_of_a_millisecond() {
    acknowledged_write_takes(QUIC, Duration::from_micros(400));
}

#[test]
fn over_udp_a_write_acknowledged_by_all_takes_under_half_a_millisecond() {
    acknowledged_write_takes(UDP, Duration::from_micros(500));
}

#[test]
fn a_killed_node_costs_no_acknowledged_write_and_serves_its_own_after_a_restart() {
    // Goal: quorum survives kill -9. Method: one of three is killed under writes to another; the
    // acknowledged ones are on the survivors; it restarts on its address and has what it had.
    let mut cluster = Cluster::start(3, &["--udp"]);
    for victim in [2, 1] {
        let own = format!("/write?name=own-{victim}&ack=local");
        assert_eq!(cluster.nodes[victim].post(&own, b"mine").status, 200);
        let mut acknowledged = Vec::new();
        let mut client = cluster.nodes[0].connect_unix();
        for i in 0..400 {
            if i == 100 {
                cluster.kill(victim);
            }
            let name = format!("q{victim}-{i}");
            let answer = client.post(&format!("/write?name={name}&ack=quorum"), &small(i));
            if answer.status == 200 {
                acknowledged.push((name, small(i)));
            }
        }
        assert!(acknowledged.len() >= 390, "{} of 400 were acknowledged", acknowledged.len());
        let survivor = &cluster.nodes[3 - victim];
        for (name, value) in &acknowledged {
            let answer = survivor.get(&format!("/read?name={name}"));
            assert!(answer.status == 200 && answer.body == *value, "{name} is missing");
        }
        cluster.relaunch(victim);
        let answer = cluster.nodes[victim].get(&format!("/read?name=own-{victim}&local=1"));
        assert_eq!((answer.status, answer.body), (200, b"mine".to_vec()));
        cluster.all_up();
    }
    let keys = cluster.keys(0);
    for i in 0..3 {
        until("all have caught up", Duration::from_secs(30), || cluster.keys(i) == keys);
    }
}

#[test]
fn a_thousand_keys_survive_a_restart_of_all_nodes_at_once() {
    let mut cluster = Cluster::start(3, UDT);
    write_all(&cluster.nodes[0], 16, 1_000, "&ack=all", small);
    (0..3).for_each(|i| cluster.kill(i));
    (0..3).for_each(|i| cluster.relaunch(i));
    cluster.nodes.iter().for_each(|node| read_all(node, 1_000, small));
    cluster.all_up();
    assert_eq!(cluster.nodes[2].get("/membership").json()["self"], "3");
}

fn stops_within_two_seconds(transport: &[&str]) {
    // Goal: SIGTERM ends soon whatever hangs. Method: links up, one peer dead, one client that
    // sent half a request, one that waits; no socket file and no process is left.
    let mut cluster = Cluster::start(3, transport);
    cluster.kill(2);
    let mut half = cluster.nodes[0].connect();
    half.send("POST /write?name=k HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf");
    let mut waits = Client::unix(&cluster.nodes[0].unix);
    waits.send("GET /wait?name=never&timeout=30 HTTP/1.1\r\n\r\n");
    for i in 0..100 {
        assert_eq!(cluster.nodes[0].post(&format!("/write?name=k{i}"), b"v").status, 200);
    }
    for i in 0..2 {
        let socket: PathBuf = cluster.nodes[i].unix.clone();
        cluster.nodes[i].signal("-TERM");
        let (status, took) = cluster.nodes[i].wait_end(Duration::from_secs(2) * SLACK.min(2));
        println!("{transport:?}: stopped after {took:?}");
        assert!(status.success(), "{status}");
        assert!(!socket.exists(), "the socket file is left");
    }
}

#[test]
fn over_udt_a_daemon_stops_within_two_seconds_whatever_hangs() {
    stops_within_two_seconds(UDT);
}

#[test]
fn over_quic_a_daemon_stops_within_two_seconds_whatever_hangs() {
    stops_within_two_seconds(QUIC);
}

#[test]
fn over_udp_a_daemon_stops_within_two_seconds_whatever_hangs() {
    stops_within_two_seconds(UDP);
}

#[test]
fn chaining_alone_and_sync_alone_each_spread_what_was_written() {
    for switch in ["--no-active-sync", "--no-write-chaining"] {
        let cluster = Cluster::start(2, &["--udp", "--store", "memory", switch]);
        for i in 0..5 {
            assert_eq!(cluster.nodes[0].post(&format!("/write?name=a{i}"), b"v").status, 200);
            assert_eq!(cluster.nodes[1].post(&format!("/write?name=b{i}"), b"v").status, 200);
        }
        for i in 0..2 {
            until("both have all ten", Duration::from_secs(30), || cluster.keys(i) == 10);
        }
    }
}

fn noise_on_the_peer_port_is_harmless(transport: &[&str]) {
    // Goal: no datagram kills or fills a node. Method: random ones of all lengths, and ones that
    // begin like frames, while the cluster works.
    let mut cluster = Cluster::start(3, &[transport, &["--store", "memory"]].concat());
    let before = cluster.nodes[0].resident_kib();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut byte = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    for round in 0..20_000 {
        let mut datagram: Vec<u8> = (0..byte() as usize + 1).map(|_| byte()).collect();
        if round % 2 == 0 {
            let head = [b't', b'p', 1, byte() % 3, 0, 0, 0, datagram.len() as u8];
            datagram.splice(..0, head.into_iter().chain([0; 8]));
        }
        // What the system refuses to take is noise that does not arrive.
        let _ = socket.send_to(&datagram, cluster.nodes[0].peers);
        if round % 1_000 == 0 {
            let answer = cluster.nodes[0].post(&format!("/write?name=k{round}&ack=quorum"), b"v");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    assert!(cluster.nodes.iter_mut().all(Daemon::is_alive));
    let grown = cluster.nodes[0].resident_kib().saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more");
}

#[test]
fn over_quic_noise_on_the_peer_port_is_harmless() {
    noise_on_the_peer_port_is_harmless(QUIC);
}

#[test]
fn over_udp_noise_on_the_peer_port_is_harmless() {
    noise_on_the_peer_port_is_harmless(UDP);
}

#[test]
fn over_udt_noise_on_the_peer_port_is_harmless() {
    noise_on_the_peer_port_is_harmless(UDT);
}

#[test]
fn a_node_that_comes_back_on_another_port_is_found_again() {
    for transport in [UDT, UDP, QUIC] {
        let mut cluster = Cluster::start(3, &[transport, &["--store", "memory"]].concat());
        cluster.kill(1);
        let before = cluster.nodes[1].peers;
        cluster.relaunch_elsewhere(1);
        assert_ne!(cluster.nodes[1].peers, before);
        cluster.all_up();
        let addr = cluster.nodes[1].peers.to_string();
        until("the new address has spread", Duration::from_secs(20), || {
            let members = cluster.nodes[2].get("/membership").json();
            members["members"][1]["addrs"].as_array().unwrap().iter().any(|a| *a == addr)
        });
    }
}

#[test]
fn down_and_up_are_noticed_within_seconds_on_both_sides() {
    for transport in [UDT, UDP, QUIC] {
        let mut cluster = Cluster::start(2, &[transport, &["--store", "memory"]].concat());
        let state = |cluster: &Cluster| {
            cluster.nodes[0].get("/membership").json()["members"][1]["state"].as_str().unwrap().to_string()
        };
        cluster.pause(1);
        until("a stopped node counts as down", Duration::from_secs(6) * SLACK, || state(&cluster) == "down");
        cluster.resume(1);
        cluster.all_up();
        cluster.kill(1);
        until("a killed node counts as down", Duration::from_secs(6) * SLACK, || state(&cluster) == "down");
        cluster.relaunch(1);
        cluster.all_up();
    }
}
