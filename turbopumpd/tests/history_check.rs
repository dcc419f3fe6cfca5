//! The check of recorded histories is itself checked: a good one passes, and each way in which a
//! store can break its word is seen.

mod support;

use std::collections::BTreeMap;

use support::history::{Operation, Read, What, Write, reversals, violations};
use turbopump::model::{Context, Dot};

fn dot(n: u64) -> Dot {
    format!("00000000000000aa-{n}").parse().unwrap()
}

fn context(dots: &[u64]) -> Context {
    let mut context = Context::EMPTY;
    dots.iter().for_each(|n| context.add(dot(*n).actor, n - 1, *n));
    context
}

/// From and to, in nanoseconds; value `n` is named `dot(n)`.
fn write(from: u64, to: u64, value: u64, covers: &[u64]) -> Operation {
    let write = Write { value, is_delete: false, covers: context(covers), dot: Some(dot(value)) };
    Operation { client: 0, invoked_ns: from, returned_ns: Some(to), what: What::Write(write) }
}

fn delete(from: u64, to: u64, value: u64, covers: &[u64]) -> Operation {
    let mut operation = write(from, to, value, covers);
    if let What::Write(write) = &mut operation.what {
        write.is_delete = true;
    }
    operation
}

/// It failed: nobody knows.
fn unknown(mut operation: Operation) -> Operation {
    operation.returned_ns = None;
    if let What::Write(write) = &mut operation.what {
        write.dot = None;
    }
    operation
}

fn read(from: u64, to: u64, values: &[u64], seen: &[u64]) -> Operation {
    let values: BTreeMap<u64, Dot> = values.iter().map(|v| (*v, dot(*v))).collect();
    let what = What::Read(Read { values, context: context(seen) });
    Operation { client: 1, invoked_ns: from, returned_ns: Some(to), what }
}

fn good() -> Vec<Operation> {
    vec![
        read(0, 1, &[], &[]),
        write(2, 5, 1, &[]),
        // Beside the write: it may show it or not, and need not keep to what it showed.
        read(3, 4, &[1], &[1]),
        read(3, 4, &[], &[]),
        read(6, 7, &[1], &[1]),
        // Two that do not know of each other.
        write(8, 10, 2, &[1]),
        write(8, 10, 3, &[1]),
        read(9, 11, &[2], &[1, 2]),
        read(12, 13, &[2, 3], &[1, 2, 3]),
        // One that failed, which is seen, and one that is never heard of again.
        unknown(write(14, 0, 4, &[1, 2, 3])),
        unknown(write(14, 0, 5, &[1])),
        read(15, 16, &[2, 3], &[1, 2, 3]),
        read(17, 18, &[4], &[1, 2, 3, 4]),
        read(17, 18, &[2, 3], &[1, 2, 3]),
        // Its owners answer at different moments: it shows the later one of two.
        write(19, 20, 7, &[1, 2, 3, 4]),
        write(21, 22, 8, &[1, 2, 3, 4]),
        read(18, 23, &[8], &[1, 2, 3, 4, 8]),
        delete(24, 26, 6, &[1, 2, 3, 4, 7, 8]),
        read(27, 28, &[], &[1, 2, 3, 4, 6, 7, 8]),
    ]
}

#[test]
fn a_history_that_keeps_all_promises_passes() {
    let broken = violations(&good());
    assert!(broken.is_empty(), "{broken:?}");
    assert_eq!(reversals(&good()), 0, "no read came after one that knew more");
    assert_eq!(reversals(&[good(), vec![read(19, 20, &[2, 3], &[1, 2, 3])]].concat()), 1);
}

#[test]
fn each_broken_promise_is_seen() {
    for (what, read) in [
        ("an acknowledged write is lost", read(30, 31, &[], &[])),
        ("an acknowledged delete is lost", read(30, 31, &[7, 8], &[1, 2, 3, 4, 7, 8])),
        ("what was deleted comes back", read(30, 31, &[8], &[1, 2, 3, 4, 6, 7, 8])),
        ("an old value comes back", read(12, 13, &[1, 2, 3], &[1, 2, 3])),
        ("a sibling is merged away", read(12, 13, &[2], &[1, 2, 3])),
        ("a write of its own is not read", read(12, 13, &[2], &[1, 2])),
        ("a value is made up", read(12, 13, &[2, 3, 9], &[1, 2, 3, 9])),
        ("a value comes before its write", read(6, 7, &[1, 2], &[1, 2])),
        ("a value is not in the context", read(12, 13, &[2, 3], &[1, 2])),
        ("a value is gone that nothing replaced", read(6, 7, &[], &[1])),
    ] {
        let history = [good(), vec![read]].concat();
        assert!(!violations(&history).is_empty(), "{what}, and nobody notices");
    }
}

#[test]
fn the_search_for_an_order_finds_by_itself_what_has_none() {
    // Contexts say nothing wrong here: only the order in real time does.
    let history = [write(0, 1, 1, &[]), write(2, 3, 2, &[1]), read(4, 5, &[1], &[1])];
    let broken = violations(&history);
    assert!(format!("{broken:?}").contains("no order of the writes explains it"), "{broken:?}");
}
