//! The naive model: everything that is known from outside about each message, and what must hold of it. No windows, pages or
//! queues; it only remembers.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::{ConnectionId, Timestamp};

/// What the outside knows of one message; its number is its text.
#[derive(Debug)]
pub(super) struct Told {
    pub channel: String,
    pub sender: ConnectionId,
    /// The sender received the channel when it sent, and has not left it since.
    pub own: bool,
    /// The sender received the channel when it sent.
    pub as_member: bool,
    pub limit: usize,
    /// Its sender gave the limit; the channel's own may change.
    pub own_limit: bool,
    pub keep: bool,
    pub delayed: bool,
    pub due: Timestamp,
    pub expires: Option<Timestamp>,
    /// An earlier run has stored it; and whether with a due time.
    pub old: Option<bool>,
    /// The sender was told `00`.
    pub accepted: bool,
    /// The sender was told it is refused.
    pub refused: bool,
    /// Somebody has confirmed it.
    pub confirmed: bool,
    pub purged: bool,
    /// The process died and had not promised anything about it.
    pub lost: bool,
    /// How many held it when it was safe: when it was confirmed, or when the broker heard that it is stored.
    pub held: Option<usize>,
    /// How often it was delivered, on whatever channel.
    pub deliveries: u32,
    /// In whose hands it is: connection and sequence.
    pub holders: BTreeSet<(ConnectionId, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub messages: BTreeMap<u64, Told>,
    /// The last message of each sender on each channel whose first delivery has been seen. What it sent as a member may have to wait
    /// for another receiver, so it has an order of its own; what is not kept waits for nobody.
    last_first: BTreeMap<(ConnectionId, String, bool, bool), u64>,
}

/// One delivered message, as the receiver sees it.
pub(super) struct Seen<'a> {
    pub number: u64,
    pub channel: &'a str,
    pub to: ConnectionId,
    pub sequence: u64,
    pub manual: bool,
    pub redelivered: bool,
}

impl Model {
    /// A delivery happens; checks everything that must hold of it.
    pub fn delivered(&mut self, now: Timestamp, seen: &Seen<'_>, dead_letter: &str) {
        let Seen { number, channel, to, sequence, manual, redelivered } = *seen;
        let told = self.messages.get_mut(&number).unwrap_or_else(|| panic!("message {number} was never sent"));
        let letter = channel == dead_letter && told.channel != dead_letter;
        assert!(channel == told.channel || letter, "message {number} of {} came on {channel}", told.channel);
        assert!(letter || to != told.sender || !told.own, "message {number} came back to its sender");
        assert!(letter || told.expires.is_none_or(|at| at > now), "message {number} was delivered after it expired");
        assert!(now >= told.due, "message {number} was delivered before it was due");
        assert!(!told.confirmed, "message {number} was delivered after it was confirmed");
        assert!(!told.purged, "message {number} was delivered after it was purged");
        assert!(!told.refused, "message {number} was delivered after it was refused");
        assert!(!told.lost, "message {number} was delivered though nothing of it was stored");
        assert_eq!(sequence > 0, told.keep, "message {number}: a sequence is for kept messages");
        if told.keep {
            let others = told.holders.iter().filter(|(holder, _)| *holder != to).count();
            assert!(told.limit == 0 || others < told.limit, "message {number} has more receivers than its limit");
            assert!(told.holders.insert((to, sequence)), "message {number} was delivered twice with one number");
        }
        if manual && !letter {
            let before = told.deliveries > told.holders.len().saturating_sub(1) as u32;
            // One that came due right before a crash, and waits until after the next restart.
            let unknown = told.delayed && matches!(channel, "drop" | "three");
            assert!(!before || redelivered || unknown, "message {number} was redelivered without a mark");
        }
        told.deliveries += 1;
        // Some of its own messages are withheld from a sender (those it sent while it received), so it may see others before them.
        if told.deliveries == 1 && !told.delayed && to != told.sender {
            let key = (told.sender, told.channel.clone(), told.as_member, told.keep);
            let last = self.last_first.entry(key).or_default();
            assert!(*last < number, "message {number} was first delivered after message {last} of the same sender");
            *last = number;
        }
    }

    /// How many messages may count against the limit of a channel, at the most.
    pub fn live(&self, channel: &str, now: Timestamp) -> u64 {
        let live = |told: &&Told| {
            let over = told.confirmed || told.purged || told.refused || told.lost;
            told.channel == channel && told.keep && !over && told.expires.is_none_or(|at| at > now)
        };
        self.messages.values().filter(live).count() as u64
    }

    /// The wall clock was behind by so much: what earlier runs have stored is reckoned anew, unless it has come due since and is a new message.
    pub fn advance(&mut self, now: Timestamp, by: u64) {
        for told in self.messages.values_mut() {
            if told.old == Some(true) && told.due <= now {
                told.old = None;
            }
            let Some(is_due_later) = told.old else { continue };
            if is_due_later {
                told.due.0 = told.due.0.saturating_sub(by);
            }
            if let Some(expires) = &mut told.expires {
                expires.0 = expires.0.saturating_sub(by);
            }
        }
    }

    /// A receiver proves that it has a delivery.
    pub fn confirmed(&mut self, connection: ConnectionId, holds: impl Fn(u64) -> bool) {
        for told in self.messages.values_mut() {
            let before = told.holders.len();
            told.holders.retain(|(holder, sequence)| *holder != connection || !holds(*sequence));
            if told.holders.len() < before {
                told.held.get_or_insert(before);
                told.confirmed = true;
            }
        }
    }

    /// A receiver lets go of deliveries without confirming them.
    pub fn released(&mut self, connection: ConnectionId, holds: impl Fn(u64) -> bool) {
        for told in self.messages.values_mut() {
            told.holders.retain(|(holder, sequence)| *holder != connection || !holds(*sequence));
        }
    }
}
