//! Answers: JSON, the value with its headers, ranges, and every error row.

use bytes::Bytes;
use serde_json::{Value, json};
use turbopump::{Record, Siblings, model::signature_text};

use crate::{
    gate::{Exchange, Reply},
    params::ParamError,
};

/// 200 with JSON.
pub fn ok(value: &Value) -> Reply {
    json_reply(200, value)
}

/// 202 with JSON: under way.
pub fn accepted(value: &Value) -> Reply {
    json_reply(202, value)
}

/// An error row; `detail` is one sentence that says what to do.
pub fn error(status: u16, code: &str, detail: impl AsRef<str>) -> Reply {
    let mut reply = json_reply(status, &json!({"error": code, "detail": detail.as_ref()}));
    if status == 503 {
        reply.headers.push(("Retry-After", "1".into()));
    }
    reply
}

/// 204: nothing to say.
pub fn nothing() -> Reply {
    Reply { status: 204, headers: Vec::new(), body: Bytes::new() }
}

/// Plain text of a given type.
pub fn text(content_type: &str, body: String) -> Reply {
    Reply { status: 200, headers: vec![("Content-Type", content_type.into())], body: body.into() }
}

impl From<ParamError> for Reply {
    fn from(e: ParamError) -> Self {
        error(400, e.code(), e.to_string())
    }
}

fn json_reply(status: u16, value: &Value) -> Reply {
    let body = format!("{value}\n");
    Reply { status, headers: vec![("Content-Type", "application/json".into())], body: body.into() }
}

/// What a reader gets to know of a key beside the bytes.
pub fn version_headers(siblings: &Siblings, record: &Record, live: usize) -> Vec<(&'static str, String)> {
    let version = record.version.dot.to_string();
    let mut headers = vec![
        ("ETag", format!("\"{version}\"")),
        ("Turbopump-Version", version),
        ("Turbopump-Context", siblings.context().to_string()),
        ("Turbopump-Siblings", live.to_string()),
    ];
    if let Some((seal, sequence)) = record.version.seal.as_ref().zip(record.version.sequence()) {
        headers.push(("Turbopump-Author", seal.author.to_string()));
        headers.push(("Turbopump-Sequence", sequence.to_string()));
        headers.push(("Turbopump-Signature", signature_text(&seal.signature)));
        // What was signed beside name and value, so that a reader can check it.
        headers.push(("Turbopump-Mirrors", record.version.mirrors.0.to_string()));
        headers.push(("Turbopump-Signed-Context", record.version.context.to_string()));
        let expires = record.version.expires_ms.map(|at| ("Turbopump-Expires", at.to_string()));
        headers.extend(expires);
    }
    headers
}

/// What a request says about the part that it wants and the version that it has.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Conditions {
    range: Option<String>,
    if_range: Option<String>,
    if_none_match: Option<String>,
}

impl Conditions {
    /// Those of a request.
    pub fn of(exchange: &Exchange) -> Self {
        let header = |name| exchange.header(name).map(str::to_owned);
        Self { range: header("Range"), if_range: header("If-Range"), if_none_match: header("If-None-Match") }
    }

    /// The value, the asked for part of it, or that the reader has it already.
    pub fn answer(&self, headers: Vec<(&'static str, String)>, value: Bytes) -> Reply {
        let (mut reply, part) = self.judge(headers, value.len() as u64);
        if let Some((first, len)) = part {
            reply.body = value.slice(first as usize..(first + len) as usize);
        }
        reply
    }

    /// The same for a value of this length: the answer, and which part of the value is its body, by first
    /// byte and length; none: it has its body.
    pub fn judge(&self, mut headers: Vec<(&'static str, String)>, len: u64) -> (Reply, Option<(u64, u64)>) {
        let etag = headers.iter().find(|(n, _)| *n == "ETag").map_or("", |(_, v)| v).to_owned();
        if self.if_none_match.as_deref().is_some_and(|list| list_names(list, &etag)) {
            return (Reply { status: 304, headers, body: Bytes::new() }, None);
        }
        headers.push(("Content-Type", "application/octet-stream".into()));
        headers.push(("Accept-Ranges", "bytes".into()));
        let is_current = self.if_range.as_ref().is_none_or(|tag| *tag == etag);
        let range = self.range.as_deref().filter(|_| is_current);
        match range.map_or(Part::Whole, |text| part_of(text, len)) {
            Part::Whole => (Reply { status: 200, headers, body: Bytes::new() }, Some((0, len))),
            Part::Bytes(first, last) => {
                headers.push(("Content-Range", format!("bytes {first}-{last}/{len}")));
                (Reply { status: 206, headers, body: Bytes::new() }, Some((first, last - first + 1)))
            }
            Part::Outside => {
                let detail = format!("The range lies outside of the value, which has {len} bytes.");
                let mut reply = error(416, "range_not_satisfiable", detail);
                reply.headers.push(("Content-Range", format!("bytes */{len}")));
                (reply, None)
            }
        }
    }
}

fn list_names(list: &str, etag: &str) -> bool {
    list.split(',').map(|t| t.trim().trim_start_matches("W/")).any(|t| t == etag || t == "*")
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    /// First and last byte.
    Bytes(u64, u64),
    Outside,
}

/// One range of bytes; what HTTP lets a server skip (other units, several ranges, nonsense) is
/// answered with the whole.
fn part_of(text: &str, len: u64) -> Part {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|r| r.trim().split_once('-')) else {
        return Part::Whole;
    };
    // More digits than fit are just a place behind the end.
    let number = |t: &str| match t.bytes().all(|b| b.is_ascii_digit()) {
        true => Some(t.parse().unwrap_or(u64::MAX)),
        false => None,
    };
    match (first.is_empty(), last.is_empty()) {
        (true, true) => Part::Whole,
        (true, false) => match number(last) {
            None => Part::Whole,
            Some(0) => Part::Outside,
            Some(_) if len == 0 => Part::Outside,
            Some(n) => Part::Bytes(len.saturating_sub(n), len - 1),
        },
        (false, _) => {
            let last = if last.is_empty() { Some(u64::MAX) } else { number(last) };
            match (number(first), last) {
                (Some(first), Some(last)) if first <= last && first < len => {
                    Part::Bytes(first, last.min(len - 1))
                }
                (Some(first), Some(last)) if first <= last => Part::Outside,
                _ => Part::Whole,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_a_part_or_outside_or_skipped() {
        assert_eq!(part_of("bytes=0-4", 10), Part::Bytes(0, 4));
        assert_eq!(part_of("bytes=5-", 10), Part::Bytes(5, 9));
        assert_eq!(part_of("bytes=5-99999999999999999999999", 10), Part::Bytes(5, 9));
        assert_eq!(part_of("bytes=-3", 10), Part::Bytes(7, 9));
        assert_eq!(part_of("bytes=-30", 10), Part::Bytes(0, 9));
        for text in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert_eq!(part_of(text, 10), Part::Outside, "{text}");
        }
        assert_eq!(part_of("bytes=0-", 0), Part::Outside);
        assert_eq!(part_of("bytes=-1", 0), Part::Outside);
        for text in ["bytes=4-2", "bytes=-", "bytes=a-b", "lines=1-2", "bytes=0-1,3-4", ""] {
            assert_eq!(part_of(text, 10), Part::Whole, "{text}");
        }
    }
}
