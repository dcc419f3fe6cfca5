//! Messages to bytes and back.
//!
//! Every message is an array `[type, field ...]`; so are versions, records, members and ranges
//! within it. A reader skips what stands behind the fields it knows, so a later release may add
//! fields at an end and nowhere else. Runs of hashes are packed big endian into one byte string:
//! as MessagePack numbers they would be longer and slower.
//!
//! What decodes keeps the promises of its type: keys and ids are valid, contexts normalised,
//! ranges not empty, `since` less than the dot's counter, and no version replaces itself.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::{
    DecodeError, Message,
    pack::{Reader, put_array, put_bool, put_bytes_len, put_nil, put_optional_bytes, put_text, put_uint},
    parts::{
        HASHED_KEY_BYTES, context_len_hint, decode_context, decode_dot, decode_hashed_keys, decode_key,
        decode_member, decode_record, decode_status, decode_step, decode_version, decode_vitals,
        encode_context, encode_hashed_keys, encode_member, encode_record, encode_status, encode_step,
        encode_version, encode_vitals, member_len_hint, packed, value_len_hint, version_len_hint,
    },
    ranges::{
        OFFERED_BYTES, RANGE_PARTS_BYTES, TREE_BYTES, decode_bits, decode_interest, decode_lists,
        decode_offered, decode_parts, decode_trees, encode_interest, encode_lists, encode_offered,
        encode_parts, encode_trees, lists_fit, lists_len,
    },
};
use crate::model::{Context, Key, MAX_ADDRS, Mirrors, Record, Version};

/// Versions in one `ReadReply`.
pub const MAX_RECORDS_PER_REPLY: usize = 1_024;
/// Entries in one `Members`.
pub const MAX_MEMBERS_PER_MESSAGE: usize = 4_096;
/// Trees in one `Compare`: as many as there are numbers of mirrors.
pub const MAX_TREES_PER_MESSAGE: usize = 65_536;
/// Ranges in one `Parts`, `List` or `Want`.
pub const MAX_RANGES_PER_MESSAGE: usize = 16_384;
/// Versions in one `Offer`.
pub const MAX_OFFERED_PER_MESSAGE: usize = 16_384;
/// Keys in one `Bury`.
pub const MAX_GRAVES_PER_MESSAGE: usize = 4_096;
/// Ranges of a context that travels, over all its actors.
pub const MAX_CONTEXT_RANGES: usize = 16_384;

const WRITE: u64 = 1;
const WRITE_ACK: u64 = 2;
const READ: u64 = 3;
const READ_REPLY: u64 = 4;
const AWAIT: u64 = 5;
const FETCH: u64 = 6;
const PIECE: u64 = 7;
const PING: u64 = 8;
const PONG: u64 = 9;
const MEMBERS: u64 = 10;
const COMPARE: u64 = 11;
const LIST: u64 = 12;
const WANT: u64 = 13;
const BYE: u64 = 14;
const BURY: u64 = 15;
const BURIED: u64 = 16;
const EQUAL: u64 = 17;
const PARTS: u64 = 18;
const OFFER: u64 = 19;
const OFFER_ACK: u64 = 20;

/// An actor and two counters, all below 128.
const SHORTEST_RANGE_BYTES: usize = 3;

