//! Values that are written and read piece by piece.

use std::{
    io::{self, Read as _, Seek, SeekFrom, Write as _},
    sync::mpsc,
};

use turbopump::{
    Ack, Config, Node, ReadError, SubmitError, Written,
    storage::{Durability, FileStorage},
};

use crate::{
    common::{all_up, cluster, eventually, udp_at},
    support::next,
};

const LEN: usize = 3_000_001;

fn noise(len: usize) -> Vec<u8> {
    (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn write(node: &Node, name: &str, value: &[u8]) -> Written {
    let mut writer = node.writer(name).unwrap();
    value.chunks(100_001).for_each(|piece| writer.write_all(piece).unwrap());
    writer.finish().unwrap().wait().unwrap()
}

fn on_files() -> (tempfile::TempDir, Node) {
    let folder = tempfile::tempdir().unwrap();
    let storage = FileStorage::open(folder.path().join("store"), Durability::Buffered).unwrap();
    (folder, Node::builder().storage(storage).start().unwrap())
}

fn staged(folder: &tempfile::TempDir) -> usize {
    std::fs::read_dir(folder.path().join("store/staging")).unwrap().count()
}

#[test]
fn what_is_written_in_pieces_is_read_whole_and_in_parts() {
    let (folder, node) = on_files();
    for node in [node, Node::builder().start().unwrap()] {
        for len in [0, 1, 70_000, 300_000, LEN] {
            let value = noise(len);
            assert_eq!(write(&node, "k", &value).len, len as u64);
            assert!(*node.get("k").wait().unwrap().value().unwrap() == value, "{len} bytes");
            let mut reader = node.reader("k").unwrap().unwrap();
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            assert!(got == value, "{len} bytes by a reader");
            let from = len / 3 * 2;
            reader.seek(SeekFrom::Start(from as u64)).unwrap();
            let mut part = vec![0; (len - from).min(1_000)];
            reader.read_exact(&mut part).unwrap();
            assert!(part == value[from..from + part.len()]);
        }
        assert!(node.reader("nothing").unwrap().is_none());
    }
    assert_eq!(staged(&folder), 0);
}

#[test]
fn a_write_in_pieces_takes_the_options_and_the_closures_of_any_write() {
    let node = Node::builder().start().unwrap();
    let first = write(&node, "k", &noise(LEN));
    let (sender, outcomes) = mpsc::channel();
    let mut writer = node.writer("k").unwrap();
    writer.write_all(&noise(LEN)).unwrap();
    assert_eq!(writer.written_bytes(), LEN as u64);
    let put = writer.finish().unwrap().mirrors(7).ack(Ack::All).context(Default::default());
    put.submit(move |outcome| sender.send(outcome).unwrap()).unwrap();
    let second = next(&outcomes).unwrap();
    assert_eq!((second.mirrors.0, second.acked), (7, 1));
    let both = node.get("k").without_long().wait().unwrap();
    let dots: Vec<_> = both.values().map(|r| (r.version.dot, r.value.is_none())).collect();
    assert_eq!(dots.len(), 2, "siblings, for the context was empty: {dots:?}");
    assert!(dots.contains(&(first.version, true)) && dots.contains(&(second.version, true)));
}

#[test]
fn what_is_not_finished_or_not_submitted_leaves_nothing() {
    let (folder, node) = on_files();
    let mut writer = node.writer("k").unwrap();
    writer.write_all(&noise(LEN)).unwrap();
    assert_eq!(staged(&folder), 1);
    drop(writer);
    assert_eq!(staged(&folder), 0, "dropped");
    let mut writer = node.writer("k").unwrap();
    writer.write_all(&noise(LEN)).unwrap();
    drop(writer.finish().unwrap());
    assert_eq!(staged(&folder), 0, "not submitted");
    let mut writer = node.writer("k").unwrap();
    writer.write_all(&noise(LEN)).unwrap();
    let refused = writer.finish().unwrap().ack(Ack::Mirrors(9)).wait();
    assert!(refused.is_err());
    eventually("what was refused goes", || staged(&folder) == 0);
    assert!(node.get("k").wait().unwrap().value().is_none());
}

#[test]
fn limits_of_streams_and_of_whole_values_are_told_apart() {
    let config = Config { max_value_bytes: 100_000, max_stream_bytes: 1_000_000, ..Config::default() };
    let node = Node::builder().config(config).start().unwrap();
    write(&node, "long", &noise(1_000_000));
    let refused = node.get("long").wait();
    assert_eq!(refused.unwrap_err(), ReadError::TooLong { len: 1_000_000, max: 100_000 });
    assert_eq!(node.get("long").without_long().wait().unwrap().value(), None);
    assert_eq!(io::copy(&mut node.reader("long").unwrap().unwrap(), &mut io::sink()).unwrap(), 1_000_000);
    let mut writer = node.writer("k").unwrap();
    writer.write_all(&noise(1_000_000)).unwrap();
    let refused = writer.write(b"x").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
    let inner = refused.into_inner().unwrap().downcast::<SubmitError>().unwrap();
    assert_eq!(*inner, SubmitError::StreamTooLong { max: 1_000_000 });
}

#[test]
fn writers_take_room_among_the_operations() {
    let config = Config { max_operations: 1, ..Config::default() };
    let node = Node::builder().config(config).start().unwrap();
    let writer = node.writer("k").unwrap();
    assert!(matches!(node.writer("k"), Err(SubmitError::Busy)));
    drop(writer);
    assert_eq!(write(&node, "k", &noise(10)).len, 10);
}

#[test]
fn a_reader_of_a_version_that_is_replaced_fails_and_never_mixes() {
    let (_folder, node) = on_files();
    write(&node, "k", &noise(LEN));
    let mut reader = node.reader("k").unwrap().unwrap();
    let mut some = vec![0; 1_000];
    reader.read_exact(&mut some).unwrap();
    assert!(some == noise(1_000));
    write(&node, "k", &vec![7; LEN]);
    let mut rest = Vec::new();
    let failed = reader.read_to_end(&mut rest).unwrap_err();
    assert!(failed.into_inner().unwrap().downcast::<ReadError>().is_ok());
    assert!(rest == noise(LEN)[1_000..1_000 + rest.len()]);
}

#[test]
fn damage_is_noticed_before_the_end_is_shown() {
    let (folder, node) = on_files();
    write(&node, "k", &noise(LEN));
    let data = folder.path().join("store/data");
    let below = |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
    let path = below(below(data));
    let mut file = std::fs::File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(1_000_000)).unwrap();
    file.write_all(b"spoilt").unwrap();
    let mut got = Vec::new();
    let failed = node.reader("k").unwrap().unwrap().read_to_end(&mut got).unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::InvalidData);
    assert!(got.len() < LEN);
}

