//! The rules of the checker, one for each promise.

use std::collections::BTreeMap;

use super::Violation;
use super::excuses::SECOND;
use super::history::{History, Message, Receipt};

/// The largest delay between the broker's deadline and a receiver's note, caused by scheduling and the network.
const LATE: u64 = 2 * SECOND;

/// A rule about single messages. Gets a message and its key, and appends a description of each violation.
type MessageRule = fn(&History, &str, &Message, &mut Vec<String>);

/// The rules about single messages, by name.
pub const OF_A_MESSAGE: [(&str, MessageRule); 8] = [
    ("damaged", damaged),
    ("lost", lost),
    ("doubled", doubled),
    ("unmarked", unmarked),
    ("late", late),
    ("refused", refused),
    ("rejected", rejected),
    ("more than once", more_than_once),
];

fn conn(receipt: &Receipt) -> String {
    format!("{}/{}", receipt.conn.0, receipt.conn.1)
}

/// Clients and the nemesis have noted no event that must not happen.
pub fn wrong(history: &History) -> Vec<Violation> {
    let wrongs = history.wrongs.iter().map(|(client, event)| {
        let message = event.m.as_ref().map(|message| format!(" ({message})")).unwrap_or_default();
        let text = format!("{client}: {}{message}", event.what.as_deref().unwrap_or_default());
        Violation { rule: "wrong", message: event.m.clone(), text }
    });
    wrongs.collect()
}

/// A received message was sent.
pub fn unknown(history: &History) -> Vec<Violation> {
    let text = |key: &str, receipt| format!("{key} was received by {} and sent by nobody", conn(receipt));
    history.unknown.iter().map(|(key, receipt)| Violation::new("damaged", key, text(key, receipt))).collect()
}

/// A received message has the same text as the sent message, and is on the channel to which it was sent.
fn damaged(history: &History, key: &str, message: &Message, found: &mut Vec<String>) {
    let dead = history.channels.get(&message.channel).map_or("", |channel| channel.dead_letter.as_str());
    for receipt in &message.receipts {
        if receipt.hash.is_some() && message.hash.is_some() && receipt.hash != message.hash {
            found.push(format!("{key} was not received by {} as it was sent", conn(receipt)));
        }
        if receipt.channel != message.channel && receipt.channel != dead {
            found.push(format!("{key} was sent to {} and received on {}", message.channel, receipt.channel));
        }
    }
}

fn accepted(history: &History, message: &Message) -> bool {
    message.answers.iter().any(|answer| answer.code == "00") || history.must_be_accepted(message)
}

/// Whether the orderly end of a direct legacy connection confirmed its only message, as with PHP scripts that read one message and exit.
fn left_in_order(history: &History, receipt: &Receipt) -> bool {
    history.connections.get(&receipt.conn).is_some_and(|connection| {
        // If a process without unread bytes is killed, the kernel sends FIN.
        let orderly =
            connection.ended.as_ref().is_some_and(|(_, how)| ["fin", "close", "killed"].contains(&how.as_str()));
        connection.is_legacy() && connection.is_direct() && connection.receipts == 1 && orderly
    })
}

/// A message that was accepted on a kept channel is confirmed by a receiver, has expired, or waits.
fn lost(history: &History, key: &str, message: &Message, found: &mut Vec<String>) {
    let kept = history.channels.get(&message.channel).filter(|channel| channel.keep);
    let Some(channel) = kept.filter(|_| accepted(history, message)) else { return };
    let confirmed = |receipt: &Receipt| receipt.confirmed.is_some() || left_in_order(history, receipt);
    let waits = [&channel.name, &channel.dead_letter]
        .iter()
        .any(|name| history.waiting.contains(&((*name).clone(), key.to_owned())));
    if message.receipts.iter().any(confirmed) || waits || history.may_have_expired(message) {
        return;
    }
    found.push(match message.receipts.last() {
        None => format!("{key} was accepted on {} and never delivered", message.channel),
        Some(last) => format!(
            "{key} was accepted on {} and delivered to {}, which did not confirm it; it was not delivered again",
            message.channel,
            conn(last)
        ),
    });
}

/// Groups the receipts to which one receiver limit applies, and returns the limit of each group. A group has the receipts on one channel, or, on a
/// channel without a limit, the receipts of one client. There are no groups if the broker may have forgotten the message's id.
fn groups<'a>(history: &History, message: &'a Message) -> Vec<(u64, Vec<&'a Receipt>)> {
    let mut groups: BTreeMap<(&str, &str), (u64, Vec<&Receipt>)> = BTreeMap::new();
    if history.id_forgotten(message) {
        return Vec::new();
    }
    for receipt in &message.receipts {
        let Some(channel) = history.channels.get(&receipt.channel).filter(|channel| channel.keep) else { continue };
        let key = (receipt.channel.as_str(), if channel.limit == 0 { receipt.conn.0.as_str() } else { "" });
        // With `confirm_within`, one more receiver gets an unconfirmed message.
        let limit = channel.limit.max(1) + u64::from(channel.confirm_within > 0);
        groups.entry(key).or_insert_with(|| (limit, Vec::new())).1.push(receipt);
    }
    groups.into_values().collect()
}

/// No more receivers than the limit have a message, not counting receivers that may have returned it or lost its confirmation.
fn doubled(history: &History, key: &str, message: &Message, found: &mut Vec<String>) {
    for (limit, receipts) in groups(history, message) {
        for (index, receipt) in receipts.iter().enumerate() {
            let holds = |earlier: &&&Receipt| {
                !history.given_back(earlier, receipt.t) && !history.given_back_before(message, receipt, earlier)
            };
            let holders: Vec<String> = receipts[..index].iter().filter(holds).map(|holder| conn(holder)).collect();
            if holders.len() as u64 >= limit {
                found.push(format!(
                    "{key} was delivered to {} on {} (limit {limit}), although {} had it",
                    conn(receipt),
                    receipt.channel,
                    holders.join(" and ")
                ));
                break;
            }
        }
    }
}

