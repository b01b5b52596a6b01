//! Writes a [`Timestamp`] as ISO 8601 text.

use time::UtcDateTime;
use wsmb_core::message::Timestamp;

/// The last second of the year 9999: the format has four digits for the year.
const LAST: u64 = 253_402_300_799;

/// Returns `moment` as ISO 8601 text in UTC with milliseconds: `2026-11-22T10:00:00.000Z`.
#[must_use]
pub fn iso8601(moment: Timestamp) -> String {
    let Ok(date) = UtcDateTime::from_unix_timestamp((moment.0 / 1_000).min(LAST) as i64) else { return String::new() };
    let ((year, month, day), (hour, minute, second)) = (date.to_calendar_date(), date.as_hms());
    let (month, millis) = (u8::from(month), moment.0 % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_772_323_199_001, "2026-02-28T23:59:59.001Z"),
            (1_772_323_200_000, "2026-03-01T00:00:00.000Z"),
            (1_795_341_600_000, "2026-11-22T10:00:00.000Z"),
            (1_798_761_599_999, "2026-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (4_107_456_000_000, "2100-02-28T00:00:00.000Z"),
        ] {
            assert_eq!(iso8601(Timestamp(millis)), text);
        }
    }

    #[test]
    fn the_largest_timestamp_has_a_text() {
        assert!(iso8601(Timestamp(u64::MAX)).ends_with('Z'));
    }
}
