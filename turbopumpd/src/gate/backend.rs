//! The side behind the gate: `tiny_http`, its handler threads, and what a handler gets to see.
//!
//! ```text
//! gate ==lane==> tiny_http's thread for that lane -> its queue -> handler thread -> Handler
//!      <===============================================  Exchange::respond, from any thread
//! ```
//!
//! A handler must not block: it passes the [`Exchange`] on to whoever will answer. Requests whose bodies
//! stream are handled on a thread of their own, which may block to read them, and answers too long for a
//! socket's buffer are written on one, so that neither a slow sender nor a slow reader holds up others.
//! An answer that breaks off within its body ends its connection: nothing else would tell the client.
//!
//! Each request carries a header of the gate with a secret of this process: what does not have
//! it did not come through the gate and gets nothing.

use std::{
    io::{self, Cursor, Read, Write},
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;
use tiny_http::{Header, Request, Response, Server, StatusCode};

use super::Origin;

/// Answers up to this length fit the buffer of a lane's socket, so writing them never blocks.
const INLINE_ANSWER_BYTES: usize = 32 * 1024;

/// Bytes of a long body that are read at once.
const COPIED_BYTES: usize = 64 * 1024;

/// The header that carries the secret, the origin and the kind. Short: it is in every request. In an answer
/// it says that the body was not read to its end.
pub(super) const GATE_HEADER: &str = "G";

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Takes one request. Called from a few threads; must not block, unless its body
    /// [streams](Exchange::is_streaming).
    fn handle(&self, exchange: Exchange);
}

impl<F: Fn(Exchange) + Send + Sync + 'static> Handler for F {
    fn handle(&self, exchange: Exchange) {
        self(exchange);
    }
}

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// Headers beside the length, the date and the connection.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// One request and the right to answer it, once. Dropped unanswered, it answers 500.
pub struct Exchange {
    request: Option<Request>,
    body: Bytes,
    /// The body is still to be read.
    is_streaming: bool,
    /// The body streams, and was not read to its end.
    has_unread: bool,
    came: Came,
    shared: Arc<Shared>,
}

/// Why a body was not copied.
#[derive(Debug)]
pub enum CopyError {
    /// It broke off: there is nobody to answer.
    BrokeOff,
    /// It could not be written.
    NotWritten(io::Error),
}

impl Exchange {
    /// The method, in capitals.
    pub fn method(&self) -> &str {
        self.request().method().as_str()
    }

    /// Path and query, as sent.
    pub fn target(&self) -> &str {
        self.request().url()
    }

    /// A header's value. Only `Range`, `If-Range` and `If-None-Match` come through the gate.
    pub fn header(&self, name: &'static str) -> Option<&str> {
        self.request().headers().iter().find(|h| h.field.equiv(name)).map(|h| h.value.as_str())
    }

    /// Which kind of socket it came through.
    pub fn origin(&self) -> Origin {
        self.came.origin
    }

    /// Whether the body is long, and to be read with [`copy_body`](Self::copy_body).
    pub fn is_streaming(&self) -> bool {
        self.is_streaming
    }

    /// Copies a body that streams, as it comes. Blocks; the answer may be given before, or without.
    ///
    /// # Errors
    /// [`CopyError`]: what was written so far is a part of a body, or of none.
    pub fn copy_body(&mut self, to: &mut dyn Write) -> Result<u64, CopyError> {
        if !std::mem::take(&mut self.is_streaming) {
            return Err(CopyError::BrokeOff);
        }
        let request = self.request.as_mut().ok_or(CopyError::BrokeOff)?;
        let copied = copy_marked(request.as_reader(), self.shared.secret.as_bytes(), to);
        self.has_unread = copied.is_err();
        copied
    }

    /// The whole body, where it does not stream.
    pub fn take_body(&mut self) -> Bytes {
        std::mem::take(&mut self.body)
    }

    /// Answers, from any thread. Does not block.
    pub fn respond(mut self, reply: Reply) {
        self.answer(reply);
    }

