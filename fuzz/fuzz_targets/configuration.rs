//! Configurations: no text makes the reader panic, whether it is a configuration of this broker or of the PHP broker.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use wsmb_config::import::import;
use wsmb_config::{Config, Flags};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let read = Config::from_parts(Some(("wsmb.toml", text)), [], &Flags::default());
        if let Err(error) = read {
            assert!(!error.to_string().is_empty());
        }
    }
    for keep in [None, Some(true), Some(false)] {
        let Ok(imported) = import(bytes, Path::new("store.password"), keep) else { continue };
        // What the import writes is read by the broker.
        let text = &imported.toml;
        if let Err(error) = Config::from_parts(Some(("wsmb.toml", text)), [], &Flags::default()) {
            panic!("{error}\n{text}");
        }
    }
});
