//! The callback contract. `Ok` from a submit means that the closure runs exactly once; `Err` means
//! that it never runs; nothing is borrowed while it does; a panic stays in it; the drop of the last
//! handle lets all of them run.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use turbopump::{Node, NodeBuilder, SubmitError, Task, Watch, WriteError};

use crate::{
    common::{cluster, eventually, udp_at},
    support::{Gate, Gated, all, error_log, gated, gated_with, in_time, next},
};

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

#[test]
fn a_closure_runs_once_when_its_operation_succeeds() {
    let node = Node::builder().start().unwrap();
    let (sender, outcomes) = mpsc::channel();
    let submit = |n: u32| {
        let sender = sender.clone();
        node.put(format!("key {n}"), "value").submit(move |outcome| sender.send(outcome.is_ok()).unwrap())
    };
    (0..100).for_each(|n| submit(n).unwrap());
    drop((sender, node));
    assert_eq!(all(outcomes), [true; 100]);
}

#[test]
fn a_closure_runs_once_when_its_operation_fails() {
    let (node, gate) = gated();
    gate.set_fails(true);
    let (sender, outcomes) = mpsc::channel();
    node.put("key", "value").submit(move |outcome| sender.send(outcome).unwrap()).unwrap();
    let outcomes = all(outcomes);
    assert!(matches!(&outcomes[..], [Err(WriteError::Storage(text))] if text.contains("on fire")));
    gate.set_fails(false);
    node.put("key", "value").wait().unwrap();
}

#[test]
fn a_closure_runs_once_when_the_time_is_up_although_the_operation_ends_later() {
    let (node, gate) = gated();
    gate.close();
    let (sender, outcomes) = mpsc::channel();
    let put = node.put("key", "value").timeout(SHORT);
    put.submit(move |outcome| sender.send(outcome).unwrap()).unwrap();
    let late = next(&outcomes);
    assert_eq!(late, Err(WriteError::TimedOut { acked: 0 }));
    gate.open();
    eventually("the write is there, as one that is unknown may be", || {
        node.get("key").wait().unwrap().value().is_some()
    });
    assert_eq!(all(outcomes), []);
}

#[test]
fn a_closure_runs_once_when_the_node_is_shut_down_first() {
    let node = Node::builder().start().unwrap();
    let (sender, outcomes) = mpsc::channel();
    let wait = node.wait_for("never").timeout(LONG);
    wait.submit(move |outcome| sender.send(outcome.unwrap_err().to_string()).unwrap()).unwrap();
    node.shutdown(SHORT);
    assert_eq!(all(outcomes), ["the node stopped first"]);
}

#[test]
fn a_closure_never_runs_when_its_submit_is_refused() {
    let (sender, outcomes) = mpsc::channel::<&str>();
    let never = |what| {
        let sender = sender.clone();
        move |_| sender.send(what).unwrap()
    };
    let config = turbopump::Config { max_operations: 1, max_value_bytes: 10, ..Default::default() };
    let (node, gate) = gated_with(config);
    gate.close();
    let running = node.put("key", "value").start().unwrap();

    let refused = [
        node.put("", "value").submit(never("a key of no bytes")),
        node.put("k".repeat(1_025), "value").submit(never("a key of 1,025 bytes")),
        node.put("key", "more than ten bytes").submit(never("a value that is too long")),
        node.put("key", "value").submit(never("a busy node")),
    ];
    assert!(matches!(refused[0], Err(SubmitError::Key(_))) && matches!(refused[1], Err(SubmitError::Key(_))));
    assert_eq!(refused[2], Err(SubmitError::ValueTooLong { len: 19, max: 10 }));
    assert_eq!(refused[3], Err(SubmitError::Busy));
    gate.open();
    running.wait().unwrap();
    node.shutdown(LONG);
    assert_eq!(node.put("key", "value").submit(never("a stopped node")), Err(SubmitError::Stopping));
    let (local, gone) = mpsc::channel::<()>();
    let read = node.get("key").submit(move |_| local.send(()).unwrap());
    assert_eq!(read, Err(SubmitError::Stopping));
    drop(sender);
    assert_eq!((all(outcomes), all(gone)), (vec![], vec![]));
}

