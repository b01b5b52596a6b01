//! The orderly stop, from the signal to the closed port. No accepted message is lost, no confirmed message is delivered again, and no client waits longer
//! than needed.
//!
//! ```text
//! begin ─► read until silent ────► end connections ────► (store and ids close) ─► close the listeners
//!   new upgrades: 503               1001 (modern) or       lifecycle               waiting clients
//!   no kept message is delivered    a bare FIN             does this               get their 503
//!   pings behind deliveries
//! ```
//!
//! *Read until silent*: confirmations arrive, and publications from socket buffers; these are stored and answered.
//! *End connections*: a connection is closed as soon as its client has closed its half, or has acknowledged our FIN and is silent. So a client that keeps
//! its half open delays nothing. The listeners stay open to the end, so that clients are refused only while the next process starts.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::hub::Hub;
use super::replies::late_greeting;
use super::session::{Closing, Session};
use super::transport::Transport;
use crate::limits;
use wsmb_core::broker::{Broker, Event};
use wsmb_core::message::Timestamp;

impl Hub {
    /// Begins the stop: refuses new connections, delivers no more kept messages, and pings receivers with unconfirmed ones.
    pub(super) fn begin_stop(&self) {
        self.stop.begin();
        self.close();
        self.handle_event(Event::Stopping);
    }

    /// Waits until all clients are silent and have their answers; at most until `end`.
    pub(super) async fn wait_until_silent(&self, end: Instant) {
        let began = Instant::now();
        let (mut last, mut reads) = (began, self.stop.reads());
        while self.open_sessions() > 0 && Instant::now() < end {
            sleep(limits::STOP_LOOK).await;
            let (now, read) = (Instant::now(), self.stop.reads());
            if self.backpressure.is_closed() {
                // Connections that publish are not read, so silence proves nothing.
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

    /// After the end of all connections: gives the store again the messages that it has refused, perhaps because it was busy or full for a moment.
    pub(super) async fn store_rest(&self) {
        for _ in 0..limits::STOP_ATTEMPTS {
            self.handle_event(Event::Stopping);
            let asked = Instant::now();
            while self.with_broker(Broker::is_storing) && asked.elapsed() < limits::STOP_LINGER {
                sleep(limits::STOP_LOOK / 4).await;
            }
            if self.with_broker(Broker::unstored) == 0 {
                break;
            }
        }
    }

    /// Ends every connection, and waits until each is closed or done; at most until `end`. Returns the number of connections that are still open.
    pub(super) async fn end_connections(&self, end: Instant) -> usize {
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
        #[cfg(feature = "http")]
        self.end_abandoned(Duration::ZERO);
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
    /// Whether no more input is expected from the client: its end was queued `since` ago, its TCP has acknowledged all bytes, and it is silent.
    fn is_done(&self, now: Timestamp, since: Duration) -> bool {
        // A modern client closes the connection when it has read the close frame; a legacy client may sleep, or never read.
        let patience = if self.profile.modern { limits::STOP_SILENCE } else { limits::STOP_QUIET };
        since >= patience
            && now.since(self.last_input()) >= limits::STOP_QUIET
            && self.queue().is_finished()
            && self.transport().and_then(Transport::unacknowledged).is_none_or(|bytes| bytes == 0)
    }
}
