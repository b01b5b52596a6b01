//! Compares the codec with tungstenite: both decode the same streams, and both decode the frames that our encoder writes.
//!
//! The results may differ only in these cases:
//! - the stream ends within an invalid frame: tungstenite waits for the whole frame, our decoder fails at once;
//! - a frame violates two rules: tungstenite checks the size first, our decoder checks in the order of the bytes;
//! - a 64-bit length has its top bit set: tungstenite reports a too large message (1009); RFC 6455 section 5.2 demands a protocol error (1002);
//! - a close frame has a code that is not allowed: tungstenite returns a close frame with 1002; our decoder fails with 1002.
//!
//! Tungstenite has no limit on the number of fragments. These streams do not reach our limit.

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError as Theirs};
use tokio_tungstenite::tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::tests::{Item, decode, stream, text};
use super::*;

const LIMIT: usize = 70_000;

/// Reads from memory, and discards all writes.
struct Memory(Cursor<Vec<u8>>);

impl Read for Memory {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a stream ended.
#[derive(Debug, PartialEq)]
enum End {
    /// The stream ended after its last byte, or with a close frame.
    Orderly,
    /// The stream violated the protocol, with this close code.
    Violation(u16),
}

fn theirs(stream: &[u8], role: TheirRole) -> (Vec<Item>, End) {
    let config = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let mut socket = WebSocket::from_raw_socket(Memory(Cursor::new(stream.to_vec())), role, Some(config));
    let mut items = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Text(payload)) => items.push(text(payload.as_str())),
            Ok(Message::Binary(payload)) => items.push(Item::Binary(payload.to_vec())),
            Ok(Message::Ping(payload)) => items.push(Item::Ping(payload.to_vec())),
            Ok(Message::Pong(payload)) => items.push(Item::Pong(payload.to_vec())),
            Ok(Message::Close(close)) => {
                // Tungstenite returns this reason for a close code that is not allowed.
                if close.as_ref().is_some_and(|close| close.reason.as_str() == "Protocol violation") {
                    return (items, End::Violation(1002));
                }
                let (code, reason) = close
                    .map_or((None, String::new()), |close| (Some(close.code.into()), close.reason.as_str().to_owned()));
                items.push(Item::Close(code, reason));
                return (items, End::Orderly);
            }
            Ok(Message::Frame(_)) => panic!("a raw frame is never read"),
            Err(Error::Protocol(Theirs::ResetWithoutClosingHandshake)) => return (items, End::Orderly),
            Err(Error::Protocol(_)) => return (items, End::Violation(1002)),
            Err(Error::Utf8(_)) => return (items, End::Violation(1007)),
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => return (items, End::Violation(1009)),
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// Decodes a stream with our decoder.
fn ours(stream: &[u8], role: Role) -> (Vec<Item>, End) {
    let (items, result) = decode(&mut Decoder::new(role, LIMIT), [stream]);
    (items, result.map_or_else(|error| End::Violation(error.close_code()), |()| End::Orderly))
}

/// Whether the results may differ, by the list above.
fn allowed(ours: &End, theirs: &End, stream: &[u8]) -> bool {
    match (ours, theirs) {
        (a, b) if a == b => true,
        // Tungstenite waits for the rest of a frame. With more bytes it must fail, too.
        (End::Violation(_), End::Orderly) => {
            let padded = [stream, &vec![0; LIMIT + HEADER]].concat();
            matches!(self::theirs(&padded, TheirRole::Server).1, End::Violation(_))
        }
        // A frame violates two rules, and one of them is the size; or the top bit of a length is set.
        (End::Violation(1002), End::Violation(1009)) => true,
        // A close frame has an invalid code and an invalid reason.
        (End::Violation(1002), End::Violation(1007)) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn the_decoder_agrees_with_tungstenite(stream in stream()) {
        let (our_items, our_end) = ours(&stream, Role::Server);
        let (their_items, their_end) = theirs(&stream, TheirRole::Server);
        prop_assert_eq!(our_items, their_items);
        prop_assert!(allowed(&our_end, &their_end, &stream), "ours {:?}, theirs {:?}", our_end, their_end);
    }

    #[test]
    fn tungstenite_decodes_our_frames(
        messages in prop::collection::vec(
            prop_oneof![
                "\\PC{0,200}".prop_map(Item::Text),
                prop::collection::vec(any::<u8>(), 0..300).prop_map(Item::Binary),
                (65_530_usize..65_540, any::<u8>()).prop_map(|(len, byte)| Item::Binary(vec![byte; len])),
                prop::collection::vec(any::<u8>(), 0..126).prop_map(Item::Ping),
                prop::collection::vec(any::<u8>(), 0..126).prop_map(Item::Pong),
            ],
            0..6,
        ),
        mask in any::<[u8; 4]>(),
        close in prop::option::of(("[a-z€]{0,60}", 3000_u16..5000)),
    ) {
        let (mut plain, mut masked) = (Vec::new(), Vec::new());
        for message in &messages {
            let (opcode, payload) = match message {
                Item::Text(payload) => (Opcode::Text, payload.as_bytes()),
                Item::Binary(payload) => (Opcode::Binary, &payload[..]),
                Item::Ping(payload) => (Opcode::Ping, &payload[..]),
                Item::Pong(payload) => (Opcode::Pong, &payload[..]),
                Item::Close(..) => continue,
            };
            plain.extend_from_slice(&encode(opcode, payload));
            encode_masked_into(&mut masked, opcode, payload, mask);
        }
        let mut expected = messages;
        prop_assert_eq!(theirs(&masked, TheirRole::Server), (expected.clone(), End::Orderly));
        prop_assert_eq!(ours(&masked, Role::Server), (expected.clone(), End::Orderly));
        if let Some((reason, code)) = close {
            let frame = encode_close(code, &reason);
            plain.extend_from_slice(&frame);
            let cut = String::from_utf8(frame[4..].to_vec()).unwrap();
            expected.push(Item::Close(Some(code), cut));
        }
        prop_assert_eq!(theirs(&plain, TheirRole::Client), (expected.clone(), End::Orderly));
        prop_assert_eq!(ours(&plain, Role::Client), (expected, End::Orderly));
    }
}
