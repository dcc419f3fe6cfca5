//! Parts in every order, of messages that are none, and more of them than are held.

use std::slice;

use super::*;
use crate::model::Seeded;

const MAX_FRAME_BYTES: usize = 1_200;
const NONE: [Bytes; 0] = [];

impl Partials {
    /// The sums are right, no link is kept for nothing, and every limit holds.
    pub(in crate::wire) fn check(&self) {
        let mut all = 0;
        for link in self.links.values() {
            let held = |p: &Partial| p.parts.values().map(Bytes::len).sum::<usize>();
            assert!(link.partials.iter().all(|p| p.bytes == held(p) && !p.parts.is_empty()));
            assert!(link.partials.iter().is_sorted_by_key(|p| p.begun_ms));
            assert_eq!(link.bytes, link.partials.iter().map(|p| p.bytes).sum::<usize>());
            assert!(!link.partials.is_empty() && link.partials.len() <= MAX_PARTIALS_PER_LINK);
            assert!(link.bytes <= MAX_PARTIAL_BYTES_PER_LINK);
            all += link.bytes;
        }
        assert_eq!(self.bytes, all);
        assert!(self.bytes <= MAX_PARTIAL_BYTES);
    }
}

/// What comes in, in virtual time.
#[derive(Default)]
struct Receiver {
    partials: Partials,
    counters: LinkCounters,
    now_ms: u64,
}

impl Receiver {
    fn take(&mut self, peer: u64, body: &Bytes) -> Result<Option<Bytes>, Malformed> {
        self.partials.expire(self.now_ms, &mut self.counters);
        let taken = self.partials.take(self.now_ms, id(peer), body.clone(), &mut self.counters);
        self.partials.check();
        taken
    }

    /// Takes them all and gives the messages that got whole.
    fn take_all<'a>(&mut self, peer: u64, bodies: impl IntoIterator<Item = &'a Bytes>) -> Vec<Bytes> {
        bodies.into_iter().filter_map(|body| self.take(peer, body).unwrap()).collect()
    }
}

fn id(number: u64) -> NodeId {
    format!("n{number}").parse().unwrap()
}

fn message(seed: u64, len: usize) -> Bytes {
    let mut seeded = Seeded::new(seed);
    (0..len).map(|_| seeded.next_u64() as u8).collect()
}

/// The bodies of the parts.
fn parts(message: &[u8]) -> Vec<Bytes> {
    let frames: Vec<_> = cut(message, MAX_FRAME_BYTES).unwrap().collect();
    assert!(frames.iter().all(|frame| frame.len() <= MAX_FRAME_BYTES));
    frames.into_iter().map(|frame| Bytes::from(frame).slice(FRAME_HEADER_BYTES..)).collect()
}

fn shuffle(bodies: &mut [Bytes], seeded: &mut Seeded) {
    for last in (1..bodies.len()).rev() {
        bodies.swap(last, seeded.below(last as u64 + 1) as usize);
    }
}

/// A part made by hand.
fn part(name: u64, index: u16, count: u16, len: usize) -> Bytes {
    let mut body = vec![];
    body.put_u64(name);
    body.put_u16(index);
    body.put_u16(count);
    body.put_bytes(7, len);
    body.into()
}

/// Goal: no order loses anything. Method: messages of many lengths, parts of several mixed.
#[test]
fn parts_in_any_order_make_the_message() {
    let room = MAX_FRAME_BYTES - FRAME_HEADER_BYTES - PART_HEADER_BYTES;
    for (seed, len) in
        [room + 1, 2 * room, 2 * room + 1, 7_777, 100_000, MAX_MESSAGE_BYTES].into_iter().enumerate()
    {
        let mut seeded = Seeded::new(seed as u64);
        let messages = [message(1, len), message(2, len), message(3, 9_000)];
        let mut bodies: Vec<_> = messages.iter().flat_map(|message| parts(message)).collect();
        shuffle(&mut bodies, &mut seeded);
        let mut receiver = Receiver::default();
        let mut whole = receiver.take_all(1, &bodies);
        assert!(receiver.partials.is_empty());
        whole.sort_unstable();
        let mut messages = messages.to_vec();
        messages.sort_unstable();
        assert!(whole == messages, "{len} bytes");
    }
}

#[test]
fn parts_that_come_twice_change_nothing() {
    let message = message(1, 5_000);
    let bodies = parts(&message);
    let mut receiver = Receiver::default();
    let twice: Vec<_> = bodies.iter().rev().skip(1).flat_map(|body| [body, body]).collect();
    assert_eq!(receiver.take_all(1, twice), NONE);
    assert_eq!(receiver.take_all(1, bodies.last()), slice::from_ref(&message));
    // A late one begins the message anew, which then gets old or is said again.
    assert_eq!(receiver.take_all(1, &bodies[..2]), NONE);
    assert_eq!(receiver.take_all(1, &bodies), [message]);
}

