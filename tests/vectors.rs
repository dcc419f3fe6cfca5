//! Published test vectors of everything that decides where a key lives.
//!
//! These values are frozen: a release that changed one would look for every key in the wrong
//! place. An implementation in another language is right when it agrees with all of them.

use turbopump::{
    model::Key,
    partition::{PartitionCount, Partitioner, Ring, Seat},
};
use xxhash_rust::xxh3::xxh3_64;

/// Goal: the hash of a key never changes. Method: literal values of XXH3-64 with seed 0; long keys take
/// other paths through it than short ones.
#[test]
fn keys_hash_as_published() {
    for (name, hash, _) in keys() {
        assert_eq!(Key::new(&name).unwrap().hash64(), hash, "{name:.40}");
    }
}

/// Goal: our hash is the XXH3 of everybody else. Method: what its C reference makes of the bytes
/// 0, 1, 2 and so on, for lengths that take different paths through it.
#[test]
fn the_hash_is_the_one_of_the_reference() {
    let reference: [(u8, i64); 7] = [
        (1, -4_302_098_779_834_749_733),
        (3, 6_864_218_090_047_839_419),
        (8, 4_187_271_766_389_786_872),
        (16, -8_983_023_575_487_778_597),
        (17, -6_993_173_599_622_040_792),
        (100, 22_042_537_110_060_316),
        (128, -8_807_326_403_944_725_397),
    ];
    for (length, hash) in reference {
        let name: String = (0..length).map(char::from).collect();
        assert_eq!(Key::new(name).unwrap().hash64(), hash as u64, "{length} bytes");
    }
}

/// Goal: a key's partition never changes. Method: literal values for the default count.
#[test]
fn keys_lie_in_their_published_partitions() {
    for (name, hash, partition) in keys() {
        let found = PartitionCount::default().of(hash);
        assert_eq!(found.0, partition, "{name:.40}");
        assert_eq!(u64::from(partition), hash >> 54, "a partition is the top bits of the hash");
        assert_eq!(PartitionCount::new(1).unwrap().of(hash).0, 0);
        assert_eq!(u64::from(PartitionCount::new(65_536).unwrap().of(hash).0), hash >> 48);
    }
}

/// Goal: the ring's layout never changes. Method: literal owners of small clusters, ids of all
/// sorts, equal and unequal weights.
#[test]
fn the_ring_lays_out_as_published() {
    let expected = [
        "3 2 1", "2 1 3", "1 3 2", "2 1 3", "2 1 3", "2 3 1", "3 1 2", "3 2 1", "3 2 1", "1 3 2", "1 2 3",
        "1 2 3", "1 3 2", "1 2 3", "3 2 1", "2 1 3",
    ];
    assert_layout(&[("1", 1), ("2", 1), ("3", 1)], 16, &expected);
    let expected = [
        "A_b-C 0123456789abcdef beta.example alpha",
        "0123456789abcdef A_b-C alpha beta.example",
        "0123456789abcdef A_b-C alpha beta.example",
        "0123456789abcdef alpha A_b-C beta.example",
        "A_b-C beta.example 0123456789abcdef alpha",
        "alpha beta.example A_b-C 0123456789abcdef",
        "A_b-C beta.example 0123456789abcdef alpha",
        "beta.example 0123456789abcdef A_b-C alpha",
    ];
    assert_layout(&[("alpha", 1), ("beta.example", 2), ("0123456789abcdef", 3), ("A_b-C", 5)], 8, &expected);
}

/// Goal: a large layout never changes either, ties and tables included. Method: one digest over it.
#[test]
fn a_large_layout_has_its_published_digest() {
    let seats: Vec<Seat> =
        (0..100u16).map(|n| Seat { id: format!("node-{n}").parse().unwrap(), weight: 1 + n * n }).collect();
    let layout = Ring.layout(&seats, PartitionCount::default());
    let bytes: Vec<u8> = layout.iter().flatten().flat_map(|place| place.to_be_bytes()).collect();
    assert_eq!(xxh3_64(&bytes), 0x4688_7bcb_d965_663c);
}

fn assert_layout(seats: &[(&str, u16)], partitions: u32, expected: &[&str]) {
    let seats: Vec<Seat> =
        seats.iter().map(|&(id, weight)| Seat { id: id.parse().unwrap(), weight }).collect();
    let owners = |places: &Vec<u16>| {
        places.iter().map(|&place| seats[usize::from(place)].id.to_string()).collect::<Vec<_>>().join(" ")
    };
    let layout = Ring.layout(&seats, PartitionCount::new(partitions).unwrap());
    assert_eq!(layout.iter().map(owners).collect::<Vec<_>>(), expected);
}

/// Name, hash, partition out of 1,024.
fn keys() -> Vec<(String, u64, u32)> {
    vec![
        ("a".into(), 0xe6c6_32b6_1e96_4e1f, 923),
        ("foo".into(), 0xab6e_5f64_077e_7d8a, 685),
        ("Foo".into(), 0x67a1_7c57_f692_eafe, 414),
        ("user:1".into(), 0x3b57_7afd_7fed_9501, 237),
        ("user:2".into(), 0x69a0_366b_760b_5c02, 422),
        ("images/2026/01/01.jpg".into(), 0x11ac_b34e_eb51_743d, 70),
        ("schlüssel".into(), 0x1aca_8ef6_171a_20de, 107),
        ("鍵".into(), 0x53ef_e716_c312_ac30, 335),
        ("x".repeat(128), 0x4ca3_7e83_f6cd_dd17, 306),
        ("x".repeat(129), 0xe4f9_7421_08fe_27dc, 915),
        ("x".repeat(240), 0x3e16_ca8a_0c6c_cb68, 248),
        ("x".repeat(241), 0x14da_9e5c_301a_6a1d, 83),
        ("x".repeat(1_024), 0xfc56_a7ce_85b3_164a, 1009),
    ]
}
