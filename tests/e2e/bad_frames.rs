//! Frames that RFC 6455 forbids: each closes the connection with its code, for modern and legacy clients.

use crate::bad_input::assert_unharmed;
use crate::broker::{Broker, Setup};
use crate::raw::{Got, Head, Length, Raw, close_payload, frame, frame_with, opcode};

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

fn first(byte: u8) -> Vec<u8> {
    frame_with(byte, Length::Minimal, MASK, b"{}")
}

/// Name, sent bytes, and the code of the close frame that answers them.
pub fn cases() -> Vec<(&'static str, Vec<u8>, u16)> {
    let part = |byte: u8, payload: &[u8]| frame_with(byte, Length::Minimal, MASK, payload);
    let huge_header = [&[0x82, 0xff][..], &(1u64 << 40).to_be_bytes(), &[1, 2, 3, 4]].concat();
    let over_63_bits = [&[0x82, 0xff][..], &u64::MAX.to_be_bytes(), &[1, 2, 3, 4]].concat();
    let half = vec![b'x'; 600 << 10];
    vec![
        ("an unmasked frame", frame_with(0x81, Length::Minimal, None, b"{}"), 1002),
        ("an unmasked ping", frame_with(0x89, Length::Minimal, None, b"x"), 1002),
        ("reserved bit 1", first(0xc1), 1002),
        ("reserved bit 2", first(0xa1), 1002),
        ("reserved bit 3", first(0x91), 1002),
        ("a reserved bit on a ping", first(0xc9), 1002),
        ("reserved opcode 3", first(0x83), 1002),
        ("reserved opcode 7", first(0x87), 1002),
        ("reserved opcode 11", first(0x8b), 1002),
        ("reserved opcode 15", first(0x8f), 1002),
        ("a lone continuation", first(0x80), 1002),
        ("a lone continuation that goes on", first(0x00), 1002),
        ("a message inside a message", [part(0x01, b"{"), part(0x81, b"{}")].concat(), 1002),
        ("a ping in fragments", part(0x09, b"x"), 1002),
        ("a close in fragments", part(0x08, &close_payload(1000, "")), 1002),
        ("a ping of 126 bytes", part(0x89, &[b'x'; 126]), 1002),
        ("a close frame of one byte", part(0x88, &[3]), 1002),
        ("close code 0", part(0x88, &close_payload(0, "")), 1002),
        ("close code 1005", part(0x88, &close_payload(1005, "")), 1002),
        ("close code 1006", part(0x88, &close_payload(1006, "")), 1002),
        ("close code 5000", part(0x88, &close_payload(5000, "")), 1002),
        ("a close reason that is not UTF-8", part(0x88, b"\x03\xe8\xff"), 1007),
        ("text that is not UTF-8", part(0x81, b"\xff"), 1007),
        ("text that ends in the middle of a character", part(0x81, b"\xe2\x82"), 1007),
        ("a surrogate", part(0x81, b"\xed\xa0\x80"), 1007),
        ("an overlong encoding", part(0x81, b"\xc0\xaf"), 1007),
        ("a character broken across fragments", [part(0x01, b"\xe2\x82"), part(0x80, b"x")].concat(), 1007),
        ("a frame of one byte over the limit", part(0x81, &vec![b'x'; (1 << 20) + 1]), 1009),
        ("a frame of a terabyte", huge_header, 1009),
        ("a length above 63 bits", over_63_bits, 1002),
        ("fragments over the limit", [part(0x01, &half), part(0x80, &half)].concat(), 1009),
    ]
}

#[test]
fn every_violation_closes_with_its_code() {
    let mut broker = Broker::start();
    let mut wrong = Vec::new();
    for (name, bytes, code) in cases() {
        for head in
            [Head::new("/").modern(), Head::new("/"), Head::new("/ws?topic=sms").modern(), Head::new("/ws?topic=sms")]
        {
            let mut raw = Raw::upgrade(&broker, &head);
            // The broker may end the connection before it has read all bytes.
            let _ = raw.try_send(&bytes);
            let got = loop {
                match raw.next() {
                    Got::Frame(frame) if frame.opcode != opcode::CLOSE => {}
                    other => break other,
                }
            };
            match got {
                Got::Frame(frame) if frame.close_code() == Some(code) => {
                    let end = raw.next();
                    if !matches!(end, Got::Fin | Got::Reset) {
                        wrong.push(format!("{name}: {end:?} after the close frame"));
                    }
                }
                other => wrong.push(format!("{name}: wanted {code}, got {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
    assert_unharmed(&mut broker);
}

#[test]
fn frames_before_a_violation_are_processed() {
    let broker = Broker::start();
    let mut receiver = crate::client::Client::receiver(&broker, "sms");
    let mut raw = Raw::upgrade(&broker, &Head::new("/"));
    let good = frame(opcode::TEXT, br#"{"command":"send-message","channel":"sms","data":[1]}"#);
    raw.send(&[good, first(0x83)].concat());
    assert_eq!(receiver.numbers(1), [1]);
}

#[test]
fn the_configured_limit_of_a_message_holds() {
    let broker = Setup::default().server("max_message = \"1 KiB\"").start();
    for (size, fits) in [(1_024, true), (1_025, false)] {
        let mut raw = Raw::upgrade(&broker, &Head::new(&format!("/ws?topic={size}")).modern());
        raw.send_frame(opcode::TEXT, &vec![b'x'; size]);
        raw.send_frame(opcode::PING, b"y");
        let frame = raw.next_frame();
        let wanted = if fits { opcode::PONG } else { opcode::CLOSE };
        assert_eq!(frame.opcode, wanted, "{size} bytes: {frame:?}");
        assert_eq!(frame.close_code(), (!fits).then_some(1009), "{size} bytes: {frame:?}");
    }
}

#[test]
fn every_valid_close_code_is_echoed() {
    let broker = Broker::start();
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4999] {
        let mut raw = Raw::upgrade(&broker, &Head::new("/ws?topic=sms").modern());
        raw.send_frame(opcode::CLOSE, &close_payload(code, "because"));
        assert_eq!(raw.next_frame().close_code(), Some(code), "{}", raw.trace());
        assert_eq!(raw.next(), Got::Fin);
    }
    let mut raw = Raw::upgrade(&broker, &Head::new("/ws?topic=sms").modern());
    raw.send_frame(opcode::CLOSE, b"");
    let frame = raw.next_frame();
    assert_eq!((frame.opcode, frame.payload.len() <= 2), (opcode::CLOSE, true), "{frame:?}");
}
