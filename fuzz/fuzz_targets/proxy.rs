//! PROXY protocol headers and headers of HTTP proxies: no bytes make the parsers panic, and a PROXY protocol header has the returned length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsmb_protocol::proxy::{Forwarding, header};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(found)) = header::parse(bytes) {
        assert!(header::is_header(bytes) && found.length <= bytes.len());
        assert_eq!(header::parse(&bytes[..found.length]), Ok(Some(found)));
        assert_eq!(header::parse(&bytes[..found.length - 1]), Ok(None));
    }
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    for name in ["X-Forwarded-For", "Forwarded", "X-Forwarded-Host"] {
        let _ = Forwarding::of(lines.iter().map(|line| (name, *line))).names_client();
    }
});
