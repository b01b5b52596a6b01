//! The topic dialect (SPEC section 5): each frame is one message. Also converts messages between the topic dialect and the envelope dialect.
//!
//! Never changes a message between clients of the same dialect. Between dialects the message gets a new frame: JSON is not changed, text that is not JSON
//! becomes a JSON string, and bytes that are not text become a data URL in a JSON string.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use smallvec::smallvec;

use super::frame::{Opcode, encode, encode_into, payload_start};
use super::json;
use crate::limits;
use wsmb_core::message::{ChannelName, Dialect, Frame, Kind, Publication};

/// The beginning of the data URL (RFC 2397) for a message that is not UTF-8 in an envelope. The base64 text follows.
pub const DATA_URL: &str = "data:application/octet-stream;base64,";

/// The deepest nesting of a message that is embedded as JSON: the envelope adds an object and a list.
const EMBEDDED_DEPTH: usize = limits::JSON_DEPTH - 2;

/// Returns the publication for a frame of a topic client: one message, in the frame that forwards it.
///
/// The payload must be UTF-8 if `kind` is text, and must not be empty: the caller drops and counts empty messages, because no frame to a client may be empty.
#[must_use]
pub fn publication<'a>(channel: &'a ChannelName, kind: Kind, frame: Frame<'a>) -> Publication<'a> {
    let messages = smallvec![payload_start(&frame)..frame.len()];
    Publication { channel: Cow::Borrowed(channel), dialect: Dialect::Topic, kind, frame, messages, verbatim: true }
}

/// Returns the publication for a message without a frame.
#[must_use]
pub fn publication_of<'a>(channel: &'a ChannelName, kind: Kind, payload: &[u8]) -> Publication<'a> {
    publication(channel, kind, Frame::Shared(encode(kind.into(), payload)))
}

/// Whether an envelope contains this message as JSON. Any other message becomes a string in an envelope.
#[must_use]
pub fn is_json(message: &[u8]) -> bool {
    std::str::from_utf8(message).is_ok_and(|text| json::is_value(text, EMBEDDED_DEPTH))
}

/// Appends a frame for each message, for a topic receiver. Skips empty messages.
pub(super) fn push_frames<'a>(out: &mut Vec<u8>, messages: impl Iterator<Item = (Kind, &'a [u8])>) {
    for (kind, message) in messages.filter(|(_, message)| !message.is_empty()) {
        encode_into(out, Opcode::from(kind), message);
    }
}

/// Appends a message as a JSON value, for `data` in the frame to an envelope receiver.
pub(super) fn push_embedded(out: &mut String, message: &[u8]) {
    match std::str::from_utf8(message) {
        Ok(text) if is_json(message) => out.push_str(text),
        Ok(text) => json::push_string(out, text),
        Err(_) => {
            out.push('"');
            out.push_str(DATA_URL);
            STANDARD.encode_string(message, out);
            out.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wsmb_core::message::Payload;

    fn embedded(bytes: &[u8]) -> String {
        let mut out = String::new();
        push_embedded(&mut out, bytes);
        out
    }

    #[test]
    fn a_message_is_a_slice_of_its_frame_and_keeps_its_opcode() {
        for (kind, first) in [(Kind::Text, 0x81), (Kind::Binary, 0x82)] {
            let channel = ChannelName::parse("sms").unwrap();
            let publication = publication_of(&channel, kind, b"hello");
            assert_eq!(&publication.frame[..], [&[first, 5], &b"hello"[..]].concat());
            assert_eq!(publication.bodies().collect::<Vec<_>>(), [b"hello"]);
            let Frame::Shared(frame) = &publication.frame else { panic!("a frame of its own") };
            let payloads: Vec<_> = publication.payloads().collect();
            assert_eq!(payloads, [Payload { bytes: frame.slice(2..), kind }]);
            assert_eq!(payloads[0].bytes.as_ptr(), frame[2..].as_ptr(), "nothing is copied");
        }
    }

    #[test]
    fn json_is_embedded_unchanged_and_other_text_as_a_string() {
        for (message, expected) in [
            (r#"{"a":1}"#, r#"{"a":1}"#),
            (" [1,\n2] ", " [1,\n2] "),
            (r#""text""#, r#""text""#),
            ("7", "7"),
            ("null", "null"),
            ("hello", r#""hello""#),
            ("", r#""""#),
            ("{\"a\":1", r#""{\"a\":1""#),
            ("1 2", r#""1 2""#),
            ("01", r#""01""#),
            ("\u{feff}1", "\"\u{feff}1\""),
            ("grüße\n\u{1}", r#""grüße\n\u0001""#),
        ] {
            assert_eq!(embedded(message.as_bytes()), expected);
        }
    }

    #[test]
    fn binary_data_is_embedded_as_a_data_url() {
        let json = embedded(&[0xff, 0x00, 0xfe]);
        assert_eq!(json, r#""data:application/octet-stream;base64,/wD+""#);
    }

    #[test]
    fn json_that_is_nested_too_deep_is_embedded_as_a_string() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(embedded(nested(EMBEDDED_DEPTH).as_bytes()), nested(EMBEDDED_DEPTH));
        let deeper = nested(EMBEDDED_DEPTH + 1);
        assert_eq!(embedded(deeper.as_bytes()), format!("\"{deeper}\""));
    }
}