/// Goal: a message said again fills the holes of the first try, and no other does.
#[test]
fn a_lost_part_loses_the_message_until_it_is_said_again() {
    let (lost, other) = (message(1, 5_000), message(2, 5_000));
    let (bodies, others) = (parts(&lost), parts(&other));
    let mut receiver = Receiver::default();
    assert_eq!(receiver.take_all(1, &bodies[1..]), NONE);
    assert_eq!(receiver.take_all(1, &others[..1]), NONE, "the first part of another");
    assert_eq!(receiver.take_all(2, &bodies[..1]), NONE, "from another peer");
    assert_eq!(receiver.take_all(1, &bodies[..1]), [lost]);
    assert_eq!(receiver.take_all(1, &others[1..]), [other]);
}

#[test]
fn a_message_is_cut_only_if_it_and_the_frames_have_the_right_length() {
    let cuts = |len, max_frame_bytes| cut(&vec![0; len], max_frame_bytes).map(|parts| parts.len());
    assert_eq!(cuts(MAX_MESSAGE_BYTES + 1, 65_000), None);
    assert_eq!(cuts(MAX_MESSAGE_BYTES, 65_000), Some(5));
    let shortest = FRAME_HEADER_BYTES + PART_HEADER_BYTES + MIN_PART_BYTES;
    assert_eq!(cuts(MAX_MESSAGE_BYTES, shortest), Some(MAX_PARTS));
    assert_eq!(cuts(MAX_MESSAGE_BYTES, shortest - 1), None);
    assert_eq!(cuts(5_000, 0), None);
}

#[test]
fn parts_of_no_possible_message_are_malformed() {
    let (max, least) = (MAX_PARTS as u16, MIN_PART_BYTES);
    let mut receiver = Receiver::default();
    for body in [
        Bytes::new(),
        part(1, 0, 2, 0),
        part(1, 0, 0, least),
        part(1, 0, 1, least),
        part(1, 2, 2, least),
        part(1, u16::MAX, u16::MAX, least),
        part(1, 0, max + 1, least),
        part(1, 0, 2, least - 1),
        part(1, 0, 2, MAX_MESSAGE_BYTES),
        part(1, 0, max, least + 5),
        part(1, 1, 2, MAX_MESSAGE_BYTES / 2 + 1),
        part(1, max - 1, max, least + 1),
    ] {
        assert_eq!(receiver.take(1, &body), Err(Malformed), "{:?}", body.get(..12));
        assert!(receiver.partials.is_empty());
    }
    for body in [part(1, 0, 2, MAX_MESSAGE_BYTES - 1), part(2, 0, max, least), part(3, max - 1, max, least)] {
        assert_eq!(receiver.take(1, &body), Ok(None));
    }
}

/// Goal: parts that do not fit those which are here do no harm to them.
#[test]
fn parts_that_contradict_each_other_are_malformed() {
    let message = message(1, 5_000);
    let bodies = parts(&message);
    let name = name_of(&message);
    let (each, last) = (bodies[0].len() - PART_HEADER_BYTES, bodies[4].len() - PART_HEADER_BYTES);
    let mut receiver = Receiver::default();
    assert_eq!(receiver.take(1, &bodies[4]), Ok(None));
    // Shorter than the last part, which is here.
    let long = part(name + 1, 4, 5, each);
    assert_eq!(receiver.take(1, &long), Ok(None));
    assert_eq!(receiver.take(1, &part(name + 1, 0, 5, each - 1)), Err(Malformed));
    assert_eq!(receiver.take(1, &bodies[0]), Ok(None));
    for body in [part(name, 1, 6, each), part(name, 1, 5, each - 1), part(name, 4, 5, each + 1)] {
        assert_eq!(receiver.take(1, &body), Err(Malformed));
    }
    assert_eq!(receiver.take(1, &part(name, 4, 5, last - 1)), Ok(None), "a double, whatever it holds");
    assert_eq!(receiver.take_all(1, &bodies[1..4]), [message]);
}

#[test]
fn parts_that_make_another_message_are_malformed_together() {
    let message = message(1, 5_000);
    let bodies = parts(&message);
    let mut receiver = Receiver::default();
    let each = bodies[0].len() - PART_HEADER_BYTES;
    assert_eq!(receiver.take_all(1, &bodies[1..]), NONE);
    assert_eq!(receiver.take(1, &part(name_of(&message), 0, 5, each)), Err(Malformed));
    assert!(receiver.partials.is_empty());
    assert_eq!(receiver.take_all(1, &bodies), [message]);
}

