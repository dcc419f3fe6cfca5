//! The bytes of messages, hellos and frames: what goes in comes out, nothing else breaks it, and
//! the format stays what it was.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use turbopump::{
    model::{
        Actor, Context, Digest, Dot, Key, Kind, MAX_ADDRS, MAX_RANGES_PER_ACTOR, Member, MemberKey,
        MemberState, Members, Mirrors, NodeId, Proofs, PublicKey, Record, Stamp, Version, Vouched, Warrant,
    },
    wire::{
        AckStatus, BurialStep, DecodeError, FRAME_HEADER_BYTES, FrameError, FrameType, HashedKey, Header,
        Hello, Interest, LinkEvent, Links, Local, MAX_CONTEXT_RANGES, MAX_OFFERED_PER_MESSAGE, Message,
        Offered, RangeList, RangeParts, Refusal, TreeDigest, Vitals, WIRE_VERSION,
    },
};

const MAX_FRAME_BYTES: usize = 1_200;

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> (Result<Message, DecodeError>, usize) {
    let mut input = Bytes::copy_from_slice(bytes);
    let message = Message::decode(&mut input);
    (message, input.len())
}

fn keys() -> impl Strategy<Value = Key> {
    prop_oneof![".{1,20}", "[a-z/.]{200,1024}"].prop_map(|name| Key::new(name).unwrap())
}

fn node_ids() -> impl Strategy<Value = NodeId> {
    "[A-Za-z0-9._-]{1,32}".prop_map(|id| id.parse().unwrap())
}

/// Small and large numbers alike: MessagePack has five widths.
fn numbers() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(number, shift)| number >> shift)
}

fn contexts() -> impl Strategy<Value = Context> {
    vec((0_u64..4, numbers(), 1_u64..50), 0..12).prop_map(|ranges| {
        let mut context = Context::EMPTY;
        ranges
            .iter()
            .for_each(|&(actor, low, len)| context.add(Actor(actor * 99), low, low.saturating_add(len)));
        context
    })
}

fn versions() -> impl Strategy<Value = Version> {
    let kinds = prop_oneof![Just(Kind::Value), Just(Kind::Tombstone)];
    let numbers =
        (any::<u64>(), 1..=u64::MAX, numbers(), numbers(), option::of(numbers()), any::<u16>(), numbers());
    (numbers, kinds, contexts(), any::<[u8; 32]>()).prop_map(
        |((actor, counter, back, written_ms, expires_ms, mirrors, len), kind, context, digest)| Version {
            dot: Dot { actor: Actor(actor), counter },
            since: (counter - 1).saturating_sub(back),
            context,
            written_ms,
            expires_ms,
            kind,
            mirrors: Mirrors(mirrors),
            len: if kind == Kind::Tombstone { 0 } else { len },
            digest: Digest(digest),
            seal: None,
        },
    )
}

fn values() -> impl Strategy<Value = Option<Bytes>> {
    option::of(prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 200..300)].prop_map(Bytes::from))
}

fn records() -> impl Strategy<Value = Record> {
    (versions(), values()).prop_map(|(version, value)| Record { version: version.into(), value })
}

fn addrs() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from),
    ]
}

fn entries() -> impl Strategy<Value = Member> {
    let states =
        prop_oneof![Just(MemberState::Active), Just(MemberState::Leaving), Just(MemberState::Removed)];
    let keys = prop_oneof![
        Just(MemberKey::Unknown),
        any::<[u8; 32]>().prop_map(|key| MemberKey::Known(PublicKey(key))),
        Just(MemberKey::Disputed)
    ];
    let own = option::of(vec(any::<u8>(), 64).prop_map(|bytes| bytes.try_into().unwrap()));
    let proofs = (any::<[u8; 32]>(), vec(any::<u8>(), 64), own).prop_map(|(signer, signature, own)| {
        let warrant = Warrant { signer: PublicKey(signer), signature: signature.try_into().unwrap() };
        Proofs { warrant, own }.into()
    });
    let numbers = (any::<u32>(), numbers(), any::<u16>());
    (node_ids(), numbers, states, vec(addrs(), 0..=MAX_ADDRS), keys, option::of(proofs)).prop_map(
        |(id, (generation, revision, weight), state, addrs, key, proofs)| Member {
            id,
            generation,
            state,
            revision,
            weight,
            addrs,
            key,
            vouched: Vouched(proofs),
        },
    )
}

