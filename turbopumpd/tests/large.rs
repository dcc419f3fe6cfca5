//! Values that are too long to be held: written on one node, fetched by the others, read in parts, and what
//! happens when that is interrupted. What each node holds in memory meanwhile is measured.

mod support;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use support::{
    Client, PATIENCE, Socket,
    cluster::{Cluster, UDP, UDT},
    until,
};

const MIB: usize = 1 << 20;
/// Longer than any transfer here takes.
const LONG: Duration = Duration::from_secs(60);

/// The `n`th MiB of a value: no two are alike.
fn mib(n: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..MIB as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    bytes[..8].copy_from_slice(&(n as u64).to_le_bytes());
    bytes
}

fn patient(unix: &Path) -> Client {
    Client::try_unix(unix, LONG).unwrap()
}

/// Writes so many MiB, with a length or in chunks, and gives the status.
fn write(unix: &Path, target: &str, mibs: usize, chunked: bool) -> u16 {
    let mut client = patient(unix);
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_owned(),
        false => format!("Content-Length: {}", mibs * MIB),
    };
    client.send(format!("POST {target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n"));
    let mut piece = mib(0);
    for n in 0..mibs {
        piece[..8].copy_from_slice(&(n as u64).to_le_bytes());
        if chunked {
            client.send(format!("{MIB:x}\r\n"));
        }
        client.send(&piece);
        if chunked {
            client.send("\r\n");
        }
    }
    if chunked {
        client.send("0\r\n\r\n");
    }
    client.answer().status
}

/// What lies in a node's staging folder.
fn staged(home: &Path) -> usize {
    std::fs::read_dir(home.join("store/staging")).unwrap().count()
}

#[test]
fn a_long_value_goes_to_all_nodes_and_no_node_holds_it_in_memory() {
    // Goal: 256 MiB pass through every node, and none grows by more than its buffers. Method: write it in
    // chunks on one, read all of it on another and parts on the third, and look at the peaks.
    const MIBS: usize = 256;
    let cluster = Cluster::start(3, &[UDT, &["--store", "file", "--durability", "buffered"]].concat());
    let nodes = &cluster.nodes;
    assert_eq!(write(&nodes[0].unix, "/write?name=film&ack=all", MIBS, true), 200);
    let mut client = patient(&nodes[1].unix);
    client.send("GET /read?name=film HTTP/1.1\r\nHost: x\r\n\r\n");
    let whole = client.answer();
    assert_eq!((whole.status, whole.body.len()), (200, MIBS * MIB));
    for (n, piece) in whole.body.chunks(MIB).enumerate() {
        assert_eq!(piece[..8], (n as u64).to_le_bytes());
    }
    assert!(whole.body[77 * MIB..78 * MIB] == mib(77));
    let part = |range: &str| {
        let mut client = patient(&nodes[2].unix);
        client.ask(&format!("GET /read?name=film HTTP/1.1\r\nHost: x\r\nRange: {range}\r\n\r\n"))
    };
    let from = 100 * MIB;
    let found = part(&format!("bytes={from}-{}", from + 2 * MIB - 1));
    assert_eq!(found.status, 206);
    assert_eq!(found.header("content-range"), format!("bytes {from}-{}/{}", from + 2 * MIB - 1, MIBS * MIB));
    assert!(found.body == [mib(100), mib(101)].concat());
    assert_eq!(part("bytes=-5").body, mib(0)[MIB - 5..]);
    assert_eq!(part(&format!("bytes={}-", MIBS * MIB)).status, 416);
    let stale = patient(&nodes[2].unix)
        .ask("GET /read?name=film HTTP/1.1\r\nHost: x\r\nRange: bytes=0-7\r\nIf-Range: \"other\"\r\n\r\n");
    assert_eq!((stale.status, stale.body.len()), (200, MIBS * MIB));
    let peaks: Vec<u64> = nodes.iter().map(|node| node.peak_kib() / 1_024).collect();
    assert!(peaks.iter().all(|mib| *mib < 64), "resident peaks in MiB: {peaks:?}");
}

