//! The rules: each looks for one kind of broken promise.

use std::collections::BTreeMap;

use super::Violation;
use super::excuses::SECOND;
use super::history::{History, Message, Receipt};

/// How much later than its deadline a receiver may note a message: scheduling, and the way through the network.
const LATE: u64 = 2 * SECOND;

fn violation(rule: &'static str, message: &str, text: String) -> Violation {
    Violation { rule, message: Some(message.to_owned()), text }
}

fn place(receipt: &Receipt) -> String {
    format!("{}/{}", receipt.place.0, receipt.place.1)
}

/// What clients and the nemesis saw that must never be.
pub fn wrong(history: &History) -> Vec<Violation> {
    let wrongs = history.wrongs.iter();
    wrongs
        .map(|(client, event)| Violation {
            rule: "wrong",
            message: event.m.clone(),
            text: format!("{client}: {}{}", event.what.as_deref().unwrap_or_default(), of(event.m.as_deref())),
        })
        .collect()
}

fn of(message: Option<&str>) -> String {
    message.map(|message| format!(" ({message})")).unwrap_or_default()
}

/// A message arrives as it was sent, where it was sent to, and only if it was sent.
pub fn damaged(history: &History) -> Vec<Violation> {
    let strange = history.strange.iter();
    let mut found: Vec<Violation> = strange
        .map(|(key, receipt)| {
            violation("damaged", key, format!("{key} was received by {} and sent by nobody", place(receipt)))
        })
        .collect();
    for (key, message) in &history.messages {
        let dead = history.channels.get(&message.channel).map_or("", |channel| channel.dead_letter.as_str());
        for receipt in &message.receipts {
            if receipt.hash.is_some() && message.hash.is_some() && receipt.hash != message.hash {
                found.push(violation(
                    "damaged",
                    key,
                    format!("{key} was not received by {} as it was sent", place(receipt)),
                ));
            }
            if receipt.channel != message.channel && receipt.channel != dead {
                let text = format!("{key} was sent to {} and received on {}", message.channel, receipt.channel);
                found.push(violation("damaged", key, text));
            }
        }
    }
    found
}

fn accepted(history: &History, message: &Message) -> bool {
    message.answers.iter().any(|answer| answer.code == "00") || history.implied(message)
}

/// PHP's one-shot reader takes one message and leaves: the orderly end of a legacy connection, without a proxy, confirms its only message.
fn left_in_order(history: &History, receipt: &Receipt) -> bool {
    history.connections.get(&receipt.place).is_some_and(|connection| {
        // The system of a process that is killed with nothing unread sends FIN.
        let orderly =
            connection.ended.as_ref().is_some_and(|(_, how)| ["fin", "close", "killed"].contains(&how.as_str()));
        connection.is_legacy() && connection.is_direct() && connection.receipts == 1 && orderly
    })
}

/// What was accepted on a kept channel is confirmed by a receiver, has expired, or waits.
pub fn lost(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, message) in &history.messages {
        let kept = history.channels.get(&message.channel).filter(|channel| channel.keep);
        let Some(channel) = kept.filter(|_| accepted(history, message)) else { continue };
        let confirmed = |receipt: &Receipt| receipt.confirmed.is_some() || left_in_order(history, receipt);
        let waits = [&channel.name, &channel.dead_letter]
            .iter()
            .any(|name| history.waiting.contains(&((*name).clone(), key.clone())));
        if message.receipts.iter().any(confirmed) || waits || history.may_have_expired(message) {
            continue;
        }
        let text = match message.receipts.last() {
            None => format!("{key} was accepted on {} and never delivered", message.channel),
            Some(last) => format!(
                "{key} was accepted on {} and delivered to {}, who did not confirm it; it never came again",
                message.channel,
                place(last)
            ),
        };
        found.push(violation("lost", key, text));
    }
    found
}

/// Groups of receipts that count together: those on one channel, or, where all receivers get everything, those of one client.
fn groups<'a>(history: &History, message: &'a Message) -> Vec<(u64, Vec<&'a Receipt>)> {
    let mut groups: BTreeMap<(&str, &str), (u64, Vec<&Receipt>)> = BTreeMap::new();
    for receipt in &message.receipts {
        let Some(channel) = history.channels.get(&receipt.channel).filter(|channel| channel.keep) else { continue };
        let key = (receipt.channel.as_str(), if channel.limit == 0 { receipt.place.0.as_str() } else { "" });
        // One more receiver may have what another one does not confirm.
        let limit = channel.limit.max(1) + u64::from(channel.confirm_within > 0);
        groups.entry(key).or_insert_with(|| (limit, Vec::new())).1.push(receipt);
    }
    groups.into_values().collect()
}

/// A message is at no more receivers than the limit says, unless one gave it back, or nobody can know whether it has it.
pub fn doubled(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, message) in &history.messages {
        if history.id_forgotten(message) {
            continue;
        }
        for (limit, receipts) in groups(history, message) {
            for (index, receipt) in receipts.iter().enumerate() {
                let holds = |earlier: &&&Receipt| {
                    !history.given_back(earlier, receipt.t) && !history.given_back_before(message, receipt, earlier)
                };
                let holders: Vec<&&Receipt> = receipts[..index].iter().filter(holds).collect();
                if holders.len() as u64 >= limit {
                    let names: Vec<String> = holders.iter().map(|holder| place(holder)).collect();
                    let text = format!(
                        "{key} came to {} on {} (limit {limit}), although {} had it",
                        place(receipt),
                        receipt.channel,
                        names.join(" and ")
                    );
                    found.push(violation("doubled", key, text));
                    break;
                }
            }
        }
    }
    found
}

