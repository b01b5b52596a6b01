//! Arguments that several subcommands read alike: durations, channel names.

use std::time::Duration;

use crate::limits;
use crate::message::ChannelName;

/// A channel name.
pub(crate) fn channel(text: &str) -> Result<ChannelName, String> {
    ChannelName::parse(text).map_err(|error| error.to_string())
}

/// A duration: `90` (seconds), `90s`, `500ms`, `5m`, `2h`, `1d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("`{text}` is not a duration; write it as 90s, 500ms, 5m, 2h or 1d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(bad)
}

/// How long `send` keeps trying.
pub(crate) fn send_timeout(text: &str) -> Result<Duration, String> {
    let timeout = duration(text)?;
    if timeout > limits::SEND_TIMEOUT {
        return Err(format!(
            "at most {} seconds: the broker recognises a repetition for two minutes, and a later one would double the message",
            limits::SEND_TIMEOUT.as_secs()
        ));
    }
    Ok(timeout)
}

/// A name that the broker keeps for a connection or a publication.
pub(crate) fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > limits::NAME_BYTES {
        return Err(format!("it must have 1 to {} bytes", limits::NAME_BYTES));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_or_is_in_seconds() {
        let table = [
            ("0", 0),
            ("90", 90_000),
            ("90s", 90_000),
            ("90 s", 90_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
        ];
        for (text, millis) in table {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1", "1.5s", "5 fortnights", "99999999999999999999", "9999999999999999d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sending_is_not_tried_for_longer_than_the_broker_remembers() {
        assert!(send_timeout("100s").is_ok());
        assert!(send_timeout("101s").unwrap_err().contains("double"));
    }
}
