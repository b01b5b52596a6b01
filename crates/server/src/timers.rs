//! The one set of timers of all sessions: a wheel for coarse times, and queues for holds, which are all equally long.
//!
//! No session has a timer of its own. [`Timers`] holds only numbers of connections; whoever it names is looked up and asked what is due. Plain data: no
//! clock, no task.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits;
use wsmb_core::message::{ConnectionId, Timestamp};

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
#[path = "timers_tests.rs"]
mod tests;
