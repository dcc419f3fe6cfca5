//! The handle on a running node.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread::{JoinHandle, ThreadId},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    builder::NodeBuilder,
    config::{Config, Read},
    core::{Event, Found, MemberInfo, Outcome, Request, WatchId},
    driver::{Clock, Mail, Mailbox, Reply, Shared, Task, Ticket, Watcher, are_there, fill, wall_ms},
    error::{ReadError, SubmitError},
    model::{Context, Key, KeyError, Ledger, Mirrors, NodeId, PublicKey, Record, Siblings},
    operations::{Change, ChangeMembers, Count, Forget, Get, Keys, Leave, Payload, Put, Reading, WaitFor},
    partition::Placement,
    reader::ValueReader,
    storage::{StageId, Storage},
    writer::{self, ValueWriter},
};

/// How long the drop of the last handle lets running operations finish.
const DROP_WITHIN: Duration = Duration::from_secs(2);

/// A member of a cluster, inside this process.
///
/// A cheap handle: clones name the same node, from any thread. Dropping the last one shuts the
/// node down in order; every pending closure still runs.
///
/// ```
/// use turbopump::Node;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder().start()?; // alone, in memory
/// node.put("greeting", "hello").wait()?;
/// assert_eq!(node.get("greeting").wait()?.value().unwrap(), "hello");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) id: NodeId,
    pub(crate) public_key: PublicKey,
    pub(crate) addr: SocketAddr,
    pub(crate) transport: &'static str,
    pub(crate) config: Config,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) run: Arc<dyn Fn(Task) + Send + Sync>,
    pub(crate) next_watch: AtomicU64,
    pub(crate) next_stage: AtomicU64,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
    /// The loop's, and those that closures may run on: they can't wait for themselves.
    pub(crate) own_threads: Vec<ThreadId>,
}

/// A watch. Dropping it ends it; closures that are queued by then still run.
#[must_use = "dropping a watch ends it"]
pub struct Watch {
    id: WatchId,
    mailbox: Arc<Mailbox>,
    shared: Arc<Shared>,
}

impl Node {
    /// Everything that can be chosen about a node, with good defaults.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    pub(crate) fn from_inner(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Its name in the cluster.
    pub fn id(&self) -> NodeId {
        self.inner.id
    }

    /// The public half of its key pair, by which others know it.
    pub fn public_key(&self) -> PublicKey {
        self.inner.public_key
    }

