//! Datagrams in batches: several with one call of the system, both ways, where it offers that.
//!
//! Bytes and addresses only: what is kept, repeated or dropped is decided above. Elsewhere than on Linux and
//! some BSDs each datagram is a call of its own.
//!
//! Limits: [`BATCH`].

use std::{collections::VecDeque, io, net::SocketAddr, slice::ChunksExactMut};

use bytes::Bytes;
use mio::net::UdpSocket;

/// How many datagrams are given to the system, or taken of it, with one call at most.
pub(super) const BATCH: usize = 32;

/// What is to be sent, and where to.
pub(super) type Frames = VecDeque<(SocketAddr, Bytes)>;
/// Room for datagrams, a slot for each.
type Slots<'a> = ChunksExactMut<'a, u8>;
/// What is done with a datagram.
type Take<'a> = &'a mut dyn FnMut(SocketAddr, &[u8]);

/// Gives the first frames to the system, and says how many it took: at least one.
///
/// # Errors
/// Of the first of them; it was not sent, nor were those behind.
pub(super) fn send(socket: &UdpSocket, frames: &Frames) -> io::Result<usize> {
    match frames.len() {
        0 => Ok(0),
        1 => send_one(socket, frames),
        _ => system::send_many(socket, frames),
    }
}

/// Takes in what is there, at most as many datagrams as there are slots. Says whether there may be more.
///
/// # Errors
/// Of the first of them; none was taken in.
pub(super) fn receive(socket: &UdpSocket, slots: Slots<'_>, take: Take<'_>) -> io::Result<bool> {
    system::receive(socket, slots, take)
}

fn send_one(socket: &UdpSocket, frames: &Frames) -> io::Result<usize> {
    let Some((to, frame)) = frames.front() else { return Ok(0) };
    socket.send_to(frame, *to).map(|_| 1)
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd")))]
mod system {
    use super::*;

    pub(super) use super::send_one as send_many;

    pub(super) fn receive(socket: &UdpSocket, mut slots: Slots<'_>, take: Take<'_>) -> io::Result<bool> {
        let Some(slot) = slots.next() else { return Ok(true) };
        let (length, from) = socket.recv_from(slot)?;
        take(from, &slot[..length]);
        Ok(true)
    }
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd", target_os = "netbsd"))]
mod system {
    use std::{
        io::{IoSlice, IoSliceMut},
        os::fd::AsRawFd,
    };

    use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg, sendmmsg};
    use smallvec::SmallVec;

    use super::*;

    pub(super) fn send_many(socket: &UdpSocket, frames: &Frames) -> io::Result<usize> {
        let mut slices = [[IoSlice::new(&[])]; BATCH];
        let mut addrs = SmallVec::<[_; BATCH]>::new();
        for ((to, frame), slice) in frames.iter().zip(&mut slices) {
            *slice = [IoSlice::new(frame)];
            addrs.push(Some(SockaddrStorage::from(*to)));
        }
        let mut headers = MultiHeaders::preallocate(addrs.len(), None);
        let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &slices, &addrs, [], MsgFlags::MSG_DONTWAIT)?;
        Ok(sent.count())
    }

    pub(super) fn receive(socket: &UdpSocket, mut slots: Slots<'_>, take: Take<'_>) -> io::Result<bool> {
        let count = slots.len().min(BATCH);
        let mut slots: [[IoSliceMut<'_>; 1]; BATCH] =
            std::array::from_fn(|_| [IoSliceMut::new(slots.next().unwrap_or_default())]);
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(count, None);
        let flags = MsgFlags::MSG_DONTWAIT;
        let mut received = 0;
        for datagram in recvmmsg(socket.as_raw_fd(), &mut headers, slots.iter_mut(), flags, None)? {
            received += 1;
            if let Some(from) = datagram.address.and_then(socket_addr) {
                take(from, datagram.iovs().next().unwrap_or_default());
            }
        }
        Ok(received == count)
    }

    fn socket_addr(addr: SockaddrStorage) -> Option<SocketAddr> {
        let v4 = addr.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        v4.or_else(|| addr.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
    }
}