    /// Answers with so many bytes of a reader, on a thread of its own. The body of `reply` is not used.
    pub fn respond_from(mut self, mut reply: Reply, length: u64, reader: Box<dyn Read + Send>) {
        let Some(request) = self.take_request(&mut reply) else { return };
        let (shared, client) = (self.shared.clone(), self.came.client);
        let write = move || {
            let failed = Arc::new(AtomicBool::new(false));
            let watched = Watched { reader, left: length, failed: failed.clone() };
            // The length is an `usize` there; this runs on 64 bits.
            write_answer(request, reply.status, &reply.headers, watched, length as usize);
            if failed.load(Ordering::Acquire) {
                (shared.lost)(client);
            }
        };
        // Where no thread can be had, the request was dropped with its closure and answers 500.
        if let Err(e) = thread::Builder::new().name("gate-answer".into()).spawn(write) {
            log::error!("no thread for a long answer: {e}");
        }
    }

    fn answer(&mut self, mut reply: Reply) {
        if let Some(request) = self.take_request(&mut reply) {
            respond(request, reply);
        }
    }

    /// The request, to be answered with this reply, which says to the gate what it has to know.
    fn take_request(&mut self, reply: &mut Reply) -> Option<Request> {
        if self.has_unread {
            reply.headers.push((GATE_HEADER, "unread".into()));
        }
        self.request.take()
    }

    fn request(&self) -> &Request {
        self.request.as_ref().expect("taken only by respond and drop, which end it")
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.request.is_some() {
            let body = "{\"error\":\"internal\",\"detail\":\"The daemon failed to answer; see its log.\"}\n";
            let headers = vec![("Content-Type", "application/json".into())];
            self.answer(Reply { status: 500, headers, body: body.into() });
        }
    }
}

fn respond(request: Request, reply: Reply) {
    let Reply { status, headers, body } = reply;
    let length = body.len();
    let write = move || write_answer(request, status, &headers, Cursor::new(body), length);
    if length <= INLINE_ANSWER_BYTES {
        return write();
    }
    // Where no thread can be had, the request was dropped with its closure and answers 500.
    let spawned = thread::Builder::new().name("gate-answer".into()).spawn(write);
    if let Err(e) = spawned {
        log::error!("no thread for a long answer: {e}");
    }
}

fn write_answer(
    request: Request,
    status: u16,
    lines: &[(&'static str, String)],
    body: impl Read,
    length: usize,
) {
    let mut headers = Vec::with_capacity(lines.len() + 1);
    for (name, value) in lines {
        // Control characters in a value would begin a header or an answer of their own.
        let value: Vec<u8> =
            value.bytes().map(|b| if (0x20..=0x7e).contains(&b) { b } else { b'?' }).collect();
        headers.extend(Header::from_bytes(name.as_bytes(), value));
    }
    headers.extend(Header::from_bytes(&b"Server"[..], &b"turbopumpd"[..]));
    let response = Response::new(StatusCode(status), headers, body, Some(length), None)
        .with_chunked_threshold(usize::MAX);
    if let Err(e) = request.respond(response) {
        log::debug!("an answer was not taken: {e}");
    }
}

/// Just so many bytes of a reader, and whether they all came.
struct Watched {
    reader: Box<dyn Read + Send>,
    left: u64,
    failed: Arc<AtomicBool>,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if len == 0 {
            return Ok(0);
        }
        let read = self.reader.read(&mut buffer[..len]);
        match &read {
            Ok(0) => self.failed.store(true, Ordering::Release),
            Ok(n) => self.left -= *n as u64,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => {
                log::warn!("an answer breaks off: {e}");
                self.failed.store(true, Ordering::Release);
            }
        }
        read
    }
}

/// What the gate tells the backend of each request, in one header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// The gate wants to know that a lane is served.
    Probe,
    /// The body is complete.
    Held,
    /// The body follows in chunks, and its end is marked.
    Marked,
}

