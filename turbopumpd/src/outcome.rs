//! The library's errors as rows of the contract.

use std::io;

use turbopump::{MemberError, ReadError, SealError, SubmitError, WriteError};

use crate::{gate::Reply, reply};

/// A request that was not taken.
pub fn refused(e: &SubmitError) -> Reply {
    let detail = sentence(&e.to_string());
    match e {
        SubmitError::Key(_) => {
            reply::error(400, "malformed_parameter", format!("The parameter name: {detail}"))
        }
        SubmitError::ValueTooLong { .. } | SubmitError::StreamTooLong { .. } => {
            reply::error(413, "too_large", detail)
        }
        SubmitError::Busy => reply::error(503, "busy", detail),
        SubmitError::Stopping => stopping(),
        SubmitError::NoMember => reply::error(503, "no_member", detail),
        SubmitError::Seal(SealError::Sequence) => {
            reply::error(400, "malformed_parameter", format!("The parameter sequence: {detail}"))
        }
        SubmitError::Seal(SealError::Stale | SealError::Context) => reply::error(409, "out_of_date", detail),
        SubmitError::Seal(_) => reply::error(403, "not_signed", detail),
    }
}

/// A write that did not reach what was asked for.
pub fn not_written(e: &WriteError) -> Reply {
    match e {
        WriteError::Refused(e) => refused(e),
        WriteError::AckImpossible { .. } => {
            reply::error(400, "ack_impossible", format!("The parameter ack: {e}; ask for fewer."))
        }
        WriteError::TimedOut { .. } => reply::error(504, "timeout", sentence(&e.to_string())),
        WriteError::Storage(_) => reply::error(500, "storage", sentence(&e.to_string())),
        WriteError::Stopped => reply::error(503, "stopping", sentence(&e.to_string())),
    }
}

/// A value that storage did not take. Nothing of it is kept.
pub fn not_kept(e: &io::Error) -> Reply {
    match e.get_ref().and_then(|inner| inner.downcast_ref::<SubmitError>()) {
        Some(e) => refused(e),
        None => reply::error(500, "storage", sentence(&format!("nothing was stored: {e}"))),
    }
}

/// A read without an answer.
pub fn not_read(e: &ReadError) -> Reply {
    match e {
        ReadError::Refused(e) => refused(e),
        ReadError::TimedOut { .. } => reply::error(504, "timeout", sentence(&e.to_string())),
        ReadError::Unavailable { .. } => reply::error(503, "unavailable", sentence(&e.to_string())),
        ReadError::TooLong { .. } => reply::error(413, "too_large", sentence(&e.to_string())),
        ReadError::Replaced | ReadError::Storage(_) => reply::error(500, "storage", sentence(&e.to_string())),
        ReadError::Stopped => stopping(),
    }
}

/// A change of the member list that was not made.
pub fn not_changed(e: &MemberError) -> Reply {
    match e {
        MemberError::Refused(e) => refused(e),
        MemberError::Id(_) | MemberError::Myself(_) => {
            reply::error(400, "malformed_parameter", format!("The parameter uid: {e}."))
        }
        MemberError::Unknown(_) => reply::error(404, "no_such_member", sentence(&e.to_string())),
        MemberError::Warrant(_) => reply::error(403, "not_signed", sentence(&e.to_string())),
        MemberError::RemovedForGood(_) => reply::error(403, "removed_for_good", sentence(&e.to_string())),
        MemberError::Generation { .. } => reply::error(400, "generation", sentence(&e.to_string())),
        MemberError::Key(_) => reply::error(400, "another_key", sentence(&e.to_string())),
        MemberError::LastMember => reply::error(400, "last_member", sentence(&e.to_string())),
        MemberError::Limit(_) => reply::error(400, "limit", sentence(&e.to_string())),
        MemberError::Stopped => stopping(),
    }
}

/// No such key, here or anywhere that was asked.
pub fn no_such_key() -> Reply {
    reply::error(404, "no_such_key", "There is no such key; write it first.")
}

/// The node is about to end.
pub fn stopping() -> Reply {
    reply::error(503, "stopping", "This node is stopping; ask another one.")
}

/// A sentence out of an error's text.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), chars.as_str()),
        None => String::new(),
    }
}
