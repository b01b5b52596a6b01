//! Makes the publication of several JSON messages that did not arrive in an envelope.

use std::borrow::Cow;

use crate::frame::{Opcode, encode, payload_start};
use crate::json::push_string;
use wsmb_core::message::{ChannelName, Dialect, Frame, Kind, Publication, Spans};

/// Returns the publication of these messages, in the envelope that forwards them. Each message must be a JSON value ([`crate::topic::is_json`]).
#[must_use]
pub fn publication_of<'a>(channel: &'a ChannelName, messages: &[&str]) -> Publication<'a> {
    let size = messages.iter().map(|message| message.len() + 1).sum::<usize>();
    let mut text = String::with_capacity(192 + size);
    text.push_str(r#"{"command":"send-message","channel":"#);
    push_string(&mut text, channel.as_str());
    text.push_str(r#","data":["#);
    let mut spans = Spans::new();
    for message in messages {
        if !spans.is_empty() {
            text.push(',');
        }
        spans.push(text.len()..text.len() + message.len());
        text.push_str(message);
    }
    text.push_str("]}");
    let frame = encode(Opcode::Text, text.as_bytes());
    let start = payload_start(&frame);
    for span in &mut spans {
        *span = span.start + start..span.end + start;
    }
    Publication {
        channel: Cow::Borrowed(channel),
        dialect: Dialect::Envelope,
        kind: Kind::Text,
        frame: Frame::Shared(frame),
        messages: spans,
        verbatim: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Command, Parser};

    #[test]
    fn a_parser_reads_the_same_publication_from_the_frame() {
        let channel = ChannelName::parse("s\"ms").expect("a name");
        let long = format!("\"{}\"", "x".repeat(70_000));
        for messages in [&["1"][..], &[r#"{"a":[1,2]}"#, " null", "\"b\""], &["1", &long]] {
            let made = publication_of(&channel, messages);
            assert_eq!(
                made.bodies().collect::<Vec<_>>(),
                messages.iter().map(|text| text.as_bytes()).collect::<Vec<_>>()
            );
            let mut parser = Parser::new();
            let frame = made.frame.clone();
            let Ok(Command::Send(read)) = parser.parse(Kind::Text, &frame) else { panic!("not parsed") };
            assert_eq!(*read.publication.channel, channel);
            // A parser leaves white space around a message out.
            let trimmed = |publication: &Publication<'_>| -> Vec<Vec<u8>> {
                publication.bodies().map(|body| body.trim_ascii().to_vec()).collect()
            };
            assert_eq!(trimmed(&read.publication), trimmed(&made));
            assert!(read.publication.verbatim);
        }
    }
}
