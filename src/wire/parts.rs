//! The nouns within messages: versions, contexts, members. Those of sync and of offers: `ranges`.
//!
//! Each is an array that may grow at its end. What decodes keeps the promises of its type.

use std::net::{IpAddr, SocketAddr};

use super::{
    AckStatus, BurialStep, DecodeError, HashedKey, Vitals,
    codec::MAX_CONTEXT_RANGES,
    pack::{
        Reader, put_array, put_bool, put_bytes, put_bytes_len, put_nil, put_optional_bytes, put_text,
        put_uint,
    },
};
use crate::model::{
    Actor, Context, Digest, Dot, Key, Kind, MAX_ADDRS, Member, MemberKey, MemberState, Mirrors, NodeId,
    Proofs, PublicKey, Record, Seal, Stamp, Version, Vouched, Warrant,
};

/// Bytes of a packed [`HashedKey`].
pub(super) const HASHED_KEY_BYTES: usize = 16;

/// `[actor, counter, since, context, written, expires | nil, kind, mirrors, len, digest]`, and of a signed
/// one `author, signature` behind.
pub(crate) fn encode_version(version: &Version, out: &mut Vec<u8>) {
    put_array(out, if version.seal.is_some() { 12 } else { 10 });
    put_uint(out, version.dot.actor.0);
    put_uint(out, version.dot.counter);
    put_uint(out, version.since);
    encode_context(&version.context, out);
    put_uint(out, version.written_ms);
    match version.expires_ms {
        Some(at) => put_uint(out, at),
        None => put_nil(out),
    }
    put_uint(out, matches!(version.kind, Kind::Tombstone).into());
    put_uint(out, version.mirrors.0.into());
    put_uint(out, version.len);
    put_bytes(out, &version.digest.0);
    if let Some(seal) = &version.seal {
        put_bytes(out, &seal.author.0);
        put_bytes(out, &seal.signature);
    }
}

pub(crate) fn decode_version(r: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let mut later = r.fields("version", 10)?;
    let mut version = Version {
        dot: decode_dot(r)?,
        since: r.uint("since")?,
        context: decode_context(r)?,
        written_ms: r.uint("written_ms")?,
        expires_ms: if r.nil() { None } else { Some(r.uint("expires_ms")?) },
        kind: match r.uint("kind")? {
            0 => Kind::Value,
            1 => Kind::Tombstone,
            _ => return Err(DecodeError::Malformed("kind")),
        },
        mirrors: Mirrors(r.small("mirrors")?),
        len: r.uint("len")?,
        digest: Digest(r.bytes("digest")?.try_into().map_err(|_| DecodeError::Malformed("digest"))?),
        seal: None,
    };
    if later >= 2 {
        version.seal = Some(decode_seal(r)?.into());
        later -= 2;
    }
    r.skip(later)?;
    if version.since >= version.dot.counter {
        return Err(DecodeError::Malformed("since"));
    }
    if version.covers(version.dot) {
        return Err(DecodeError::Malformed("context"));
    }
    if version.kind == Kind::Tombstone && version.len != 0 {
        return Err(DecodeError::Malformed("len"));
    }
    Ok(version)
}

fn decode_seal(r: &mut Reader<'_>) -> Result<Seal, DecodeError> {
    let author = r.bytes("author")?.try_into().map_err(|_| DecodeError::Malformed("author"))?;
    let signature = r.bytes("signature")?.try_into().map_err(|_| DecodeError::Malformed("signature"))?;
    Ok(Seal { author: PublicKey(author), signature })
}

/// At most how many bytes a version takes.
pub(super) fn version_len_hint(version: &Version) -> usize {
    100 + if version.seal.is_some() { 100 } else { 0 } + context_len_hint(&version.context)
}

/// `[actor, low, high, actor, low, high ...]`
pub(super) fn encode_context(context: &Context, out: &mut Vec<u8>) {
    put_array(out, 3 * context.ranges().len());
    for (actor, low, high) in context.ranges() {
        put_uint(out, actor.0);
        put_uint(out, low);
        put_uint(out, high);
    }
}

/// Takes only what [`encode_context`] writes: ranges in order that neither are empty nor touch.
pub(super) fn decode_context(r: &mut Reader<'_>) -> Result<Context, DecodeError> {
    const BAD: DecodeError = DecodeError::Malformed("context");
    let count = r.count("context", 3 * MAX_CONTEXT_RANGES, 1)?;
    if count % 3 != 0 {
        return Err(BAD);
    }
    let mut context = Context::EMPTY;
    let mut end = None;
    for known in 1..=count / 3 {
        let (actor, low, high) = (Actor(r.uint("context")?), r.uint("context")?, r.uint("context")?);
        if low >= high || end.is_some_and(|end| end >= (actor, low)) {
            return Err(BAD);
        }
        context.add(actor, low, high);
        // An actor with too many holes: adding closed one, so this is not what was meant.
        if context.ranges().len() != known {
            return Err(BAD);
        }
        end = Some((actor, high));
    }
    Ok(context)
}

