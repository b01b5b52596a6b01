//! Password files: no bytes make the parser panic, each entry has a valid user name, and removing a user keeps the others.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wsmb_auth::{htpasswd, passwd};

fuzz_target!(|bytes: &[u8]| {
    let Ok(parsed) = htpasswd::parse(bytes, "file") else { return };
    let names: Vec<String> = parsed.entries.iter().map(|entry| entry.user.to_string()).collect();
    for name in &names {
        assert!(htpasswd::check_user(name).is_ok(), "{name:?}");
    }
    let Some(first) = names.first() else { return };
    let text = passwd::remove(bytes, first).expect("the file has this user");
    let left = htpasswd::parse(&text, "file").expect("the shorter file is valid");
    let left: Vec<String> = left.entries.iter().map(|entry| entry.user.to_string()).collect();
    let others: Vec<String> = names.iter().filter(|name| *name != first).cloned().collect();
    assert_eq!(left, others);
});