/// Where a request came from: the gate's name for the client, which is not used again soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Came {
    origin: Origin,
    client: usize,
}

/// The value of [`GATE_HEADER`], without the client, which follows as a hexadecimal number.
pub(super) fn gate_value(secret: &str, origin: Origin, kind: Kind) -> String {
    let origin = match origin {
        Origin::Tcp => 't',
        Origin::Unix => 'u',
    };
    let kind = match kind {
        Kind::Probe => 'p',
        Kind::Held => 'h',
        Kind::Marked => 'm',
    };
    format!("{secret}{origin}{kind}")
}

fn parse_gate_value(secret: &str, value: &str) -> Option<(Came, Kind)> {
    let [origin, kind, client @ ..] = value.strip_prefix(secret)?.as_bytes() else { return None };
    let origin = if *origin == b'u' { Origin::Unix } else { Origin::Tcp };
    let kind = match kind {
        b'p' => Kind::Probe,
        b'h' => Kind::Held,
        _ => Kind::Marked,
    };
    let client = std::str::from_utf8(client).ok()?;
    let client = if client.is_empty() { 0 } else { usize::from_str_radix(client, 16).ok()? };
    Some((Came { origin, client }, kind))
}

/// The running `tiny_http`, and what it takes to start another.
pub(super) struct Backend {
    shared: Arc<Shared>,
    servers: Mutex<Vec<Arc<Server>>>,
    threads: usize,
    folder: TempDir,
}

struct Shared {
    secret: String,
    handler: Box<dyn Handler>,
    lost: Lost,
    stopping: AtomicBool,
}

/// Tells the gate that the answer to a client broke off.
pub(super) type Lost = Box<dyn Fn(usize) + Send + Sync>;

impl Backend {
    /// Prepares the private folder. Nothing runs yet.
    pub(super) fn new(
        handler: Box<dyn Handler>,
        secret: String,
        threads: usize,
        lost: Lost,
    ) -> io::Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("turbopumpd-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir()?;
        let shared = Arc::new(Shared { secret, handler, lost, stopping: AtomicBool::new(false) });
        Ok(Self { shared, servers: Mutex::new(Vec::new()), threads, folder })
    }

    /// Starts a `tiny_http` and says where it listens. Called again where the last one stopped
    /// accepting, which any failed accept makes it do; requests on its lanes still end well.
    pub(super) fn start_server(&self) -> io::Result<PathBuf> {
        let mut servers = self.servers.lock();
        let path = self.folder.path().join(format!("lanes-{}", servers.len()));
        let server = Arc::new(Server::http_unix(&path).map_err(io::Error::other)?);
        for _ in 0..self.threads {
            let (server, shared) = (server.clone(), self.shared.clone());
            thread::Builder::new().name("gate-handler".into()).spawn(move || serve(&server, &shared))?;
        }
        servers.push(server);
        Ok(path)
    }

    /// Ends the handler threads.
    pub(super) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        for server in self.servers.lock().drain(..) {
            (0..self.threads).for_each(|_| server.unblock());
        }
    }
}

fn serve(server: &Server, shared: &Arc<Shared>) {
    loop {
        match server.recv() {
            Ok(request) => {
                if catch_unwind(AssertUnwindSafe(|| take_in(request, shared))).is_err() {
                    log::error!("a handler panicked; its request was answered 500");
                }
            }
            Err(_) if shared.stopping.load(Ordering::Acquire) => return,
            Err(e) => log::error!("tiny_http accepts no more lanes: {e}"),
        }
    }
}