#[test]
fn a_body_that_breaks_off_or_is_too_long_leaves_nothing() {
    let options = [UDP, &["--store", "file", "--max-value", "20000000"]].concat();
    let cluster = Cluster::start(1, &options);
    let (node, home) = (&cluster.nodes[0], cluster.folders[0].path());
    for head in ["Content-Length: 10000000", "Transfer-Encoding: chunked"] {
        let mut client = node.connect();
        client.send(format!("POST /write?name=a HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n"));
        if head.starts_with('T') {
            client.send("900000\r\n");
        }
        (0..4).for_each(|n| client.send(mib(n)));
        until("it is on its way to the disk", PATIENCE, || staged(home) == 1);
        drop(client);
        until("nothing is left of it", PATIENCE, || staged(home) == 0);
    }
    let sized = node.connect().ask("POST /write?name=a HTTP/1.1\r\nContent-Length: 20000001\r\n\r\n");
    assert_eq!(sized.error(), (413, "too_large".into()), "before a byte of it is sent");
    assert!(sized.text().contains("max-value"), "{}", sized.text());
    let mut client = node.connect();
    client.send("POST /write?name=a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2000000\r\n");
    let sent = (0..32).try_for_each(|n| client.try_send(mib(n)));
    if sent.is_ok() || matches!(client.socket, Socket::Tcp(_)) {
        assert_eq!(client.answer().error(), (413, "too_large".into()));
    }
    until("nothing is left of it", PATIENCE, || staged(home) == 0);
    let wrong = node.post("/write?name=a&ack=never", &mib(0));
    assert_eq!(wrong.error(), (400, "malformed_parameter".into()), "before its body was read");
    assert_eq!(node.get("/read?name=a").status, 404);
    assert_eq!(node.get("/list-keys").json()["keys"].as_array().unwrap().len(), 0);
}

#[test]
fn a_long_file_is_imported_and_does_not_change_with_its_original() {
    let cluster = Cluster::start(1, &[UDP, &["--store", "file"]].concat());
    let (node, home) = (&cluster.nodes[0], cluster.folders[0].path());
    let path = home.join("original");
    let value: Vec<u8> = (0..10).flat_map(mib).collect();
    std::fs::write(&path, &value).unwrap();
    let copied = node.post(&format!("/copy?name=c&path={}", path.display()), b"");
    assert_eq!((copied.status, &copied.json()["size"]), (200, &value.len().into()));
    std::fs::write(&path, b"changed afterwards").unwrap();
    assert!(node.get("/read?name=c").body == value);
    assert_eq!(staged(home), 0);
}

#[test]
fn a_receiver_that_is_killed_goes_on_where_it_was() {
    // Goal: what was fetched before a kill is not fetched again. Method: kill the receiver when a third has
    // come, start it again, and count what it fetches from then on.
    const MIBS: usize = 192;
    let options = [UDT, &["--store", "file", "--durability", "buffered"]].concat();
    let mut cluster = Cluster::start(2, &options);
    assert_eq!(write(&cluster.nodes[0].unix, "/write?name=film&mirrors=2", MIBS, false), 200);
    let third = (MIBS * MIB / 3) as u64;
    let mut shown = serde_json::Value::Null;
    until("a third of it has come", LONG, || {
        let status = cluster.nodes[1].get("/status").json();
        let fetch = status["fetches"].get(0).cloned();
        shown = fetch.unwrap_or_default();
        shown["bytes"].as_u64().is_some_and(|bytes| bytes > third)
    });
    assert_eq!((&shown["name"], &shown["from"]), (&"film".into(), &"1".into()), "{shown}");
    assert_eq!(shown["size"], MIBS * MIB);
    cluster.kill(1);
    cluster.relaunch(1);
    until("it is here", LONG, || cluster.nodes[1].get("/read?name=film&local=1").status == 200);
    let (again, kept) = ("turbopump_fetched_bytes_total", "turbopump_resumed_bytes_total");
    let (again, kept) = (cluster.nodes[1].metric(again), cluster.nodes[1].metric(kept));
    assert!(kept >= third - (16 * MIB) as u64, "{kept} kept");
    assert_eq!(again + kept, (MIBS * MIB) as u64, "each byte once");
    assert_eq!(staged(cluster.folders[1].path()), 0);
}

#[test]
fn small_writes_go_on_while_long_values_are_under_way() {
    // Goal: eight long values at once do not hold up small quorum writes. Method: write them at the same
    // time and measure small writes until the last one is everywhere.
    const MIBS: usize = 24;
    let options = [UDT, &["--store", "file", "--durability", "buffered"]].concat();
    let cluster = Cluster::start(3, &options);
    let nodes = &cluster.nodes;
    let mut times: Vec<Duration> = Vec::new();
    thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let unix = &nodes[n % 3].unix;
                scope.spawn(move || write(unix, &format!("/write?name=film{n}&ack=all"), MIBS, false))
            })
            .collect();
        let mut client = nodes[0].connect_unix();
        while writers.iter().any(|writer| !writer.is_finished()) {
            let begin = Instant::now();
            let name = times.len();
            assert_eq!(client.post(&format!("/write?name=small{name}&ack=quorum"), b"v").status, 200);
            times.push(begin.elapsed());
        }
        writers.into_iter().for_each(|writer| assert_eq!(writer.join().unwrap(), 200));
    });
    times.sort();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{} small writes, median {median:?}, worst {worst:?}", times.len());
    assert!(median < Duration::from_millis(250) && worst < Duration::from_secs(3), "{median:?} {worst:?}");
}
