//! The examples run, say what they promise, and their parts keep the promises of the traits.

#[path = "../examples/partitioner.rs"]
#[allow(dead_code, reason = "its main runs as a process of its own")]
mod partitioner;
#[path = "../examples/storage_sqlite.rs"]
#[allow(dead_code, reason = "its main runs as a process of its own")]
mod storage_sqlite;
#[path = "../examples/transport.rs"]
#[allow(dead_code, reason = "its main runs as a process of its own")]
mod transport;

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use storage_sqlite::SqliteStorage;
use turbopump::{
    testing::{partitioner as partitioners, storage::StorageSuite, transport::TransportSuite},
    transport::UdpTransport,
};

/// The examples in the order in which each names the next, and what each has to say.
const EXAMPLES: &[(&str, &[&str])] = &[
    ("hello", &["read Some(b\"hello\")", "after the delete: None"]),
    ("three_nodes", &["3 of 3", "complete: 3 nodes hold greeting", "node c reads Some(b\"hello\")"]),
    (
        "watch",
        &["written: sensor/temperature (4 bytes)", "deleted: sensor/temperature", "is Some(b\"open\")"],
    ),
    (
        "conflict",
        &["Some(b\"milk bread\")", "Some(b\"milk eggs\")", "settled: Some(b\"bread eggs milk\"), 1 "],
    ),
    ("storage_sqlite", &["a new node on the same sqlite store reads Some(b\"hello again\")"]),
    ("partitioner", &["node c comes first in", "owners of greeting: ["]),
    ("transport", &["30 writes acknowledged by both nodes"]),
];

/// An example is for reading and trying: none may take longer.
const WITHIN: Duration = Duration::from_secs(30);

#[test]
fn every_example_runs_ends_by_itself_and_names_the_next() {
    for (i, (name, says)) in EXAMPLES.iter().enumerate() {
        let begin = Instant::now();
        let output = Command::new(built(name)).output().expect("the example starts");
        let text = String::from_utf8(output.stdout).expect("text");
        println!("{name}: {:?}\n{text}", begin.elapsed());
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(begin.elapsed() < WITHIN, "{name} took {:?}", begin.elapsed());
        for promised in *says {
            assert!(text.contains(promised), "{name} says {promised:?}:\n{text}");
        }
        let next =
            EXAMPLES.get(i + 1).map_or("module `guide`".into(), |(next, _)| format!("--example {next}"));
        assert!(text.lines().last().is_some_and(|line| line.contains(&next)), "{name} names {next}:\n{text}");
    }
}

#[test]
fn every_example_is_in_the_list_and_begins_with_its_command() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(folder).expect("there are examples").map(|entry| entry.unwrap().path());
    let mut names = Vec::new();
    for path in files {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some(&*format!("//! cargo run --example {name}")));
        names.push(name);
    }
    names.sort();
    let mut listed: Vec<_> = EXAMPLES.iter().map(|(name, _)| name.to_string()).collect();
    listed.sort();
    assert_eq!(names, listed);
}

#[test]
fn the_sqlite_storage_keeps_what_a_storage_promises() {
    let (folder, count) = (tempfile::tempdir().unwrap(), Cell::new(0));
    let make = || {
        count.set(count.get() + 1);
        SqliteStorage::open(folder.path().join(format!("{}.sqlite", count.get()))).unwrap()
    };
    let reopen = |storage: SqliteStorage| {
        let path = storage.path();
        drop(storage);
        SqliteStorage::open(path).unwrap()
    };
    StorageSuite::new(make).reopening(reopen).run_all();
}

#[test]
fn the_rendezvous_partitioner_keeps_what_a_partitioner_promises() {
    partitioners::check(|| Box::new(partitioner::Rendezvous));
    partitioners::check_weights(|| Box::new(partitioner::Rendezvous));
}

#[test]
fn the_lossy_transport_keeps_what_a_transport_that_loses_frames_promises() {
    let lossy = |addr| Box::new(transport::Lossy::new(UdpTransport::bind(addr), 5)) as Box<_>;
    TransportSuite::new(([127, 0, 0, 1], 0).into(), lossy).may_lose().run();
}

/// Cargo builds the examples with the tests, in a folder beside theirs.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let path = test.parent().and_then(Path::parent).expect("target/PROFILE/deps").join("examples").join(name);
    assert!(path.exists(), "{} is not there: run `cargo build --examples` first", path.display());
    path
}
