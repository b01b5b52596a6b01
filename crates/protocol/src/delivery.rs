//! Encodes deliveries to receivers as whole frames.
//!
//! If sender and receiver use the same dialect and the receiver acknowledges automatically, the receiver gets the sender's frame byte for byte. Never makes
//! an empty frame.

use std::fmt::Write as _;

use super::frame::{Opcode, encode_into, payload_start, push_header};
use super::{json, topic};
use wsmb_core::message::{ChannelName, DeadLetter, DeliveryName, Dialect, MessageId, Payload, Publication};

/// The members that mark a delivery to a receiver with manual acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manual {
    /// The name of the delivery: `"delivery":"1f2e3d4c-17"`.
    pub name: DeliveryName,
    /// The id of the first message: `"message_id":"4711"`.
    pub message: MessageId,
    /// The number of this delivery of the message, as far as it is known. A number above 1 adds `"redelivered":true,"attempt":N`.
    pub attempt: u32,
}

/// Whether a receiver of `dialect` gets the sender's frame byte for byte. For topic receivers `manual` has no effect: they have no acknowledgements.
#[must_use]
pub fn is_verbatim(publication: &Publication<'_>, dialect: Dialect, manual: Option<Manual>) -> bool {
    publication.dialect == dialect && publication.verbatim && (dialect == Dialect::Topic || manual.is_none())
}

/// Appends a live publication for a receiver of `dialect`: one or more whole frames.
///
/// Appends nothing only for a topic receiver, if the publication has no messages or only empty ones.
pub fn push_live(out: &mut Vec<u8>, publication: &Publication<'_>, dialect: Dialect, manual: Option<Manual>) {
    let Publication { channel, kind, frame, .. } = publication;
    if is_verbatim(publication, dialect, manual) {
        out.extend_from_slice(frame);
        return;
    }
    match (dialect, manual) {
        (Dialect::Topic, _) => topic::push_frames(out, publication.bodies().map(|body| (*kind, body))),
        (Dialect::Envelope, Some(manual))
            if publication.dialect == Dialect::Envelope && publication.verbatim && push_marked(out, frame, manual) => {}
        (Dialect::Envelope, manual) => push_envelope(out, channel, publication.bodies(), (manual, None)),
    }
}

/// Appends kept messages for a receiver of `dialect`: one envelope, or one frame for each message.
///
/// `manual` as in [`push_live`]. `dead`: the origin of a dead letter; only a receiver with manual acknowledgement gets it. Appends nothing only for a topic
/// receiver, if there are no messages or only empty ones.
pub fn push_backlog(
    out: &mut Vec<u8>,
    channel: &ChannelName,
    messages: &[Payload],
    dialect: Dialect,
    (manual, dead): (Option<Manual>, Option<&DeadLetter>),
) {
    match dialect {
        Dialect::Envelope => {
            let dead = dead.filter(|_| manual.is_some());
            push_envelope(out, channel, messages.iter().map(|message| &message.bytes[..]), (manual, dead));
        }
        Dialect::Topic => topic::push_frames(out, messages.iter().map(|message| (message.kind, &message.bytes[..]))),
    }
}

/// Turns the text frame at the end of `out`, which begins at `start`, into a line: its payload and a line feed. JSON contains line breaks only as white
/// space between values, so each becomes a blank.
pub fn frame_into_line(out: &mut Vec<u8>, start: usize) {
    let header = payload_start(out.get(start..).unwrap_or_default());
    out.drain(start..start + header);
    for byte in out.iter_mut().skip(start).filter(|byte| matches!(**byte, b'\n' | b'\r')) {
        *byte = b' ';
    }
    out.push(b'\n');
}

