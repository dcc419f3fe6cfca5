//! What each call asks of the node: the only place that calls the library's operations.
//!
//! Every function parses its parameters, submits, and leaves the answer to the closure that the
//! node runs when it is done. A [`Question`] is answered once, by whoever is first: the closure,
//! or the router when a function returns early with an answer.
//!
//! None of them blocks, save for a read of what this node holds itself, which goes straight to
//! storage: no hop. Long bodies are copied on the thread that they came on, into a writer and out of a
//! reader, and never held whole.

mod cluster;
mod import;
mod listing;
mod reading;
mod writing;

use std::{
    io::{Read, Write},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use turbopump::SubmitError;

pub use cluster::{add_peer, leave, membership, metrics, remove_peer, ring, status};
pub use import::copy;
pub use listing::list_keys;
pub use reading::{read, wait};
pub use writing::{delete, drop_key, write};

use crate::{
    gate::{CopyError, Exchange, Origin, Reply},
    outcome,
    reply::Conditions,
};

/// How a call begins: under way, or over with this answer.
pub type Begun = Result<(), Reply>;

/// A request that waits for its answer, shared by all who might give it.
#[derive(Clone)]
pub struct Question(Arc<Mutex<Option<Exchange>>>);

impl Question {
    /// Of a request.
    pub fn new(exchange: Exchange) -> Self {
        Self(Arc::new(Mutex::new(Some(exchange))))
    }

    /// Answers, if nobody did.
    pub fn answer(&self, reply: Reply) {
        let exchange = self.0.lock().take();
        if let Some(exchange) = exchange {
            exchange.respond(reply);
        }
    }

    /// Answers with so many bytes of a reader, if nobody did.
    fn answer_from(&self, reply: Reply, length: u64, reader: Box<dyn Read + Send>) {
        let exchange = self.0.lock().take();
        if let Some(exchange) = exchange {
            exchange.respond_from(reply, length, reader);
        }
    }

    fn is_streaming(&self) -> bool {
        self.0.lock().as_ref().is_some_and(Exchange::is_streaming)
    }

    /// Copies a body that streams. Blocks, and whoever wants to answer meanwhile.
    fn copy_body(&self, to: &mut dyn Write) -> Result<u64, CopyError> {
        self.0.lock().as_mut().map_or(Err(CopyError::BrokeOff), |exchange| exchange.copy_body(to))
    }

    fn take_body(&self) -> Bytes {
        self.0.lock().as_mut().map(Exchange::take_body).unwrap_or_default()
    }

    fn conditions(&self) -> Conditions {
        self.0.lock().as_ref().map(Conditions::of).unwrap_or_default()
    }

    fn is_from_this_machine(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|e| e.origin() == Origin::Unix)
    }
}

/// A refused submit ends the call: its closure never runs.
fn begun(submitted: Result<(), SubmitError>) -> Begun {
    submitted.map_err(|e| outcome::refused(&e))
}