#[test]
fn a_closure_may_ask_the_node_and_wait_for_the_answer() {
    // Goal: nothing is borrowed or locked. Method: every kind of operation, waited for, inside.
    let node = Node::builder().start().unwrap();
    let (sender, done) = mpsc::channel();
    let inside = node.clone();
    let ask = move |outcome: Result<_, _>| {
        outcome.unwrap();
        inside.put("second", "2").wait().unwrap();
        inside.delete("first").wait().unwrap();
        assert!(inside.get("first").wait().unwrap().value().is_none());
        assert_eq!(inside.keys().wait().unwrap().keys.len(), 1);
        assert_eq!(inside.stats().wait().unwrap().tombstones, 1);
        inside.add_member("other".parse().unwrap(), vec![]).wait().unwrap();
        inside.remove_member("other".parse().unwrap()).wait().unwrap();
        drop(inside.watch("", |_| {}).unwrap());
        assert_eq!(inside.forget("second").wait(), Ok(1));
        let further = sender.clone();
        inside.put("third", "3").submit(move |outcome| further.send(outcome.is_ok()).unwrap()).unwrap();
        sender.send(true).unwrap();
    };
    node.put("first", "1").submit(ask).unwrap();
    assert_eq!(all(done), [true, true]);
}

#[test]
fn a_panic_in_a_closure_is_reported_and_later_closures_still_run() {
    let log = error_log();
    let node = Node::builder().start().unwrap();
    let (sender, outcomes) = mpsc::channel();
    node.put("key", "value").submit(|_| panic!("a closure of this test panics")).unwrap();
    node.put("key", "value").submit(|_| std::panic::panic_any(7)).unwrap();
    let _watch = node.watch("", |_| panic!("so does that of a watch")).unwrap();
    node.put("key", "value").submit(move |outcome| sender.send(outcome.is_ok()).unwrap()).unwrap();
    assert_eq!(all(outcomes), [true]);
    node.put("key", "value").wait().unwrap();
    node.shutdown(LONG);
    assert!(log.has("a closure of this test panics") && log.has("so does that of a watch"));
}

#[test]
fn dropping_the_last_handle_lets_every_pending_closure_run() {
    let (node, gate) = gated();
    let (sender, outcomes) = mpsc::channel();
    let (waits, writes) = (sender.clone(), sender);
    gate.close();
    node.put("key", "value").submit(move |outcome| writes.send(outcome.is_ok()).unwrap()).unwrap();
    node.wait_for("never").timeout(LONG).submit(move |outcome| waits.send(outcome.is_ok()).unwrap()).unwrap();
    let dropping = thread::spawn(move || drop(node));
    gate.open();
    dropping.join().unwrap();
    let mut outcomes = all(outcomes);
    outcomes.sort();
    assert_eq!(outcomes, [false, true], "the write is done, the wait ends as stopped");
}

#[test]
fn the_last_handle_may_be_dropped_in_a_closure() {
    let node = Node::builder().start().unwrap();
    let (sender, outcomes) = mpsc::channel();
    let (waits, last) = (sender.clone(), node.clone());
    node.wait_for("never").timeout(LONG).submit(move |outcome| waits.send(outcome.is_ok()).unwrap()).unwrap();
    let (freed, is_free) = mpsc::channel();
    let drop_it = move |outcome: Result<_, _>| {
        next(&is_free);
        drop(last);
        sender.send(outcome.is_ok()).unwrap();
    };
    node.put("key", "value").submit(drop_it).unwrap();
    drop(node);
    freed.send(()).unwrap();
    let mut outcomes = all(outcomes);
    outcomes.sort();
    assert_eq!(outcomes, [false, true]);
}

#[test]
fn a_closure_may_stop_a_node_that_is_being_stopped() {
    // Goal: nobody waits for a thread that waits for them. Method: the closure knows that the other
    // thread is at it when nothing new is taken.
    let node = Node::builder().start().unwrap();
    let (sender, done) = mpsc::channel();
    let inside = node.clone();
    let stop = move |_| {
        while inside.put("key", "value").start().is_ok() {
            thread::yield_now();
        }
        inside.shutdown(LONG);
        sender.send(()).unwrap();
    };
    node.put("key", "value").submit(stop).unwrap();
    in_time(move || node.shutdown(LONG));
    assert_eq!(all(done), [()]);
}

