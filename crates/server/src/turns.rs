//! How long turns take. A *turn* is what an event loop does for one cause before it serves anything else: its other connections wait so long.
//!
//! The time is what passes on the clock, because it is what the others wait. So it also contains the time in which the system has given the
//! processor to another program, and, with several loops, the wait for the core's lock.
//!
//! Never here: a decision about what a turn does.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::warn;

use super::counters::WarningLimit;
use crate::limits;

/// The cause of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnCause {
    /// A client: what it has sent, its subscription, its end.
    Client,
    /// An answer of the store.
    Store,
    /// A deadline of the core: messages that are due, expired, or unconfirmed for too long.
    Deadline,
    /// Heartbeats and held queues of connections.
    Timer,
    /// The rest of the receivers of a message for many.
    Flush,
    /// An administrator: a purge, new settings, a stop.
    Administrator,
}

impl TurnCause {
    const ALL: [Self; 6] = [Self::Client, Self::Store, Self::Deadline, Self::Timer, Self::Flush, Self::Administrator];
}

impl fmt::Display for TurnCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Store => "store",
            Self::Deadline => "deadline",
            Self::Timer => "timer",
            Self::Flush => "flush",
            Self::Administrator => "administrator",
        })
    }
}

/// The longest turn since the start, and the number of long ones.
#[derive(Debug, Default)]
pub struct Turns {
    /// The longest turn in microseconds, times 8, plus the index of its cause in [`TurnCause::ALL`]: one word, so that both fit together.
    longest: AtomicU64,
    long: AtomicU64,
    warning: WarningLimit,
}

impl Turns {
    /// The longest turn and its cause; `None` before the first one.
    #[must_use]
    pub fn longest(&self) -> Option<(Duration, TurnCause)> {
        let longest = self.longest.load(Ordering::Relaxed);
        (longest > 0).then(|| (Duration::from_micros(longest >> 3), TurnCause::ALL[(longest & 7) as usize]))
    }

    /// The number of turns that took longer than [`limits::LONG_TURN`].
    #[must_use]
    pub fn long(&self) -> u64 {
        self.long.load(Ordering::Relaxed)
    }

    /// Carries out a turn, and notes how long it takes.
    pub(super) fn measure<T>(&self, cause: TurnCause, turn: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = turn();
        self.note(cause, began.elapsed());
        result
    }

    /// Notes how long a turn took.
    #[inline]
    pub(super) fn note(&self, cause: TurnCause, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX >> 3);
        // A turn within the last microsecond of the longest one does not replace it.
        if micros > self.longest.load(Ordering::Relaxed) >> 3 {
            self.longest.fetch_max((micros << 3) | cause as u64, Ordering::Relaxed);
        }
        if took > limits::LONG_TURN {
            self.note_long(cause, took);
        }
    }

    #[cold]
    fn note_long(&self, cause: TurnCause, took: Duration) {
        self.long.fetch_add(1, Ordering::Relaxed);
        if took > limits::STALLED_TURN
            && let Some(withheld) = self.warning.admit()
        {
            warn!(
                milliseconds = took.as_millis(), %cause, withheld,
                "one piece of work took so long that all other clients had to wait; the machine is overloaded, or the broker has a defect"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_is_kept_with_its_cause() {
        let turns = Turns::default();
        assert_eq!((turns.longest(), turns.long()), (None, 0));
        let micros = Duration::from_micros;
        for (cause, took) in [(TurnCause::Client, 40), (TurnCause::Administrator, 70), (TurnCause::Store, 69)] {
            turns.note(cause, micros(took));
        }
        assert_eq!(turns.longest(), Some((micros(70), TurnCause::Administrator)));
        assert_eq!(turns.long(), 0);
        turns.note(TurnCause::Flush, limits::LONG_TURN + micros(1));
        turns.note(TurnCause::Client, limits::LONG_TURN);
        assert_eq!(turns.longest(), Some((limits::LONG_TURN + micros(1), TurnCause::Flush)));
        assert_eq!(turns.long(), 1);
    }

    #[test]
    fn every_cause_is_told_apart() {
        for (index, cause) in TurnCause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
            let turns = Turns::default();
            assert_eq!(turns.measure(cause, || index), index);
            turns.note(cause, Duration::from_millis(1));
            assert_eq!(turns.longest().map(|(_, cause)| cause), Some(cause));
        }
    }
}
