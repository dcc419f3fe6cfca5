//! Frames in the byte stream of one link, and the padding that makes UDT hand it out in time.
//!
//! Pure bytes: no socket, no thread. What a frame means is `wire`'s business.
//!
//! ```text
//!   "turbudt" 1 | header frame | header frame | header filler | ...
//!   header: 4 bytes, big endian: highest bit = padding, the others = how many bytes follow
//! ```
//!
//! **Why padding.** UDT 4 hands data to the receiver's program only once it has sent a full
//! acknowledgement. A packet that is shorter than the others asks for one "now", and the check
//! that follows compares clock readings of whole microseconds with `>`: it fails, and the data
//! waits for a timer of 100 ms. The packet after it passes that check, if it is full: a short one
//! would set "now" again. So each burst ends with a short packet, and when nothing follows,
//! with [`PADS`] full ones that the receiver skips.
//!
//! - One send never shares a packet with the next, so a send's length decides its last packet.
//! - No send is a multiple of [`PAYLOAD_BYTES`]: [`end_short`] adds an empty padding to those.
//! - Bursts are sent in pieces of [`PIECE_BYTES`], each of which ends short: a fresh connection
//!   may have 16 packets under way, and would otherwise fill them without an acknowledgement.
//!
//! Limits: [`MAX_FRAME_BYTES`]; a stream that exceeds it or pads more than a packet is broken.

use bytes::Bytes;

/// The first bytes of each direction of a link: a name, and the version of this format.
pub(super) const PREAMBLE: [u8; 8] = *b"turbudt\x01";
/// What one packet carries: an MSS of 1,500 bytes less the headers of IP, UDP and UDT.
pub(super) const PAYLOAD_BYTES: usize = 1_456;
/// The longest frame: a value of 64 KiB with its key and metadata travels in one piece.
pub(super) const MAX_FRAME_BYTES: usize = 72 * 1_024;
/// Full packets after a burst. The first lets the acknowledgement go out, the next ones make sure
/// of it where packets are taken in together.
///
/// Why not fewer: UDT measures the path by the gap between packets 16n and 16n+1. With three pads
/// a burst is four packets, so the same place in the burst is measured for ever; where that is
/// the pause after it, UDT paces itself down to a packet in 2 ms once its slow start is over.
/// Measured, 100 B echoes, p50 after 60,000 of them: three pads 8 ms (from the 6,400th on), four
/// 0.35 ms with a p90 of 7 ms, five 0.2 ms, six 0.2 ms.
pub(super) const PADS: usize = 5;
/// A burst is sent in pieces of this size, 7 packets and a half: one piece, the packet after it and
/// the pads of the burst before, which may be under way still, fit the 16 of a first window.
pub(super) const PIECE_BYTES: usize = 7 * PAYLOAD_BYTES + PAYLOAD_BYTES / 2;

const HEADER_BYTES: usize = 4;
const PADDING_BIT: u32 = 1 << 31;

/// One full packet of padding.
pub(super) fn pad() -> [u8; PAYLOAD_BYTES] {
    let mut pad = [0; PAYLOAD_BYTES];
    let header = PADDING_BIT | (PAYLOAD_BYTES - HEADER_BYTES) as u32;
    pad[..HEADER_BYTES].copy_from_slice(&header.to_be_bytes());
    pad
}

/// Appends a frame, which is not empty and at most [`MAX_FRAME_BYTES`] long.
pub(super) fn append(stream: &mut Vec<u8>, frame: &[u8]) {
    stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
    stream.extend_from_slice(frame);
}

/// Makes the last packet of what is sent in pieces a short one.
pub(super) fn end_short(stream: &mut Vec<u8>) {
    if (stream.len() % PIECE_BYTES).is_multiple_of(PAYLOAD_BYTES) {
        stream.extend_from_slice(&PADDING_BIT.to_be_bytes());
    }
}

