//! Whether a client is alive, and what its leaving proves, by what its TCP has acknowledged.

use std::time::Duration;

use super::Connection;
use crate::heartbeat::Beat;
use crate::limits;
use crate::tcp;
use wsmb_core::message::Timestamp;

/// What the wheel is to do with a connection that it has asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnTime {
    /// Forget it.
    Nothing,
    /// Ask again then.
    Look(Timestamp),
    /// End it, unless it works on its deliveries: it answers no ping.
    Dead,
}

impl Connection {
    /// Asked by the wheel: what is due? `lenient`: reading is paused, so silence is not the client's fault.
    pub(crate) fn on_time(&self, now: Timestamp, interval: Duration, lenient: bool) -> OnTime {
        if lenient {
            self.hear(now);
        }
        let heard = self.heard();
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
        match queue.pings.beat(now, heard, self.opened, interval) {
            Beat::Wait(due) => OnTime::Look(due),
            Beat::Ping(due) => {
                queue.heartbeat_ping();
                drop(queue);
                self.flush();
                OnTime::Look(due)
            }
            Beat::Dead => OnTime::Dead,
        }
    }

    /// A client that answers no ping is not dead: it works on its deliveries. It gets another ping, so that its TCP has something to
    /// acknowledge; when to look again. `None`: its TCP does not acknowledge the pings, so it is dead.
    pub(crate) fn spare(&self, now: Timestamp, interval: Duration) -> Option<Timestamp> {
        let Some(sent) = self.queue().sent() else {
            // Another thread writes to it at this moment.
            return Some(now.after(interval));
        };
        let acknowledged = sent.saturating_sub(tcp::unacknowledged(&self.stream)?);
        let mut queue = self.queue();
        if !queue.pings.are_acknowledged(acknowledged) {
            return None;
        }
        if queue.pings.go_on(now) {
            queue.heartbeat_ping();
            drop(queue);
            self.flush();
        }
        Some(now.after(interval))
    }

    /// Whether the client, which has ended in an orderly way, looks like a one-shot reader that took its only message
    /// ([`wsmb_core::broker::Event::Disconnected`]). `trusted`: `server.trust_fin`.
    pub(super) fn took_only(&self, trusted: bool) -> bool {
        if !trusted || self.profile.modern || self.profile.proxied || self.queue().only_delivery().is_none() {
            return false;
        }
        for _ in 0..limits::YIELDS {
            // In this order, so that a write in between makes the answer too small, never too large.
            let sent = self.queue().sent();
            if let Some(sent) = sent {
                let Some(unacknowledged) = tcp::unacknowledged(&self.stream) else { return false };
                let acknowledged = sent.saturating_sub(unacknowledged);
                return self.queue().only_delivery() == Some(acknowledged);
            }
            // Another thread is between its write, which the client has answered already, and its note of it.
            std::thread::yield_now();
        }
        false
    }
}
