//! Times as people write them: `90`, `500ms`, `5m30s`.
//!
//! Never here: a clock.

use std::time::Duration;

/// Units of time, from the largest to the smallest, with their milliseconds.
pub const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses a time of the configuration, the command line or an HTTP request: `90` (seconds), `90s`, `500ms`, `5m`, `5m30s`, `1h 30m`, `2h`, `1d`. The units
/// must go from the largest to the smallest, each at most once. Returns `None` for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return rest.parse().ok().map(Duration::from_secs).filter(is_in_millis);
    }
    let mut millis = 0_u64;
    let mut units = UNITS.iter();
    while !rest.is_empty() || millis == 0 && units.len() == UNITS.len() {
        let (number, behind) = number_and_unit(rest)?;
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let unit = if &behind[..end] == "min" { "m" } else { &behind[..end] };
        let (_, factor) = units.by_ref().find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.checked_mul(*factor)?)?;
        rest = behind[end..].trim_start();
    }
    Some(Duration::from_millis(millis))
}

/// Whether the milliseconds fit in a `u64`.
fn is_in_millis(duration: &Duration) -> bool {
    u64::try_from(duration.as_millis()).is_ok()
}

/// Formats a time as [`parse_duration`] reads it, in the largest unit without a fraction.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match UNITS.iter().find(|(_, unit)| millis.is_multiple_of(u128::from(*unit))) {
        Some((name, unit)) if millis > 0 => format!("{}{name}", millis / u128::from(*unit)),
        _ => "0s".to_owned(),
    }
}

/// Splits a text into its leading number and the rest. Returns `None` if it does not begin with a number.
#[must_use]
pub fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}
