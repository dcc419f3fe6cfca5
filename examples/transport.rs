//! cargo run --example transport
//!
//! A transport of one's own: one that wraps another and loses frames on purpose. The cluster does
//! not mind: what matters is acknowledged, and sent again until it is.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use turbopump::{
    Ack, Bytes, Node,
    transport::{SendError, Transport, TransportContext, TransportEvent, UdpTransport},
};

/// Loses every n-th frame that another transport is given.
pub struct Lossy<T> {
    inner: T,
    every: u64,
    sent: u64,
}

impl<T: Transport> Lossy<T> {
    /// Wraps a transport.
    pub fn new(inner: T, every: u64) -> Self {
        Self { inner, every, sent: 0 }
    }
}

impl<T: Transport> Transport for Lossy<T> {
    fn kind(&self) -> &'static str {
        "lossy"
    }

    fn start(&mut self, context: TransportContext<'_>) -> io::Result<SocketAddr> {
        self.inner.start(context)
    }

    fn max_frame_bytes(&self) -> usize {
        self.inner.max_frame_bytes()
    }

    fn send(&mut self, to: SocketAddr, frame: Bytes) -> Result<(), SendError> {
        if frame.len() > self.max_frame_bytes() {
            return Err(SendError::TooLong);
        }
        self.sent += 1;
        match self.sent % self.every {
            0 => Ok(()), // nobody is told, as on a real network
            _ => self.inner.send(to, frame),
        }
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn ready(&mut self) {
        self.inner.ready();
    }

    fn poll(&mut self, limit: usize, sink: &mut dyn FnMut(TransportEvent)) -> bool {
        self.inner.poll(limit, sink)
    }

    fn close(&mut self, addr: SocketAddr) {
        self.inner.close(addr);
    }

    fn dropped_frames(&self) -> u64 {
        self.inner.dropped_frames() + self.sent / self.every
    }

    fn stop(&mut self, within: Duration) {
        self.inner.stop(within);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let start = |id| {
        let udp = UdpTransport::bind(([127, 0, 0, 1], 0).into());
        Node::builder().id(id).transport(Lossy::new(udp, 5)).start()
    };
    let (a, b) = (start("a")?, start("b")?);
    a.add_member(b.id(), vec![b.local_addr()]).wait()?;
    b.add_member(a.id(), vec![a.local_addr()]).wait()?;
    while !a.members().iter().all(|member| member.up) {
        thread::sleep(Duration::from_millis(10));
    }

    let begin = Instant::now();
    for n in 0..30 {
        a.put(format!("key {n}"), "value").ack(Ack::All).wait()?;
    }
    let counters = a.stats().wait()?.counters;
    println!("30 writes acknowledged by both nodes in {} ms", begin.elapsed().as_millis());
    println!("{} of {} copies were sent again", counters.copies_resent, counters.copies_sent);

    println!("next: the module `guide` of the documentation: cargo doc --open");
    Ok(())
}
