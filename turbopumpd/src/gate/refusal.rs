//! Answers that the gate gives by itself: what it refuses, and why.
//!
//! They have the form of every error of the daemon: `{"error":"code","detail":"sentence"}`.

use std::{borrow::Cow, fmt::Write};

/// Why a request was not passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The code for programs.
    pub code: &'static str,
    /// The sentence for people.
    pub detail: Cow<'static, str>,
}

impl Refusal {
    /// A refusal; `detail` is one sentence that says what to do.
    pub fn new(status: u16, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into() }
    }

    /// 400: the request breaks HTTP's rules, or could be read in two ways.
    pub(super) fn malformed(detail: &'static str) -> Self {
        Self::new(400, "malformed_request", detail)
    }

    /// 401: the token is missing or another one.
    pub(super) fn unauthorized() -> Self {
        Self::new(401, "unauthorized", "Send the token of this daemon as Authorization: Bearer TOKEN.")
    }

    /// 408: the client was silent for too long.
    pub(super) fn silent() -> Self {
        Self::new(408, "timeout", "The request did not arrive in time; send it again, faster.")
    }

    /// 413: the body is longer than this daemon takes.
    pub(super) fn too_large(limit_bytes: u64) -> Self {
        Self::new(
            413,
            "too_large",
            format!("The body is longer than max-value, the limit of {limit_bytes} bytes."),
        )
    }

    /// 503: more requests at once than there is room for.
    pub(super) fn busy() -> Self {
        Self::new(503, "busy", "Too many requests wait already; try again in a second.")
    }

    /// 503: the daemon is about to end.
    pub(super) fn stopping() -> Self {
        Self::new(503, "stopping", "This node is stopping; ask another one.")
    }

    /// 500: the request was passed on and no answer came back.
    pub(super) fn lost() -> Self {
        Self::new(500, "internal", "The answer got lost inside the daemon; the outcome is unknown.")
    }

    /// The whole answer. The connection ends after it.
    pub(super) fn to_bytes(&self, without_body: bool) -> Vec<u8> {
        let body = serde_json::json!({"error": self.code, "detail": self.detail}).to_string() + "\n";
        let mut text = String::with_capacity(256 + body.len());
        let _ = write!(text, "HTTP/1.1 {} {}\r\n", self.status, self.reason());
        if self.status == 503 {
            text.push_str("Retry-After: 1\r\n");
        }
        if self.status == 401 {
            text.push_str("WWW-Authenticate: Bearer\r\n");
        }
        let _ = write!(
            text,
            "Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        if !without_body {
            text.push_str(&body);
        }
        text.into_bytes()
    }

    fn reason(&self) -> &'static str {
        match self.status {
            400 => "Bad Request",
            401 => "Unauthorized",
            408 => "Request Timeout",
            413 => "Content Too Large",
            414 => "URI Too Long",
            417 => "Expectation Failed",
            431 => "Request Header Fields Too Large",
            503 => "Service Unavailable",
            505 => "HTTP Version Not Supported",
            _ => "Internal Server Error",
        }
    }
}
