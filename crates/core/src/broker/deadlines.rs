//! The deadlines of the core. Knows no clock.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet, VecDeque};

use foldhash::fast::RandomState;

use crate::limits;
use crate::message::{ConnectionId, MessageId, Timestamp};

/// The purpose of a receiver's timer. A receiver has at most one timer of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The receiver's burst of deliveries may have ended.
    BurstEnd(ConnectionId),
    /// The receiver may get the next backlog frame.
    NextBacklog(ConnectionId),
    /// The receiver is ended if it has confirmed nothing for `confirm_timeout`.
    ConfirmTimeout(ConnectionId),
    /// The receiver's deliveries are checked: some may be late.
    LateCheck(ConnectionId),
    /// The receiver's wait for the page of a preferred channel ends.
    PageWait(ConnectionId),
}

impl Timer {
    fn connection(self) -> ConnectionId {
        match self {
            Self::BurstEnd(connection)
            | Self::NextBacklog(connection)
            | Self::ConfirmTimeout(connection)
            | Self::LateCheck(connection)
            | Self::PageWait(connection) => connection,
        }
    }
}

/// All pending timers.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    receivers: BinaryHeap<Reverse<(Timestamp, Timer)>>,
    /// The receivers for which a [`Timer::LateCheck`] is running.
    late_checks: HashSet<ConnectionId, RandomState>,
    /// Messages that are written at this time if they are still unsettled. The write delay is the same for all, so the times are in order.
    writes: VecDeque<(Timestamp, MessageId)>,
    /// The same for messages whose sender waits and whose receiver will probably confirm sooner than a disk could write. Also in order.
    awaited: VecDeque<(Timestamp, MessageId)>,
    /// The time at which the next message in memory expires, for each channel with such messages.
    expiries: BTreeSet<(Timestamp, usize)>,
    /// The time at which failed appends and loads are retried.
    pub retry: Option<Timestamp>,
    /// The time of the next sweep of the store.
    pub sweep: Option<Timestamp>,
    /// The time at which a broker that is short of memory continues to give memory back.
    pub relief: Option<Timestamp>,
}

impl Deadlines {
    pub fn arm(&mut self, at: Timestamp, timer: Timer) {
        self.receivers.push(Reverse((at, timer)));
    }

    /// Removes the timers for unconfirmed deliveries.
    pub fn drop_unconfirmed(&mut self) {
        self.receivers.retain(|Reverse((_, timer))| !matches!(timer, Timer::ConfirmTimeout(_) | Timer::LateCheck(_)));
        self.late_checks.clear();
    }

    /// Notes that a receiver is gone. The timers of such receivers are removed when there may be many of them: some timers run for minutes,
    /// and thousands of receivers may come and go meanwhile. `live`: the number of receivers.
    pub fn forget_receiver(&mut self, gone: ConnectionId, live: usize, is_live: impl Fn(&ConnectionId) -> bool) {
        self.late_checks.remove(&gone);
        if self.receivers.len() > limits::TIMERS_LEFT + 8 * live {
            self.receivers.retain(|Reverse((_, timer))| is_live(&timer.connection()));
        }
    }

    /// (Tests.) Returns the number of running timers of receivers.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.receivers.len()
    }

    /// Arms the check for late deliveries of a receiver, unless it is armed.
    pub fn arm_late_check(&mut self, at: Timestamp, connection: ConnectionId) {
        if self.late_checks.insert(connection) {
            self.arm(at, Timer::LateCheck(connection));
        }
    }

    /// (Tests.) Whether the check for late deliveries of a receiver is armed.
    #[cfg(test)]
    pub fn has_late_check(&self, connection: ConnectionId) -> bool {
        self.late_checks.contains(&connection)
    }

    pub fn write_at(&mut self, at: Timestamp, id: MessageId) {
        self.writes.push_back((at, id));
    }

    pub fn write_awaited_at(&mut self, at: Timestamp, id: MessageId) {
        self.awaited.push_back((at, id));
    }

    /// Replaces the expiry timer of a channel. `running`: the time of the present timer.
    pub fn expire_at(&mut self, at: Option<Timestamp>, running: Option<Timestamp>, channel: usize) {
        if let Some(running) = running {
            self.expiries.remove(&(running, channel));
        }
        self.expiries.extend(at.map(|at| (at, channel)));
    }

    /// Removes and returns the next channel in which a message may have expired.
    pub fn due_expiry(&mut self, now: Timestamp) -> Option<usize> {
        let first = self.expiries.first().filter(|(at, _)| *at <= now).copied()?;
        self.expiries.remove(&first);
        Some(first.1)
    }

    /// (Tests.) Returns the expiry timers.
    #[cfg(test)]
    pub fn expiries(&self) -> &BTreeSet<(Timestamp, usize)> {
        &self.expiries
    }

    /// Removes and returns the next receiver timer that is due.
    pub fn due_receiver(&mut self, now: Timestamp) -> Option<Timer> {
        let Reverse((at, _)) = self.receivers.peek()?;
        if *at > now {
            return None;
        }
        let Reverse((_, timer)) = self.receivers.pop()?;
        if let Timer::LateCheck(connection) = timer {
            self.late_checks.remove(&connection);
        }
        Some(timer)
    }

    /// Removes and returns the next message whose write delay is over.
    pub fn due_write(&mut self, now: Timestamp) -> Option<MessageId> {
        [&mut self.awaited, &mut self.writes].into_iter().find_map(|writes| {
            let (_, id) = writes.pop_front_if(|(at, _)| *at <= now)?;
            Some(id)
        })
    }

    /// Removes write timers from the front as long as `is_finished` returns true, so that settled messages cause no wake-up and use no memory.
    pub fn drop_finished_writes(&mut self, is_finished: impl Fn(MessageId) -> bool) {
        for writes in [&mut self.awaited, &mut self.writes] {
            while writes.pop_front_if(|(_, id)| is_finished(*id)).is_some() {}
        }
    }

    /// Returns the earliest deadline.
    pub fn next(&self) -> Option<Timestamp> {
        let receivers = self.receivers.peek().map(|Reverse((at, _))| *at);
        let [awaited, writes] = [&self.awaited, &self.writes].map(|writes| writes.front().map(|(at, _)| *at));
        let expiry = self.expiries.first().map(|(at, _)| *at);
        [receivers, awaited, writes, expiry, self.retry, self.sweep, self.relief].into_iter().flatten().min()
    }
}
