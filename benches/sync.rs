//! What it costs two nodes to find and exchange what differs: `cargo bench --bench sync -- [KEYS]`.
//!
//! Two cores with a million keys each (32-byte names, 8-byte values), messages carried by hand and
//! encoded to count their bytes. The bar: comparing, offers, copies (names and versions) and
//! acknowledgements together take at most three times the names and versions that differ, plus
//! `CONSTANT_BYTES`. The bench fails where that is broken.

#[path = "../tests/common/pair.rs"]
mod pair;

use std::time::Duration;

use pair::{Cost, Pair};

/// What may come on top whatever differs: the first levels of a descent, and rounds that find nothing.
const CONSTANT_BYTES: u64 = 1_024;
/// Keys of the row that shows what it costs to be in sync.
const REST_KEYS: u64 = 100_000;
const REST_MS: u64 = 600_000;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let keys: u64 = arguments.next().map_or(1_000_000, |text| text.parse().expect("KEYS is a number"));
    println!(
        "{keys} keys; bytes\n{:>9} {:>10} {:>10} {:>10} {:>10} {:>9} {:>9} {:>6} {:>6} {:>8} {:>9} {:>9}",
        "differing",
        "they have",
        "sync",
        "offers",
        "copies",
        "acks",
        "values",
        "ratio",
        "rounds",
        "virtual",
        "busy",
        "longest"
    );
    for differing in [0, 10, 1_000, 100_000] {
        let mut pair = Pair::new(keys, differing.min(keys));
        if differing == 0 {
            pair.run_for(2_100);
        }
        let Cost { traffic, differing_bytes, until_equal_ms, busy, longest, rounds } = pair.settle();
        let ratio = traffic.overhead() as f64 / differing_bytes.max(1) as f64;
        println!(
            "{differing:>9} {differing_bytes:>10} {:>10} {:>10} {:>10} {:>9} {:>9} {ratio:>6.2} {rounds:>6} {:>8} {:>9} {:>9}",
            traffic.sync,
            traffic.offers,
            traffic.copies,
            traffic.acks,
            traffic.values,
            format!("{until_equal_ms} ms"),
            shown(busy),
            shown(longest),
        );
        let bar = 3 * differing_bytes + CONSTANT_BYTES;
        assert!(traffic.overhead() <= bar, "{} bytes are more than {bar}", traffic.overhead());
    }
    let mut pair = Pair::new(REST_KEYS, 0);
    pair.run_for(REST_MS);
    let Cost { traffic, busy, rounds, .. } = pair.cost;
    println!(
        "\nin sync, {REST_KEYS} keys: {} bytes and {} a round, pings included in the time",
        traffic.overhead() / rounds,
        shown(busy / rounds as u32)
    );
}

fn shown(time: Duration) -> String {
    match time.as_micros() {
        micros if micros < 10_000 => format!("{micros} us"),
        micros => format!("{} ms", micros / 1_000),
    }
}
