//! cargo run --example hello
//!
//! One node inside this process: write, read, delete. No server, no folder, no settings.

use std::error::Error;

use turbopump::Node;

fn main() -> Result<(), Box<dyn Error>> {
    let node = Node::builder().start()?; // alone, in memory
    println!("node {} listens for peers at {}", node.id(), node.local_addr());

    let written = node.put("greeting", "hello").wait()?;
    println!("wrote {} as version {}", written.key, written.version);

    let reading = node.get("greeting").wait()?;
    println!("read {:?}", reading.value());

    node.delete("greeting").wait()?;
    println!("after the delete: {:?}", node.get("greeting").wait()?.value());

    println!("next: cargo run --example three_nodes");
    Ok(())
}