/// The peer does not speak this format: garbage, or another program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is not one of turbopump's: {0}")]
pub(super) struct Garbage(&'static str);

/// Takes a stream apart, in whatever pieces it comes.
pub(super) struct Deframer {
    state: State,
    head: [u8; PREAMBLE.len()],
    head_bytes: usize,
}

enum State {
    Preamble,
    Header,
    Padding { left: usize },
    Frame { frame: Vec<u8>, length: usize },
}

impl Deframer {
    pub(super) fn new() -> Self {
        Self { state: State::Preamble, head: [0; PREAMBLE.len()], head_bytes: 0 }
    }

    /// Whether the peer has said that it speaks this format.
    pub(super) fn greeted(&self) -> bool {
        !matches!(self.state, State::Preamble)
    }

    /// Takes the next bytes and appends the frames that they complete, each with a buffer of just
    /// its size. After an error the stream can't be read any further.
    pub(super) fn take(&mut self, mut bytes: &[u8], frames: &mut Vec<Bytes>) -> Result<(), Garbage> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Preamble => {
                    if let Some(preamble) = self.fill_head(&mut bytes, PREAMBLE.len()) {
                        if preamble != PREAMBLE {
                            return Err(Garbage("it begins otherwise"));
                        }
                        self.state = State::Header;
                    }
                }
                State::Header => {
                    if let Some(head) = self.fill_head(&mut bytes, HEADER_BYTES) {
                        let header = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
                        self.state = after_header(header)?;
                    }
                }
                State::Padding { left } => {
                    let skipped = bytes.len().min(*left);
                    bytes = &bytes[skipped..];
                    *left -= skipped;
                    if *left == 0 {
                        self.state = State::Header;
                    }
                }
                State::Frame { frame, length } => {
                    let (part, rest) = bytes.split_at(bytes.len().min(*length - frame.len()));
                    bytes = rest;
                    if part.len() == *length {
                        frames.push(Bytes::copy_from_slice(part));
                        self.state = State::Header;
                        continue;
                    }
                    frame.reserve_exact(*length - frame.len());
                    frame.extend_from_slice(part);
                    if frame.len() == *length {
                        frames.push(std::mem::take(frame).into());
                        self.state = State::Header;
                    }
                }
            }
        }
        Ok(())
    }

    fn fill_head(&mut self, bytes: &mut &[u8], wanted: usize) -> Option<[u8; PREAMBLE.len()]> {
        let (part, rest) = bytes.split_at(bytes.len().min(wanted - self.head_bytes));
        self.head[self.head_bytes..][..part.len()].copy_from_slice(part);
        self.head_bytes += part.len();
        *bytes = rest;
        if self.head_bytes < wanted {
            return None;
        }
        self.head_bytes = 0;
        Some(self.head)
    }
}

fn after_header(header: u32) -> Result<State, Garbage> {
    let length = (header & !PADDING_BIT) as usize;
    match (header & PADDING_BIT != 0, length) {
        (true, 0) => Ok(State::Header),
        (true, 1..=PAYLOAD_BYTES) => Ok(State::Padding { left: length }),
        (true, _) => Err(Garbage("a padding is longer than a packet")),
        (false, 0) => Err(Garbage("a frame is empty")),
        (false, 1..=MAX_FRAME_BYTES) => Ok(State::Frame { frame: Vec::new(), length }),
        (false, _) => Err(Garbage("a frame is too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream_of(lengths: &[usize]) -> (Vec<u8>, Vec<Bytes>) {
        let mut stream = PREAMBLE.to_vec();
        let mut frames = Vec::new();
        for (number, length) in lengths.iter().enumerate() {
            let frame = vec![number as u8; *length];
            append(&mut stream, &frame);
            if number % 2 == 0 {
                end_short(&mut stream);
                stream.extend_from_slice(&pad());
            }
            frames.push(Bytes::from(frame));
        }
        (stream, frames)
    }

    #[test]
    fn frames_come_back_in_whatever_pieces_the_stream_arrives() {
        let (stream, frames) = stream_of(&[1, 100, 1_452, 2_908, 5, MAX_FRAME_BYTES]);
        for piece_bytes in [1, 2, 3, 7, 1_455, 1_456, 1_457, stream.len()] {
            let mut deframer = Deframer::new();
            let mut got = Vec::new();
            for piece in stream.chunks(piece_bytes) {
                deframer.take(piece, &mut got).unwrap();
            }
            assert!(deframer.greeted());
            assert_eq!(got, frames, "in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn what_is_sent_never_ends_with_a_full_packet() {
        for length in 1..3 * PIECE_BYTES {
            let mut stream = vec![0; length];
            end_short(&mut stream);
            for piece in stream.chunks(PIECE_BYTES) {
                assert_ne!(piece.len() % PAYLOAD_BYTES, 0, "a stream of {length} bytes");
            }
        }
    }

    #[test]
    fn garbage_is_an_error_and_takes_no_memory() {
        let garbage: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\n",
            b"turbudt\x01\x00\x00\x00\x00",
            b"turbudt\x01\x7f\xff\xff\xff",
            b"turbudt\x01\xff\xff\xff\xff",
        ];
        for bytes in garbage {
            let mut frames = Vec::new();
            assert!(Deframer::new().take(bytes, &mut frames).is_err(), "{bytes:?}");
            assert!(frames.is_empty());
        }
    }
}
