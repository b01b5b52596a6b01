//! A `send-message` that begins and ends, byte for byte, as the one before it: then only its messages have to be read.
//!
//! A program writes all its publications with the same lines of code, so that what stands around the messages seldom changes. What was
//! read once leaves the scanner where it left it then, whatever follows. Never takes a frame that [`super::read`] would not
//! take, and never finds anything else in it.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use super::Send;
use super::parse::publication;
use super::read::{Elements, elements_inside};
use crate::limits;
use crate::message::{ChannelName, Frame, Spans};
use crate::protocol::json::Scanner;

/// What stood around the messages of a publication, and what it meant.
#[derive(Debug)]
pub(super) struct Surroundings {
    /// From the start of the payload up to the messages, the bracket that opens their list included.
    before: Vec<u8>,
    /// From the bracket that closes the list to the end of the payload.
    behind: Vec<u8>,
    channel: ChannelName,
    receivers: Option<u32>,
    ttl: Option<Duration>,
    delay: Option<Duration>,
}

/// What a publication says beside its messages. One with an `id` has always another one, and is not remembered; nor is one that can be read in two
/// ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    pub(super) channel: &'a ChannelName,
    pub(super) receivers: Option<u32>,
    pub(super) ttl: Option<Duration>,
    pub(super) delay: Option<Duration>,
}

impl Surroundings {
    /// Remembers, in place of what was, the surroundings of the publication in `frame`, whose payload begins at `start`, if they are short
    /// enough. `inside`: where its messages lie, without the brackets around them.
    pub(super) fn note(
        known: &mut Option<Box<Self>>,
        frame: &[u8],
        start: usize,
        inside: Range<usize>,
        said: Said<'_>,
    ) {
        let (Some(before), Some(behind)) = (frame.get(start..inside.start), frame.get(inside.end..)) else { return };
        if before.len() + behind.len() > limits::SURROUNDINGS {
            return;
        }
        let Said { channel, receivers, ttl, delay } = said;
        let channel = channel.clone();
        let Some(known) = known else {
            let (before, behind) = (before.to_vec(), behind.to_vec());
            *known = Some(Box::new(Self { before, behind, channel, receivers, ttl, delay }));
            return;
        };
        known.before.clear();
        known.before.extend_from_slice(before);
        known.behind.clear();
        known.behind.extend_from_slice(behind);
        (known.channel, known.receivers, known.ttl, known.delay) = (channel, receivers, ttl, delay);
    }

    /// The messages of the publication in `frame`, whose payload begins at `start`, if the same stands around them and they are JSON.
    #[inline]
    pub(super) fn messages(&self, frame: &[u8], start: usize) -> Option<Spans> {
        /// Open around the messages: the object and the list.
        const LEVELS: usize = 2;
        let at = start + self.before.len();
        if !same(frame.get(start..at)?, &self.before) {
            return None;
        }
        let mut scanner = Scanner::starting_at(at, frame, limits::JSON_DEPTH - LEVELS);
        let mut found = Elements::default();
        let inside = elements_inside(&mut scanner, limits::PUBLICATION_MESSAGES, &mut found).ok()?;
        (same(frame.get(inside.end..)?, &self.behind) && !found.too_many).then_some(found.spans)
    }

    /// The command that `frame` is, with these messages.
    #[inline]
    pub(super) fn send<'a>(&'a self, frame: &Frame<'a>, messages: Spans) -> Send<'a> {
        let Self { channel, receivers, ttl, delay, .. } = self;
        let publication = publication(Cow::Borrowed(channel), frame.clone(), messages);
        Send { publication, receivers: *receivers, id: None, ttl: *ttl, delay: *delay }
    }
}

