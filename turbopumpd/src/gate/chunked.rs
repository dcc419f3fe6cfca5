//! Takes the chunked coding off a body: strictly, in pieces of any size.
//!
//! Not lenient on purpose: two programs that read a bad chunk differently see two different
//! requests. Sizes are hexadecimal digits only, lines end in CR LF only, extensions and trailers
//! are skipped up to a limit.

use super::Refusal;

/// Bytes of one chunk's extension, and of all trailer lines together.
const MAX_EXTRA_BYTES: usize = 4 * 1024;

/// Digits of a chunk's size: enough for 2^60 bytes, without an overflow to think of.
const MAX_SIZE_DIGITS: usize = 15;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Size { digits: usize },
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// The state of one body.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    left: u64,
    extra: usize,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self { state: State::Size { digits: 0 }, left: 0, extra: 0 }
    }
}

impl ChunkDecoder {
    /// Whether the last chunk and the trailer have passed.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Moves the data within `input` to `out` and says how much of `input` was used: all of it,
    /// unless the body ended before.
    ///
    /// # Errors
    /// A 400; the body can't be understood from there on.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut at = 0;
        while at < input.len() && self.state != State::Done {
            if self.state == State::Data {
                let n = (input.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                out.extend_from_slice(&input[at..at + n]);
                self.left -= n as u64;
                at += n;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.step(input[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        let bad = || Refusal::malformed("The chunked body is malformed.");
        Ok(match (self.state, byte) {
            (State::Size { digits }, _) if byte.is_ascii_hexdigit() && digits < MAX_SIZE_DIGITS => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                self.left = self.left * 16 + u64::from(digit);
                State::Size { digits: digits + 1 }
            }
            (State::Size { digits: 1.. }, b'\r') => State::SizeLf,
            (State::Size { digits: 1.. }, b';') => State::Extension,
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\n') => return Err(bad()),
            (State::Extension, _) => self.skip(State::Extension)?,
            (State::SizeLf, b'\n') if self.left == 0 => State::TrailerStart,
            (State::SizeLf, b'\n') => State::Data,
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::Trailer, b'\n') => return Err(bad()),
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, _) => self.skip(State::Trailer)?,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(bad()),
        })
    }

    fn skip(&mut self, next: State) -> Result<State, Refusal> {
        self.extra += 1;
        if self.extra > MAX_EXTRA_BYTES {
            return Err(Refusal::malformed("The chunked body has too long extensions or trailers."));
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::ChunkDecoder;

    fn decode(input: &str, piece: usize) -> Result<(String, bool, usize), u16> {
        let (mut decoder, mut out, mut used) = (ChunkDecoder::default(), Vec::new(), 0);
        for part in input.as_bytes().chunks(piece) {
            used += decoder.decode(part, &mut out).map_err(|r| r.status)?;
        }
        Ok((String::from_utf8(out).unwrap(), decoder.is_done(), used))
    }

    #[test]
    fn pieces_of_any_size_give_the_same_body() {
        let input = "5\r\nhello\r\nB;x=y\r\n, the world\r\n0\r\nTrailer: t\r\n\r\nGET";
        for piece in 1..input.len() {
            let (body, done, used) = decode(input, piece).unwrap();
            assert_eq!((body.as_str(), done), ("hello, the world", true), "pieces of {piece}");
            assert_eq!(used, input.len() - 3, "what follows the body is left alone");
        }
    }

    #[test]
    fn a_body_that_stops_midway_is_not_done() {
        for input in ["", "5", "5\r\nhel", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n"] {
            assert!(!decode(input, 3).unwrap().1, "{input:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for input in [
            "\r\n",
            "5\nhello",
            "x\r\n",
            "-1\r\n",
            "+5\r\n",
            " 5\r\n",
            "5 \r\nhello",
            "0x5\r\nhello",
            "5\rhello",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n0",
            "0\r\n\n",
            "0\r\na\nb\r\n\r\n",
            "5;a\nb\r\n",
            "1000000000000000\r\n",
        ] {
            assert_eq!(decode(input, 2), Err(400), "{input:?}");
        }
    }

    #[test]
    fn extensions_are_bounded() {
        let input = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(5_000));
        assert_eq!(decode(&input, 100), Err(400));
    }
}
