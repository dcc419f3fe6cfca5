//! Reads the head of a request strictly, and writes the head that `tiny_http` gets to see.
//!
//! What `tiny_http` gets is written anew from what was understood: one request line, the few
//! headers that the routes use, and the length that the gate found. So nothing that the two could
//! read differently ever passes. Pure functions: bytes in, values out.

use super::{Limits, Refusal, token::shown_in};

/// Headers that the routes want to see. Everything else ends here.
const PASSED_HEADERS: [&str; 3] = ["range", "if-range", "if-none-match"];

/// Header lines at most.
const MAX_HEADER_LINES: usize = 64;

/// How the body arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFraming {
    /// As many bytes; 0 where there is no body.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// What was understood of a head.
#[derive(Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Request line and headers for `tiny_http`, without the gate's own headers and the empty line.
    pub forward: Vec<u8>,
    /// Where the target stands in `forward`.
    pub target: std::ops::Range<usize>,
    /// How the body arrives.
    pub body: BodyFraming,
    /// Whether the client waits for a `100 Continue`.
    pub expects_continue: bool,
    /// Whether the client wants to go on with this connection.
    pub keep_alive: bool,
    /// Whether it speaks HTTP/1.0, where staying needs to be said.
    pub is_http10: bool,
    /// Whether it is a HEAD, whose answer has no body.
    pub is_head: bool,
    /// Whether there is a Host header.
    pub has_host: bool,
    /// The token in its Authorization header. Goes no further than the gate.
    pub bearer: Option<Vec<u8>>,
}

impl RequestHead {
    /// The path and query.
    pub fn target(&self) -> &[u8] {
        &self.forward[self.target.clone()]
    }
}

/// How far a head has been looked through, so that one that comes byte by byte costs no more.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct HeadScan {
    /// Bytes looked at.
    scanned: usize,
    /// Where the line that is being read starts.
    line_start: usize,
    /// Where the headers start, once the request line is complete.
    headers_start: usize,
}

/// Looks for a whole head at the start of `bytes`. Gives it with its length, or nothing yet.
///
/// # Errors
/// The refusal to send; the connection can't go on.
pub fn parse_head(
    bytes: &[u8],
    scan: &mut HeadScan,
    limits: &Limits,
) -> Result<Option<(RequestHead, usize)>, Refusal> {
    match find_end(bytes, scan, limits)? {
        Some(end) => Ok(Some((understand(&bytes[..end], limits)?, end))),
        None => Ok(None),
    }
}

/// Leading empty lines, which old clients send after a body, and how many bytes they take.
pub fn leading_empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}

fn find_end(bytes: &[u8], scan: &mut HeadScan, limits: &Limits) -> Result<Option<usize>, Refusal> {
    while let Some(found) = bytes[scan.scanned..].iter().position(|&b| b == b'\n') {
        let lf = scan.scanned + found;
        if lf == 0 || bytes[lf - 1] != b'\r' {
            return Err(Refusal::malformed("Lines must end in CR LF."));
        }
        scan.scanned = lf + 1;
        if scan.headers_start == 0 {
            if lf > limits.request_line_bytes {
                return Err(long_line(limits));
            }
            scan.headers_start = lf + 1;
        } else if lf - scan.line_start == 1 {
            return match lf - scan.headers_start > limits.header_bytes {
                true => Err(long_headers(limits)),
                false => Ok(Some(lf + 1)),
            };
        }
        scan.line_start = lf + 1;
    }
    scan.scanned = bytes.len();
    if scan.headers_start == 0 && bytes.len() > limits.request_line_bytes {
        return Err(long_line(limits));
    }
    if scan.headers_start > 0 && bytes.len() - scan.headers_start > limits.header_bytes {
        return Err(long_headers(limits));
    }
    Ok(None)
}

fn long_line(limits: &Limits) -> Refusal {
    let limit = limits.request_line_bytes;
    Refusal::new(414, "too_long", format!("The request line is longer than {limit} bytes."))
}

fn long_headers(limits: &Limits) -> Refusal {
    let limit = limits.header_bytes;
    Refusal::new(431, "too_long", format!("The headers are longer than {limit} bytes."))
}