/// Whether two texts are the same. In words and bytes, because wider pieces of what was unmasked a moment ago are not to be had yet.
#[inline]
fn same(one: &[u8], other: &[u8]) -> bool {
    let differ = |(one, other): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other);
    if one.len() != other.len() {
        return false;
    }
    match one.last_chunk().zip(other.last_chunk()) {
        Some(last) => {
            let words = one.as_chunks().0.iter().zip(other.as_chunks().0).map(differ);
            words.fold(differ(last), |all, differ| all | differ) == 0
        }
        None => one.iter().zip(other).all(|(one, other)| one == other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Parser;
    use crate::limits;
    use crate::message::{Frame, Kind};
    use crate::protocol::frame::{Opcode, encode, payload_start};
    use crate::protocol::json::strategies;

    const BEFORE: &[&str] = &[
        r#"{"command":"send-message","channel":"sms","data":["#,
        r#"{"command":"send-message","channel":"sms","data": ["#,
        r#"{"command":"send-message","channel":"other","ttl":60,"data":["#,
        r#"{"command":"send-message","channel":"sms","id":"1","data":["#,
        r#"{"command":"send-message","channel":"sms","data":[1],"d\u0061ta":["#,
        r#" {"data":["#,
        r#"{"command":"send-message","channel":"s\u006ds","data":["#,
        r#"{"command":"receive-message","channel":"sms","data":["#,
        r#"{"command":"send-message","channel":"sms","x":["#,
        r#"{"command":"send-message","channel":"sms","delivery":1,"data":["#,
        r#"{"command":"ping","command":"send-message","channel":"sms","data":["#,
    ];
    const MESSAGES: &[&str] = &[
        "",
        " ",
        "1",
        r#"{"n":1,"text":"a"}"#,
        "1,2",
        r#""]}""#,
        "[]",
        "[[1]]",
        "1]",
        "1],[2",
        "}",
        "1,",
        r#""a\"]"#,
        "\u{e4}",
        "{}]}",
    ];
    const BEHIND: &[&str] = &[
        "]}",
        "] }",
        r#"],"number_of_receiver":2}"#,
        r#"],"command":"send-message","channel":"sms"}"#,
        r#"],"id":"7"}"#,
        r#"],"data":[]}"#,
        r#"],"data":5}"#,
        "]",
        "]}}",
        "",
    ];

    fn payloads() -> impl Strategy<Value = Vec<u8>> {
        let pieces = (prop::sample::select(BEFORE), prop::sample::select(MESSAGES), prop::sample::select(BEHIND));
        let assembled = pieces.prop_map(|(before, messages, behind)| [before, messages, behind].concat().into_bytes());
        let sent = strategies::texts().prop_map(|text| [BEFORE[0].as_bytes(), &text, BEHIND[0].as_bytes()].concat());
        prop_oneof![8 => assembled, 1 => sent, 1 => strategies::texts()]
    }

    fn said(parser: &mut Parser, frame: &Frame<'_>) -> String {
        // Other text is refused by the decoder.
        let text = frame.get(payload_start(frame)..).is_some_and(|payload| std::str::from_utf8(payload).is_ok());
        format!("{:?}", parser.parse(if text { Kind::Text } else { Kind::Binary }, frame))
    }

    proptest! {
        #[test]
        fn texts_are_the_same_or_not(
            text in prop::collection::vec(any::<u8>(), 0..40),
            change in prop::option::of((any::<prop::sample::Index>(), 1..=u8::MAX)),
        ) {
            let mut other = text.clone();
            if let Some((place, by)) = change
                && !other.is_empty()
            {
                let place = place.index(other.len());
                other[place] ^= by;
            }
            prop_assert_eq!(super::same(&text, &other), text == other);
            prop_assert!(!super::same(&text, &[&text[..], b"x"].concat()));
        }

        #[test]
        fn who_remembers_reads_the_same_as_who_does_not(
            payloads in prop::collection::vec(payloads(), 1..12),
            repeated in prop::collection::vec(0_usize..12, 0..12),
        ) {
            let mut parser = Parser::new();
            for place in (0..payloads.len()).chain(repeated) {
                let Some(payload) = payloads.get(place) else { continue };
                let frame = Frame::Shared(encode(Opcode::Text, payload));
                prop_assert_eq!(said(&mut parser, &frame), said(&mut Parser::new(), &frame));
            }
        }
    }

    fn nested(depth: usize) -> String {
        [BEFORE[0], &"[".repeat(depth), &"]".repeat(depth), BEHIND[0]].concat()
    }

    #[test]
    fn what_is_remembered_is_used_and_keeps_every_bound() {
        let mut parser = Parser::new();
        let mut same = |payload: &str| {
            let frame = Frame::Shared(encode(Opcode::Text, payload.as_bytes()));
            assert_eq!(said(&mut parser, &frame), said(&mut Parser::new(), &frame));
            let known = parser.surroundings.as_ref();
            known.is_some_and(|known| known.messages(&frame, payload_start(&frame)).is_some())
        };
        assert!(same(&nested(1)));
        assert!(same(&nested(limits::JSON_DEPTH - 2)));
        assert!(!same(&nested(limits::JSON_DEPTH - 1)));
        let list = |count: usize| [BEFORE[0], &vec!["1"; count].join(","), BEHIND[0]].concat();
        assert!(same(&list(limits::PUBLICATION_MESSAGES)));
        assert!(!same(&list(limits::PUBLICATION_MESSAGES + 1)));
        assert!(same(&list(1)));
        assert!(!same(&[BEFORE[3], "1", BEHIND[0]].concat()), "an id is not remembered");
        for twice in [4, 9, 10].map(|place| [BEFORE[place], "1", BEHIND[0]].concat()) {
            assert!(!same(&twice), "{twice} is remembered");
        }
        let long = |size: usize| [&BEFORE[0].replace("{", &format!("{{{}", " ".repeat(size))), "1", BEHIND[0]].concat();
        let around = BEFORE[0].len() + BEHIND[0].len();
        assert!(same(&long(limits::SURROUNDINGS - around)));
        assert!(!same(&long(limits::SURROUNDINGS + 1 - around)));
    }
}
