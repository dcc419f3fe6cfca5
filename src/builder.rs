//! Puts a node together.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    thread::{JoinHandle, ThreadId},
};

use arc_swap::ArcSwap;
use mio::{Poll, Waker};
use parking_lot::{Mutex, RwLock};

#[cfg(not(feature = "udt"))]
use crate::transport::UdpTransport;
#[cfg(feature = "udt")]
use crate::transport::UdtTransport;
use crate::{
    config::{Ack, Config},
    core::{Core, Setup, Sign},
    driver::{
        Callbacks, Clock, Disk, EventLoop, Home, Mailbox, Parts, Shared, SystemClock, Task, WAKER, now,
    },
    error::StartError,
    identity::{Identity, is_signed_by},
    model::{
        Appointment, Digest, Ledger, MAX_ADDRS, Member, MemberKey, MemberState, MembersFile, Mirrors, NodeId,
        PublicKey, Vouched, Warrant, WarrantError,
    },
    node::{Inner, Node},
    partition::{PartitionCount, Partitioner, Ring},
    storage::{MemoryStorage, Storage},
    transport::Transport,
    wire::{FRAME_HEADER_BYTES, Links, Local, MAX_CLUSTER_BYTES},
};

/// Everything that can be chosen about a [`Node`]. The defaults make a node that is alone, in
/// memory, on a free loopback port.
pub struct NodeBuilder {
    id: Option<String>,
    listen: SocketAddr,
    advertise: Option<SocketAddr>,
    home: Option<PathBuf>,
    members: Vec<Member>,
    weight: Option<u16>,
    transport: Option<Box<dyn Transport>>,
    storage: Option<Arc<dyn Storage>>,
    partitioner: Arc<dyn Partitioner>,
    partitions: PartitionCount,
    cluster: String,
    seed: Option<u64>,
    clock: Arc<dyn Clock>,
    callbacks: Option<Arc<dyn Fn(Task) + Send + Sync>>,
    config: Config,
}

impl Default for NodeBuilder {
    fn default() -> Self {
        Self {
            id: None,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            advertise: None,
            home: None,
            members: Vec::new(),
            weight: None,
            transport: None,
            storage: None,
            partitioner: Arc::new(Ring),
            partitions: PartitionCount::default(),
            cluster: "turbopump".into(),
            seed: None,
            clock: Arc::new(SystemClock::default()),
            callbacks: None,
            config: Config::default(),
        }
    }
}

