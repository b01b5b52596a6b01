//! Whether a client is alive, and what its orderly end proves, by what its TCP has acknowledged.

use std::time::Duration;

use super::Session;
use crate::limits;
use crate::queue::Beat;
use wsmb_core::message::Timestamp;

/// What the timers are to do with a session that they have asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnTime {
    /// Forget it.
    Nothing,
    /// Ask again then.
    Look(Timestamp),
    /// A ping is in the queue: flush it, and ask again then.
    Flush(Timestamp),
    /// End it, unless it works on its deliveries: it answers no ping.
    Dead,
}

impl Session {
    /// Asked by the timers: what is due? `lenient`: reading is paused, so silence is not the client's fault.
    pub(crate) fn on_time(&self, now: Timestamp, interval: Duration, lenient: bool) -> OnTime {
        if lenient {
            self.note_input(now);
        }
        let last_input = self.last_input();
        let mut queue = self.queue();
        if let Some(end_by) = queue.end_by() {
            if now < end_by {
                return OnTime::Look(end_by);
            }
            queue.abort();
            return OnTime::Nothing;
        }
        if interval.is_zero() {
            return OnTime::Nothing;
        }
        match queue.pings.beat(now, last_input, self.opened, interval) {
            Beat::Wait(due) => OnTime::Look(due),
            Beat::Ping(due) => {
                queue.heartbeat_ping();
                OnTime::Flush(due)
            }
            Beat::Dead => OnTime::Dead,
        }
    }

    /// A client that answers no ping is not dead if it works on its deliveries. It gets another ping, so that its TCP has something to
    /// acknowledge. [`OnTime::Dead`]: its TCP does not acknowledge the pings.
    pub(crate) fn spare(&self, now: Timestamp, interval: Duration) -> OnTime {
        let Some(sent) = self.queue().sent() else {
            // Another thread writes to it at this moment.
            return OnTime::Look(now.after(interval));
        };
        let Some(unacknowledged) = self.transport.unacknowledged() else { return OnTime::Dead };
        let acknowledged = sent.saturating_sub(unacknowledged);
        let mut queue = self.queue();
        if !queue.pings.are_acknowledged(acknowledged) {
            return OnTime::Dead;
        }
        if queue.pings.go_on(now) {
            queue.heartbeat_ping();
            return OnTime::Flush(now.after(interval));
        }
        OnTime::Look(now.after(interval))
    }

    /// Whether the client, which has ended in an orderly way, looks like a one-shot reader that took its only message
    /// ([`wsmb_core::broker::Event::Disconnected`]). `trusted`: `server.trust_fin`.
    pub(crate) fn took_only(&self, trusted: bool) -> bool {
        if !trusted || self.profile.modern || self.profile.proxied || self.queue().only_delivery().is_none() {
            return false;
        }
        for _ in 0..limits::YIELDS {
            // In this order, so that a write in between makes the answer too small, never too large.
            let sent = self.queue().sent();
            if let Some(sent) = sent {
                let Some(unacknowledged) = self.transport.unacknowledged() else { return false };
                let acknowledged = sent.saturating_sub(unacknowledged);
                return self.queue().only_delivery() == Some(acknowledged);
            }
            // Another thread is between its write, which the client has answered already, and its note of it.
            std::thread::yield_now();
        }
        false
    }
}
