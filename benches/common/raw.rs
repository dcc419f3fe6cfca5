//! The floors: echoes between two threads over bare sockets, in microseconds.

use std::{net::UdpSocket, sync::mpsc, thread};

use udt::{Linger, SocketFamily, SocketType, UdtOpts, UdtSocket};

use super::median_us;

const MESSAGE_BYTES: usize = 100;
/// A packet of UDT without its headers, at an MSS of 1,500.
const PAD_BYTES: usize = 1_456;
/// With three, as was measured first, echoes fall to 8 ms once UDT's slow start is over.
const PADS: usize = 5;

/// Of 100 B over UDP, both sides blocking.
pub fn udp_echo_us(times: usize) -> f64 {
    let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(echo.local_addr().unwrap()).unwrap();
    let other = thread::spawn(move || {
        let mut buffer = [0; 200];
        while let Ok((len, from)) = echo.recv_from(&mut buffer) {
            if len == 1 {
                return;
            }
            echo.send_to(&buffer[..len], from).unwrap();
        }
    });
    let mut buffer = [0; 200];
    let median = median_us(times, |_| {
        socket.send(&[7; MESSAGE_BYTES]).unwrap();
        socket.recv(&mut buffer).unwrap();
    });
    socket.send(&[0]).unwrap();
    other.join().unwrap();
    median
}

/// Of 100 B over UDT, each message followed by full packets that hurry it along; without them an echo
/// takes 208 ms.
pub fn udt_echo_us(times: usize) -> f64 {
    udt::init();
    let open = || {
        let socket = UdtSocket::new(SocketFamily::AFInet, SocketType::Stream).unwrap();
        socket.setsockopt(UdtOpts::UDT_MSS, 1_500).unwrap();
        // Else a close waits for minutes.
        socket.setsockopt(UdtOpts::UDT_LINGER, Linger { onoff: 0, linger: 0 }).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket
    };
    let door = open();
    door.listen(1).unwrap();
    let addr = door.getsockname().unwrap();
    let (over, is_over) = mpsc::sync_channel(0);
    let other = thread::spawn(move || {
        let (socket, _) = door.accept().unwrap();
        let mut message = [0; MESSAGE_BYTES];
        for i in 0..times {
            receive(&socket, &mut message, i == 0);
            send(&socket, &message);
        }
        // The last answer is on its way still.
        is_over.recv().unwrap();
        let _ = socket.close();
        let _ = door.close();
    });
    let socket = open();
    socket.connect(addr).unwrap();
    let mut message = [7; MESSAGE_BYTES];
    let median = median_us(times, |i| {
        send(&socket, &message);
        receive(&socket, &mut message, i == 0);
    });
    // Waits until the pads behind the last answer are sent.
    over.send(()).unwrap();
    let _ = socket.close();
    other.join().unwrap();
    median
}

fn send(socket: &UdtSocket, message: &[u8]) {
    for part in std::iter::once(message).chain(std::iter::repeat_n(&[0; PAD_BYTES][..], PADS)) {
        let mut left = part;
        while !left.is_empty() {
            let sent = socket.send(left).unwrap();
            left = &left[sent as usize..];
        }
    }
}

/// The message, and the pads that came after the one before it.
fn receive(socket: &UdtSocket, message: &mut [u8], is_first: bool) {
    if !is_first {
        fill(socket, &mut [0; PADS * PAD_BYTES]);
    }
    fill(socket, message);
}

fn fill(socket: &UdtSocket, buffer: &mut [u8]) {
    let mut at = 0;
    while at < buffer.len() {
        let left = buffer.len() - at;
        at += socket.recv(&mut buffer[at..], left).unwrap() as usize;
    }
}
