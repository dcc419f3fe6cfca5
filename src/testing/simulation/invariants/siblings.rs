//! Versions stand side by side only if they were written so: none beside one that replaced it.
//!
//! That concurrent ones do stand side by side follows from durability, since nothing counts as
//! covered that was not seen: the oracle checks every context when it is made.

use crate::testing::simulation::World;

/// See the [module](self).
pub fn check(world: &World) -> Result<(), String> {
    for n in world.there() {
        for (key, kept) in world.nodes[n].disk.written() {
            for version in kept.iter().map(|kept| &kept.version) {
                let Some(known) = world.oracle.find(version.dot) else {
                    return Err(format!("node {n}, {key:?}: nobody wrote {}", version.dot));
                };
                if let Some(old) = kept.iter().find(|k| known.past.contains(&k.version.dot)) {
                    let (dot, old) = (version.dot, old.version.dot);
                    return Err(format!("node {n}, {key:?}: {dot} beside {old}, which it replaced"));
                }
            }
        }
    }
    Ok(())
}