/// Ranges of one message: how many bits of their hashes are equal, and those bits.
fn prefixes<T: std::fmt::Debug>(
    each: impl Strategy<Value = T>,
    max: usize,
) -> impl Strategy<Value = (u8, Vec<(u64, T)>)> {
    (0_u8..=64, vec((any::<u64>(), each), 0..max)).prop_map(|(bits, mut ranges)| {
        let rest = u64::MAX.checked_shr(bits.into()).unwrap_or(0);
        ranges.iter_mut().for_each(|(prefix, _)| *prefix &= !rest);
        (bits, ranges)
    })
}

const CHECKS: std::ops::Range<u32> = 0..1 << 24;

fn parts() -> impl Strategy<Value = (u8, Vec<RangeParts>)> {
    prefixes(vec(CHECKS, 16), 9).prop_map(|(bits, ranges)| {
        let parts =
            |(prefix, checks): (u64, Vec<u32>)| RangeParts { prefix, checks: checks.try_into().unwrap() };
        (bits, ranges.into_iter().map(parts).collect())
    })
}

fn lists() -> impl Strategy<Value = (u8, Vec<RangeList>)> {
    prefixes(vec(CHECKS, 0..20), 9).prop_map(|(bits, ranges)| {
        let list = |(prefix, checks)| RangeList { prefix, checks };
        (bits, ranges.into_iter().map(list).collect())
    })
}

fn offered() -> impl Strategy<Value = Offered> {
    (any::<u64>(), any::<u32>(), any::<(u64, u64)>()).prop_map(|(hash, check, (actor, counter))| Offered {
        hash,
        check,
        dot: Dot { actor: Actor(actor), counter },
    })
}

fn interest() -> impl Strategy<Value = Interest> {
    prop::sample::select(vec![Interest::Wanted, Interest::Known, Interest::Coming])
}

fn statuses() -> impl Strategy<Value = AckStatus> {
    use AckStatus::*;
    prop::sample::select(vec![Stored, Known, Held, Fetching, Busy, Failed])
}

fn steps() -> impl Strategy<Value = BurialStep> {
    prop::sample::select(vec![BurialStep::Quiet, BurialStep::Seal, BurialStep::Bury])
}

fn vitals() -> impl Strategy<Value = Vitals> {
    let stamps = || (any::<u32>(), numbers()).prop_map(|(generation, number)| Stamp { generation, number });
    (any::<u64>(), numbers(), numbers(), stamps(), stamps(), numbers(), any::<[bool; 2]>()).prop_map(
        |(members, floor, floor_heard, stamp, stamp_kept, run_kept, [doubts, moves])| Vitals {
            members,
            floor,
            floor_heard,
            stamp,
            stamp_kept,
            run_kept,
            doubts,
            moves,
        },
    )
}