/// Whoever acknowledges by hand never sees a message a second time without a mark: of all deliveries one at most has none, the first. (Which one
/// was the first does not matter: a receiver that was frozen notes it late.)
pub fn unmarked(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, message) in &history.messages {
        if history.id_forgotten(message) {
            continue;
        }
        for (limit, receipts) in groups(history, message) {
            let plain = |receipt: &&&Receipt| receipt.delivery.is_some() && !receipt.marked;
            let plain: Vec<&&Receipt> = receipts.iter().filter(plain).collect();
            if limit == 1
                && let [first, second, ..] = plain[..]
            {
                let text = format!("{key} came to {} and to {} without a mark", place(first), place(second));
                found.push(violation("unmarked", key, text));
            }
        }
    }
    found
}

/// First in, first out for each sender and channel, redeliveries excepted.
pub fn disordered(history: &History) -> Vec<Violation> {
    let mut by_connection: BTreeMap<_, Vec<(u64, &str, &Message)>> = BTreeMap::new();
    for (key, message) in &history.messages {
        for (index, receipt) in message.receipts.iter().enumerate() {
            // A message that was sent again, or is late on purpose, has no place; one that comes again has lost it.
            if index == 0 && message.sends.len() == 1 && message.delay == 0 && receipt.channel == message.channel {
                let group = (&receipt.place, &message.sends[0].place);
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
                        format!("{key} came to {}/{} behind {other}, which was sent later", receiver.0, receiver.1);
                    found.push(violation("disordered", key, text));
                }
                last = Some((number, other));
            } else {
                last = Some((message.number, key));
            }
        }
    }
    found
}

/// An expired message is never delivered.
pub fn late(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, message) in &history.messages {
        let Some(deadline) = history.deadline(message) else { continue };
        for receipt in &message.receipts {
            let connection = history.connections.get(&receipt.place);
            let prompt = connection.is_some_and(|connection| !connection.reads_late());
            if prompt && receipt.t > deadline + LATE && receipt.channel == message.channel {
                let late = (receipt.t - deadline) as f64 / SECOND as f64;
                found.push(violation(
                    "late",
                    key,
                    format!("{key} came to {} {late:.1} s after it had expired", place(receipt)),
                ));
            }
        }
    }
    found
}

/// What was refused for good is not delivered later. Where expired messages become dead letters, one that was answered with 08 may be among them.
pub fn refused(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, message) in &history.messages {
        let Some(answer) = message.answers.last().filter(|answer| !["00", "05"].contains(&answer.code.as_str())) else {
            continue;
        };
        let again = message.sends.last().is_some_and(|send| send.t > answer.t);
        let letters = history.channels.get(&message.channel).is_some_and(|channel| channel.dead_letter_expired);
        let is_letter = |receipt: &Receipt| letters && answer.code == "08" && receipt.channel != message.channel;
        let mut later = message.receipts.iter().filter(|receipt| !again && receipt.t > answer.t + SECOND);
        if let Some(receipt) = later.find(|receipt| !is_letter(receipt)) {
            let text = format!("{key} was answered with {} and came to {} later", answer.code, place(receipt));
            found.push(violation("refused", key, text));
        }
    }
    found
}

/// What a receiver rejected is not tried again: it is a dead letter.
pub fn rejected(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, message) in &history.messages {
        for (index, receipt) in message.receipts.iter().enumerate().filter(|(_, receipt)| receipt.rejected) {
            let again = message.receipts[index + 1..].iter().find(|later| later.channel == receipt.channel);
            if let Some(again) = again.filter(|again| !history.rejection_lost(receipt, again.t)) {
                let text = format!("{key} came to {} again, although {} had rejected it", place(again), place(receipt));
                found.push(violation("rejected", key, text));
            }
        }
    }
    found
}

/// What is not kept comes at most once to each, and to no more than the limit.
pub fn more_than_once(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for (key, message) in &history.messages {
        let Some(channel) = history.channels.get(&message.channel).filter(|channel| !channel.keep) else { continue };
        let mut clients: BTreeMap<&str, u64> = BTreeMap::new();
        for receipt in &message.receipts {
            *clients.entry(&receipt.place.0).or_default() += 1;
        }
        let twice = clients.values().any(|count| *count > 1);
        let many = channel.limit > 0 && message.receipts.len() as u64 > channel.limit;
        if (twice || many) && message.sends.len() == 1 {
            let text = format!("{key} on {}, which keeps nothing, came {} times", channel.name, message.receipts.len());
            found.push(violation("more than once", key, text));
        }
    }
    found
}

/// Patient receivers take everything: nothing waits for ever.
pub fn left(history: &History) -> Vec<Violation> {
    let left = history.waiting.iter();
    left.map(|(channel, key)| {
        violation("left", key, format!("{key} still waits on {channel} after patient receivers have taken everything"))
    })
    .collect()
}
