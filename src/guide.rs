//! How it behaves and why, in prose: consistency, the life of a write, placement, several nodes,
//! failures, parts of your own.
//!
//! - [Consistency](#consistency)
//! - [The life of a write](#the-life-of-a-write)
//! - [Placement and mirrors](#placement-and-mirrors)
//! - [Deletes and expiry](#deletes-and-expiry)
//! - [Several nodes](#several-nodes)
//! - [When nodes or networks fail](#when-nodes-or-networks-fail)
//! - [Disks](#disks)
//! - [Closures, handles, executors](#closures-handles-executors)
//! - [Parts of your own](#parts-of-your-own)
//! - [Limits](#limits)
//!
//! # Consistency
//!
//! Any node takes a write at any time, even when it can reach nobody. There is no leader, and no two
//! keys are ever changed together. Copies become equal once their nodes can talk to each other.
//!
//! **What a write promises** is up to its [`Ack`](crate::Ack):
//!
//! | Ack | The write is complete when | So it survives |
//! |---|---|---|
//! | `Local` (default) | this node has stored it | the end of this process, as far as the storage is durable |
//! | `Mirrors(n)` | n owners have stored it | the loss of any n - 1 of them |
//! | `Quorum` | more than half of the owners have | the loss of any smaller half |
//! | `All` | all owners have | the loss of all owners but one |
//!
//! The copies for the other owners are sent at once and in parallel, whatever the ack is; it only
//! says how many to wait for. This node stores a copy first in any case, whether it is an owner or not.
//!
//! **What a read promises** is up to its [`Read`](crate::Read):
//!
//! | Read | Asks |
//! |---|---|
//! | `One` (default) | this node if it owns the key and holds it; else the owners, until one has it |
//! | `Quorum` | more than half of the owners, and merges what they hold |
//! | `All` | all owners, and merges |
//!
//! A read by `Quorum` after a write that was acknowledged by `Quorum` finds that write, or what
//! replaced it: the two majorities share an owner. `One` may find an older state. Owners that a read
//! finds to be behind are given what they lack. What this node owns is read on the caller's thread,
//! without asking the node's loop.
//!
//! While keys move, because members came, left or were given another weight, a read asks those who owned
//! the key before as well: no key is called absent, and no version missed by a `Quorum`, because its copies
//! are still on their way. A node that has just joined, and has not met all others yet, has reads of what it
//! can't find wait for that, 10 s at most.
//!
//! **Unknown is not absent.** A write that ends with [`TimedOut`](crate::WriteError::TimedOut),
//! [`Storage`](crate::WriteError::Storage) or [`Stopped`](crate::WriteError::Stopped) may have been
//! stored somewhere, and may spread. Only [`Refused`](crate::WriteError::Refused) and
//! [`AckImpossible`](crate::WriteError::AckImpossible) mean that there is nothing anywhere. After an
//! unknown outcome, write again: the same write twice does no harm.
//!
//! **Siblings.** Two writes of which neither had seen the other are both kept, on all owners, as
//! *siblings*. [`value`](crate::Reading::value) is the newest by the writers' clocks, which is a guess;
//! [`values`](crate::Reading::values) are all of them. The [`Context`](crate::Context) of a reading
//! says exactly what its reader has seen. A write that hands it back replaces just that:
//!
//! ```
//! use turbopump::{Context, Node};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder().start()?;
//! node.put("color", "red").context(Context::EMPTY).wait()?; // has seen nothing
//! node.put("color", "blue").context(Context::EMPTY).wait()?; // neither has this one
//!
//! let reading = node.get("color").wait()?;
//! assert_eq!(reading.values().count(), 2);
//!
//! node.put("color", "violet").context(reading.context()).wait()?; // has seen both
//! assert_eq!(node.get("color").wait()?.values().count(), 1);
//! # Ok(()) }
//! ```
//!
//! A **plain write**, without a context, replaces all that this node knows of the key. A node that
//! holds nothing of a key and does not own it asks an owner first (for up to 300 ms), so that a
//! plain write there does not make a sibling by mere ignorance. Two plain writes on two nodes at
//! the same time are concurrent all the same, and both are kept.
//!
//! Contexts travel as text too ([`Display`](std::fmt::Display) and
//! [`FromStr`](std::str::FromStr)), so they can go through a web page and back.
//!
//! # The life of a write
//!
//! ```text
//! put -> named with a dot (actor, counter) that was never used and never will be
//!     -> stored here                                    ─┐ counted against the ack;
//!     -> sent to all owners, in parallel  -> stored there ─┘ then the closure runs
//!     -> an owner is away: the key's name is owed to it, and sent when it is back
//!     -> this node is no owner: its copy goes once all owners have theirs
//!     -> whatever was missed: sync finds it
//! ```
//!
//! A node that receives a copy checks length and digest (BLAKE3) before it stores it, and stores it
//! before it says so. A copy that nobody acknowledged is sent again after 200 ms, then after
//! longer and longer pauses; after five tries only the key's name is kept for that peer (`owed`, up to
//! 100,000 names; past it sync covers the rest).
//!
//! A value that does not fit into one frame of the transport is offered by name; the receiver
//! fetches it in pieces, stages them in its storage, and checks the whole before it is visible. What is said
//! *about* versions may be longer than a frame, up to 256 KiB: it travels in parts, and is said again
//! when one is lost.
//!
//! **Sync**: every 2 s a node compares digests with a peer drawn at random, and with each
//! peer whose link just came up. Where they differ, both descend into the range until few keys are
//! left, and give each other what the other lacks.
//!
//! # Placement and mirrors
//!
//! A key's hash falls into one of a fixed number of partitions (1,024 by default; see
//! [`partitions`](crate::NodeBuilder::partitions)), and the partitioner lists the members for each
//! partition, best first. The first *n* own the keys with *n* mirrors. Mirrors are set per key; the
//! default is 3, and 0 means all nodes. Where there are fewer nodes than mirrors, all of them own
//! the key.
//!
//! ```
//! use turbopump::{Key, Mirrors, Node};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::builder().id("n1").start()?;
//! node.put("settings", "on all nodes").mirrors(0).wait()?;
//! node.put("cache/1", "on one node").mirrors(1).wait()?;
//!
//! let placement = node.placement();
//! let owners: Vec<_> = placement.owners(Key::new("cache/1")?.hash64(), Mirrors(1)).collect();
//! assert_eq!(owners, [node.id()]);
//! # Ok(()) }
//! ```
//!
//! When a member comes or goes, about 1/N of the copies move ([`Ring`](crate::partition::Ring) has
//! figures for movement and balance). A node that holds what it no longer owns gives it to the
//! owners, and drops it when all of them have it. [`weight`](crate::NodeBuilder::weight) gives a node
//! a larger or smaller share, 0 none: such a node takes writes and reads, and keeps nothing.
//! [`Everywhere`](crate::partition::Everywhere) puts every key on every node.
//!
//! A later write keeps the mirrors that the key had, unless it names others.
//!
//! # Deletes and expiry
//!
//! A delete is a write of a *tombstone*: it replaces what it covers, has siblings like any write, and
//! spreads like one. That is why a deleted key stays deleted when a node comes back that missed the
//! delete.
//!
//! A tombstone goes away once **every member** has agreed, in three steps, that it holds nothing of the
//! key but that, that nothing of it is on its way, and that its store says so durably. That takes some
//! seconds, and is asked for a minute after the delete ([`bury_after`](crate::Config::bury_after)); until
//! then the key can be listed as deleted. A member that is away holds it up, however long that takes:
//! [`Stats`](crate::Stats) tells how many tombstones there are, how old the oldest is, and whom they
//! wait for. One that is gone for good is waited for until it is removed from the members.
//!
//! [`expires_in`](crate::operations::Put::expires_in) gives a version a deadline by the wall clock.
//! From then on it is hidden from reads, waits and listings on every node whose clock agrees, and
//! removed in the same way as a tombstone. Until then it stands for a tombstone: what it replaced has to
//! stay replaced.
//!
//! [`forget`](crate::Node::forget) drops this node's copies of a key without telling anybody. It is no
//! delete: if the node owns the key, sync brings them back.
//!
//! # Several nodes
//!
//! Both sides have to know each other: by [`member`](crate::NodeBuilder::member), by
//! [`add_member`](crate::Node::add_member), or by the members file. Lists spread by themselves
//! after that, so it is enough to introduce a new node and one old one to each other.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use turbopump::{Ack, Node};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (a, b) = (Node::builder().id("a").start()?, Node::builder().id("b").start()?);
//! a.add_member(b.id(), vec![b.local_addr()]).wait()?;
//! b.add_member(a.id(), vec![a.local_addr()]).wait()?;
//!
//! let written = a.put("greeting", "hello").ack(Ack::All).wait()?;
//! assert_eq!(written.acked, 2);
//! assert_eq!(b.get("greeting").wait()?.value().unwrap(), "hello");
//! # Ok(()) }
//! ```
//!
//! With a [`home`](crate::NodeBuilder::home) a node keeps its id and its members across restarts in
//! `turbo_members.txt`: the first line is this node, each further one a peer, `ID ADDR[|ADDR...] [KEY]`
//! or `ID none [KEY]` for one that dials us and is not dialled; `weight=N` may follow, `#` begins a
//! comment. The file is read at start and rewritten as a whole whenever the list changes. A line
//! that does not parse keeps the node from starting, and is named.
//!
//! Who a node is, its key pair says. It is made at the first start and kept under the home in
//! `turbopump.key`, with a mode of 600; without a home it lasts as long as the node. The member list
//! carries the public halves ([`Member::key`](crate::Member)), so each node hears of all. A key that is
//! known for a member stays: where another one turns up, neither is believed until the member was removed and
//! added again, and the log says so. It also says where two members have the same key, as copies of one
//! home do.
//!
//! A peer is its id and not its address: several nodes may share an address's host, and addresses may
//! change. All members need the same cluster name, number of partitions and kind of partitioner; a
//! peer that differs is refused, and the log says why. [`remove_member`](crate::Node::remove_member)
//! takes a member out everywhere; its id counts again only when somebody adds it again, and what its
//! store still held then is checked with the others. Before a node is taken away for good it should
//! [`leave`](crate::Node::leave): it gives every copy to its owners first, serves clients meanwhile,
//! and is no member any more when it holds nothing and another member knows. [`Stats::safe_to_stop`](crate::Stats) tells, at any
//! time, whether something waits on a node for others.
//!
//! **Over UDT and UDP nothing between nodes is encrypted or authenticated**, and whoever reaches a UDT
//! port can end or stall the process. The default is loopback; anything else belongs into a network where
//! every host is trusted.
//!
//! Over QUIC (`QuicTransport`, feature `quic`; `--transport quic`) nodes encrypt, and let in only those whose
//! key the member list names ([`NodeBuilder::member_with_key`](crate::NodeBuilder::member_with_key),
//! [`ChangeMembers::key`](crate::operations::ChangeMembers::key), the members file; further members are heard
//! of from these). A node that has another key than the member that it says it is gets no link. A secret
//! that all nodes share is proved by each to each, and never sent. Two nodes become a cluster so:
//!
//! ```text
//! $ turbopumpd --home a id                            $ turbopumpd --home b id
//! 6fd0d0a0c1d4e1b5 6fd0d0a0...                        9c1e...
//! a/turbo_members.txt: 6fd0d0a0c1d4e1b5 none          b/turbo_members.txt: 9c1e... none
//!                      9c1e... 10.0.0.2:1593 KEY-B                          6fd0d0a0c1d4e1b5 10.0.0.1:1593 KEY-A
//! ```
//!
//! Whoever is a member is trusted with nearly everything: it may read and write all keys, and add and remove
//! members. The last of these can be kept from it.
//!
//! **Signed membership.** [`Config::admin_keys`](crate::Config::admin_keys) names admins, the same on all
//! nodes; the keys of some nodes will do, or one that is kept far away from all. Then a member is who one
//! of them [appointed](crate::Appointment): id, key, and a generation that orders what is said of one id.
//! What a member says of itself (addresses, weight, that it leaves) it signs as well, so no other can say
//! it. Every node checks both before it takes news of a member in, from whomever they come, and when it
//! starts. An admin removes a member by appointing it to the generation [`FOR_GOOD`](crate::FOR_GOOD):
//! neither its id nor its key comes back, whatever else was ever signed and in whichever order nodes hear
//! of it; the removed node is told. [`Identity::appoint`](crate::Identity::appoint) signs, and
//! [`ChangeMembers::signed`](crate::operations::ChangeMembers::signed),
//! [`NodeBuilder::appointed`](crate::NodeBuilder::appointed) or `turbopumpd member` hand it to nodes. A
//! node that nobody appointed yet works alone. To name admins in a cluster that had none, stop all nodes
//! and give each a members file of lines that `turbopumpd member add --print` made.
//!
//! Without admins, [`Config::signed_members`](crate::Config::signed_members) has the members sign: every
//! present one may add and remove others, and a node takes in what the member that says it has signed,
//! nothing else. It signs all of that itself, so nothing hangs on the word of one who was removed later;
//! one that was away until all whom it knew are gone has to be introduced anew. What a member says of
//! itself, and that a removal is for good, is as with admins. To begin or end this, stop all nodes; weights
//! that members had named count again when they have said so themselves. Without either, a change is as
//! good as the link that it came over: over QUIC that is the key of some member. The daemon has members sign
//! over QUIC unless it is told otherwise.
//!
//! ```
//! use turbopump::{Appointment, Config, Identity, Node};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let admin = Identity::generate();
//! let config = Config { admin_keys: vec![admin.public_key()], ..Config::default() };
//! let node = Node::builder().id("a").cluster("lab").config(config).start()?;
//! let other = Identity::generate();
//! let said = Appointment { cluster: "lab".into(), id: "b".parse()?, key: other.public_key(), generation: 0 };
//! let add = || node.add_member(said.id, vec!["127.0.0.1:2593".parse().unwrap()]).key(said.key);
//! assert!(add().wait().is_err());
//! add().signed(said.generation, admin.appoint(&said)).wait()?;
//! assert_eq!(node.members().len(), 2);
//! # Ok(()) }
//! ```
//!
//! **Signed writes** are what even a member can't fake. [`Config::signed_prefixes`](crate::Config::signed_prefixes)
//! names authors, and every node refuses a version of such a key, tombstones included, that none of them has
//! signed, from whomever it comes. The signature covers name, value, mirrors, expiry, what it replaces, and a
//! sequence: of an author's writes of one key the highest sequence counts, and an older one that somebody
//! sends again is known or replaced. [`Put::signed_by`](crate::operations::Put::signed_by) signs,
//! [`author_of`](crate::identity::author_of) checks what was read. Members can still keep writes to themselves, or
//! claim to have stored them, and a value whose deletion is buried can be sent again: give it an expiry, or
//! replace it instead of deleting. All nodes should demand the same, before the first such key is written.
//! The whole argument: [`Statement`](crate::Statement).
//!
//! ```
//! use std::sync::Arc;
//! use turbopump::{Config, Identity, Key, Node, identity::author_of};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let author = Arc::new(Identity::generate());
//! let signed_prefixes = vec![("releases/".to_owned(), vec![author.public_key()])];
//! let node = Node::builder().config(Config { signed_prefixes, ..Config::default() }).start()?;
//! assert!(node.put("releases/latest", "1.2.4").wait().is_err());
//! node.put("releases/latest", "1.2.3").signed_by(&author, 1).wait()?;
//! let reading = node.get("releases/latest").wait()?;
//! let version = &reading.newest().ok_or("it is there")?.version;
//! assert_eq!(author_of(&Key::try_from("releases/latest")?, version), Some(author.public_key()));
//! # Ok(()) }
//! ```
//!
//! # When nodes or networks fail
//!
//! Every peer is pinged every 500 ms ([`ping_interval`](crate::Config::ping_interval)), and any
//! message is a sign of life. A peer that was silent for 3 s, over UDT 10 s ([`down_after`](crate::Config::down_after)),
//! counts as down; one that stops in order says goodbye and is down at once. Peers that are down are
//! dialled again at each ping. Being down changes nothing about who owns what: copies for the peer
//! are owed, and given when it is back. Only [`remove_member`](crate::Node::remove_member) moves
//! its share to others.
//!
//! While owners are down:
//!
//! - A write needs as many owners as its ack says; otherwise it ends as unknown after
//!   [`operation_timeout`](crate::Config::operation_timeout) (10 s).
//! - A read by `Quorum` or `All` that needs more owners than are up ends with
//!   [`Unavailable`](crate::ReadError::Unavailable) at once.
//! - A read by `One` asks the owners that are up; one that is slow is not waited for longer than
//!   100 ms before the next is asked too.
//!
//! A node that lost its disk, or was set back to an old copy of it, may come back under its old id:
//! every start names its writes anew, so no name of a write is ever used twice, and sync gives it
//! what it lacks. Its peers remember how far its store had come. A store that is behind that is told
//! so, says it in the log, and checks what it holds: a value that no other owner knows was deleted
//! meanwhile, and is dropped; until that is known it is given to nobody. Where all owners of a key
//! were lost and one is restored, its copy stays.
//!
//! # Disks
//!
//! [`MemoryStorage`](crate::storage::MemoryStorage) (the default) is gone with the process.
//! [`FileStorage`](crate::storage::FileStorage) keeps one plain file per version:
//!
//! ```
//! use turbopump::{Node, storage::{Durability, FileStorage}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! # let home = home.path();
//! let start = || -> Result<Node, Box<dyn std::error::Error>> {
//!     let storage = FileStorage::open(home.join("store"), Durability::Synced)?;
//!     Ok(Node::builder().home(home).storage(storage).start()?)
//! };
//! let node = start()?;
//! let id = node.id();
//! node.put("greeting", "hello").wait()?;
//! drop(node); // the last handle: the node shuts down in order
//!
//! let node = start()?;
//! assert_eq!(node.id(), id);
//! assert_eq!(node.get("greeting").wait()?.value().unwrap(), "hello");
//! # Ok(()) }
//! ```
//!
//! With `Durability::Synced` what was acknowledged survives a power loss; with `Buffered` it
//! survives the end of the process. `FjallStorage` (feature `fjall`) takes its place, opened in the
//! same way, where values are many and small: it keeps them in an LSM tree, makes one sync of many writes,
//! and keeps values over 4 KiB as files. A folder holds one kind of store. A record that fails its digest is reported, not served, and left
//! for a person to look at; if another owner has the value, a read gets it from there.
//!
//! # Closures, handles, executors
//!
//! Each operation ends in one of three ways: `submit` with a closure, `start` for a
//! [`Pending`](crate::Pending), or `wait`. A `Pending` can be waited on, with or without a limit, and
//! is a [`Future`]; an operation can be awaited as it is. No executor is
//! needed or preferred.
//!
//! ```
//! # async fn under_any_executor() -> Result<(), Box<dyn std::error::Error>> {
//! let node = turbopump::Node::builder().start()?;
//! node.put("greeting", "hello").await?;
//! let reading = node.get("greeting").await?;
//! # Ok(()) }
//! ```
//!
//! `Ok` from `submit` means that the closure runs exactly once: with a success, a failure, a timeout
//! or the shutdown. `Err` means that it never runs. It runs with nothing borrowed or locked, so it may
//! call the node, wait for operations, drop the last handle or stop the node. A panic in it is caught
//! and logged. Closures run on one thread of the node's own, so a slow one holds up other closures and
//! nothing else; [`callbacks`](crate::NodeBuilder::callbacks) sends them elsewhere. There, a closure
//! that runs in place runs on the node's loop and must not wait.
//!
//! Dropping the last handle shuts down: nothing new is taken, what runs may finish for 2 s, peers are
//! told, and what is pending then ends as stopped. [`shutdown`](crate::Node::shutdown) does the same
//! with a limit of your choice.
//!
//! # Parts of your own
//!
//! [`Storage`](crate::storage::Storage), [`Transport`](crate::transport::Transport) and
//! [`Partitioner`](crate::partition::Partitioner) are traits of a few methods; the builder takes any
//! implementation. Each has a conformance suite behind the feature `testing`, which is the
//! contract in executable form, and an example that passes it: `examples/storage_sqlite.rs`,
//! `examples/transport.rs`, `examples/partitioner.rs`.
//!
//! ```toml
//! [dev-dependencies]
//! turbopump = { version = "0.1", features = ["testing"] }
//! ```
//!
#![cfg_attr(feature = "testing", doc = "```no_run")]
#![cfg_attr(not(feature = "testing"), doc = "```ignore")]
//! use turbopump::{partition::Ring, storage::MemoryStorage, transport::UdpTransport};
//! use turbopump::testing::{partitioner, storage::StorageSuite, transport::TransportSuite};
//!
//! StorageSuite::new(MemoryStorage::new).run_all();
//! let make = |addr| Box::new(UdpTransport::bind(addr)) as Box<_>;
//! TransportSuite::new(([127, 0, 0, 1], 0).into(), make).may_lose().run();
//! partitioner::check(|| Box::new(Ring));
//! ```
//!
//! A storage that keeps a version's metadata in one field need not invent a format:
//! [`encode_version`](crate::storage::encode_version) and
//! [`decode_version`](crate::storage::decode_version) have one that later releases read.
//!
//! The clock and chance can be injected as well: [`clock`](crate::NodeBuilder::clock),
//! [`seed`](crate::NodeBuilder::seed). A part that panics ends what it was asked for, not more: a
//! storage has failed that once; a transport or partitioner, which the node can't be without, ends
//! the node, and everybody who waits is told that it stopped.
//!
//! # Limits
//!
//! Every queue has one, and what is over it is refused as [`Busy`](crate::SubmitError::Busy) with
//! nothing begun. [`Config`](crate::Config) has the figures that can be set. Worth knowing:
//!
//! - A key has 1 to 1,024 bytes of UTF-8.
//! - A value is held in memory while it is written or read as a whole: 64 MiB at most by default,
//!   1 GiB at most at all. With a [writer](crate::Node::writer) and a [reader](crate::Node::reader) it is
//!   as long as the disks have room for, 1 TiB by default. Its mirrors fetch it in pieces, and go on where
//!   they were after a broken link or a restart (in the file store from 8 MiB on). With the memory
//!   store it is in memory, of course.
//! - The names and versions of all keys that a node holds are in its memory.
//! - Hundreds of nodes have run in the simulator alone; the tests run up to six as processes. The UDT transport
//!   has two threads for every peer.
