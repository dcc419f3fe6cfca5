//! Brings near what the next few inputs will need, side by side.
//!
//! Among a million keys a write waits for memory some ten times, a tenth of a microsecond and more each: in the
//! index, and in a storage that is memory. A processor waits for many places at once if none of them hangs on what
//! another one holds. So before the loop takes a batch of inputs one by one, those places are looked at for
//! [`AHEAD`] of them together.
//!
//! It changes nothing but how long things take.

use smallvec::SmallVec;

use super::{Mail, Parts};
use crate::{
    core::Request,
    model::Key,
    wire::{LinkEvent, Message},
};

/// Inputs that are looked at together: enough to wait side by side, few enough to be near still when their turn comes.
pub(super) const AHEAD: usize = 32;

/// Looks at the first [`AHEAD`] of these inputs.
pub(super) fn look_ahead<'a, I: Keyed + 'a>(parts: &Parts, inputs: impl Iterator<Item = &'a I>) {
    let keys: SmallVec<[&Key; AHEAD]> = inputs.take(AHEAD).filter_map(Keyed::key).collect();
    if keys.len() < 2 {
        return;
    }
    parts.core.prefetch(&keys);
    if !parts.disk.is_slow() {
        parts.storage.prefetch(&keys);
    }
}

/// What may be about one key that the index and the storage will be asked for.
pub(super) trait Keyed {
    fn key(&self) -> Option<&Key>;
}

impl Keyed for Mail {
    fn key(&self) -> Option<&Key> {
        match self {
            Self::Request { request: Request::Write(write), .. } => Some(&write.key),
            Self::Request { request: Request::Read(read), .. } => Some(&read.key),
            _ => None,
        }
    }
}

impl Keyed for LinkEvent {
    fn key(&self) -> Option<&Key> {
        match self {
            Self::Message { message: Message::Write { key, .. } | Message::Read { key, .. }, .. } => {
                Some(key)
            }
            _ => None,
        }
    }
}
