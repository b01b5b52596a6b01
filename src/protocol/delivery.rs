//! What a receiver gets: whole frames, ready for its queue.
//!
//! Where sender and receiver speak the same dialect, and the receiver confirms automatically, that is the sender's frame
//! itself, shared and never copied. Nothing here ever makes an empty frame.

use std::fmt::Write as _;

use bytes::Bytes;

use super::frame::{Opcode, encode, payload_of};
use super::{json, topic};
use crate::message::{ChannelName, Dialect, Payload, Publication};

/// What a receiver that acknowledges by hand must be told about a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manual {
    /// The delivery's number on the connection: `"delivery":"17"`.
    pub sequence: u64,
    /// It may have been delivered before: `"redelivered":true`, else no such member.
    pub redelivered: bool,
}

/// A live publication for a receiver of `dialect`: one or more whole frames; a clone of the publication's own, which copies
/// nothing, where that can be.
///
/// `manual` means nothing to topic receivers, which have no acknowledgements. The result is empty only for a topic receiver
/// of a publication without messages, or with empty ones alone.
#[must_use]
pub fn encode_live(publication: &Publication, dialect: Dialect, manual: Option<Manual>) -> Bytes {
    let Publication { channel, frame, messages, .. } = publication;
    let verbatim = publication.dialect == dialect && !frame.is_empty();
    match (dialect, manual) {
        (Dialect::Topic, _) | (Dialect::Envelope, None) if verbatim => frame.clone(),
        (Dialect::Envelope, Some(manual)) if verbatim => {
            marked(frame, manual).unwrap_or_else(|| envelope(channel, messages, Some(manual)))
        }
        (Dialect::Envelope, manual) => envelope(channel, messages, manual),
        (Dialect::Topic, _) => frames(messages),
    }
}

/// Kept messages for a receiver of `dialect`: one envelope, or one frame for each message.
///
/// `manual` as in [`encode_live`]. The result is empty only for a topic receiver of nothing, or of empty messages alone.
#[must_use]
pub fn encode_backlog(channel: &ChannelName, messages: &[Payload], dialect: Dialect, manual: Option<Manual>) -> Bytes {
    match dialect {
        Dialect::Envelope => envelope(channel, messages, manual),
        Dialect::Topic => frames(messages),
    }
}

fn frames(messages: &[Payload]) -> Bytes {
    // Ten bytes are the longest unmasked header.
    let mut out = Vec::with_capacity(messages.iter().map(|message| message.bytes.len() + 10).sum());
    topic::push_frames(&mut out, messages);
    Bytes::from(out)
}

