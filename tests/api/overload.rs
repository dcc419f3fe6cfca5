//! More than can be done: what is refused, what goes on, and that it passes.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use turbopump::{Ack, Config, Node, SubmitError, WriteError};

use crate::{
    common::{cluster, eventually, held, quick, udp_at},
    support::{Gate, Gated, all, gated_with, next},
};

#[test]
fn a_disk_that_stalls_delays_what_needs_it_and_nothing_else() {
    // Goal: while the disk of one of three nodes stalls, for longer than it takes to count as down,
    // all members stay up, the others write by quorum, and the node reads; then it has everything.
    let gate = Gate::default();
    let down_after = Duration::from_secs(1);
    let nodes = cluster(3, udp_at, |i, builder| {
        let builder = builder.config(Config { down_after: Some(down_after), ..quick() });
        if i == 2 { builder.storage(Gated::new(&gate)) } else { builder }
    });
    nodes[0].put("before", "v").ack(Ack::All).wait().unwrap();
    gate.close();
    let stuck = nodes[2].put("its own", "v").ack(Ack::Quorum).start().unwrap();
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < down_after * 2 {
        nodes[count % 2].put(format!("during-{count}"), "v").ack(Ack::Quorum).wait().unwrap();
        assert_eq!(held(&nodes[2], "before").unwrap(), b"v");
        assert!(nodes.iter().all(|n| n.members().iter().all(|m| m.up)), "after {count} writes");
        count += 1;
    }
    assert_eq!(held(&nodes[2], "during-0"), None, "the disk stalls");
    gate.open();
    stuck.wait().unwrap();
    for i in 0..count {
        eventually("the node catches up", || held(&nodes[2], &format!("during-{i}")).is_some());
    }
}

fn is_busy(outcome: &Result<(), WriteError>) -> bool {
    matches!(outcome, Err(WriteError::Refused(SubmitError::Busy)))
}

fn a_full_queue_refuses_until_the_disk_goes_on(config: Config, len: usize) {
    const PUTS: usize = 50;
    let (node, gate) = gated_with(config);
    gate.close();
    let (sender, outcomes) = mpsc::channel();
    for i in 0..PUTS {
        let (put, sender) = (node.put(format!("{i}"), vec![0; len]), sender.clone());
        put.submit(move |outcome| sender.send(outcome.map(drop)).unwrap()).unwrap();
    }
    drop(sender);
    // What is refused is told at once; the first to get in is not over.
    let first = next(&outcomes);
    assert!(is_busy(&first), "{first:?}");
    gate.open();
    let rest = all(outcomes);
    assert_eq!(rest.len(), PUTS - 1);
    assert!(rest.iter().all(|o| o.is_ok() || is_busy(o)), "{rest:?}");
    let taken = rest.iter().filter(|o| o.is_ok()).count();
    assert_eq!(node.stats().wait().unwrap().keys, taken, "what was refused is not there");
    assert!((1..PUTS / 2).contains(&taken), "{taken} were taken");
    node.put("after", vec![0; len]).wait().unwrap();
}

#[test]
fn more_jobs_than_the_disk_may_have_are_refused_until_it_goes_on() {
    a_full_queue_refuses_until_the_disk_goes_on(Config { max_disk_jobs: 8, ..Config::default() }, 1);
}

#[test]
fn more_bytes_than_the_disk_may_have_are_refused_until_it_goes_on() {
    let config = Config { max_disk_bytes: 8_000, ..Config::default() };
    a_full_queue_refuses_until_the_disk_goes_on(config, 1_000);
}

#[test]
fn under_more_load_than_it_can_carry_a_node_refuses_and_stays_quick() {
    // Goal: who is refused hears so at once, who is not waits for a bounded time, and right after it
    // all is as before. Method: threads that do nothing but write for a second.
    let node = Node::builder().config(Config { max_operations: 512, ..Config::default() }).start().unwrap();
    let (sender, times) = mpsc::channel();
    let end = Instant::now() + Duration::from_secs(1);
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let (node, sender) = (node.clone(), sender.clone());
            thread::spawn(move || {
                let (mut taken, mut refused) = (0_u64, 0_u64);
                while Instant::now() < end {
                    let (sender, begin) = (sender.clone(), Instant::now());
                    let put = node.put(format!("{t}-{}", taken % 100), "v");
                    let submitted = put.submit(move |outcome| {
                        outcome.unwrap();
                        sender.send(begin.elapsed()).unwrap();
                    });
                    match submitted {
                        Ok(()) => taken += 1,
                        Err(SubmitError::Busy) => refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
                (taken, refused)
            })
        })
        .collect();
    drop(sender);
    let counts: Vec<_> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let (taken, refused) = counts.iter().fold((0, 0), |(a, b), (t, r)| (a + t, b + r));
    let begin = Instant::now();
    eventually("a write is taken again", || node.put("after", "v").wait().is_ok());
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?} after it", begin.elapsed());
    let mut times = all(times);
    times.sort();
    assert_eq!(times.len() as u64, taken, "each closure of what was taken ran");
    let worst = *times.last().unwrap();
    assert!(refused > 0, "{taken} were taken, none refused");
    assert!(worst < Duration::from_secs(2), "the slowest of {taken} took {worst:?}");
}
