//! When the next command may begin: `--rate`, `--quiet`, and a breath after several failures in a row. Knows no clock: the caller says how late it is.
//!
//! What may not begin is not taken either, so it waits in the broker, where its time to live is looked after.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::arguments::duration;
use crate::limits;

/// At most so many in any span of this length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    count: usize,
    per: Duration,
}

/// `20/m`: a number, and a unit of a duration from a second on.
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let bad = || format!("`{text}` is not a rate; write it as 20/m (20 in any minute), 1/s, 100/h or 500/d");
    let (count, unit) = text.split_once('/').ok_or_else(bad)?;
    let count = count.trim().parse().ok().filter(|count| (1..=limits::EXEC_RATE).contains(count)).ok_or_else(bad)?;
    let unit = unit.trim();
    let is_unit = !unit.is_empty() && unit != "ms" && unit.bytes().all(|byte| byte.is_ascii_alphabetic());
    let per = if is_unit { duration(&format!("1{unit}")).ok() } else { None };
    Ok(Rate { count, per: per.ok_or_else(bad)? })
}

/// Hours in which no command begins, in seconds of the day. They may go over midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quiet {
    from: u32,
    to: u32,
}

/// `22:00-07:00`.
pub(super) fn quiet(text: &str) -> Result<Quiet, String> {
    let bad = || format!("`{text}` are no hours of a day; write them as 22:00-07:00");
    let time = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let number = |text: &str, below: u32| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u32>().ok().filter(|number| digits && *number < below)
        };
        Some(number(hour, 24)? * 3_600 + number(minute, 60)? * 60)
    };
    let (from, to) = text.split_once('-').ok_or_else(bad)?;
    let (from, to) = (time(from).ok_or_else(bad)?, time(to).ok_or_else(bad)?);
    if from == to { Err(bad()) } else { Ok(Quiet { from, to }) }
}

impl Quiet {
    fn covers(self, second: u32) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&second)
        } else {
            second >= self.from || second < self.to
        }
    }

    /// `07:00`.
    pub(super) fn end(self) -> String {
        format!("{:02}:{:02}", self.to / 3_600, self.to / 60 % 60)
    }
}

/// How many commands may begin now, and when to ask again if nothing else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Free {
    pub commands: usize,
    pub again: Option<Duration>,
    pub quiet: bool,
}

/// The state.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    rate: Option<Rate>,
    quiet: Option<Quiet>,
    /// When the commands within the last span began, oldest first.
    begun: VecDeque<Instant>,
    /// The messages that have failed since the last success.
    failing: HashSet<String>,
    /// A breath is taken until then.
    breath: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rate: Option<Rate>, quiet: Option<Quiet>) -> Self {
        Self { rate, quiet, ..Self::default() }
    }

    /// `second`: of the day, by the local clock.
    pub(super) fn free(&mut self, now: Instant, second: u32) -> Free {
        let quiet = self.quiet.is_some_and(|quiet| quiet.covers(second));
        // The local clock may be set at any moment, and summer time begins and ends.
        let mut again = self.quiet.map(|_| limits::EXEC_QUIET_LOOK);
        if quiet {
            return Free { commands: 0, again, quiet };
        }
        let mut wait = |until: Instant| {
            let wait = until.saturating_duration_since(now);
            again = Some(again.map_or(wait, |again| again.min(wait)));
        };
        let mut commands = usize::MAX;
        if let Some(Rate { count, per }) = self.rate {
            while self.begun.front().is_some_and(|begun| *begun + per <= now) {
                self.begun.pop_front();
            }
            commands = count.saturating_sub(self.begun.len());
            if let Some(oldest) = self.begun.front() {
                wait(*oldest + per);
            }
        }
        if let Some(breath) = self.breath.filter(|breath| *breath > now) {
            commands = 0;
            wait(breath);
        }
        Free { commands, again, quiet }
    }

    /// A command begins.
    pub(super) fn begins(&mut self, now: Instant) {
        if self.rate.is_some() {
            self.begun.push_back(now);
        }
    }

    /// A message is finished.
    pub(super) fn succeeded(&mut self) {
        self.failing.clear();
        self.breath = None;
    }

    /// A message has failed. When several different ones have failed in a row, it is not the messages' fault, and rushing through all of them
    /// would only use up their attempts: how long nothing begins.
    pub(super) fn failed(&mut self, id: &str, now: Instant) -> Option<Duration> {
        if self.failing.len() < limits::EXEC_FAILING {
            self.failing.insert(id.to_owned());
        }
        let beyond = self.failing.len().checked_sub(limits::EXEC_FAILING_CALM)?;
        let doubled = 2_u32.saturating_pow(u32::try_from(beyond).unwrap_or(u32::MAX));
        let breath = limits::EXEC_PAUSE_FIRST.saturating_mul(doubled).min(limits::EXEC_PAUSE_LONGEST);
        self.breath = Some(now + breath);
        Some(breath)
    }
}

