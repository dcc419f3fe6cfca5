//! Handles on operations under way: waited for, waited for with a limit, awaited, dropped.

use std::time::Duration;

use turbopump::{Node, SubmitError, WriteError};

use crate::{
    common::eventually,
    support::{block_on, gated},
};

#[test]
fn wait_blocks_until_the_operation_is_over() {
    let node = Node::builder().start().unwrap();
    let pending = node.put("key", "value").start().unwrap();
    assert_eq!(pending.wait().unwrap().len, 5);
}

#[test]
fn wait_timeout_gives_the_handle_back_and_the_operation_goes_on() {
    let (node, gate) = gated();
    gate.close();
    let pending = node.put("key", "value").start().unwrap();
    let Err(pending) = pending.wait_timeout(Duration::from_millis(20)) else { panic!("it can't be over") };
    let Err(pending) = pending.wait_timeout(Duration::ZERO) else { panic!("it can't be over") };
    gate.open();
    let Ok(outcome) = pending.wait_timeout(Duration::MAX) else { panic!("there is time enough") };
    assert_eq!(outcome.unwrap().acked, 1);
}

#[test]
fn an_operation_is_awaited_under_any_executor() {
    let node = Node::builder().start().unwrap();
    let value = block_on(async {
        node.put("key", "value").await?;
        let pending = node.get("key").start()?;
        let reading = pending.await.expect("it is there");
        Ok::<_, WriteError>(reading.value().cloned())
    });
    assert_eq!(value.unwrap().unwrap(), "value");
}

#[test]
fn an_awaited_operation_is_woken_when_it_ends_later() {
    let (node, gate) = gated();
    gate.close();
    let pending = node.put("key", "value").start().unwrap();
    let opener = std::thread::spawn(move || gate.open());
    assert!(block_on(pending).is_ok());
    opener.join().unwrap();
}

#[test]
fn an_operation_that_is_refused_says_so_to_whoever_awaits_it() {
    let node = Node::builder().start().unwrap();
    let refused = block_on(async { node.put("", "value").await });
    assert!(matches!(refused, Err(WriteError::Refused(SubmitError::Key(_)))));
}

#[test]
fn dropping_a_handle_does_not_end_its_operation() {
    let (node, gate) = gated();
    gate.close();
    drop(node.put("key", "value").start().unwrap());
    gate.open();
    eventually("the write is there", || node.get("key").wait().unwrap().value().is_some());
}

#[test]
fn a_handle_outlives_the_node() {
    let node = Node::builder().start().unwrap();
    let pending = node.wait_for("never").start().unwrap();
    drop(node);
    assert!(pending.wait().is_err());
}

#[test]
fn a_limit_of_time_may_be_of_any_length() {
    let node = Node::builder().start().unwrap();
    node.put("key", "value").timeout(Duration::MAX).expires_in(Duration::MAX).wait().unwrap();
    let reading = node.wait_for("key").timeout(Duration::MAX).wait().unwrap();
    assert_eq!(reading.unwrap().value().unwrap(), "value");
}
