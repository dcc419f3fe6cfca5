//! Parts of the application that misbehave end operations, and leave nobody waiting.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
    mpsc,
};

use turbopump::{
    MemberError, Node, ReadError, SubmitError, WriteError,
    partition::{PartitionCount, Partitioner, Ring, Seat},
};

use crate::support::{all, gated};

#[test]
fn a_storage_that_panics_has_failed_and_is_asked_again() {
    let (node, gate) = gated();
    gate.set_panics(true);
    let failed = node.put("key", "value").wait();
    assert!(matches!(&failed, Err(WriteError::Storage(text)) if text.contains("panics on demand")));
    gate.set_panics(false);
    node.put("key", "value").wait().unwrap();
}

#[test]
fn a_part_that_panics_on_the_loop_ends_the_node_and_everybody_hears_of_it() {
    #[derive(Debug)]
    struct Fragile(Arc<AtomicUsize>);
    impl Partitioner for Fragile {
        fn kind(&self) -> &'static str {
            "fragile"
        }
        fn layout(&self, seats: &[Seat], partitions: PartitionCount) -> Vec<Vec<u16>> {
            assert!(seats.len() < 2, "two are too many");
            self.0.fetch_add(1, SeqCst);
            Ring.layout(seats, partitions)
        }
    }
    let layouts = Arc::new(AtomicUsize::new(0));
    let node = Node::builder().partitioner(Fragile(layouts.clone())).start().unwrap();
    let (sender, outcomes) = mpsc::channel();
    node.wait_for("never").submit(move |outcome| sender.send(outcome.unwrap_err()).unwrap()).unwrap();
    let handle = node.wait_for("never").start().unwrap();
    let ended = node.add_member("other".parse().unwrap(), vec![]).wait();
    assert_eq!(ended, Err(MemberError::Stopped));
    assert_eq!(handle.wait().unwrap_err(), ReadError::Stopped);
    assert_eq!(all(outcomes), [ReadError::Stopped]);
    assert_eq!(node.put("key", "value").wait(), Err(WriteError::Refused(SubmitError::Stopping)));
    assert!(layouts.load(SeqCst) > 0);
}
