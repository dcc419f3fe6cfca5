//! Load on daemons over HTTP, and what it met with.
//!
//! One thread and one mio loop for all connections, so that the generator takes as little of the
//! machine as it can. Each connection has one request on its way.
//!
//! ```text
//! due moments (rate) or none ──> free connection ──> request ──> answer ──> histogram
//! ```
//!
//! With a rate, the time of a request counts from the moment at which it was due; what is still due
//! when the time is up was *skipped*, and says that the daemon did not keep up.
//!
//! Limits: answers up to [`MAX_ANSWER_BYTES`]; after the end, [`LAST_ANSWERS`] for what is under way.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpStream, UnixStream},
};

/// The longest answer that is taken, head included.
const MAX_ANSWER_BYTES: usize = 2 << 20;
/// What answers under way get when the time is up.
const LAST_ANSWERS: Duration = Duration::from_secs(15);

/// Where a daemon serves.
#[derive(Clone, Debug)]
pub enum Target {
    /// `http://HOST:PORT`.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// What to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Write values.
    Write,
    /// Read them; they have to be there.
    Read,
    /// Nine reads, one write.
    Mixed,
}

/// What to put the daemons under.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where they serve; clients take turns.
    pub targets: Vec<Target>,
    /// What to do.
    pub verb: Verb,
    /// Connections.
    pub clients: usize,
    /// Requests a second; none: as many as are answered.
    pub rate: Option<f64>,
    /// For how long, at most.
    pub length: Duration,
    /// How many requests, at most.
    pub requests: Option<u64>,
    /// How many keys, used in turns.
    pub keys: u64,
    /// Bytes of a value.
    pub size: usize,
    /// More parameters of each request.
    pub query: String,
}

/// What it met with.
pub struct Report {
    /// Nanoseconds from due (with a rate) or sent until answered, of answers that are `ok`.
    pub times_ns: Histogram<u64>,
    /// From the first request to the last answer.
    pub took: Duration,
    /// Answers 200, and 404 to a read.
    pub ok: u64,
    /// Answers 503: refused, try again.
    pub busy: u64,
    /// Answers 504: it may have happened.
    pub unknown: u64,
    /// Other answers, and connections that broke.
    pub failed: u64,
    /// Due and never sent, because no connection was free in time.
    pub skipped: u64,
}

impl Report {
    /// Answers that are `ok` a second.
    pub fn per_second(&self) -> f64 {
        self.ok as f64 / self.took.as_secs_f64()
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(addr) = text.strip_prefix("http://") {
            let addr = addr.trim_end_matches('/').replace("localhost", "127.0.0.1");
            return addr.parse().map(Self::Tcp).map_err(|e| format!("{text}: {e}"));
        }
        match text.contains('/') {
            true => Ok(Self::Unix(text.into())),
            false => Err(format!("{text}: neither http://IP:PORT nor the path of a socket")),
        }
    }
}

impl FromStr for Verb {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "write" => Ok(Self::Write),
            "read" => Ok(Self::Read),
            "mixed" => Ok(Self::Mixed),
            _ => Err("write, read or mixed".into()),
        }
    }
}

/// Carries it out.
///
/// # Errors
/// No daemon there, or the system's limits. Answers that are errors are counted, not returned.
pub fn run(plan: &Plan) -> io::Result<Report> {
    let mut load = Load::new(plan)?;
    let mut events = Events::with_capacity(1024);
    load.begin = Instant::now();
    let end = load.begin + plan.length;
    loop {
        let now = Instant::now();
        let is_over = now >= end || plan.requests.is_some_and(|most| load.sent >= most);
        if now >= end + LAST_ANSWERS || (is_over && load.free.len() == load.clients.len()) {
            break;
        }
        let next_due = if is_over { None } else { load.send_due(now) };
        let until = if now >= end { end + LAST_ANSWERS } else { next_due.unwrap_or(end).min(end) };
        load.poll.poll(&mut events, Some(until.saturating_duration_since(now)))?;
        events.iter().for_each(|event| load.read(event.token().0));
    }
    let late = load.clients.len() - load.free.len();
    load.report.failed += late as u64;
    load.report.took = load.last_answer.duration_since(load.begin);
    if let Some(rate) = plan.rate {
        load.report.skipped = ((plan.length.as_secs_f64() * rate) as u64).saturating_sub(load.sent);
    }
    Ok(load.report)
}

struct Load<'a> {
    plan: &'a Plan,
    poll: Poll,
    clients: Vec<Client>,
    free: VecDeque<usize>,
    begin: Instant,
    last_answer: Instant,
    sent: u64,
    value: Vec<u8>,
    report: Report,
}

struct Client {
    stream: Box<dyn Stream>,
    target: Target,
    since: Instant,
    answer: Vec<u8>,
}

