//! Request heads: no bytes make the parser panic, and the length of a head does not depend on the bytes after it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsmb_protocol::handshake::{basic_credentials, parse_reply, parse_request, percent_decode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((_, length))) = parse_request(bytes) {
        assert!(length <= bytes.len());
        let alone = parse_request(&bytes[..length]).expect("a valid head");
        assert_eq!(alone.expect("a complete head").1, length);
        for end in [length - 1, length / 2] {
            assert!(!matches!(parse_request(&bytes[..end]), Ok(Some(_))), "{end} of {length} bytes are a head");
        }
    }
    let _ = parse_reply(bytes, "dGhlIHNhbXBsZSBub25jZQ==", None);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (basic_credentials(text), percent_decode(text));
    }
});
