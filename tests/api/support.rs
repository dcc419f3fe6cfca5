//! A storage that stops, fails and panics on demand, a clock that is set, and channels that tell
//! whether a closure ran once, never, or is still there.

use std::{
    collections::BTreeSet,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::Duration,
};

use parking_lot::Condvar;
use turbopump::{
    Bytes, Clock, Config, Dot, Key, Node, Record, SystemClock, Version,
    storage::{Change, LoadReport, MemoryStorage, StageId, Storage, StorageError},
};

use crate::common::PATIENCE;

/// Everything that comes until all senders are gone: each closure has run or was dropped.
pub fn all<T>(receiver: Receiver<T>) -> Vec<T> {
    let mut got = Vec::new();
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(one) => got.push(one),
            Err(RecvTimeoutError::Disconnected) => return got,
            Err(RecvTimeoutError::Timeout) => panic!("a closure neither ran nor was dropped"),
        }
    }
}

/// What comes next, within the bound of every wait.
pub fn next<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("it comes in time")
}

/// Does what must not wait for ever: a deadlock fails the test instead of holding it up.
pub fn in_time(what: impl FnOnce() + Send + 'static) {
    let (sender, done) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        what();
        let _ = sender.send(());
    });
    match done.recv_timeout(PATIENCE) {
        Err(RecvTimeoutError::Timeout) => panic!("threads wait for each other"),
        _ => thread.join().expect("its own checks hold"),
    }
}

/// A node on a storage whose gate is `gate`.
pub fn gated() -> (Node, Gate) {
    gated_with(Config::default())
}

/// The same with limits.
pub fn gated_with(config: Config) -> (Node, Gate) {
    let gate = Gate::default();
    let node = Node::builder().storage(Gated::new(&gate)).config(config).start().unwrap();
    (node, gate)
}

/// Decides what a [`Gated`] storage does with changes. Opens when it is dropped, so that the node of a
/// test that failed can end: let it be dropped before the node.
#[derive(Default)]
pub struct Gate(Arc<State>);

#[derive(Default)]
struct State {
    max_writers: AtomicUsize,
    /// The threads that have changed it, by their names.
    writers: parking_lot::Mutex<BTreeSet<Option<String>>>,
    closed: parking_lot::Mutex<bool>,
    opened: Condvar,
    fails: AtomicBool,
    panics: AtomicBool,
}

impl Gate {
    /// From now on changes wait.
    pub fn close(&self) {
        *self.0.closed.lock() = true;
    }

    /// They wait no more.
    pub fn open(&self) {
        *self.0.closed.lock() = false;
        self.0.opened.notify_all();
    }

    /// Whether changes fail.
    pub fn set_fails(&self, fails: bool) {
        self.0.fails.store(fails, SeqCst);
    }

    /// How many threads may change it side by side, 0 for any number: for a storage that a node has not got yet.
    pub fn set_max_writers(&self, max: usize) {
        self.0.max_writers.store(max, SeqCst);
    }

    /// The threads that have changed it.
    pub fn writers(&self) -> usize {
        self.0.writers.lock().len()
    }

    /// Whether everything panics.
    pub fn set_panics(&self, panics: bool) {
        self.0.panics.store(panics, SeqCst);
    }
}

impl State {
    fn pass(&self) {
        let mut closed = self.closed.lock();
        while *closed {
            self.opened.wait(&mut closed);
        }
        drop(closed);
        assert!(!self.panics.load(SeqCst), "the storage panics on demand");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

/// A storage in memory that counts as slow, behind a [`Gate`].
pub struct Gated {
    inner: MemoryStorage,
    gate: Arc<State>,
}

impl Gated {
    pub fn new(gate: &Gate) -> Self {
        Self { inner: MemoryStorage::new(), gate: gate.0.clone() }
    }
}

impl Storage for Gated {
    fn kind(&self) -> &'static str {
        "gated"
    }

    fn max_writers(&self) -> usize {
        match self.gate.max_writers.load(SeqCst) {
            0 => usize::MAX,
            max => max,
        }
    }

    fn load(&self, visit: &mut dyn FnMut(Key, Version)) -> Result<LoadReport, StorageError> {
        self.inner.load(visit)
    }

    fn read(&self, key: &Key) -> Result<Vec<Record>, StorageError> {
        self.inner.read(key)
    }

    fn read_piece(&self, key: &Key, dot: Dot, offset: u64, max_len: usize) -> Result<Bytes, StorageError> {
        self.inner.read_piece(key, dot, offset, max_len)
    }

    fn apply(&self, changes: &[Change]) -> Vec<Result<(), StorageError>> {
        self.gate.writers.lock().insert(std::thread::current().name().map(String::from));
        self.gate.pass();
        if self.gate.fails.load(SeqCst) {
            let failure = || Err(StorageError::Io(std::io::Error::other("the disk is on fire")));
            return changes.iter().map(|_| failure()).collect();
        }
        self.inner.apply(changes)
    }

    fn stage(&self, stage: StageId, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        self.inner.stage(stage, offset, bytes)
    }

    fn discard(&self, stage: StageId) {
        self.inner.discard(stage);
    }
}

/// A clock whose wall time can be put forward.
#[derive(Clone, Default)]
pub struct SetClock {
    system: Arc<SystemClock>,
    ahead_ms: Arc<AtomicU64>,
}

impl SetClock {
    pub fn put_forward(&self, by: Duration) {
        self.ahead_ms.fetch_add(by.as_millis() as u64, SeqCst);
    }
}

impl Clock for SetClock {
    fn monotonic(&self) -> Duration {
        self.system.monotonic()
    }

    fn wall(&self) -> Duration {
        self.system.wall() + Duration::from_millis(self.ahead_ms.load(SeqCst))
    }
}

/// The smallest executor there is: parks this thread until the future is woken.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut future, mut context) = (pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park_timeout(PATIENCE),
        }
    }
}

/// Keeps error lines of the log, for tests that something is reported.
pub fn error_log() -> &'static ErrorLog {
    static LOG: ErrorLog = ErrorLog(Mutex::new(Vec::new()));
    // Another test may have been first: it is the same log.
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(log::LevelFilter::Error);
    }
    &LOG
}

pub struct ErrorLog(Mutex<Vec<String>>);

impl ErrorLog {
    pub fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.contains(text))
    }
}

impl log::Log for ErrorLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() == log::Level::Error
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}