fn messages() -> impl Strategy<Value = Message> {
    prop_oneof![
        (numbers(), keys(), versions(), values()).prop_map(|(tag, key, version, value)| Message::Write {
            tag,
            key,
            version: version.into(),
            value
        }),
        (numbers(), statuses()).prop_map(|(tag, status)| Message::WriteAck { tag, status }),
        (numbers(), keys(), any::<bool>()).prop_map(|(tag, key, values)| Message::Read { tag, key, values }),
        (numbers(), option::of(vec(records(), 0..4)))
            .prop_map(|(tag, records)| Message::ReadReply { tag, records }),
        (numbers(), keys(), contexts(), numbers())
            .prop_map(|(tag, key, context, within_ms)| Message::Await { tag, key, context, within_ms }),
        (numbers(), keys(), any::<(u64, u64)>(), numbers(), any::<u32>()).prop_map(
            |(tag, key, (actor, counter), offset, len)| Message::Fetch {
                tag,
                key,
                dot: Dot { actor: Actor(actor), counter },
                offset,
                len
            }
        ),
        (numbers(), numbers(), values()).prop_map(|(tag, offset, bytes)| Message::Piece {
            tag,
            offset,
            bytes
        }),
        (numbers(), vitals()).prop_map(|(sequence, vitals)| Message::Ping { sequence, vitals }),
        (numbers(), vitals()).prop_map(|(sequence, vitals)| Message::Pong { sequence, vitals }),
        (vec(entries(), 0..5), any::<bool>())
            .prop_map(|(entries, reply)| Message::Members { entries, reply }),
        (any::<u32>(), vec(any::<(u16, u64)>(), 0..9)).prop_map(|(round, trees)| {
            let tree = |(mirrors, sum)| TreeDigest { mirrors: Mirrors(mirrors), sum };
            Message::Compare { round, trees: trees.into_iter().map(tree).collect() }
        }),
        any::<u32>().prop_map(|round| Message::Equal { round }),
        (any::<u32>(), any::<u16>(), parts()).prop_map(|(salt, mirrors, (bits, ranges))| Message::Parts {
            salt,
            mirrors: Mirrors(mirrors),
            bits,
            ranges
        }),
        (any::<u32>(), any::<u16>(), lists()).prop_map(|(salt, mirrors, (bits, ranges))| Message::List {
            salt,
            mirrors: Mirrors(mirrors),
            bits,
            ranges
        }),
        (any::<u32>(), any::<u16>(), lists()).prop_map(|(salt, mirrors, (bits, ranges))| Message::Want {
            salt,
            mirrors: Mirrors(mirrors),
            bits,
            ranges
        }),
        (numbers(), vec(offered(), 0..40)).prop_map(|(tag, versions)| Message::Offer { tag, versions }),
        (numbers(), vec(interest(), 0..40)).prop_map(|(tag, answers)| Message::OfferAck { tag, answers }),
        Just(Message::Bye),
        (numbers(), any::<u64>(), steps(), vec(any::<(u64, u64)>(), 0..40)).prop_map(
            |(round, members, step, graves)| {
                let graves = graves.into_iter().map(|(hash, digest)| HashedKey { hash, digest }).collect();
                Message::Bury { round, members, step, graves }
            }
        ),
        (numbers(), steps(), vec(any::<bool>(), 0..40)).prop_map(|(round, step, agreed)| Message::Buried {
            round,
            step,
            agreed
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn a_message_comes_out_as_it_went_in(message in messages(), next in messages()) {
        let mut bytes = encoded(&message);
        prop_assert!(bytes.len() <= message.encoded_len_hint(), "the hint is short: {message:?}");
        let first = bytes.len();
        next.encode(&mut bytes);
        let all = bytes.len();
        // What vouches for a member tells no two apart: it is looked at as bytes.
        prop_assert_eq!(decoded(&bytes).0.map(|message| encoded(&message)), Ok(bytes[..first].to_vec()));
        prop_assert_eq!(decoded(&bytes), (Ok(message), all - first));
        prop_assert_eq!(decoded(&bytes[first..]), (Ok(next), 0));
    }

    #[test]
    fn a_message_that_is_cut_short_says_so(message in messages(), part in 0.0..1.0) {
        let bytes = encoded(&message);
        let end = (bytes.len() as f64 * part) as usize;
        prop_assert_eq!(decoded(&bytes[..end]), (Err(DecodeError::Truncated), 0));
    }

    #[test]
    fn later_fields_are_skipped(message in messages(), count in 1_u8..=8) {
        let mut bytes = encoded(&message);
        prop_assert!(bytes[0] & 0xf0 == 0x90, "a short array");
        bytes[0] += count;
        // nil, a float, a map of an array to a text, an extension, a flag, bytes, -1, a number.
        let fields: [&[u8]; 8] = [
            &[0xc0], &[0xcb, 1, 2, 3, 4, 5, 6, 7, 8], &[0x81, 0x91, 0x90, 0xa2, b'h', b'i'],
            &[0xd5, 3, 1, 2], &[0xc3], &[0xc4, 2, 9, 9], &[0xff], &[0xcd, 1, 0],
        ];
        fields[..usize::from(count)].iter().for_each(|field| bytes.extend_from_slice(field));
        bytes.push(0x91);
        prop_assert_eq!(decoded(&bytes), (Ok(message), 1));
    }

    #[test]
    fn changed_bytes_never_panic_and_what_decodes_is_sound(
        message in messages(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = encoded(&message);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        sound(&bytes);
    }

    #[test]
    fn any_bytes_never_panic_and_what_decodes_is_sound(bytes in vec(any::<u8>(), 0..200)) {
        sound(&bytes);
    }

    #[test]
    fn a_hello_comes_out_as_it_went_in(
        (cluster, id, incarnation, partitions) in (".{0,60}", node_ids(), numbers(), any::<u32>()),
        (placement, token, echo) in ("[a-z]{0,60}", numbers(), numbers()),
        refusal in option::of(prop::sample::select(Refusal::ALL.to_vec())),
    ) {
        let hello = Hello { cluster, id, incarnation, partitions, placement, token, echo, refusal };
        let frame = hello.to_frame();
        let header = Header::parse(&frame).unwrap();
        prop_assert_eq!((header.kind, header.token), (FrameType::Hello, 0));
        prop_assert_eq!(Hello::decode(&frame.slice(FRAME_HEADER_BYTES..)), Ok(hello));
    }

    #[test]
    fn a_header_comes_out_as_it_went_in(token in any::<u64>(), len in 0_usize..100, kind in kinds()) {
        let header = Header { kind, token, len: len as u32 };
        let mut frame = header.emit().to_vec();
        frame.resize(FRAME_HEADER_BYTES + len, 0);
        prop_assert_eq!(Header::parse(&frame), Ok(header));
        frame.push(0);
        prop_assert_eq!(Header::parse(&frame), Err(FrameError::Length));
    }
}

fn kinds() -> impl Strategy<Value = FrameType> {
    prop::sample::select(vec![FrameType::Hello, FrameType::Messages, FrameType::Part])
}

/// Two ends of a link over frames of [`MAX_FRAME_BYTES`], and where the first is.
fn linked() -> (Links, Links, SocketAddr) {
    let mut members = Members::default();
    ["a", "b"].iter().for_each(|id| _ = members.merge(&Member::new(id.parse().unwrap(), vec![])));
    let links = |id: &str| {
        let (cluster, placement) = ("t".into(), "ring".into());
        let local = Local { id: id.parse().unwrap(), cluster, incarnation: 1, partitions: 64, placement };
        let mut links = Links::new(local, MAX_FRAME_BYTES, 1);
        links.admit(&members);
        links
    };
    let (mut a, mut b) = (links("a"), links("b"));
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    a.dial(0, "b".parse().unwrap(), &[at(2)]);
    for _ in 0..2 {
        flushed(&mut a).into_iter().for_each(|frame| b.received(0, at(1), frame, &mut vec![]));
        flushed(&mut b).into_iter().for_each(|frame| a.received(0, at(2), frame, &mut vec![]));
    }
    assert!(a.is_up("b".parse().unwrap()) && b.is_up("a".parse().unwrap()));
    (a, b, at(1))
}

fn flushed(links: &mut Links) -> Vec<Bytes> {
    let mut frames = vec![];
    links.flush(&mut |_, frame| frames.push(frame));
    frames
}

/// What comes of these frames at the other end of the link, in this order.
fn heard(links: &mut Links, from: SocketAddr, frames: &[Bytes]) -> Vec<Message> {
    let mut events = vec![];
    frames.iter().for_each(|frame| links.received(1, from, frame.clone(), &mut events));
    let message = |event| match event {
        LinkEvent::Message { message, .. } => message,
        other => panic!("{other:?}"),
    };
    events.into_iter().map(message).collect()
}

/// Longer than a frame: a run of records whose contexts name many writers.
fn long_messages() -> impl Strategy<Value = Message> {
    let contexts = vec((any::<u64>(), numbers()), 40..90).prop_map(|ranges| {
        let mut context = Context::EMPTY;
        // Not the actor that the version is of.
        ranges.iter().for_each(|&(actor, low)| context.add(Actor(actor | 1), low / 4, low / 4 + 1));
        context
    });
    let record = (versions(), contexts, values()).prop_map(|(version, context, value)| {
        let dot = Dot { actor: Actor(version.dot.actor.0 & !1), ..version.dot };
        Record { version: Version { dot, context, ..version }.into(), value }
    });
    (numbers(), vec(record, 2..6))
        .prop_map(|(tag, records)| Message::ReadReply { tag, records: Some(records) })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn long_messages_come_out_of_any_order_of_their_frames(
        sent in vec(long_messages(), 1..4),
        places in vec(any::<prop::sample::Index>(), 200),
    ) {
        let (mut a, mut b, from) = linked();
        for message in &sent {
            prop_assert!(encoded(message).len() <= message.encoded_len_hint(), "the hint is short: {message:?}");
            a.send("b".parse().unwrap(), message).unwrap();
        }
        let mut frames = flushed(&mut a);
        prop_assert!(frames.iter().all(|frame| frame.len() <= MAX_FRAME_BYTES));
        let is_part = |frame: &Bytes| Header::parse(frame).is_ok_and(|header| header.kind == FrameType::Part);
        prop_assert!(frames.len() >= 2 * sent.len() && frames.iter().all(is_part));
        // All but one, each of them twice, in any order; then that one.
        let last = frames.pop().unwrap();
        frames.extend(frames.clone());
        for (at, place) in places.iter().enumerate().take(frames.len()) {
            let other = place.index(frames.len());
            frames.swap(at, other);
        }
        let mut got = heard(&mut b, from, &frames);
        prop_assert!(!got.contains(sent.last().unwrap()));
        got.extend(heard(&mut b, from, &[last]));
        prop_assert!(sent.iter().all(|message| got.contains(message)));
        prop_assert!(got.iter().all(|message| sent.contains(message)));
    }
}

/// Decodes until nothing is left; what decodes must survive another round.
fn sound(bytes: &[u8]) {
    let mut input = Bytes::copy_from_slice(bytes);
    while !input.is_empty() {
        let before = input.len();
        let message = Message::decode(&mut input);
        assert!(input.len() < before, "nothing was taken");
        if let Ok(message) = message {
            assert_eq!(decoded(&encoded(&message)), (Ok(message), 0));
        }
    }
}

fn version() -> Version {
    let mut context = Context::EMPTY;
    context.add(Actor(0x0102_0304_0506_0708), 0, 7);
    context.add(Actor(9), 300, 70_000);
    Version {
        dot: Dot { actor: Actor(0xfedc_ba98_7654_3210), counter: 258 },
        since: 5,
        context,
        written_ms: 1_700_000_000_000,
        expires_ms: None,
        kind: Kind::Value,
        mirrors: Mirrors(3),
        len: 5,
        digest: Digest::of(b"hello"),
        seal: None,
    }
}

fn write_of(version: Version) -> Message {
    let (key, value) = (Key::new("key").unwrap(), Some(Bytes::from_static(b"hello")));
    Message::Write { tag: 42, key, version: Arc::new(version), value }
}

fn refusal_of(version: Version) -> Result<Message, DecodeError> {
    let (message, left) = decoded(&encoded(&write_of(version)));
    assert_eq!(left, 0);
    message
}

#[test]
fn versions_that_break_their_promises_are_refused() {
    let malformed = |field| Err(DecodeError::Malformed(field));
    assert_eq!(refusal_of(Version { since: 258, ..version() }), malformed("since"));
    let mut context = Context::EMPTY;
    context.add(version().dot.actor, 250, 260);
    assert_eq!(refusal_of(Version { context, ..version() }), malformed("context"));
    assert_eq!(refusal_of(Version { kind: Kind::Tombstone, ..version() }), malformed("len"));
}

/// Method: an `Await` with a context written by hand, as (actor, low, high).
fn await_with(ranges: &[(u8, u8, u8)]) -> Result<Message, DecodeError> {
    let mut bytes = vec![0x95, 5, 1, 0xa1, b'k', 0xdc, 0, 3 * ranges.len() as u8];
    ranges.iter().for_each(|&(actor, low, high)| bytes.extend_from_slice(&[actor, low, high]));
    bytes.push(9);
    decoded(&bytes).0
}

#[test]
fn contexts_come_in_order_without_empty_or_touching_ranges() {
    assert!(await_with(&[]).is_ok());
    assert!(await_with(&[(1, 0, 5), (1, 6, 7), (2, 0, 1)]).is_ok());
    for bad in [
        [(1, 0, 5), (1, 5, 7)],
        [(1, 0, 5), (1, 3, 7)],
        [(1, 6, 7), (1, 0, 5)],
        [(2, 0, 5), (1, 0, 5)],
        [(1, 5, 5), (2, 0, 1)],
        [(1, 6, 5), (2, 0, 1)],
    ] {
        assert_eq!(await_with(&bad), Err(DecodeError::Malformed("context")), "{bad:?}");
    }
}

#[test]
fn a_context_with_more_holes_than_it_may_keep_is_refused() {
    let mut bytes = vec![0x95, 5, 1, 0xa1, b'k', 0xdc];
    bytes.extend_from_slice(&(3 * (MAX_RANGES_PER_ACTOR as u16 + 1)).to_be_bytes());
    for n in 0..=MAX_RANGES_PER_ACTOR as u16 {
        let [low, high] = [10 * n, 10 * n + 1].map(u16::to_be_bytes);
        bytes.extend_from_slice(&[1, 0xcd, low[0], low[1], 0xcd, high[0], high[1]]);
    }
    bytes.push(9);
    assert_eq!(decoded(&bytes).0, Err(DecodeError::Malformed("context")));
}

#[test]
fn counts_beyond_their_limit_or_the_bytes_are_refused_before_anything_is_allocated() {
    // A reply with four billion records, a context with a million ranges, a key of 4 GiB.
    let huge: [&[u8]; 3] = [
        &[0x93, 4, 1, 0xdd, 0xff, 0xff, 0xff, 0xff, 0xc0],
        &[0x95, 5, 1, 0xa1, b'k', 0xdd, 0, 0x2d, 0xc6, 0xc0, 0],
        &[0x94, 3, 1, 0xdb, 0xff, 0xff, 0xff, 0xff, b'k'],
    ];
    for (bytes, error) in huge.into_iter().zip([
        DecodeError::Malformed("records"),
        DecodeError::Malformed("context"),
        DecodeError::Truncated,
    ]) {
        assert_eq!(decoded(bytes), (Err(error), 0));
    }
    let within = [0x93, 4, 1, 0xdc, 0x03, 0xff, 0xc0];
    assert_eq!(decoded(&within), (Err(DecodeError::Truncated), 0));
    let offer = Offered { hash: 0, check: 0, dot: version().dot };
    let offer = Message::Offer { tag: 1, versions: vec![offer; MAX_OFFERED_PER_MESSAGE + 1] };
    assert_eq!(decoded(&encoded(&offer)).0, Err(DecodeError::Malformed("versions")));
    // Ranges of one byte each: nobody means that many.
    let mut lists = vec![0x95, 12, 0, 0, 0, 0xc6, 0, 1, 0, 0];
    lists.resize(10 + 65_536, 0);
    assert_eq!(decoded(&lists), (Err(DecodeError::Malformed("ranges")), 0));
    const { assert!(MAX_CONTEXT_RANGES >= 8 * MAX_RANGES_PER_ACTOR) };
}

#[test]
fn ranges_end_where_their_bytes_do_and_have_no_more_bits_than_they_say() {
    let list = |bits, bytes: &[u8]| {
        let mut all = vec![0x95, 12, 0, 1, bits, 0xc4, bytes.len() as u8];
        all.extend_from_slice(bytes);
        decoded(&all).0
    };
    assert!(list(0, &[0]).is_ok());
    assert!(list(12, &[0xab, 0xc0, 1, 0, 0, 7]).is_ok());
    let malformed = |field| Err(DecodeError::Malformed(field));
    assert_eq!(list(65, &[]), malformed("bits"));
    for (bits, bytes) in
        [(12, &[0xab, 0xc1, 0][..]), (12, &[0xab]), (4, &[0xa0, 2, 0, 0, 7]), (4, &[0xa8, 0])]
    {
        assert_eq!(list(bits, bytes), malformed("ranges"), "{bits} {bytes:?}");
    }
    let parts = decoded(&[0x95, 18, 0, 1, 0, 0xc4, 2, 0, 0]).0;
    assert_eq!(parts, malformed("ranges"));
    assert_eq!(decoded(&[0x93, 20, 1, 0xc4, 1, 3]).0, malformed("answers"));
}

#[test]
fn nesting_costs_no_stack() {
    // Bye with one more field: an array in an array, a million deep.
    let mut bytes = vec![0x92, 14];
    bytes.resize(1_000_000, 0x91);
    bytes.push(0xc0);
    assert_eq!(decoded(&bytes), (Ok(Message::Bye), 0));
}

#[test]
fn values_share_the_memory_of_the_frame() {
    let mut input = Bytes::from(encoded(&write_of(version())));
    let whole = input.as_ptr_range();
    let Ok(Message::Write { value: Some(value), .. }) = Message::decode(&mut input) else { panic!() };
    assert!(whole.contains(&value.as_ptr()));
}

#[test]
fn an_unknown_message_or_a_bad_field_costs_that_message_only() {
    let mut bytes = vec![0x92, 0xcc, 200, 0x92, 0xc0, 0xa1, b'x'];
    assert_eq!(decoded(&bytes), (Err(DecodeError::UnknownType(200)), 0));
    bytes.extend_from_slice(&[0x93, 2, 1, 99]);
    assert_eq!(decoded(&bytes[7..]), (Err(DecodeError::Malformed("status")), 0));
    bytes.extend_from_slice(&[0x91, 14]);
    assert_eq!(decoded(&bytes), (Err(DecodeError::UnknownType(200)), 6));
    assert_eq!(decoded(&bytes[7..]), (Err(DecodeError::Malformed("status")), 2));
    assert_eq!(decoded(&bytes[11..]), (Ok(Message::Bye), 0));
}

#[test]
fn frames_of_others_are_refused_with_the_reason() {
    let good = Header { kind: FrameType::Messages, token: 1, len: 0 }.emit();
    assert!(Header::parse(&good).is_ok());
    let with = |at: usize, byte: u8| {
        let mut frame = good;
        frame[at] = byte;
        Header::parse(&frame)
    };
    assert_eq!(with(0, b'x'), Err(FrameError::NotOurs));
    assert_eq!(with(2, WIRE_VERSION + 1), Err(FrameError::Version(WIRE_VERSION + 1)));
    assert_eq!(with(3, 0), Err(FrameError::Type(0)));
    assert_eq!(with(3, 4), Err(FrameError::Type(4)));
    assert_eq!(with(7, 1), Err(FrameError::Length));
    assert_eq!(Header::parse(&good[..15]), Err(FrameError::NotOurs));
    assert_eq!(Header::parse(b""), Err(FrameError::NotOurs));
}

#[test]
fn a_refusal_of_a_later_release_is_still_a_refusal() {
    let local: NodeId = "n".parse().unwrap();
    let hello = Hello {
        cluster: "c".into(),
        id: local,
        incarnation: 1,
        partitions: 1,
        placement: "p".into(),
        token: 1,
        echo: 1,
        refusal: None,
    };
    let mut body = hello.to_frame()[FRAME_HEADER_BYTES..].to_vec();
    *body.last_mut().unwrap() = 99;
    assert_eq!(Hello::decode(&body.into()).unwrap().refusal, Some(Refusal::Other));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The format is frozen: these bytes may gain company, and never change.
#[test]
fn golden_bytes() {
    let key = || Key::new("key").unwrap();
    let dot = Dot { actor: Actor(0xfedc_ba98_7654_3210), counter: 258 };
    let member = Member {
        id: "n1".parse().unwrap(),
        generation: 1,
        state: MemberState::Leaving,
        revision: 300,
        weight: 2,
        addrs: vec!["127.0.0.1:1593".parse().unwrap(), "[::1]:1593".parse().unwrap()],
        key: MemberKey::Known(PublicKey([0xab; 32])),
        vouched: Vouched::default(),
    };
    let mirrors = Mirrors(3);
    let tree = TreeDigest { mirrors, sum: 0x1122_3344_5566_7788 };
    let mut parts = RangeParts { prefix: 0xabc << 52, checks: [0; 16] };
    (parts.checks[0], parts.checks[15]) = (0xff_ee_dd, 1);
    let list = RangeList { prefix: 0xabc << 52, checks: vec![1, 0xff_ee_dd] };
    let (salt, bits) = (70_000, 12);
    let offer = Offered { hash: 2, check: 3, dot };
    let answers = vec![Interest::Wanted, Interest::Known, Interest::Coming];
    let mut context = Context::EMPTY;
    context.add(Actor(1), 2, 3);
    let tombstone = Version {
        kind: Kind::Tombstone,
        len: 0,
        digest: Digest::of(b""),
        seal: None,
        expires_ms: Some(1_700_000_000_001),
        context: Context::EMPTY,
        ..version()
    };
    let record = Record { version: tombstone.into(), value: None };
    let vitals = Vitals {
        members: 0x0102_0304_0506_0708,
        floor: 300,
        floor_heard: 5,
        stamp: Stamp { generation: 0, number: 7 },
        stamp_kept: Stamp { generation: 6, number: 10 },
        run_kept: 11,
        doubts: true,
        moves: false,
    };
    let graves = vec![HashedKey { hash: 2, digest: 3 }];
    let vectors: Vec<(Message, &str)> = vec![
        (
            write_of(version()),
            "95012aa36b65799acffedcba9876543210cd0102059609cd012cce00011170cf0102030405060708\
             0007cf0000018bcfe56800c0000305c420ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a\
             86e908c5624a67200fc40568656c6c6f",
        ),
        (Message::WriteAck { tag: 42, status: AckStatus::Stored }, "93022a00"),
        (Message::Read { tag: 42, key: key(), values: true }, "94032aa36b6579c3"),
        (Message::ReadReply { tag: 42, records: None }, "93042ac0"),
        (
            Message::ReadReply { tag: 42, records: Some(vec![record]) },
            "93042a91929acffedcba9876543210cd01020590cf0000018bcfe56800cf0000018bcfe568010103\
             00c420af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262c0",
        ),
        (Message::Await { tag: 42, key: key(), context, within_ms: 9_000 }, "95052aa36b657993010203cd2328"),
        (
            Message::Fetch { tag: 42, key: key(), dot, offset: 65_536, len: 1_024 },
            "97062acffedcba9876543210cd0102ce00010000cd0400a36b6579",
        ),
        (
            Message::Piece { tag: 42, offset: 65_536, bytes: Some(Bytes::from_static(b"abc")) },
            "94072ace00010000c403616263",
        ),
        (Message::Ping { sequence: 200, vitals }, "9308ccc89acf0102030405060708cd012c050007060a0bc3c2"),
        (Message::Pong { sequence: 200, vitals: Vitals::default() }, "9309ccc89a0000000000000000c2c2"),
        (
            Message::Members { entries: vec![member], reply: true },
            "930a9197a26e310101cd012c0292c4067f0000010639c41200000000000000000000000000000001\
             0639c420ababababababababababababababababababababababababababababababababc3",
        ),
        (Message::Compare { round: 7, trees: vec![tree] }, "930b07c40a00031122334455667788"),
        (
            Message::List { salt, mirrors, bits, ranges: vec![list.clone()] },
            "950cce00011170030cc409abc002000001ffeedd",
        ),
        (
            Message::Want { salt, mirrors, bits, ranges: vec![list] },
            "950dce00011170030cc409abc002000001ffeedd",
        ),
        (Message::Equal { round: 7 }, "921107"),
        (
            Message::Parts { salt, mirrors, bits, ranges: vec![parts] },
            "9512ce00011170030cc432abc0ffeedd000000000000000000000000000000000000000000000000\
             000000000000000000000000000000000000000001",
        ),
        (
            Message::Offer { tag: 42, versions: vec![offer] },
            "93132ac41c000000000000000200000003fedcba98765432100000000000000102",
        ),
        (Message::OfferAck { tag: 42, answers }, "93142ac403000102"),
        (Message::Bye, "910e"),
        (
            Message::Bury { round: 9, members: 1, step: BurialStep::Seal, graves },
            "950f090101c41000000000000000020000000000000003",
        ),
        (
            Message::Buried { round: 9, step: BurialStep::Quiet, agreed: vec![true, false] },
            "94100900c4020100",
        ),
    ];
    for (message, golden) in vectors {
        assert_eq!(hex(&encoded(&message)), golden, "{message:?}");
        assert_eq!(decoded(&encoded(&message)), (Ok(message), 0));
    }
    let hello = Hello {
        cluster: "test".into(),
        id: "n1".parse().unwrap(),
        incarnation: 7,
        partitions: 1_024,
        placement: "ring".into(),
        token: 0x1122_3344_5566_7788,
        echo: 0,
        refusal: Some(Refusal::RemovedNode),
    };
    assert_eq!(
        hex(&hello.to_frame()),
        "747002010000001d000000000000000098a474657374a26e3107cd0400a472696e67cf1122334455\
             6677880005"
    );
}

/// The token follows from seed and address, so it stands here as well.
#[test]
fn golden_bytes_of_a_message_in_parts() {
    let (mut a, mut b, from) = linked();
    let message = Message::Piece { tag: 42, offset: 0, bytes: Some(vec![7; 1_500].into()) };
    a.send("b".parse().unwrap(), &message).unwrap();
    let frames = flushed(&mut a);
    let heads: Vec<_> = frames.iter().map(|frame| (hex(&frame[..36]), frame.len())).collect();
    let expected = [
        ("74700203000004a0826e610ad9e5ef222a9c7a4f8f4b4cd00000000294072a00c505dc07", 1_200),
        ("747002030000015b826e610ad9e5ef222a9c7a4f8f4b4cd0000100020707070707070707", 363),
    ];
    assert_eq!(heads, expected.map(|(head, len)| (head.into(), len)));
    assert_eq!(heard(&mut b, from, &frames), [message]);
}

/// Run with `cargo test --release --test wire -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed_of_a_write_with_100_bytes() {
    const ROUNDS: u32 = 2_000_000;
    let mut context = Context::EMPTY;
    context.add(Actor(0x0102_0304_0506_0708), 0, 7);
    let message = Message::Write {
        tag: 1_000,
        key: Key::new("users/0123456789").unwrap(),
        version: Arc::new(Version { context, len: 100, ..version() }),
        value: Some(vec![7; 100].into()),
    };
    let bytes = Bytes::from(encoded(&message));
    let mut out = Vec::with_capacity(1_024);
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        out.clear();
        std::hint::black_box(&message).encode(&mut out);
        std::hint::black_box(&out);
    }
    let encode = start.elapsed() / ROUNDS;
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        std::hint::black_box(Message::decode(&mut std::hint::black_box(bytes.clone())).unwrap());
    }
    let decode = start.elapsed() / ROUNDS;
    println!("{} bytes: encode {encode:?}, decode {decode:?}", bytes.len());
}
