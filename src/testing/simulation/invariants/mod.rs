//! What has to hold once the faults are over and the cluster had time to heal.

mod agreement;
mod burial;
mod completion;
mod deletion;
mod durability;
mod membership;
mod placement;
mod siblings;

use super::World;

type Check = fn(&World) -> Result<(), String>;

/// What the cluster has to reach, by the names of the promises.
pub(super) const CONVERGENCE: [(&str, Check); 5] = [
    ("membership", membership::check),
    ("completion", completion::check),
    ("agreement", agreement::check),
    ("placement", placement::check),
    ("burial", burial::check),
];

/// What must be true of the state that it has reached.
pub(super) const TRUTH: [(&str, Check); 3] =
    [("durability", durability::check), ("deletion", deletion::check), ("siblings", siblings::check)];

pub(super) use agreement::digests_fit;
