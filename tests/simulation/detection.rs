//! Failure detection: how seldom it is wrong, and how long it takes.
//!
//! The table in the documentation of `Config::down_after` is what this prints:
//!
//! ```text
//! cargo test --all-features --test simulation -- --ignored --nocapture detection_measured
//! ```

use turbopump::testing::simulation::{Options, World};

/// Until every node has a link to every other one, at any of these losses.
const WARM_UP_MS: u64 = 60_000;

/// What was seen of a cluster.
struct Seen {
    /// Peers that counted as down though nobody was.
    mistakes: u64,
    /// When each of the others noticed a node that was killed, milliseconds, ascending.
    noticed_ms: Vec<u64>,
}

/// Runs a cluster that loses frames for a while, and kills its last node.
fn watch(nodes: usize, drop_percent: u64, ms: u64) -> Seen {
    let mut options = Options::quiet(drop_percent + nodes as u64, nodes);
    (options.drop_percent, options.delay_us, options.jitter_us) = (drop_percent, 1_000, 2_000);
    let down_after_ms = options.config.down_after.unwrap().as_millis() as u64;
    let mut world = World::new(options);
    world.run_for(WARM_UP_MS);
    let lost = |world: &mut World| {
        (0..nodes).map(|n| world.stats(n).map_or(0, |stats| stats.counters.peers_lost)).sum::<u64>()
    };
    let before = lost(&mut world);
    world.run_for(ms);
    let mistakes = lost(&mut world) - before;

    let (last, killed_ms) = (nodes - 1, world.now_ms());
    world.kill(last);
    let mut noticed_ms = vec![None; last];
    while noticed_ms.contains(&None) && world.now_ms() < killed_ms + 10 * down_after_ms {
        world.run_for(10);
        let now_ms = world.now_ms() - killed_ms;
        for (n, noticed_ms) in noticed_ms.iter_mut().enumerate() {
            if noticed_ms.is_none() && !world.has_link(n, last) {
                *noticed_ms = Some(now_ms);
            }
        }
    }
    assert_eq!(world.violation(), None);
    let mut noticed_ms: Vec<u64> = noticed_ms.into_iter().map(|ms| ms.expect("everybody notices")).collect();
    noticed_ms.sort_unstable();
    Seen { mistakes, noticed_ms }
}

/// Goal: losing every fifth frame marks nobody down, and who is gone is noticed in time. Method: an
/// hour for three nodes, then kill one.
#[test]
fn a_fifth_lost_marks_nobody_down_and_the_dead_are_noticed() {
    let config = Options::quiet(0, 1).config;
    let limit_ms = (config.down_after.unwrap() + config.ping_interval).as_millis() as u64 + 100;
    for (nodes, ms) in [(3, 3_600_000), (10, 300_000)] {
        let seen = watch(nodes, 20, ms);
        assert_eq!(seen.mistakes, 0, "{nodes} nodes");
        assert!(
            seen.noticed_ms.iter().all(|ms| *ms <= limit_ms),
            "{:?}, {limit_ms} at most",
            seen.noticed_ms
        );
    }
}

/// The figures; takes minutes.
#[test]
#[ignore = "takes minutes"]
fn detection_measured() {
    for (nodes, minutes) in [(3, 600), (10, 60), (50, 6)] {
        for drop_percent in [0, 5, 20, 40] {
            let seen = watch(nodes, drop_percent, minutes * 60_000);
            let hours = nodes as f64 * minutes as f64 / 60.0;
            let at = |part: usize| seen.noticed_ms[(seen.noticed_ms.len() - 1) * part / 2];
            println!(
                "{nodes:>2} nodes, {drop_percent:>2} % lost: {} mistakes in {hours:.0} node-hours ({:.3} per node-hour); \
                 a killed node is down for the others after {} / {} / {} ms",
                seen.mistakes,
                seen.mistakes as f64 / hours,
                at(0),
                at(1),
                at(2)
            );
        }
    }
}
