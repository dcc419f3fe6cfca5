//! What it takes two nodes to become equal, counted in bytes: a small version of `benches/sync.rs`,
//! so that what grew is noticed.

#[path = "common/pair.rs"]
mod pair;

use pair::{Cost, Pair};

const KEYS: u64 = 20_000;
/// What may come on top of three times what differs. Stated in `benches/sync.rs`.
const CONSTANT_BYTES: u64 = 1_024;

#[test]
fn what_differs_is_found_and_exchanged_for_three_times_its_names_and_versions() {
    for differing in [1, 20, 400, KEYS] {
        let Cost { traffic, differing_bytes, until_equal_ms, .. } = Pair::new(KEYS, differing).settle();
        let bar = 3 * differing_bytes + CONSTANT_BYTES;
        assert!(traffic.overhead() <= bar, "{differing} keys differ, {bar} bytes may go: {traffic:?}");
        // Each of them is sent once, in the direction in which it lacks.
        assert_eq!(traffic.values, 8 * differing);
        assert!(until_equal_ms < 5_000, "{until_equal_ms} ms");
    }
}

#[test]
fn being_in_sync_costs_a_few_bytes_a_round() {
    let mut pair = Pair::new(KEYS, 0);
    pair.run_for(60_000);
    let Cost { traffic, rounds, .. } = pair.cost;
    assert!(rounds >= 30, "{rounds}");
    assert!(traffic.overhead() <= 40 * rounds, "{rounds} rounds: {traffic:?}");
}