pub(super) fn context_len_hint(context: &Context) -> usize {
    5 + 27 * context.ranges().len()
}

/// At most how many bytes a value takes, or the nil in its place.
pub(crate) fn value_len_hint(value: Option<usize>) -> usize {
    value.map_or(1, |bytes| 5 + bytes)
}

pub(super) fn decode_dot(r: &mut Reader<'_>) -> Result<Dot, DecodeError> {
    Ok(Dot { actor: Actor(r.uint("actor")?), counter: r.uint("counter")? })
}

pub(super) fn decode_key(r: &mut Reader<'_>) -> Result<Key, DecodeError> {
    Key::new(r.text("key")?).map_err(|_| DecodeError::Malformed("key"))
}

pub(super) fn decode_node_id(r: &mut Reader<'_>) -> Result<NodeId, DecodeError> {
    r.text("id")?.parse().map_err(|_| DecodeError::Malformed("id"))
}

pub(super) fn encode_status(status: AckStatus) -> u64 {
    match status {
        AckStatus::Stored => 0,
        AckStatus::Known => 1,
        AckStatus::Held => 5,
        AckStatus::Fetching => 2,
        AckStatus::Busy => 3,
        AckStatus::Failed => 4,
        AckStatus::Refused => 6,
    }
}

pub(super) fn decode_status(r: &mut Reader<'_>) -> Result<AckStatus, DecodeError> {
    Ok(match r.uint("status")? {
        0 => AckStatus::Stored,
        1 => AckStatus::Known,
        5 => AckStatus::Held,
        2 => AckStatus::Fetching,
        3 => AckStatus::Busy,
        4 => AckStatus::Failed,
        6 => AckStatus::Refused,
        _ => return Err(DecodeError::Malformed("status")),
    })
}

/// `[version, value | nil]`
pub(super) fn encode_record(record: &Record, out: &mut Vec<u8>) {
    put_array(out, 2);
    encode_version(&record.version, out);
    put_optional_bytes(out, record.value.as_ref());
}

pub(super) fn decode_record(r: &mut Reader<'_>) -> Result<Record, DecodeError> {
    let later = r.fields("record", 2)?;
    let record = Record { version: decode_version(r)?.into(), value: r.shared("value")? };
    r.skip(later)?;
    Ok(record)
}

/// At most how many bytes an entry of the member list takes.
pub(crate) fn member_len_hint(member: &Member) -> usize {
    let proofs = if member.vouched.0.is_some() { 168 } else { 0 };
    58 + member.id.as_str().len() + 20 * member.addrs.len() + proofs
}

/// `[id, generation, state, revision, weight, [address ...], key]`, where the key is nil if it is unknown
/// and empty if it is disputed; of a signed one `signer, signature, own signature` behind, where the last is
/// empty if the member has not spoken.
pub(super) fn encode_member(member: &Member, out: &mut Vec<u8>) {
    put_array(out, if member.vouched.0.is_some() { 10 } else { 7 });
    put_text(out, member.id.as_str());
    put_uint(out, member.generation.into());
    put_uint(
        out,
        match member.state {
            MemberState::Active => 0,
            MemberState::Leaving => 1,
            MemberState::Removed => 2,
        },
    );
    put_uint(out, member.revision);
    put_uint(out, member.weight.into());
    put_array(out, member.addrs.len());
    member.addrs.iter().for_each(|addr| encode_addr(addr, out));
    match &member.key {
        MemberKey::Unknown => put_nil(out),
        MemberKey::Known(key) => put_bytes(out, &key.0),
        MemberKey::Disputed => put_bytes(out, &[]),
    }
    if let Some(Proofs { warrant, own }) = member.vouched.0.as_deref() {
        put_bytes(out, &warrant.signer.0);
        put_bytes(out, &warrant.signature);
        put_bytes(out, own.as_ref().map_or(&[], |own| own));
    }
}

pub(super) fn decode_member(r: &mut Reader<'_>) -> Result<Member, DecodeError> {
    let mut later = r.fields("member", 7)?;
    let mut member = Member {
        id: decode_node_id(r)?,
        generation: r.small("generation")?,
        state: match r.uint("state")? {
            0 => MemberState::Active,
            1 => MemberState::Leaving,
            2 => MemberState::Removed,
            _ => return Err(DecodeError::Malformed("state")),
        },
        revision: r.uint("revision")?,
        weight: r.small("weight")?,
        addrs: (0..r.count("addrs", MAX_ADDRS, 8)?).map(|_| decode_addr(r)).collect::<Result<_, _>>()?,
        key: decode_key_of_member(r)?,
        vouched: Vouched::default(),
    };
    if later >= 3 {
        member.vouched = Vouched(Some(decode_proofs(r)?.into()));
        later -= 3;
    }
    r.skip(later)?;
    Ok(member)
}

