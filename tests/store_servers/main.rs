//! The store on real database servers: tables, locks, failures and their errors. Each test has a database of its own on a private server
//! (`tests/servers`).

#![cfg(target_os = "linux")] // The servers use features of Linux.

#[path = "../servers/mod.rs"]
#[allow(dead_code, unused_imports)] // Other tests need more.
mod servers;

mod failures;
mod fields;
mod harness;
mod healing;
mod locks;
mod own_tables;
mod php_table;
mod refusals;
mod tls;

use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};
use wsmb_store::{Background, Group, MessageStore, StoreError, StoreSettings};

use servers::Database;

/// More bytes than any page in these tests has.
const ALL: usize = 1 << 30;

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a valid name")
}

/// A message on `sms`.
fn message(id: u64, text: &str) -> Message {
    Message {
        id: MessageId(id),
        channel: channel("sms"),
        payload: Payload::text(text),
        created: Timestamp(1_763_800_000_000),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    }
}

fn appends(messages: Vec<Message>) -> Group {
    Group { appends: messages, ..Group::default() }
}

fn removals(ids: &[u64]) -> Group {
    Group { removals: ids.iter().copied().map(MessageId).collect(), ..Group::default() }
}

#[track_caller]
fn open(settings: &StoreSettings) -> Box<dyn Background> {
    wsmb_store::open(settings).unwrap_or_else(|error| panic!("{error}"))
}

/// The error of opening a store, which must fail.
#[track_caller]
fn refusal(settings: &StoreSettings) -> StoreError {
    match wsmb_store::open(settings) {
        Ok(_) => panic!("the store opens"),
        Err(error) => error,
    }
}

/// The ids of a channel's messages, in the store's order.
#[track_caller]
fn ids(store: &mut dyn MessageStore, name: &str) -> Vec<u64> {
    let page = store.load(&channel(name), MessageId(0), 1_000, ALL).unwrap_or_else(|error| panic!("{error}"));
    assert!(page.complete);
    page.messages.iter().map(|message| message.id.0).collect()
}

/// The texts of a channel's messages, in the store's order.
#[track_caller]
fn texts(store: &mut dyn MessageStore, name: &str) -> Vec<String> {
    let page = store.load(&channel(name), MessageId(0), 1_000, ALL).unwrap_or_else(|error| panic!("{error}"));
    page.messages.iter().map(|message| String::from_utf8_lossy(&message.payload.bytes).into_owned()).collect()
}

/// Fails unless the error contains all of `wanted`, and not the password.
#[track_caller]
fn assert_says(error: &StoreError, database: &Database, wanted: &[&str]) {
    let said = error.to_string();
    for part in wanted {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(!format!("{said} {error:?}").contains(&database.password), "a password is in: {said}");
}
