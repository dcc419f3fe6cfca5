//! cargo run --example three_nodes
//!
//! Three nodes that hold copies for each other, and closures that tell how far a write has come.
//! They share a process here; in three processes on three machines nothing else changes.

use std::{error::Error, sync::mpsc, thread, time::Duration};

use turbopump::{Ack, Node, StartError};

fn main() -> Result<(), Box<dyn Error>> {
    let start = |id| Node::builder().id(id).start();
    let nodes = ["a", "b", "c"].into_iter().map(start).collect::<Result<Vec<Node>, StartError>>()?;

    // Both sides have to know each other. Lists spread by themselves: a ring would do as well.
    for one in &nodes {
        for other in nodes.iter().filter(|other| other.id() != one.id()) {
            one.add_member(other.id(), vec![other.local_addr()]).wait()?;
        }
    }
    while !nodes.iter().all(|node| node.members().iter().all(|member| member.up)) {
        thread::sleep(Duration::from_millis(10));
    }

    // The closures run on a thread of the node. This one waits for the last of them.
    let (sender, done) = mpsc::channel();
    nodes[0]
        .put("greeting", "hello")
        .mirrors(3)
        .ack(Ack::All)
        .on_mirror(|progress| {
            println!("node {} has stored it: {} of {}", progress.node, progress.acked, progress.owners);
        })
        .submit(move |outcome| {
            match outcome {
                Ok(written) => println!("complete: {} nodes hold {}", written.acked, written.key),
                Err(error) => println!("{error}"), // says what is known of the write
            }
            let _ = sender.send(());
        })?;
    done.recv()?;

    for node in &nodes {
        println!("node {} reads {:?}", node.id(), node.get("greeting").wait()?.value());
    }

    println!("next: cargo run --example watch");
    Ok(())
}