fn take_in(mut request: Request, shared: &Arc<Shared>) {
    let header = request.headers().iter().find(|h| h.field.equiv(GATE_HEADER)).map(|h| h.value.as_str());
    let Some((came, kind)) = header.and_then(|v| parse_gate_value(&shared.secret, v)) else {
        log::error!("a request came around the gate; it was refused");
        let _ = request.respond(Response::empty(403));
        return;
    };
    let length = request.body_length().unwrap_or(0);
    let handle = move |request, body: Vec<u8>, is_streaming, shared: &Arc<Shared>| {
        let (request, body, its) = (Some(request), body.into(), shared.clone());
        let has_unread = is_streaming;
        shared.handler.handle(Exchange { request, body, is_streaming, has_unread, came, shared: its });
    };
    match kind {
        Kind::Probe => {
            let _ = request.respond(Response::empty(204));
        }
        Kind::Held => {
            let mut body = vec![0; length];
            if length > 0 && request.as_reader().read_exact(&mut body).is_err() {
                return;
            }
            handle(request, body, false, shared);
        }
        Kind::Marked => {
            let shared = shared.clone();
            let spawned = thread::Builder::new()
                .name("gate-body".into())
                .spawn(move || handle(request, Vec::new(), true, &shared));
            if let Err(e) = spawned {
                log::error!("no thread for a long body: {e}");
            }
        }
    }
}

/// Copies a body to its end. The mark proves that it was the end: a lane that breaks inside a
/// chunk looks like an end to `tiny_http`.
fn copy_marked(from: &mut dyn Read, mark: &[u8], to: &mut dyn Write) -> Result<u64, CopyError> {
    let mut buffer = vec![0; COPIED_BYTES + mark.len()];
    let (mut held, mut copied) = (0, 0);
    loop {
        match from.read(&mut buffer[held..]) {
            Ok(0) => break,
            Ok(n) => held += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Err(CopyError::BrokeOff),
        }
        let Some(ready) = held.checked_sub(mark.len()) else { continue };
        to.write_all(&buffer[..ready]).map_err(CopyError::NotWritten)?;
        buffer.copy_within(ready..held, 0);
        (held, copied) = (mark.len(), copied + ready as u64);
    }
    match buffer[..held] == *mark {
        true => Ok(copied),
        false => Err(CopyError::BrokeOff),
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Shutdown, os::unix::net::UnixStream, sync::mpsc};

    use super::*;

    /// Sends to `tiny_http` itself, ends the sending half, and gives all that comes back.
    fn around_the_gate(path: &std::path::Path, request: &str) -> String {
        let mut lane = UnixStream::connect(path).unwrap();
        lane.write_all(request.as_bytes()).unwrap();
        lane.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        lane.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn a_handler_sees_whole_bodies_that_came_through_the_gate_and_nothing_else() {
        let (sender, bodies) = mpsc::channel();
        let handler = move |mut exchange: Exchange| {
            let mut body = Vec::new();
            if exchange.copy_body(&mut body).is_err() {
                return;
            }
            sender.send(Bytes::from(body)).unwrap();
            exchange.respond(Reply { status: 200, headers: vec![], body: Bytes::new() });
        };
        let backend = Backend::new(Box::new(handler), "secret".into(), 2, Box::new(|_| {})).unwrap();
        let path = backend.start_server().unwrap();
        let head =
            |value: &str| format!("POST /x HTTP/1.1\r\nG: {value}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let marked = head(&gate_value("secret", Origin::Tcp, Kind::Marked));
        for (request, status) in [
            // tiny_http takes an end inside a chunk for the end of the body; the mark does not.
            (format!("{marked}20\r\nhello, hello"), 500),
            (format!("{marked}c\r\nhello, hello\r\n"), 500),
            (format!("{marked}c\r\nhello, hello\r\n0\r\n\r\n"), 500),
            (format!("{marked}c\r\nhello, hello\r\n6\r\nsecret\r\n0\r\n\r\n"), 200),
            (format!("{}c\r\nhello, hello\r\n6\r\nsecret\r\n0\r\n\r\n", head("secreXtm")), 403),
            ("GET /x HTTP/1.1\r\n\r\n".into(), 403),
        ] {
            let answer = around_the_gate(&path, &request);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer:?}");
        }
        backend.stop();
        assert_eq!(bodies.try_iter().collect::<Vec<_>>(), [Bytes::from("hello, hello")]);
    }
}
