//! Decides whether a client is alive, and what its orderly end proves, from pings and the acknowledgements of its TCP.

use std::time::Duration;

use super::Session;
use crate::limits;
use crate::queue::Beat;
use crate::transport::Transport;
use wsmb_core::message::Timestamp;

/// What the timers' task must do with a session after a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerAction {
    /// Nothing: no further check is needed.
    Nothing,
    /// Check again at this time.
    CheckAt(Timestamp),
    /// Flush the queue, which contains a ping, and check again at this time.
    Flush(Timestamp),
    /// The client answers no ping: end the session, unless the client works on its deliveries.
    Dead,
}

impl Session {
    /// Checks the deadline of an end, and the heartbeat. `lenient`: reading is paused, so silence is not the client's fault.
    pub(crate) fn on_timer(&self, now: Timestamp, interval: Duration, lenient: bool) -> TimerAction {
        if lenient {
            self.note_input(now);
        }
        let last_input = self.last_input();
        let mut queue = self.queue();
        if let Some(end_by) = queue.end_by() {
            if now < end_by {
                return TimerAction::CheckAt(end_by);
            }
            queue.abort();
            return TimerAction::Nothing;
        }
        if interval.is_zero() {
            return TimerAction::Nothing;
        }
        match queue.pings.beat(now, last_input, self.opened, interval) {
            Beat::Wait(due) => TimerAction::CheckAt(due),
            Beat::Ping(due) => {
                queue.heartbeat_ping();
                TimerAction::Flush(due)
            }
            Beat::Dead => TimerAction::Dead,
        }
    }

    /// Checks a client that answers no ping because it works on its deliveries: it is alive while its TCP acknowledges the pings. It gets another ping, so
    /// that its TCP has something to acknowledge.
    pub(crate) fn check_acknowledgements(&self, now: Timestamp, interval: Duration) -> TimerAction {
        let Some(sent) = self.queue().sent() else {
            // Another thread is writing.
            return TimerAction::CheckAt(now.after(interval));
        };
        let Some(unacknowledged) = self.transport().and_then(Transport::unacknowledged) else {
            return TimerAction::Dead;
        };
        let acknowledged = sent.saturating_sub(unacknowledged);
        let mut queue = self.queue();
        if !queue.pings.are_acknowledged(acknowledged) {
            return TimerAction::Dead;
        }
        if queue.pings.continue_heartbeat(now) {
            queue.heartbeat_ping();
            return TimerAction::Flush(now.after(interval));
        }
        TimerAction::CheckAt(now.after(interval))
    }

    /// Whether the client, which has ended in an orderly way, is a one-shot reader that took its only message
    /// ([`wsmb_core::broker::Event::Disconnected`]). `trusted`: `server.trust_fin`.
    pub(crate) fn took_only(&self, trusted: bool) -> bool {
        if !trusted || self.profile.modern || self.profile.proxied || self.queue().only_delivery().is_none() {
            return false;
        }
        for _ in 0..limits::YIELDS {
            // In this order, so that a write in between makes `acknowledged` too small, never too large.
            let sent = self.queue().sent();
            if let Some(sent) = sent {
                let Some(unacknowledged) = self.transport().and_then(Transport::unacknowledged) else { return false };
                let acknowledged = sent.saturating_sub(unacknowledged);
                return self.queue().only_delivery() == Some(acknowledged);
            }
            // Another thread has written, and the client has answered, but the thread has not recorded the write yet.
            std::thread::yield_now();
        }
        false
    }
}