/// The second of the day by the local clock (`TZ`, else the system's time zone).
pub(super) fn local_second() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = libc::time_t::try_from(now).unwrap_or(libc::time_t::MAX);
    // SAFETY: all-zero is a valid `tm`, and the call only reads the one and writes the other.
    let local = unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        #[cfg(unix)]
        libc::localtime_r(&raw const now, &raw mut local);
        #[cfg(windows)]
        libc::localtime_s(&raw mut local, &raw const now);
        local
    };
    u32::try_from(local.tm_hour * 3_600 + local.tm_min * 60 + local.tm_sec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u32 = 12 * 3_600;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_rate_holds_in_every_span() {
        let mut pace = Pace::new(Some(rate("2/m").unwrap()), None);
        let start = Instant::now();
        let mut begun: Vec<u64> = Vec::new();
        // Every second somebody is there who could begin.
        for second in 0..300 {
            let now = start + seconds(second);
            let free = pace.free(now, NOON);
            if free.commands > 0 {
                pace.begins(now);
                begun.push(second);
            } else {
                let again = free.again.unwrap();
                assert!(pace.clone().free(now + again, NOON).commands > 0, "it says when to ask again");
                assert_eq!(pace.free(now + again - Duration::from_millis(1), NOON).commands, 0);
            }
        }
        assert_eq!(begun, [0, 1, 60, 61, 120, 121, 180, 181, 240, 241]);
    }

    #[test]
    fn quiet_hours_may_go_over_midnight() {
        let at = |hour: u32, minute: u32| hour * 3_600 + minute * 60;
        let night = quiet("22:00-07:00").unwrap();
        for (second, covered) in [
            (at(21, 59) + 59, false),
            (at(22, 0), true),
            (at(23, 59), true),
            (0, true),
            (at(6, 59) + 59, true),
            (at(7, 0), false),
            (NOON, false),
        ] {
            assert_eq!(night.covers(second), covered, "{second}");
            let free = Pace::new(None, Some(night)).free(Instant::now(), second);
            assert_eq!((free.quiet, free.commands == 0), (covered, covered));
            assert_eq!(free.again, Some(limits::EXEC_QUIET_LOOK), "the clock is looked at again");
        }
        let lunch = quiet("12:00-13:30").unwrap();
        assert!(lunch.covers(NOON) && !lunch.covers(at(13, 30)) && !lunch.covers(0));
        assert_eq!((night.end(), lunch.end()), ("07:00".to_owned(), "13:30".to_owned()));
    }

    #[test]
    fn what_is_no_rate_and_no_hours_is_told() {
        for text in ["", "20", "0/m", "-1/m", "20/x", "20/", "20/ms", "20/5m", "/m", "1.5/s", "99999999/s"] {
            assert!(rate(text).unwrap_err().contains("20/m"), "{text}");
        }
        for text in ["", "22:00", "22:00-22:00", "24:00-07:00", "22-7", "22:60-07:00", "2:00-07:00", "+2:00-07:00"] {
            assert!(quiet(text).unwrap_err().contains("22:00-07:00"), "{text}");
        }
        assert_eq!(rate("100 / h").unwrap(), Rate { count: 100, per: seconds(3_600) });
        assert_eq!(rate("7/min"), rate("7/m"));
    }

    #[test]
    fn different_messages_that_fail_in_a_row_slow_the_gateway_down_and_one_bad_message_does_not() {
        let now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..20 {
            assert_eq!(pace.failed("bad", now), None);
        }
        let breaths: Vec<_> = (0..20).filter_map(|number| pace.failed(&number.to_string(), now)).collect();
        assert!(breaths.is_sorted() && breaths[0] == limits::EXEC_PAUSE_FIRST, "{breaths:?}");
        assert_eq!(breaths.last(), Some(&limits::EXEC_PAUSE_LONGEST));
        assert_eq!(pace.free(now, NOON).commands, 0);
        assert_eq!(pace.free(now, NOON).again, Some(limits::EXEC_PAUSE_LONGEST));
        assert!(pace.free(now + limits::EXEC_PAUSE_LONGEST, NOON).commands > 0);
        pace.succeeded();
        assert_eq!(pace.free(now, NOON), Free { commands: usize::MAX, again: None, quiet: false });
    }
}
