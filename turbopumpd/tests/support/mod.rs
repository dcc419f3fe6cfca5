//! Starts the daemon's binary on free ports in a folder of its own, and talks HTTP to it by hand.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod cluster;
pub mod history;
pub mod network;

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// No answer of the daemon takes longer in these tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Daemon {
    pub child: Child,
    pub tcp: SocketAddr,
    pub peers: SocketAddr,
    pub unix: PathBuf,
    pub folder: PathBuf,
    pub line: String,
    /// Removed with the daemon, where the folder is its own.
    _own: Option<tempfile::TempDir>,
}

pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turbopumpd"));
    // Nothing of the environment that runs the tests reaches the daemon.
    for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("TURBOPUMP_")) {
        command.env_remove(name);
    }
    command
}

impl Daemon {
    /// In memory, in a folder of its own.
    pub fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut daemon = Self::start_in(folder.path(), &[&["--store", "memory"], options].concat());
        daemon._own = Some(folder);
        daemon
    }

    /// In a given folder.
    pub fn start_in(folder: &Path, options: &[&str]) -> Self {
        Self::spawn(binary(), folder, &[&["--udp", "--port", "0"], options].concat())
    }

    /// As a member of a cluster: in a given folder, with that peer port and those options alone.
    pub fn start_member(folder: &Path, port: u16, options: &[&str]) -> Self {
        Self::spawn(binary(), folder, &[&["--port", &port.to_string()], options].concat())
    }

    /// With so few descriptors.
    pub fn start_with_descriptors(count: usize, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("ulimit -n {count}; exec \"$0\" \"$@\""));
        shell.arg(env!("CARGO_BIN_EXE_turbopumpd"));
        let common = ["--udp", "--port", "0", "--store", "memory"];
        let mut daemon = Self::spawn(shell, folder.path(), &[&common, options].concat());
        daemon._own = Some(folder);
        daemon
    }

    /// What this command starts, in a given folder.
    pub fn spawn(mut command: Command, folder: &Path, options: &[&str]) -> Self {
        let unix = folder.join("sock");
        command.args(["-l", "127.0.0.1:0", "-l", unix.to_str().unwrap(), "--home"]);
        command.arg(folder).args(options).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, receiver) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = receiver.recv_timeout(PATIENCE).expect("the daemon says that it serves");
        let tcp = line.split("http://").nth(1).expect(&line).split_whitespace().next().unwrap();
        let peers = line.split("peers ").nth(1).unwrap().trim();
        Self {
            tcp: tcp.parse().unwrap(),
            peers: peers.parse().unwrap(),
            child,
            unix,
            folder: folder.into(),
            line: line.trim().into(),
            _own: None,
        }
    }

    pub fn connect(&self) -> Client {
        Client::tcp(self.tcp)
    }

    pub fn connect_unix(&self) -> Client {
        Client::unix(&self.unix)
    }

    pub fn get(&self, target: &str) -> Answer {
        self.connect_unix().ask(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    pub fn post(&self, target: &str, body: &[u8]) -> Answer {
        self.connect_unix().post(target, body)
    }

    /// Its public key, as text.
    pub fn key(&self) -> String {
        self.get("/status").json()["key"].as_str().unwrap().to_owned()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none() && self.get("/status").status == 200
    }

    /// A line of `/proc/PID/status`, as a number.
    pub fn proc_status(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn resident_kib(&self) -> u64 {
        self.proc_status("VmRSS:")
    }

    pub fn peak_kib(&self) -> u64 {
        self.proc_status("VmHWM:")
    }

    /// Processor time used so far, user and system.
    pub fn cpu_ms(&self) -> u64 {
        const MS_PER_TICK: u64 = 10;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
        (ticks(11) + ticks(12)) * MS_PER_TICK
    }

    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|l| l.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{name} in {text}")).split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// Waits for the end, and says how long it took.
    pub fn wait_end(&mut self, within: Duration) -> (ExitStatus, Duration) {
        let begin = Instant::now();
        let mut status = None;
        until("the daemon ends", within, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), begin.elapsed())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls a condition, with a bound.
pub fn until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < within, "not within {within:?}: {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub struct Client {
    pub socket: Socket,
    unread: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} in {:?}", self.headers))
    }

    /// Status and code of an error row, after a look at its form.
    pub fn error(&self) -> (u16, String) {
        let json = self.json();
        let detail = json["detail"].as_str().unwrap();
        assert!(detail.len() > 10 && detail.ends_with('.'), "a sentence: {detail:?}");
        assert_eq!(self.header("content-type"), "application/json");
        (self.status, json["error"].as_str().unwrap().to_owned())
    }
}

