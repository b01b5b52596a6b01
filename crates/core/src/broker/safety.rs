//! When a publication is safe, and which connections get the answer: [`Unstored`] for each unstored message, and a [`Pending`] for each
//! publication whose sender waits for the answer.

use super::entry::{Entry, Location, Unstored, WriteState};
use super::pending::{Fate, Pending};
use super::turn::Turn;
use super::{Broker, Refusal, Reply, ReplyTo};
use crate::limits;
use crate::message::MessageId;

impl Broker {
    /// Removes a message from the unstored ones, because it was stored, settled or refused. Does nothing for a stored message.
    pub(super) fn resolve(&mut self, id: MessageId, fate: Fate, turn: &mut Turn<'_>) -> Option<Unstored> {
        let unstored = self.unstored.remove(id)?;
        self.uncharge_write(unstored.owner, unstored.writing);
        let is_stored = matches!(fate, Fate::Stored | Fate::StoredLate);
        if unstored.write_state == WriteState::Failed {
            self.failed.remove(&id);
        }
        // Also after a failure: the store may have written the row nevertheless.
        if !is_stored && unstored.write_state != WriteState::NotRequested {
            self.removals.push(id);
        }
        for old in &unstored.replaces {
            let from = self.superseded.remove(old);
            if let Some(from) = from.filter(|_| !is_stored) {
                self.invalidate_reads(*old, from);
            }
        }
        if !is_stored {
            // If the message had been stored, the older rows would have been removed in the same transaction.
            self.removals.extend_from_slice(&unstored.replaces);
        }
        match unstored.pending {
            Some(pending) => self.resolve_pending(pending, unstored.location, fate, turn),
            None => {
                if let Fate::Refused(refusal) = fate {
                    self.reply_refused(unstored.reply_to, refusal, turn);
                }
            }
        }
        Some(unstored)
    }

    /// Called when an older row is removed and no message in memory stands for it any more: a running read of its channel or a running
    /// sweep may still return the row.
    fn invalidate_reads(&mut self, old: MessageId, channel: usize) {
        if self.sweeping {
            self.expired_early.insert(old);
        }
        if let Some(channel) = self.channels.get_mut(channel).filter(|channel| old > channel.cursor) {
            channel.next_page.make_stale();
        }
    }

    /// Counts a message of a pending publication, which was at `location`, as decided. Answers the publication if it was the last message.
    pub(super) fn resolve_pending(&mut self, key: usize, location: Location, fate: Fate, turn: &mut Turn<'_>) {
        let held = match location {
            Location::Flight(flight) => self.flights.get(flight).map_or(0, |flight| flight.outstanding),
            _ => 0,
        };
        let Some(pending) = self.pending.get_mut(key) else { return };
        pending.remaining -= 1;
        pending.receivers = pending.receivers.min(held);
        match fate {
            Fate::Stored => pending.rows += 1,
            Fate::StoredLate => {
                pending.rows += 1;
                pending.refused = Some(Refusal::Expired);
            }
            Fate::Settled => {}
            Fate::Refused(refusal) => pending.refused = Some(refusal),
        }
        if pending.remaining > 0 {
            return;
        }
        let pending = self.pending.remove(key);
        if let Some((key, id)) = pending.remembered.zip(pending.id.as_ref()) {
            match pending.refused {
                None => self.dedup.accept(turn.now, key, id, pending.rows),
                Some(_) => self.dedup.refuse(key),
            }
        }
        self.send_answers(pending, turn);
    }

    /// Sends the answers to a publication.
    fn send_answers(&mut self, pending: Pending, turn: &mut Turn<'_>) {
        let is_awaited = pending.is_awaited();
        let Pending { reply_to, id, answer, receivers, rows, refused, waiters, .. } = pending;
        self.note_answer(reply_to, refused.is_none());
        match refused {
            Some(refusal) if is_awaited => {
                self.reply(reply_to, Reply::Refused { id: id.clone(), answer, refusal }, turn);
                for waiter in waiters {
                    self.reply(waiter, Reply::Refused { id: id.clone(), answer: false, refusal }, turn);
                }
            }
            Some(refusal) => self.reply_refused(reply_to, refusal, turn),
            None if is_awaited => {
                let stored = rows > 0;
                let accepted = |id, receivers, duplicate| Reply::Accepted { id, receivers, stored, duplicate };
                self.reply(reply_to, accepted(id.clone(), receivers, false), turn);
                for waiter in waiters {
                    self.reply(waiter, accepted(id.clone(), 0, true), turn);
                }
            }
            None => {}
        }
    }

    /// Notes that a row is removed: its publication has one row less.
    pub(super) fn row_removed(&mut self, entry: &Entry) {
        let Some(key) = entry.remembered else { return };
        if let Some(pending) = self.dedup.row_removed(key).and_then(|pending| self.pending.get_mut(pending)) {
            pending.rows = pending.rows.saturating_sub(1);
        }
    }

    /// Sends a refusal to a sender that does not wait for an answer. Expiry is no error for such a sender.
    fn reply_refused(&self, to: ReplyTo, refusal: Refusal, turn: &mut Turn<'_>) {
        if refusal != Refusal::Expired {
            self.reply(to, Reply::Refused { id: None, answer: false, refusal }, turn);
        }
    }

    /// Adds a connection that has repeated a pending publication. Returns false if too many wait already.
    pub(super) fn add_waiter(&mut self, key: usize, waiter: ReplyTo) -> bool {
        let Some(pending) = self.pending.get_mut(key).filter(|_| waiter != ReplyTo::Nobody) else { return true };
        if pending.waiters.len() >= limits::DEDUP_WAITERS {
            return false;
        }
        pending.waiters.push(waiter);
        true
    }
}
