//! Signed writes: what a key demands, and that a version meets it.
//!
//! Why a signature protects what it does stands at [`Statement`](crate::model::Statement). Here is where it
//! is looked at: at the one door by which versions enter the index (`write::accept`), in answers to reads,
//! and before a long value is fetched. What storage held at the start was looked at when it came in.
//!
//! A version that is not signed is free to enter unless its key demands otherwise; one that is signed has
//! to be signed rightly, whatever its key demands.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::{Core, WriteRequest, index::Verdict};
use crate::{
    error::SubmitError,
    model::{Dot, Key, NodeId, PublicKey, SealError, Verify, Version},
};

/// How often refusals of a kind are told at most.
const NOTICE_MS: u64 = 60_000;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Seals {
    verify: Verify,
    refusals: Told,
}

/// When a refusal of a kind was told last, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Told(Option<u64>);

impl Told {
    /// Whether one may be told again, which counts as having told it.
    pub(super) fn allows(&mut self, now_ms: u64) -> bool {
        let is_due = self.0.is_none_or(|at_ms| at_ms + NOTICE_MS <= now_ms);
        self.0 = if is_due { Some(now_ms) } else { self.0 };
        is_due
    }
}

impl Seals {
    pub(crate) fn new(verify: Verify) -> Self {
        Self { verify, refusals: Told::default() }
    }
}

impl Core {
    /// Whether a version may enter: signed rightly, and as its key demands.
    pub(super) fn check_seal(&self, key: &Key, version: &Version) -> Result<(), SealError> {
        if let Some(authors) = self.authors(key) {
            let seal = version.seal.as_ref().ok_or(SealError::Missing)?;
            if !authors.contains(&seal.author) {
                return Err(SealError::Author);
            }
        }
        match version.seal {
            Some(_) => version.check_seal(key, self.seals.verify),
            None => Ok(()),
        }
    }

    /// Counts a refusal, and tells it unless one was told a moment ago.
    pub(super) fn seal_refused(&mut self, key: &Key, from: Option<NodeId>, error: SealError) {
        self.counters.signatures_refused += 1;
        if self.seals.refusals.allows(self.now.mono_ms) {
            let from = from.map_or_else(|| "a client".to_owned(), |id| id.to_string());
            self.notice(format!("a write of {key:?} by {from} was refused: {error}"));
        }
    }

    /// Which of the versions that a peer answered a read with may not enter. Those that are here did.
    pub(super) fn wrongly_sealed(&mut self, from: NodeId, key: &Key, versions: &[Arc<Version>]) -> Vec<Dot> {
        let mut wrong = Vec::new();
        for version in versions {
            if self.index.find(key, version.dot).as_ref() != Some(&**version)
                && let Err(error) = self.check_seal(key, version)
            {
                self.seal_refused(key, Some(from), error);
                wrong.push(version.dot);
            }
        }
        wrong
    }

    /// The version that a client's write is, if it is signed and may be written now.
    pub(super) fn sealed(
        &mut self,
        key: &Key,
        request: &WriteRequest,
    ) -> Result<Option<Version>, SubmitError> {
        let version = self.sealed_version(key, request).and_then(|version| match version {
            Some(version) => self.check_seal(key, &version).map(|()| Some(version)),
            None if self.authors(key).is_some() => Err(SealError::Missing),
            None => Ok(None),
        });
        let version = match version {
            Ok(Some(version)) => version,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.seal_refused(key, None, error);
                return Err(error.into());
            }
        };
        let is_here = self.index.holds(key, version.dot);
        match self.judge(key, &version) {
            // The same once more, of a client that does not know how it ended: it is spread again.
            Verdict::Known if is_here => {}
            Verdict::New(_) => {}
            Verdict::Pending => return Err(SubmitError::Busy),
            Verdict::Known | Verdict::Overtaken(_) => return Err(SealError::Stale.into()),
        }
        if self.writes.is_running(version.dot) {
            return Err(SubmitError::Busy);
        }
        // The signed context is what it is: where it names less than it replaces, what had been replaced
        // before could come back.
        if self.index.closed(key, version.context.clone()) != version.context {
            return Err(SealError::Context.into());
        }
        Ok(Some(version))
    }

    fn sealed_version(&self, key: &Key, request: &WriteRequest) -> Result<Option<Version>, SealError> {
        let Some((sequence, seal)) = request.seal else { return Ok(None) };
        let statement = request.statement(seal.author, sequence, self.config.mirrors);
        statement.version(key, seal.signature).map(Some)
    }

    /// Whose signatures a key demands.
    fn authors(&self, key: &Key) -> Option<&[PublicKey]> {
        let fitting =
            self.config.signed_prefixes.iter().filter(|(prefix, _)| key.as_str().starts_with(prefix));
        fitting.max_by_key(|(prefix, _)| prefix.len()).map(|(_, authors)| &authors[..])
    }
}