impl NodeBuilder {
    /// Its name in the cluster: 1 to 32 characters out of `A-Z a-z 0-9 . _ -`. Default: what the
    /// members file under the home says, else the short form of its public key.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Where the built-in transport listens for peers. Default: a free port on 127.0.0.1. Set
    /// before a [`transport`](Self::transport) of one's own it has no effect.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen = addr;
        self
    }

    /// What peers should dial, where that is not the address it is bound to.
    pub fn advertise(mut self, addr: SocketAddr) -> Self {
        self.advertise = Some(addr);
        self
    }

    /// A folder for the node's key pair and the members file. Default: none is kept, and the key pair
    /// lasts as long as the node.
    pub fn home(mut self, path: impl Into<PathBuf>) -> Self {
        self.home = Some(path.into());
        self
    }

    /// Another member, and where it can be dialled. Those of the members file are known anyway.
    /// The other side has to know this node too.
    pub fn member(mut self, id: NodeId, addrs: Vec<SocketAddr>) -> Self {
        self.members.push(Member::new(id, addrs));
        self
    }

    /// As [`member`](Self::member), for one whose public key is known.
    pub fn member_with_key(mut self, id: NodeId, addrs: Vec<SocketAddr>, key: PublicKey) -> Self {
        self.members.push(Member { key: MemberKey::Known(key), ..Member::new(id, addrs) });
        self
    }

    /// As [`member`](Self::member), for a cluster that [names admins](Config::admin_keys): what one of them
    /// signed. Of this node too.
    pub fn appointed(mut self, appointment: Appointment, warrant: Warrant, addrs: Vec<SocketAddr>) -> Self {
        let Appointment { id, key, generation, .. } = appointment;
        self.members.push(warrant.entry(id, key, generation, addrs));
        self
    }

    /// Its share of the keys relative to other members; 0 holds nothing. Default: what the members
    /// file under the home says, else 1.
    pub fn weight(mut self, weight: u16) -> Self {
        self.weight = Some(weight);
        self
    }

    /// As [`transport`](Self::transport), for one that is boxed already.
    pub fn transport_boxed(mut self, transport: Box<dyn Transport>) -> Self {
        self.transport = Some(transport);
        self
    }

    /// How frames travel. Default: UDT where the feature `udt` is on, else UDP.
    pub fn transport(mut self, transport: impl Transport + 'static) -> Self {
        self.transport = Some(Box::new(transport));
        self
    }

    /// Where versions are kept. Default: in memory.
    pub fn storage(mut self, storage: impl Storage + 'static) -> Self {
        self.storage = Some(Arc::new(storage));
        self
    }

    /// Who owns what: the same for all members. Default: [`Ring`].
    pub fn partitioner(mut self, partitioner: impl Partitioner + 'static) -> Self {
        self.partitioner = Arc::new(partitioner);
        self
    }

    /// How many partitions the cluster has: the same for all members, for ever. Default 1,024:
    /// fine up to about 100 nodes.
    pub fn partitions(mut self, partitions: PartitionCount) -> Self {
        self.partitions = partitions;
        self
    }

    /// The cluster's name: nodes of others are refused. Default `turbopump`.
    pub fn cluster(mut self, name: impl Into<String>) -> Self {
        self.cluster = name.into();
        self
    }

    /// Mirrors of a write that names none; 0 = all nodes. Default 3.
    pub fn mirrors(mut self, mirrors: u16) -> Self {
        self.config.mirrors = Mirrors(mirrors);
        self
    }

    /// When a write that does not say is complete. Default [`Ack::Local`].
    pub fn ack(mut self, ack: Ack) -> Self {
        self.config.ack = ack;
        self
    }

    /// All other settings and limits. Replaces what `mirrors` and `ack` set before.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Determines all that is left to chance: for tests. Two nodes, or two runs of one, must not
    /// have the same. Where there is no home the key pair follows from it as well, and is no secret then.
    /// Default: drawn from the system.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Where the node gets the time from. Default: the machine.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Where closures run. `run` is called on the node's threads and must not block. Default: a
    /// thread of the node's own, so that a slow closure holds up other closures only.
    pub fn callbacks(mut self, run: impl Fn(Task) + Send + Sync + 'static) -> Self {
        self.callbacks = Some(Arc::new(run));
        self
    }

    /// Who the node is going to be: its id and its public key. Nothing is started or locked; a key pair
    /// is made under the home where there is none.
    ///
    /// # Errors
    /// [`StartError`]: what would keep it from starting.
    pub fn identify(&self) -> Result<(NodeId, PublicKey), StartError> {
        let Who { id, identity, .. } = self.who()?;
        Ok((id, identity.public_key()))
    }

    /// Opens the home, binds the transport, loads the storage and starts the node's threads.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    pub fn start(self) -> Result<Node, StartError> {
        self.config.check().map_err(StartError::Config)?;
        if self.cluster.is_empty() || self.cluster.len() > MAX_CLUSTER_BYTES {
            let text = format!("the name of a cluster has 1 to {MAX_CLUSTER_BYTES} bytes");
            return Err(StartError::Config(text));
        }
        let seed = self.seed.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()));
        let home = self.home.as_deref().map(Home::open).transpose()?;
        let Who { id, identity, file } = self.who()?;
        let storage = self.storage.unwrap_or_else(|| Arc::new(MemoryStorage::new()));
        let mut transport = self.transport.unwrap_or_else(|| default_transport(self.listen));

        let poll = Poll::new().map_err(StartError::Loop)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(StartError::Loop)?);
        let bound = EventLoop::bind(&mut *transport, &poll, &waker, identity.clone());
        let addr = bound.map_err(|error| StartError::Bind { addr: self.listen.to_string(), error })?;
        let at = now(&*self.clock);

        let mut addrs = vec![self.advertise.unwrap_or(addr)];
        let (mut peers, mut generation, mut weight) = (self.members, 0, 1);
        let (mut state, mut key) = (MemberState::Active, MemberKey::Known(identity.public_key()));
        let mut vouched = Vouched::default();
        if let Some(file) = file {
            // Further addresses of this node stand where a person put them; old ones of its own go.
            let others = file.this.addrs.into_iter().filter(|a| self.advertise.is_some() && *a != addr);
            addrs.extend(others.filter(|a| Some(*a) != self.advertise));
            addrs.truncate(MAX_ADDRS);
            (generation, weight, state) = (file.this.generation, file.this.weight, file.this.state);
            if !self.config.signed_members {
                key = key.joined(file.this.key);
            }
            vouched = file.this.vouched;
            peers.extend(file.peers);
        }
        if let Some(named) = peers.iter().find(|m| m.id == id && m.vouched.0.is_some() && m.key == key)
            && named.generation >= generation
        {
            (generation, vouched) = (named.generation, named.vouched.clone());
        }
        peers.retain(|m| m.id != id);
        let weight = self.weight.unwrap_or(weight);
        let revision = at.wall_ms;
        let this = Member { generation, state, revision, weight, key, vouched, ..Member::new(id, addrs) };
        check_members(&this, &peers, &self.config, &self.cluster).map_err(StartError::Config)?;
        let signer = identity.clone();
        let local = Local {
            id,
            cluster: self.cluster.clone(),
            incarnation: at.wall_ms,
            partitions: self.partitions.get(),
            placement: self.partitioner.kind().into(),
        };
        let max_frame_bytes = transport.max_frame_bytes();
        let down_after = Some(self.config.silence_allowed(transport.patience()));
        let links = Links::new(local, max_frame_bytes, seed ^ 1);
        let mut core = Core::new(Setup {
            this,
            peers,
            partitioner: self.partitioner,
            partitions: self.partitions,
            config: Config { down_after, ..self.config.clone() },
            incarnation: at.wall_ms,
            seed,
            max_message_bytes: max_frame_bytes - FRAME_HEADER_BYTES,
            verify: is_signed_by,
            sign: Sign(Arc::new(move |message| signer.sign(message))),
            cluster: self.cluster,
        });
        let report = storage.load(&mut |key, version| core.load(&key, version))?;
        log::info!("{} versions loaded, {} leftovers cleaned", report.versions, report.cleaned);
        match storage.read(&Ledger::key()) {
            Ok(records) => core.load_ledger(&records),
            Err(error) => log::error!("the ledger of the store: {error}"),
        }
        report.damaged.iter().for_each(|text| log::error!("a damaged record stays unused: {text}"));

        let mailbox = Arc::new(Mailbox::new(waker, &self.config));
        let callbacks = match self.callbacks {
            Some(run) => Callbacks::Custom(run),
            None => Callbacks::thread().map_err(StartError::Loop)?,
        };
        let shared = Arc::new(Shared {
            members: ArcSwap::from_pointee(core.members().clone()),
            placement: ArcSwap::new(core.placement().clone()),
            up: RwLock::default(),
            watches: RwLock::new(BTreeMap::new()),
        });
        let disk =
            Disk::start(storage.clone(), &mailbox, self.config.disk_threads).map_err(StartError::Loop)?;
        let (transport_kind, run) = (transport.kind(), callbacks.runner());
        let mut own_threads: Vec<ThreadId> = disk.thread_ids().chain(callbacks.thread_id()).collect();
        let parts = Parts {
            me: id,
            poll,
            core,
            links,
            transport,
            storage: storage.clone(),
            disk,
            mailbox: mailbox.clone(),
            callbacks,
            clock: self.clock.clone(),
            shared: shared.clone(),
            home,
            max_value_bytes: self.config.max_value_bytes,
        };
        let thread = spawn(parts).map_err(StartError::Loop)?;
        own_threads.push(thread.thread().id());
        Ok(Node::from_inner(Inner {
            id,
            public_key: identity.public_key(),
            addr,
            transport: transport_kind,
            config: self.config,
            mailbox,
            shared,
            storage,
            clock: self.clock,
            run,
            next_watch: AtomicU64::new(1),
            next_stage: AtomicU64::new(1),
            thread: Mutex::new(Some(thread)),
            own_threads,
        }))
    }
}

