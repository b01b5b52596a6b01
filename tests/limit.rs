//! The minimal relay of `benches/limit`, with which the broker is compared, is correct: each member of a group gets every message of the others once, in
//! order and unchanged, whatever its length and however the network cuts it.

#![cfg(target_os = "linux")]

#[path = "../benches/limit/frames.rs"]
mod frames;
#[path = "../benches/limit/greeting.rs"]
mod greeting;
#[path = "../benches/limit/poll.rs"]
mod poll;
#[path = "../benches/limit/relay.rs"]
mod relay;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The timeout of every read and write.
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay in a thread of its own, which ends with the process.
fn start() -> SocketAddr {
    let mut relay = relay::Relay::bind("127.0.0.1:0", relay::BURST).unwrap();
    let address = relay.address().unwrap();
    std::thread::spawn(move || {
        loop {
            relay.handle_events().unwrap();
        }
    });
    address
}

fn connect(address: SocketAddr, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    // Two writes, so that the request may arrive in two segments.
    let (first, second) = request.split_at(30);
    stream.write_all(first.as_bytes()).unwrap();
    stream.write_all(second.as_bytes()).unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        reply.extend(byte);
    }
    let reply = String::from_utf8(reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 101 "), "{reply}");
    assert!(reply.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{reply}");
    assert!(reply.contains("Sec-WebSocket-Protocol: a\r\n"), "{reply}");
    stream
}

/// A frame of a client, with an irregular mask.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0xf3, 0x05, 0xaa];
    let mut frame = server(first, payload)[..].to_vec();
    frame.truncate(frame.len() - payload.len());
    frame[1] |= 0x80;
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame of a server.
fn server(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ ..126 => frame.push(u8::try_from(short).unwrap()),
        middle @ 126..65_536 => {
            frame.push(126);
            frame.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

/// A payload of this length that depends on `number`.
fn payload(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(31).wrapping_add(number) % 251) as u8).collect()
}

fn expect(stream: &mut TcpStream, wanted: &[u8]) {
    let mut found = vec![0; wanted.len()];
    stream.read_exact(&mut found).unwrap();
    assert!(found == wanted, "the bytes were changed");
}

/// Sends a ping and waits for its pong: the relay has forwarded all earlier frames.
fn ping(stream: &mut TcpStream) {
    stream.write_all(&masked(0x89, b"there?")).unwrap();
    expect(stream, &server(0x8a, b"there?"));
}

#[test]
fn every_length_arrives_once_in_order_and_unchanged() {
    let address = start();
    let mut sender = connect(address, "/?topic=a");
    let mut receivers = [connect(address, "/?topic=a"), connect(address, "/?topic=a")];
    let mut stranger = connect(address, "/?topic=b");
    receivers.iter_mut().for_each(ping);
    let lengths = [0, 1, 3, 15, 16, 17, 124, 125, 126, 127, 200, 65_521, 65_535, 65_536, 70_000, 1 << 20, 5];
    let (mut sent, mut wanted) = (Vec::new(), Vec::new());
    for (number, length) in lengths.into_iter().cycle().take(lengths.len() * 3).enumerate() {
        let first = if number % 2 == 0 { 0x81 } else { 0x82 };
        sent.extend(masked(first, &payload(number, length)));
        wanted.extend(server(first, &payload(number, length)));
    }
    let writer = std::thread::spawn(move || {
        for piece in sent.chunks(10_007) {
            sender.write_all(piece).unwrap();
        }
        ping(&mut sender);
        sender
    });
    for receiver in &mut receivers {
        expect(receiver, &wanted);
    }
    let mut sender = writer.join().unwrap();
    // The next frame of the sender and of the other group is their pong, so they got no message.
    ping(&mut sender);
    ping(&mut stranger);
}

#[test]
fn a_receiver_that_reads_late_gets_all_messages() {
    let address = start();
    let (mut sender, mut late) = (connect(address, "/late"), connect(address, "/late"));
    ping(&mut late);
    let frame = masked(0x82, &payload(7, 50_000));
    for _ in 0..400 {
        sender.write_all(&frame).unwrap();
    }
    ping(&mut sender);
    let wanted = server(0x82, &payload(7, 50_000));
    for _ in 0..400 {
        expect(&mut late, &wanted);
    }
    ping(&mut late);
}

#[test]
fn a_frame_in_single_bytes_is_one_frame() {
    let address = start();
    let (mut sender, mut receiver) = (connect(address, "/?topic=a"), connect(address, "/?topic=a"));
    ping(&mut receiver);
    sender.set_nodelay(true).unwrap();
    for byte in masked(0x81, b"one letter after the other") {
        sender.write_all(&[byte]).unwrap();
    }
    expect(&mut receiver, &server(0x81, b"one letter after the other"));
}

#[test]
fn clients_that_leave_do_not_disturb_others() {
    let address = start();
    let mut stay = connect(address, "/?topic=a");
    for number in 0..20 {
        let (mut first, mut second) = (connect(address, "/?topic=a"), connect(address, "/?topic=a"));
        ping(&mut second);
        first.write_all(&masked(0x81, &payload(number, 40))).unwrap();
        expect(&mut second, &server(0x81, &payload(number, 40)));
        expect(&mut stay, &server(0x81, &payload(number, 40)));
        // One sends a close frame, the other only ends its connection; its last message must arrive.
        second.write_all(&masked(0x88, &[])).unwrap();
        first.write_all(&masked(0x81, b"last")).unwrap();
        drop(first);
        expect(&mut stay, &server(0x81, b"last"));
        assert_eq!(second.read(&mut [0; 64]).map(|length| length == 6 || length == 0).ok(), Some(true));
    }
}

#[test]
fn invalid_clients_are_disconnected() {
    let address = start();
    let mut unmasked = connect(address, "/");
    unmasked.write_all(&server(0x81, b"no mask")).unwrap();
    assert_eq!(unmasked.read(&mut [0; 8]).unwrap_or(0), 0);
    let mut plain = TcpStream::connect(address).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut reply = String::new();
    plain.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
}
