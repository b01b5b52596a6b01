//! The pings of one connection. A pong proves that the client is alive, and that it has received everything before the ping.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::limits;
use wsmb_core::message::Timestamp;
use wsmb_protocol::frame::{self, Opcode};

/// The pings of one connection, of confirmations and of heartbeats: any pong serves both.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    /// Pings without an answer, oldest first: at most one for a confirmation, and those of the heartbeat; at most [`limits::OUTSTANDING_PINGS`].
    /// Inline memory for one: a client that answers pings in time never has more than one outstanding.
    outstanding: SmallVec<[Ping; 1]>,
    /// The token of the last ping.
    last: u32,
    /// Heartbeats since the last input of the client.
    heartbeats: u8,
    /// The time of the last heartbeat.
    last_heartbeat: Timestamp,
    /// A confirmation was requested while a ping was outstanding.
    wanted: bool,
    /// An empty pong counts as an answer: the client is legacy, and has never sent a pong with a payload. PHP clients answer with empty pongs.
    /// Other clients send unsolicited empty pongs, to keep the connection alive.
    empty_answers: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    token: u32,
    /// The stream offset of its end, modulo 2³²; a queue holds far fewer bytes.
    end: u32,
    /// The last delivery queued before it; 0 if no delivery before it was unconfirmed.
    up_to: u64,
}

/// The next step of the heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Check again at this time.
    Wait(Timestamp),
    /// Send a ping, and check again at this time.
    Ping(Timestamp),
    /// The client is dead.
    Dead,
}

impl Pings {
    pub(super) fn new(legacy: bool) -> Self {
        Self { empty_answers: legacy, ..Self::default() }
    }

    /// Requests a confirmation for all deliveries up to `up_to`. Returns the ping's frame; `None` if a ping is outstanding: then the request is remembered.
    pub(super) fn confirm(&mut self, up_to: u64) -> Option<Bytes> {
        if self.outstanding.is_empty() {
            return Some(self.send(up_to, true));
        }
        self.wanted = true;
        None
    }

    /// Returns the frame of a new ping. `asks`: a delivery before it is unconfirmed. The payload is never empty and never `"0"`, because both break
    /// the PHP client. The caller must call [`Self::queued_up_to`] next.
    pub(super) fn send(&mut self, up_to: u64, asks: bool) -> Bytes {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.outstanding.push(Ping { token: self.last, end: 0, up_to: if asks { up_to } else { 0 } });
        frame::encode(Opcode::Ping, self.last.to_string().as_bytes())
    }

    /// Sets the stream offset of the end of the newest ping.
    pub(super) fn queued_up_to(&mut self, end: u64) {
        if let Some(newest) = self.outstanding.last_mut() {
            newest.end = end as u32;
        }
    }

    /// `bytes` bytes were put in front of the queue.
    pub(super) fn shift(&mut self, bytes: u64) {
        for ping in &mut self.outstanding {
            ping.end = ping.end.wrapping_add(bytes as u32);
        }
    }

    /// Handles a pong. Returns the last delivery that it proves (0: none); `None` if it answers no ping. A pong with a payload answers the ping with
    /// that payload and all older ones. An empty pong answers the oldest ping, if `empty_answers` is set. All others are unsolicited (RFC 6455
    /// section 5.5.3) and prove nothing.
    pub(super) fn answer(&mut self, payload: &[u8]) -> Option<u64> {
        let at = if payload.is_empty() {
            self.empty_answers.then_some(0)?
        } else {
            self.empty_answers = false;
            let token: u32 = std::str::from_utf8(payload).ok()?.parse().ok()?;
            self.outstanding.iter().position(|ping| ping.token == token)?
        };
        let up_to = self.outstanding.get(at)?.up_to;
        self.outstanding.drain(..=at);
        if self.outstanding.is_empty() {
            // Frees the memory: an idle connection holds none for its pings.
            self.outstanding = SmallVec::new();
        }
        Some(up_to)
    }

    /// Takes the remembered request for a confirmation. Returns false if there is none, or a ping is still outstanding.
    pub(super) fn take_wanted(&mut self) -> bool {
        self.outstanding.is_empty() && std::mem::take(&mut self.wanted)
    }

    /// Whether the client's TCP has acknowledged all outstanding pings. `acknowledged`: the stream offset that it has acknowledged.
    pub(crate) fn are_acknowledged(&self, acknowledged: u64) -> bool {
        self.outstanding.last().is_none_or(|newest| (acknowledged as u32).wrapping_sub(newest.end) < 1 << 31)
    }

    /// Continues the heartbeat of a client that answers no ping but is alive. Returns whether another ping may be sent.
    pub(crate) fn continue_heartbeat(&mut self, now: Timestamp) -> bool {
        self.last_heartbeat = now;
        self.outstanding.len() < limits::OUTSTANDING_PINGS
    }

    /// Returns the next step at `now`. `last_input`: the time of the client's last input; `opened`: the end of its handshake.
    pub(crate) fn beat(
        &mut self,
        now: Timestamp,
        last_input: Timestamp,
        opened: Timestamp,
        interval: Duration,
    ) -> Beat {
        // `>=`: the pong may arrive in the same millisecond as its ping.
        if last_input >= self.last_heartbeat {
            self.heartbeats = 0;
        }
        let due = match self.heartbeats {
            0 => last_input.after(interval).max(opened.after(limits::FIRST_PING)),
            _ => self.last_heartbeat.after(interval),
        };
        if now < due {
            return Beat::Wait(due);
        }
        if self.heartbeats >= limits::UNANSWERED_PINGS {
            return Beat::Dead;
        }
        self.heartbeats += 1;
        self.last_heartbeat = now;
        if self.heartbeats == 1 && !self.outstanding.is_empty() {
            // An unanswered ping for a confirmation serves as the heartbeat's first.
            return Beat::Wait(now.after(interval));
        }
        Beat::Ping(now.after(interval))
    }
}

#[cfg(test)]
#[path = "pings_tests.rs"]
mod tests;
