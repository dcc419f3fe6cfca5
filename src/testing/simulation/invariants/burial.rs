//! Once all members are there, no trace of a deleted key is left, and no store is in doubt.

use crate::{model::Kind, testing::simulation::World};

/// See the [module](self).
pub fn check(world: &World) -> Result<(), String> {
    for n in world.there() {
        for (key, kept) in world.nodes[n].disk.written() {
            if kept.iter().all(|kept| kept.version.kind == Kind::Tombstone) {
                return Err(format!("node {n} still has a tombstone of {key:?}"));
            }
        }
        if world.nodes[n].process.as_ref().is_some_and(|process| process.core.doubts()) {
            return Err(format!("node {n} still doubts what it holds"));
        }
    }
    Ok(())
}
