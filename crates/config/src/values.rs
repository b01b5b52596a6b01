//! Converts values to times, sizes, numbers, lists and addresses. Each error is the end of a sentence that begins with the key, and shows
//! a valid spelling. An error must never repeat the elements of a list, which may be secrets.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::model::TLS_PREFIX;
use super::raw::Value;
use crate::limits;
use wsmb_core::duration::{UNITS, format_duration, number_and_unit, parse_duration};
use wsmb_core::network::{BadNetwork, Network, Networks};
use wsmb_protocol::origin::Origin;

/// The value in an error message.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Untyped(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Boolean(boolean) => write!(f, "{boolean}"),
            Self::List(_) => f.write_str("a list"),
        }
    }
}

/// Reads a text.
pub(super) fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) | Value::Untyped(text) => Ok(text.clone()),
        _ => Err("must be a text in quotes".to_owned()),
    }
}

/// Reads a list of texts. A text in the file is a list of one. In the environment and in flags, commas separate the texts.
pub(super) fn list(value: &Value) -> Result<Vec<String>, String> {
    let list: Vec<String> = match value {
        Value::List(list) => list.clone(),
        Value::Text(text) => vec![text.clone()],
        Value::Untyped(text) => {
            text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
        }
        _ => return Err("must be a list of texts, like [\"one\", \"two\"]".to_owned()),
    };
    if list.len() > limits::LIST_ENTRIES {
        return Err(format!("has more than {} entries", limits::LIST_ENTRIES));
    }
    Ok(list)
}

/// Reads `true` or `false`.
pub(super) fn boolean(value: &Value) -> Result<bool, String> {
    match value {
        Value::Boolean(boolean) => Ok(*boolean),
        Value::Untyped(text) if text == "true" => Ok(true),
        Value::Untyped(text) if text == "false" => Ok(false),
        _ => Err(format!("must be true or false, not {value}")),
    }
}

/// Reads a whole number.
pub(super) fn integer(value: &Value, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let number = match value {
        Value::Integer(number) => u64::try_from(*number).ok(),
        Value::Untyped(text) => text.replace('_', "").parse().ok(),
        _ => None,
    };
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("must be a whole number from {} to {}, not {value}", range.start(), range.end()))
}

/// Reads a time: `500ms`, `25s`, `5m30s`, or a number of seconds.
pub(super) fn duration(value: &Value, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let duration = match value {
        Value::Text(text) | Value::Untyped(text) => parse_duration(text),
        Value::Integer(seconds) => u64::try_from(*seconds).ok().map(Duration::from_secs),
        _ => None,
    };
    let Some(duration) = duration else {
        return Err(format!(
            "must be a time like \"500ms\", \"25s\", \"5m30s\", \"2h\", \"1d\" or a number of seconds, not {value}"
        ));
    };
    if range.contains(&duration) {
        Ok(duration)
    } else {
        Err(format!(
            "must be from {:?} to {:?}, not {value}",
            format_duration(*range.start()),
            format_duration(*range.end())
        ))
    }
}

/// Reads a rate: `"100/s"`, `"10/m"`, `"1000/h"`. Returns the count and the period.
pub(super) fn rate(value: &Value) -> Result<(u32, Duration), String> {
    let rate = match value {
        Value::Text(text) | Value::Untyped(text) => parse_rate(text),
        _ => None,
    };
    rate.ok_or_else(|| {
        format!("must be a rate like \"100/s\", \"10/m\" or \"1000/h\", at most 1,000,000 in a period, not {value}")
    })
}

fn parse_rate(text: &str) -> Option<(u32, Duration)> {
    let (count, unit) = text.split_once('/')?;
    let count = count.trim().parse().ok().filter(|count| (1..=1_000_000).contains(count))?;
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit.trim() && *name != "ms")?;
    Some((count, Duration::from_millis(*millis)))
}