fn understand(bytes: &[u8], limits: &Limits) -> Result<RequestHead, Refusal> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADER_LINES];
    let mut request = httparse::Request::new(&mut lines);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => {
            let detail = format!("There are more than {MAX_HEADER_LINES} header lines.");
            return Err(Refusal::new(431, "too_long", detail));
        }
        Err(httparse::Error::Version) if names_http(bytes) => {
            return Err(Refusal::new(505, "http_version", "This daemon speaks HTTP/1.0 and HTTP/1.1."));
        }
        _ => return Err(Refusal::malformed("The request line or a header is malformed.")),
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let is_http10 = request.version == Some(0);
    let target = path_of(target)?;

    let mut forward = Vec::with_capacity(bytes.len().min(1024) + 128);
    forward.extend_from_slice(method.as_bytes());
    forward.push(b' ');
    let target_start = forward.len();
    forward.extend_from_slice(target.as_bytes());
    let target = target_start..forward.len();
    forward.extend_from_slice(b" HTTP/1.1\r\n");

    let mut head = RequestHead {
        forward,
        target,
        body: BodyFraming::Length(0),
        expects_continue: false,
        keep_alive: !is_http10,
        is_http10,
        is_head: method == "HEAD",
        has_host: false,
        bearer: None,
    };
    let framing = read_headers(&mut head, request.headers)?;
    head.body = match framing {
        Framing { length: Some(_), is_chunked: true } => {
            return Err(Refusal::malformed("Content-Length and Transfer-Encoding exclude each other."));
        }
        Framing { is_chunked: true, .. } if is_http10 => {
            return Err(Refusal::malformed("HTTP/1.0 has no Transfer-Encoding."));
        }
        Framing { is_chunked: true, .. } => BodyFraming::Chunked,
        Framing { length, .. } => BodyFraming::Length(length.unwrap_or(0)),
    };
    match head.body {
        BodyFraming::Length(n) if n > limits.body_bytes => Err(Refusal::too_large(limits.body_bytes)),
        _ => Ok(head),
    }
}

/// Whether the request line has three words and the last one is some version of HTTP.
fn names_http(head: &[u8]) -> bool {
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    words.len() == 3 && words[2].starts_with(b"HTTP/")
}

/// Path and query of a target; a proxy's absolute form is cut down to them.
fn path_of(target: &str) -> Result<&str, Refusal> {
    if !target.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Err(Refusal::malformed("The target must be printable ASCII; percent-encode the rest."));
    }
    if target.starts_with('/') || target == "*" {
        return Ok(target);
    }
    match target.split_once("://") {
        Some((_, rest)) => Ok(rest.find('/').map_or("/", |slash| &rest[slash..])),
        None => Err(Refusal::malformed("The target must begin with a slash.")),
    }
}

#[derive(Default)]
struct Framing {
    length: Option<u64>,
    is_chunked: bool,
}

fn read_headers(head: &mut RequestHead, lines: &[httparse::Header<'_>]) -> Result<Framing, Refusal> {
    let mut framing = Framing::default();
    for line in lines {
        let value = line.value.trim_ascii();
        // A length test first: most headers are none of these.
        match line.name.len() {
            4 if line.name.eq_ignore_ascii_case("host") => {
                if head.has_host {
                    return Err(Refusal::malformed("There are two Host headers."));
                }
                head.has_host = true;
            }
            13 if line.name.eq_ignore_ascii_case("authorization") => {
                if head.bearer.is_some() {
                    return Err(Refusal::malformed("There are two Authorization headers."));
                }
                head.bearer = shown_in(value).map(<[u8]>::to_vec);
            }
            14 if line.name.eq_ignore_ascii_case("content-length") => {
                if framing.length.is_some() {
                    return Err(Refusal::malformed("There are two Content-Length headers."));
                }
                framing.length = Some(content_length(value)?);
            }
            17 if line.name.eq_ignore_ascii_case("transfer-encoding") => {
                if framing.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::malformed("The only Transfer-Encoding is chunked, once."));
                }
                framing.is_chunked = true;
            }
            10 if line.name.eq_ignore_ascii_case("connection") => {
                for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
                    if option.eq_ignore_ascii_case(b"close") {
                        head.keep_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") && head.is_http10 {
                        head.keep_alive = true;
                    }
                }
            }
            6 if line.name.eq_ignore_ascii_case("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal::new(417, "expectation", "Only 100-continue can be expected."));
                }
                head.expects_continue = !head.is_http10;
            }
            _ => pass(&mut head.forward, line.name, value),
        }
    }
    Ok(framing)
}

fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let bad = || Refusal::malformed("Content-Length is not a number.");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    // Too many digits is just a length over the limit.
    Ok(std::str::from_utf8(value).map_err(|_| bad())?.parse().unwrap_or(u64::MAX))
}

fn pass(forward: &mut Vec<u8>, name: &str, value: &[u8]) {
    let wanted = PASSED_HEADERS.iter().any(|p| name.eq_ignore_ascii_case(p));
    if wanted && value.iter().all(|b| (0x20..=0x7e).contains(b)) {
        forward.extend_from_slice(name.as_bytes());
        forward.extend_from_slice(b": ");
        forward.extend_from_slice(value);
        forward.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<(RequestHead, usize)>, u16> {
        parse_head(text.as_bytes(), &mut HeadScan::default(), &Limits::default()).map_err(|r| r.status)
    }

    fn whole(text: &str) -> RequestHead {
        parse(text).unwrap().unwrap().0
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_the_same_head() {
        let text = "POST /write?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nbody";
        let mut scan = HeadScan::default();
        for n in 0..text.len() - 4 {
            assert_eq!(parse_head(&text.as_bytes()[..n], &mut scan, &Limits::default()), Ok(None));
        }
        let (head, used) = parse_head(text.as_bytes(), &mut scan, &Limits::default()).unwrap().unwrap();
        assert_eq!((head.target(), used), (&b"/write?name=a"[..], text.len() - 4));
        assert_eq!(head.body, BodyFraming::Length(12));
        assert_eq!(head, whole(text));
    }

    #[test]
    fn only_what_was_understood_is_passed_on() {
        let head =
            whole("GET http://h/a?b HTTP/1.1\r\nX-Gate: fake\r\nRange: bytes=0-1\r\nTE: chunked\r\n\r\n");
        assert_eq!(head.forward, b"GET /a?b HTTP/1.1\r\nRange: bytes=0-1\r\n");
    }

    #[test]
    fn staying_and_leaving_follow_the_version_and_the_header() {
        let keeps = |text: &str| whole(text).keep_alive;
        assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for lines in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 0x10\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "A: b\r\n c: folded\r\n",
            "A: b\rc\r\n",
            "A: b\nContent-Length: 5\r\n",
            "A: \0\r\n",
            "no colon\r\n",
            "Host: a\r\nHost: b\r\n",
        ] {
            assert_eq!(parse(&format!("POST / HTTP/1.1\r\n{lines}\r\n")), Err(400), "{lines:?}");
        }
        assert_eq!(parse("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(400));
        for line in [
            "GET /\u{e4} HTTP/1.1",
            "GET  / HTTP/1.1",
            "GET / x HTTP/1.1",
            "GET /",
            "\u{16}\u{3}\u{1}",
            "GET x HTTP/1.1",
        ] {
            assert_eq!(parse(&format!("{line}\r\n\r\n")), Err(400), "{line:?}");
        }
        assert_eq!(parse("GET / HTTP/2.0\r\n\r\n"), Err(505));
    }

    #[test]
    fn line_and_headers_are_limited_before_they_are_complete() {
        assert_eq!(parse(&format!("GET /{}", "x".repeat(8192))), Err(414));
        assert_eq!(parse(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(8192))), Err(414));
        assert!(parse(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(8000))).is_ok());
        assert_eq!(parse(&format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(32768))), Err(431));
        assert_eq!(parse(&format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100))), Err(431));
        assert_eq!(parse("POST / HTTP/1.1\r\nContent-Length: 30000000000\r\n\r\n"), Err(413));
        assert_eq!(parse("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n"), Err(413));
    }
}