impl Client {
    pub fn tcp(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket: Socket::Tcp(socket), unread: Vec::new() }
    }

    pub fn unix(path: &Path) -> Self {
        Self::try_unix(path, PATIENCE).unwrap()
    }

    /// To a daemon that may be gone, or frozen; an answer has to come within this time.
    pub fn try_unix(path: &Path, within: Duration) -> std::io::Result<Self> {
        let socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(within))?;
        Ok(Self { socket: Socket::Unix(socket), unread: Vec::new() })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        match &mut self.socket {
            Socket::Tcp(s) => s.write_all(bytes.as_ref()),
            Socket::Unix(s) => s.write_all(bytes.as_ref()),
        }
    }

    pub fn set_write_timeout(&self, timeout: Duration) {
        match &self.socket {
            Socket::Tcp(s) => s.set_write_timeout(Some(timeout)),
            Socket::Unix(s) => s.set_write_timeout(Some(timeout)),
        }
        .unwrap();
    }

    pub fn end_sending(&self) {
        match &self.socket {
            Socket::Tcp(s) => s.shutdown(Shutdown::Write),
            Socket::Unix(s) => s.shutdown(Shutdown::Write),
        }
        .unwrap();
    }

    pub fn read_some(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 16 * 1024];
        let n = loop {
            let read = match &mut self.socket {
                Socket::Tcp(s) => s.read(&mut buffer),
                Socket::Unix(s) => s.read(&mut buffer),
            };
            match read {
                // A read with a timeout is not taken up again when the process was stopped a while.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.unread.extend_from_slice(&buffer[..n]);
        Ok(n)
    }

    /// Drops what was read and not looked at.
    pub fn forget(&mut self) {
        self.unread.clear();
    }

    /// Everything up to the end of the connection.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        while matches!(self.read_some(), Ok(n) if n > 0) {}
        std::mem::take(&mut self.unread)
    }

    /// Whether the daemon ended the connection, after what was still unread.
    pub fn is_ended(&mut self) -> bool {
        loop {
            match self.read_some() {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return true,
                Err(_) => return false,
            }
        }
    }

    pub fn ask(&mut self, request: &str) -> Answer {
        self.send(request);
        self.answer()
    }

    pub fn get(&mut self, target: &str) -> Answer {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    pub fn post(&mut self, target: &str, body: &[u8]) -> Answer {
        let head = format!("POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        // One write where it is short, so that Nagle has nothing to say.
        if body.len() < 64 * 1024 {
            self.send([head.as_bytes(), body].concat());
        } else {
            self.send(head);
            let _ = self.try_send(body);
        }
        self.answer()
    }

    pub fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    pub fn answer_to(&mut self, is_head: bool) -> Answer {
        self.try_answer(is_head).unwrap_or_else(|e| panic!("an answer in time, not {e}"))
    }

    /// A request and its answer, of a daemon that may be gone or frozen.
    pub fn try_ask(&mut self, request: &[u8]) -> std::io::Result<Answer> {
        self.try_send(request)?;
        self.try_answer(false)
    }

    fn try_answer(&mut self, is_head: bool) -> std::io::Result<Answer> {
        let ended = |unread: &[u8]| {
            std::io::Error::other(format!("the end after {:?}", String::from_utf8_lossy(unread)))
        };
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            if self.read_some()? == 0 {
                return Err(ended(&self.unread));
            }
        };
        let head: Vec<u8> = self.unread.drain(..end).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .map(|l| l.split_once(':').unwrap())
            .map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()))
            .collect();
        let has_body = !(is_head || status == 100 || status == 204 || status == 304);
        let length: usize = match has_body {
            true => headers.get("content-length").expect("a length").parse().unwrap(),
            false => 0,
        };
        while self.unread.len() < length {
            if self.read_some()? == 0 {
                return Err(ended(&self.unread));
            }
        }
        let body = self.unread.drain(..length).collect();
        Ok(Answer { status, headers, body })
    }
}
