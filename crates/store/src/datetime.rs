//! `created` as the seed's table has it: `YYYY-MM-DD HH:MM:SS`, here always UTC.

use wsmb_core::message::Timestamp;

const MILLIS: u64 = 1_000;
/// Seconds of a day.
pub(super) const DAY: u64 = 86_400;

/// The last second of the year 9999, beyond which the format has no room.
const LAST: u64 = 253_402_300_799;

/// Days from 0000-03-01 to 1970-01-01.
pub(super) const SHIFT: u64 = 719_468;

/// The moment as text, to the second; later than the year 9999 becomes its last second.
#[must_use]
pub(super) fn to_text(moment: Timestamp) -> String {
    let seconds = (moment.0 / MILLIS).min(LAST);
    text_of(seconds / DAY + SHIFT, seconds % DAY)
}

/// The text of the moment that was written last: messages that are stored together were often accepted within the same second.
#[derive(Default)]
pub(super) struct Texts {
    last: Option<(u64, String)>,
}

impl Texts {
    /// The same as [`to_text`].
    pub fn of(&mut self, moment: Timestamp) -> &str {
        let second = moment.0 / MILLIS;
        if self.last.as_ref().is_some_and(|(last, _)| *last != second) {
            self.last = None;
        }
        &self.last.get_or_insert_with(|| (second, to_text(moment))).1
    }
}

/// A second of a day counted from 0000-03-01, as text.
pub(super) fn text_of(day: u64, rest: u64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Reads `YYYY-MM-DD HH:MM:SS`, with `T` between date and time and a fraction of a second too; `None` for anything else, and for a time before 1970.
#[must_use]
pub(super) fn from_text(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let separators = [(4, b"-".as_slice()), (7, b"-"), (10, b" T"), (13, b":"), (16, b":")];
    if bytes.len() < 19 || separators.iter().any(|(at, allowed)| !allowed.contains(&bytes[*at])) {
        return None;
    }
    if bytes.len() > 19 && bytes[19] != b'.' {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    let seconds = (days(year, month, day) - SHIFT) * DAY + hour * 3_600 + minute * 60 + second;
    Some(Timestamp(seconds * MILLIS))
}

/// Year, month and day of a day counted from 0000-03-01. The years are taken to begin in March, so that the leap day is the last of its year; an
/// era is 400 of them, 146,097 days.
pub(super) fn civil(shifted: u64) -> (u64, u64, u64) {
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`], for years from 1 on.
pub(super) fn days(year: u64, month: u64, day: u64) -> u64 {
    let shifted_year = year - u64::from(month <= 2);
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_763_800_000, "2025-11-22 08:26:40"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (LAST, "9999-12-31 23:59:59"),
        ] {
            assert_eq!(to_text(Timestamp(seconds * 1_000 + 7)), text);
            assert_eq!(from_text(text), Some(Timestamp(seconds * 1_000)));
        }
        assert_eq!(to_text(Timestamp(u64::MAX)), "9999-12-31 23:59:59");
    }

    #[test]
    fn the_text_of_a_second_is_used_for_that_second_only() {
        let mut texts = Texts::default();
        for millis in [0, 999, 1_000, 999, 951_782_400_000, 951_782_400_001, u64::MAX, u64::MAX - 1, 0] {
            assert_eq!(texts.of(Timestamp(millis)), to_text(Timestamp(millis)));
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "now",
            "0000-00-00 00:00:00",
            "2026-13-01 00:00:00",
            "2026-01-01",
            "2026-01-01 00:00:0x",
            "é026-01-01 00:00:00",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
        assert_eq!(from_text("2026-01-01T00:00:01.5"), from_text("2026-01-01 00:00:01"));
    }

    proptest! {
        #[test]
        fn every_second_comes_back(seconds in 0..=LAST) {
            let moment = Timestamp(seconds * MILLIS);
            prop_assert_eq!(from_text(&to_text(moment)), Some(moment));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            let _ = from_text(&text);
        }
    }
}