/// The broker's own envelope around `messages`.
fn envelope(channel: &ChannelName, messages: &[Payload], manual: Option<Manual>) -> Bytes {
    let mut out = String::with_capacity(192 + messages.iter().map(|message| message.bytes.len() + 1).sum::<usize>());
    out.push('{');
    if let Some(manual) = manual {
        push_mark(&mut out, manual);
    }
    out.push_str(r#""command":"send-message","channel":"#);
    json::push_string(&mut out, channel.as_str());
    out.push_str(r#","data":["#);
    for (index, message) in messages.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        topic::push_embedded(&mut out, message);
    }
    out.push_str("]}");
    encode(Opcode::Text, out.as_bytes())
}

/// The sender's own envelope with the delivery's mark as its first members.
///
/// `None` if the sender's object has members of those names itself: most readers take the last of two, and would acknowledge
/// whatever the sender likes.
fn marked(frame: &Bytes, manual: Manual) -> Option<Bytes> {
    let payload = payload_of(frame);
    let text = std::str::from_utf8(&payload).ok()?;
    // Without either, no member can have such a name, however it is escaped.
    if (text.contains("deliver") || text.contains('\\'))
        && json::top_level_keys(text).iter().any(|key| [&b"delivery"[..], b"redelivered"].contains(&&**key))
    {
        return None;
    }
    let (before, members) = text.split_once('{')?;
    let mut out = String::with_capacity(text.len() + 64);
    out.push_str(before);
    out.push('{');
    push_mark(&mut out, manual);
    out.push_str(members);
    Some(encode(Opcode::Text, out.as_bytes()))
}

/// Appends the mark's members, a comma after each: other members always follow.
fn push_mark(out: &mut String, manual: Manual) {
    // Writing to a `String` can't fail.
    let _ = write!(out, r#""delivery":"{}","#, manual.sequence);
    if manual.redelivered {
        out.push_str(r#""redelivered":true,"#);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::Kind;
    use crate::protocol::envelope::{Command, parse};

    fn sent(json: &str) -> Publication {
        match parse(json.as_bytes()) {
            Ok(Command::Send(send)) => send.publication,
            other => panic!("{other:?}"),
        }
    }

    fn channel() -> ChannelName {
        ChannelName::parse("sms").unwrap()
    }

    /// The payloads of unmasked frames of up to 125 bytes each, with their first bytes.
    fn split(mut frames: &[u8]) -> Vec<(u8, &[u8])> {
        let mut found = Vec::new();
        while let [first, len, rest @ ..] = frames {
            let (payload, rest) = rest.split_at(usize::from(*len));
            found.push((*first, payload));
            frames = rest;
        }
        found
    }

    fn text_of(frame: &Bytes) -> String {
        assert_eq!(frame[0], 0x81, "envelopes are text frames");
        String::from_utf8(payload_of(frame).to_vec()).unwrap()
    }

    const ODD: &str =
        " { \"x\" : [ 1 ],\n \"command\":\"send-message\",\"channel\":\"sms\",\"data\":[ {\"a\" : 1}, \"b\" ] } ";

    #[test]
    fn the_same_dialect_gets_the_senders_frame_itself() {
        let envelope = sent(ODD);
        let topic = topic::publication(channel(), Kind::Binary, b"{}");
        for (publication, dialect) in [(envelope, Dialect::Envelope), (topic, Dialect::Topic)] {
            let frame = encode_live(&publication, dialect, None);
            assert_eq!(frame.as_ptr(), publication.frame.as_ptr());
            assert_eq!(frame, publication.frame);
        }
        assert_eq!(text_of(&encode_live(&sent(ODD), Dialect::Envelope, None)), ODD);
    }

    #[test]
    fn messages_of_an_envelope_reach_a_topic_receiver_one_text_frame_each() {
        let frames = encode_live(&sent(ODD), Dialect::Topic, None);
        assert_eq!(split(&frames), [(0x81, &b"{\"a\" : 1}"[..]), (0x81, b"\"b\"")]);
    }

    #[test]
    fn a_topic_message_reaches_an_envelope_receiver_in_an_envelope() {
        for (kind, message, data) in [
            (Kind::Text, &b"{\"a\":1}"[..], r#"{"a":1}"#),
            (Kind::Text, b"hello", r#""hello""#),
            (Kind::Binary, b"\xff", r#""data:application/octet-stream;base64,/w==""#),
        ] {
            let frame = encode_live(&topic::publication(channel(), kind, message), Dialect::Envelope, None);
            assert_eq!(text_of(&frame), format!(r#"{{"command":"send-message","channel":"sms","data":[{data}]}}"#));
        }
    }

    #[test]
    fn a_marked_delivery_is_the_senders_object_with_the_mark_in_front() {
        let manual = Manual { sequence: 17, redelivered: false };
        let frame = encode_live(&sent(ODD), Dialect::Envelope, Some(manual));
        assert_eq!(text_of(&frame), ODD.replacen('{', r#"{"delivery":"17","#, 1));
        let frame = encode_live(&sent(ODD), Dialect::Envelope, Some(Manual { redelivered: true, ..manual }));
        assert_eq!(text_of(&frame), ODD.replacen('{', r#"{"delivery":"17","redelivered":true,"#, 1));
    }

    #[test]
    fn a_sender_cannot_forge_the_mark() {
        let manual = Manual { sequence: 17, redelivered: false };
        for forged in [r#""delivery":"1""#, r#""d\u0065livery":"1""#, r#""redelivered":true"#] {
            let json = format!(r#"{{"command":"send-message",{forged},"channel":"sms","data":[{{"delivery":"x"}}]}}"#);
            let frame = encode_live(&sent(&json), Dialect::Envelope, Some(manual));
            let expected = r#"{"delivery":"17","command":"send-message","channel":"sms","data":[{"delivery":"x"}]}"#;
            assert_eq!(text_of(&frame), expected);
        }
        let inside = r#"{"command":"send-message","channel":"sms","data":[{"delivery":"\\x"}],"more":1}"#;
        let frame = encode_live(&sent(inside), Dialect::Envelope, Some(manual));
        assert_eq!(text_of(&frame), inside.replacen('{', r#"{"delivery":"17","#, 1));
    }

    #[test]
    fn a_backlog_is_one_envelope_or_a_frame_for_each_message() {
        let binary = Payload { bytes: Bytes::from_static(b"raw"), kind: Kind::Binary };
        let messages = [Payload::text("{\"a\":1}"), Payload::text(""), binary];
        let frame = encode_backlog(&channel(), &messages, Dialect::Envelope, None);
        assert_eq!(text_of(&frame), r#"{"command":"send-message","channel":"sms","data":[{"a":1},"","raw"]}"#);
        let manual = Manual { sequence: 3, redelivered: true };
        let frame = encode_backlog(&channel(), &messages[..1], Dialect::Envelope, Some(manual));
        assert_eq!(
            text_of(&frame),
            r#"{"delivery":"3","redelivered":true,"command":"send-message","channel":"sms","data":[{"a":1}]}"#
        );
        let frames = encode_backlog(&channel(), &messages, Dialect::Topic, None);
        assert_eq!(split(&frames), [(0x81, &b"{\"a\":1}"[..]), (0x82, b"raw")]);
    }

    #[test]
    fn a_publication_that_came_in_no_frame_is_encoded_for_both_dialects() {
        let mut publication = sent(ODD);
        publication.frame = Bytes::new();
        let frame = encode_live(&publication, Dialect::Envelope, None);
        assert_eq!(text_of(&frame), r#"{"command":"send-message","channel":"sms","data":[{"a" : 1},"b"]}"#);
        publication.dialect = Dialect::Topic;
        assert_eq!(split(&encode_live(&publication, Dialect::Topic, None)).len(), 2);
    }

    proptest! {
        #[test]
        fn whatever_a_topic_client_sends_an_envelope_receiver_gets_valid_json(
            bytes in prop::collection::vec(any::<u8>(), 1..64),
            name in "[^\\p{Cc}]{1,20}",
            sequence in any::<Option<u64>>(),
        ) {
            let kind = if std::str::from_utf8(&bytes).is_ok() { Kind::Text } else { Kind::Binary };
            let publication = topic::publication(ChannelName::parse(&name).unwrap(), kind, &bytes);
            let manual = sequence.map(|sequence| Manual { sequence, redelivered: true });
            let frame = encode_live(&publication, Dialect::Envelope, manual);
            let back = sent(&text_of(&frame));
            prop_assert_eq!(back.channel.as_str(), name);
            prop_assert_eq!(back.messages.len(), 1);
        }
    }
}
