//! Every operation has ended, once, and nothing is left in any queue.
//!
//! That none ends twice is seen when it does.

use crate::testing::simulation::World;

/// See the [module](self).
pub fn check(world: &World) -> Result<(), String> {
    for n in world.there() {
        if let Some((op, asked)) = world.oracle.running(n, world.nodes[n].processes).next() {
            return Err(format!("{op:?} on node {n} has not ended: {asked:?}"));
        }
        let unsettled = world.nodes[n].process.as_ref().map_or(0, |p| p.core.unsettled());
        if unsettled > 0 {
            return Err(format!("node {n} has {unsettled} copies that are not acknowledged"));
        }
    }
    Ok(())
}
