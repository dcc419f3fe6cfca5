//! No acknowledged write is lost while a disk that had it was kept: it, or what replaced it, is there.

use crate::testing::simulation::World;

/// See the [module](self).
pub fn check(world: &World) -> Result<(), String> {
    for known in world.oracle.versions().filter(|k| k.acknowledged && !k.excused && !k.buried) {
        let dot = known.version.dot;
        if !world.is_held(dot) {
            let (key, stored_on) = (&known.key, &known.stored_on);
            return Err(format!("{key:?} {dot} was acknowledged, once stored on {stored_on:?}, and is gone"));
        }
    }
    Ok(())
}
