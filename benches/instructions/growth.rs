//! Scripts whose cost for one operation must hardly grow with a size n: the number of receivers, messages or channels beside it.
//!
//! Only the instructions within [`measured`] count (callgrind's `--toggle-collect`), so the preparation, which takes longer, does not.

use std::time::Duration;

use wsmb_core::broker::{AckMode, Acknowledge, Effect, Event, StoreEffect, StoreEvent};
use wsmb_core::message::{Answer, ChannelName, ConnectionId, Dialect, Kind, MessageId};
use wsmb_core::policy::ChannelPolicy;
use wsmb_protocol::topic;

use super::{Harness, SENDER, channel, json};

/// Operations of a script, unless it has one for each of n.
const OPERATIONS: u64 = 64;
/// How often the script `list` changes its list.
const CHANGES: u64 = 16;

/// Runs a script; false if there is none with this name.
pub fn run(script: &str, n: u64) -> bool {
    match script {
        "leave" => leave(n),
        "ack" => ack(n),
        "busy" => busy(n),
        "due" => due(n),
        "list" => list(n),
        _ => return false,
    }
    true
}

/// Runs the part of a script that counts. The gate names this function to callgrind.
#[inline(never)]
fn measured(work: impl FnOnce()) {
    work();
}

fn one_receiver_each() -> ChannelPolicy {
    ChannelPolicy { receivers: 1, ..ChannelPolicy::default() }
}

/// The receiver with this number, from 0 on.
fn receiver(number: u64) -> ConnectionId {
    ConnectionId(SENDER.0 + 1 + number)
}

/// A channel with n receivers, each of which works on a message, and messages that wait.
fn all_busy(n: u64) -> Harness {
    let mut harness = Harness::with(one_receiver_each(), n, AckMode::Manual, 1);
    for _ in 0..n + OPERATIONS {
        send(&mut harness);
    }
    assert_eq!(harness.broker.counters().deliveries, n);
    harness
}

fn send(harness: &mut Harness) {
    let channel = channel();
    harness.publish(&topic::publication_of(&channel, Kind::Text, json().as_bytes()), None, Dialect::Topic);
}

/// Of n receivers of a channel, some leave: those that came first.
fn leave(n: u64) {
    let mut harness = Harness::new(ChannelPolicy::default(), n);
    measured(|| {
        for number in 0..OPERATIONS {
            harness.handle(Event::Disconnected { connection: receiver(number), took_only: false, listens: false });
        }
    });
    send(&mut harness);
    assert_eq!(harness.broker.counters().deliveries, n - OPERATIONS);
}

/// Of n receivers that work, the last one acknowledges its message and gets the next one, again and again.
fn ack(n: u64) {
    let mut harness = all_busy(n);
    measured(|| {
        for sequence in 1..=OPERATIONS {
            let acknowledge = Acknowledge { connection: receiver(n - 1), sequence, answer: Answer::Ack };
            harness.handle(Event::Acknowledge(acknowledge));
        }
    });
    assert_eq!(harness.broker.counters().deliveries, n + OPERATIONS);
}

/// Messages to a channel whose n receivers all work.
fn busy(n: u64) {
    let mut harness = all_busy(n);
    measured(|| (0..OPERATIONS).for_each(|_| send(&mut harness)));
    assert_eq!(harness.broker.unsettled(), n + 2 * OPERATIONS);
}

/// n delayed messages are due at the same time; the store answers each turn.
fn due(n: u64) {
    let mut harness = Harness::with(one_receiver_each(), 1, AckMode::Automatic, wsmb_core::limits::MAX_PREFETCH);
    harness.delay = Some(Duration::from_secs(10));
    for _ in 0..n {
        send(&mut harness);
        store(&mut harness);
    }
    harness.now = harness.now.after(Duration::from_secs(11));
    measured(|| {
        while harness.broker.next_deadline().is_some_and(|at| at <= harness.now) {
            harness.handle(Event::Tick);
            store(&mut harness);
        }
    });
    assert!(harness.broker.counters().deliveries > 0);
    assert_eq!(harness.broker.unsettled(), n);
}

/// Reports everything as stored that the store was asked for.
fn store(harness: &mut Harness) {
    let ids: Vec<MessageId> = harness
        .effects
        .list
        .iter()
        .flat_map(|effect| match effect {
            Effect::Store(StoreEffect::Append(messages)) => messages.iter().map(|message| message.id).collect(),
            Effect::Store(StoreEffect::Replace { message, .. }) => vec![message.id],
            _ => Vec::new(),
        })
        .collect();
    harness.handle(Event::Store(StoreEvent::Stored(ids)));
}

/// A receiver of n channels replaces its list by n other channels, back and forth.
fn list(n: u64) {
    let lists: [Vec<ChannelName>; 2] = ["one", "other"]
        .map(|name| (0..n).map(|number| ChannelName::parse(&format!("{name}-{number}")).expect("a name")).collect());
    let mut harness = Harness::new(ChannelPolicy::default(), 0);
    measured(|| {
        for change in 0..CHANGES {
            let channels = lists[change as usize % 2].clone();
            harness.subscribe(receiver(0), channels, AckMode::Automatic, 64);
        }
    });
    assert_eq!(harness.broker.channels_of(receiver(0)).count() as u64, n);
}
