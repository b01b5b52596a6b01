//! Converts dates and times of messages (ISO 8601) to the format of databases: in UTC, to the second.
//!
//! Never guesses: a date that does not exist in the calendar is refused.

use time::{Date, UtcDateTime};

use super::super::datetime::{self, text_of};

/// The first second of the year 1 and the last second of the year 9999, the range of dates that every database writes in this format.
pub(super) const FIRST: i64 = -62_135_596_800;
pub(super) const LAST: i64 = 253_402_300_799;

/// Seconds since 1970 (negative before) as text; `None` outside the years 1 to 9999.
pub(super) fn seconds_to_text(seconds: i64) -> Option<String> {
    let moment = (FIRST..=LAST).contains(&seconds).then(|| UtcDateTime::from_unix_timestamp(seconds).ok());
    moment.flatten().map(text_of)
}

/// Parses an ISO 8601 date and time to seconds since 1970. Seconds and their fraction, which is dropped, are optional; so is the offset, whose
/// default is UTC.
pub(super) fn seconds_from_iso(text: &str) -> Option<i64> {
    let (date, rest) = (text.get(..10)?, text.get(10..)?);
    let date = date_of(date)?;
    let time = rest.strip_prefix(['T', 't', ' '])?;
    let (minutes, rest) = clock(time, true)?;
    let (second, rest) = match rest.strip_prefix(':') {
        None => (0, rest),
        Some(rest) => {
            let (second, rest) = two_digits(rest, 59)?;
            match rest.strip_prefix(['.', ',']) {
                None => (second, rest),
                Some(fraction) => {
                    let rest = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
                    (rest.len() < fraction.len()).then_some((second, rest))?
                }
            }
        }
    };
    let offset = match rest.split_at_checked(1) {
        None | Some(("Z" | "z", "")) => 0,
        Some((sign @ ("+" | "-"), ahead)) => {
            let (minutes, rest) = clock(ahead, false)?;
            let minutes = rest.is_empty().then_some(i64::try_from(minutes).ok()?)?;
            if sign == "+" { minutes } else { -minutes }
        }
        Some(_) => return None,
    };
    let seconds = date.midnight().as_utc().unix_timestamp() + i64::try_from(minutes * 60 + second).ok()? - offset * 60;
    seconds_to_text(seconds).map(|_| seconds)
}

/// Whether this is a date, `YYYY-MM-DD`, that exists in the calendar.
pub(super) fn is_date(text: &str) -> bool {
    date_of(text).is_some()
}

fn date_of(text: &str) -> Option<Date> {
    let (year, rest) = text.split_at_checked(4)?;
    let year = year.bytes().all(|byte| byte.is_ascii_digit()).then(|| year.parse().ok()).flatten()?;
    let (month, rest) = two_digits(rest.strip_prefix('-')?, 12)?;
    let (day, rest) = two_digits(rest.strip_prefix('-')?, 31)?;
    let date = datetime::date(year, u8::try_from(month).ok()?, u8::try_from(day).ok()?)?;
    (year >= 1 && rest.is_empty()).then_some(date)
}

/// Parses `HH:MM`; returns the minutes and the rest of the text. Unless `strict`, the colon and the minutes are optional.
fn clock(text: &str, strict: bool) -> Option<(u64, &str)> {
    let (hours, rest) = two_digits(text, 23)?;
    let (minutes, rest) = match rest.strip_prefix(':') {
        Some(rest) => two_digits(rest, 59)?,
        None if strict => return None,
        None if rest.is_empty() => (0, rest),
        None => two_digits(rest, 59)?,
    };
    Some((hours * 60 + minutes, rest))
}

fn two_digits(text: &str, most: u64) -> Option<(u64, &str)> {
    let (digits, rest) = text.split_at_checked(2)?;
    let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()?;
    (number <= most).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn iso_8601_is_understood_to_the_second_and_told_in_utc() {
        for (text, expected) in [
            ("2025-11-22T08:26:40Z", "2025-11-22 08:26:40"),
            ("2025-11-22t08:26:40z", "2025-11-22 08:26:40"),
            ("2025-11-22 08:26:40", "2025-11-22 08:26:40"),
            ("2025-11-22T08:26", "2025-11-22 08:26:00"),
            ("2025-11-22T08:26+01:00", "2025-11-22 07:26:00"),
            ("2025-11-22T00:26:40.123456+02:00", "2025-11-21 22:26:40"),
            ("2025-11-22T08:26:40,5-0330", "2025-11-22 11:56:40"),
            ("2025-12-31T23:59:59-14", "2026-01-01 13:59:59"),
            ("1969-07-20T20:17:40Z", "1969-07-20 20:17:40"),
            ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00"),
            ("9999-12-31T23:59:59Z", "9999-12-31 23:59:59"),
        ] {
            assert_eq!(seconds_from_iso(text).and_then(seconds_to_text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "2025-11-22",
            "2025-11-22T",
            "2025-11-22T8:26:40",
            "2025-11-22T0826",
            "2025-11-22T08:26:",
            "2025-11-22T08:26:60Z",
            "2025-11-22T24:00:00Z",
            "2025-11-22T08:26:40.Z",
            "2025-11-22T08:26:40+",
            "2025-11-22T08:26:40+1",
            "2025-11-22T08:26:40+01:00 ",
            "2025-11-22T08:26:40 CET",
            "2025-11-22é08:26:40",
            "2025-02-29T00:00:00Z",
            "2026-02-31T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(seconds_from_iso(text), None, "{text}");
        }
        for (text, expected) in
            [("1985-04-12", true), ("2024-02-29", true), ("2025-02-29", false), ("1985-4-12", false), ("", false)]
        {
            assert_eq!(is_date(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn iso_8601_comes_back_and_does_not_panic(
            seconds in FIRST..=LAST,
            text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}\\PC{0,6}",
        ) {
            let told = seconds_to_text(seconds);
            prop_assert_eq!(told.as_deref().and_then(seconds_from_iso), Some(seconds));
            let _ = (seconds_from_iso(&text), is_date(&text));
        }
    }
}