/// Appends an envelope of the broker with `messages`.
fn push_envelope<'a>(
    out: &mut Vec<u8>,
    channel: &ChannelName,
    messages: impl Iterator<Item = &'a [u8]> + Clone,
    (manual, dead): (Option<Manual>, Option<&DeadLetter>),
) {
    let size = messages.clone().map(|message| message.len() + 1).sum::<usize>();
    let mut text = String::with_capacity(192 + size);
    text.push('{');
    if let Some(manual) = manual {
        push_mark(&mut text, manual);
    }
    text.push_str(r#""command":"send-message","channel":"#);
    json::push_string(&mut text, channel.as_str());
    text.push_str(r#","data":["#);
    for (index, message) in messages.enumerate() {
        if index > 0 {
            text.push(',');
        }
        topic::push_embedded(&mut text, message);
    }
    text.push(']');
    if let Some(dead) = dead {
        push_dead_letter(&mut text, dead);
    }
    text.push('}');
    encode_into(out, Opcode::Text, text.as_bytes());
}

/// Appends a comma and the member `dead_letter`.
fn push_dead_letter(out: &mut String, dead: &DeadLetter) {
    let DeadLetter { why, channel, attempts, reason } = dead;
    // Writing to a `String` cannot fail.
    let _ = write!(out, r#","dead_letter":{{"why":"{}","channel":"#, why.as_str());
    json::push_string(out, channel.as_str());
    let _ = write!(out, r#","attempts":{attempts}"#);
    if let Some(reason) = reason {
        out.push_str(r#","reason":"#);
        json::push_string(out, reason);
    }
    out.push('}');
}

/// Appends the sender's envelope with the mark as its first members. The envelope must not have members of these names. Appends nothing and returns false if
/// the envelope is not an object.
fn push_marked(out: &mut Vec<u8>, frame: &[u8], manual: Manual) -> bool {
    let Ok(text) = std::str::from_utf8(&frame[payload_start(frame)..]) else { return false };
    let Some((before, members)) = text.split_once('{') else { return false };
    // This capacity is enough for every mark.
    let mut mark = String::with_capacity(100 + DeliveryName::LONGEST);
    mark.push('{');
    push_mark(&mut mark, manual);
    let parts = [before, &mark, members];
    push_header(out, Opcode::Text, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    true
}

/// Appends the members of the mark with a comma after each one: other members always follow.
fn push_mark(out: &mut String, manual: Manual) {
    // Writing to a `String` cannot fail.
    let _ = write!(out, r#""delivery":"{}","message_id":"{}","#, manual.name, manual.message.0);
    if manual.attempt > 1 {
        let _ = write!(out, r#""redelivered":true,"attempt":{},"#, manual.attempt);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::{Command, parse};
    use wsmb_core::message::{ConnectionId, Kind, Why};

    fn sent(json: &str) -> Publication<'static> {
        match parse(json.as_bytes()) {
            Ok(Command::Send(send)) => send.publication.to_owned(),
            other => panic!("{other:?}"),
        }
    }

    fn encode_live(publication: &Publication<'_>, dialect: Dialect, manual: Option<Manual>) -> Vec<u8> {
        let mut out = Vec::new();
        push_live(&mut out, publication, dialect, manual);
        out
    }

    fn encode_backlog(
        channel: &ChannelName,
        messages: &[Payload],
        dialect: Dialect,
        manual: Option<Manual>,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        push_backlog(&mut out, channel, messages, dialect, (manual, None));
        out
    }

    fn manual(sequence: u64) -> Manual {
        let connection = ConnectionId(0xa1b2);
        Manual { name: DeliveryName { connection, sequence }, message: MessageId(7), attempt: 1 }
    }

    fn channel() -> ChannelName {
        ChannelName::parse("sms").unwrap()
    }

    /// Returns the first byte and the payload of each unmasked frame; each payload has at most 125 bytes.
    fn split(mut frames: &[u8]) -> Vec<(u8, &[u8])> {
        let mut found = Vec::new();
        while let [first, len, rest @ ..] = frames {
            let (payload, rest) = rest.split_at(usize::from(*len));
            found.push((*first, payload));
            frames = rest;
        }
        found
    }

    fn text_of(frame: &[u8]) -> String {
        assert_eq!(frame[0], 0x81, "envelopes are text frames");
        String::from_utf8(frame[payload_start(frame)..].to_vec()).unwrap()
    }

    const ODD: &str =
        " { \"x\" : [ 1 ],\n \"command\":\"send-message\",\"channel\":\"sms\",\"data\":[ {\"a\" : 1}, \"b\" ] } ";

    #[test]
    fn a_receiver_of_the_same_dialect_gets_the_senders_frame() {
        let envelope = sent(ODD);
        let channel = channel();
        let topic = topic::publication_of(&channel, Kind::Binary, b"{}");
        for (publication, dialect) in [(envelope, Dialect::Envelope), (topic, Dialect::Topic)] {
            assert!(is_verbatim(&publication, dialect, None));
            assert_eq!(encode_live(&publication, dialect, None)[..], publication.frame[..]);
        }
        assert_eq!(text_of(&encode_live(&sent(ODD), Dialect::Envelope, None)), ODD);
    }

    #[test]
    fn a_topic_receiver_gets_a_text_frame_for_each_message_of_an_envelope() {
        let frames = encode_live(&sent(ODD), Dialect::Topic, None);
        assert_eq!(split(&frames), [(0x81, &b"{\"a\" : 1}"[..]), (0x81, b"\"b\"")]);
    }

    #[test]
    fn an_envelope_receiver_gets_a_topic_message_in_an_envelope() {
        for (kind, message, data) in [
            (Kind::Text, &b"{\"a\":1}"[..], r#"{"a":1}"#),
            (Kind::Text, b"hello", r#""hello""#),
            (Kind::Binary, b"\xff", r#""data:application/octet-stream;base64,/w==""#),
        ] {
            let frame = encode_live(&topic::publication_of(&channel(), kind, message), Dialect::Envelope, None);
            assert_eq!(text_of(&frame), format!(r#"{{"command":"send-message","channel":"sms","data":[{data}]}}"#));
        }
    }

    #[test]
    fn a_line_is_the_payload_without_line_breaks() {
        let mut out = b"before".to_vec();
        push_live(&mut out, &sent(ODD), Dialect::Envelope, None);
        frame_into_line(&mut out, 6);
        assert_eq!(String::from_utf8(out).unwrap(), format!("before{}\n", ODD.replace('\n', " ")));
    }

    #[test]
    fn a_marked_delivery_is_the_senders_object_with_the_mark_first() {
        let manual = manual(17);
        let frame = encode_live(&sent(ODD), Dialect::Envelope, Some(manual));
        assert_eq!(text_of(&frame), ODD.replacen('{', r#"{"delivery":"a1b2-17","message_id":"7","#, 1));
        let frame = encode_live(&sent(ODD), Dialect::Envelope, Some(Manual { attempt: 3, ..manual }));
        assert_eq!(
            text_of(&frame),
            ODD.replacen('{', r#"{"delivery":"a1b2-17","message_id":"7","redelivered":true,"attempt":3,"#, 1)
        );
    }

    #[test]
    fn an_ambiguous_envelope_is_never_forwarded() {
        let manual = manual(17);
        for forged in [
            r#""delivery":"1","#,
            r#""d\u0065livery":"1","#,
            r#""redelivered":true,"#,
            r#""r\u0065delivered":true,"#,
            r#""message_id":"9","#,
            r#""attempt":9,"#,
            r#""att\u0065mpt":9,"#,
            r#""dead_letter":{"why":"rejected"},"#,
            r#""response_code":"05","#,
            r#""response_c\u006fde":"05","#,
            r#""command":"connect","#,
            r#""c\u006fmmand":"connect","#,
            r#""channel":"other","#,
            r#""data":[{"n":7}],"#,
            r#""d\u0061ta":7,"#,
        ] {
            let json = format!(r#"{{{forged}"command":"send-message","channel":"sms","data":[{{"delivery":"x"}}]}}"#);
            let own = r#""command":"send-message","channel":"sms","data":[{"delivery":"x"}]}"#;
            let publication = sent(&json);
            assert!(!publication.verbatim && !is_verbatim(&publication, Dialect::Envelope, None), "{json}");
            assert_eq!(text_of(&encode_live(&publication, Dialect::Envelope, None)), format!("{{{own}"));
            let frame = encode_live(&publication, Dialect::Envelope, Some(manual));
            assert_eq!(text_of(&frame), format!(r#"{{"delivery":"a1b2-17","message_id":"7",{own}"#));
        }
        for plain in [
            r#"{"command":"send-message","channel":"sms","data":[{"delivery":"\\x","response_code":1}],"more":1}"#,
            r#"{"id":1,"id":2,"ttl":1,"ttl":2,"command":"send-message","channel":"sms","data":[{}],"Data":1}"#,
        ] {
            assert_eq!(text_of(&encode_live(&sent(plain), Dialect::Envelope, None)), plain);
            let frame = encode_live(&sent(plain), Dialect::Envelope, Some(manual));
            assert_eq!(text_of(&frame), plain.replacen('{', r#"{"delivery":"a1b2-17","message_id":"7","#, 1));
        }
    }

    #[test]
    fn a_backlog_is_one_envelope_or_a_frame_for_each_message() {
        let binary = Payload { bytes: Bytes::from_static(b"raw"), kind: Kind::Binary };
        let messages = [Payload::text("{\"a\":1}"), Payload::text(""), binary];
        let frame = encode_backlog(&channel(), &messages, Dialect::Envelope, None);
        assert_eq!(text_of(&frame), r#"{"command":"send-message","channel":"sms","data":[{"a":1},"","raw"]}"#);
        let manual = Manual { attempt: 2, ..manual(3) };
        let frame = encode_backlog(&channel(), &messages[..1], Dialect::Envelope, Some(manual));
        assert_eq!(
            text_of(&frame),
            r#"{"delivery":"a1b2-3","message_id":"7","redelivered":true,"attempt":2,"command":"send-message","channel":"sms","data":[{"a":1}]}"#
        );
        let frames = encode_backlog(&channel(), &messages, Dialect::Topic, None);
        assert_eq!(split(&frames), [(0x81, &b"{\"a\":1}"[..]), (0x82, b"raw")]);
    }

    #[test]
    fn only_a_manual_receiver_gets_the_origin_of_a_dead_letter() {
        let dead = DeadLetter {
            why: Why::Rejected,
            channel: ChannelName::parse("s\"ms").unwrap(),
            attempts: 3,
            reason: Some("no \"SIM\"".into()),
        };
        let encode = |manual, dead: &DeadLetter, dialect| {
            let mut out = Vec::new();
            push_backlog(&mut out, &channel(), &[Payload::text("1")], dialect, (manual, Some(dead)));
            out
        };
        let told = r#"{"delivery":"a1b2-3","message_id":"7","command":"send-message","channel":"sms","data":[1],"dead_letter":{"why":"rejected","channel":"s\"ms","attempts":3,"reason":"no \"SIM\""}}"#;
        assert_eq!(text_of(&encode(Some(manual(3)), &dead, Dialect::Envelope)), told);
        let plain = DeadLetter { why: Why::MaxDeliveries, reason: None, ..dead };
        let text = text_of(&encode(Some(manual(3)), &plain, Dialect::Envelope));
        assert!(text.ends_with(r#""dead_letter":{"why":"max_deliveries","channel":"s\"ms","attempts":3}}"#), "{text}");
        let automatic = text_of(&encode(None, &plain, Dialect::Envelope));
        assert_eq!(automatic, r#"{"command":"send-message","channel":"sms","data":[1]}"#);
        assert_eq!(split(&encode(None, &plain, Dialect::Topic)), [(0x81, &b"1"[..])]);
    }

    proptest! {
        #[test]
        fn an_envelope_receiver_gets_valid_json_for_every_topic_message(
            bytes in prop::collection::vec(any::<u8>(), 1..64),
            name in "[^\\p{Cc}]{1,20}",
            sequence in any::<Option<u64>>(),
        ) {
            let kind = if std::str::from_utf8(&bytes).is_ok() { Kind::Text } else { Kind::Binary };
            let channel = ChannelName::parse(&name).unwrap();
            let publication = topic::publication_of(&channel, kind, &bytes);
            let manual = sequence.map(|sequence| Manual { attempt: 2, ..manual(sequence) });
            let frame = encode_live(&publication, Dialect::Envelope, manual);
            let back = sent(&text_of(&frame));
            prop_assert_eq!(back.channel.as_str(), name);
            prop_assert_eq!(back.messages.len(), 1);
        }
    }
}