#[test]
fn a_file_becomes_a_value() {
    let (folder, node) = on_files();
    let path = folder.path().join("original");
    for len in [0, 1_000, LEN] {
        std::fs::write(&path, noise(len)).unwrap();
        for node in [&node, &Node::builder().start().unwrap()] {
            let file = std::fs::File::open(&path).unwrap();
            let put = node.writer("k").unwrap().import(&file).unwrap();
            assert_eq!(put.wait().unwrap().len, len as u64);
            assert!(*node.get("k").wait().unwrap().value().unwrap() == noise(len), "{len}");
        }
    }
}

#[test]
fn a_node_that_does_not_hold_a_value_reads_it_in_pieces_and_keeps_nothing() {
    let nodes = cluster(4, udp_at, |_, b| b);
    all_up(&nodes);
    let mut writer = nodes[0].writer("k").unwrap();
    writer.write_all(&noise(LEN)).unwrap();
    writer.finish().unwrap().mirrors(2).ack(Ack::All).wait().unwrap();
    let holds = |node: &Node| node.keys().wait().unwrap().keys.len() == 1;
    eventually("it is on its owners only", || nodes.iter().filter(|node| holds(node)).count() == 2);
    let outsider = nodes.iter().find(|node| !holds(node)).unwrap();
    let mut reader = outsider.reader("k").unwrap().unwrap();
    assert_eq!(reader.len(), LEN as u64);
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    assert!(got == noise(LEN));
    reader.seek(SeekFrom::Start(2_000_000)).unwrap();
    let mut part = vec![0; 5_000];
    reader.read_exact(&mut part).unwrap();
    assert!(part == noise(LEN)[2_000_000..2_005_000]);
    assert!(!holds(outsider));
}