/// At most one manual delivery of a message, the first, has no mark. The rule does not check which delivery was the first, because a frozen receiver
/// may note it late.
fn unmarked(history: &History, key: &str, message: &Message, found: &mut Vec<String>) {
    for (limit, mut receipts) in groups(history, message) {
        receipts.retain(|receipt| receipt.delivery.is_some() && !receipt.marked);
        if let (1, [first, second, ..]) = (limit, &receipts[..]) {
            found.push(format!("{key} was delivered to {} and to {} without a mark", conn(first), conn(second)));
        }
    }
}

/// The messages of one sender on one channel are delivered in the order in which they were sent, except redeliveries.
pub fn disordered(history: &History) -> Vec<Violation> {
    let mut by_connection: BTreeMap<_, Vec<(u64, &str, &Message)>> = BTreeMap::new();
    for (key, message) in &history.messages {
        for (index, receipt) in message.receipts.iter().enumerate() {
            // A message that was sent again, delayed or redelivered has no defined position.
            if index == 0 && message.sends.len() == 1 && message.delay == 0 && receipt.channel == message.channel {
                let group = (&receipt.conn, &message.sends[0].conn);
                by_connection.entry(group).or_default().push((receipt.t, key, message));
            }
        }
    }
    let mut found = Vec::new();
    for ((receiver, _), mut list) in by_connection {
        list.sort_by_key(|(t, ..)| *t);
        let mut last: Option<(u64, &str)> = None;
        for (t, key, message) in list {
            if let Some((number, other)) = last.filter(|(number, _)| message.number < *number) {
                let from =
                    message.sends[0].t.max(history.connections.get(receiver).map_or(0, |connection| connection.opened));
                if !history.anything_given_back(&message.channel, from, t) {
                    let text =
                        format!("{key} came to {}/{} after {other}, which was sent later", receiver.0, receiver.1);
                    found.push(Violation::new("disordered", key, text));
                }
                last = Some((number, other));
            } else {
                last = Some((message.number, key));
            }
        }
    }
    found
}

/// An expired message is not delivered.
fn late(history: &History, key: &str, message: &Message, found: &mut Vec<String>) {
    let Some(deadline) = history.deadline(message) else { return };
    for receipt in &message.receipts {
        let connection = history.connections.get(&receipt.conn);
        let prompt = connection.is_some_and(|connection| !connection.reads_late());
        if prompt && receipt.t > deadline + LATE && receipt.channel == message.channel {
            let late = (receipt.t - deadline) as f64 / SECOND as f64;
            found.push(format!("{key} was delivered to {} {late:.1} s after its expiry", conn(receipt)));
        }
    }
}

/// A message that was refused finally is not delivered later. Exception: a message that was answered with 08 (expired) may become a dead letter.
fn refused(history: &History, key: &str, message: &Message, found: &mut Vec<String>) {
    let answer = message.answers.last().filter(|answer| !["00", "05"].contains(&answer.code.as_str()));
    let Some(answer) = answer else { return };
    let again = message.sends.last().is_some_and(|send| send.t > answer.t);
    let keeps = history.channels.get(&message.channel).is_some_and(|channel| channel.dead_letter_expired);
    let is_dead_letter = |receipt: &Receipt| keeps && answer.code == "08" && receipt.channel != message.channel;
    let mut later = message.receipts.iter().filter(|receipt| !again && receipt.t > answer.t + SECOND);
    if let Some(receipt) = later.find(|receipt| !is_dead_letter(receipt)) {
        found.push(format!("{key} was answered with {} and delivered to {} later", answer.code, conn(receipt)));
    }
}

/// A rejected message is not delivered again on the same channel.
fn rejected(history: &History, key: &str, message: &Message, found: &mut Vec<String>) {
    for (index, receipt) in message.receipts.iter().enumerate().filter(|(_, receipt)| receipt.rejected) {
        let again = message.receipts[index + 1..].iter().find(|later| later.channel == receipt.channel);
        if let Some(again) = again.filter(|again| !history.rejection_lost(receipt, again.t)) {
            found.push(format!("{key} was delivered to {} after {} had rejected it", conn(again), conn(receipt)));
        }
    }
}

/// A message of a channel without `keep` is delivered at most once to each client, and to no more clients than the limit.
fn more_than_once(history: &History, key: &str, message: &Message, found: &mut Vec<String>) {
    let Some(channel) = history.channels.get(&message.channel).filter(|channel| !channel.keep) else { return };
    let mut clients: BTreeMap<&str, u64> = BTreeMap::new();
    for receipt in &message.receipts {
        *clients.entry(&receipt.conn.0).or_default() += 1;
    }
    let twice = clients.values().any(|count| *count > 1);
    let many = channel.limit > 0 && message.receipts.len() as u64 > channel.limit;
    if (twice || many) && message.sends.len() == 1 {
        found.push(format!("{key} on {}, which keeps nothing, came {} times", channel.name, message.receipts.len()));
    }
}

/// No message waits after the drain receivers have finished.
pub fn left(history: &History) -> Vec<Violation> {
    let text = |channel, key: &str| format!("{key} still waits on {channel} after the drain receivers have finished");
    history.waiting.iter().map(|(channel, key)| Violation::new("left", key, text(channel, key))).collect()
}
