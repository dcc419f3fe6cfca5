//! What comes from the network: frames into a session that has a link, and messages.
#![no_main]

use std::net::SocketAddr;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use turbopump::{
    model::{Member, Members},
    wire::{FRAME_HEADER_BYTES, FrameType, Header, Hello, LinkEvent, Links, Local, Message},
};

const MAX_FRAME_BYTES: usize = 1_200;

fn links(name: &str) -> Links {
    let mut members = Members::default();
    for id in ["a", "b", "c"] {
        members.merge(&Member::new(id.parse().unwrap(), vec![]));
    }
    let local = Local {
        id: name.parse().unwrap(),
        cluster: "t".into(),
        incarnation: 1,
        partitions: 64,
        placement: "ring".into(),
    };
    let mut links = Links::new(local, MAX_FRAME_BYTES, 1);
    links.admit(&members);
    links
}

fn sent(links: &mut Links) -> Vec<(SocketAddr, Bytes)> {
    let mut frames = vec![];
    links.flush(&mut |to, frame| frames.push((to, frame)));
    frames
}

fuzz_target!(|data: &[u8]| {
    // As messages. Each step takes something, and what decodes comes back the same.
    let mut input = Bytes::copy_from_slice(data);
    while !input.is_empty() {
        let before = input.len();
        let message = Message::decode(&mut input);
        assert!(input.len() < before);
        if let Ok(message) = message {
            let mut bytes = vec![];
            message.encode(&mut bytes);
            assert_eq!(Message::decode(&mut bytes.into()), Ok(message));
        }
    }

    // As frames into one end of a link: raw, behind a good header, and with a token that holds.
    let (a, b) = (SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([127, 0, 0, 1], 2)));
    let (mut left, mut right) = (links("a"), links("b"));
    let mut events = vec![];
    left.dial(0, "b".parse().unwrap(), &[b]);
    for _ in 0..3 {
        sent(&mut left).into_iter().for_each(|(_, frame)| right.received(0, a, frame, &mut vec![]));
        sent(&mut right).into_iter().for_each(|(_, frame)| left.received(0, b, frame, &mut events));
    }
    assert!(left.is_up("b".parse().unwrap()));
    right.send("a".parse().unwrap(), &Message::Bye).unwrap();
    let genuine = sent(&mut right).pop().unwrap().1;
    let token = Header::parse(&genuine).unwrap().token;
    let framed = |kind, token| {
        let mut frame = Header { kind, token, len: data.len() as u32 }.emit().to_vec();
        frame.extend_from_slice(data);
        Bytes::from(frame)
    };
    let frames = [
        Bytes::copy_from_slice(data),
        framed(FrameType::Messages, token),
        framed(FrameType::Hello, 0),
        framed(FrameType::Messages, 0),
        framed(FrameType::Part, token),
        framed(FrameType::Part, 0),
    ];
    for from in [b, a] {
        for frame in &frames {
            left.received(10, from, frame.clone(), &mut events);
        }
    }
    // A message longer than a frame: its parts in an order that the input says, some lost and said again.
    let bytes: Bytes = data.iter().cycle().take(if data.is_empty() { 0 } else { 5_000 }).copied().collect();
    let long = Message::Piece { tag: 1, offset: 0, bytes: Some(bytes) };
    right.send("a".parse().unwrap(), &long).unwrap();
    let mut parts = sent(&mut right);
    for (at, byte) in data.iter().take(parts.len()).enumerate() {
        let other = usize::from(*byte) % parts.len();
        parts.swap(at, other);
    }
    let lost = data.last().map_or(0, |byte| usize::from(*byte) % parts.len());
    let mut heard = vec![];
    for (_, frame) in parts.iter().skip(lost).chain(&parts) {
        left.received(15, b, frame.clone(), &mut heard);
    }
    assert!(heard.iter().any(|e| matches!(e, LinkEvent::Message { message, .. } if *message == long)));

    // A hello as the input says it, whole in form, with an echo that holds or not.
    if let Some((&[choice, incarnation, token_byte], text)) = data.split_first_chunk::<3>() {
        let hello = Hello {
            cluster: "t".into(),
            id: String::from_utf8_lossy(text).parse().unwrap_or("b".parse().unwrap()),
            incarnation: incarnation.into(),
            partitions: 64,
            placement: "ring".into(),
            token: token_byte.into(),
            echo: if choice & 1 == 0 { token } else { choice.into() },
            refusal: None,
        };
        left.received(20, if choice & 2 == 0 { b } else { a }, hello.to_frame(), &mut events);
        assert_eq!(Hello::decode(&hello.to_frame().slice(FRAME_HEADER_BYTES..)), Ok(hello));
    }
    let ups = events.iter().filter(|e| matches!(e, LinkEvent::Up { .. })).count();
    let downs = events.iter().filter(|e| matches!(e, LinkEvent::Down { .. })).count();
    let now = ["b", "c"].into_iter().filter(|id| left.is_up(id.parse().unwrap())).count();
    assert_eq!(ups, downs + now);
    assert!(sent(&mut left).iter().all(|(_, frame)| frame.len() <= MAX_FRAME_BYTES));
});
