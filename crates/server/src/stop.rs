//! The orderly stop, from the signal to the closed port: nothing accepted is lost, nothing confirmed comes twice, nobody waits longer than needed.
//!
//! ```text
//! begin ─► hear out ─────────────► part ───────────────► (store and ids close) ─► close the listeners
//!   new upgrades: 503               1001 (modern) or       lifecycle               what has connected
//!   no kept message is delivered    a bare FIN             does this               gets its 503
//!   pings behind what was
//! ```
//!
//! *Hear out*: everybody is read until all are silent. Confirmations arrive, and what publishers left in socket buffers; that is stored and answered.
//! *Part*: each connection is closed as soon as its client has closed its half, or has acknowledged our end and is silent: a client that keeps its
//! half open delays nothing. The listeners stay open to the end, so that the gap in which a client is refused is as short as the next process's start.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::hub::Hub;
use super::replies::late_greeting;
use super::session::{Closing, Session};
use crate::limits;
use wsmb_core::broker::{Broker, Event};
use wsmb_core::message::Timestamp;

impl Hub {
    /// From now on no connection is made and no kept message is delivered; who has unconfirmed ones is pinged.
    pub(super) fn begin_stop(&self) {
        self.stop.begin();
        self.close();
        self.happened(Event::Stopping);
    }

    /// Reads everybody until all are silent and answered; at most until `end`.
    pub(super) async fn hear_out(&self, end: Instant) {
        let began = Instant::now();
        let (mut last, mut reads) = (began, self.stop.reads());
        while self.open_sessions() > 0 && Instant::now() < end {
            sleep(limits::STOP_LOOK).await;
            let (now, read) = (Instant::now(), self.stop.reads());
            if self.backpressure.is_closed() {
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
        while self.open_sessions() > 0 && Instant::now() < end && self.with_broker(Broker::owes_answers) {
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
        let sessions = self.close();
        for session in &sessions {
            {
                let mut queue = session.queue();
                if queue.is_answering() {
                    queue.answer(late_greeting(now), max_queue);
                }
            }
            session.end(closing);
        }
        self.loops.flush(&sessions);
        drop(sessions);
        let began = Instant::now();
        let cut = end.min(began + limits::STOP_LINGER);
        let mut looked = began;
        while self.open_sessions() > 0 {
            let now = Instant::now();
            if now >= cut {
                break;
            }
            let _ = timeout(limits::STOP_LOOK.min(cut - now), self.departed.notified()).await;
            if looked.elapsed() >= limits::STOP_LOOK {
                let (time, since) = (self.now(), began.elapsed());
                for session in self.close().iter().filter(|session| session.is_done(time, since)) {
                    session.queue().abort();
                }
                looked = Instant::now();
            }
        }
        self.open_sessions()
    }
}

impl Session {
    /// Whether nothing more can be expected of the client: its end was sent `since` ago, its TCP has acknowledged everything, and it is silent.
    fn is_done(&self, now: Timestamp, since: Duration) -> bool {
        // A modern client closes by itself when it has read the close frame; a legacy one may sleep, or never look.
        let patience = if self.profile.modern { limits::STOP_SILENCE } else { limits::STOP_QUIET };
        since >= patience
            && now.since(self.last_input()) >= limits::STOP_QUIET
            && self.queue().is_finished()
            && self.transport().unacknowledged().is_none_or(|bytes| bytes == 0)
    }
}
