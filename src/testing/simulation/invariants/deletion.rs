//! A deleted key never comes back: what a tombstone replaced that was acknowledged is nowhere.

use crate::{model::Kind, testing::simulation::World};

/// See the [module](self).
pub fn check(world: &World) -> Result<(), String> {
    let safe = world.oracle.versions().filter(|k| k.acknowledged && !k.excused);
    for deleted in safe.filter(|k| k.version.kind == Kind::Tombstone) {
        for n in world.there() {
            let kept = world.nodes[n].disk.of(&deleted.key);
            if let Some(back) = kept.iter().find(|kept| deleted.past.contains(&kept.version.dot)) {
                let (dot, back, key) = (deleted.version.dot, back.version.dot, &deleted.key);
                return Err(format!("node {n} has {key:?} {back}, which {dot} deleted"));
            }
        }
    }
    Ok(())
}
