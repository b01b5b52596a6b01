//! The codec against tungstenite: both read the same streams, and each reads what ours writes.
//!
//! They are allowed to differ only where:
//! - the stream ends within a frame that can't be right: tungstenite waits for the whole frame, we say so at once;
//! - one frame breaks two rules: tungstenite looks at the size first and at the rest after, we go by the order of the bytes;
//! - a 64-bit length has its top bit set: tungstenite calls it too large (1009), RFC 6455 section 5.2 a violation (1002);
//! - a close frame has a code that may not travel: tungstenite hands it out as a close with 1002, which is what we fail with.
//!
//! Our bound on the number of fragments, which tungstenite has not, is out of these streams' reach.

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError as Theirs};
use tokio_tungstenite::tungstenite::protocol::{Role as TheirRole, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::tests::{Item, decode, stream, text};
use super::*;

const LIMIT: usize = 70_000;

/// Reads from memory and writes to nowhere.
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
    /// With its last byte, or with a close frame.
    Orderly,
    /// With this close code.
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
                // What tungstenite makes of a code that may not travel.
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

/// Ours, and whether a frame (not a mere message) was unfinished at the end of the stream or at the violation.
fn ours(stream: &[u8], role: Role) -> (Vec<Item>, End) {
    let (items, result) = decode(&mut Decoder::new(role, LIMIT), [stream]);
    (items, result.map_or_else(|error| End::Violation(error.close_code()), |()| End::Orderly))
}

/// Whether what `theirs` makes of a stream is what `ours` may differ from, by the list above.
fn allowed(ours: &End, theirs: &End, stream: &[u8]) -> bool {
    match (ours, theirs) {
        (a, b) if a == b => true,
        // They wait for the rest of a frame. Given the rest, they must find it wrong as well.
        (End::Violation(_), End::Orderly) => {
            let padded = [stream, &vec![0; LIMIT + HEADER]].concat();
            matches!(self::theirs(&padded, TheirRole::Server).1, End::Violation(_))
        }
        // Two rules broken by one frame, size among them; or the top bit of a length.
        (End::Violation(1002), End::Violation(1009)) => true,
        // A close frame with a bad code and a bad reason.
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
    fn tungstenite_reads_what_is_encoded(
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
