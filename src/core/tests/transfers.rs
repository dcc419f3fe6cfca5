//! Long values on their way: to this node, to a peer, and to a reader.

use super::*;

#[test]
fn an_offer_of_more_than_any_value_has_is_refused_and_nothing_is_fetched() {
    let mut bench = Bench::new(Config::default());
    for len in [u64::MAX, (1 << 50) + 1] {
        let outputs = bench.hear(offered(len));
        assert!(matches!(messages(&outputs)[..], [Message::WriteAck { tag: 5, status: AckStatus::Failed }]));
        assert_eq!(bench.core.stats().transfers, 0);
    }
    let outputs = bench.hear(offered(1 << 50));
    assert!(messages(&outputs).iter().any(|m| matches!(m, Message::Fetch { .. })), "{outputs:?}");
}

#[test]
fn a_read_whose_value_was_replaced_while_it_was_fetched_begins_anew() {
    // Goal: a reader gets what is there now. Method: `b` names a long value, and when it is asked for its
    // bytes has a short one in its place.
    let config = Config { mirrors: Mirrors(1), max_transfers: 1, ..Config::default() };
    let mut bench = Bench::new(config);
    let owner = |name: &String| bench.core.placement().owners(key(name).hash64(), Mirrors(1)).next();
    let name = (0..).map(|i| format!("k{i}")).find(|name| owner(name) == Some(id("b"))).expect("one of b's");
    let asks = |outputs: &[Output]| {
        let tag = |m: &&Message| if let Message::Read { tag, .. } = m { Some(*tag) } else { None };
        messages(outputs).iter().find_map(tag).expect("the owner is asked")
    };
    let version = |counter: u64, value: &[u8]| {
        let Message::Write { version, .. } = offered(value.len() as u64) else { unreachable!() };
        let dot = Dot { actor: Actor(8), counter };
        Arc::new(Version { dot, digest: Digest::of(value), ..(*version).clone() })
    };
    let tag = asks(&bench.ask(Request::Read(ReadRequest::one(key(&name)))));
    let records = || Some(vec![Record { version: version(1, &vec![1; LONG]), value: None }]);
    // At first another value is in its way.
    bench.hear(offered(10 << 20));
    assert_eq!(fetches(&bench.hear(Message::ReadReply { tag, records: records() })), []);
    bench.feed(Input::LinkDown { peer: id("b") });
    bench.feed(Input::LinkUp { peer: id("b"), incarnation: 1 });
    bench.now.mono_ms += 1_000;
    let tag = asks(&bench.feed(Input::Tick));
    let (tag, offset, _) = fetches(&bench.hear(Message::ReadReply { tag, records: records() }))[0];
    let outputs = bench.hear(Message::Piece { tag, offset, bytes: None });
    assert!(!outputs.iter().any(|o| matches!(o, Output::Finish { .. })), "{outputs:?}");
    bench.now.mono_ms += 1_000;
    let tag = asks(&bench.feed(Input::Tick));
    let records = Some(vec![Record { version: version(2, b"new"), value: Some(Bytes::from_static(b"new")) }]);
    let outputs = bench.hear(Message::ReadReply { tag, records });
    let found = outputs.iter().find_map(|output| match output {
        Output::Finish { outcome: Outcome::Read(Ok(found)), .. } => Some(found.siblings.records()),
        _ => None,
    });
    assert_eq!(found.expect("it ends")[0].value.as_deref(), Some(&b"new"[..]));
}

/// The pieces that are asked for: tag, offset, length.
fn fetches(outputs: &[Output]) -> Vec<(u64, u64, usize)> {
    let fetch = |m: &&Message| match m {
        Message::Fetch { tag, offset, len, .. } => Some((*tag, *offset, *len as usize)),
        _ => None,
    };
    messages(outputs).iter().filter_map(fetch).collect()
}

/// Answers a question for a piece.
fn piece((tag, offset, len): (u64, u64, usize)) -> Message {
    Message::Piece { tag, offset, bytes: Some(Bytes::from(vec![7; len])) }
}

#[test]
fn a_fetch_goes_on_where_a_broken_link_stopped_it() {
    // Goal: nothing that is staged comes again. Method: answer some pieces, out of order; break the link.
    let mut bench = Bench::new(Config::default());
    let asked = fetches(&bench.hear(offered(10 << 20)));
    for n in [0, 1, 3] {
        bench.hear(piece(asked[n]));
    }
    bench.feed(Input::LinkDown { peer: id("b") });
    assert_eq!(bench.core.stats().transfers, 0);
    bench.feed(Input::LinkUp { peer: id("b"), incarnation: 1 });
    let again = fetches(&bench.hear(offered(10 << 20)));
    assert_eq!(again[0].1, asked[2].1, "from the first piece that is missing");
    let stats = bench.core.stats();
    assert_eq!((stats.counters.resumed_bytes, stats.fetches[0].done_bytes), (asked[2].1, asked[2].1));
}

