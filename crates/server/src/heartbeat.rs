//! Whether a client is alive, and what its pongs prove: the pings of one connection, and the one wheel that times all connections.
//!
//! No connection has a timer of its own. [`Timers`] holds only numbers of connections; whoever it names is looked up and asked what is due.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::limits;
use wsmb_core::message::{ConnectionId, Timestamp};
use wsmb_protocol::frame::{self, Opcode};

/// The pings of one connection: a confirmation's and a heartbeat's alike, because any pong proves both.
#[derive(Debug, Default)]
pub(super) struct Pings {
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
pub(super) enum Beat {
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

    /// A confirmation is wanted for everything up to `up_to`: the ping's frame, unless one is outstanding; then the wish is kept.
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

    /// Whether a confirmation was wanted meanwhile and a ping may be sent now; forgets the wish then.
    pub(super) fn take_wish(&mut self) -> bool {
        self.outstanding.is_empty() && std::mem::take(&mut self.wanted)
    }

    /// Whether the client's TCP has acknowledged every ping that is outstanding, now that it has acknowledged so many bytes.
    pub(super) fn are_acknowledged(&self, acknowledged: u64) -> bool {
        self.outstanding.last().is_none_or(|newest| (acknowledged as u32).wrapping_sub(newest.end) < 1 << 31)
    }

    /// The client answers no ping and is not dead: the heartbeat goes on. Whether a ping may be sent.
    pub(super) fn go_on(&mut self, now: Timestamp) -> bool {
        self.struck = now;
        self.outstanding.len() < limits::OUTSTANDING_PINGS
    }

    /// What is due at `now` for a client that was last heard at `heard` and whose handshake ended at `opened`.
    pub(super) fn beat(&mut self, now: Timestamp, heard: Timestamp, opened: Timestamp, interval: Duration) -> Beat {
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

/// When to look at which connection: a wheel for the coarse times, and a queue for the holds, which are all equally long.
#[derive(Debug)]
pub(super) struct Timers {
    wheel: Wheel,
    /// Legacy connections whose queues are held, by the kind of hold, the oldest first.
    holds: [VecDeque<(Timestamp, ConnectionId)>; Hold::ALL.len()],
}

/// What the queue of a legacy connection is held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// That the client has read the head.
    Shadow,
    /// The first frame of an envelope client.
    FirstFrame,
    /// The answer to that frame; or the answers for which a connection stays whose client has finished sending.
    Answer,
}

impl Hold {
    const ALL: [Self; 3] = [Self::Shadow, Self::FirstFrame, Self::Answer];

    fn longest(self) -> Duration {
        match self {
            Self::Shadow => limits::HEAD_SHADOW,
            Self::FirstFrame => limits::FIRST_FRAME,
            Self::Answer => limits::ANSWER_TIME,
        }
    }
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// They have been held long enough.
    pub(super) holds: Vec<ConnectionId>,
    /// Their answers do not come in time.
    pub(super) unanswered: Vec<ConnectionId>,
    /// To be asked what is due.
    pub(super) looks: Vec<ConnectionId>,
}

impl Timers {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { wheel: Wheel::new(now), holds: Default::default() }
    }

    /// Holds a connection's queue from now on; true if the timer's task has to be told.
    pub(super) fn hold(&mut self, now: Timestamp, hold: Hold, connection: ConnectionId) -> bool {
        let holds = &mut self.holds[hold as usize];
        holds.push_back((now.after(hold.longest()), connection));
        holds.len() == 1
    }

    /// Has a connection looked at, at `due` or a little later; true if the timer's task has to be told.
    pub(super) fn look(&mut self, due: Timestamp, connection: ConnectionId) -> bool {
        let before = self.wheel.next();
        self.wheel.insert(due, connection);
        before.is_none_or(|before| due < before)
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let hold = self.holds.iter().filter_map(|holds| holds.front()).map(|(due, _)| *due).min();
        match (hold, self.wheel.next()) {
            (Some(hold), Some(look)) => Some(hold.min(look)),
            (hold, look) => hold.or(look),
        }
    }

    /// Takes out what is due.
    pub(super) fn take(&mut self, now: Timestamp) -> Due {
        let mut due = Due::default();
        for hold in Hold::ALL {
            let found = if hold == Hold::Answer { &mut due.unanswered } else { &mut due.holds };
            while let Some((_, connection)) = self.holds[hold as usize].pop_front_if(|(at, _)| *at <= now) {
                found.push(connection);
            }
        }
        self.wheel.take(now, &mut due.looks);
        due
    }
}

/// A ring of slots, each of [`limits::WHEEL_TICK`]. What lies further ahead than the ring waits in its last slot and is looked at early.
#[derive(Debug)]
struct Wheel {
    slots: Box<[Vec<ConnectionId>]>,
    /// The tick whose slot is taken next.
    tick: u64,
    entries: usize,
}

impl Wheel {
    fn new(now: Timestamp) -> Self {
        let slots = std::iter::repeat_with(Vec::new).take(limits::WHEEL_SLOTS).collect();
        Self { slots, tick: Self::tick_of(now), entries: 0 }
    }

    fn tick_of(time: Timestamp) -> u64 {
        time.since(Timestamp(0)).as_millis() as u64 / limits::WHEEL_TICK.as_millis() as u64
    }

    fn slot(&self, tick: u64) -> usize {
        (tick % self.slots.len() as u64) as usize
    }

    /// Never early: the slot is the one after the tick in which `due` lies.
    fn insert(&mut self, due: Timestamp, connection: ConnectionId) {
        let last = self.tick + self.slots.len() as u64 - 1;
        let tick = (Self::tick_of(due) + 1).clamp(self.tick, last);
        let slot = self.slot(tick);
        self.slots[slot].push(connection);
        self.entries += 1;
    }

    fn next(&self) -> Option<Timestamp> {
        if self.entries == 0 {
            return None;
        }
        let ahead = (0..self.slots.len() as u64).find(|ahead| !self.slots[self.slot(self.tick + ahead)].is_empty())?;
        Some(Timestamp((self.tick + ahead) * limits::WHEEL_TICK.as_millis() as u64))
    }

    fn take(&mut self, now: Timestamp, out: &mut Vec<ConnectionId>) {
        let until = Self::tick_of(now);
        let before = out.len();
        let turns = until.saturating_sub(self.tick).saturating_add(1).min(self.slots.len() as u64);
        if until < self.tick {
            return;
        }
        for ahead in 0..turns {
            let slot = self.slot(self.tick + ahead);
            out.append(&mut std::mem::take(&mut self.slots[slot]));
        }
        self.tick = until + 1;
        self.entries -= out.len() - before;
    }
}

#[cfg(test)]
#[path = "heartbeat_tests.rs"]
mod tests;
