//! Writes and deletes, signed or not.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Prepare, Prepared, start, submit, wait, whole_ms};
use crate::{
    config::Ack,
    core::{Content, Outcome, Progress, Request, WriteRequest, Written},
    driver::wall_ms,
    error::{SubmitError, WriteError},
    identity::Identity,
    model::{Context, Digest, Key, Kind, Mirrors, Seal},
    node::Node,
    pending::Pending,
    writer::Staged,
};

/// What a write carries.
pub(crate) enum Payload {
    Tombstone,
    Whole(Bytes),
    Staged(Staged),
}

/// A write or a delete: [`Node::put`], [`Node::delete`], [`ValueWriter::finish`](crate::ValueWriter::finish).
#[must_use = "nothing is written before submit, start or wait"]
pub struct Put {
    pub(crate) node: Node,
    pub(crate) key: Result<Key, SubmitError>,
    pub(crate) value: Payload,
    pub(crate) mirrors: Option<Mirrors>,
    pub(crate) ack: Option<Ack>,
    pub(crate) context: Option<Context>,
    pub(crate) expires_in: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) progress: Option<Arc<dyn Fn(Progress) + Send + Sync>>,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) sealing: Option<Sealing>,
}

/// How a write comes to its signature.
pub(crate) enum Sealing {
    /// It is signed here.
    Sign(Arc<Identity>, u64),
    /// It was signed by who sent it.
    Signed(u64, Seal),
}

operation!(Put, Written, WriteError);

impl Put {
    /// How many nodes shall hold the key; 0 = all. Default: as many as before, else
    /// [`Config::mirrors`](crate::Config::mirrors).
    pub fn mirrors(mut self, mirrors: u16) -> Self {
        self.mirrors = Some(Mirrors(mirrors));
        self
    }

    /// When the write is complete. Default: [`Config::ack`](crate::Config::ack).
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = Some(ack);
        self
    }

    /// Replace exactly what this context covers. Default: all that this node knows of the key.
    pub fn context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// The value counts as absent from then on, everywhere. Rounded to milliseconds, by the wall
    /// clocks of the nodes. Default: never.
    pub fn expires_in(mut self, after: Duration) -> Self {
        self.expires_in = Some(after);
        self
    }

    /// The same as [`expires_in`](Self::expires_in), by wall clock: milliseconds since 1970.
    pub fn expires_at_ms(mut self, at_ms: u64) -> Self {
        self.expires_ms = Some(at_ms);
        self
    }

    /// Signs it: the author vouches for name, value, mirrors, expiry and what it replaces, and every reader
    /// can check that with [`author_of`](crate::identity::author_of).
    ///
    /// `sequence` tells the author's writes of one key apart, and the highest one counts: a higher one
    /// replaces all lower ones, whatever [`context`](Self::context) says, and can't be replaced by them.
    /// From 1 to [`MAX_SEQUENCE`](crate::model::MAX_SEQUENCE); milliseconds since 1970 do well, and they
    /// are the version's time of writing. To replace what others wrote, give the context of a read: the
    /// default here is the empty one. Default for the mirrors here: [`Config::mirrors`](crate::Config::mirrors).
    pub fn signed_by(mut self, author: &Arc<Identity>, sequence: u64) -> Self {
        self.sealing = Some(Sealing::Sign(author.clone(), sequence));
        self
    }

    /// The same with a signature that was made elsewhere, over
    /// [`Statement::message`](crate::model::Statement::message). All that it covers has to be given as it was signed: mirrors, expiry, context.
    pub fn sealed(mut self, sequence: u64, seal: Seal) -> Self {
        self.sealing = Some(Sealing::Signed(sequence, seal));
        self
    }

    /// How long it may take before it ends as unknown. Default:
    /// [`Config::operation_timeout`](crate::Config::operation_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// A second closure: runs whenever an owner has stored the write, until the write is complete.
    pub fn on_mirror(mut self, closure: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(closure));
        self
    }
}

impl Prepare for Put {
    type Ok = Written;
    type Error = WriteError;

    fn prepare(self) -> Result<Prepared<Self>, SubmitError> {
        let (key, max) = (self.key?, self.node.config().max_value_bytes);
        let (kind, value, staged) = match self.value {
            Payload::Tombstone => (Kind::Tombstone, Bytes::new(), None),
            Payload::Whole(value) => (Kind::Value, value, None),
            Payload::Staged(staged) => (Kind::Value, Bytes::new(), Some(staged)),
        };
        let len = value.len() as u64;
        if len > max {
            return Err(SubmitError::ValueTooLong { len, max });
        }
        let after = self.expires_in.map(|after| wall_ms(&*self.node.clock()).saturating_add(whole_ms(after)));
        let expires_ms = after.or(self.expires_ms);
        let digest = staged.as_ref().map_or_else(|| Digest::of(&value), |staged| staged.digest);
        let content = staged.as_ref().map_or(Content::Whole(value), Staged::content);
        let default = self.node.config().mirrors;
        let mut request = WriteRequest {
            key,
            kind,
            digest,
            content,
            mirrors: self.mirrors.or(self.sealing.is_some().then_some(default)),
            ack: self.ack,
            context: self.context,
            expires_ms,
            timeout_ms: self.timeout.map(whole_ms),
            progress: self.progress.is_some(),
            seal: None,
        };
        request.seal = match self.sealing {
            Some(Sealing::Sign(identity, sequence)) => {
                let statement = request.statement(identity.public_key(), sequence, default);
                Some((sequence, identity.seal(&request.key, &statement)?))
            }
            Some(Sealing::Signed(sequence, seal)) => Some((sequence, seal)),
            None => None,
        };
        let request = Request::Write(request);
        Ok(match staged {
            Some(staged) => Prepared::Commit(request, staged),
            None => Prepared::Ask(request, len),
        })
    }

    fn convert(_: u64, outcome: Outcome) -> Result<Written, WriteError> {
        match outcome {
            Outcome::Written(result) => result,
            _ => Err(WriteError::Stopped),
        }
    }

    fn node(&self) -> Node {
        self.node.clone()
    }

    fn progress(&mut self) -> Option<Arc<dyn Fn(Progress) + Send + Sync>> {
        self.progress.clone()
    }
}