/// Reads a size in bytes: `1000000`, `"64 KiB"`, `"1MiB"`, `"2 MB"`.
pub(super) fn size(value: &Value, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let size = match value {
        Value::Text(text) | Value::Untyped(text) => parse_size(text),
        Value::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let size =
        size.ok_or_else(|| format!("must be a size like \"64 KiB\", \"1 MiB\" or a number of bytes, not {value}"))?;
    Some(size).filter(|size| range.contains(size)).ok_or_else(|| {
        format!("must be from {:?} to {:?}, not {value}", format_size(*range.start()), format_size(*range.end()))
    })
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let bytes = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn format_size(size: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| size != 0 && size.trailing_zeros() >= *shift) {
        Some((name, shift)) => format!("{} {name}", size >> shift),
        None => size.to_string(),
    }
}

/// Checks an address to listen on, `host:port`.
pub(super) fn check_listen(text: &str) -> Result<(), String> {
    if let Some(port) = port(text.strip_prefix(':').unwrap_or(text)) {
        return Err(only_a_port(port, &format_args!("{text:?}")));
    }
    let right = "must be an address like \"127.0.0.1:8888\", \"[::1]:8888\" or \"localhost:8888\"";
    let wrong = || format!("{right}, not {text:?}");
    let (host, after) = text.rsplit_once(':').ok_or_else(wrong)?;
    if port(after).is_none() {
        return Err(wrong());
    }
    let good = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    if good { Ok(()) } else { Err(wrong()) }
}

fn port(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The error for a port without an address. It shows both likely intentions: this machine only, or all addresses.
fn only_a_port(port: u16, written: &dyn fmt::Display) -> String {
    format!(
        "must name an address with its port: write \"127.0.0.1:{port}\" for this machine only, or \"0.0.0.0:{port}\" for every address, not {written}"
    )
}

/// Reads one address to listen on.
pub(super) fn address(value: &Value) -> Result<String, String> {
    check_port_alone(value)?;
    let text = text(value)?;
    check_listen(&text).map(|()| text)
}

/// Reads the addresses to listen on; at least one.
pub(super) fn addresses(value: &Value) -> Result<Vec<String>, String> {
    check_port_alone(value)?;
    let list = list(value)?;
    if list.is_empty() {
        return Err("must have at least one address, like \"127.0.0.1:8888\"".to_owned());
    }
    list.iter().try_for_each(|address| check_listen(address.strip_prefix(TLS_PREFIX).unwrap_or(address)))?;
    Ok(list)
}

fn check_port_alone(value: &Value) -> Result<(), String> {
    match value {
        Value::Integer(number) => Err(match u16::try_from(*number) {
            Ok(port) => only_a_port(port, number),
            Err(_) => format!("must be an address like \"127.0.0.1:8888\", not {number}"),
        }),
        _ => Ok(()),
    }
}

/// Reads addresses and networks, such as `10.0.0.0/8`.
pub(super) fn networks(value: &Value) -> Result<Networks, String> {
    list(value)?.iter().map(|text| network(text)).collect()
}

fn network(text: &str) -> Result<Network, String> {
    Network::parse(text).map_err(|bad| match bad {
        BadNetwork::Form => {
            format!(
                "must have addresses and networks like \"127.0.0.1\", \"10.0.0.0/8\" or \"2001:db8::/32\", not {text:?}"
            )
        }
        BadNetwork::Prefix(bits) => format!("has {text:?}, but such an address has only {bits} bits"),
        BadNetwork::Host(meant) => format!("has {text:?}, which is an address inside a network; write \"{meant}\""),
    })
}

/// Reads origins of web pages, such as `https://app.example`.
pub(super) fn origins(value: &Value) -> Result<Vec<Origin>, String> {
    let origin = |text: &String| {
        Origin::parse(text).ok_or_else(|| {
            format!("must have origins like \"https://app.example\" or \"http://192.0.2.7:8080\", without a path, not {text:?}")
        })
    };
    list(value)?.iter().map(origin).collect()
}

/// Converts an empty text to `None`.
pub(super) fn some_text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Reads a path; an empty text means none.
pub(super) fn path(value: &Value) -> Result<Option<PathBuf>, String> {
    let text = text(value)?;
    if text.contains('\0') {
        return Err("contains a NUL character, which no path may contain".to_owned());
    }
    Ok(some_text(text).map(PathBuf::from))
}

/// Whether the text contains only letters, digits and underscores, so that it can be used in SQL as a name or part of a name.
pub(super) fn is_identifier(text: &str, longest: usize) -> bool {
    text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times() {
        let good = [
            ("25", 25_000),
            ("0", 0),
            ("25s", 25_000),
            ("500ms", 500),
            ("5m", 300_000),
            ("5min", 300_000),
            ("5m30s", 330_000),
            ("1h 30m", 5_400_000),
            ("1d2h3m4s5ms", 93_784_005),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("0s", 0),
            ("0m0s", 0),
            (" 25 s ", 25_000),
        ];
        for (text, millis) in good {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in [
            "",
            " ",
            "s",
            "25 seconds",
            "-1s",
            "+1",
            "1.5s",
            "30s5m",
            "5s5s",
            "5m30",
            "0s0s",
            "25S",
            "99999999999999999999s",
            "18446744073709551615",
            "18446744073709551615d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn rates() {
        let second = Duration::from_secs(1);
        for (text, rate) in [("100/s", (100, second)), (" 10 / m", (10, 60 * second)), ("1/d", (1, 86_400 * second))] {
            assert_eq!(parse_rate(text), Some(rate), "{text}");
        }
        for text in ["", "10", "0/s", "-1/s", "1.5/s", "10/", "10/ms", "10/sec", "1000001/s"] {
            assert_eq!(parse_rate(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        let good = [
            ("1 MiB", 1 << 20),
            ("64KiB", 64 << 10),
            ("1000000", 1_000_000),
            ("2 MB", 2_000_000),
            ("1 gib", 1 << 30),
            ("1 TiB", 1 << 40),
            ("7 B", 7),
        ];
        for (text, bytes) in good {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1 M", "1.5 MiB", "-1", "99999999999 GiB", "1 PiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn addresses() {
        for good in ["127.0.0.1:8888", "0.0.0.0:0", "[::1]:8888", "localhost:80", "my-host.example:65535"] {
            assert_eq!(check_listen(good), Ok(()), "{good}");
        }
        for bad in
            ["", "127.0.0.1", "127.0.0.1:", "h:65536", "h:+1", "::1:8888", "[::1]", "[x]:1", "http://h:1", "a b:1"]
        {
            assert!(check_listen(bad).unwrap_err().starts_with("must be an address like"), "{bad}");
        }
        for bad in ["8888", ":8888"] {
            assert!(check_listen(bad).unwrap_err().contains("write \"127.0.0.1:8888\""), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn formatted_values_are_parsed_back(millis in 0_u64..10_000_000_000, bytes in 0_u64..100_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn parsing_any_text_does_not_panic(text in "\\PC{0,20}") {
            let _ = (parse_duration(&text), parse_size(&text), check_listen(&text));
        }
    }
}
