//! The text format of the column `created`, as the original table has it: `YYYY-MM-DD HH:MM:SS`, always UTC.

use time::{Date, Month, UtcDateTime};
use wsmb_core::message::Timestamp;

const MILLIS: u64 = 1_000;

/// The last second of the year 9999, the end of the format's range.
const LAST: u64 = 253_402_300_799;

/// The moment as text, to the second. A later moment than the year 9999 becomes the last second of that year.
#[must_use]
pub(super) fn to_text(moment: Timestamp) -> String {
    UtcDateTime::from_unix_timestamp((moment.0 / MILLIS).min(LAST) as i64).map(text_of).unwrap_or_default()
}

/// Caches the text of the last second: messages that are stored together were often accepted within the same second.
#[derive(Default)]
pub(super) struct Texts {
    last: Option<(u64, String)>,
}

impl Texts {
    /// Returns the same text as [`to_text`].
    pub fn of(&mut self, moment: Timestamp) -> &str {
        let second = moment.0 / MILLIS;
        if self.last.as_ref().is_some_and(|(last, _)| *last != second) {
            self.last = None;
        }
        &self.last.get_or_insert_with(|| (second, to_text(moment))).1
    }
}

/// A moment of the years 0 to 9999 as text, to the second.
pub(super) fn text_of(moment: UtcDateTime) -> String {
    let ((year, month, day), (hour, minute, second)) = (moment.to_calendar_date(), moment.as_hms());
    format!("{year:04}-{:02}-{day:02} {hour:02}:{minute:02}:{second:02}", u8::from(month))
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
    let number = |from: usize, to: usize| -> Option<u16> {
        let digits = text.get(from..to)?;
        if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let pair = |from: usize| u8::try_from(number(from, from + 2)?).ok();
    let date = date(number(0, 4)?, pair(5)?, pair(8)?)?;
    let moment = date.with_hms(pair(11)?, pair(14)?, pair(17)?).ok()?.as_utc();
    Some(Timestamp(u64::try_from(moment.unix_timestamp()).ok()? * MILLIS))
}

/// The date; `None` if the calendar has no such day.
pub(super) fn date(year: u16, month: u8, day: u8) -> Option<Date> {
    Date::from_calendar_date(i32::from(year), Month::try_from(month).ok()?, day).ok()
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
            "2026-02-29 00:00:00",
            "2026-01-01 24:00:00",
            "1969-12-31 23:59:59",
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
