//! What clients send: queries, heads of requests, chunked bodies. Never a panic, and a head or body
//! that comes in pieces is read as the whole one is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turbopumpd::{
    gate::{
        Limits,
        chunked::ChunkDecoder,
        head::{HeadScan, leading_empty_lines, parse_head},
    },
    params::check_all,
};

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        check_all(text);
    }
    let Some((&piece, data)) = data.split_first() else { return };
    let piece = usize::from(piece).max(1);
    let limits = Limits::default();

    assert!(leading_empty_lines(data) <= data.len());
    let whole = parse_head(data, &mut HeadScan::default(), &limits);
    if let Ok(Some((head, used))) = &whole {
        assert!(*used <= data.len());
        assert!(head.target().starts_with(b"/") || head.target() == b"*");
        assert!(head.target().iter().all(|b| (0x21..=0x7e).contains(b)));
        check_all(std::str::from_utf8(head.target()).expect("ASCII"));
        // What tiny_http gets holds no line that was not understood.
        let text = std::str::from_utf8(&head.forward).expect("ASCII");
        assert!(text.ends_with("\r\n") && !text.contains("\r\n\r\n"));
        assert!(text.lines().skip(1).all(|line| !line.to_ascii_lowercase().starts_with("content-length")));
    }
    let mut scan = HeadScan::default();
    let mut at = 0;
    let in_pieces = loop {
        at = (at + piece).min(data.len());
        match parse_head(&data[..at], &mut scan, &limits) {
            Ok(None) if at < data.len() => {}
            end => break end,
        }
    };
    match (&whole, &in_pieces) {
        (Ok(whole), Ok(in_pieces)) => assert_eq!(whole, in_pieces),
        (Err(_), Err(_)) => {}
        other => panic!("whole and in pieces differ: {other:?}"),
    }

    let (mut decoder, mut body) = (ChunkDecoder::default(), vec![]);
    let whole = decoder.decode(data, &mut body).map(|used| (used, decoder.is_done()));
    let (mut decoder, mut again, mut used) = (ChunkDecoder::default(), vec![], 0);
    let mut in_pieces = Ok(());
    for part in data.chunks(piece) {
        match decoder.decode(part, &mut again) {
            Ok(n) => used += n,
            Err(refusal) => {
                in_pieces = Err(refusal);
                break;
            }
        }
    }
    assert!(body.len() <= data.len());
    match (whole, in_pieces) {
        (Ok(whole), Ok(())) => assert_eq!((whole, body), ((used, decoder.is_done()), again)),
        (Err(_), Err(_)) => {}
        (whole, in_pieces) => panic!("whole and in pieces differ: {whole:?}, {in_pieces:?}"),
    }
});