#[test]
fn a_stage_that_nobody_offers_any_more_is_discarded_in_the_end() {
    let mut bench = Bench::new(Config::default());
    let asked = fetches(&bench.hear(offered(10 << 20)));
    bench.hear(piece(asked[0]));
    bench.feed(Input::LinkDown { peer: id("b") });
    bench.now.mono_ms += 3_600_000;
    let outputs = bench.feed(Input::Tick);
    assert!(jobs(&outputs).iter().any(|(_, work)| matches!(work, Work::Discard { .. })), "{outputs:?}");
}

#[test]
fn pieces_on_their_way_share_a_bound_however_many_values_come() {
    let mut bench = Bench::new(Config::default());
    let mut flying = 0;
    for counter in 1..=16 {
        let Message::Write { tag, key, version, value } = offered(1 << 30) else { panic!() };
        let dot = Dot { actor: Actor(9), counter };
        let version = Arc::new(Version { dot, ..(*version).clone() });
        let asked = fetches(&bench.hear(Message::Write { tag: tag + counter, key, version, value }));
        assert!(asked.len() >= 2, "each goes on");
        flying += asked.iter().map(|(.., len)| len).sum::<usize>();
    }
    assert!(flying <= 6 << 20, "{flying}");
    assert_eq!(bench.core.stats().transfers, 16);
}

#[test]
fn what_finds_no_room_is_refused_only_by_a_node_that_would_give_it_away() {
    // Goal: a node that only passes a key on is not offered it without end; any other is offered it again.
    // Method: fill the place for long values, then storage; give it keys of its own, of another, and both.
    let config = Config { max_transfers: 1, max_disk_jobs: 8, ..Config::default() };
    let mut bench = Bench::new(config.clone());
    let names = (0..100).map(|n| format!("k{n}"));
    let (mine, others): (Vec<_>, Vec<_>) =
        names.partition(|name| bench.core.owns(id("a"), &key(name), Mirrors(1)));
    let (mine, other) = (&mine[0], &others[0]);
    let offer = |bench: &mut Bench, name: &str, actor, context: Context| {
        let Message::Write { version, .. } = offered(1 << 30) else { panic!() };
        let dot = Dot { actor: Actor(actor), counter: 1 };
        let version = Arc::new(Version { dot, context, mirrors: Mirrors(1), ..(*version).clone() });
        let outputs = bench.hear(Message::Write { tag: actor, key: key(name), version, value: None });
        let status =
            |m: &&Message| if let Message::WriteAck { status, .. } = m { Some(*status) } else { None };
        messages(&outputs).iter().find_map(status)
    };
    assert_eq!(offer(&mut bench, other, 10, Context::EMPTY), Some(AckStatus::Fetching));
    assert_eq!(offer(&mut bench, other, 11, Context::EMPTY), Some(AckStatus::Refused));
    assert_eq!(offer(&mut bench, mine, 12, Context::EMPTY), Some(AckStatus::Busy));
    // What spreads wider is this node's, too: it has to hear of what replaced it.
    bench.write(other, &Bytes::from_static(b"v"));
    let known = bench.core.index.context(&key(other));
    assert_eq!(offer(&mut bench, other, 13, known), Some(AckStatus::Busy));
    // Nor does storage have room.
    for tag in 0..8 {
        bench.hear(Message::Read { tag, key: key(other), values: true });
    }
    assert!(bench.core.is_disk_busy());
    assert_eq!(offer(&mut bench, &others[1], 14, Context::EMPTY), Some(AckStatus::Refused));
    assert_eq!(offer(&mut bench, mine, 12, Context::EMPTY), Some(AckStatus::Busy));
    // Where nothing is given away all of it may come again.
    let mut bench = Bench::new(Config { write_chaining: false, ..config });
    offer(&mut bench, other, 10, Context::EMPTY);
    assert_eq!(offer(&mut bench, other, 11, Context::EMPTY), Some(AckStatus::Busy));
}

#[test]
fn a_window_grows_while_pieces_come_fast_and_shrinks_when_they_queue_up() {
    let mut bench = Bench::new(Config::default());
    let mut asked = fetches(&bench.hear(offered(1 << 30)));
    let first = asked.len();
    for _ in 0..40 {
        bench.now.mono_ms += 1;
        let next = asked.remove(0);
        asked.extend(fetches(&bench.hear(piece(next))));
    }
    let fast = asked.len();
    assert!(fast > first + 10, "from {first} to {fast}");
    for _ in 0..200 {
        bench.now.mono_ms += 3;
        let next = asked.remove(0);
        asked.extend(fetches(&bench.hear(piece(next))));
    }
    assert!(asked.len() < fast / 2, "from {fast} to {}", asked.len());
}

