//! Makes a port ready for its first burst.
//!
//! UDT keeps packets that nobody has read yet in places which all connections of a port share. It begins with 32, and
//! adds as many when nearly all are taken; but it counts those that are taken without a lock, so it may find none
//! left, and drops a packet. One that is lost early ends the slow start of its connection at the rate of the quiet time
//! before: of three daemons that had just met, half took 2 to 7 s for a value of 3 MiB, and 50 ms without a loss.
//!
//! So before anything else comes, the port sends itself [`BURST_PACKETS`] that nobody reads, over a connection
//! which carries nothing else. The places stay. It takes about 50 ms and 1.5 MB.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use super::{framing::PAYLOAD_BYTES, socket::Socket};

/// Packets that a port then holds unread without a loss. UDT hands out what came in every 10 ms.
const BURST_PACKETS: usize = 256;
/// How long a burst may take. One that loses a packet takes seconds; the next finds the places that it left.
const BURST_TIME: Duration = Duration::from_millis(250);
const MAX_BURSTS: usize = 3;
const TURN: Duration = Duration::from_millis(1);

/// Sends bursts to the port at `addr`, whose listener is `door`, until one comes through. Adds to `others` the
/// connections that came in meanwhile: to be read when this is over, since readers are what UDT miscounts with.
///
/// # Errors
/// The port can't be reached from itself. It works all the same, with a slower first burst.
pub(super) fn warm_up(
    door: &Socket,
    addr: SocketAddr,
    others: &mut Vec<(Socket, SocketAddr)>,
) -> io::Result<()> {
    for _ in 0..MAX_BURSTS {
        if burst(door, addr, others)? {
            break;
        }
    }
    Ok(())
}

/// Whether all of it was acknowledged in time.
fn burst(door: &Socket, addr: SocketAddr, others: &mut Vec<(Socket, SocketAddr)>) -> io::Result<bool> {
    let to = if addr.ip().is_unspecified() { (Ipv4Addr::LOCALHOST, addr.port()).into() } else { addr };
    let sender = Socket::connect(addr, to, || true)?;
    let until = Instant::now() + BURST_TIME;
    for _ in 0..BURST_PACKETS {
        sender.send_all(&[0; PAYLOAD_BYTES])?;
    }
    let mut receiver: Option<Socket> = None;
    while sender.unacknowledged_packets() > 0 {
        if Instant::now() > until {
            return Ok(false);
        }
        while let Some((socket, from)) = door.accept()? {
            match from == to {
                true => receiver = Some(socket),
                false => others.push((socket, from)),
            }
        }
        // It acknowledges only when it hears something: a short packet makes the other side acknowledge, once a
        // full one has come behind it.
        if let Some(receiver) = &receiver {
            receiver.send_all(&[0])?;
            receiver.send_all(&[0; PAYLOAD_BYTES])?;
            receiver.send_all(&[0; PAYLOAD_BYTES])?;
        }
        thread::sleep(TURN);
    }
    Ok(true)
}
