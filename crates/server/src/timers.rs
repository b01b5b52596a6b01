//! The timers of all sessions: a wheel for checks, and a queue for each kind of hold, because holds of one kind are equally long.
//!
//! No session has a timer of its own. [`Timers`] holds only connection ids; the caller looks up the sessions and checks them. Plain data: no clock, no
//! task.

use std::collections::VecDeque;
use std::time::Duration;

use crate::limits;
use wsmb_core::message::{ConnectionId, Timestamp};

/// The times of all holds and checks.
#[derive(Debug)]
pub(super) struct Timers {
    wheel: Wheel,
    /// The ends of holds, by the kind of hold, the oldest first.
    holds: [VecDeque<(Timestamp, ConnectionId)>; Hold::ALL.len()],
}

/// The event for which the queue of a legacy connection is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// The client has read the upgrade reply.
    Shadow,
    /// The first frame of an envelope client.
    FirstFrame,
    /// The answer to that frame; or the answers for which a connection stays open after the client has finished sending.
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

/// The connections whose timers have run out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// Connections whose hold ends.
    pub(super) holds: Vec<ConnectionId>,
    /// Connections whose answers are late.
    pub(super) unanswered: Vec<ConnectionId>,
    /// Connections to check.
    pub(super) checks: Vec<ConnectionId>,
}

impl Timers {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { wheel: Wheel::new(now), holds: Default::default() }
    }

    /// Starts the timer of a hold. Returns whether the timers' task must be woken.
    pub(super) fn hold(&mut self, now: Timestamp, hold: Hold, connection: ConnectionId) -> bool {
        let holds = &mut self.holds[hold as usize];
        holds.push_back((now.after(hold.longest()), connection));
        holds.len() == 1
    }

    /// Schedules a check at `due` or shortly after. Returns whether the timers' task must be woken.
    pub(super) fn schedule_check(&mut self, due: Timestamp, connection: ConnectionId) -> bool {
        let before = self.wheel.next();
        self.wheel.insert(due, connection);
        before.is_none_or(|before| due < before)
    }

    /// The time of the next timer.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let hold = self.holds.iter().filter_map(|holds| holds.front()).map(|(due, _)| *due).min();
        match (hold, self.wheel.next()) {
            (Some(hold), Some(check)) => Some(hold.min(check)),
            (hold, check) => hold.or(check),
        }
    }

    /// Takes out the timers that have run out.
    pub(super) fn take(&mut self, now: Timestamp) -> Due {
        let mut due = Due::default();
        for hold in Hold::ALL {
            let found = if hold == Hold::Answer { &mut due.unanswered } else { &mut due.holds };
            while let Some((_, connection)) = self.holds[hold as usize].pop_front_if(|(at, _)| *at <= now) {
                found.push(connection);
            }
        }
        self.wheel.take(now, &mut due.checks);
        due
    }
}

/// A ring of slots, each of [`limits::WHEEL_TICK`]. An entry beyond the ring is put into the last slot, and comes out early.
#[derive(Debug)]
struct Wheel {
    slots: Box<[Vec<ConnectionId>]>,
    /// The tick of the slot that is taken next.
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

    /// Uses the slot after the tick of `due`, so that an entry within the ring never comes out early.
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
