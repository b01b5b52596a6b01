//! One field of a command: from its JSON text to a valid value, or to the sentence that says what is wrong with it.

use std::borrow::Cow;
use std::time::Duration;

use super::Ack;
use wsmb_core::message::{BadChannelName, ChannelName, DeliveryName, Order};

/// What is wrong with a field.
pub(super) type Wrong = String;

/// The most that `ttl` and `delay` may say: beyond it nothing is meant but "very long".
const LONGEST_DURATION: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

/// The text of a field. (It is cut from UTF-8 at ASCII characters, so it is UTF-8 too.)
#[inline]
pub(super) fn text(json: &[u8]) -> &str {
    std::str::from_utf8(json).unwrap_or_default()
}

/// The contents of a JSON string; `None` if `json` is none, or if it holds half a surrogate pair.
pub(super) fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(json).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// The contents of a JSON string, or the text of a JSON number as it stands.
pub(super) fn name(json: &str) -> Option<Cow<'_, str>> {
    if is_number(json) { Some(Cow::Borrowed(json)) } else { string(json) }
}

/// A name of 1 to [`wsmb_core::limits::NAME_BYTES`] bytes: `id`, `receiver` and `group`.
pub(super) fn short_name<'a>(field: &str, json: &'a str) -> Result<Cow<'a, str>, Wrong> {
    match name(json) {
        None => Err(unlike(field, "a string or a number", json)),
        Some(name) if name.is_empty() => Err(format!("'{field}' is empty; leave it out, or give it a value")),
        Some(name) if name.len() > wsmb_core::limits::NAME_BYTES => {
            Err(format!("'{field}' is longer than {} bytes", wsmb_core::limits::NAME_BYTES))
        }
        Some(name) => Ok(name),
    }
}

/// One channel.
pub(super) fn channel(json: &str) -> Result<ChannelName, Wrong> {
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

/// `number_of_receiver`: an integer, or a string that is one, without its sign. Anything else is no wish at all, as in the
/// PHP original. What no counter holds means as many as can be.
pub(super) fn receivers(json: &str) -> Option<u32> {
    let text = name(json)?;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(&text);
    whole(digits).map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// `prefetch`, brought below the limit.
pub(super) fn prefetch(json: &str) -> Result<u32, Wrong> {
    match whole(json) {
        Some(wish @ 1..) => Ok(u32::try_from(wish).unwrap_or(u32::MAX).min(wsmb_core::limits::MAX_PREFETCH)),
        _ => Err("'prefetch' must be an integer, 1 or more".to_owned()),
    }
}

/// `ack`.
pub(super) fn ack(json: &str) -> Result<Ack, Wrong> {
    match string(json).as_deref() {
        Some("auto") => Ok(Ack::Automatic),
        Some("manual") => Ok(Ack::Manual),
        _ => Err("'ack' must be \"auto\" or \"manual\"".to_owned()),
    }
}

/// `order`.
pub(super) fn order(json: &str) -> Result<Order, Wrong> {
    match string(json).as_deref() {
        Some("list") => Ok(Order::List),
        Some("fair") => Ok(Order::Fair),
        _ => Err("'order' must be \"list\" or \"fair\"".to_owned()),
    }
}

/// `ttl` and `delay`: seconds, fractions allowed.
pub(super) fn duration(field: &str, json: &str) -> Result<Duration, Wrong> {
    let seconds = if is_number(json) { json.parse::<f64>().ok() } else { None };
    match seconds {
        Some(seconds) if seconds >= 0.0 => {
            Ok(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_DURATION).min(LONGEST_DURATION))
        }
        Some(_) => Err(format!("'{field}' must not be negative")),
        None => Err(format!("'{field}' must be a number of seconds, not {}", kind(json))),
    }
}

/// `delivery`, as the delivery stated it.
pub(super) fn delivery(json: &str) -> Result<DeliveryName, Wrong> {
    string(json)
        .and_then(|text| DeliveryName::parse(&text))
        .ok_or_else(|| "'delivery' must be the string that the delivery carried, unchanged".to_owned())
}

/// `reject`.
pub(super) fn boolean(field: &str, json: &str) -> Result<bool, Wrong> {
    match json {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("'{field}' must be true or false, not {}", kind(json))),
    }
}

/// `reason`, cut to [`wsmb_core::limits::REASON_BYTES`]; `None` if it says nothing.
pub(super) fn reason(json: &str) -> Result<Option<Box<str>>, Wrong> {
    let Some(text) = string(json) else { return Err(format!("'reason' must be a string, not {}", kind(json))) };
    let cut = text.floor_char_boundary(wsmb_core::limits::REASON_BYTES);
    Ok(text.get(..cut).filter(|text| !text.is_empty()).map(Box::from))
}

/// What is wrong with a value that is not what was `wanted`: its kind, or, if it is a string all the same, its text.
pub(super) fn unlike(field: &str, wanted: &str, json: &str) -> Wrong {
    match kind(json) {
        // The grammar lets it pass (RFC 8259 section 8.2), but no text has it.
        "a string" => {
            format!("'{field}' contains half of a surrogate pair; write both halves (\\ud83d\\ude00), or neither")
        }
        kind => format!("'{field}' must be {wanted}, not {kind}"),
    }
}

/// What a JSON value is, in words.
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

/// A whole number in digits; one that is too large is the largest there is.
fn whole(text: &str) -> Option<u64> {
    is_digits(text).then(|| text.parse().unwrap_or(u64::MAX))
}
