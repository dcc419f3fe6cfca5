//! The owners of a key hold equal sets of versions with equal bytes, and nobody else keeps a copy.

use std::collections::BTreeSet;

use crate::{
    model::{Key, NodeId},
    testing::simulation::{World, act::names, oracle::Dots},
};

/// See the [module](self).
pub fn check(world: &World) -> Result<(), String> {
    let there: Vec<usize> = world.there().collect();
    let keys: BTreeSet<&Key> =
        there.iter().flat_map(|n| world.nodes[*n].disk.written().map(|(key, _)| key)).collect();
    let Some(placement) =
        there.first().and_then(|n| world.nodes[*n].process.as_ref()).map(|p| p.core.placement())
    else {
        return Ok(());
    };
    for key in keys {
        let of = |n: usize| world.nodes[n].disk.of(key);
        let mirrors = there.iter().flat_map(|n| of(*n)).map(|kept| kept.version.mirrors).max();
        let Some(mirrors) = mirrors else { continue };
        let owners: Vec<NodeId> = placement.owners(key.hash64(), mirrors).collect();
        let mut sets: Vec<(usize, Dots)> = Vec::new();
        for &n in &there {
            if let Some(wrong) = of(n).iter().find(|kept| !kept.version.matches(&kept.value)) {
                return Err(format!("node {n}, {key:?} {}: the bytes are wrong", wrong.version.dot));
            }
            let dots = names(of(n).iter().map(|kept| &kept.version));
            if owners.contains(&world.nodes[n].id) {
                sets.push((n, dots));
            } else if !dots.is_empty() && !owners.is_empty() {
                return Err(format!("node {n} keeps {key:?} ({dots:?}), which belongs to {owners:?}"));
            }
        }
        if let Some(pair) = sets.windows(2).find(|pair| pair[0].1 != pair[1].1) {
            return Err(format!("{key:?}, mirrors {}, owners {owners:?}: {pair:?}", mirrors.0));
        }
    }
    Ok(())
}
