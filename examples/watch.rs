//! cargo run --example watch
//!
//! Two ways to hear of a change instead of asking again and again: a watch reports every version
//! that a node stores, a wait ends with the next value of one key.

use std::{error::Error, sync::mpsc, thread, time::Duration};

use turbopump::{Ack, Node, model::Kind};

fn main() -> Result<(), Box<dyn Error>> {
    let (writer, reader) = (Node::builder().id("writer").start()?, Node::builder().id("reader").start()?);
    writer.add_member(reader.id(), vec![reader.local_addr()]).wait()?;
    reader.add_member(writer.id(), vec![writer.local_addr()]).wait()?;
    while !writer.members().iter().all(|member| member.up) {
        thread::sleep(Duration::from_millis(10));
    }

    // An event carries no value: whoever wants it reads the key.
    let (sender, events) = mpsc::channel();
    let watch = reader.watch("sensor/", move |event| {
        let _ = sender.send(event);
    })?;
    let wait = reader.wait_for("sensor/door").timeout(Duration::from_secs(10)).start()?;

    writer.put("sensor/temperature", "21.5").ack(Ack::All).wait()?;
    writer.put("motor/speed", "900").ack(Ack::All).wait()?; // another prefix: not reported
    writer.delete("sensor/temperature").ack(Ack::All).wait()?;
    writer.put("sensor/door", "open").ack(Ack::All).wait()?;

    for event in events.iter().take(3) {
        let what = if event.version.kind == Kind::Tombstone { "deleted" } else { "written" };
        println!("{what}: {} ({} bytes)", event.key, event.version.len);
    }
    match wait.wait()? {
        Some(reading) => println!("the wait ended: the door is {:?}", reading.value()),
        None => println!("the wait ended: nothing came in time"),
    }

    drop(watch); // ends it
    println!("next: cargo run --example conflict");
    Ok(())
}