#[test]
fn a_long_value_on_its_way_to_a_peer_leaves_room_for_small_ones() {
    // Goal: neither a value being fetched nor a peer that wants no more of them now holds up the others.
    let config = Config { max_flights_per_peer: 1, ..Config::default() };
    let mut bench = Bench::new(config);
    let sent = |outputs: &[Output]| -> Vec<(u64, bool)> {
        let write = |m: &&Message| match m {
            Message::Write { tag, value, .. } => Some((*tag, value.is_some())),
            _ => None,
        };
        messages(outputs).iter().filter_map(write).collect()
    };
    let long = Bytes::from(vec![7; LONG]);
    for status in [AckStatus::Fetching, AckStatus::Busy, AckStatus::Failed] {
        let [(tag, false)] = sent(&bench.write(&format!("{status:?}"), &long))[..] else { panic!() };
        bench.hear(Message::WriteAck { tag, status });
        let [(tag, true)] = sent(&bench.write("small", &Bytes::from_static(b"v")))[..] else {
            panic!("it is not held up by one that is {status:?}")
        };
        bench.hear(Message::WriteAck { tag, status: AckStatus::Stored });
    }
}

#[test]
fn what_was_staged_for_a_write_that_is_refused_is_discarded() {
    let mut bench = Bench::new(Config::default());
    let stage = crate::storage::StageId(1 << 63);
    let outputs = bench.ask(Request::Write(WriteRequest {
        key: key("k"),
        kind: Kind::Value,
        digest: Digest([7; 32]),
        content: Content::Staged { stage, len: 1 << 30 },
        mirrors: Some(Mirrors(2)),
        ack: Some(crate::Ack::Mirrors(3)),
        context: None,
        expires_ms: None,
        timeout_ms: None,
        progress: false,
        seal: None,
    }));
    let is_its = |work: &Work| matches!(work, Work::Discard { stage: of, .. } if *of == stage);
    assert!(jobs(&outputs).iter().any(|(_, work)| is_its(work)), "{outputs:?}");
}

#[test]
fn long_values_that_a_peer_does_not_want_yet_are_owed_within_the_limit() {
    let mut bench = Bench::new(Config { max_owed_per_peer: 2, ..Config::default() });
    let long = Bytes::from(vec![7; LONG]);
    for n in 0..4 {
        let outputs = bench.write(&format!("k{n}"), &long);
        let tags: Vec<u64> = messages(&outputs)
            .iter()
            .filter_map(|m| if let Message::Write { tag, .. } = m { Some(*tag) } else { None })
            .collect();
        tags.into_iter().for_each(|tag| _ = bench.hear(Message::WriteAck { tag, status: AckStatus::Busy }));
    }
    let owed = bench.core.stats().peers[0].owed;
    assert_eq!(owed, 2, "sync takes care of the rest");
}

#[test]
fn a_piece_for_a_client_is_asked_of_one_owner_after_the_other() {
    let mut bench = Bench::new(Config::default());
    let Message::Write { key, version, .. } = offered(1 << 30) else { panic!() };
    let ask = |bench: &mut Bench, offset| {
        let (key, version) = (key.clone(), version.clone());
        let first = Some(id("b"));
        bench.ask(Request::Piece(crate::core::PieceRequest { key, version, offset, len: 1_000, first }))
    };
    let asked = fetches(&ask(&mut bench, 5_000));
    assert_eq!((asked[0].1, asked[0].2), (5_000, 1_000));
    bench.now.mono_ms += 300;
    let again = fetches(&bench.feed(Input::Tick));
    assert_eq!(again.len(), 1, "no answer: asked again");
    let outputs = bench.hear(piece(asked[0]));
    assert!(
        matches!(&outputs[..], [Output::Finish { outcome: Outcome::Piece(Ok(given)), .. }] if given.bytes.len() == 1_000),
        "{outputs:?}"
    );
    assert!(bench.hear(piece(again[0])).is_empty(), "it counts once");
    let asked = fetches(&ask(&mut bench, 0));
    let outputs = bench.hear(Message::Piece { tag: asked[0].0, offset: 0, bytes: None });
    let gone = [Outcome::Piece(Err(ReadError::Replaced))];
    assert!(
        matches!(&outputs[..], [Output::Finish { outcome, .. }] if format!("{outcome:?}") == format!("{:?}", gone[0])),
        "{outputs:?}"
    );
}