    /// Where peers can dial it, as bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.addr
    }

    /// The kind of its transport: `udt`, `udp`, `memory`.
    pub fn transport_kind(&self) -> &'static str {
        self.inner.transport
    }

    /// The kind of its storage: `file`, `memory`.
    pub fn storage_kind(&self) -> &'static str {
        self.inner.storage.kind()
    }

    /// How it behaves.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Writes a value. Any node takes a write of any key.
    ///
    /// ```
    /// # use turbopump::{Ack, Node};
    /// # let node = Node::builder().start()?;
    /// node.put("k", vec![1, 2, 3]).mirrors(2).ack(Ack::Quorum).submit(|outcome| match outcome {
    ///     Ok(written) => println!("{} of {} owners have it", written.acked, written.mirrors.0),
    ///     Err(error) => println!("{error}"),
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn put<K>(&self, key: K, value: impl Into<Bytes>) -> Put
    where
        K: TryInto<Key>,
        SubmitError: From<K::Error>,
    {
        self.write(nameable(key), Payload::Whole(value.into()))
    }

    /// Deletes a key: a write of a tombstone, which replaces what it covers everywhere.
    pub fn delete<K>(&self, key: K) -> Put
    where
        K: TryInto<Key>,
        SubmitError: From<K::Error>,
    {
        self.write(nameable(key), Payload::Tombstone)
    }

    /// Reads a key. What this node owns and holds is answered on the caller's thread.
    pub fn get<K>(&self, key: K) -> Get
    where
        K: TryInto<Key>,
        SubmitError: From<K::Error>,
    {
        self.read_key(nameable(key))
    }

    /// Begins a value that is written piece by piece and never whole in memory: see [`ValueWriter`].
    ///
    /// ```
    /// # use turbopump::{Ack, Node};
    /// # let node = Node::builder().start()?;
    /// let mut writer = node.writer("film")?;
    /// std::io::copy(&mut std::io::repeat(7).take(1_000_000), &mut writer)?;
    /// writer.finish()?.ack(Ack::Quorum).wait()?;
    /// # use std::io::Read;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SubmitError`]: nothing was begun.
    pub fn writer<K>(&self, key: K) -> Result<ValueWriter, SubmitError>
    where
        K: TryInto<Key>,
        SubmitError: From<K::Error>,
    {
        let key = nameable(key)?;
        let room = self.inner.mailbox.reserve(writer::BUFFER_BYTES as u64)?;
        let number = self.inner.next_stage.fetch_add(1, SeqCst);
        Ok(ValueWriter::new(self.clone(), key, StageId(writer::FIRST_STAGE | number), room))
    }

    /// Opens the newest value of a key, to be read piece by piece: see [`ValueReader`]. `None` where there
    /// is no value. Waits for owners where this node does not hold the key: not for closures that run on
    /// the loop.
    ///
    /// # Errors
    /// As for [`get`](Self::get).
    pub fn reader<K>(&self, key: K) -> Result<Option<ValueReader>, ReadError>
    where
        K: TryInto<Key>,
        SubmitError: From<K::Error>,
    {
        let key = nameable(key)?;
        let reading = self.read_key(Ok(key.clone())).without_long().wait()?;
        Ok(reading.newest().map(|record| self.reader_of(&key, record)))
    }

    /// Opens one version of a key that a read [without long values](Get::without_long) has found. Does
    /// not wait.
    pub fn reader_of(&self, key: &Key, record: &Record) -> ValueReader {
        ValueReader::new(self.clone(), key.clone(), record)
    }

    /// Waits until a value of the key is there, or one that a context does not cover.
    pub fn wait_for<K>(&self, key: K) -> WaitFor
    where
        K: TryInto<Key>,
        SubmitError: From<K::Error>,
    {
        let key = nameable(key);
        WaitFor { node: self.clone(), key, context: Context::EMPTY, timeout: Duration::from_secs(30) }
    }

    /// Has `closure` run for every version that this node stores of keys with this prefix: own
    /// writes, copies from peers, deletes. In order, where callbacks run; a closure that falls 65,536
    /// events behind misses what comes then, and the log says so. Waits for the loop: not for
    /// closures that run on it.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] past [`Config::max_watches`], [`SubmitError::Stopping`].
    pub fn watch(
        &self,
        prefix: impl Into<String>,
        closure: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Watch, SubmitError> {
        let id = WatchId(self.inner.next_watch.fetch_add(1, SeqCst));
        let watch = Watch { id, mailbox: self.inner.mailbox.clone(), shared: self.inner.shared.clone() };
        self.inner.shared.watches.write().insert(id, Watcher::new(closure));
        let (completion, pending) = crate::pending::completion();
        let set = move |outcome| {
            completion.complete(match outcome {
                Outcome::Watching(true) => Ok(()),
                Outcome::Watching(false) => Err(SubmitError::Busy),
                _ => Err(SubmitError::Stopping),
            });
        };
        let ticket = Ticket { reply: Reply::Handle(Box::new(set)), progress: None, waits: false, bytes: 0 };
        self.inner.mailbox.submit(Request::Watch { watch: id, prefix: prefix.into() }, ticket)?;
        pending.wait().map(|()| watch)
    }

    /// Lists what this node holds, ordered by name.
    pub fn keys(&self) -> Keys {
        let node = self.clone();
        Keys { node, prefix: String::new(), after: None, limit: 1_000, deleted: false }
    }

    /// Drops this node's copies of a key, and nobody else's. If it owns the key, sync brings them
    /// back.
    pub fn forget<K>(&self, key: K) -> Forget
    where
        K: TryInto<Key>,
        SubmitError: From<K::Error>,
    {
        Forget { node: self.clone(), key: nameable(key) }
    }

    /// The members that are present, this node included, by id.
    pub fn members(&self) -> Vec<MemberInfo> {
        let members = self.inner.shared.members.load();
        let up = self.inner.shared.up.read();
        let info = |member: &crate::model::Member| MemberInfo {
            up: member.id == self.id() || up.contains(&member.id),
            member: member.clone(),
        };
        members.present().map(info).collect()
    }

    /// Makes another node a member, or gives a member other addresses. The other side has to know
    /// this node as well; then the lists spread by themselves.
    pub fn add_member(&self, id: NodeId, addrs: Vec<SocketAddr>) -> ChangeMembers {
        ChangeMembers::new(self.clone(), id, Change::Add(addrs))
    }

    /// Removes a member everywhere. Its copies no longer count; it is told if it can be reached.
    pub fn remove_member(&self, id: NodeId) -> ChangeMembers {
        ChangeMembers::new(self.clone(), id, Change::Remove)
    }

    /// Leaves the cluster in order: from now on this node owns nothing, it gives every copy to its
    /// owners, and when it holds none any more it is no member: as soon as another one knows that, it may
    /// be stopped for good. It serves clients all the while, and refuses writes afterwards. Started once, it
    /// goes on, after a restart too; [`stats`](Self::stats) tells how far it is.
    ///
    /// # Errors
    /// [`LastMember`](crate::MemberError::LastMember) where no other member could hold the copies; nothing changes.
    /// [`Unknown`](crate::MemberError::Unknown) where another member removed this node, now or before: it keeps what
    /// it holds.
    pub fn leave(&self) -> Leave {
        Leave { node: self.clone(), timeout: Duration::from_secs(600) }
    }

    /// Who owns what at the moment.
    pub fn placement(&self) -> Arc<Placement> {
        self.inner.shared.placement.load_full()
    }

    /// Counts what the node holds and does.
    pub fn stats(&self) -> Count {
        Count { node: self.clone() }
    }

    /// Shuts down: takes nothing new, lets running operations and copies on their way finish for
    /// at most `within`, says goodbye to the peers, closes everything. What is pending after that
    /// ends as stopped. Returns when the node's threads have ended, except when called from a
    /// closure. Further calls return at once.
    pub fn shutdown(&self, within: Duration) {
        self.inner.stop(within);
    }

    pub(crate) fn storage(&self) -> &Arc<dyn Storage> {
        &self.inner.storage
    }

    pub(crate) fn mailbox(&self) -> &Mailbox {
        &self.inner.mailbox
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock.clone()
    }

    pub(crate) fn run_callback(&self, closure: impl FnOnce() + Send + 'static) -> Result<(), SubmitError> {
        let room = self.inner.mailbox.reserve(0)?;
        (self.inner.run)(Box::new(move || {
            drop(room);
            closure();
        }));
        Ok(())
    }

    /// Reads storage on this thread. `None`: others have to be asked.
    pub(crate) fn read_here(
        &self,
        key: &Key,
        read: Read,
        local_only: bool,
        short: bool,
    ) -> Result<Option<Reading>, ReadError> {
        if self.inner.mailbox.is_closed() {
            return Err(ReadError::Refused(SubmitError::Stopping));
        }
        let placement = self.inner.shared.placement.load();
        let alone = placement.owners(key.hash64(), Mirrors::ALL).all(|id| id == self.id());
        if !local_only && read != Read::One && !alone {
            return Ok(None);
        }
        let storage = &*self.inner.storage;
        let records = storage.read(key).map_err(|error| ReadError::storage(&error))?;
        if !local_only && !alone {
            let widest = records.iter().map(|r| r.version.mirrors).max();
            let is_owner = |mirrors: Mirrors| placement.owns(self.id(), key.hash64(), mirrors);
            if !widest.is_some_and(is_owner) {
                return Ok(None);
            }
        }
        let (mut siblings, max) = (Siblings::resolve(records), self.config().max_value_bytes);
        if !are_there(&siblings, max) {
            siblings = match fill(storage, Found { key: key.clone(), siblings, short }, max) {
                Ok(found) => found.siblings,
                // It went from here while it was read: others have it.
                Err(ReadError::Refused(SubmitError::Busy)) if !local_only => return Ok(None),
                Err(ReadError::Refused(SubmitError::Busy)) => Siblings::default(),
                Err(error) => return Err(error),
            };
        }
        // What never expires is there at any time: the clock would take a tenth of the read.
        let expires = siblings.records().iter().any(|r| r.version.expires_ms.is_some());
        let wall_ms = if expires { wall_ms(&*self.inner.clock) } else { 0 };
        Ok(Some(Reading::new(siblings, wall_ms)))
    }

    fn read_key(&self, key: Result<Key, SubmitError>) -> Get {
        Get { node: self.clone(), key, read: Read::One, timeout: None, local_only: false, short: false }
    }

    pub(crate) fn write(&self, key: Result<Key, SubmitError>, value: Payload) -> Put {
        Put {
            node: self.clone(),
            key,
            value,
            mirrors: None,
            ack: None,
            context: None,
            expires_in: None,
            timeout: None,
            progress: None,
            expires_ms: None,
            sealing: None,
        }
    }
}

/// A key that clients may name: any but that of the store's own ledger.
fn nameable<K>(key: K) -> Result<Key, SubmitError>
where
    K: TryInto<Key>,
    SubmitError: From<K::Error>,
{
    let key = key.try_into()?;
    if Ledger::is_named(&key) { Err(KeyError::Reserved.into()) } else { Ok(key) }
}

impl Inner {
    fn stop(&self, within: Duration) {
        self.mailbox.close();
        self.mailbox.post(Mail::Stop { within });
        if self.own_threads.contains(&std::thread::current().id()) {
            return;
        }
        // Others that stop the node at the same time wait here for its end.
        let mut thread = self.thread.lock();
        if let Some(thread) = thread.take()
            && thread.join().is_err()
        {
            log::error!("the node's loop ended with a panic");
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop(DROP_WITHIN);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let closure = self.shared.watches.write().remove(&self.id);
        self.mailbox.post(Mail::Tell(Request::Unwatch(self.id)));
        // It may own the last handle or another watch: nothing is locked any more.
        drop(closure);
    }
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({} at {})", self.inner.id, self.inner.addr)
    }
}
