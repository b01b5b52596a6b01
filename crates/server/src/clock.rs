//! The server's clock: core time for deadlines, and the wall clock's time for the store and for answers to clients.
//!
//! Core time starts at the wall clock's time and counts elapsed time, including the time during which the system was suspended. It never goes back, and
//! a step of the system's clock neither expires nor revives a message. The wall clock's time is core time plus an offset. [`WallClock`] maintains the
//! offset; it gets all readings as arguments, so that every case can be tested.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::{limits, platform};
use wsmb_core::message::Timestamp;

/// A reading of the system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) wall: Timestamp,
    /// A time service has set the clock. True where the system does not report it.
    pub(super) is_synchronised: bool,
}

impl Reading {
    /// Reads the system's clock.
    fn take() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: Timestamp(0).after(wall), is_synchronised: platform::is_clock_synchronised() }
    }
}

/// How the system's clock at the start compares with the time that the store remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClockAtStart {
    /// The system's clock is not behind the stored time.
    Usual,
    /// The system's clock is behind the stored time and not synchronised: time continues from the stored time.
    Behind(Timestamp),
    /// The stored time is later than the system's clock, which is synchronised: the system's clock is used.
    Ahead(Timestamp),
}

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
    /// The difference in milliseconds.
    pub(super) by: i64,
}

/// The relation of core time and wall clock.
#[derive(Debug)]
pub(super) struct WallClock {
    /// Added to core time, in milliseconds.
    offset: i64,
    /// The system's clock minus core time at the last check, in milliseconds.
    system: i64,
}

impl WallClock {
    /// Returns the start of core time. `last_seen`: the time that the store remembers.
    fn begin(reading: Reading, last_seen: Option<Timestamp>) -> (Timestamp, Self, ClockAtStart) {
        let Reading { wall, is_synchronised } = reading;
        let later = last_seen.filter(|last| last.since(wall) >= limits::CLOCK_STEP);
        let (now, beginning) = match later {
            None => (wall, ClockAtStart::Usual),
            Some(last) if is_synchronised => (wall, ClockAtStart::Ahead(last)),
            Some(last) => (last, ClockAtStart::Behind(last)),
        };
        (now, Self { offset: 0, system: difference(wall, now) }, beginning)
    }

    /// Follows the system's clock. Differences below [`limits::CLOCK_STEP`] are ignored until they add up to a step.
    fn check(&mut self, now: Timestamp, reading: Reading) -> Option<Step> {
        let system = difference(reading.wall, now);
        let moved = system - std::mem::replace(&mut self.system, system);
        let is_set_back = moved <= -millis(limits::CLOCK_STEP);
        // An unsynchronised clock may be wrong, so the time must not fall behind the stored time. A clock that was set back was set on purpose.
        let target = if reading.is_synchronised || is_set_back { system } else { system.max(self.offset) };
        let by = target - self.offset;
        if by.abs() < millis(limits::CLOCK_STEP) {
            return None;
        }
        let from = now.shifted(self.offset);
        self.offset = target;
        Some(Step { from, to: now.shifted(target), by })
    }
}

/// Returns the time at which a broker would start on a store that remembers `last_seen`. For tools that write to the store while no broker runs.
#[must_use]
pub fn time_after(last_seen: Option<Timestamp>) -> Timestamp {
    WallClock::begin(Reading::take(), last_seen).0
}

fn difference(later: Timestamp, earlier: Timestamp) -> i64 {
    let bound = |moment: Timestamp| i64::try_from(moment.0).unwrap_or(i64::MAX);
    bound(later) - bound(earlier)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The clock of one server.
#[derive(Debug)]
pub(super) struct Clock {
    start: Timestamp,
    began: Duration,
    wall: Mutex<WallClock>,
    /// A copy of [`WallClock::offset`], to be read without the lock.
    offset: AtomicI64,
}

impl Clock {
    /// Starts the clock. `last_seen`: the wall clock's time that the store remembers.
    pub(super) fn start(last_seen: Option<Timestamp>) -> (Self, ClockAtStart) {
        let (start, wall, beginning) = WallClock::begin(Reading::take(), last_seen);
        (Self { start, began: elapsed(), wall: Mutex::new(wall), offset: AtomicI64::new(0) }, beginning)
    }

    /// Core time, which never goes back.
    pub(super) fn now(&self) -> Timestamp {
        self.start.after(elapsed().saturating_sub(self.began))
    }

    /// Converts core time into the wall clock's time.
    pub(super) fn on_the_wall(&self, moment: Timestamp) -> Timestamp {
        moment.shifted(self.offset.load(Ordering::Acquire))
    }

    /// Reads both clocks at nearly the same moment: a pause of the process between the readings must not look like a step.
    fn read(&self) -> (Timestamp, Reading) {
        loop {
            let before = self.now();
            let reading = Reading::take();
            if self.now().since(before) < limits::CLOCK_STEP / 4 {
                return (before, reading);
            }
        }
    }

    /// Checks the system's clock, and returns the step if it was set.
    pub(super) fn check(&self) -> Option<Step> {
        let mut wall = self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, reading) = self.read();
        let step = wall.check(now, reading)?;
        self.offset.store(wall.offset, Ordering::Release);
        Some(step)
    }
}

