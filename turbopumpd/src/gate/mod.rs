//! The gate: a small event loop in front of `tiny_http` that keeps the daemon's promises.
//!
//! `tiny_http` does the HTTP work and the routing threads; left alone with clients it can be
//! killed by one request, stops serving after a burst, and waits for ever for silent ones. So no
//! client ever talks to it. The gate is not a router and knows nothing of keys: it takes in bytes
//! and hands on requests that are whole, unambiguous and within their limits.
//!
//! ```text
//!  clients --TCP, unix--> loop: head -> limits -> body (held up to 64 KiB, else streamed)
//!                          |                                   |
//!                          | answers, one write each           v a free lane, or the queue
//!                          +<------------- lanes: private unix connections, one request each
//!                                                              |
//!                            tiny_http: a thread per lane -> queue -> handler threads -> Handler
//! ```
//!
//! What each part mends:
//!
//! - a length over the limit never reaches `tiny_http`, and a lane whose client left is closed, so
//!   that nothing waits for (or allocates) the rest of a body;
//! - lanes are opened one after the other, each only after the one before has answered a probe:
//!   a burst of connections would be queued on threads that never come;
//! - heads, bodies, answers and silences have limits ([`Limits`]); the next request of a client is
//!   read when the one before is answered;
//! - where a token is asked for, a head without it ends the connection;
//! - heads are written anew from what was understood, so the two can't disagree on them;
//! - running out of descriptors pauses accepting; should `tiny_http` stop accepting lanes all the
//!   same, another one is started beside it;
//! - on a stop, running requests end well and connections are closed.
//!
//! Invariants: one thread owns all sockets; it never blocks. Each connection holds bounded buffers.
//! A handler sees complete bodies, or reads a long one to an end that is proved: a request that breaks
//! off midway does not exist, and a client is told of an answer that does by the end of its connection.
//!
//! Limits: see [`Limits`]. Cost: a hop of two more system calls in each direction. At 16 clients, 100 B and
//! 2 cores a request costs 1.4 to 2 times the processor time of bare `tiny_http`, clients included;
//! `tests/gate_speed.rs` measures it.

mod answer;
mod backend;
pub mod chunked;
mod client;
mod dispatch;
pub mod head;
mod intake;
mod lane;
mod limits;
mod listen;
mod refusal;
mod relay;
mod run;
mod slots;
mod stats;
mod token;

use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use mio::{Poll, Waker};
use parking_lot::{Condvar, Mutex};

pub use backend::{CopyError, Exchange, Handler, Reply};
pub use limits::Limits;
pub use listen::{ListenAt, Listener, Origin};
pub use refusal::Refusal;
pub use stats::{Count, GateStats};
pub use token::{BearerToken, MIN_TOKEN_BYTES};

use backend::Backend;

/// Handler threads. Handlers do not block, so more than the cores only costs switches; measured at 1, 2
/// and 4.
pub const HANDLER_THREADS: usize = 2;

/// What a gate is made of.
pub struct GateParts {
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// What is allowed.
    pub limits: Limits,
    /// Where it counts.
    pub stats: Arc<GateStats>,
    /// Says of a target (path and query) whether its answer may take seconds by nature.
    pub is_long: fn(&str) -> bool,
    /// What every request has to show, if anything. It is asked for before a body is taken.
    pub token: Option<BearerToken>,
    /// How many threads call the handler.
    pub handler_threads: usize,
    /// Who answers.
    pub handler: Box<dyn Handler>,
}

/// A running gate. Dropping it stops it at once.
pub struct Gate {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the loop and its owner share.
struct Shared {
    waker: Waker,
    command: Mutex<Command>,
    quiet: Condvar,
    /// Clients whose answers broke off.
    lost: Mutex<Vec<usize>>,
}

#[derive(Clone, Copy, Default)]
struct Command {
    /// No new requests.
    drain: bool,
    /// The end, whatever still runs.
    end_at: Option<Instant>,
    /// Nothing runs any more.
    is_quiet: bool,
}

impl Gate {
    /// Starts the loop, `tiny_http` and the handler threads.
    ///
    /// # Errors
    /// No thread, folder or descriptor could be had. Nothing runs then.
    pub fn start(parts: GateParts) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), run::WAKER_TOKEN)?;
        let secret = new_secret()?;
        let (command, quiet, lost) = (Mutex::default(), Condvar::new(), Mutex::default());
        let shared = Arc::new(Shared { waker, command, quiet, lost });
        let told = shared.clone();
        let lost = Box::new(move |client| {
            told.lost.lock().push(client);
            let _ = told.waker.wake();
        });
        let backend = Backend::new(parts.handler, secret.clone(), parts.handler_threads, lost)?;
        let looper = run::Looper::new(
            poll,
            parts.listeners,
            parts.limits,
            parts.stats,
            parts.is_long,
            parts.token,
            backend,
            secret,
            shared.clone(),
        )?;
        let thread = thread::Builder::new().name("gate".into()).spawn(move || looper.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on new connections and requests are refused; what runs goes on.
    pub fn drain(&self) {
        self.shared.command.lock().drain = true;
        let _ = self.shared.waker.wake();
    }

    /// Ends as soon as nothing runs any more, at the latest after `within`.
    pub fn stop(mut self, within: Duration) {
        self.end(within);
    }

    /// Whether all that ran when [`drain`](Self::drain) was called ended within `within`.
    pub fn wait_drained(&self, within: Duration) -> bool {
        let mut command = self.shared.command.lock();
        let deadline = Instant::now() + within;
        while !command.is_quiet {
            if self.shared.quiet.wait_until(&mut command, deadline).timed_out() {
                return command.is_quiet;
            }
        }
        true
    }

    fn end(&mut self, within: Duration) {
        let Some(thread) = self.thread.take() else { return };
        {
            let mut command = self.shared.command.lock();
            command.drain = true;
            command.end_at = Some(Instant::now() + within);
        }
        let _ = self.shared.waker.wake();
        if thread.join().is_err() {
            log::error!("the gate's loop panicked");
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// 128 random bits as text, from the system.
fn new_secret() -> io::Result<String> {
    use std::{fmt::Write, io::Read};
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().fold(String::new(), |mut text, b| {
        let _ = write!(text, "{b:02x}");
        text
    }))
}
