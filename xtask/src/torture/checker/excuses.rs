//! Permitted reasons for a message that is delivered again, late, or not at all. All of them are in this module, so that a reader can judge them
//! together.

use super::history::{Connection, History, Message, Receipt};
use crate::torture::plan::ACK_TIMEOUT;

/// Microseconds of a second.
pub const SECOND: u64 = 1_000_000;
/// The largest error of the order of two clients' events, caused by scheduling.
const SLACK: u64 = SECOND;
/// The longest time for which a slow reader leaves messages, or the end of its connection, unread.
const UNREAD: u64 = 12 * SECOND;
/// After this time the broker has read a confirmation, and its effect is on the disk.
const CONFIRMED: u64 = 3 * SECOND;
/// After this time the broker has read a sent message, and the message is stored or confirmed.
const SAFE: u64 = 4 * SECOND;

impl History {
    /// Returns how long the broker was frozen in a period.
    fn frozen(&self, from: u64, to: u64) -> u64 {
        let spans = self.faults.frozen.iter().filter(|span| span.overlaps(from, to));
        spans.map(|span| span.to.min(to).saturating_sub(span.from.max(from))).sum()
    }

    fn killed(&self, from: u64, to: u64) -> bool {
        self.faults.kills.iter().any(|kill| (from..=to).contains(kill))
    }

    fn ended(&self, from: u64, to: u64) -> bool {
        self.killed(from, to) || self.faults.terms.iter().any(|span| span.overlaps(from, to))
    }

    /// Whether a proxy of the route had a fault in a period.
    fn disturbed(&self, route: &str, from: u64, to: u64) -> bool {
        // The scripts' route "proxied" is nginx.
        let name = if route == "proxied" { "nginx" } else { route };
        self.faults.proxies.iter().any(|(proxy, span)| proxy == name && span.overlaps(from, to))
    }

    /// Whether the store was unavailable in a period.
    fn store_unavailable(&self, from: u64, to: u64) -> bool {
        self.faults.store_outages.iter().any(|span| span.overlaps(from, to))
    }

    /// Whether the broker may have taken the message back from this receiver before `until`, so that it may deliver the message to another receiver.
    pub fn given_back(&self, receipt: &Receipt, until: u64) -> bool {
        if receipt.returned.is_some_and(|returned| returned <= until + SLACK) {
            return true;
        }
        let Some(connection) = self.connections.get(&receipt.conn) else { return true };
        match receipt.confirmed.filter(|confirmed| *confirmed <= until) {
            Some(confirmed) => self.confirmation_lost(connection, confirmed, until),
            None => self.unconfirmed_given_back(receipt, connection, until),
        }
    }

    /// Whether a message that a slow reader noted after `other` may have been sent before `other` and taken back since.
    pub fn given_back_before(&self, message: &Message, receipt: &Receipt, other: &Receipt) -> bool {
        let Some(connection) = self.connections.get(&receipt.conn).filter(|connection| connection.reads_late()) else {
            return false;
        };
        let sent = message.sends.first().map_or(0, |send| send.t);
        let earliest = Receipt { t: connection.opened.max(sent), confirmed: None, ..receipt.clone() };
        earliest.t <= other.t && self.unconfirmed_given_back(&earliest, connection, other.t)
    }

    fn unconfirmed_given_back(&self, receipt: &Receipt, connection: &Connection, until: u64) -> bool {
        // A slow reader may note late that the broker has ended its connection.
        let slack = if connection.reads_slowly() { UNREAD } else { SLACK };
        let ended = connection.ended.as_ref().is_some_and(|(t, how)| *t <= until + slack || how == "lost");
        let replaced = self.connections.iter().any(|((client, number), newer)| {
            *client == receipt.conn.0 && *number > receipt.conn.1 && newer.opened <= until + SLACK
        });
        let overdue = receipt.delivery.is_some() && until.saturating_sub(receipt.t) + SECOND / 2 >= ACK_TIMEOUT * 1_000;
        let paused = connection.pauses.iter().any(|(from, to)| *from <= until && *to >= receipt.t);
        let confirmed_late = receipt.confirmed.is_some_and(|confirmed| confirmed <= until + SLACK)
            && self.ended(receipt.t, until + SLACK);
        // A slow reader may note late a message that the proxy passed on before its fault.
        let way = if connection.reads_slowly() { connection.opened } else { receipt.t.saturating_sub(SLACK) };
        ended
            || replaced
            || overdue
            || paused
            || confirmed_late
            // A connection ends with the broker, even if its slow reader notes a message later.
            || self.ended(connection.opened, until)
            || self.disturbed(&connection.route, way, until)
    }

    /// Whether a confirmation may not have reached the broker, or may have been lost when the broker ended.
    fn confirmation_lost(&self, connection: &Connection, confirmed: u64, until: u64) -> bool {
        let reach = confirmed + CONFIRMED + self.frozen(confirmed, confirmed + CONFIRMED + 10 * SECOND);
        let died = self.killed(confirmed.saturating_sub(SLACK / 10), reach.min(until));
        // While the store is unavailable, confirmations wait in memory.
        let outage = self.faults.kills.iter().any(|kill| {
            (confirmed..=until).contains(kill) && self.store_unavailable(confirmed.saturating_sub(SLACK), *kill)
        });
        // A confirmation that is written while the broker stops may be too late.
        let stopping = self.faults.terms.iter().any(|span| span.overlaps(confirmed, confirmed + SLACK / 20));
        let stopped = |t: u64| self.faults.terms.iter().any(|span| (span.from..=span.to + SLACK).contains(&t));
        let cut = connection.ended.as_ref().is_some_and(|(t, how)| {
            let soon = *t >= confirmed && *t <= confirmed + CONFIRMED;
            let orderly = matches!(how.as_str(), "fin" | "close") || how == "lost" && stopped(*t);
            soon && !(connection.is_direct() && orderly)
        });
        let disturbed = self.disturbed(&connection.route, confirmed.saturating_sub(SLACK), confirmed + CONFIRMED);
        died || outage || stopping || cut || disturbed
    }

