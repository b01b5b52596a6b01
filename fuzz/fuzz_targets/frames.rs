//! Frames: for any bytes in any pieces, the decoder finds the same messages as tungstenite.
#![no_main]

use std::io::{Cursor, Read, Write};
use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};
use wsmb_core::message::Kind;
use wsmb_protocol::frame::{self, Decoder, Incoming};

/// The size limit of messages in both decoders, in bytes.
const MOST: usize = 1 << 12;

#[derive(Debug, PartialEq)]
enum Item {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
}

/// A stream that blocks after its last byte.
struct Input(Cursor<Vec<u8>>);

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(std::io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the items that tungstenite finds up to a close frame, an error, or the end of the bytes, and whether there was an error.
fn reference(bytes: &[u8]) -> (Vec<Item>, bool) {
    let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
    let mut socket = WebSocket::from_raw_socket(Input(Cursor::new(bytes.to_vec())), Role::Server, Some(config));
    let mut items = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => items.push(Item::Text(text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => items.push(Item::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => items.push(Item::Ping(bytes.to_vec())),
            Ok(Message::Pong(bytes)) => items.push(Item::Pong(bytes.to_vec())),
            Ok(Message::Close(_) | Message::Frame(_)) => return (items, false),
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return (items, false);
            }
            Err(_) => return (items, true),
        }
    }
}

/// As [`reference`], with the broker's decoder, which gets the bytes in pieces of this size.
fn decoded(bytes: &[u8], piece: usize) -> (Vec<Item>, bool) {
    let mut decoder = Decoder::new(frame::Role::Server, MOST);
    let mut items = Vec::new();
    let mut closed = false;
    for piece in bytes.chunks(piece.max(1)) {
        let result = decoder.feed(&mut piece.to_vec(), |incoming| {
            match incoming {
                Incoming::Message { kind, frame } => {
                    let payload = frame[frame::payload_start(&frame)..].to_vec();
                    items.push(if kind == Kind::Text { Item::Text(payload) } else { Item::Binary(payload) });
                }
                Incoming::Ping(bytes) => items.push(Item::Ping(bytes.to_vec())),
                Incoming::Pong(bytes) => items.push(Item::Pong(bytes.to_vec())),
                Incoming::Close { .. } => {
                    closed = true;
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        });
        if result.is_err() {
            return (items, true);
        }
        if closed {
            break;
        }
    }
    (items, false)
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (piece, bytes) = input;
    let whole = decoded(&bytes, bytes.len());
    let pieces = decoded(&bytes, usize::from(piece));
    assert_eq!(whole, pieces, "cut into pieces of {piece}");
    let (items, broken) = reference(&bytes);
    assert_eq!(whole.0, items, "messages; tungstenite: broken = {broken}, here: {}", whole.1);
});
