//! Everything that will have to happen at a later time, so that the core can say when it wants to be woken. Knows no clock.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet, VecDeque};

use foldhash::fast::RandomState;

use crate::limits;
use crate::message::{ConnectionId, MessageId, Timestamp};

/// What a receiver's timer is for. At most one of each kind runs for a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Its burst of deliveries has ended.
    Quiet(ConnectionId),
    /// It may have the next backlog frame.
    Pace(ConnectionId),
    /// It is to be ended if it has confirmed nothing for `confirm_timeout`.
    Unconfirmed(ConnectionId),
    /// Its deliveries are looked at: some may not have been confirmed in time.
    Look(ConnectionId),
    /// It has waited for the page of a channel that it prefers long enough.
    Yield(ConnectionId),
}

impl Timer {
    fn connection(self) -> ConnectionId {
        match self {
            Self::Quiet(it) | Self::Pace(it) | Self::Unconfirmed(it) | Self::Look(it) | Self::Yield(it) => it,
        }
    }
}

/// All pending timers.
#[derive(Debug, Default)]
pub(super) struct Timers {
    receivers: BinaryHeap<Reverse<(Timestamp, Timer)>>,
    /// For which of them a [`Timer::Look`] is running.
    looks: HashSet<ConnectionId, RandomState>,
    /// Messages to be written if they are still unsettled then. The delay is the same for all, so they are in order.
    writes: VecDeque<(Timestamp, MessageId)>,
    /// The same for those whose sender waits, and whose receiver is likely to confirm sooner than a disk would. In order, too.
    awaited: VecDeque<(Timestamp, MessageId)>,
    /// Channels in which a message that waits in memory expires then; one for each of them.
    expiries: BTreeSet<(Timestamp, usize)>,
    /// Failed appends and loads are tried again.
    pub retry: Option<Timestamp>,
    /// Expired messages are looked for in the store.
    pub sweep: Option<Timestamp>,
}

impl Timers {
    pub fn arm(&mut self, at: Timestamp, timer: Timer) {
        self.receivers.push(Reverse((at, timer)));
    }

    /// Forgets the timers that run for what is unconfirmed.
    pub fn drop_unconfirmed(&mut self) {
        self.receivers.retain(|Reverse((_, timer))| !matches!(timer, Timer::Unconfirmed(_) | Timer::Look(_)));
        self.looks.clear();
    }

    /// A receiver is no more. The timers of such receivers are forgotten when they may be many: some run for minutes, and receivers may
    /// come and go by the thousand meanwhile. `live`: how many receivers there are.
    pub fn forget_receiver(&mut self, gone: ConnectionId, live: usize, is_live: impl Fn(&ConnectionId) -> bool) {
        self.looks.remove(&gone);
        if self.receivers.len() > limits::TIMERS_LEFT + 8 * live {
            self.receivers.retain(|Reverse((_, timer))| is_live(&timer.connection()));
        }
    }

    /// Timers of receivers that run.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.receivers.len()
    }

    /// Has a receiver's deliveries looked at, unless that is going to happen already.
    pub fn look_at(&mut self, at: Timestamp, connection: ConnectionId) {
        if self.looks.insert(connection) {
            self.arm(at, Timer::Look(connection));
        }
    }

    /// Whether a receiver's deliveries are going to be looked at.
    #[cfg(test)]
    pub fn is_looked_at(&self, connection: ConnectionId) -> bool {
        self.looks.contains(&connection)
    }

    pub fn write_at(&mut self, at: Timestamp, id: MessageId) {
        self.writes.push_back((at, id));
    }

    pub fn write_awaited_at(&mut self, at: Timestamp, id: MessageId) {
        self.awaited.push_back((at, id));
    }

    /// Sets the timer for what expires in a channel in the place of the one that runs.
    pub fn expire_at(&mut self, at: Option<Timestamp>, running: Option<Timestamp>, channel: usize) {
        if let Some(running) = running {
            self.expiries.remove(&(running, channel));
        }
        self.expiries.extend(at.map(|at| (at, channel)));
    }

    /// The next channel in which something may have expired.
    pub fn due_expiry(&mut self, now: Timestamp) -> Option<usize> {
        let first = self.expiries.first().filter(|(at, _)| *at <= now).copied()?;
        self.expiries.remove(&first);
        Some(first.1)
    }

    /// (Tests.) The timers for what expires in channels.
    #[cfg(test)]
    pub fn expiries(&self) -> &BTreeSet<(Timestamp, usize)> {
        &self.expiries
    }

    /// The next receiver timer that is due.
    pub fn due_receiver(&mut self, now: Timestamp) -> Option<Timer> {
        let Reverse((at, _)) = self.receivers.peek()?;
        if *at > now {
            return None;
        }
        let Reverse((_, timer)) = self.receivers.pop()?;
        if let Timer::Look(connection) = timer {
            self.looks.remove(&connection);
        }
        Some(timer)
    }

    /// The next message whose write delay is over.
    pub fn due_write(&mut self, now: Timestamp) -> Option<MessageId> {
        [&mut self.awaited, &mut self.writes].into_iter().find_map(|writes| {
            let (_, id) = writes.pop_front_if(|(at, _)| *at <= now)?;
            Some(id)
        })
    }

    /// Forgets write timers at the front for which `settled` holds, so that a settled message wakes nobody and holds no memory.
    pub fn drop_settled_writes(&mut self, settled: impl Fn(MessageId) -> bool) {
        for writes in [&mut self.awaited, &mut self.writes] {
            while writes.pop_front_if(|(_, id)| settled(*id)).is_some() {}
        }
    }

    /// The earliest of all.
    pub fn next(&self) -> Option<Timestamp> {
        let receivers = self.receivers.peek().map(|Reverse((at, _))| *at);
        let [awaited, writes] = [&self.awaited, &self.writes].map(|writes| writes.front().map(|(at, _)| *at));
        let expiry = self.expiries.first().map(|(at, _)| *at);
        [receivers, awaited, writes, expiry, self.retry, self.sweep].into_iter().flatten().min()
    }
}