    /// Whether a rejection may not have reached the broker, or may have been lost with it, or whether a slow reader may have noted the later receipt
    /// at `until` with a delay.
    pub fn rejection_lost(&self, receipt: &Receipt, until: u64) -> bool {
        let Some(connection) = self.connections.get(&receipt.conn) else { return true };
        let rejected = receipt.returned.unwrap_or(until);
        connection.reads_late() || until <= rejected + SLACK || self.confirmation_lost(connection, rejected, until)
    }

    /// Whether the broker was restarted with another wall clock. The broker cannot distinguish a stepped clock from a long downtime.
    fn restarted_with_other_clock(&self, from: u64, to: u64) -> bool {
        let starts = || self.faults.starts.iter().filter(|start| (from..=to).contains(*start));
        self.faults.clocks.iter().any(|(step, _)| starts().any(|start| step.abs_diff(*start) <= 3 * SECOND))
    }

    /// Whether the broker may have forgotten the message's id between two attempts to send it.
    pub fn id_forgotten(&self, message: &Message) -> bool {
        let (Some(first), Some(last)) = (message.sends.first(), message.sends.last()) else { return false };
        let again = message.has_id && message.sends.len() > 1;
        again && (self.killed(first.t, last.t) || self.restarted_with_other_clock(first.t, last.t))
    }

    /// Whether the broker must have accepted a message whose sender did not wait for an answer. Only for direct connections: a proxy may discard the
    /// remaining bytes of a connection that is reset.
    pub fn must_be_accepted(&self, message: &Message) -> bool {
        let [send] = &message.sends[..] else { return false };
        let Some(gone) = self.gone.get(&send.conn) else { return false };
        let in_time = gone.saturating_sub(send.t) < 2 * SECOND;
        let reach = gone + SAFE + self.frozen(send.t, gone + SAFE + 10 * SECOND);
        in_time
            && send.route == "direct"
            // While a killed process ends, the kernel still acknowledges bytes that no one reads.
            && !self.killed(send.t.saturating_sub(SLACK), reach)
            && !self.faults.terms.iter().any(|span| span.overlaps(send.t, gone + SLACK / 20))
            && !self.store_unavailable(send.t.saturating_sub(5 * SECOND), reach + 2 * SECOND)
    }

    /// Returns the shorter `ttl` of the message and its channel, in milliseconds; 0 = unlimited.
    pub fn ttl(&self, message: &Message) -> u64 {
        let of_channel = self.channels.get(&message.channel).map_or(0, |channel| channel.ttl);
        match (message.ttl, of_channel) {
            (0, ttl) | (ttl, 0) => ttl,
            (own, channel) => own.min(channel),
        }
    }

    /// Whether the message may have expired before the end of the run.
    pub fn may_have_expired(&self, message: &Message) -> bool {
        let ttl = self.ttl(message) * 1_000;
        let sent = message.sends.first().map_or(0, |send| send.t);
        // A forward step of the clock increases the age of stored messages.
        let forward: i64 = self.faults.clocks.iter().map(|(_, offset)| offset.abs()).max().unwrap_or(0);
        let is_dead_letter = self.channels.get(&message.channel).is_some_and(|channel| channel.dead_letter_expired);
        ttl > 0 && !is_dead_letter && sent + ttl < self.end + 2 * forward.unsigned_abs() * SECOND
    }

    /// Returns the time after which the message must not be delivered.
    pub fn deadline(&self, message: &Message) -> Option<u64> {
        let ttl = self.ttl(message) * 1_000;
        let sent = message.sends.last()?.t;
        // After a step of the clock and a restart, the whole `ttl` may start anew.
        let stepped = self.faults.clocks.first().map(|(t, _)| *t);
        let restarted = self.faults.starts.iter().rev().find(|start| stepped.is_some_and(|stepped| **start > stepped));
        let from = restarted.map_or(sent, |restarted| sent.max(*restarted));
        (ttl > 0).then_some(from + ttl + message.delay * 1_000)
    }

    /// Whether a message of the channel may have been returned in a period. A redelivered message is out of order.
    pub fn anything_given_back(&self, channel: &str, from: u64, to: u64) -> bool {
        let vanished = self.connections.values().any(|connection| {
            let long_ago = if connection.is_direct() && connection.pauses.is_empty() { SLACK } else { UNREAD };
            connection.channel == channel
                && (connection
                    .ended
                    .as_ref()
                    .is_some_and(|(t, _)| (from.saturating_sub(long_ago)..=to + SLACK).contains(t))
                    || connection.pauses.iter().any(|(begin, end)| *begin <= to && *end >= from))
        });
        let around = from.saturating_sub(SLACK)..=to + SLACK;
        let published = self.publishers.iter().any(|(name, t)| name == channel && around.contains(t));
        let returned = self.messages.values().flat_map(|message| &message.receipts).any(|receipt| {
            receipt.channel == channel
                && receipt.returned.is_some_and(|t| (from.saturating_sub(SLACK)..=to).contains(&t))
        });
        vanished || published || returned
    }
}
