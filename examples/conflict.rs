//! cargo run --example conflict
//!
//! Two people change the same shopping list at once. Neither change is lost: both versions stay
//! side by side until somebody who has read both writes the next one.

use std::{collections::BTreeSet, error::Error, thread, time::Duration};

use turbopump::{Ack, Node, Reading};

fn main() -> Result<(), Box<dyn Error>> {
    let config = || Node::builder().mirrors(2).ack(Ack::All);
    let (anna, ben) = (config().id("anna").start()?, config().id("ben").start()?);
    anna.add_member(ben.id(), vec![ben.local_addr()]).wait()?;
    ben.add_member(anna.id(), vec![anna.local_addr()]).wait()?;
    while !anna.members().iter().all(|member| member.up) {
        thread::sleep(Duration::from_millis(10));
    }

    anna.put("list", "milk").wait()?;

    // Both read the same state; its context says what they have seen.
    let (seen_by_anna, seen_by_ben) = (anna.get("list").wait()?, ben.get("list").wait()?);
    anna.put("list", "milk bread").context(seen_by_anna.context()).wait()?;
    ben.put("list", "milk eggs").context(seen_by_ben.context()).wait()?;

    // Both replaced "milk", and neither replaced the other.
    let conflict = anna.get("list").wait()?;
    for sibling in conflict.values() {
        println!("sibling: {:?}", sibling.value);
    }

    // What to make of it is up to the application: here a list is a set, and the union is right.
    anna.put("list", union(&conflict)).context(conflict.context()).wait()?;
    let settled = ben.get("list").wait()?;
    println!("settled: {:?}, {} sibling", settled.value(), settled.values().count());

    println!("next: cargo run --example storage_sqlite");
    Ok(())
}

fn union(reading: &Reading) -> String {
    let values = reading.values().filter_map(|sibling| sibling.value.as_ref());
    let texts: Vec<_> = values.map(|value| String::from_utf8_lossy(value)).collect();
    let words: BTreeSet<&str> = texts.iter().flat_map(|text| text.split(' ')).collect();
    Vec::from_iter(words).join(" ")
}
