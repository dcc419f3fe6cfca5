//! A relay of datagrams between a node that dials it and the one that it stands for. It loses some,
//! records them, and can change the port that it speaks from, as a NAT does.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use turbopump::model::Seeded;

/// How long a thread waits for a datagram before it looks whether something has changed.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const MAX_DATAGRAM_BYTES: usize = 65_536;

/// Which way a datagram went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the one that dialled.
    There,
    /// From the one that it stands for.
    Back,
}

pub struct Relay {
    /// Where it is dialled.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    front: UdpSocket,
    back: Mutex<Arc<UdpSocket>>,
    client: Mutex<Option<SocketAddr>>,
    target: SocketAddr,
    loss_percent: AtomicU32,
    records: AtomicBool,
    seen: Mutex<Vec<(Way, Vec<u8>)>>,
    stops: AtomicBool,
}

fn socket() -> UdpSocket {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    let _ = socket.set_recv_buffer_size(8 << 20);
    socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(LOOK_EVERY)).unwrap();
    socket
}

impl Relay {
    pub fn to(target: SocketAddr) -> Self {
        let front = socket();
        let addr = front.local_addr().unwrap();
        let shared = Arc::new(Shared {
            front,
            back: Mutex::new(Arc::new(socket())),
            client: Mutex::default(),
            target,
            loss_percent: AtomicU32::new(0),
            records: AtomicBool::new(false),
            seen: Mutex::default(),
            stops: AtomicBool::new(false),
        });
        let run = |way: Way| {
            let shared = shared.clone();
            thread::spawn(move || shared.carry(way))
        };
        let threads = vec![run(Way::There), run(Way::Back)];
        Self { addr, shared, threads }
    }

    /// From now on so many of a hundred datagrams are lost, each way.
    pub fn lose_percent(&self, percent: u32) {
        self.shared.loss_percent.store(percent, Ordering::Relaxed);
    }

    pub fn record(&self) {
        self.shared.records.store(true, Ordering::Relaxed);
    }

    /// What was recorded so far.
    pub fn recorded(&self) -> Vec<(Way, Vec<u8>)> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// Speaks to the one that it stands for from another port from now on.
    pub fn rebind(&self) {
        *self.shared.back.lock().unwrap() = Arc::new(socket());
    }

    /// Sends to the one that it stands for, from the port that the dialler seems to have.
    pub fn inject(&self, datagram: &[u8]) {
        let back = self.shared.back.lock().unwrap().clone();
        let _ = back.send_to(datagram, self.shared.target);
    }
}

impl Shared {
    fn carry(&self, way: Way) {
        let mut chance = Seeded::new(if way == Way::There { 1 } else { 2 });
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        while !self.stops.load(Ordering::Relaxed) {
            let back = self.back.lock().unwrap().clone();
            let socket = if way == Way::There { &self.front } else { &*back };
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            let datagram = &buffer[..length];
            if self.records.load(Ordering::Relaxed) {
                self.seen.lock().unwrap().push((way, datagram.to_vec()));
            }
            if chance.below(100) < u64::from(self.loss_percent.load(Ordering::Relaxed)) {
                continue;
            }
            let _ = match way {
                Way::There => {
                    *self.client.lock().unwrap() = Some(from);
                    back.send_to(datagram, self.target)
                }
                Way::Back => match *self.client.lock().unwrap() {
                    Some(client) => self.front.send_to(datagram, client),
                    None => continue,
                },
            };
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}