/// Who a node is.
struct Who {
    id: NodeId,
    identity: Arc<Identity>,
    /// The members file of its home, if there is one.
    file: Option<MembersFile>,
}

impl NodeBuilder {
    fn who(&self) -> Result<Who, StartError> {
        let file = self.home.as_deref().map(Home::members_of).transpose()?.flatten();
        let identity = match (&self.home, self.seed) {
            (Some(home), _) => Home::identity_of(home)?,
            (None, Some(seed)) => Identity::from_seed(Digest::of(&seed.to_be_bytes()).0),
            (None, None) => Identity::generate(),
        };
        let key = identity.public_key();
        let named = self.id.as_deref().map(str::parse).transpose()?;
        let id = match (named, &file) {
            (Some(named), Some(file)) if named != file.this.id => {
                let text = format!("the id is {named}, but this home belongs to node {}", file.this.id);
                return Err(StartError::Config(text));
            }
            (Some(named), _) => named,
            (None, Some(file)) => file.this.id,
            (None, None) => key.short(),
        };
        match file.as_ref().and_then(|file| file.this.key.known()).filter(|known| *known != key) {
            Some(known) => Err(StartError::Config(format!(
                "this home's members file says that node {id} has the key {known}, but its secret key is that \
                 of {key}: put back the one that belongs to it"
            ))),
            None => Ok(Who { id, identity: identity.into(), file }),
        }
    }
}

