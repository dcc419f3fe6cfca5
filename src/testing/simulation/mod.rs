//! A whole cluster in one thread, in virtual time, from one seed.
//!
//! The nodes run the same core, session layer and digests as real ones; what the driver does with
//! threads, sockets and clocks, [`World`] does with a queue of events. The network drops, repeats,
//! reorders, delays and cuts; disks are slow, fail, forget, are lost and restored; processes crash
//! and stand still; clocks jump; nodes join, leave, move and change weight. Then the faults end, and the
//! cluster has to come right within a bound. What "right" is stands in `invariants`, one promise a
//! file, and in the oracle, which knows of every write what it replaced in truth, whether it was
//! acknowledged, and which disks had it.
//!
//! ```text
//! Options::draw(seed) ── Workload: clients, faults ──> World ── settle: heal, converge ── invariants
//! ```
//!
//! A scenario is a world that a test moves by hand:
//!
//! ```
//! use turbopump::{Ack, testing::simulation::{Options, World, Write}};
//!
//! let mut world = World::new(Options::quiet(1, 3));
//! world.run_for(2_000);
//! let op = world.write(0, Write::put("a", 10).ack(Ack::All)).unwrap();
//! assert!(world.run_until(1_000, |world| world.is_acknowledged(op)));
//! world.crash(0);
//! world.settle().unwrap();
//! ```

mod act;
mod admins;
mod answers;
mod control;
mod disk;
mod heal;
mod invariants;
mod network;
mod node;
mod options;
mod oracle;
mod rot;
mod run;
mod trace;
mod workload;
mod world;

pub use admins::{admin, identity_of};
pub use control::{Replaces, Write, author};
pub use options::{Fault, Options};
pub use run::{Failure, Report, Totals, run, run_once};
pub use trace::Trace;
pub use world::{Traffic, Violation, World};

#[cfg(turbopump_mutations)]
pub use crate::mutation::{Mutation, plant};
