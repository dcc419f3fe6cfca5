//! Clusters that are larger than anybody's: whether they come up, notice who is gone, and agree.
//!
//! ```text
//! cargo test --release --all-features --test simulation -- --ignored --nocapture a_thousand_nodes
//! ```

use std::time::Instant;

use turbopump::{
    Ack,
    core::OpId,
    testing::simulation::{Options, Traffic, World, Write},
};

/// How long a phase may take, milliseconds.
const PATIENCE_MS: u64 = 300_000;
/// How long a cluster is looked at while nothing happens, milliseconds.
const REST_MS: u64 = 5_000;
/// How often it is looked at whether a phase is over, milliseconds.
const LOOK_MS: u64 = 100;

/// A cluster, and what it did since the last phase ended.
struct Phases {
    world: World,
    began_ms: u64,
    traffic: Traffic,
    started: Instant,
}

impl Phases {
    fn until(&mut self, name: &str, done: impl Fn(&World) -> bool) {
        let end_ms = self.world.now_ms() + PATIENCE_MS;
        while !done(&self.world) {
            assert!(self.world.now_ms() < end_ms, "{name} takes for ever");
            self.world.run_for(LOOK_MS);
            assert_eq!(self.world.violation(), None, "{name}");
        }
        self.tell(name);
    }

    fn rest(&mut self, name: &str) {
        self.world.run_for(REST_MS);
        self.tell(name);
    }

    fn tell(&mut self, name: &str) {
        let (now_ms, traffic) = (self.world.now_ms(), self.world.traffic());
        let seconds = (now_ms - self.began_ms).max(1) as f64 / 1_000.0;
        let running = (0..self.world.options().nodes).filter(|n| self.world.members(*n).is_some()).count();
        let per_node = |count: u64| count as f64 / running as f64 / seconds;
        println!(
            "{name:<44} {seconds:>7.1} s, per node and second: {:>7.1} messages, {:>7.1} frames, {:>9.0} bytes ({:.1} s real)",
            per_node(traffic.messages - self.traffic.messages),
            per_node(traffic.frames - self.traffic.frames),
            per_node(traffic.bytes - self.traffic.bytes),
            self.started.elapsed().as_secs_f64(),
        );
        (self.began_ms, self.traffic, self.started) = (now_ms, traffic, Instant::now());
    }
}

/// Starts `nodes` that know a few others, loses the last `lost` of them, and removes these.
fn comes_up_and_loses(nodes: usize, lost: usize) {
    let mut options = Options::quiet(1, nodes);
    (options.acquaintances, options.partitions, options.max_frame_bytes) = (6, 8, 9_000);
    (options.delay_us, options.jitter_us) = (500, 1_000);
    let kept = nodes - lost;
    let world = World::new(options);
    let mut phases = Phases { world, began_ms: 0, traffic: Traffic::default(), started: Instant::now() };
    println!("{nodes} nodes, of which {lost} are lost:");

    phases.until("all know all", |world| {
        (0..nodes).all(|n| world.members(n).is_some_and(|list| list.present().count() == nodes))
    });
    phases.until("all have links to all", |world| {
        (0..nodes).all(|n| (0..nodes).all(|other| n == other || world.has_link(n, other)))
    });
    phases.rest("at rest");

    let ops: Vec<OpId> = (0..200)
        .map(|i| {
            let write = Write::put(&format!("key {i}"), 100).mirrors(5).ack(Ack::Quorum);
            phases.world.write(i * 7 % nodes, write).unwrap()
        })
        .collect();
    phases.until("200 writes are acknowledged", |world| ops.iter().all(|op| world.is_acknowledged(*op)));

    (kept..nodes).for_each(|n| phases.world.kill(n));
    phases.until("all see who was lost as down", |world| {
        (0..kept).all(|n| (kept..nodes).all(|gone| !world.has_link(n, gone)))
    });
    let mistaken =
        |world: &World| (0..kept).any(|n| (0..kept).any(|other| n != other && !world.has_link(n, other)));
    assert!(!mistaken(&phases.world), "a node that runs counts as down");
    phases.rest("at rest, with those down");

    (kept..nodes).for_each(|gone| phases.world.remove(gone, gone % 5));
    phases.until("all lists are equal without them", |world| {
        let list = world.members(0);
        list.is_some_and(|list| list.present().count() == kept) && (1..kept).all(|n| world.members(n) == list)
    });
    phases.rest("at rest");
    assert!(!mistaken(&phases.world), "a node that runs counts as down");
}

/// Goal: what holds for a few nodes holds for many. Method: 200, a tenth of which are lost.
#[test]
fn two_hundred_nodes_agree_on_who_is_there() {
    comes_up_and_loses(200, 20);
}

/// The same with 1,000; takes minutes.
#[test]
#[ignore = "takes minutes"]
fn a_thousand_nodes_agree_on_who_is_there() {
    comes_up_and_loses(1_000, 100);
}
