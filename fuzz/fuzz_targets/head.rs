//! Request heads: no bytes make the parser panic, and where a head ends does not depend on what has come behind it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsmb_protocol::handshake::{basic_credentials, parse_reply, parse_request, percent_decode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((_, length))) = parse_request(bytes) {
        assert!(length <= bytes.len());
        let alone = parse_request(&bytes[..length]).expect("it was a head");
        assert_eq!(alone.expect("it was whole").1, length);
        for end in [length - 1, length / 2] {
            assert!(!matches!(parse_request(&bytes[..end]), Ok(Some(_))), "{end} of {length} bytes are no head");
        }
    }
    let _ = parse_reply(bytes, "dGhlIHNhbXBsZSBub25jZQ==", None);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (basic_credentials(text), percent_decode(text));
    }
});