/// Whether admins stand by what the node begins with, where the cluster names any, or it can itself, where
/// members sign. To go on without those members of which that is not true would move what they hold.
fn check_members(this: &Member, peers: &[Member], config: &Config, cluster: &str) -> Result<(), String> {
    let admins = &config.admin_keys;
    if admins.is_empty() {
        let is_nameless = |m: &&Member| m.is_present() && m.key.known().is_none();
        return match peers.iter().find(is_nameless).filter(|_| config.signed_members) {
            Some(m) => Err(format!("member {}, which this node knows of: {}", m.id, WarrantError::Key)),
            None => Ok(()),
        };
    }
    for member in peers {
        if let Err(error) = member.check_warrant(cluster, admins, is_signed_by) {
            return Err(format!("member {}, which this node knows of: {error}", member.id));
        }
    }
    match this.check_appointment(cluster, admins, is_signed_by) {
        Ok(()) => {}
        Err(WarrantError::Missing) => {
            log::warn!("no admin has appointed this node yet: other members take no word of it");
        }
        Err(error) => return Err(format!("this node, {}: {error}", this.id)),
    }
    Ok(())
}

fn spawn(parts: Parts) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("turbopump-loop".into()).spawn(move || EventLoop::new(parts).run())
}

#[cfg(feature = "udt")]
fn default_transport(listen: SocketAddr) -> Box<dyn Transport> {
    Box::new(UdtTransport::bind(listen))
}

#[cfg(not(feature = "udt"))]
fn default_transport(listen: SocketAddr) -> Box<dyn Transport> {
    Box::new(UdpTransport::bind(listen))
}
