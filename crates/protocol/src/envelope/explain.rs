//! Finds the error message for a frame that is not a JSON object. For an error in the grammar, this is the message of `serde_json` with line and column.
//!
//! Called only for a frame that is refused already. Never decides whether a frame is refused, and never reads a field of it.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::field;
use crate::json;
use crate::limits;

/// White space in JSON (RFC 8259 section 2).
const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Returns the text of a frame.
///
/// # Errors
/// The frame is not UTF-8, begins with a byte order mark, or is nested too deep.
pub(super) fn text_of(payload: &[u8]) -> Result<&str, String> {
    if payload.starts_with(b"\xef\xbb\xbf") {
        return Err("the frame begins with a byte order mark; JSON must not".to_owned());
    }
    let text = std::str::from_utf8(payload).map_err(|_| "the frame is not UTF-8".to_owned())?;
    if !json::nests_within(payload, limits::JSON_DEPTH) {
        return Err(format!("the frame nests objects and lists more than {} deep", limits::JSON_DEPTH));
    }
    Ok(text)
}

/// Returns the error message for a text that is not a JSON object.
pub(super) fn not_an_object(text: &str) -> String {
    let start = text.trim_start_matches(WHITE_SPACE);
    let mut json = serde_json::Deserializer::from_str(text);
    let read = match start.as_bytes().first() {
        None => return "the frame is empty; a command is a JSON object".to_owned(),
        Some(b'{') => json.deserialize_map(Members { text }),
        Some(_) => json.deserialize_ignored_any(IgnoredAny).map(|IgnoredAny| ()),
    };
    match read.and_then(|()| json.end()) {
        Err(error) => format!("the frame is not JSON: {error}"),
        Ok(()) => format!("the frame is {}; a command is a JSON object", field::kind(start)),
    }
}

/// Reads an object member by member, and a list in `data` element by element: the message of `serde_json` depends on this.
struct Members<'a> {
    text: &'a str,
}

impl<'a> Visitor<'a> for Members<'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key::<Name<'a>>()? {
            match name {
                Cow::Borrowed(name) if name == "data" && self.list_follows(name) => map.next_value_seed(List)?,
                _ => map.next_value::<IgnoredAny>().map(|IgnoredAny| ())?,
            }
        }
        Ok(())
    }
}

impl Members<'_> {
    /// Whether the value of the member `name`, a slice of the text, begins with `[`.
    fn list_follows(&self, name: &str) -> bool {
        let end = (name.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize).wrapping_add(name.len());
        let value = self
            .text
            .get(end..)
            .and_then(|text| text.strip_prefix('"')?.trim_start_matches(WHITE_SPACE).strip_prefix(':'));
        value.is_some_and(|text| text.trim_start_matches(WHITE_SPACE).starts_with('['))
    }
}

/// The name of a member, borrowed if it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a list element by element.
struct List;

impl<'a> DeserializeSeed<'a> for List {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for List {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
