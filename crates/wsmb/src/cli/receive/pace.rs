//! Decides when the next command may start: `--rate`, `--quiet`, and a pause after several failures in a row. Never reads a clock: the caller passes the time.
//!
//! While no command may start, the receiver takes no message from the broker. So the message waits in the broker, which lets it expire in time.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::cli::arguments::duration;
use crate::limits;

/// At most `count` commands in any period of the length `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    count: usize,
    per: Duration,
}

/// Parses a rate such as `20/m`: a number, and a unit of a duration (a second or longer).
pub(super) fn rate(text: &str) -> Result<Rate, String> {
    let bad = || format!("`{text}` is not a rate; write it as 20/m (20 in any minute), 1/s, 100/h or 500/d");
    let (count, unit) = text.split_once('/').ok_or_else(bad)?;
    let count = count.trim().parse().ok().filter(|count| (1..=limits::EXEC_RATE).contains(count)).ok_or_else(bad)?;
    let unit = unit.trim();
    let is_unit = !unit.is_empty() && unit != "ms" && unit.bytes().all(|byte| byte.is_ascii_alphabetic());
    let per = if is_unit { duration(&format!("1{unit}")).ok() } else { None };
    Ok(Rate { count, per: per.ok_or_else(bad)? })
}

/// A period of the day in which no command starts, in seconds since midnight. If `from > to`, the period includes midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quiet {
    from: u32,
    to: u32,
}

/// Parses a period such as `22:00-07:00`.
pub(super) fn quiet(text: &str) -> Result<Quiet, String> {
    let bad = || format!("`{text}` is not a period of the day; write it as 22:00-07:00");
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

    /// Returns the end of the period: `07:00`.
    pub(super) fn end(self) -> String {
        format!("{:02}:{:02}", self.to / 3_600, self.to / 60 % 60)
    }
}

/// How many commands may start now, and after which time to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub commands: usize,
    pub ask_after: Option<Duration>,
    pub quiet: bool,
}

/// The limits on the start of commands, with their state.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    rate: Option<Rate>,
    quiet: Option<Quiet>,
    /// The start times of the commands within the last period of the rate, oldest first.
    started: VecDeque<Instant>,
    /// The ids of the messages that have failed since the last success.
    failing: HashSet<String>,
    /// The end of the pause after several failures.
    pause: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rate: Option<Rate>, quiet: Option<Quiet>) -> Self {
        Self { rate, quiet, ..Self::default() }
    }

    /// Returns how many commands may start now. `second`: seconds since midnight, by the local clock.
    pub(super) fn allowance(&mut self, now: Instant, second: u32) -> Allowance {
        let quiet = self.quiet.is_some_and(|quiet| quiet.covers(second));
        // Ask again soon, because the local clock may be set, and daylight saving time may begin or end.
        let mut ask_after = self.quiet.map(|_| limits::EXEC_QUIET_POLL);
        if quiet {
            return Allowance { commands: 0, ask_after, quiet };
        }
        let mut wait = |until: Instant| {
            let wait = until.saturating_duration_since(now);
            ask_after = Some(ask_after.map_or(wait, |earlier| earlier.min(wait)));
        };
        let mut commands = usize::MAX;
        if let Some(Rate { count, per }) = self.rate {
            while self.started.front().is_some_and(|started| *started + per <= now) {
                self.started.pop_front();
            }
            commands = count.saturating_sub(self.started.len());
            if let Some(oldest) = self.started.front() {
                wait(*oldest + per);
            }
        }
        if let Some(pause) = self.pause.filter(|pause| *pause > now) {
            commands = 0;
            wait(pause);
        }
        Allowance { commands, ask_after, quiet }
    }

    /// Records the start of a command.
    pub(super) fn command_started(&mut self, now: Instant) {
        if self.rate.is_some() {
            self.started.push_back(now);
        }
    }

    /// Records a success, which ends the pause.
    pub(super) fn succeeded(&mut self) {
        self.failing.clear();
        self.pause = None;
    }

    /// Records the failure of a message. Returns the pause before the next command, if [`limits::EXEC_PAUSE_AFTER`] different messages have failed in a
    /// row: then the messages are not at fault, and without a pause the failures would use up the attempts of all of them.
    pub(super) fn failed(&mut self, id: &str, now: Instant) -> Option<Duration> {
        if self.failing.len() < limits::EXEC_FAILING_IDS {
            self.failing.insert(id.to_owned());
        }
        let beyond = self.failing.len().checked_sub(limits::EXEC_PAUSE_AFTER)?;
        let doubled = 2_u32.saturating_pow(u32::try_from(beyond).unwrap_or(u32::MAX));
        let pause = limits::EXEC_PAUSE_FIRST.saturating_mul(doubled).min(limits::EXEC_PAUSE_LONGEST);
        self.pause = Some(now + pause);
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u32 = 12 * 3_600;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_rate_holds_in_every_period() {
        let mut pace = Pace::new(Some(rate("2/m").unwrap()), None);
        let start = Instant::now();
        let mut started: Vec<u64> = Vec::new();
        // In every second a command is ready to start.
        for second in 0..300 {
            let now = start + seconds(second);
            let allowance = pace.allowance(now, NOON);
            if allowance.commands > 0 {
                pace.command_started(now);
                started.push(second);
            } else {
                let again = allowance.ask_after.unwrap();
                assert!(
                    pace.clone().allowance(now + again, NOON).commands > 0,
                    "a command may start at the returned time"
                );
                assert_eq!(pace.allowance(now + again - Duration::from_millis(1), NOON).commands, 0);
            }
        }
        assert_eq!(started, [0, 1, 60, 61, 120, 121, 180, 181, 240, 241]);
    }

    #[test]
    fn quiet_hours_may_include_midnight() {
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
            let allowance = Pace::new(None, Some(night)).allowance(Instant::now(), second);
            assert_eq!((allowance.quiet, allowance.commands == 0), (covered, covered));
            assert_eq!(allowance.ask_after, Some(limits::EXEC_QUIET_POLL), "the clock is read again");
        }
        let lunch = quiet("12:00-13:30").unwrap();
        assert!(lunch.covers(NOON) && !lunch.covers(at(13, 30)) && !lunch.covers(0));
        assert_eq!((night.end(), lunch.end()), ("07:00".to_owned(), "13:30".to_owned()));
    }

    #[test]
    fn the_errors_for_bad_rates_and_periods_show_an_example() {
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
    fn failures_of_different_messages_cause_pauses_and_failures_of_one_message_do_not() {
        let now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..20 {
            assert_eq!(pace.failed("bad", now), None);
        }
        let pauses: Vec<_> = (0..20).filter_map(|number| pace.failed(&number.to_string(), now)).collect();
        assert!(pauses.is_sorted() && pauses[0] == limits::EXEC_PAUSE_FIRST, "{pauses:?}");
        assert_eq!(pauses.last(), Some(&limits::EXEC_PAUSE_LONGEST));
        assert_eq!(pace.allowance(now, NOON).commands, 0);
        assert_eq!(pace.allowance(now, NOON).ask_after, Some(limits::EXEC_PAUSE_LONGEST));
        assert!(pace.allowance(now + limits::EXEC_PAUSE_LONGEST, NOON).commands > 0);
        pace.succeeded();
        assert_eq!(pace.allowance(now, NOON), Allowance { commands: usize::MAX, ask_after: None, quiet: false });
    }
}
