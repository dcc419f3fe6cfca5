//! Reads the head of what `tiny_http` answers. Pure: bytes in, values out.

use std::ops::Range;

use super::backend::GATE_HEADER;

/// Header lines at most: what the routes set, and the four of `tiny_http`.
const MAX_HEADER_LINES: usize = 32;

/// What the gate needs to know of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AnswerHead {
    /// Length of the status line with its end: where a header can be put in.
    pub(super) status_line_bytes: usize,
    /// Length of the whole answer, head and body.
    pub(super) total_bytes: u64,
    /// The status.
    pub(super) status: u16,
    /// The line that says that a long body was not read to its end, which is not for the client.
    pub(super) unread_line: Option<Range<usize>>,
}

/// An answer that the gate can't relay.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadAnswer;

/// Looks for a whole head at the start of `bytes`.
pub(super) fn parse_answer(bytes: &[u8], to_head: bool) -> Result<Option<AnswerHead>, BadAnswer> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADER_LINES];
    let mut response = httparse::Response::new(&mut lines);
    let head_bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(n)) => n,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(BadAnswer),
    };
    let status = response.code.ok_or(BadAnswer)?;
    let (mut length, mut unread_line) = (None, None);
    for line in response.headers.iter() {
        if line.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(line.value).ok().and_then(|v| v.parse::<u64>().ok());
        } else if line.name == GATE_HEADER {
            let from = line.name.as_ptr() as usize - bytes.as_ptr() as usize;
            let len = bytes[from..].iter().position(|&b| b == b'\n').ok_or(BadAnswer)? + 1;
            unread_line = Some(from..from + len);
        }
    }
    let body_bytes = match to_head || matches!(status, 204 | 304) {
        true => 0,
        false => length.ok_or(BadAnswer)?,
    };
    let status_line_bytes = bytes.iter().position(|&b| b == b'\n').ok_or(BadAnswer)? + 1;
    let total_bytes = head_bytes as u64 + body_bytes;
    Ok(Some(AnswerHead { status_line_bytes, total_bytes, status, unread_line }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_an_answer_is_known_from_its_head() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        let found = parse_answer(head, false).unwrap().unwrap();
        assert_eq!((found.status_line_bytes, found.total_bytes), (17, head.len() as u64 + 5));
        assert_eq!(parse_answer(head, true).unwrap().unwrap().total_bytes, head.len() as u64);
        assert_eq!(found.unread_line, None);
        assert_eq!(parse_answer(&head[..20], false), Ok(None));
        let marked = b"HTTP/1.1 400 No\r\nG: unread\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse_answer(marked, false).unwrap().unwrap().unread_line, Some(17..28));
        assert_eq!(parse_answer(b"HTTP/1.1 200 OK\r\n\r\n", false), Err(BadAnswer));
        assert_eq!(parse_answer(b"nonsense\r\n\r\n", false), Err(BadAnswer));
    }
}