trait Stream: Read + Write + mio::event::Source {}
impl<T: Read + Write + mio::event::Source> Stream for T {}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan) -> io::Result<Self> {
        let now = Instant::now();
        // Recording saturates at the longest time that can be waited for.
        let longest_ns = (plan.length + LAST_ANSWERS).as_nanos() as u64;
        let times_ns = Histogram::new_with_max(longest_ns, 3).map_err(io::Error::other)?;
        let report =
            Report { times_ns, took: Duration::ZERO, ok: 0, busy: 0, unknown: 0, failed: 0, skipped: 0 };
        let mut load = Self {
            plan,
            poll: Poll::new()?,
            clients: Vec::new(),
            free: (0..plan.clients).collect(),
            begin: now,
            last_answer: now,
            sent: 0,
            value: vec![b'x'; plan.size],
            report,
        };
        for i in 0..plan.clients {
            let target = plan.targets[i % plan.targets.len()].clone();
            let stream = connect(&target, &load.poll, i)?;
            load.clients.push(Client { stream, target, since: now, answer: Vec::new() });
        }
        Ok(load)
    }

    /// Sends what is due to free connections; gives when to come again.
    fn send_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(&i) = self.free.front()
            && self.plan.requests.is_none_or(|most| self.sent < most)
        {
            let due = match self.plan.rate {
                Some(rate) => self.begin + Duration::from_secs_f64(self.sent as f64 / rate),
                None => now,
            };
            if due > now {
                return Some(due);
            }
            self.free.pop_front();
            self.sent += 1;
            self.clients[i].since = if self.plan.rate.is_some() { due } else { Instant::now() };
            let request = self.request(self.sent);
            if let Err(error) = send(&mut *self.clients[i].stream, &request) {
                self.broken(i, &error);
            }
        }
        None
    }

    fn request(&self, number: u64) -> Vec<u8> {
        // Steps that meet every key and no two neighbours in turn.
        let key = number.wrapping_mul(0x9e37_79b9) % self.plan.keys;
        let is_write = match self.plan.verb {
            Verb::Write => true,
            Verb::Read => false,
            Verb::Mixed => number.is_multiple_of(10),
        };
        let more = if self.plan.query.is_empty() { "" } else { "&" };
        let query = format!("name=load-{key:011}{more}{}", self.plan.query);
        if !is_write {
            return format!("GET /read?{query} HTTP/1.1\r\nHost: load\r\n\r\n").into_bytes();
        }
        let len = self.value.len();
        let head = format!("POST /write?{query} HTTP/1.1\r\nHost: load\r\nContent-Length: {len}\r\n\r\n");
        [head.as_bytes(), &self.value].concat()
    }

    fn read(&mut self, i: usize) {
        let mut buffer = [0; 16 * 1024];
        loop {
            match self.clients[i].stream.read(&mut buffer) {
                Ok(0) => return self.broken(i, &io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.clients[i].answer.extend_from_slice(&buffer[..n]);
                    if n < buffer.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.broken(i, &error),
            }
        }
        match whole_answer(&self.clients[i].answer) {
            Ok(None) => {}
            Ok(Some(status)) => self.answered(i, status),
            Err(text) => self.broken(i, &io::Error::other(text)),
        }
    }

    fn answered(&mut self, i: usize, status: u16) {
        let client = &mut self.clients[i];
        client.answer.clear();
        self.last_answer = Instant::now();
        match status {
            200 | 404 => {
                self.report.ok += 1;
                let ns = self.last_answer.duration_since(client.since).as_nanos() as u64;
                self.report.times_ns.saturating_record(ns);
            }
            503 => self.report.busy += 1,
            504 => self.report.unknown += 1,
            _ => self.report.failed += 1,
        }
        self.free.push_back(i);
    }

    /// Counts it, and goes on with a new connection.
    fn broken(&mut self, i: usize, error: &io::Error) {
        self.report.failed += 1;
        let client = &mut self.clients[i];
        client.answer.clear();
        match connect(&client.target, &self.poll, i) {
            Ok(stream) => {
                client.stream = stream;
                self.free.push_back(i);
            }
            // Without it there is one client fewer; the end of the run counts it once more.
            Err(again) => eprintln!("a connection broke ({error}) and can't be made again: {again}"),
        }
    }
}

fn connect(target: &Target, poll: &Poll, token: usize) -> io::Result<Box<dyn Stream>> {
    let mut stream: Box<dyn Stream> = match target {
        Target::Tcp(addr) => {
            let stream = std::net::TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Box::new(TcpStream::from_std(stream))
        }
        Target::Unix(path) => Box::new(UnixStream::connect(path)?),
    };
    poll.registry().register(&mut *stream, Token(token), Interest::READABLE)?;
    Ok(stream)
}

/// Writes all of it; a socket that is full is asked again.
fn send(stream: &mut dyn Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The status of an answer that is there as a whole.
fn whole_answer(bytes: &[u8]) -> Result<Option<u16>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes).map_err(|e| e.to_string())? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(None),
    };
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    let length: usize = match length.map(|h| std::str::from_utf8(h.value)) {
        Some(Ok(text)) => text.parse().map_err(|_| format!("a length of {text}"))?,
        None if response.code == Some(204) => 0,
        _ => return Err("an answer without a length".into()),
    };
    if length > MAX_ANSWER_BYTES {
        return Err(format!("an answer of {length} bytes"));
    }
    Ok((bytes.len() >= head + length).then_some(response.code.unwrap_or(0)))
}
