//! What may explain that a message comes again, or late, or not at all. Every excuse stands here, so that their sum can be judged.

use super::history::{Connection, History, Message, Receipt};
use crate::torture::plan::ACK_TIMEOUT;

/// Microseconds of a second.
pub const SECOND: u64 = 1_000_000;
/// How much the notes of two clients may differ about what came first: scheduling.
const SLACK: u64 = SECOND;
/// As long may a slow reader leave unread what came, its end too.
const UNREAD: u64 = 12 * SECOND;
/// A confirmation that is so old has been read, and what follows from it is on the disk.
const CONFIRMED: u64 = 3 * SECOND;
/// A message that was handed over so long ago has been read and stored or confirmed.
const SAFE: u64 = 4 * SECOND;

impl History {
    /// How long the broker stood still in a stretch of time.
    fn frozen(&self, from: u64, to: u64) -> u64 {
        let spans = self.deeds.frozen.iter().filter(|span| span.meets(from, to));
        spans.map(|span| span.to.min(to).saturating_sub(span.from.max(from))).sum()
    }

    fn killed(&self, from: u64, to: u64) -> bool {
        self.deeds.kills.iter().any(|kill| (from..=to).contains(kill))
    }

    fn ended(&self, from: u64, to: u64) -> bool {
        self.killed(from, to) || self.deeds.terms.iter().any(|span| span.meets(from, to))
    }

    /// The way of a connection was disturbed.
    fn disturbed(&self, route: &str, from: u64, to: u64) -> bool {
        // What the log of a script calls "proxied" goes through nginx.
        let name = if route == "proxied" { "nginx" } else { route };
        self.deeds.proxies.iter().any(|(proxy, span)| proxy == name && span.meets(from, to))
    }

    /// The store could not be reached.
    fn storeless(&self, from: u64, to: u64) -> bool {
        self.deeds.storeless.iter().any(|span| span.meets(from, to))
    }

    /// Whether a receipt may have been taken back by `until`, so that the message may go to somebody else.
    pub fn given_back(&self, receipt: &Receipt, until: u64) -> bool {
        if receipt.returned.is_some_and(|returned| returned <= until + SLACK) {
            return true;
        }
        let Some(connection) = self.connections.get(&receipt.place) else { return true };
        match receipt.confirmed.filter(|confirmed| *confirmed <= until) {
            Some(confirmed) => self.confirmation_lost(connection, confirmed, until),
            None => self.unconfirmed_given_back(receipt, connection, until),
        }
    }

    /// Whether a receipt that was noted after `other` may have been delivered before it, and been taken back since: its reader was slow.
    pub fn given_back_before(&self, message: &Message, receipt: &Receipt, other: &Receipt) -> bool {
        let Some(connection) = self.connections.get(&receipt.place).filter(|connection| connection.reads_late()) else {
            return false;
        };
        let sent = message.sends.first().map_or(0, |send| send.t);
        let earliest = Receipt { t: connection.opened.max(sent), confirmed: None, ..receipt.clone() };
        earliest.t <= other.t && self.unconfirmed_given_back(&earliest, connection, other.t)
    }

    fn unconfirmed_given_back(&self, receipt: &Receipt, connection: &Connection, until: u64) -> bool {
        // A slow reader notes long after that the broker has ended it.
        let slack = if connection.reads_slowly() { UNREAD } else { SLACK };
        let ended = connection.ended.as_ref().is_some_and(|(t, how)| *t <= until + slack || how == "lost");
        let replaced = self.connections.iter().any(|((client, number), newer)| {
            *client == receipt.place.0 && *number > receipt.place.1 && newer.opened <= until + SLACK
        });
        let overdue = receipt.delivery.is_some() && until.saturating_sub(receipt.t) + SECOND / 2 >= ACK_TIMEOUT * 1_000;
        let paused = connection.pauses.iter().any(|(from, to)| *from <= until && *to >= receipt.t);
        let confirmed_late = receipt.confirmed.is_some_and(|confirmed| confirmed <= until + SLACK)
            && self.ended(receipt.t, until + SLACK);
        // What a proxy passed on before it was disturbed, a slow reader notes long after.
        let way = if connection.reads_slowly() { connection.opened } else { receipt.t.saturating_sub(SLACK) };
        ended
            || replaced
            || overdue
            || paused
            || confirmed_late
            // A connection does not outlive the broker, even if its reader notes long after what it got before.
            || self.ended(connection.opened, until)
            || self.disturbed(&connection.route, way, until)
    }