#[test]
fn the_oldest_gives_way_when_a_link_has_too_many() {
    let messages: Vec<_> = (0..=MAX_PARTIALS_PER_LINK as u64).map(|seed| message(seed, 2_000)).collect();
    let mut receiver = Receiver::default();
    for message in &messages {
        receiver.now_ms += 1;
        assert_eq!(receiver.take(1, &parts(message)[0]), Ok(None));
    }
    assert_eq!(receiver.counters.partials_dropped, 1);
    let whole =
        |receiver: &mut Receiver, n: usize| receiver.take(1, &parts(&messages[n])[1]).unwrap().is_some();
    assert!(whole(&mut receiver, 1) && whole(&mut receiver, MAX_PARTIALS_PER_LINK));
    assert!(!whole(&mut receiver, 0));
}

#[test]
fn the_oldest_give_way_when_a_link_has_too_many_bytes() {
    let messages: Vec<_> = (0..6).map(|seed| message(seed, MAX_MESSAGE_BYTES)).collect();
    let mut receiver = Receiver::default();
    for message in &messages {
        receiver.now_ms += 1;
        receiver.take_all(1, &parts(message)[1..]);
    }
    assert_eq!(receiver.counters.partials_dropped, 2);
    let whole: Vec<_> = messages.iter().flat_map(|m| receiver.take_all(1, &parts(m)[..1])).collect();
    assert!(whole == messages[2..]);
}

#[test]
fn the_oldest_of_all_links_give_way_when_there_are_too_many_bytes_in_all() {
    let message = message(1, MAX_MESSAGE_BYTES);
    let bodies = parts(&message);
    let links = (MAX_PARTIAL_BYTES / MAX_MESSAGE_BYTES) as u64 + 2;
    let mut receiver = Receiver::default();
    for peer in 0..links {
        receiver.now_ms += 1;
        receiver.take_all(peer, &bodies[1..]);
    }
    let whole: Vec<_> = (0..links).filter(|peer| receiver.take_all(*peer, &bodies[..1]).len() == 1).collect();
    assert!(whole == (receiver.counters.partials_dropped..links).collect::<Vec<_>>(), "{whole:?}");
    assert!((1..=2).contains(&receiver.counters.partials_dropped));
}

#[test]
fn what_stays_incomplete_gets_too_old() {
    let (early, late) = (message(1, 5_000), message(2, 5_000));
    let (first, second) = (parts(&early), parts(&late));
    let mut receiver = Receiver::default();
    receiver.take_all(1, &first[1..3]);
    receiver.now_ms = 1;
    receiver.take_all(1, &second[1..]);
    receiver.now_ms = MAX_PARTIAL_AGE_MS - 1;
    receiver.take_all(1, &first[3..]);
    receiver.now_ms = MAX_PARTIAL_AGE_MS;
    assert_eq!(receiver.take_all(1, &first[..1]), NONE);
    assert_eq!(receiver.counters.partials_dropped, 1);
    assert_eq!(receiver.take_all(1, &second[..1]), [late]);
}

/// Goal: a claim costs its sender more than us. Method: parts of the longest messages, one of each.
#[test]
fn a_claimed_count_reserves_nothing() {
    let mut receiver = Receiver::default();
    for name in 0..10_000 {
        assert_eq!(receiver.take(1, &part(name, 7, MAX_PARTS as u16, MIN_PART_BYTES)), Ok(None));
    }
    assert_eq!(receiver.partials.bytes, MAX_PARTIALS_PER_LINK * MIN_PART_BYTES);
    let link = &receiver.partials.links[&id(1)];
    assert!(link.partials.iter().all(|partial| partial.parts.len() == 1));
    receiver.partials.forget(id(1));
    receiver.partials.check();
    assert!(receiver.partials.is_empty());
}

/// Goal: no sequence of parts breaks a sum or a limit. Method: parts of few names, with fields that
/// are right, wrong and at the edge.
#[test]
fn noise_keeps_within_the_limits() {
    let mut seeded = Seeded::new(5);
    let mut receiver = Receiver::default();
    let genuine: Vec<_> = (0..40).map(|seed| parts(&message(seed, 3_000 + 100 * seed as usize))).collect();
    let (mut whole, mut malformed) = (0, 0);
    for _ in 0..20_000 {
        receiver.now_ms += seeded.below(20);
        let bodies = seeded.pick(&genuine);
        let mut body = seeded.pick(bodies).to_vec();
        if seeded.percent(30) {
            let at = seeded.below(PART_HEADER_BYTES as u64 + 1) as usize;
            body[at] = *seeded.pick(&[0, 1, 2, 3, 255]);
        }
        if seeded.percent(10) {
            body.truncate(seeded.below(body.len() as u64) as usize);
        }
        match receiver.take(seeded.below(3), &body.into()) {
            Ok(Some(_)) => whole += 1,
            Ok(None) => {}
            Err(Malformed) => malformed += 1,
        }
    }
    assert!(whole > 100 && malformed > 1_000 && receiver.counters.partials_dropped > 100);
}