#[test]
fn the_last_handle_may_be_dropped_on_any_thread_of_the_node() {
    // Goal: closures that run in place may stop the node too. Method: run them where their operations
    // end, one on the loop, one on the thread that reads.
    for is_read in [false, true] {
        let gate = Gate::default();
        let builder = Node::builder().storage(Gated::new(&gate)).callbacks(|task| task());
        let node = builder.start().unwrap();
        node.put("key", "value").wait().unwrap();
        let (sender, done) = mpsc::channel();
        let (freed, is_free) = mpsc::channel();
        let last = node.clone();
        let drop_it = move || {
            next(&is_free);
            drop(last);
            sender.send(()).unwrap();
        };
        match is_read {
            true => node.wait_for("key").submit(move |_| drop_it()).unwrap(),
            false => node.put("key", "value").submit(move |_| drop_it()).unwrap(),
        }
        drop(node);
        freed.send(()).unwrap();
        assert_eq!(all(done), [()]);
    }
}

#[test]
fn closures_run_where_the_builder_says() {
    let queue = Arc::new(Mutex::new(Vec::<Task>::new()));
    let pushes = queue.clone();
    let node = Node::builder().callbacks(move |task| pushes.lock().push(task)).start().unwrap();
    let (sender, ran_on) = mpsc::channel();
    let tell = |sender: &mpsc::Sender<_>| {
        let sender = sender.clone();
        move || sender.send(thread::current().id()).unwrap()
    };
    let (write, read, seen) = (tell(&sender), tell(&sender), tell(&sender));
    let watch = node.watch("", move |_| seen()).unwrap();
    node.put("key", "value").submit(move |_| write()).unwrap();
    node.keys().wait().unwrap();
    node.get("key").submit(move |_| read()).unwrap();
    assert!(ran_on.try_recv().is_err(), "nothing runs before the application lets it");

    node.shutdown(LONG);
    let tasks = std::mem::take(&mut *queue.lock());
    tasks.into_iter().for_each(|task| task());
    drop((watch, sender));
    assert_eq!(all(ran_on), [thread::current().id(); 3]);
}

#[test]
fn a_way_of_running_closures_that_panics_does_not_hurt_the_node() {
    let node = Node::builder().callbacks(|_| panic!("no closure runs here")).start().unwrap();
    node.put("key", "value").submit(|_| {}).unwrap();
    node.put("key", "value").wait().unwrap();
}

#[test]
fn a_watch_may_be_dropped_by_its_own_closure() {
    let run: [fn(NodeBuilder) -> NodeBuilder; 2] = [|b| b, |b| b.callbacks(|task| task())];
    for run in run {
        let node = run(Node::builder()).start().unwrap();
        let slot = Arc::new(Mutex::new(None::<Watch>));
        let (sender, events) = mpsc::channel();
        let inside = slot.clone();
        let watch = node.watch("", move |event| {
            sender.send(event.key).unwrap();
            let mine = inside.lock().take();
            drop(mine);
        });
        *slot.lock() = Some(watch.unwrap());
        node.put("first", "value").wait().unwrap();
        eventually("the watch was dropped", || slot.lock().is_none());
        node.put("second", "value").wait().unwrap();
        let keys: Vec<_> = all(events).iter().map(|key| key.to_string()).collect();
        assert_eq!(keys, ["first"]);
    }
}

#[test]
fn a_watch_whose_closure_owns_the_last_handle_ends_the_node() {
    let node = Node::builder().start().unwrap();
    let (sender, gone) = mpsc::channel::<()>();
    let last = node.clone();
    let watch = node.watch("", move |_| {
        let _ = (&last, &sender);
    });
    drop(node);
    in_time(move || drop(watch.unwrap()));
    assert_eq!(all(gone), []);
}

#[test]
fn on_mirror_tells_of_each_owner_until_the_write_is_complete() {
    let nodes = cluster(3, udp_at, |_, b| b);
    let (sender, reports) = mpsc::channel();
    let put = nodes[0].put("key", "value").ack(turbopump::Ack::All);
    let put = put.on_mirror(move |progress| sender.send(progress).unwrap());
    assert_eq!(put.wait().unwrap().acked, 3);
    let reports = all(reports);
    assert_eq!(reports.iter().map(|r| (r.acked, r.owners)).collect::<Vec<_>>(), [(1, 3), (2, 3), (3, 3)]);
    let mut names: Vec<_> = reports.iter().map(|r| r.node).collect();
    names.sort();
    assert_eq!(names, nodes.iter().map(Node::id).collect::<Vec<_>>());
}

#[test]
fn closures_run_in_the_order_in_which_their_operations_end() {
    let node = Node::builder().start().unwrap();
    let (sender, order) = mpsc::channel();
    for n in 0..50 {
        let sender = sender.clone();
        node.put("key", "value").submit(move |_| sender.send(n).unwrap()).unwrap();
    }
    drop(sender);
    assert_eq!(all(order), (0..50).collect::<Vec<_>>());
}