    /// Whether what confirmed a receipt may never have reached the broker, or may have been forgotten with it.
    fn confirmation_lost(&self, connection: &Connection, confirmed: u64, until: u64) -> bool {
        let reach = confirmed + CONFIRMED + self.frozen(confirmed, confirmed + CONFIRMED + 10 * SECOND);
        let died = self.killed(confirmed.saturating_sub(SLACK / 10), reach.min(until));
        // While the store is away, confirmations wait in memory.
        let storeless =
            self.deeds.kills.iter().any(|kill| {
                (confirmed..=until).contains(kill) && self.storeless(confirmed.saturating_sub(SLACK), *kill)
            });
        // One that is written while the broker stops may come too late.
        let stopping = self.deeds.terms.iter().any(|span| span.meets(confirmed, confirmed + SLACK / 20));
        let stopped = |t: u64| self.deeds.terms.iter().any(|span| (span.from..=span.to + SLACK).contains(&t));
        let cut = connection.ended.as_ref().is_some_and(|(t, how)| {
            let soon = *t >= confirmed && *t <= confirmed + CONFIRMED;
            let orderly = matches!(how.as_str(), "fin" | "close") || how == "lost" && stopped(*t);
            soon && !(connection.is_direct() && orderly)
        });
        let disturbed = self.disturbed(&connection.route, confirmed.saturating_sub(SLACK), confirmed + CONFIRMED);
        died || storeless || stopping || cut || disturbed
    }

    /// Whether a rejection may not have reached the broker, or been forgotten with it, or a slow reader noted `until` long after it got the message.
    pub fn rejection_lost(&self, receipt: &Receipt, until: u64) -> bool {
        let Some(connection) = self.connections.get(&receipt.place) else { return true };
        let rejected = receipt.returned.unwrap_or(until);
        connection.reads_late() || until <= rejected + SLACK || self.confirmation_lost(connection, rejected, until)
    }

    /// Whether the broker was started with another clock than the one that it was ended with: nobody can tell that from a long time of rest.
    fn restarted_elsewhen(&self, from: u64, to: u64) -> bool {
        let starts = || self.deeds.starts.iter().filter(|start| (from..=to).contains(*start));
        self.deeds.clocks.iter().any(|(step, _)| starts().any(|start| step.abs_diff(*start) <= 3 * SECOND))
    }

    /// Whether the broker may have forgotten the message's id between two attempts to send it.
    pub fn id_forgotten(&self, message: &Message) -> bool {
        let (Some(first), Some(last)) = (message.sends.first(), message.sends.last()) else { return false };
        let again = message.has_id && message.sends.len() > 1;
        again && (self.killed(first.t, last.t) || self.restarted_elsewhen(first.t, last.t))
    }

    /// Whether the broker had to take a message whose sender asked for no answer. Nobody knows what a proxy does with the rest of a connection that
    /// is reset, so this is about direct ones.
    pub fn implied(&self, message: &Message) -> bool {
        let [send] = &message.sends[..] else { return false };
        let Some((gone, _)) = self.gone.get(&send.place) else { return false };
        let in_time = gone.saturating_sub(send.t) < 2 * SECOND;
        let reach = gone + SAFE + self.frozen(send.t, gone + SAFE + 10 * SECOND);
        in_time
            && send.route == "direct"
            // A process that is being killed takes a moment to be gone, and its system acknowledges what comes meanwhile.
            && !self.killed(send.t.saturating_sub(SLACK), reach)
            && !self.deeds.terms.iter().any(|span| span.meets(send.t, gone + SLACK / 20))
            && !self.storeless(send.t.saturating_sub(5 * SECOND), reach + 2 * SECOND)
    }

    /// Milliseconds that a message may live, of its own or by its channel; 0 = for ever.
    pub fn ttl(&self, message: &Message) -> u64 {
        let of_channel = self.channels.get(&message.channel).map_or(0, |channel| channel.ttl);
        match (message.ttl, of_channel) {
            (0, ttl) | (ttl, 0) => ttl,
            (own, channel) => own.min(channel),
        }
    }

    /// Whether a message may have expired before the end.
    pub fn may_have_expired(&self, message: &Message) -> bool {
        let ttl = self.ttl(message) * 1_000;
        let sent = message.sends.first().map_or(0, |send| send.t);
        // A forward step makes what was stored under another clock older.
        let forward: i64 = self.deeds.clocks.iter().map(|(_, offset)| offset.abs()).max().unwrap_or(0);
        let is_dead_letter = self.channels.get(&message.channel).is_some_and(|channel| channel.dead_letter_expired);
        ttl > 0 && !is_dead_letter && sent + ttl < self.end + 2 * forward.unsigned_abs() * SECOND
    }

    /// After this a message must not be delivered.
    pub fn deadline(&self, message: &Message) -> Option<u64> {
        let ttl = self.ttl(message) * 1_000;
        let sent = message.sends.last()?.t;
        // After a step of the clock and a restart, what is left of a message's life may be all of it.
        let stepped = self.deeds.clocks.first().map(|(t, _)| *t);
        let restarted = self.deeds.starts.iter().rev().find(|start| stepped.is_some_and(|stepped| **start > stepped));
        let from = restarted.map_or(sent, |restarted| sent.max(*restarted));
        (ttl > 0).then_some(from + ttl + message.delay * 1_000)
    }

    /// Whether anything on the channel may have been given back in a stretch of time, which puts messages out of order.
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
