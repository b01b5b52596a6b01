//! The orderly stop, from the signal to the closed port: nothing accepted is lost, nothing confirmed comes twice, nobody waits longer than needed.
//!
//! ```text
//! begin ─► hear out ─────────────► part ───────────────► (store and ids close) ─► close the doors
//!   new upgrades: 503               1001 (modern) or       lifecycle               what has connected
//!   no kept message is delivered    a bare FIN             does this               gets its 503
//!   pings behind what was
//! ```
//!
//! *Hear out*: everybody is read until all are silent. Confirmations arrive, and what publishers left in socket buffers; that is stored and answered.
//! *Part*: each connection is closed as soon as its client has closed its half, or has acknowledged our end and is silent: a client that keeps its
//! half open delays nothing. The doors stay open to the end, so that the gap in which a client is refused is as short as the next process's start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::carry::late_greeting;
use super::connection::{Closing, Connection};
use super::runtime::Hub;
use super::tcp;
use crate::limits;
use wsmb_core::broker::{Broker, Event};
use wsmb_core::message::Timestamp;

/// How far the stop is, as readers and doors see it.
#[derive(Debug, Default)]
pub(super) struct Stop {
    begun: AtomicBool,
    /// Reads that brought something since it began.
    reads: AtomicU64,
    /// The doors close once nobody is waiting at them.
    closing: watch::Sender<bool>,
}

impl Stop {
    /// Whether the server is going down.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Notes that a client has sent something.
    pub(super) fn hear(&self) {
        if self.has_begun() {
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// For a door: see [`closed`].
    pub(super) fn door(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Has the doors closed.
    pub(super) fn close_doors(&self) {
        self.closing.send_replace(true);
    }
}

/// Waits until the doors are to close.
pub(super) async fn closed(door: &mut watch::Receiver<bool>) {
    // The sender lives as long as the hub, which every door has.
    let _ = door.wait_for(|closing| *closing).await;
}

impl Hub {
    /// From now on no connection is made and no kept message is delivered; who has unconfirmed ones is pinged.
    pub(super) fn begin_stop(&self) {
        self.stop.begun.store(true, Ordering::Relaxed);
        self.close_register();
        self.happened(Event::Stopping);
    }

    /// Reads everybody until all are silent and answered; at most until `end`.
    pub(super) async fn hear_out(&self, end: Instant) {
        let began = Instant::now();
        let (mut last, mut reads) = (began, self.stop.reads.load(Ordering::Relaxed));
        while self.open_connections() > 0 && Instant::now() < end {
            sleep(limits::STOP_LOOK).await;
            let (now, read) = (Instant::now(), self.stop.reads.load(Ordering::Relaxed));
            if self.gate.is_closed() {
                // Nobody is read, so nobody can be heard.
                last = now;
            } else if read != reads {
                (last, reads) = (now, read);
                if now.duration_since(began) >= limits::STOP_BUSY {
                    break;
                }
            } else if now.duration_since(last) >= limits::STOP_SILENCE
                && (now.duration_since(began) >= limits::STOP_CONFIRM || !self.with_broker(Broker::awaits_confirmation))
            {
                break;
            }
        }
        while self.open_connections() > 0 && Instant::now() < end && self.with_broker(Broker::owes_answers) {
            sleep(limits::STOP_LOOK).await;
        }
    }

    /// When every connection has ended: has the store write what it refused, perhaps because it was busy or full for a moment.
    pub(super) async fn store_rest(&self) {
        for _ in 0..limits::STOP_ATTEMPTS {
            self.happened(Event::Stopping);
            let asked = Instant::now();
            while self.with_broker(Broker::is_storing) && asked.elapsed() < limits::STOP_LINGER {
                sleep(limits::STOP_LOOK / 4).await;
            }
            if self.with_broker(Broker::unstored) == 0 {
                break;
            }
        }
    }

    /// Ends every connection, and waits until each is closed by its client or need not be waited for. How many had to be left, at `end` at the latest.
    pub(super) async fn part(&self, end: Instant) -> usize {
        let closing = Closing { code: 1001, reason: "the broker is going down", invited: false, flush: true };
        let (now, max_queue) = (self.wall_now(), self.options().limits.max_queue);
        for connection in self.close_register() {
            {
                let mut queue = connection.queue();
                if queue.is_answering() {
                    queue.answer(late_greeting(now), max_queue);
                }
            }
            connection.end(closing);
            connection.flush();
        }
        let began = Instant::now();
        let cut = end.min(began + limits::STOP_LINGER);
        let mut looked = began;
        while self.open_connections() > 0 {
            let now = Instant::now();
            if now >= cut {
                break;
            }
            let _ = timeout(limits::STOP_LOOK.min(cut - now), self.departed.notified()).await;
            if looked.elapsed() >= limits::STOP_LOOK {
                let (time, since) = (self.now(), began.elapsed());
                for connection in self.close_register().iter().filter(|connection| connection.is_done(time, since)) {
                    connection.queue().abort();
                }
                looked = Instant::now();
            }
        }
        self.open_connections()
    }
}

impl Connection {
    /// Whether nothing more can be expected of the client: its end was sent `since` ago, its TCP has acknowledged everything, and it is silent.
    fn is_done(&self, now: Timestamp, since: Duration) -> bool {
        // A modern client closes by itself when it has read the close frame; a legacy one may sleep, or never look.
        let patience = if self.profile.modern { limits::STOP_SILENCE } else { limits::STOP_QUIET };
        since >= patience
            && now.since(self.heard()) >= limits::STOP_QUIET
            && self.queue().is_finished()
            && tcp::unacknowledged(self.stream()).is_none_or(|bytes| bytes == 0)
    }
}
