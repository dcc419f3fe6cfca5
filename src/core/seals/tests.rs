use bytes::Bytes;

use super::*;
use crate::{
    config::Config,
    core::{Content, OpId, Outcome, Output, ReadRequest, Request, Work, tests::Bench},
    error::WriteError,
    identity::{Identity, author_of},
    model::{Actor, Context, Digest, Kind, Mirrors, Seal, Statement},
    storage::Change,
    wire::{AckStatus, Message},
};

/// An owner of everything, with one peer that says what it likes.
struct Owner(Bench);

impl Owner {
    fn new(authors: &[&Identity]) -> Self {
        let authors = authors.iter().map(|author| author.public_key()).collect();
        let signed_prefixes = vec![("signed/".into(), authors)];
        Self(Bench::new(Config { signed_prefixes, ..Config::default() }))
    }

    /// What the owner acknowledges a copy with, and whether it gave storage anything to keep for it.
    fn hear(&mut self, key: &Key, version: &Version, value: Option<&Bytes>) -> (AckStatus, bool) {
        let (version, value) = (Arc::new(version.clone()), value.cloned());
        let message = Message::Write { tag: 5, key: key.clone(), version, value };
        let outputs = self.0.hear(message);
        let stored =
            outputs.iter().any(|o| matches!(o, Output::Work { work: Work::Change(Change::Put { .. }), .. }));
        let status = outputs.iter().find_map(|output| match output {
            Output::Send { message: Message::WriteAck { tag: 5, status }, .. } => Some(*status),
            _ => None,
        });
        (status.expect("an answer"), stored)
    }

    fn write(&mut self, key: &Key, said: &Statement, seal: Option<Seal>, value: &Bytes) -> Outcome {
        let request = WriteRequest {
            key: key.clone(),
            kind: said.kind,
            digest: Digest::of(value),
            content: Content::Whole(value.clone()),
            mirrors: Some(said.mirrors),
            ack: None,
            context: Some(said.context.clone()),
            expires_ms: said.expires_ms,
            timeout_ms: None,
            progress: false,
            seal: seal.map(|seal| (said.sequence, seal)),
        };
        let outputs = self.0.ask(Request::Write(request));
        let outcome = outputs.into_iter().find_map(|output| match output {
            Output::Finish { op, outcome } if op == OpId(self.0.next_op) => Some(outcome),
            _ => None,
        });
        outcome.expect("it is over")
    }

    fn held(&self, key: &Key) -> Vec<Version> {
        let mut held: Vec<Version> = self.0.core.index.stored(key).collect();
        held.sort_by_key(|v| v.dot);
        held
    }

    fn refused(&self) -> u64 {
        self.0.core.counters.signatures_refused
    }
}