/// Time since an unspecified moment before the start, including the time during which the system was suspended, if the system reports it.
pub(super) fn elapsed() -> Duration {
    platform::since_boot().unwrap_or_else(running)
}

/// Time since an unspecified moment before the start; may exclude the time during which the system was suspended.
pub(super) fn running() -> Duration {
    static BEGAN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    BEGAN.get_or_init(std::time::Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn reading(wall: u64, is_synchronised: bool) -> Reading {
        Reading { wall: Timestamp(wall), is_synchronised }
    }

    /// Returns the steps for these readings of the system's clock, one second apart.
    fn steps(wall: &mut WallClock, start: Timestamp, shown: &[(u64, bool)]) -> Vec<i64> {
        let look = |(second, (at, sync)): (u64, &(u64, bool))| {
            let now = Timestamp(start.0 + 1_000 * (second + 1));
            let step = wall.check(now, reading(*at, *sync))?;
            assert_eq!(step.to.0.wrapping_sub(step.from.0) as i64, step.by);
            Some(step.by)
        };
        (0..).zip(shown).filter_map(look).collect()
    }

    #[test]
    fn an_accurate_clock_makes_no_steps() {
        let (start, mut wall, beginning) = WallClock::begin(reading(HOUR, true), Some(Timestamp(HOUR - 5)));
        assert_eq!((start, beginning), (Timestamp(HOUR), ClockAtStart::Usual));
        let shown: Vec<_> = (1..600).map(|second| (HOUR + 1_000 * second + second % 7, second % 2 == 0)).collect();
        assert_eq!(steps(&mut wall, start, &shown), Vec::<i64>::new());
    }

    #[test]
    fn steps_in_both_directions_are_followed_with_and_without_a_time_service() {
        for sync in [true, false] {
            let (start, mut wall, _) = WallClock::begin(reading(10 * HOUR, sync), None);
            let shown = [(10 * HOUR + 1_000, sync), (12 * HOUR, sync), (12 * HOUR + 1_000, sync), (9 * HOUR, sync)];
            let hours = 2 * HOUR as i64;
            assert_eq!(steps(&mut wall, start, &shown), [hours - 2_000, -3 * HOUR as i64 - 2_000]);
        }
    }

    #[test]
    fn slow_drift_is_followed() {
        let (start, mut wall, _) = WallClock::begin(reading(HOUR, true), None);
        let shown: Vec<_> = (1..=100).map(|second| (HOUR + 1_050 * second, true)).collect();
        assert_eq!(steps(&mut wall, start, &shown), [1_000; 5]);
    }

    #[test]
    fn the_stored_time_is_the_minimum_until_the_clock_is_set() {
        let (start, mut wall, beginning) = WallClock::begin(reading(HOUR, false), Some(Timestamp(9 * HOUR)));
        assert_eq!((start, beginning), (Timestamp(9 * HOUR), ClockAtStart::Behind(Timestamp(9 * HOUR))));
        let unset = [(HOUR + 1_000, false), (HOUR + 2_000, false), (2 * HOUR, false)];
        assert_eq!(steps(&mut wall, start, &unset), Vec::<i64>::new(), "also when it jumps, and is still behind");
        let later = Timestamp(start.0 + 3_000);
        assert_eq!(steps(&mut wall, later, &[(10 * HOUR, true)]), [HOUR as i64 - 4_000]);
    }

    #[test]
    fn a_synchronised_clock_takes_precedence_over_the_stored_time() {
        let (start, mut wall, beginning) = WallClock::begin(reading(HOUR, true), Some(Timestamp(9 * HOUR)));
        assert_eq!((start, beginning), (Timestamp(HOUR), ClockAtStart::Ahead(Timestamp(9 * HOUR))));
        assert_eq!(steps(&mut wall, start, &[(HOUR + 1_000, true)]), Vec::<i64>::new());
        let (start, mut wall, _) = WallClock::begin(reading(HOUR, false), Some(Timestamp(9 * HOUR)));
        assert_eq!(steps(&mut wall, start, &[(HOUR + 1_000, true)]), [-8 * HOUR as i64], "as soon as it is");
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed_without_a_time_service() {
        let (start, mut wall, _) = WallClock::begin(reading(HOUR, false), Some(Timestamp(9 * HOUR)));
        assert_eq!(steps(&mut wall, start, &[(HOUR / 2, false)]), [HOUR as i64 / 2 - 1_000 - 9 * HOUR as i64]);
    }

    #[test]
    fn core_time_does_not_go_back() {
        let (clock, _) = Clock::start(None);
        let moments: Vec<Timestamp> = (0..1_000).map(|_| clock.now()).collect();
        assert!(moments.is_sorted() && moments[0] >= clock.start);
        assert_eq!(clock.on_the_wall(moments[0]), moments[0]);
    }
}
