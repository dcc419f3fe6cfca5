//! The nouns: keys, versions, contexts, members. Values only.
//!
//! Nothing here does I/O, reads a clock, draws randomness or knows a protocol. What several
//! modules must agree on (how a conflict is resolved, which member entry wins) is decided here,
//! once, as pure functions.

mod context;
mod key;
mod ledger;
mod member;
mod members_file;
mod node_id;
mod public_key;
mod seal;
mod seeded;
mod siblings;
mod stamp;
mod version;
mod warrant;

pub use context::{Context, ContextError, MAX_RANGES_PER_ACTOR};
pub use key::{Key, KeyError, MAX_KEY_BYTES};
pub use ledger::{Kept, Ledger, LedgerError, Run};
pub use member::{MAX_ADDRS, Member, MemberState, Members};
pub use members_file::{MembersFile, MembersFileError};
pub use node_id::{MAX_NODE_ID_BYTES, NodeId, NodeIdError};
pub use public_key::{MemberKey, PublicKey, PublicKeyError, parse_signature, signature_text};
pub use seal::{MAX_SEQUENCE, Seal, SealError, Statement, Verify};
pub use seeded::Seeded;
pub use siblings::{Record, Siblings};
pub use stamp::Stamp;
pub use version::{Actor, Digest, Digester, Dot, Kind, Mirrors, Version};
pub use warrant::{Appointment, FOR_GOOD, Proofs, Vouched, Warrant, WarrantError};
