//! JSON commands: each accepted command, and each message of a publication, is valid JSON for serde_json.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use wsmb_core::message::{Frame, Kind};
use wsmb_protocol::envelope::{Command, Parser};
use wsmb_protocol::frame::{Opcode, encode};

fuzz_target!(|texts: Vec<&str>| {
    // One parser for all texts, because the parser keeps the channel of the last publication.
    let mut parser = Parser::default();
    for text in texts {
        let frame = encode(Opcode::Text, text.as_bytes());
        let frame = Frame::Borrowed(&frame);
        let Ok(command) = parser.parse(Kind::Text, &frame) else { continue };
        assert!(serde_json::from_str::<&RawValue>(text).is_ok(), "{text:?} is no JSON");
        if let Command::Send(send) = command {
            for message in send.publication.bodies() {
                let message = std::str::from_utf8(message).expect("a part of UTF-8");
                assert!(serde_json::from_str::<&RawValue>(message).is_ok(), "{message:?} of {text:?} is no JSON");
            }
        }
    }
});
