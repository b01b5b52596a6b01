//! The pings of one connection, and what their pongs prove: that the client is alive, and what it has received.

use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::limits;
use wsmb_core::message::Timestamp;
use wsmb_protocol::frame::{self, Opcode};

/// The pings of one connection: a confirmation's and a heartbeat's alike, because any pong proves both.
#[derive(Debug, Default)]
pub(crate) struct Pings {
    /// Sent and not answered, oldest first; at most one that the core asked for, and the heartbeat's. Room for one: a client that answers in
    /// time never has more. At most [`limits::OUTSTANDING_PINGS`].
    outstanding: SmallVec<[Ping; 1]>,
    /// The number of the last ping.
    last: u32,
    /// Pings the heartbeat has sent since the client was last heard.
    strikes: u8,
    /// When it sent the last of them.
    struck: Timestamp,
    /// A confirmation was wanted while a ping was outstanding.
    wanted: bool,
    /// An empty pong may answer a ping: the client is legacy, and has never answered with a payload. PHP clients answer so. Others send empty
    /// pongs that nobody asked for, to keep the connection alive.
    empty_answers: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    token: u32,
    /// The stream offset of its end, modulo 2³²: a queue holds far less.
    end: u32,
    /// The last delivery queued before it; 0 if nothing before it was unconfirmed.
    up_to: u64,
}

/// What the heartbeat wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Look again then.
    Wait(Timestamp),
    /// Send a ping, and look again then.
    Ping(Timestamp),
    /// The client is dead.
    Dead,
}

impl Pings {
    pub(super) fn new(legacy: bool) -> Self {
        Self { empty_answers: legacy, ..Self::default() }
    }

    /// A confirmation is wanted for everything up to `up_to`: the ping's frame, unless one is outstanding; then it is remembered.
    pub(super) fn confirm(&mut self, up_to: u64) -> Option<Bytes> {
        if self.outstanding.is_empty() {
            return Some(self.send(up_to, true));
        }
        self.wanted = true;
        None
    }

    /// The frame of a new ping; `asks`: something before it is unconfirmed. Its payload is never empty and never `"0"`: both break the PHP
    /// client. To be followed by [`Self::queued_up_to`].
    pub(super) fn send(&mut self, up_to: u64, asks: bool) -> Bytes {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.outstanding.push(Ping { token: self.last, end: 0, up_to: if asks { up_to } else { 0 } });
        frame::encode(Opcode::Ping, self.last.to_string().as_bytes())
    }

    /// The stream offset of the end of the newest ping.
    pub(super) fn queued_up_to(&mut self, end: u64) {
        if let Some(newest) = self.outstanding.last_mut() {
            newest.end = end as u32;
        }
    }

    /// So many bytes were queued before everything else.
    pub(super) fn shift(&mut self, bytes: u64) {
        for ping in &mut self.outstanding {
            ping.end = ping.end.wrapping_add(bytes as u32);
        }
    }

    /// A pong: the last delivery it proves (0: none), if it answers a ping. One that carries a payload answers the ping that carried it, and
    /// with it the older ones. An empty one answers the oldest, where it can be an answer at all. Anything else is an unsolicited pong (RFC
    /// 6455 section 5.5.3), which proves nothing.
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
            // An idle connection holds no memory for its pings.
            self.outstanding = SmallVec::new();
        }
        Some(up_to)
    }

    /// Whether a confirmation was wanted meanwhile and a ping may be sent now; forgets it then.
    pub(super) fn take_wanted(&mut self) -> bool {
        self.outstanding.is_empty() && std::mem::take(&mut self.wanted)
    }

    /// Whether the client's TCP has acknowledged every ping that is outstanding, now that it has acknowledged so many bytes.
    pub(crate) fn are_acknowledged(&self, acknowledged: u64) -> bool {
        self.outstanding.last().is_none_or(|newest| (acknowledged as u32).wrapping_sub(newest.end) < 1 << 31)
    }

    /// The client answers no ping and is not dead: the heartbeat goes on. Whether a ping may be sent.
    pub(crate) fn go_on(&mut self, now: Timestamp) -> bool {
        self.struck = now;
        self.outstanding.len() < limits::OUTSTANDING_PINGS
    }

    /// What is due at `now` for a client that was last heard at `heard` and whose handshake ended at `opened`.
    pub(crate) fn beat(&mut self, now: Timestamp, heard: Timestamp, opened: Timestamp, interval: Duration) -> Beat {
        // The pong may come within the millisecond of its ping.
        if heard >= self.struck {
            self.strikes = 0;
        }
        let due = match self.strikes {
            0 => heard.after(interval).max(opened.after(limits::FIRST_PING)),
            _ => self.struck.after(interval),
        };
        if now < due {
            return Beat::Wait(due);
        }
        if self.strikes >= limits::UNANSWERED_PINGS {
            return Beat::Dead;
        }
        self.strikes += 1;
        self.struck = now;
        if self.strikes == 1 && !self.outstanding.is_empty() {
            // A ping for a confirmation is unanswered: one is enough.
            return Beat::Wait(now.after(interval));
        }
        Beat::Ping(now.after(interval))
    }
}

#[cfg(test)]
#[path = "pings_tests.rs"]
mod tests;