impl Message {
    /// Appends the bytes of the message.
    ///
    /// # Panics
    /// On a value of 4 GiB or more. [`Links::send`](super::Links::send) refuses those before.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Write { tag, key, version, value } => {
                head(out, WRITE, &[*tag], 3);
                put_text(out, key.as_str());
                encode_version(version, out);
                put_optional_bytes(out, value.as_ref());
            }
            Self::WriteAck { tag, status } => head(out, WRITE_ACK, &[*tag, encode_status(*status)], 0),
            Self::Read { tag, key, values } => {
                head(out, READ, &[*tag], 2);
                put_text(out, key.as_str());
                put_bool(out, *values);
            }
            Self::ReadReply { tag, records } => {
                head(out, READ_REPLY, &[*tag], 1);
                match records {
                    None => put_nil(out),
                    Some(records) => put_each(out, records, encode_record),
                }
            }
            Self::Await { tag, key, context, within_ms } => {
                head(out, AWAIT, &[*tag], 3);
                put_text(out, key.as_str());
                encode_context(context, out);
                put_uint(out, *within_ms);
            }
            Self::Fetch { tag, key, dot, offset, len } => {
                head(out, FETCH, &[*tag, dot.actor.0, dot.counter, *offset, u64::from(*len)], 1);
                put_text(out, key.as_str());
            }
            Self::Piece { tag, offset, bytes } => {
                head(out, PIECE, &[*tag, *offset], 1);
                put_optional_bytes(out, bytes.as_ref());
            }
            Self::Ping { sequence, vitals } => {
                head(out, PING, &[*sequence], 1);
                encode_vitals(vitals, out);
            }
            Self::Pong { sequence, vitals } => {
                head(out, PONG, &[*sequence], 1);
                encode_vitals(vitals, out);
            }
            Self::Members { entries, reply } => {
                head(out, MEMBERS, &[], 2);
                put_each(out, entries, encode_member);
                put_bool(out, *reply);
            }
            Self::Compare { round, trees } => {
                head(out, COMPARE, &[u64::from(*round)], 1);
                encode_trees(trees, out);
            }
            Self::Equal { round } => head(out, EQUAL, &[u64::from(*round)], 0),
            Self::Parts { salt, mirrors, bits, ranges } => {
                head(out, PARTS, &[u64::from(*salt), u64::from(mirrors.0), u64::from(*bits)], 1);
                encode_parts(*bits, ranges, out);
            }
            Self::List { salt, mirrors, bits, ranges } => {
                head(out, LIST, &[u64::from(*salt), u64::from(mirrors.0), u64::from(*bits)], 1);
                encode_lists(*bits, ranges, out);
            }
            Self::Want { salt, mirrors, bits, ranges } => {
                head(out, WANT, &[u64::from(*salt), u64::from(mirrors.0), u64::from(*bits)], 1);
                encode_lists(*bits, ranges, out);
            }
            Self::Offer { tag, versions } => {
                head(out, OFFER, &[*tag], 1);
                encode_offered(versions, out);
            }
            Self::OfferAck { tag, answers } => {
                head(out, OFFER_ACK, &[*tag], 1);
                encode_interest(answers, out);
            }
            Self::Bye => head(out, BYE, &[], 0),
            Self::Bury { round, members, step, graves } => {
                head(out, BURY, &[*round, *members, encode_step(*step)], 1);
                encode_hashed_keys(graves, out);
            }
            Self::Buried { round, step, agreed } => {
                head(out, BURIED, &[*round, encode_step(*step)], 1);
                put_bytes_len(out, agreed.len());
                out.extend(agreed.iter().map(|agreed| u8::from(*agreed)));
            }
        }
    }

    /// Takes one message off the front of `input`. Values share its memory.
    ///
    /// # Errors
    /// [`DecodeError`]. The input is then past the message, or empty where its end can't be
    /// told; so whoever goes on until the input is empty comes to an end.
    pub fn decode(input: &mut Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(input);
        let decoded = decode_message(&mut reader);
        let mut end = reader.position();
        if matches!(decoded, Err(DecodeError::Malformed(_) | DecodeError::UnknownType(_))) {
            let mut skipper = Reader::new(input);
            end = skipper.skip(1).map_or(input.len(), |()| skipper.position());
        } else if decoded.is_err() {
            end = input.len();
        }
        input.advance(end);
        decoded
    }

    /// At most how many bytes [`encode`](Self::encode) appends, and seldom many more.
    pub fn encoded_len_hint(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map(Bytes::len);
        match self {
            Self::Write { key, version, value, .. } => Self::write_len_hint(key, version, len(value)),
            Self::Read { key, .. } => 20 + key.as_str().len(),
            Self::ReadReply { records, .. } => Self::reply_len_hint(records.as_deref().unwrap_or_default()),
            Self::Await { key, context, .. } => 30 + key.as_str().len() + context_len_hint(context),
            Self::Fetch { key, .. } => 50 + key.as_str().len(),
            Self::Piece { bytes, .. } => 20 + value_len_hint(len(bytes)),
            Self::WriteAck { .. } | Self::Bye => 20,
            Self::Ping { .. } | Self::Pong { .. } => 90,
            Self::Members { entries, .. } => 10 + entries.iter().map(member_len_hint).sum::<usize>(),
            Self::Compare { trees, .. } => 20 + TREE_BYTES * trees.len(),
            Self::Equal { .. } => 10,
            Self::Parts { ranges, .. } => 20 + RANGE_PARTS_BYTES * ranges.len(),
            Self::List { bits, ranges, .. } | Self::Want { bits, ranges, .. } => {
                20 + lists_len(*bits, ranges)
            }
            Self::Offer { versions, .. } => 20 + OFFERED_BYTES * versions.len(),
            Self::OfferAck { answers, .. } => 20 + answers.len(),
            Self::Bury { graves, .. } => 30 + HASHED_KEY_BYTES * graves.len(),
            Self::Buried { agreed, .. } => 20 + agreed.len(),
        }
    }

    /// At most how many bytes a `Write` of this version takes, with a value of that length or without.
    pub(crate) fn write_len_hint(key: &Key, version: &Version, value: Option<usize>) -> usize {
        20 + key.as_str().len() + version_len_hint(version) + value_len_hint(value)
    }

    /// At most how many bytes a `ReadReply` with these takes.
    pub(crate) fn reply_len_hint(records: &[Record]) -> usize {
        let value = |r: &Record| value_len_hint(r.value.as_ref().map(Bytes::len));
        20 + records.iter().map(|r| version_len_hint(&r.version) + value(r)).sum::<usize>()
    }

    /// Whether nobody waits for it: what goes back and forth between nodes at rest.
    pub(crate) fn can_wait(&self) -> bool {
        matches!(
            self,
            Self::Ping { .. }
                | Self::Pong { .. }
                | Self::Members { .. }
                | Self::Compare { .. }
                | Self::Equal { .. }
        )
    }

    /// It can't be shorter than this. Spares the encoding of what won't fit anyway.
    pub(crate) fn shortest(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let ranges = |version: &Version| SHORTEST_RANGE_BYTES * version.context.ranges().len();
        match self {
            Self::Write { version, value, .. } => ranges(version) + len(value),
            Self::Piece { bytes, .. } => len(bytes),
            Self::ReadReply { records: Some(records), .. } => {
                records.iter().map(|r| ranges(&r.version) + len(&r.value)).sum()
            }
            _ => 0,
        }
    }

    /// Whether a peer would take it: the named limits of this module. A message that is short enough
    /// may still have too many of something.
    pub(crate) fn is_within_limits(&self) -> bool {
        let fits = |context: &Context| context.ranges().len() <= MAX_CONTEXT_RANGES;
        match self {
            Self::Write { version, .. } => fits(&version.context),
            Self::ReadReply { records: Some(records), .. } => {
                records.len() <= MAX_RECORDS_PER_REPLY && records.iter().all(|r| fits(&r.version.context))
            }
            Self::Await { context, .. } => fits(context),
            Self::Members { entries, .. } => {
                entries.len() <= MAX_MEMBERS_PER_MESSAGE && entries.iter().all(|m| m.addrs.len() <= MAX_ADDRS)
            }
            Self::Compare { trees, .. } => trees.len() <= MAX_TREES_PER_MESSAGE,
            Self::Parts { ranges, .. } => ranges.len() <= MAX_RANGES_PER_MESSAGE,
            Self::List { ranges, .. } | Self::Want { ranges, .. } => lists_fit(ranges),
            Self::Offer { versions, .. } => versions.len() <= MAX_OFFERED_PER_MESSAGE,
            Self::OfferAck { answers, .. } => answers.len() <= MAX_OFFERED_PER_MESSAGE,
            Self::Bury { graves, .. } => graves.len() <= MAX_GRAVES_PER_MESSAGE,
            Self::Buried { agreed, .. } => agreed.len() <= MAX_GRAVES_PER_MESSAGE,
            _ => true,
        }
    }
}

