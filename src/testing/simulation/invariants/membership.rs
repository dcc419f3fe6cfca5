//! All members know the same list, and each other's links are up.

use crate::testing::simulation::World;

/// See the [module](self).
pub fn check(world: &World) -> Result<(), String> {
    let there: Vec<usize> = world.there().collect();
    let list = |n: usize| world.nodes[n].process.as_ref().map(|p| p.core.members());
    for pair in there.windows(2) {
        if list(pair[0]) != list(pair[1]) {
            return Err(format!("nodes {pair:?}: {:?} and {:?}", list(pair[0]), list(pair[1])));
        }
    }
    for &n in &there {
        let Some(process) = &world.nodes[n].process else { continue };
        for &m in there.iter().filter(|m| **m != n) {
            if !process.links.is_up(world.nodes[m].id) {
                return Err(format!("node {n} has no link to node {m}"));
            }
        }
        let members: Vec<_> = process.core.members().present().map(|m| m.id).collect();
        let mut expected: Vec<_> = there.iter().map(|m| world.nodes[*m].id).collect();
        expected.sort_unstable();
        if members != expected {
            return Err(format!("node {n} counts {members:?} as members, {expected:?} are"));
        }
    }
    Ok(())
}