fn decode_proofs(r: &mut Reader<'_>) -> Result<Proofs, DecodeError> {
    let signer = PublicKey(r.bytes("signer")?.try_into().map_err(|_| DecodeError::Malformed("signer"))?);
    let signature = r.bytes("signature")?.try_into().map_err(|_| DecodeError::Malformed("signature"))?;
    let own = match r.bytes("own signature")? {
        [] => None,
        own => Some(own.try_into().map_err(|_| DecodeError::Malformed("own signature"))?),
    };
    Ok(Proofs { warrant: Warrant { signer, signature }, own })
}

fn decode_key_of_member(r: &mut Reader<'_>) -> Result<MemberKey, DecodeError> {
    if r.nil() {
        return Ok(MemberKey::Unknown);
    }
    let bytes = r.bytes("key")?;
    if bytes.is_empty() {
        return Ok(MemberKey::Disputed);
    }
    let key = bytes.try_into().map_err(|_| DecodeError::Malformed("key"))?;
    Ok(MemberKey::Known(PublicKey(key)))
}

/// One byte string: 4 or 16 bytes of IP, 2 of port, big endian. Flow and scope of IPv6 mean
/// something on the machine that wrote them only, and stay there.
fn encode_addr(addr: &SocketAddr, out: &mut Vec<u8>) {
    match addr.ip() {
        IpAddr::V4(ip) => {
            put_bytes_len(out, 6);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            put_bytes_len(out, 18);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&addr.port().to_be_bytes());
}

fn decode_addr(r: &mut Reader<'_>) -> Result<SocketAddr, DecodeError> {
    const BAD: DecodeError = DecodeError::Malformed("addrs");
    let (ip, port) = r.bytes("addrs")?.split_last_chunk::<2>().ok_or(BAD)?;
    let ip = match ip.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(ip).map_err(|_| BAD)?),
        16 => IpAddr::from(<[u8; 16]>::try_from(ip).map_err(|_| BAD)?),
        _ => return Err(BAD),
    };
    Ok(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

pub(super) fn encode_hashed_keys(keys: &[HashedKey], out: &mut Vec<u8>) {
    put_bytes_len(out, keys.len() * HASHED_KEY_BYTES);
    for key in keys {
        out.extend_from_slice(&key.hash.to_be_bytes());
        out.extend_from_slice(&key.digest.to_be_bytes());
    }
}

pub(super) fn decode_hashed_keys(
    r: &mut Reader<'_>,
    field: &'static str,
    limit: usize,
) -> Result<Vec<HashedKey>, DecodeError> {
    let split = |bytes: &[u8; HASHED_KEY_BYTES]| {
        let both = u128::from_be_bytes(*bytes);
        HashedKey { hash: (both >> 64) as u64, digest: both as u64 }
    };
    Ok(packed::<HASHED_KEY_BYTES>(r, field, limit)?.map(split).collect())
}

/// `[members, floor, floor heard, generation, stamp, generation kept, stamp kept, run kept, doubts, moves]`
pub(super) fn encode_vitals(vitals: &Vitals, out: &mut Vec<u8>) {
    let Vitals { members, floor, floor_heard, stamp, stamp_kept, run_kept, doubts, moves } = *vitals;
    put_array(out, 10);
    [members, floor, floor_heard].into_iter().for_each(|number| put_uint(out, number));
    for stamp in [stamp, stamp_kept] {
        put_uint(out, stamp.generation.into());
        put_uint(out, stamp.number);
    }
    put_uint(out, run_kept);
    put_bool(out, doubts);
    put_bool(out, moves);
}

pub(super) fn decode_vitals(r: &mut Reader<'_>) -> Result<Vitals, DecodeError> {
    let later = r.fields("vitals", 10)?;
    let (members, floor, floor_heard) = (r.uint("members")?, r.uint("floor")?, r.uint("floor_heard")?);
    let mut stamp = || Ok(Stamp { generation: r.small("generation")?, number: r.uint("number")? });
    let (stamp, stamp_kept) = (stamp()?, stamp()?);
    let (run_kept, doubts, moves) = (r.uint("run_kept")?, r.flag("doubts")?, r.flag("moves")?);
    r.skip(later)?;
    Ok(Vitals { members, floor, floor_heard, stamp, stamp_kept, run_kept, doubts, moves })
}

pub(super) fn encode_step(step: BurialStep) -> u64 {
    step as u64
}

pub(super) fn decode_step(r: &mut Reader<'_>) -> Result<BurialStep, DecodeError> {
    match r.uint("step")? {
        0 => Ok(BurialStep::Quiet),
        1 => Ok(BurialStep::Seal),
        2 => Ok(BurialStep::Bury),
        _ => Err(DecodeError::Malformed("step")),
    }
}

/// Elements of `BYTES` bytes each, packed into one byte string; at most `limit`.
pub(super) fn packed<'a, const BYTES: usize>(
    r: &mut Reader<'a>,
    field: &'static str,
    limit: usize,
) -> Result<impl Iterator<Item = &'a [u8; BYTES]> + use<'a, BYTES>, DecodeError> {
    let (elements, odd) = r.bytes(field)?.as_chunks::<BYTES>();
    match odd.is_empty() && elements.len() <= limit {
        true => Ok(elements.iter()),
        false => Err(DecodeError::Malformed(field)),
    }
}