fn author(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn says(author: &Identity, sequence: u64, value: &[u8]) -> Statement {
    Statement {
        author: author.public_key(),
        sequence,
        kind: Kind::Value,
        len: value.len() as u64,
        digest: Digest::of(value),
        mirrors: Mirrors::ALL,
        expires_ms: None,
        context: Context::EMPTY,
    }
}

fn deletes(author: &Identity, sequence: u64) -> Statement {
    Statement { kind: Kind::Tombstone, ..says(author, sequence, b"") }
}

fn signed(author: &Identity, key: &Key, said: &Statement) -> Version {
    said.version(key, author.seal(key, said).unwrap().signature).unwrap()
}

#[test]
fn what_no_author_signed_is_refused_by_an_owner_whoever_sends_it() {
    // Goal: no peer can pass anything off as an author's. Method: it changes each field of a true copy, or
    // signs for itself, or not at all; then sends the true one.
    let (alice, mallory) = (author(1), author(2));
    let (key_1, value) = (key("signed/a"), Bytes::from_static(b"true"));
    let mut said = says(&alice, 7, &value);
    said.expires_ms = Some(1 << 50);
    let version = signed(&alice, &key_1, &said);
    let seal = version.seal.clone().unwrap();
    let false_value = Bytes::from_static(b"fals");
    let digest = Digest::of(&false_value);
    let mut wider = version.context.clone();
    wider.add(Actor(5), 0, 9);
    let resealed = |author, signature| Some(Arc::new(Seal { author, signature }));
    let mut bent = seal.signature;
    bent[63] ^= 1;
    let own = says(&mallory, 8, &value);
    let forgeries = [
        (SealError::Missing, Version { seal: None, ..version.clone() }),
        (SealError::Missing, Version { seal: None, kind: Kind::Tombstone, len: 0, ..version.clone() }),
        (SealError::Author, signed(&mallory, &key_1, &own)),
        (
            SealError::Author,
            Version { seal: resealed(mallory.public_key(), seal.signature), ..version.clone() },
        ),
        (SealError::Signature, Version { seal: resealed(alice.public_key(), bent), ..version.clone() }),
        (SealError::Signature, Version { digest, ..version.clone() }),
        (SealError::Signature, Version { mirrors: Mirrors(1), ..version.clone() }),
        (SealError::Signature, Version { expires_ms: None, ..version.clone() }),
        (SealError::Signature, Version { expires_ms: Some(1), ..version.clone() }),
        (SealError::Signature, Version { written_ms: 8, ..version.clone() }),
        (SealError::Signature, Version { since: 0, ..version.clone() }),
        (SealError::Signature, Version { context: wider, ..version.clone() }),
        (SealError::Signature, Version { context: Context::EMPTY, ..version.clone() }),
        (SealError::Signature, Version { dot: Dot { actor: Actor(9), ..version.dot }, ..version.clone() }),
        (
            SealError::Signature,
            Version { dot: Dot { counter: version.dot.counter + 1, ..version.dot }, ..version.clone() },
        ),
        // Statements that follow from themselves, but that nobody signed.
        (
            SealError::Signature,
            Statement { sequence: 8, ..said.clone() }.version(&key_1, seal.signature).unwrap(),
        ),
        (
            SealError::Signature,
            Statement { mirrors: Mirrors(1), ..said.clone() }.version(&key_1, seal.signature).unwrap(),
        ),
        (SealError::Signature, Statement { digest, ..said.clone() }.version(&key_1, seal.signature).unwrap()),
        (
            SealError::Signature,
            Statement { kind: Kind::Tombstone, len: 0, digest: Digest::of(b""), ..said.clone() }
                .version(&key_1, seal.signature)
                .unwrap(),
        ),
    ];
    let mut owner = Owner::new(&[&alice]);
    for (n, (error, forged)) in forgeries.iter().enumerate() {
        assert_eq!(owner.0.core.check_seal(&key_1, forged), Err(*error), "{n}: {forged:?}");
        let value = match forged.kind {
            Kind::Tombstone => Bytes::new(),
            Kind::Value if forged.digest == digest => false_value.clone(),
            Kind::Value => value.clone(),
        };
        // A tombstone of another digest is refused for that.
        let is_odd = forged.kind == Kind::Tombstone && forged.digest != Digest::of(b"");
        if !is_odd {
            assert_eq!(
                owner.hear(&key_1, forged, Some(&value)),
                (AckStatus::Refused, false),
                "{n}: {forged:?}"
            );
        }
    }
    assert_eq!(owner.hear(&key("signed/b"), &version, Some(&value)), (AckStatus::Refused, false));
    assert_eq!((owner.held(&key_1), owner.held(&key("signed/b"))), (vec![], vec![]));
    assert_eq!(owner.refused(), forgeries.len() as u64);
    // Elsewhere nobody has to sign; what is signed wrongly has no place anywhere.
    assert_eq!(owner.hear(&key("free"), &version, Some(&value)), (AckStatus::Refused, false));
    assert_eq!(owner.hear(&key("free"), &forgeries[0].1, Some(&value)), (AckStatus::Stored, true));
    assert_eq!(owner.hear(&key_1, &version, Some(&value)), (AckStatus::Stored, true));
    assert_eq!(author_of(&key_1, &owner.held(&key_1)[0]), Some(alice.public_key()));
}

#[test]
fn a_long_value_is_not_even_fetched_for_a_forged_name() {
    let (alice, mallory) = (author(1), author(2));
    let (key, value) = (key("signed/a"), Bytes::from(vec![7; 1 << 20]));
    let mut owner = Owner::new(&[&alice]);
    let forged = signed(&mallory, &key, &says(&mallory, 1, &value));
    assert_eq!(owner.hear(&key, &forged, None), (AckStatus::Refused, false));
    assert_eq!(owner.0.core.transfers.len(), 0);
    let version = signed(&alice, &key, &says(&alice, 1, &value));
    assert_eq!(owner.hear(&key, &version, None), (AckStatus::Fetching, false));
}

#[test]
fn what_was_replaced_stays_so_in_whichever_order_owners_hear_of_it() {
    // Goal: a replay changes nothing, and owners end alike. Method: all orders of four statements of two
    // authors, the second of which had seen the first; each is sent twice, and all once more at the end.
    let (alice, bob) = (author(1), author(2));
    let key = key("signed/a");
    let first = says(&alice, 10, b"1");
    let mut known = Context::EMPTY;
    known.see(&signed(&alice, &key, &first));
    let said = [
        (&alice, first, &b"1"[..]),
        (&bob, Statement { context: known, ..says(&bob, 3, b"2") }, b"2"),
        (&alice, deletes(&alice, 11), b""),
        (&alice, says(&alice, 12, b"4"), b"4"),
    ];
    let versions = said.map(|(author, said, value)| (signed(author, &key, &said), Bytes::from_static(value)));
    let mut ends = Vec::new();
    for order in 0..24_usize {
        let (mut left, mut code) = (vec![0, 1, 2, 3], order);
        let mut owner = Owner::new(&[&alice, &bob]);
        let mut sent = Vec::new();
        while !left.is_empty() {
            sent.push(left.remove(code % left.len()));
            code /= left.len() + 1;
        }
        for (version, value) in sent.iter().flat_map(|n| [&versions[*n]; 2]).chain(&versions) {
            let (status, _) = owner.hear(&key, version, Some(value));
            assert!(matches!(status, AckStatus::Stored | AckStatus::Known), "{sent:?}: {status:?}");
        }
        ends.push(owner.held(&key));
    }
    let mut expected = vec![versions[1].0.clone(), versions[3].0.clone()];
    expected.sort_by_key(|v| v.dot);
    assert!(ends.iter().all(|end| *end == expected), "{ends:?}");
}

#[test]
fn a_client_is_told_what_is_wrong_and_may_repeat_what_is_right() {
    let (alice, mallory) = (author(1), author(2));
    let (key, value) = (key("signed/a"), Bytes::from_static(b"v"));
    let mut owner = Owner::new(&[&alice]);
    let said = says(&alice, 5, &value);
    let seal = alice.seal(&key, &said).unwrap();
    let refused = |outcome| match outcome {
        Outcome::Written(Err(WriteError::Refused(SubmitError::Seal(error)))) => Some(error),
        _ => None,
    };
    assert_eq!(refused(owner.write(&key, &said, None, &value)), Some(SealError::Missing));
    let other = says(&mallory, 5, &value);
    let forged = mallory.seal(&key, &other).unwrap();
    assert_eq!(refused(owner.write(&key, &other, Some(forged), &value)), Some(SealError::Author));
    let narrow = Statement { mirrors: Mirrors(1), ..said.clone() };
    assert_eq!(refused(owner.write(&key, &narrow, Some(seal), &value)), Some(SealError::Signature));
    let never = Statement { sequence: 0, ..said.clone() };
    assert_eq!(refused(owner.write(&key, &never, Some(seal), &value)), Some(SealError::Sequence));
    assert_eq!(owner.held(&key), vec![]);
    // Twice: a client that did not hear of the first is answered alike.
    for _ in 0..2 {
        let outcome = owner.write(&key, &said, Some(seal), &value);
        let Outcome::Written(Ok(written)) = outcome else { panic!("{outcome:?}") };
        assert_eq!((written.version, written.acked), (signed(&alice, &key, &said).dot, 1));
        assert_eq!(owner.held(&key), vec![signed(&alice, &key, &said)]);
    }
    let older = says(&alice, 4, &value);
    let seal = alice.seal(&key, &older).unwrap();
    assert_eq!(refused(owner.write(&key, &older, Some(seal), &value)), Some(SealError::Stale));
    let gone = deletes(&alice, 6);
    let seal = alice.seal(&key, &gone).unwrap();
    assert!(matches!(owner.write(&key, &gone, Some(seal), &Bytes::new()), Outcome::Written(Ok(_))));
    assert_eq!(owner.held(&key), vec![signed(&alice, &key, &gone)]);
}

#[test]
fn who_replaces_something_has_to_name_what_that_had_replaced() {
    // Goal: nothing comes back from under a deleted version. Method: Alice replaced Bob's value; her next
    // statement replaces hers, and would not his.
    let (alice, bob) = (author(1), author(2));
    let (key, value) = (key("signed/a"), Bytes::from_static(b"v"));
    let mut owner = Owner::new(&[&alice, &bob]);
    let bobs = says(&bob, 1, &value);
    let written = owner.write(&key, &bobs, Some(bob.seal(&key, &bobs).unwrap()), &value);
    let Outcome::Written(Ok(written)) = written else { panic!("{written:?}") };
    let over = Statement { context: written.context, ..says(&alice, 2, &value) };
    let written = owner.write(&key, &over, Some(alice.seal(&key, &over).unwrap()), &value);
    let Outcome::Written(Ok(written)) = written else { panic!("{written:?}") };
    let blind = says(&alice, 3, &value);
    let outcome = owner.write(&key, &blind, Some(alice.seal(&key, &blind).unwrap()), &value);
    let error = WriteError::Refused(SubmitError::Seal(SealError::Context));
    assert!(matches!(outcome, Outcome::Written(Err(told)) if told == error));
    // The context may have been to the client and back as text.
    let context = written.context.to_string().parse().unwrap();
    let seeing = Statement { context, ..blind };
    let outcome = owner.write(&key, &seeing, Some(alice.seal(&key, &seeing).unwrap()), &value);
    assert!(matches!(outcome, Outcome::Written(Ok(_))), "{outcome:?}");
}

#[test]
fn a_forged_answer_is_no_answer_to_a_read() {
    let (alice, mallory) = (author(1), author(2));
    let (key, value) = (key("signed/a"), Bytes::from_static(b"v"));
    let mut owner = Owner::new(&[&alice]);
    let forged = Arc::new(signed(&mallory, &key, &says(&mallory, 9, &value)));
    let read = ReadRequest { read: crate::Read::All, ..ReadRequest::one(key.clone()) };
    let outputs = owner.0.ask(Request::Read(read));
    let tag = outputs.iter().find_map(|output| match output {
        Output::Send { message: Message::Read { tag, .. }, .. } => Some(*tag),
        _ => None,
    });
    let records = Some(vec![crate::Record { version: forged, value: Some(value) }]);
    let message = Message::ReadReply { tag: tag.expect("it asks"), records };
    let outputs = owner.0.hear(message);
    let shown = outputs.iter().find_map(|output| match output {
        Output::Finish { outcome: Outcome::Read(Ok(found)), .. } => Some(found.siblings.is_empty()),
        _ => None,
    });
    assert_ne!(shown, Some(false), "{outputs:?}");
    assert_eq!((owner.held(&key), owner.refused()), (vec![], 1));
}
