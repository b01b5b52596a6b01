//! Configurations of this broker and of the PHP broker: no text makes the parsers panic.
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
        // The broker must accept an imported configuration.
        let text = &imported.toml;
        if let Err(error) = Config::from_parts(Some(("wsmb.toml", text)), [], &Flags::default()) {
            panic!("{error}\n{text}");
        }
    }
});