/// The array's head, the type, and the leading numbers; `more` fields follow.
fn head(out: &mut Vec<u8>, kind: u64, numbers: &[u64], more: usize) {
    put_array(out, 1 + numbers.len() + more);
    put_uint(out, kind);
    numbers.iter().for_each(|&n| put_uint(out, n));
}

fn put_each<T>(out: &mut Vec<u8>, items: &[T], encode: fn(&T, &mut Vec<u8>)) {
    put_array(out, items.len());
    items.iter().for_each(|item| encode(item, out));
}

fn decode_message(r: &mut Reader<'_>) -> Result<Message, DecodeError> {
    let fields = r.fields("message", 1)?;
    let kind = r.uint("type")?;
    let known = match kind {
        BYE => 0,
        EQUAL => 1,
        WRITE_ACK | READ_REPLY | PING | PONG | MEMBERS | COMPARE | OFFER | OFFER_ACK => 2,
        READ | PIECE | BURIED => 3,
        WRITE | AWAIT | BURY | PARTS | LIST | WANT => 4,
        FETCH => 6,
        _ => return Err(DecodeError::UnknownType(kind)),
    };
    let later = fields.checked_sub(known).ok_or(DecodeError::Malformed("message"))?;
    let message = match kind {
        WRITE => Message::Write {
            tag: r.uint("tag")?,
            key: decode_key(r)?,
            version: Arc::new(decode_version(r)?),
            value: r.shared("value")?,
        },
        WRITE_ACK => Message::WriteAck { tag: r.uint("tag")?, status: decode_status(r)? },
        READ => Message::Read { tag: r.uint("tag")?, key: decode_key(r)?, values: r.flag("values")? },
        READ_REPLY => Message::ReadReply {
            tag: r.uint("tag")?,
            records: match r.nil() {
                true => None,
                false => Some(decode_each(r, "records", MAX_RECORDS_PER_REPLY, decode_record)?),
            },
        },
        AWAIT => Message::Await {
            tag: r.uint("tag")?,
            key: decode_key(r)?,
            context: decode_context(r)?,
            within_ms: r.uint("within_ms")?,
        },
        FETCH => {
            let tag = r.uint("tag")?;
            let dot = decode_dot(r)?;
            let (offset, len) = (r.uint("offset")?, r.small("len")?);
            Message::Fetch { tag, key: decode_key(r)?, dot, offset, len }
        }
        PIECE => Message::Piece { tag: r.uint("tag")?, offset: r.uint("offset")?, bytes: r.shared("bytes")? },
        PING => Message::Ping { sequence: r.uint("sequence")?, vitals: decode_vitals(r)? },
        PONG => Message::Pong { sequence: r.uint("sequence")?, vitals: decode_vitals(r)? },
        MEMBERS => Message::Members {
            entries: decode_each(r, "entries", MAX_MEMBERS_PER_MESSAGE, decode_member)?,
            reply: r.flag("reply")?,
        },
        COMPARE => Message::Compare { round: r.small("round")?, trees: decode_trees(r)? },
        EQUAL => Message::Equal { round: r.small("round")? },
        PARTS | LIST | WANT => {
            let (salt, mirrors, bits) = (r.small("salt")?, Mirrors(r.small("mirrors")?), decode_bits(r)?);
            match kind {
                PARTS => Message::Parts { salt, mirrors, bits, ranges: decode_parts(r, bits)? },
                LIST => Message::List { salt, mirrors, bits, ranges: decode_lists(r, bits)? },
                _ => Message::Want { salt, mirrors, bits, ranges: decode_lists(r, bits)? },
            }
        }
        OFFER => Message::Offer { tag: r.uint("tag")?, versions: decode_offered(r)? },
        OFFER_ACK => Message::OfferAck { tag: r.uint("tag")?, answers: decode_interest(r)? },
        BURY => Message::Bury {
            round: r.uint("round")?,
            members: r.uint("members")?,
            step: decode_step(r)?,
            graves: decode_hashed_keys(r, "graves", MAX_GRAVES_PER_MESSAGE)?,
        },
        BURIED => Message::Buried {
            round: r.uint("round")?,
            step: decode_step(r)?,
            agreed: packed::<1>(r, "agreed", MAX_GRAVES_PER_MESSAGE)?.map(|byte| byte[0] != 0).collect(),
        },
        _ => Message::Bye,
    };
    r.skip(later)?;
    Ok(message)
}

fn decode_each<T>(
    r: &mut Reader<'_>,
    field: &'static str,
    limit: usize,
    decode: fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    // Each element is an array of at least four fields.
    let count = r.count(field, limit, 5)?;
    (0..count).map(|_| decode(r)).collect()
}
