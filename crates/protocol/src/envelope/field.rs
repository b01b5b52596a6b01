//! Converts the JSON text of a field into a valid value, or into an error message.

use std::borrow::Cow;
use std::time::Duration;

use super::Ack;
use wsmb_core::message::{BadChannelName, ChannelName, DeliveryName, Order};

/// The error message for a field.
pub(super) type FieldError = String;

/// The longest `ttl` and `delay`: 100 years. A longer duration is reduced to it.
const LONGEST_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// Returns the text of a field. It is valid UTF-8, because it is a part of a UTF-8 text between ASCII characters.
#[inline]
pub(super) fn text(json: &[u8]) -> &str {
    std::str::from_utf8(json).unwrap_or_default()
}

/// Returns the contents of a JSON string; `None` if `json` is not a string, or contains an unpaired surrogate.
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Returns the contents of a JSON string, or the unchanged text of a JSON number.
pub(super) fn name(json: &str) -> Option<Cow<'_, str>> {
    if is_number(json) { Some(Cow::Borrowed(json)) } else { string(json) }
}

/// Parses `id`, `receiver` or `group`: a name of 1 to [`wsmb_core::limits::NAME_BYTES`] bytes.
pub(super) fn short_name<'a>(field: &str, json: &'a str) -> Result<Cow<'a, str>, FieldError> {
    match name(json) {
        None => Err(unlike(field, "a string or a number", json)),
        Some(name) if name.is_empty() => Err(format!("'{field}' is empty; leave it out, or give it a value")),
        Some(name) if name.len() > wsmb_core::limits::NAME_BYTES => {
            Err(format!("'{field}' is longer than {} bytes", wsmb_core::limits::NAME_BYTES))
        }
        Some(name) => Ok(name),
    }
}

/// Parses a channel name.
pub(super) fn channel(json: &str) -> Result<ChannelName, FieldError> {
    let Some(name) = name(json) else {
        return Err(unlike("channel", "a string or a number", json));
    };
    ChannelName::parse(&name).map_err(|bad| match bad {
        BadChannelName::Empty => "'channel' is empty; a channel name has at least one character".to_owned(),
        BadChannelName::TooLong => {
            format!(
                "'channel' is too long; a channel name has at most {} characters",
                wsmb_core::limits::CHANNEL_NAME_CHARS
            )
        }
        BadChannelName::ControlCharacter => {
            "'channel' contains a control character; a channel name must not".to_owned()
        }
    })
}

/// Parses `number_of_receiver`: an integer, or a string with an integer; the sign is ignored. Any other value counts as missing, as in the PHP broker. A
/// number above `u32::MAX` becomes `u32::MAX`.
pub(super) fn receivers(json: &str) -> Option<u32> {
    let text = name(json)?;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    whole(digits).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// Parses `prefetch`. A number above the limit is reduced to the limit.
pub(super) fn prefetch(json: &str) -> Result<u32, FieldError> {
    match whole(json) {
        Some(number @ 1..) => Ok(u32::try_from(number).unwrap_or(u32::MAX).min(wsmb_core::limits::MAX_PREFETCH)),
        _ => Err("'prefetch' must be an integer, 1 or more".to_owned()),
    }
}

/// Parses `ack`.
pub(super) fn ack(json: &str) -> Result<Ack, FieldError> {
    match string(json).as_deref() {
        Some("auto") => Ok(Ack::Automatic),
        Some("manual") => Ok(Ack::Manual),
        _ => Err("'ack' must be \"auto\" or \"manual\"".to_owned()),
    }
}

/// Parses `order`.
pub(super) fn order(json: &str) -> Result<Order, FieldError> {
    match string(json).as_deref() {
        Some("list") => Ok(Order::List),
        Some("fair") => Ok(Order::Fair),
        _ => Err("'order' must be \"list\" or \"fair\"".to_owned()),
    }
}

/// Parses `ttl`, `delay` or `retry_after`: seconds, with an optional fraction.
pub(super) fn duration(field: &str, json: &str) -> Result<Duration, FieldError> {
    let seconds = if is_number(json) { json.parse::<f64>().ok() } else { None };
    match seconds {
        Some(seconds) if seconds >= 0.0 => {
            Ok(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_DURATION).min(LONGEST_DURATION))
        }
        Some(_) => Err(format!("'{field}' must not be negative")),
        None => Err(format!("'{field}' must be a number of seconds, not {}", kind(json))),
    }
}

/// Parses `delivery`: the name that the delivery had.
pub(super) fn delivery(json: &str) -> Result<DeliveryName, FieldError> {
    string(json)
        .and_then(|text| DeliveryName::parse(&text))
        .ok_or_else(|| "'delivery' must be the string that the delivery carried, unchanged".to_owned())
}

/// Parses `reject`.
pub(super) fn boolean(field: &str, json: &str) -> Result<bool, FieldError> {
    match json {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("'{field}' must be true or false, not {}", kind(json))),
    }
}

/// Parses `reason`, and truncates it to [`wsmb_core::limits::REASON_BYTES`]. Returns `None` if it is empty.
pub(super) fn reason(json: &str) -> Result<Option<Box<str>>, FieldError> {
    let Some(text) = string(json) else { return Err(format!("'reason' must be a string, not {}", kind(json))) };
    let cut = text.floor_char_boundary(wsmb_core::limits::REASON_BYTES);
    Ok(text.get(..cut).filter(|text| !text.is_empty()).map(Box::from))
}

/// Returns the error message for a value of a wrong type, or for a string with an unpaired surrogate. `wanted`: the right type.
pub(super) fn unlike(field: &str, wanted: &str, json: &str) -> FieldError {
    match kind(json) {
        // The grammar of JSON allows it (RFC 8259 section 8.2), but it is not a character.
        "a string" => {
            format!("'{field}' contains half of a surrogate pair; write both halves (\\ud83d\\ude00), or neither")
        }
        kind => format!("'{field}' must be {wanted}, not {kind}"),
    }
}

/// Returns the type of a JSON value in words.
pub(super) fn kind(json: &str) -> &'static str {
    match json.as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

fn is_number(json: &str) -> bool {
    matches!(json.as_bytes().first(), Some(b'-' | b'0'..=b'9'))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Parses an integer in digits. A number above `u64::MAX` becomes `u64::MAX`.
fn whole(text: &str) -> Option<u64> {
    is_digits(text).then(|| text.parse().unwrap_or(u64::MAX))
}
